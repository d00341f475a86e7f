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

// guesses say when a name may begin with the revision that the coordinator was last
// shown, and not with one that is read for it. Whatever this coordinator has put before
// sorts before such a name. Whether what others have put does only the service can say:
// the commit is refused if a name stands that does not, and then reads after all. Where
// few processes put, most guesses are right, and each saves a request.
//
// To compare a range costs the service a look at all that is in it, on every member.
// So the revision must be new, and who was wrong does not try again soon.
type guesses struct {
	mu     sync.Mutex
	queues map[string]*known // by [queueOf]
	at     time.Duration     // by boottime: when the request was begun that showed the revision
	flying time.Duration     // since when a request with guesses is under way; 0: none is
}

// known is what is known of a queue.
type known struct {
	offset int64         // what its names have added to a revision
	at     time.Duration // when that was read
	until  time.Duration // before that nothing is guessed
	pause  time.Duration // for so long, after the last miss
}

const (
	guessAge   = 200 * time.Millisecond // of a revision, at most
	offsetAge  = 10 * time.Second
	firstPause = time.Second
	mostPause  = time.Minute
	mostKnown  = 1024 // queues
)

// heard is told when a request was begun that has shown a revision: no member that lags
// behind answers it.
func (g *guesses) heard(begun time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at = max(g.at, begun)
}

// read takes the answer to a read for a queue's names.
func (g *guesses) read(queue string, r *round, begun time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at = max(g.at, begun)
	q := g.queues[queue]
	if q == nil {
		if len(g.queues) >= mostKnown {
			maps.DeleteFunc(g.queues, func(_ string, old *known) bool { return begun-old.at > 2*offsetAge && begun > old.until })
		}
		if len(g.queues) >= mostKnown {
			return
		}
		if g.queues == nil {
			g.queues = make(map[string]*known)
		}
		q = new(known)
		g.queues[queue] = q
	}
	q.offset, q.at = r.seq-r.revision, begun
}

// may says whether names in the queues may be guessed now.
func (g *guesses) may(queues map[string]int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := boottime.Now()
	if now-g.at > guessAge || g.flying != 0 && now-g.flying > guessAge {
		return false
	}
	for queue := range queues {
		if q := g.queues[queue]; q == nil || now-q.at > offsetAge || now < q.until {
			return false
		}
	}
	return true
}

// begin says whether it is not too late to guess, when a request with guesses is about to
// be made.
func (g *guesses) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flying = boottime.Now()
	return g.flying-g.at <= guessAge
}

// ended is told what became of a request with guesses, if one was made.
func (g *guesses) ended(commits []*commit, outcomes []group.Outcome) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flying = 0
	now := boottime.Now()
	for i, c := range commits {
		if i == len(outcomes) || !errors.Is(outcomes[i].Err, errTaken) {
			continue
		}
		for _, op := range c.ops {
			if q := g.queues[queueOf(op.Path)]; q != nil && guessed(op) && now >= q.until {
				if now < q.until+q.pause {
					q.pause = min(2*q.pause, mostPause)
				} else {
					q.pause = firstPause
				}
				q.until = now + q.pause
			}
		}
	}
}

// forget is told that the service is not the one that it was.
func (g *guesses) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at, g.queues = 0, nil
}

// offset returns what was last read of the queue's.
func (g *guesses) offset(queue string) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if q := g.queues[queue]; q != nil {
		return q.offset
	}
	return 0
}

// guessed says that the name of a sequential op is a guess: see [session.number].
func guessed(op coord.Op) bool { return op.Kind == coord.KindSequential && op.Fence == 0 }

// number returns the ops with what the name of each sequential one begins with, where
// its fence would be: 0 where that is to be guessed when it is sent.
func (s *session) number(user context.Context, ops []coord.Op, guess bool) ([]coord.Op, error) {
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
	if !guess || s.puts.Waiting() >= batches.Commits || !s.c.guesses.may(queues) {
		ctx, cancel, err := s.call(user)
		if err != nil {
			return nil, err
		}
		defer cancel()
		for _, queue := range slices.Sorted(maps.Keys(queues)) {
			begun := boottime.Now()
			r, err := s.c.sequence(user, ctx, queue)
			if err != nil {
				return nil, err
			}
			s.c.guesses.read(queue, r, begun)
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

// name completes the paths of sequential nodes, just before they are sent. Those under
// one prefix sort in the order of the ops.
func (s *session) name(ops []coord.Op) []coord.Op {
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
	number, now, shown := s.c.numbers.take(n), time.Now(), s.c.shown.position().rev
	guess := make(map[string]int64, 1)
	for i, op := range ops {
		if op.Kind != coord.KindSequential {
			continue
		}
		seq := int64(op.Fence)
		if guessed(op) {
			queue := queueOf(op.Path)
			if guess[queue] == 0 {
				guess[queue] = max(shown+s.c.guesses.offset(queue), 1)
			}
			seq = guess[queue]
		}
		named[i].Path += suffix(seq, now, s.c.producer, number)
		number++
	}
	return named
}

// guessedFirst returns the least of the guessed names under each prefix.
func guessedFirst(commits ...*commit) map[string]string {
	var first map[string]string
	for _, c := range commits {
		for _, op := range c.ops {
			if !guessed(op) {
				continue
			}
			if first == nil {
				first = make(map[string]string, 1)
			}
			prefix := op.Path[:len(op.Path)-suffixLen]
			if path, ok := first[prefix]; !ok || op.Path < path {
				first[prefix] = op.Path
			}
		}
	}
	return first
}
