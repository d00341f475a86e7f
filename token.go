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

// Token names one put for ever, whether or not it was made. [Resolve] tells any process
// what became of that put, for at least 24 hours.
type Token string

// ParseToken returns the token that s spells, or an [ErrInvalid].
func ParseToken(s string) (Token, error) {
	if err := Token(s).check(); err != nil {
		return "", err
	}
	return Token(s), nil
}

func (t Token) check() error {
	if _, _, ok := layout.ParseToken(string(t)); !ok {
		return fmt.Errorf("token %q: tokens are spelled like 9f86d081884c7d65-00-1: %w", string(t), ErrInvalid)
	}
	return nil
}

// UnknownError is an [ErrUnknown] of a put, or of a simple queue's get: no answer came
// while there was time. [Resolve] tells what became of it.
type UnknownError struct {
	Token Token
	Err   error
}

func (e *UnknownError) Error() string {
	return (&lane.UnknownError{Token: string(e.Token), Err: e.Err}).Error()
}

// Unwrap makes it an [ErrUnknown], and its cause.
func (e *UnknownError) Unwrap() []error { return []error{ErrUnknown, e.Err} }

// Outcome is what became of a put.
type Outcome struct {
	// Applied: the entries were put. Otherwise they were not, and never will be.
	Applied bool

	// Note is what [WithNote] had put beside the entries.
	Note []byte
}

// Resolve returns what became of the put with the token t. If the put was not applied until
// now, Resolve makes sure that it never will be, not even by an attempt that is still under
// way. [ErrTokenExpired]: too late to tell.
func Resolve(ctx context.Context, c coord.Coordinator, t Token) (Outcome, error) {
	o, err := lane.Resolve(ctx, c, string(t))
	return Outcome{Applied: o.Applied, Note: o.Note}, err
}

// Forget removes what is kept for tokens that no process will ask about again. From then on
// they are [ErrTokenExpired]. Do not forget the token of a put that may still be under way.
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

// lanes are those of a queue handle. They commit exactly once: a put is applied once,
// however many answers are lost.
type lanes struct{ *lane.Set }

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

// once commits the ops exactly once. Its error is an [*UnknownError], or nothing was
// changed.
func (l lanes) once(ctx context.Context, note []byte, ops []coord.Op) (lane.Applied, error) {
	done, err := l.Set.Commit(ctx, note, ops)
	return done, publicUnknown(err)
}

// onceAs is once for the put of a token. It asks build for the ops just before the commit.
func (l lanes) onceAs(ctx context.Context, t Token, note []byte, build func(context.Context) ([]coord.Op, error)) (lane.Applied, error) {
	done, err := l.Set.CommitAs(ctx, string(t), note, build)
	return done, publicUnknown(err)
}

// publicUnknown gives a lane's error without an answer its public type.
func publicUnknown(err error) error {
	var unknown *lane.UnknownError
	if errors.As(err, &unknown) {
		return &UnknownError{Token: Token(unknown.Token), Err: unknown.Err}
	}
	return err
}
