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

// handle has the handler work on an entry, and finishes the entry as the handler's result
// says. It returns when the handler has returned, or was left behind.
func (r *run) handle(e *claimedEntry) {
	defer e.forget()
	a := Handled{Held: e.Held, Started: time.Now()}
	ctx := e.ctx
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.Timeout, ErrTimeout)
		defer cancel()
	}
	ctx = context.WithValue(ctx, heldKey{}, e.Held)

	result := make(chan error, 1)
	go r.call(ctx, e.Held, result)
	err, returned := r.await(ctx, result)
	cause := context.Cause(ctx)
	if !returned {
		a.stuck, err = true, fmt.Errorf("%w: %w", ErrStuck, cause)
		r.noteStuck(e.Held)
	}
	a.Took = time.Since(a.Started)
	r.settle(e, &a, err, cause)
	r.drop(e)
	if returned {
		return
	}
	// The entry has been given back; the handler still occupies its place.
	r.wakeTaker()
	select {
	case <-result:
		r.noteUnstuck(e.Held)
	case <-r.finishing.Done():
		r.mu.Lock()
		r.left++
		r.mu.Unlock()
	}
}

// await returns the handler's result, if it comes in time after ctx has ended.
func (r *run) await(ctx context.Context, result <-chan error) (err error, returned bool) {
	select {
	case err = <-result:
		return err, true
	case <-ctx.Done():
	}
	late := time.NewTimer(r.stuckAfter())
	defer late.Stop()
	for shutdown := r.working.Done(); ; {
		select {
		case err = <-result:
			return err, true
		case <-late.C:
			return nil, false
		case <-shutdown:
			shutdown = nil
			if r.stuckAfter() > shutdownDelay {
				late.Reset(shutdownDelay)
			}
		}
	}
}

// giveBack gives back an entry that no handler was called for.
func (r *run) giveBack(e *claimedEntry, why error) {
	defer e.forget()
	a := Handled{Held: e.Held, Started: time.Now(), Err: why}
	r.release(&a, EndingReleased)
	r.drop(e)
	r.wakeTaker()
	r.tell(a)
}

// call sends what the handler returns, or how it ended instead.
func (r *run) call(ctx context.Context, h *Held, result chan<- error) {
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

// settle finishes an entry as the handler's error says, and the cause of the end of its
// context, and reports it.
func (r *run) settle(e *claimedEntry, a *Handled, err, cause error) {
	a.Err = err
	var given *skip
	var later *snooze
	var back *putBack
	switch {
	case err == nil:
		r.finish(a, EndingDone, func(ctx context.Context) error { return r.remove(ctx, e) })
	case errors.Is(cause, ErrLockLost):
		r.release(a, EndingReleased) // in vain, most likely
	case errors.As(err, &given):
		r.bury(a)
	case errors.As(err, &later):
		r.release(a, EndingSnoozed, rest(later.d))
	case errors.As(err, &back):
		r.release(a, EndingReleased, back.opts...)
	case errors.Is(cause, ErrShutdown), r.taking.Err() != nil && errors.Is(err, context.Canceled):
		r.release(a, EndingReleased)
	default:
		if errors.Is(cause, ErrTimeout) && !errors.Is(err, ErrTimeout) {
			a.Err = fmt.Errorf("%w after %v: %w", ErrTimeout, r.Timeout, err)
		}
		if r.MaxFailures > 0 && a.Held.Failures+1 >= r.MaxFailures || a.stuck && a.Held.stuck+1 >= mostStuck {
			r.bury(a)
		} else {
			r.countFailure(a)
		}
	}
	r.tell(*a)
}

func (r *run) release(a *Handled, as Ending, opts ...ReleaseOption) {
	r.finish(a, as, func(ctx context.Context) error { return a.Held.Release(ctx, opts...) })
}

// rest puts an entry aside for d, or for a century.
func rest(d time.Duration) ReleaseOption { return After(min(d, 100*365*24*time.Hour)) }

func (r *run) countFailure(a *Handled) {
	a.rests = r.restAfter(a.Held.Failures + 1)
	reason := a.Err.Error()
	r.finish(a, EndingFailed, func(ctx context.Context) error {
		return a.Held.fail(ctx, reason, a.stuck, []ReleaseOption{After(a.rests)})
	})
}

func (r *run) bury(a *Handled) {
	reason := a.Err.Error()
	r.finish(a, EndingDead, func(ctx context.Context) error { return a.Held.Bury(ctx, reason) })
}

// finish ends a hold as do does, and notes what came of it. While nothing was
// changed it goes on trying: an entry that is forgotten stays locked for as long as
// the session lives.
func (r *run) finish(a *Handled, as Ending, do func(context.Context) error) {
	backoff := r.Queue.handle.Backoff(actFinish)
	logged := false
	err, _ := backoff.Do(r.finishing, nil, func() (retry.Decision, error) {
		err := do(r.finishing)
		if err == nil || r.isFinal(err, as) || r.refusesFinish(err) {
			return retry.Stop, err
		}
		if !logged {
			r.log().Warn("the finish is refused: the entry stays held until it succeeds", "queue", r.Queue.Name(), "entry", a.Held.Name, "error", err)
			logged = true
		}
		return retry.Later, err
	})
	switch {
	case err == nil:
		a.Ending = as
		return
	case errors.Is(err, ErrAlreadyDone):
		a.Ending = EndingDone
		return
	case errors.Is(err, ErrLockLost):
		a.Ending = EndingLost
	case errors.Is(err, ErrTooLarge) && as == EndingDead && !errors.Is(err, ErrUnknown) && r.finishing.Err() == nil:
		r.countFailure(a)
		return
	default:
		a.Ending = EndingUnknown
		if r.finishing.Err() != nil {
			a.Held.claimer.Spawn(func() { a.Held.finishBehind(do) })
		}
	}
	a.Err = errors.Join(a.Err, err)
}

// isFinal reports whether another attempt at a finish makes no sense, after one that ended
// with err.
func (r *run) isFinal(err error, as Ending) bool {
	for _, target := range []error{ErrAlreadyDone, ErrLockLost, ErrUnknown, coord.ErrClosed} {
		if errors.Is(err, target) {
			return true
		}
	}
	return r.finishing.Err() != nil || errors.Is(err, ErrTooLarge) && as == EndingDead
}

// refusesFinish reports whether the service has refused finishes for longer than a session
// because of who the worker is. Then it ends the run: the worker would hold its entries for
// ever.
func (r *run) refusesFinish(err error) bool {
	if !errors.Is(err, coord.ErrForbidden) && !errors.Is(err, coord.ErrAuth) {
		return false
	}
	r.mu.Lock()
	lasted := r.finishRefusals.addAndCheck(r.Queue.handle.SessionTimeout())
	r.mu.Unlock()
	if lasted {
		r.fail(err)
	}
	return lasted
}

// finishBehind goes on with a finish after the end of the run: without it the entry might be
// held for as long as the session lives. It gives up with the session.
func (h *Held) finishBehind(do func(context.Context) error) {
	var backoff retry.Backoff
	backoff.Do(context.Background(), h.lock.Session().Done(), func() (retry.Decision, error) {
		err := do(context.Background())
		if err == nil || errors.Is(err, ErrLockLost) || errors.Is(err, ErrAlreadyDone) || errors.Is(err, coord.ErrClosed) {
			return retry.Stop, err
		}
		return retry.Later, err
	})
}

// tell logs and reports what was handled.
func (r *run) tell(a Handled) {
	if r.Logger != nil {
		r.logHandled(&a)
	}
	r.report(a)
}

func (r *run) logHandled(a *Handled) {
	log, message := r.log().Debug, "entry "+string(a.Ending)
	args := []any{"queue", r.Queue.Name(), "entry", a.Held.Name, "delivery", a.Held.Deliveries, "took", a.Took}
	about := "error"
	switch a.Ending {
	case EndingFailed:
		log, about = r.log().Warn, "reason"
		args = append(args, "failures", a.Held.Failures+1, "rests", a.rests.Round(time.Millisecond))
	case EndingDead:
		log, about, message = r.log().Error, "reason", "entry is dead"
		args = append(args, "failures", a.Held.Failures+1)
	case EndingLost, EndingUnknown:
		log = r.log().Warn
	case EndingReleased:
		log = r.log().Info
	}
	if a.Err != nil {
		args = append(args, about, a.Err.Error())
	}
	if p := new(PanicError); errors.As(a.Err, &p) {
		log, args = r.log().Error, append(args, "stack", p.Stack)
	}
	log(message, args...)
}

// report calls the user's function.
func (r *run) report(a Handled) {
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
		case strings.HasSuffix(f.Function, "(*run).call"):
			more = false
		case panicking && (len(lines) > 0 || !strings.HasPrefix(f.Function, "runtime.")):
			lines = append(lines, fmt.Sprintf("%s %s:%d", f.Function, path.Base(f.File), f.Line))
		}
		if !more {
			return &PanicError{Value: value, Stack: strings.Join(lines, "\n")}
		}
	}
}
