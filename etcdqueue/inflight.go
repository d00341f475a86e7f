package etcdqueue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
)

// inFlightCommits are the commits that were sent and not answered. A member that loses its
// leader does not learn the outcome of the requests that it had forwarded, and answers them
// with a timeout after more than five seconds. When the driver sees a new leader, it stops
// waiting for them earlier.
type inFlightCommits struct {
	mu      sync.Mutex
	all     map[*inFlightCommit]struct{}
	term    uint64    // of the leader, when a member was last asked
	elected time.Time // when a new term was first seen
}

// inFlightCommit is one request with a commit.
type inFlightCommit struct {
	began  time.Time
	cancel context.CancelCauseFunc
}

// slowAfter is how long a commit may be in flight before a member is asked for its leader.
// After an election the driver does not wait longer than that.
const slowAfter = time.Second

// errNewLeader is the cause of a commit that was cancelled after an election.
var errNewLeader = errors.New("a new leader was elected before the last one answered")

// hasSlow reports whether a commit has been in flight for longer than slowAfter.
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

// observeTerm takes the term that a member is in. It cancels slow commits that were sent in
// an earlier term.
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

// resetTerm forgets the term: the service was restored, and its terms begin anew.
func (f *inFlightCommits) resetTerm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.term = 0
}

// answerGrace is how long a commit that was sent before its session ended may still be
// answered. The answer often comes, since it was the answer to another commit that reported
// the end.
const answerGrace = time.Second

// trackInFlight returns the context and the mark of one request with a commit, and the
// function to call when it has returned.
func (s *session) trackInFlight(user context.Context) (context.Context, *sentMark, func()) {
	ctx, cancel := context.WithCancelCause(user)
	ctx, mark := withSentMark(ctx)
	commit, all := &inFlightCommit{time.Now(), cancel}, &s.c.inFlight
	all.mu.Lock()
	all.all[commit] = struct{}{}
	all.mu.Unlock()
	coordinatorClosed := context.AfterFunc(s.c.ctx, func() { cancel(coord.ErrClosed) })
	// A request that was not sent is cancelled at once, one that was sent gets some time.
	sessionEnded := context.AfterFunc(s.ctx, func() {
		if mark.sent.Load() {
			select {
			case <-time.After(answerGrace):
			case <-ctx.Done():
			}
		}
		cancel(context.Cause(s.ctx))
	})
	return ctx, mark, func() {
		coordinatorClosed()
		sessionEnded()
		cancel(context.Canceled)
		all.mu.Lock()
		delete(all.all, commit)
		all.mu.Unlock()
	}
}
