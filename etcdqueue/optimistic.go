package etcdqueue

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/boottime"
	"github.com/zkq/zkq/internal/group"
)

// optimisticNames say when a name may begin with the revision that the coordinator was last
// shown, and not with one that is read for it. Whatever this coordinator has put before
// sorts before such a name. Whether what others have put does only the service can say:
// the commit is refused if a name stands that does not, and then reads after all. Where
// few processes put, most guesses are right, and each saves a request.
//
// To compare a range costs the service a look at all that is in it, on every member.
// So the revision must be new, and who was wrong does not try again soon.
type optimisticNames struct {
	mu           sync.Mutex
	queues       map[string]*queueNaming // by [queueOf]
	shownAt      time.Duration           // by boottime: when the request was begun that showed the revision
	requestSince time.Duration           // since when a request with guesses is under way; 0: none is
}

// queueNaming is what is known of a queue.
type queueNaming struct {
	offset      int64         // what its names have added to a revision
	readAt      time.Duration // when that was read
	pausedUntil time.Duration // before that nothing is guessed
	pause       time.Duration // for so long, after the last miss
}

const (
	maxRevisionAge = 200 * time.Millisecond // of a revision, at most
	maxOffsetAge   = 10 * time.Second
	firstPause     = time.Second
	maxPause       = time.Minute
	maxQueues      = 1024 // queues
)

// revisionShown is told when a request was begun that has shown a revision: no member that lags
// behind answers it.
func (g *optimisticNames) revisionShown(begun time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shownAt = max(g.shownAt, begun)
}

// recordRead takes the answer to a read for a queue's names.
func (g *optimisticNames) recordRead(queue string, r *revisionRead, begun time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shownAt = max(g.shownAt, begun)
	q := g.queues[queue]
	if q == nil {
		if len(g.queues) >= maxQueues {
			maps.DeleteFunc(g.queues, func(_ string, old *queueNaming) bool {
				return begun-old.readAt > 2*maxOffsetAge && begun > old.pausedUntil
			})
		}
		if len(g.queues) >= maxQueues {
			return
		}
		if g.queues == nil {
			g.queues = make(map[string]*queueNaming)
		}
		q = new(queueNaming)
		g.queues[queue] = q
	}
	q.offset, q.readAt = r.seq-r.revision, begun
}

// allowed says whether names in the queues may be guessed now.
func (g *optimisticNames) allowed(queues map[string]int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := boottime.Now()
	if now-g.shownAt > maxRevisionAge || g.requestSince != 0 && now-g.requestSince > maxRevisionAge {
		return false
	}
	for queue := range queues {
		if q := g.queues[queue]; q == nil || now-q.readAt > maxOffsetAge || now < q.pausedUntil {
			return false
		}
	}
	return true
}

// beginRequest says whether it is not too late to guess, when a request with guesses is about to
// be made.
func (g *optimisticNames) beginRequest() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requestSince = boottime.Now()
	return g.requestSince-g.shownAt <= maxRevisionAge
}

// endRequest is told what became of a request with guesses, if one was made.
func (g *optimisticNames) endRequest(commits []*pendingCommit, outcomes []group.Outcome) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requestSince = 0
	now := boottime.Now()
	for i, c := range commits {
		if i == len(outcomes) || !errors.Is(outcomes[i].Err, errNameTaken) {
			continue
		}
		for _, op := range c.ops {
			if q := g.queues[queueOf(op.Path)]; q != nil && isOptimistic(op) && now >= q.pausedUntil {
				if now < q.pausedUntil+q.pause {
					q.pause = min(2*q.pause, maxPause)
				} else {
					q.pause = firstPause
				}
				q.pausedUntil = now + q.pause
			}
		}
	}
}

// reset is told that the service is not the one that it was.
func (g *optimisticNames) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shownAt, g.queues = 0, nil
}

// offset returns what was last read of the queue's.
func (g *optimisticNames) offset(queue string) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if q := g.queues[queue]; q != nil {
		return q.offset
	}
	return 0
}

// isOptimistic says that the name of a sequential op is a guess: see [session.number].
func isOptimistic(op coord.Op) bool { return op.Kind == coord.KindSequential && op.Fence == 0 }

// numberOps returns the ops with what the name of each sequential one begins with, where
// its fence would be: 0 where that is to be guessed when it is sent.
func (s *session) numberOps(user context.Context, ops []coord.Op, guess bool) ([]coord.Op, error) {
	queues := make(map[string]int64, 1)
	for _, op := range ops {
		if op.Kind == coord.KindSequential {
			queues[queueOf(op.Path)] = 0
		}
	}
	if len(queues) == 0 {
		return ops, nil
	}
	// What does not go with the next request goes faster with a read, beside it.
	if !guess || s.optimisticCommits.Waiting() >= batchLimits.Commits || !s.c.optimistic.allowed(queues) {
		ctx, cancel, err := s.beginCall(user)
		if err != nil {
			return nil, err
		}
		defer cancel()
		for _, queue := range slices.Sorted(maps.Keys(queues)) {
			begun := boottime.Now()
			r, err := s.c.sequenceNumber(user, ctx, queue)
			if err != nil {
				return nil, err
			}
			s.c.optimistic.recordRead(queue, r, begun)
			queues[queue] = r.seq
		}
	}
	numbered := slices.Clone(ops)
	for i, op := range ops {
		if op.Kind == coord.KindSequential {
			numbered[i].Fence = coord.Fence(queues[queueOf(op.Path)])
		}
	}
	return numbered, nil
}

// completeNames completes the paths of sequential nodes, just before they are sent. Those under
// one prefix sort in the order of the ops.
func (s *session) completeNames(ops []coord.Op) []coord.Op {
	n := 0
	for _, op := range ops {
		if op.Kind == coord.KindSequential {
			n++
		}
	}
	if n == 0 {
		return ops
	}
	named := slices.Clone(ops)
	number, now, shown := s.c.nameCounter.reserve(n), time.Now(), s.c.revisions.current().rev
	guess := make(map[string]int64, 1)
	for i, op := range ops {
		if op.Kind != coord.KindSequential {
			continue
		}
		seq := int64(op.Fence)
		if isOptimistic(op) {
			queue := queueOf(op.Path)
			if guess[queue] == 0 {
				guess[queue] = max(shown+s.c.optimistic.offset(queue), 1)
			}
			seq = guess[queue]
		}
		named[i].Path += nameSuffix(seq, now, s.c.producer, number)
		number++
	}
	return named
}

// firstOptimisticNames returns the least of the guessed names under each prefix.
func firstOptimisticNames(commits ...*pendingCommit) map[string]string {
	var first map[string]string
	for _, c := range commits {
		for _, op := range c.ops {
			if !isOptimistic(op) {
				continue
			}
			if first == nil {
				first = make(map[string]string, 1)
			}
			prefix := op.Path[:len(op.Path)-nameSuffixLen]
			if path, ok := first[prefix]; !ok || op.Path < path {
				first[prefix] = op.Path
			}
		}
	}
	return first
}
