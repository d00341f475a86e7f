package zkq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Handler does the work of one entry. Its result decides how the worker finishes the entry:
//
//	nil         done: the entry is removed
//	Skip(err)   given up: the entry is moved to the dead at once
//	Snooze(d)   not now: the entry is ready again after d; not a failure
//	Release(…)  undone: the entry is ready at once, or as the options say; not a failure
//	any other   failed: the entry is ready again after a pause, or dead after Worker.MaxFailures
//
// A wrapped error counts as the error that it wraps. A panic is a failure. A handler may finish
// the entry itself, for example with [Held.Forward]; then its result changes nothing.
//
// ctx ends when the lock is lost, the Timeout is over, or the worker has stopped and its grace
// is over. [context.Cause] then returns [ErrLockLost], [ErrTimeout] or [ErrShutdown]. ctx does
// not end merely because the worker stops. After a lost lock the result changes nothing. An
// error that a handler returns because of ErrShutdown is no failure.
//
// A handler that ignores ctx is stuck one second (Worker.StuckAfter) after the end of ctx. The
// worker then gives the entry back, but the handler still occupies its slot.
type Handler interface {
	Handle(ctx context.Context, h *Held) error
}

// HandlerFunc lets a function be used as a [Handler].
type HandlerFunc func(ctx context.Context, h *Held) error

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, h *Held) error { return f(ctx, h) }

// Middleware returns a handler that calls another one, as middleware of net/http does. It may
// act before and after the call, and change the result.
type Middleware func(Handler) Handler

// Wrap returns h with middleware around it. The first middleware is the outermost: it is called
// first and sees the result last.
func Wrap(h Handler, around ...Middleware) Handler {
	for i := len(around) - 1; i >= 0; i-- {
		h = around[i](h)
	}
	return h
}

// Causes of the end of a handler's context, besides [ErrLockLost]: see [context.Cause].
var (
	// ErrTimeout says that the handler has run for as long as [Worker].Timeout allows.
	ErrTimeout = errors.New("zkq: handler timed out")
	// ErrShutdown says that the worker stops and its grace is over.
	ErrShutdown = errors.New("zkq: worker is shutting down")
)

// ErrStuck says that handlers have not returned although their contexts have ended. They still
// run; their entries were given back.
var ErrStuck = errors.New("zkq: handler does not return")

// Skip returns the error with which a handler gives its entry up: the worker moves the entry to
// the dead at once, with err as the reason. Use it if no later attempt can succeed.
func Skip(err error) error {
	if err == nil {
		err = errors.New("skipped")
	}
	return &skip{err}
}

// skip is the error of [Skip].
type skip struct{ err error }

func (s *skip) Error() string { return s.err.Error() }
func (s *skip) Unwrap() error { return s.err }

// Snooze returns the error with which a handler puts its entry off: no process takes the entry
// before d has passed. It is no failure, and [MaxDeliveries] does not count the delivery.
func Snooze(d time.Duration) error { return &snooze{max(d, 0)} }

// snooze is the error of [Snooze].
type snooze struct{ d time.Duration }

func (s *snooze) Error() string { return fmt.Sprintf("snoozed for %v", s.d) }

// Release returns the error with which a handler gives its entry back undone, as [Held.Release]
// does with these options. It is no failure, and [MaxDeliveries] does not count the delivery.
// Without options the same worker may take the entry again at once.
func Release(opts ...ReleaseOption) error { return &putBack{opts} }

// putBack is the error of [Release].
type putBack struct{ opts []ReleaseOption }

func (*putBack) Error() string { return "released" }

// Backoff returns a function for [Worker].Backoff. It returns first after the first failure,
// and twice as long after each further one, up to most. It subtracts a random part of at most
// half, so that entries that failed together do not come back together.
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

// heldKey is the key of the entry in a handler's context.
type heldKey struct{}

// HeldFrom returns the entry for which a [Worker] called a handler with ctx, or nil if ctx is
// from no worker. Code that the handler calls can use it, for example to log the entry's name.
func HeldFrom(ctx context.Context) *Held {
	h, _ := ctx.Value(heldKey{}).(*Held)
	return h
}
