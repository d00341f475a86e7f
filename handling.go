package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
)

// handle has the handler work on an entry, and does with the entry what follows
// from that. It returns the next, if it took one with that.
func (r *shift) handle(h *Held) (next *Held) {
	a := Handled{Held: h, Started: time.Now()}
	if r.taking.Err() != nil { // it was claimed as the worker stopped
		return r.settle(&a, ErrShutdown, ErrShutdown)
	}
	ctx, cancel := r.working, context.CancelFunc(func() {})
	if r.Timeout > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, r.Timeout, ErrTimeout)
	}
	defer cancel()
	ctx, forget := h.Context(ctx)
	defer forget()
	ctx = context.WithValue(ctx, heldKey{}, h)

	result := make(chan error, 1)
	go r.call(ctx, h, result)
	err, returned := await(ctx, result)
	cause := context.Cause(ctx)
	if !returned {
		a.stuck, err = true, fmt.Errorf("%w: %w", ErrStuck, cause)
		r.placeStuck(h)
	}
	a.Took = time.Since(a.Started)
	next = r.settle(&a, err, cause)
	if returned {
		return next
	}
	// The entry was given back; the handler still has the place.
	select {
	case <-result:
		r.placeFree(h)
	case <-r.settling.Done():
		r.mu.Lock()
		r.left++
		r.mu.Unlock()
	}
	return next
}

// await is the handler's result, if it comes before ctx has ended for as long as
// the leash.
func await(ctx context.Context, result <-chan error) (err error, returned bool) {
	select {
	case err = <-result:
		return err, true
	case <-ctx.Done():
	}
	t := time.NewTimer(leash)
	defer t.Stop()
	select {
	case err = <-result:
		return err, true
	case <-t.C:
		return nil, false
	}
}

// call sends what the handler returns, or how it ended instead.
func (r *shift) call(ctx context.Context, h *Held, result chan<- error) {
	var err error
	returned := false
	defer func() {
		if v := recover(); v != nil {
			err = newPanicError(v)
		} else if !returned {
			err = errors.New("handler ended its goroutine")
		}
		result <- err
	}()
	err = r.Handler.Handle(ctx, h)
	if err != nil {
		// A nil in an error of the handler's own panics here, where it is its own, and so do
		// methods that say what it wraps.
		_ = err.Error()
		errors.Is(err, context.Canceled)
		errors.As(err, new(*skip))
	}
	returned = true
}

// settle does with the entry what the handler's error says, and why its context
// ended, and tells of it. What is done makes room for the next.
func (r *shift) settle(a *Handled, err, cause error) (next *Held) {
	a.Err = err
	var given *skip
	var later *snooze
	switch {
	case err == nil:
		r.finish(a, EndingDone, func(ctx context.Context) error { return r.swap(ctx, a.Held, &next) })
	case errors.Is(cause, ErrLockLost):
		r.release(a, EndingReleased) // in vain, most likely
	case errors.As(err, &given):
		r.bury(a)
	case errors.As(err, &later):
		r.release(a, EndingSnoozed, rest(later.d))
	case errors.Is(cause, ErrShutdown), r.taking.Err() != nil && errors.Is(err, context.Canceled):
		r.release(a, EndingReleased)
	default:
		if errors.Is(cause, ErrTimeout) && !errors.Is(err, ErrTimeout) {
			a.Err = fmt.Errorf("%w after %v: %w", ErrTimeout, r.Timeout, err)
		}
		if r.MaxFailures > 0 && a.Held.Failures+1 >= r.MaxFailures || a.stuck && a.Held.stuck+1 >= mostStuck {
			r.bury(a)
		} else {
			r.fail(a)
		}
	}
	r.tell(*a)
	return next
}

// swap removes an entry, and takes the next in the same commit while the worker works.
func (r *shift) swap(ctx context.Context, h *Held, next **Held) error {
	if *next != nil || r.taking.Err() != nil {
		return h.Consume(ctx)
	}
	held, err := r.Queue.Exchange(ctx, []*Held{h}, 1)
	if len(held) > 0 {
		*next = held[0]
	}
	var failed *FinishError
	switch {
	case errors.As(err, &failed) && errors.Is(failed, ErrClosed):
		return h.Consume(ctx) // which may be finished still
	case errors.As(err, &failed):
		return failed.Err
	}
	return nil // what else is wrong the next take will tell
}

func (r *shift) release(a *Handled, as Ending, opts ...ReleaseOption) {
	r.finish(a, as, func(ctx context.Context) error { return a.Held.Release(ctx, opts...) })
}

// rest puts an entry aside for d, or for a century.
func rest(d time.Duration) ReleaseOption { return After(min(d, 100*365*24*time.Hour)) }

func (r *shift) fail(a *Handled) {
	pause := After(r.backoff(a.Held.Failures + 1))
	reason := a.Err.Error()
	r.finish(a, EndingFailed, func(ctx context.Context) error { return a.Held.fail(ctx, reason, a.stuck, []ReleaseOption{pause}) })
}

func (r *shift) bury(a *Handled) {
	reason := a.Err.Error()
	r.finish(a, EndingDead, func(ctx context.Context) error { return a.Held.Bury(ctx, reason) })
}

// finish ends a hold as do does, and notes what came of it. While nothing was
// changed it goes on trying: an entry that is forgotten stays locked for as long as
// the session lives.
func (r *shift) finish(a *Handled, as Ending, do func(context.Context) error) {
	for backoff := new(retry.Backoff); ; {
		err := do(r.settling)
		switch {
		case err == nil:
			a.Ending = as
			return
		case errors.Is(err, ErrAlreadyDone):
			a.Ending = EndingDone
			return
		case errors.Is(err, ErrLockLost):
			a.Ending = EndingLost
		case errors.Is(err, ErrUnknown), errors.Is(err, coord.ErrClosed), r.settling.Err() != nil:
			a.Ending = EndingUnknown
			if r.settling.Err() != nil {
				a.Held.queue.spawn(func() { a.Held.settleBehind(do) })
			}
		case errors.Is(err, ErrTooLarge) && as == EndingDead:
			r.fail(a)
			return
		default:
			r.log().Warn("still held", "queue", r.Queue.Name(), "entry", a.Held.Name, "error", err)
			backoff.Wait(r.settling, nil, err)
			continue
		}
		a.Err = errors.Join(a.Err, err)
		return
	}
}

// settleBehind goes on with a finish that nobody waits for any more: without it the
// entry might be held for as long as the session lives. It gives up with the session.
func (h *Held) settleBehind(do func(context.Context) error) {
	for backoff := new(retry.Backoff); ; {
		err := do(context.Background())
		if err == nil || errors.Is(err, ErrLockLost) || errors.Is(err, ErrAlreadyDone) || errors.Is(err, coord.ErrClosed) ||
			backoff.Wait(context.Background(), h.lock.Session().Done(), err) != nil {
			return
		}
	}
}

// tell logs and reports what was handled.
func (r *shift) tell(a Handled) {
	log, message := r.log().Debug, string(a.Ending)
	args := []any{"queue", r.Queue.Name(), "entry", a.Held.Name, "delivery", a.Held.Deliveries, "took", a.Took}
	switch a.Ending {
	case EndingFailed, EndingLost, EndingUnknown:
		log = r.log().Warn
	case EndingDead:
		log = r.log().Error
	case EndingReleased:
		log = r.log().Info
	}
	if a.Err != nil {
		args = append(args, "error", a.Err)
	}
	if p := new(PanicError); errors.As(a.Err, &p) {
		log, args = r.log().Error, append(args, "stack", p.Stack)
	}
	log("entry "+message, args...)
	r.report(a)
}

// report calls the user's function.
func (r *shift) report(a Handled) {
	if r.Report == nil {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			r.log().Error("Report panicked", "queue", r.Queue.Name(), "entry", a.Held.Name, "panic", fmt.Sprint(v))
		}
	}()
	r.Report(a)
}

// PanicError is a handler's panic.
type PanicError struct {
	Value any
	Stack string // function file:line, one to a line, from where it panicked
}

func (p *PanicError) Error() string {
	return fmt.Sprintf("panic: %v\n%s", p.Value, p.Stack)
}

// newPanicError is for the deferred function that recovered.
func newPanicError(value any) *PanicError {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	var lines []string
	panicking := false
	for {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			panicking, lines = true, nil
		case strings.HasSuffix(f.Function, "(*shift).call"):
			more = false
		case panicking && (len(lines) > 0 || !strings.HasPrefix(f.Function, "runtime.")):
			lines = append(lines, fmt.Sprintf("%s %s:%d", f.Function, path.Base(f.File), f.Line))
		}
		if !more {
			return &PanicError{Value: value, Stack: strings.Join(lines, "\n")}
		}
	}
}
