package zkq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Handler does the work of one entry. What it returns says what becomes of the
// entry:
//
//	nil         done: the entry is removed
//	Skip(err)   given up: moved to the dead at once
//	Snooze(d)   not now: back in its place, for nobody before d has passed; not a failure
//	Release(…)  undone: back in its place at once, or as the options say; not a failure
//	any other   failed: back in its place after a pause, or dead after Worker.MaxFailures
//
// Wrapped errors count as what they wrap. A panic is a failure. A handler may
// finish the entry itself, with [Held.Forward] for instance; what it returns then
// changes nothing.
//
// ctx ends, with the cause, when the lock is lost ([ErrLockLost]), the time is up
// ([ErrTimeout]), or the worker stops and its grace is over ([ErrShutdown]). It
// does not end merely because the worker stops. What a handler returns after its
// lock was lost changes nothing; what it returns because of ErrShutdown is no
// failure. A handler that does not look at ctx keeps its place in the worker: a
// second (Worker.StuckAfter) after the end of ctx the entry is given back without it.
type Handler interface {
	Handle(ctx context.Context, h *Held) error
}

// HandlerFunc is a function that is a [Handler].
type HandlerFunc func(ctx context.Context, h *Held) error

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, h *Held) error { return f(ctx, h) }

// Middleware makes a handler of another, as with net/http.
type Middleware func(Handler) Handler

// Wrap puts middleware around a handler; the first is the outermost.
func Wrap(h Handler, around ...Middleware) Handler {
	for i := len(around) - 1; i >= 0; i-- {
		h = around[i](h)
	}
	return h
}

// Why the context of a handler ended, besides [ErrLockLost]: see [context.Cause].
var (
	// ErrTimeout: the handler was given no more time.
	ErrTimeout = errors.New("zkq: handler timed out")
	// ErrShutdown: the worker stops, and its grace is over.
	ErrShutdown = errors.New("zkq: worker is shutting down")
)

// ErrStuck: handlers did not return though their context had ended. They run on;
// their entries were given back.
var ErrStuck = errors.New("zkq: handler does not return")

// Skip is what a handler returns to give its entry up: err is the reason.
func Skip(err error) error {
	if err == nil {
		err = errors.New("skipped")
	}
	return &skip{err}
}

type skip struct{ err error }

func (s *skip) Error() string { return s.err.Error() }
func (s *skip) Unwrap() error { return s.err }

// Snooze is what a handler returns to have the entry back in its place, for nobody
// before d has passed. It is not a failure, and not counted by [MaxDeliveries].
func Snooze(d time.Duration) error { return &snooze{max(d, 0)} }

type snooze struct{ d time.Duration }

func (s *snooze) Error() string { return fmt.Sprintf("snoozed for %v", s.d) }

// Release is what a handler returns to give its entry back undone, as [Held.Release] does
// with these options. It is not a failure, and not counted by [MaxDeliveries]. Without options
// the worker itself may take the entry again at once.
func Release(opts ...ReleaseOption) error { return &putBack{opts} }

type putBack struct{ opts []ReleaseOption }

func (*putBack) Error() string { return "released" }

// Backoff is for [Worker.Backoff]: first after the first failure and twice as long
// after each further one, up to most, less a random part of at most half, so that
// what failed together does not come back together.
func Backoff(first, most time.Duration) func(failures int) time.Duration {
	return func(failures int) time.Duration {
		d := max(min(first, most), 0)
		for ; failures > 1 && d > 0 && d < most; failures-- {
			if d *= 2; d <= 0 || d > most {
				d = most
			}
		}
		return d - rand.N(d/2+1)
	}
}

type heldKey struct{}

// HeldFrom is the entry that a [Worker] called a handler with ctx for, or nil.
func HeldFrom(ctx context.Context) *Held {
	h, _ := ctx.Value(heldKey{}).(*Held)
	return h
}
