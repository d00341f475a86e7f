package etcdqueue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
)

// inFlightCommits are the commits under way. A member that loses its leader does not learn
// what became of the requests that it had passed on, and answers them after more
// than five seconds with a timeout. Whoever sees a new leader can say so earlier.
type inFlightCommits struct {
	mu      sync.Mutex
	all     map[*inFlightCommit]struct{}
	term    uint64    // of the leader when last asked
	elected time.Time // when a new term was first seen
}

// inFlightCommit is one sending of a commit.
type inFlightCommit struct {
	began  time.Time
	cancel context.CancelCauseFunc
}

// slowAfter is how long a commit may be under way before one asks for the leader;
// after an election it is not waited for any longer.
const slowAfter = time.Second

var errNewLeader = errors.New("there is a new leader, and the last one did not answer")

// hasSlow says that a commit takes long.
func (f *inFlightCommits) hasSlow(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for x := range f.all {
		if now.Sub(x.began) > slowAfter {
			return true
		}
	}
	return false
}

// observeTerm is told of the term that a member is in, and gives up what was sent in an
// earlier one and takes too long.
func (f *inFlightCommits) observeTerm(term uint64, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if term > f.term {
		if f.term > 0 {
			f.elected = now
		}
		f.term = term
	}
	for x := range f.all {
		if x.began.Before(f.elected) && now.Sub(x.began) > slowAfter {
			x.cancel(errNewLeader)
		}
	}
}

// resetTerm is told that the service was restored: its terms begin anew.
func (f *inFlightCommits) resetTerm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.term = 0
}

// answerGrace is how long what was sent before its session ended may still be
// answered. Often it is: the answer to another commit told of the end.
const answerGrace = time.Second

// trackInFlight is the context of one sending, which lands in the end.
func (s *session) trackInFlight(user context.Context) (context.Context, *sentMark, func()) {
	ctx, cancel := context.WithCancelCause(user)
	ctx, envelope := withSentMark(ctx)
	x, all := &inFlightCommit{time.Now(), cancel}, &s.c.inFlight
	all.mu.Lock()
	all.all[x] = struct{}{}
	all.mu.Unlock()
	closed := context.AfterFunc(s.c.ctx, func() { cancel(coord.ErrClosed) })
	over := context.AfterFunc(s.ctx, func() {
		if envelope.sent.Load() {
			select {
			case <-time.After(answerGrace):
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
		delete(all.all, x)
		all.mu.Unlock()
	}
}
