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

// handle calls the handler with an entry, and finishes the entry as the handler's result says.
// It returns when the handler has returned. If the handler is stuck, the entry is given back
// first, and handle also returns at the end of the run: then the handler is left behind.
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
	r.finishByResult(e, &a, err, cause)
	r.drop(e)
	if returned {
		return
	}
	// The entry has been given back; the handler still occupies its slot.
	r.wakeTaker()
	select {
	case <-result:
		r.noteUnstuck(e.Held)
	case <-r.finishing.Done(): // the run ends without the handler
		r.mu.Lock()
		r.left++
		r.mu.Unlock()
	}
}

// await waits for the handler's result. returned is false if it did not come within StuckAfter
// after the end of ctx, or within shutdownDelay after the end of the grace.
func (r *run) await(ctx context.Context, result <-chan error) (err error, returned bool) {
	select {
	case err = <-result:
		return err, true
	case <-ctx.Done():
	}
	late := time.NewTimer(r.stuckAfter())
	defer late.Stop()
	for shutdown := r.working.Done(); ; { // nil once the grace is over
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

// giveBack releases an entry for which no handler was called, and reports why. The delivery
// does not count.
func (r *run) giveBack(e *claimedEntry, why error) {
	defer e.forget()
	a := Handled{Held: e.Held, Started: time.Now(), Err: why}
	r.release(&a, EndingReleased)
	r.drop(e)
	r.wakeTaker()
	r.logAndReport(a)
}

// call calls the handler and sends its result. A panic, and an end of the handler's goroutine by
// [runtime.Goexit], are sent as errors.
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
		// Call the methods of the handler's error here, where a panic in them is recovered
		// and counts as the handler's.
		_ = err.Error()
		errors.Is(err, context.Canceled)
		errors.As(err, new(*skip))
	}
	returned = true
}

// finishByResult finishes an entry as the handler's error says, and reports it. cause is that of
// the end of the handler's context, or nil. A lost lock counts before the handler's error, and
// the handler's own Skip, Snooze and Release before a timeout or shutdown.
func (r *run) finishByResult(e *claimedEntry, a *Handled, err, cause error) {
	a.Err = err
	var given *skip
	var later *snooze
	var back *putBack
	switch {
	case err == nil:
		r.finish(a, EndingDone, func(ctx context.Context) error { return r.remove(ctx, e) })
	case errors.Is(cause, ErrLockLost):
		r.release(a, EndingReleased) // most likely it returns ErrLockLost
	case errors.As(err, &given):
		r.bury(a)
	case errors.As(err, &later):
		r.release(a, EndingSnoozed, snoozeOption(later.d))
	case errors.As(err, &back):
		r.release(a, EndingReleased, back.opts...)
	case errors.Is(cause, ErrShutdown), r.taking.Err() != nil && errors.Is(err, context.Canceled):
		r.release(a, EndingReleased)
	default: // a failure
		if errors.Is(cause, ErrTimeout) && !errors.Is(err, ErrTimeout) {
			a.Err = fmt.Errorf("%w after %v: %w", ErrTimeout, r.Timeout, err)
		}
		if r.MaxFailures > 0 && a.Held.Failures+1 >= r.MaxFailures || a.stuck && a.Held.stuck+1 >= mostStuck {
			r.bury(a)
		} else {
			r.countFailure(a)
		}
	}
	r.logAndReport(*a)
}

// release gives the entry back as no failure. The ending is as, if that succeeds.
func (r *run) release(a *Handled, as Ending, opts ...ReleaseOption) {
	r.finish(a, as, func(ctx context.Context) error { return a.Held.Release(ctx, opts...) })
}

// snoozeOption delays an entry for d, but for at most a century: longer delays are refused.
func snoozeOption(d time.Duration) ReleaseOption { return After(min(d, 100*365*24*time.Hour)) }

// countFailure gives the entry back with a failure more. It rests as long as Backoff says.
func (r *run) countFailure(a *Handled) {
	a.rests = r.restAfter(a.Held.Failures + 1)
	reason := a.Err.Error()
	r.finish(a, EndingFailed, func(ctx context.Context) error {
		return a.Held.fail(ctx, reason, a.stuck, []ReleaseOption{After(a.rests)})
	})
}

// bury moves the entry to the dead, with the handler's error as the reason.
func (r *run) bury(a *Handled) {
	reason := a.Err.Error()
	r.finish(a, EndingDead, func(ctx context.Context) error { return a.Held.Bury(ctx, reason) })
}

// finish calls do, which finishes the entry, until that succeeds or another attempt makes no
// sense. It notes in a how the hold ended: as, if do succeeded. It retries after errors that
// changed nothing, because an entry without a finish stays locked as long as the session lives.
// If the run ends first, a goroutine goes on with the finish.
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
	case errors.Is(err, ErrAlreadyDone): // the handler finished the entry itself
		a.Ending = EndingDone
		return
	case errors.Is(err, ErrLockLost):
		a.Ending = EndingLost
	case errors.Is(err, ErrTooLarge) && as == EndingDead && !errors.Is(err, ErrUnknown) && r.finishing.Err() == nil:
		r.countFailure(a) // a dead entry has headers of its own, and these do not fit
		return
	default:
		a.Ending = EndingUnknown
		if r.finishing.Err() != nil {
			a.Held.claimer.Spawn(func() { a.Held.finishInBackground(do) })
		}
	}
	a.Err = errors.Join(a.Err, err)
}

// isFinal reports whether another attempt at a finish makes no sense after the error err: the
// outcome is known or stays unknown, or the run has ended. An entry that is too large to be
// moved to the dead is given back instead.
func (r *run) isFinal(err error, as Ending) bool {
	for _, target := range []error{ErrAlreadyDone, ErrLockLost, ErrUnknown, coord.ErrClosed} {
		if errors.Is(err, target) {
			return true
		}
	}
	return r.finishing.Err() != nil || errors.Is(err, ErrTooLarge) && as == EndingDead
}

// refusesFinish reports whether the service has refused finishes, because of the worker's
// credentials, for longer than a session timeout. Then it also ends the run: otherwise the
// worker would hold its entries for ever.
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

// logAndReport logs the ending of an entry and passes it to the user's Report.
func (r *run) logAndReport(a Handled) {
	if r.Logger != nil {
		r.logHandled(&a)
	}
	r.report(a)
}

// logHandled logs the ending of an entry, at the level that fits it.
func (r *run) logHandled(a *Handled) {
	log, message := r.log().Debug, "entry "+string(a.Ending)
	args := []any{"queue", r.Queue.Name(), "entry", a.Held.Name, "delivery", a.Held.Deliveries, "took", a.Took}
	about := "error" // the key of a.Err in the message
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

// report calls the user's Report, if there is one. A panic in it is logged.
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

// PanicError is the error of a handler that panicked. It is in [Handled].Err, and counts as a
// failure.
type PanicError struct {
	Value any    // the argument of panic
	Stack string // "function file:line", one on each line, from the panic up to the handler
}

func (p *PanicError) Error() string {
	return fmt.Sprintf("panic: %v\n%s", p.Value, p.Stack)
}

// newPanicError returns the error for a recovered panic. Only the deferred function that
// recovered it may call it: the stack still shows where the panic began.
func newPanicError(value any) *PanicError {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	var lines []string
	panicking := false
	for {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic": // the frames so far are of the recovery
			panicking, lines = true, nil
		case strings.HasSuffix(f.Function, "(*run).call"): // the handler's caller
			more = false
		case panicking && (len(lines) > 0 || !strings.HasPrefix(f.Function, "runtime.")):
			lines = append(lines, fmt.Sprintf("%s %s:%d", f.Function, path.Base(f.File), f.Line))
		}
		if !more {
			return &PanicError{Value: value, Stack: strings.Join(lines, "\n")}
		}
	}
}
