package etcdqueue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
)

// flights are the commits under way. A member that loses its leader does not learn
// what became of the requests that it had passed on, and answers them after more
// than five seconds with a timeout. Whoever sees a new leader can say so earlier.
type flights struct {
	mu      sync.Mutex
	up      map[*flight]struct{}
	term    uint64    // of the leader when last asked
	elected time.Time // when a new term was first seen
}

// flight is one sending of a commit.
type flight struct {
	begun  time.Time
	cancel context.CancelCauseFunc
}

// patience is how long a commit may be under way before one asks for the leader;
// after an election it is not waited for any longer.
const patience = time.Second

var errElection = errors.New("there is a new leader, and the last one did not answer")

// overdue says that a commit takes long.
func (f *flights) overdue(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for x := range f.up {
		if now.Sub(x.begun) > patience {
			return true
		}
	}
	return false
}

// see is told of the term that a member is in, and gives up what was sent in an
// earlier one and takes too long.
func (f *flights) see(term uint64, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if term > f.term {
		if f.term > 0 {
			f.elected = now
		}
		f.term = term
	}
	for x := range f.up {
		if x.begun.Before(f.elected) && now.Sub(x.begun) > patience {
			x.cancel(errElection)
		}
	}
}

// forget is told that the service was restored: its terms begin anew.
func (f *flights) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.term = 0
}

// lastAnswers is how long what was sent before its session ended may still be
// answered. Often it is: the answer to another commit told of the end.
const lastAnswers = time.Second

// flight is the context of one sending, which lands in the end.
func (s *session) flight(user context.Context) (context.Context, *envelope, func()) {
	ctx, cancel := context.WithCancelCause(user)
	ctx, envelope := seal(ctx)
	x, all := &flight{time.Now(), cancel}, &s.c.flights
	all.mu.Lock()
	all.up[x] = struct{}{}
	all.mu.Unlock()
	closed := context.AfterFunc(s.c.ctx, func() { cancel(coord.ErrClosed) })
	over := context.AfterFunc(s.ctx, func() {
		if envelope.sent.Load() {
			select {
			case <-time.After(lastAnswers):
			case <-ctx.Done():
			}
		}
		cancel(context.Cause(s.ctx))
	})
	return ctx, envelope, func() {
		closed()
		over()
		cancel(context.Canceled)
		all.mu.Lock()
		delete(all.up, x)
		all.mu.Unlock()
	}
}
