// Package retry makes an operation's attempts: it decides how long to wait between two of
// them, and ends the wait when the caller's context or the session does.
//
// An operation is a function that makes one attempt and decides how to go on: [Backoff.Do]
// calls it until it decides to [Stop], or until there is no time left. [Backoff.Repeat] leaves
// the end of the time to the function. Functions like [Decide] make the decision from an error of
// the coordination service. Nothing else in the module has a loop that waits between attempts.
package retry

import (
	"context"
	"errors"
	"time"

	"github.com/zkq/zkq/coord"
)

// Decision is how an operation goes on after an attempt.
type Decision int

const (
	// Stop ends the operation: the attempt's error, or nil, is its result.
	Stop Decision = iota
	// Now makes another attempt at once: something changed, or nothing was sent.
	Now
	// Later makes another attempt after a pause.
	Later
)

// Backoff paces the attempts of one operation: the first pause is short, and each pause
// is twice as long as the one before. The zero Backoff is ready for use. It belongs to one
// goroutine.
type Backoff struct {
	First  time.Duration // the first pause; 0: 5 ms
	Max    time.Duration // the longest pause; 0: 1 s
	Linear bool          // each pause is First longer than the one before, rather than twice as long

	// Wake ends a pause early: another attempt is worth making now.
	Wake <-chan struct{}

	// Observer is called when the operation waits for a busy service; nil: no call. Act
	// names the operation for it, "put" for instance.
	Observer Observer
	Act      string

	delay     time.Duration // of the next pause; 0: First
	firstBusy time.Time     // first of the ErrBusy refusals that followed one another
	lastBusy  time.Time
}

// Observer is called about operations that wait because the service refuses them for now
// ([coord.ErrBusy]). Its methods may be called from several goroutines.
type Observer interface {
	// Waiting is called with each refusal, once the operation has met them for [ReportAfter].
	Waiting(act string, err error)
	// Served is called when an operation of that name has succeeded.
	Served(act string)
}

const (
	// ReportAfter is how long an operation waits for a busy service before the
	// [Observer] is called.
	ReportAfter = time.Second

	// separateBusy is the time between two refusals that makes them two waits.
	separateBusy = time.Minute

	defaultFirst = 5 * time.Millisecond
	defaultMax   = time.Second
)

// Do calls attempt until it decides to stop, with pauses in between. result is the error of
// the last attempt. interrupted says why no other attempt was made though the last one
// asked for a pause and another: ctx's error, or [coord.ErrSessionLost] when done was
// closed. It is nil when the operation stopped by itself. done may be nil.
//
// Do looks at ctx and done only during a pause: an attempt that asks for another one [Now]
// looks at its context itself.
func (b *Backoff) Do(ctx context.Context, done <-chan struct{}, attempt func() (Decision, error)) (result, interrupted error) {
	for {
		decision, err := attempt()
		switch decision {
		case Stop:
			return err, nil
		case Later:
			if interrupted := b.Wait(ctx, done, err); interrupted != nil {
				return err, interrupted
			}
		}
	}
}

// Repeat calls attempt until it decides to stop, with pauses in between. The end of ctx or of
// done ends a pause early, and another attempt follows: it looks itself whether it can do
// anything. done may be nil.
func (b *Backoff) Repeat(ctx context.Context, done <-chan struct{}, attempt func() Decision) {
	for {
		switch attempt() {
		case Stop:
			return
		case Later:
			_ = b.Wait(ctx, done, nil)
		}
	}
}

// Wait waits before the next attempt, after one that ended with err. It returns an error
// where another attempt makes no sense: ctx's, or [coord.ErrSessionLost] when done was
// closed. done may be nil.
func (b *Backoff) Wait(ctx context.Context, done <-chan struct{}, err error) error {
	b.report(err)
	t := time.NewTimer(b.next())
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-done:
	case <-b.Wake:
	case <-t.C:
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case <-done:
		return coord.ErrSessionLost
	default:
		return nil
	}
}

// Reset makes the next pause the first again: the operation has made progress.
func (b *Backoff) Reset() { b.delay, b.firstBusy, b.lastBusy = 0, time.Time{}, time.Time{} }

// Succeeded tells the observer that the operation was served.
func (b *Backoff) Succeeded() {
	if b.Observer != nil {
		b.Observer.Served(b.Act)
	}
}

// next returns the length of the pause that begins now, and prepares the one after it.
func (b *Backoff) next() time.Duration {
	first, longest := b.First, b.Max
	if first == 0 {
		first = defaultFirst
	}
	if longest == 0 {
		longest = defaultMax
	}
	if b.delay == 0 {
		b.delay = min(first, longest)
	}
	delay := b.delay
	if b.Linear {
		b.delay = min(delay+first, longest)
	} else {
		b.delay = min(2*delay, longest)
	}
	return delay
}

// report tells the observer of a refusal, once refusals have lasted for ReportAfter.
func (b *Backoff) report(err error) {
	if b.Observer == nil || !errors.Is(err, coord.ErrBusy) {
		return
	}
	now := time.Now()
	if now.Sub(b.lastBusy) > separateBusy {
		b.firstBusy = now
	}
	b.lastBusy = now
	if now.Sub(b.firstBusy) >= ReportAfter {
		b.Observer.Waiting(b.Act, err)
	}
}

// AcrossSessions calls f until it returns something else than that its session was over
// before anything was sent: then the next session can do it. f opens the live session
// itself, and ends with its context.
func AcrossSessions(f func() error) error {
	for {
		if err := f(); !NothingSent(err) {
			return err
		}
	}
}
