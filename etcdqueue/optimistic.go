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

// optimisticNames decides when a name may use the latest revision that the coordinator has
// seen, instead of one that is read for it. Such a name sorts after all names of this
// coordinator. Whether it also sorts after the names of other processes only the service
// knows: the commit is refused if it does not, and then reads the revision. Where few
// processes put, most optimistic names are accepted, and each saves a request.
//
// The range check costs every member a look at the names in the range. So the revision must
// be recent, and a queue whose optimistic name was refused pauses before it tries another.
type optimisticNames struct {
	mu           sync.Mutex
	queues       map[string]*queueNaming // by queueOf
	shownAt      time.Duration           // by boottime: when the request began that showed the latest revision
	requestSince time.Duration           // when the optimistic request in flight began; 0: none is
}

// queueNaming is what is known of one queue's names.
type queueNaming struct {
	// The queue's configured offset.
	offset int64
	// When the offset was read.
	readAt time.Duration
	// No optimistic name before that.
	pausedUntil time.Duration
	// Length of the pause after the last refusal.
	pause time.Duration
}

// How long what is known of the names may be used, and how long a queue pauses after a
// refusal: at first firstPause, and after refusals in a row up to maxPause.
const (
	maxRevisionAge = 200 * time.Millisecond // of a revision
	maxOffsetAge   = 10 * time.Second
	firstPause     = time.Second
	maxPause       = time.Minute
	maxQueues      = 1024 // queues that are remembered
)

// revisionShown notes when a request began that has shown a revision. Only requests that no
// lagging member answers count.
func (o *optimisticNames) revisionShown(begun time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shownAt = max(o.shownAt, begun)
}

// recordRead takes the answer to a read of a queue's revision and offset.
func (o *optimisticNames) recordRead(queue string, r *revisionRead, begun time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shownAt = max(o.shownAt, begun)
	q := o.queues[queue]
	if q == nil {
		if len(o.queues) >= maxQueues {
			maps.DeleteFunc(o.queues, func(_ string, old *queueNaming) bool {
				return begun-old.readAt > 2*maxOffsetAge && begun > old.pausedUntil
			})
		}
		if len(o.queues) >= maxQueues {
			return
		}
		if o.queues == nil {
			o.queues = make(map[string]*queueNaming)
		}
		q = new(queueNaming)
		o.queues[queue] = q
	}
	q.offset, q.readAt = r.seq-r.revision, begun
}

// allowed reports whether names in the queues may be optimistic now.
func (o *optimisticNames) allowed(queues map[string]int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := boottime.Now()
	if now-o.shownAt > maxRevisionAge || o.requestSince != 0 && now-o.requestSince > maxRevisionAge {
		return false
	}
	for queue := range queues {
		if q := o.queues[queue]; q == nil || now-q.readAt > maxOffsetAge || now < q.pausedUntil {
			return false
		}
	}
	return true
}

// beginRequest is called when an optimistic request is about to be sent. It returns false
// if the revision has become too old.
func (o *optimisticNames) beginRequest() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requestSince = boottime.Now()
	return o.requestSince-o.shownAt <= maxRevisionAge
}

// endRequest takes the outcomes of an optimistic request, if one was sent. A queue whose
// name was refused pauses. If the next refusal comes soon after the pause, within its
// length, the next pause is twice as long, up to a minute.
func (o *optimisticNames) endRequest(commits []*pendingCommit, outcomes []group.Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requestSince = 0
	now := boottime.Now()
	for i, c := range commits {
		if i == len(outcomes) || !errors.Is(outcomes[i].Err, errNameTaken) {
			continue
		}
		for _, op := range c.ops {
			if q := o.queues[queueOf(op.Path)]; q != nil && isOptimistic(op) && now >= q.pausedUntil {
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

// reset forgets everything: the service was restored.
func (o *optimisticNames) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shownAt, o.queues = 0, nil
}

// offset returns the number that the queue's configuration adds to the revisions in names
// (after a restore), as last read; 0 if it was not read.
func (o *optimisticNames) offset(queue string) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if q := o.queues[queue]; q != nil {
		return q.offset
	}
	return 0
}

// isOptimistic reports whether the op's name is optimistic: see [session.numberOps].
func isOptimistic(op coord.Op) bool { return op.Kind == coord.KindSequential && op.Fence == 0 }

// numberOps returns the ops with the number that each sequential name begins with in the
// op's fence; 0 stands for an optimistic name, which gets its number when it is sent.
func (s *session) numberOps(user context.Context, ops []coord.Op, optimistic bool) ([]coord.Op, error) {
	queues := make(map[string]int64, 1)
	for _, op := range ops {
		if op.Kind == coord.KindSequential {
			queues[queueOf(op.Path)] = 0
		}
	}
	if len(queues) == 0 {
		return ops, nil
	}
	// A commit that would wait for the request after the next is faster with a read meanwhile.
	if !optimistic || s.optimisticCommits.Waiting() >= batchLimits.Commits || !s.c.optimistic.allowed(queues) {
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

// completeNames completes the paths of sequential nodes, just before they are sent. Names
// with the same prefix sort in the order of the ops.
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
	sequence := make(map[string]int64, 1)
	for i, op := range ops {
		if op.Kind != coord.KindSequential {
			continue
		}
		seq := int64(op.Fence)
		if isOptimistic(op) {
			queue := queueOf(op.Path)
			if sequence[queue] == 0 {
				sequence[queue] = max(shown+s.c.optimistic.offset(queue), 1)
			}
			seq = sequence[queue]
		}
		named[i].Path += nameSuffix(seq, now, s.c.producer, number)
		number++
	}
	return named
}

// firstOptimisticNames returns the lowest optimistic name for each prefix.
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
