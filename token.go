package zkq

import (
	"context"
	"errors"
	"fmt"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/lane"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Token names one put, whether or not it was made; no other put ever has the same token. Any
// process can ask [Resolve] for the put's outcome, for at least 24 hours.
type Token string

// ParseToken returns the token that s spells, or an [ErrInvalid].
func ParseToken(s string) (Token, error) {
	if err := Token(s).check(); err != nil {
		return "", err
	}
	return Token(s), nil
}

// check returns an [ErrInvalid] if t is not spelled like a token.
func (t Token) check() error {
	if _, _, ok := layout.ParseToken(string(t)); !ok {
		return fmt.Errorf("token %q: tokens are spelled like 9f86d081884c7d65-00-1: %w", string(t), ErrInvalid)
	}
	return nil
}

// UnknownError is an [ErrUnknown] of a put, or of a simple queue's get: no answer came in time,
// and the commit may have been applied. [Resolve] returns the outcome, and makes
// sure that it does not change any more.
type UnknownError struct {
	Token Token // for Resolve
	Err   error // why the call stopped asking, the context's error for instance
}

func (e *UnknownError) Error() string {
	return (&lane.UnknownError{Token: string(e.Token), Err: e.Err}).Error()
}

// Unwrap returns [ErrUnknown] and the cause, so that errors.Is finds both.
func (e *UnknownError) Unwrap() []error { return []error{ErrUnknown, e.Err} }

// Outcome is what became of a put.
type Outcome struct {
	// Applied is true if the entries were put, even if they have been taken since. If it is
	// false, they were not put and never will be.
	Applied bool

	// Note is the note that the put had from [WithNote].
	Note []byte
}

// Resolve returns the outcome of the put with the token t. If the put has not been applied yet,
// Resolve makes sure that it never will be, not even by an attempt that is still under way. It
// retries lost answers until ctx ends. [ErrTokenExpired]: the service no longer knows the
// outcome.
func Resolve(ctx context.Context, c coord.Coordinator, t Token) (Outcome, error) {
	o, err := lane.Resolve(ctx, c, string(t))
	return Outcome{Applied: o.Applied, Note: o.Note}, err
}

// Forget removes the outcomes of puts that no process will ask about again. After that, Resolve
// returns [ErrTokenExpired] for their tokens. Do not forget the token of a put that may still
// be under way.
func Forget(ctx context.Context, c coord.Coordinator, tokens ...Token) error {
	for _, t := range tokens {
		if err := lane.Forget(ctx, c, string(t)); err != nil {
			return fmt.Errorf("forget %s: %w", t, err)
		}
	}
	return nil
}

// Sweep removes the nodes of producers that died, and the tokens that were never
// forgotten, once they are older than a day. Until then it reads one node. A queue handle
// that lives for an hour calls it once a day, so Sweep is for systems in which no process
// that puts lives that long.
func Sweep(ctx context.Context, c coord.Coordinator) error { return lane.Sweep(ctx, c) }

// lanes make the commits of a queue handle that must be applied exactly once, even if answers
// are lost. They are the handle's [lane.Set], with errors of this package.
type lanes struct{ *lane.Set }

// newLanes returns the lanes of a handle. series begins their names; "" for a random one.
func newLanes(h *handle.Handle, series string) lanes {
	return lanes{lane.NewSet(lane.Config{
		Series:      series,
		Coordinator: h.Coordinator,
		Session:     h.Session,
		Backoff:     func() *retry.Backoff { return h.Backoff(actPut) },
		Spawn:       func(f func(context.Context)) { h.Spawn(func() { f(h.Life) }) },
		Woke:        h.Woke,
	})}
}

// commitOnce commits the ops exactly once; send sends each attempt, and nil stands for the
// session. Its error is an [*UnknownError], or nothing was changed. If the answer was lost and
// the commit applied, there are no Results.
func (l lanes) commitOnce(ctx context.Context, note []byte, ops []coord.Op, send lane.Sender) (lane.Applied, error) {
	done, err := l.Set.Commit(ctx, note, ops, send)
	return done, publicUnknown(err)
}

// commitOnceAs is commitOnce for the commit that the token names. It calls build for the ops
// just before the commit. If any process has made the commit before, build is not called
// and there are no Results.
func (l lanes) commitOnceAs(ctx context.Context, t Token, note []byte, build func(context.Context) ([]coord.Op, error), send lane.Sender) (lane.Applied, error) {
	done, err := l.Set.CommitAs(ctx, string(t), note, build, send)
	return done, publicUnknown(err)
}

// publicUnknown returns err with a lane's UnknownError replaced by the public type.
func publicUnknown(err error) error {
	var unknown *lane.UnknownError
	if errors.As(err, &unknown) {
		return &UnknownError{Token: Token(unknown.Token), Err: unknown.Err}
	}
	return err
}
