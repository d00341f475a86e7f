package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Consume removes the entry: the work is done. One commit deletes the entry and its lock. It
// applies only if both are as the claim left them, so it never removes an entry that another
// process holds. Consume blocks until the service answers: after a lost answer it retries until
// ctx or the session ends. It returns
//
//   - nil if this call removed the entry;
//   - [ErrLockLost] if the entry was not held any more: this call removed nothing, and another
//     process may hold the entry, or have removed it;
//   - [ErrAlreadyDone] if an earlier call finished this Held;
//   - [ErrNotHeld] if no take returned this Held;
//   - [ErrUnknown] if there was no answer in time: the entry was removed, or is handed out
//     again. Call Consume again to learn more;
//   - another error if nothing was changed: the entry is still held.
func (h *Held) Consume(ctx context.Context) error {
	return h.finish(ctx, h.consumption())
}

// consumption returns the finish of [Held.Consume].
func (h *Held) consumption() finish {
	return finish{
		act: "consume", entry: coord.Delete(h.entry, h.at()), wasApplied: h.wasRemoved,
		extraOps: func(context.Context) ([]coord.Op, error) { return h.past.removeOps(), nil },
	}
}

// ReleaseOption changes how [Held.Release] and [Held.Fail] give an entry back.
type ReleaseOption func(*releaseOptions)

// releaseOptions holds what LeaveAlone and After set; 0 means not set.
type releaseOptions struct{ alone, after time.Duration }

// LeaveAlone keeps takes of this queue handle from the entry for d. Other handles, also in the
// same process, may take it at once. Use it for an entry that this process cannot work on.
func LeaveAlone(d time.Duration) ReleaseOption {
	return func(o *releaseOptions) { o.alone = d }
}

// After delays the entry for d. It keeps its name and its place, but no process takes it until
// d is over. Then any process that takes entries makes it ready, even if this process has
// ended. The due time is by this machine's clock; the process that makes the entry ready
// compares it with its own clock.
//
// A d of 0 or less is no delay. A delay that ends after the year 2285 is refused with
// [ErrInvalid], and the entry stays held.
func After(d time.Duration) ReleaseOption {
	return func(o *releaseOptions) { o.after = d }
}

// Release gives the entry back undone: any process may take it at once, in its old place. It is
// no failure, and [MaxDeliveries] does not count this delivery. Errors are those of Consume.
// After [ErrUnknown] the entry is given back, or will be when the session ends, unless an
// operator removed it.
func (h *Held) Release(ctx context.Context, opts ...ReleaseOption) error {
	return h.giveBack(ctx, h.release(), opts)
}

// release returns the finish of [Held.Release]. Its history forgives the change that the claim
// made to the entry, so that the delivery does not count.
func (h *Held) release() finish {
	return finish{
		act: "release", entry: coord.Check(h.entry, h.at()),
		extraOps: func(context.Context) ([]coord.Op, error) {
			a := h.past
			if a.Forgiven += h.bumps; h.bumps == 0 {
				return nil, nil
			}
			return []coord.Op{a.writeOp()}, nil
		},
		wasApplied: h.wasAppliedUnlessBroken,
	}
}

// Fail gives the entry back as Release does, but counts a failure and stores the beginning of
// reason. The next holder sees the count in [Held.Failures]; Entries and Peek show both. Errors
// are those of Consume. After [ErrUnknown] the entry is given back, or will be when the session
// ends; the failure may be counted or not. Without [After] the entry may be taken again at
// once.
func (h *Held) Fail(ctx context.Context, reason string, opts ...ReleaseOption) error {
	return h.fail(ctx, reason, false, opts)
}

// fail is Fail. With stuck it also counts a delivery whose handler got stuck.
func (h *Held) fail(ctx context.Context, reason string, stuck bool, opts []ReleaseOption) error {
	return h.giveBack(ctx, finish{
		act: "fail", entry: coord.Check(h.entry, h.at()),
		extraOps: func(context.Context) ([]coord.Op, error) {
			a := h.past
			a.Failures++
			if stuck {
				a.Stuck++
			}
			a.Reason = layout.CutText(reason, layout.MaxReason)
			return []coord.Op{a.writeOp()}, nil
		},
		wasApplied: h.wasAppliedUnlessBroken,
	}, opts)
}

// giveBack makes a finish after which the entry stays in the queue, with the options of the
// caller. With [LeaveAlone] the entry rests from before the commit is sent: otherwise a take of
// the same handle could claim it before the answer arrives.
func (h *Held) giveBack(ctx context.Context, f finish, opts []ReleaseOption) error {
	var o releaseOptions
	for _, set := range opts {
		set(&o)
	}
	if o.after > 0 && h.claimer != nil {
		var err error
		if f, err = h.delay(f, o.after); err != nil {
			return fmt.Errorf("%s %s: %w", f.act, h.entry, err)
		}
	}
	if o.alone > 0 && h.claimer != nil {
		h.claimer.head.Resting.Add(h.Name, o.alone)
	}
	err := h.finish(ctx, f)
	if err != nil && o.alone > 0 && h.claimer != nil {
		h.claimer.head.Resting.Remove(h.Name)
	}
	if err == nil && o.after > 0 {
		h.claimer.deferred.Add(h.Name, o.after)
	}
	if err == nil {
		h.claimer.history.sweepIfDue(h.lock.Session())
	}
	return err
}

// delay returns f changed so that no process takes the entry for d. Instead of deleting the
// lock, its commit replaces it by a persistent one with the due time, and adds the entry to the
// index of delayed entries. A d that is too long is [ErrInvalid].
func (h *Held) delay(f finish, d time.Duration) (finish, error) {
	due, err := dueIn(d)
	if err != nil {
		return f, err
	}
	index := coord.Create(path.Join(h.claimer.Root, layout.DelayedDir, layout.DelayedName(due, h.Name)), []byte{})
	extra := f.extraOps
	f.act += " for later"
	f.lock = h.lock.RestOp(due)
	f.wasApplied = h.wasAppliedUnlessBroken // an operator who broke the lock made the entry ready at once
	f.extraOps = func(ctx context.Context) ([]coord.Op, error) {
		ops, err := extra(ctx)
		return append(ops, index), err
	}
	return f, nil
}

// finish is one way to end a hold: consume, release, fail, bury or forward. It describes one
// commit, which changes the entry, its lock and further nodes together.
//
// Op 0 of the commit changes or checks the entry, at the fence that the claim or the last
// update left. Op 1 deletes or replaces the lock, at its own fence. The other ops write the
// entry's history, delete its unique key, or create entries elsewhere.
//
// After a lost answer the same commit is made again: the entry's fence lets only one of the two
// apply. Each attempt ends in an outcome. doubt tells which earlier attempts have no answer.
// nextStep maps both to the next step.
type finish struct {
	act      string                                    // its name in errors
	entry    coord.Op                                  // deletes or checks the entry; send sets its fence
	lock     coord.Op                                  // deletes or replaces the lock; the zero Op gives it back
	extraOps func(context.Context) ([]coord.Op, error) // returns the other ops, for each attempt anew

	// wasApplied is called when an attempt was refused after one without an answer. It reports
	// whether that one was applied. Its error means that this cannot be known.
	wasApplied func(context.Context, *coord.Refusal) (bool, error)

	// extraRefused is called when one of the other ops was refused. After nil the finish is
	// tried again; after an error it ends, and the entry stays held. A nil function is as one
	// that returns nil.
	extraRefused func(context.Context, *coord.Refusal) error
}

// outcome is the result of one attempt at a finish or an update.
type outcome int

const (
	outcomeApplied      outcome = iota
	outcomeRefused              // the entry or its lock is not as the claim left it
	outcomeExtraRefused         // entry and lock are, but a node of another op has changed
	outcomeNotHeld              // the entry is certainly not held any more
	outcomeSessionOver          // the session ended before anything was sent
	outcomeUnanswered           // the commit was applied, or not, or may still be
	outcomeBusy                 // refused for now: nothing was changed
	outcomeTooLarge             // refused for good: nothing was changed
	outcomeFailed               // another error: nothing was changed
	outcomeCount                // the number of outcomes
)

// outcomeOf returns the outcome of an attempt that ended with err. The index of a refused op
// tells entry and lock, ops 0 and 1, from the others.
func outcomeOf(err error) outcome {
	switch refused := retry.RefusedOp(err); {
	case err == nil:
		return outcomeApplied
	case refused > 1:
		return outcomeExtraRefused
	case refused >= 0:
		return outcomeRefused
	case errors.Is(err, errUnavailable):
		return outcomeNotHeld
	case retry.NothingSent(err):
		return outcomeSessionOver
	case errors.Is(err, coord.ErrUnknown):
		return outcomeUnanswered
	case errors.Is(err, ErrTooLarge):
		return outcomeTooLarge
	case errors.Is(err, coord.ErrBusy):
		return outcomeBusy
	}
	return outcomeFailed
}

// doubt says which earlier attempts have no answer, as seen by the attempt that is made now.
type doubt int

const (
	doubtNone    doubt = iota // there are none
	doubtThis                 // the last one without an answer was of the same finish
	doubtAnother              // it was of another finish of the same Held
	doubtCount                // the number of doubts
)

// step is what a finish or an update does after an attempt.
type step int

const (
	stepSucceed    step = iota + 1 // it was applied
	stepLose                       // the lock is lost, and this Held changed nothing
	stepKeep                       // nothing was changed, and the entry stays held
	stepAskThis                    // find out whether the earlier attempt was applied
	stepAskAnother                 // find out whether the other finish was applied
	stepAskExtra                   // ask the finish about the refused op, and try again
	stepRetry                      // make the attempt again, after a pause
)

// nextStep is the state table of finishes and updates. Its invariant: while an attempt is in
// doubt, no step reports that nothing was changed, and the end of the session alone does not
// mean that the lock is lost. The exception is a commit that is too large: it is never applied,
// so it ends the finish at once, and the caller can finish the entry in another way.
var nextStep = [outcomeCount][doubtCount]step{
	//                     doubtNone      doubtThis      doubtAnother
	outcomeApplied:      {stepSucceed, stepSucceed, stepSucceed},
	outcomeRefused:      {stepLose, stepAskThis, stepAskAnother},
	outcomeExtraRefused: {stepAskExtra, stepAskExtra, stepAskExtra},
	outcomeNotHeld:      {stepLose, stepLose, stepLose},
	outcomeSessionOver:  {stepLose, stepRetry, stepRetry},
	outcomeUnanswered:   {stepRetry, stepRetry, stepRetry},
	outcomeBusy:         {stepRetry, stepRetry, stepRetry},
	outcomeTooLarge:     {stepKeep, stepKeep, stepKeep},
	outcomeFailed:       {stepKeep, stepRetry, stepRetry},
}

// note adds an attempt at f that was sent and has no answer.
func (u *unansweredFinishes) note(f finish) {
	u.severalKinds = u.severalKinds || u.act != "" && u.act != f.act
	u.givesBack = u.givesBack || f.entry.Kind == coord.KindCheck
	u.act = f.act
}

// exists reports whether a finish has no answer.
func (u *unansweredFinishes) exists() bool { return u.act != "" }

// seenBy returns the doubt for an attempt at the finish named act.
func (u *unansweredFinishes) seenBy(act string) doubt {
	switch u.act {
	case "":
		return doubtNone
	case act:
		return doubtThis
	}
	return doubtAnother
}

// finish ends the hold with f. It makes attempts until nextStep ends it, or until ctx or the
// session does. Its errors are those of [Held.Consume]. One goroutine at a time does this for a
// Held; the others wait.
func (h *Held) finish(ctx context.Context, f finish) error {
	if err := h.lockFinish(ctx, f.act); err != nil {
		return err
	}
	defer func() { <-h.sem }()
	switch h.state.Load() {
	case stateDone:
		return h.endFinish(f, stateDone, ErrAlreadyDone)
	case stateLost:
		return h.endFinish(f, stateLost, ErrLockLost)
	}
	h.wasFinishTried.Store(true)
	if f.lock.Kind == 0 {
		f.lock = h.lock.ReleaseOp()
	}
	h.lock.SetReleasing(true)
	backoff := h.claimer.Backoff(actFinish)
	err, interrupted := backoff.Do(ctx, h.lock.Session().Done(), func() (retry.Decision, error) {
		return h.attemptFinish(ctx, f)
	})
	switch {
	case interrupted != nil:
		return h.endInterrupted(f, interrupted, err)
	case err == nil:
		backoff.Succeeded()
	}
	return err
}

// attemptFinish is one attempt at f. When it decides to stop, its error is the result of the
// finish.
func (h *Held) attemptFinish(ctx context.Context, f finish) (retry.Decision, error) {
	err := h.send(ctx, f)
	if retry.RefusedOp(err) == 0 {
		if moved, problem := h.adoptUpdate(ctx); moved {
			return retry.Now, err
		} else if problem != nil {
			err = problem
		}
	}
	outcome := outcomeOf(err)
	switch nextStep[outcome][h.unanswered.seenBy(f.act)] {
	case stepSucceed:
		return retry.Stop, h.endFinish(f, stateDone, nil)
	case stepLose:
		return retry.Stop, h.endFinish(f, stateLost, ErrLockLost)
	case stepAskThis:
		return retry.Stop, h.endRefused(ctx, f, err)
	case stepAskAnother:
		return retry.Stop, h.endAfterAnother(ctx, f, err)
	case stepKeep:
		return retry.Stop, h.keepHeld(f, err)
	case stepAskExtra:
		h.isHistoryKnown = false // another process has changed it
		if problem := f.handleExtraRefusal(ctx, err); problem != nil {
			return retry.Stop, h.keepHeld(f, h.withDoubt(problem))
		}
	}
	if outcome == outcomeUnanswered {
		h.unanswered.note(f)
	}
	if errors.Is(err, coord.ErrClosed) {
		return retry.Stop, h.endInterrupted(f, coord.ErrClosed, err)
	}
	return retry.Later, err
}

// lockFinish takes h.sem, for a finish of that name. It takes a free sem even if ctx has ended,
// because only the caller that has it knows whether a finish is in doubt. Otherwise it waits
// until ctx ends.
func (h *Held) lockFinish(ctx context.Context, act string) error {
	if h.claimer == nil {
		return fmt.Errorf("%s: this Held was not made by a take: %w", act, ErrNotHeld)
	}
	if ctx == nil {
		return fmt.Errorf("%s %s: nil context: %w", act, h.entry, ErrInvalid)
	}
	select {
	case h.sem <- struct{}{}:
		return nil
	default:
	}
	select {
	case h.sem <- struct{}{}:
		h.claimer.Woke(ctx)
		return nil
	case <-ctx.Done():
		h.claimer.Woke(ctx)
		return fmt.Errorf("%s %s: %w", act, h.entry, ctx.Err())
	}
}

// send makes the commit of a finish once, and returns its error. It first reads the entry's
// history if that is not known.
func (h *Held) send(ctx context.Context, f finish) error {
	if !h.isHistoryKnown {
		if err := h.readHistory(ctx); err != nil {
			return err
		}
	}
	var extra []coord.Op
	var err error
	if !handle.IsOver(h.lock.Session()) { // otherwise extra may wait for the next session, and read there
		if extra, err = f.extraOps(ctx); err != nil {
			return err
		}
	}
	f.entry.Fence = h.fence
	if f.entry.Kind == coord.KindDelete { // this handle skips what it removed
		f.entry.SignalLater, f.lock.SignalLater = true, true
	}
	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, extra...)...)
	return err
}

// handleExtraRefusal calls extraRefused with the refusal in err. After nil the finish is tried again.
func (f *finish) handleExtraRefusal(ctx context.Context, err error) error {
	var refusal *coord.Refusal
	if f.extraRefused == nil || !errors.As(err, &refusal) {
		return nil
	}
	return f.extraRefused(ctx, refusal)
}

// endRefused ends a finish that was refused after an attempt without an answer: that
// attempt was applied, or the lock is lost.
func (h *Held) endRefused(ctx context.Context, f finish, err error) error {
	var refusal *coord.Refusal
	errors.As(err, &refusal)
	mine, problem := f.wasApplied(ctx, refusal)
	switch {
	case problem != nil:
		return h.endInDoubt(f, problem)
	case mine && h.unanswered.severalKinds:
		return h.endFinish(f, stateDone, fmt.Errorf("%w: this or an earlier finish was applied", ErrUnknown))
	case mine:
		return h.endFinish(f, stateDone, nil)
	}
	return h.endFinish(f, stateLost, ErrLockLost)
}

// endAfterAnother ends a finish that was refused after another finish of this Held had no
// answer: that one was applied, or the lock is lost. A moved fence means that another process
// holds the entry. If the entry exists and its lock is missing, the other finish was applied
// only if it gives the entry back.
func (h *Held) endAfterAnother(ctx context.Context, f finish, err error) error {
	var refusal *coord.Refusal
	errors.As(err, &refusal)
	if errors.Is(err, coord.ErrVersion) || refusal.Index != 0 && !h.unanswered.givesBack {
		return h.endFinish(f, stateLost, ErrLockLost)
	}
	if _, problem := h.wasAppliedUnlessBroken(ctx, refusal); problem != nil {
		return h.endInDoubt(f, problem)
	}
	return h.endFinish(f, stateDone, ErrAlreadyDone)
}

// endInDoubt ends a finish with [ErrUnknown]: problem kept it from finding out whether an attempt
// was applied. If an operator broke the lock, another attempt cannot find out more, and the
// entry is certainly not held. Otherwise a later call may.
func (h *Held) endInDoubt(f finish, problem error) error {
	err := fmt.Errorf("%w: %w", ErrUnknown, problem)
	if errors.Is(problem, errBroken) {
		return h.endFinish(f, stateLost, err)
	}
	return h.finishError(f, err)
}

// endInterrupted ends a finish because ctx or the session ended before the next attempt.
// interrupted says which; err is that of the last attempt.
func (h *Held) endInterrupted(f finish, interrupted, err error) error {
	if !h.unanswered.exists() { // nothing was changed
		return h.keepHeld(f, fmt.Errorf("%w: %w", interrupted, err))
	}
	return h.finishError(f, h.withDoubt(err))
}

// endFinish ends a finish after which this Held certainly does not hold the entry, and notes why.
func (h *Held) endFinish(f finish, state heldState, err error) error {
	h.end(state, err == nil && f.entry.Kind == coord.KindDelete)
	return h.finishError(f, err)
}

// keepHeld ends a finish that changed nothing. The entry is still held, unless an earlier finish
// without an answer was applied.
func (h *Held) keepHeld(f finish, err error) error {
	h.lock.SetReleasing(h.unanswered.exists())
	return h.finishError(f, err)
}

// withDoubt adds [ErrUnknown] to err if a finish has no answer.
func (h *Held) withDoubt(err error) error {
	if h.unanswered.exists() && !errors.Is(err, ErrUnknown) {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

// finishError adds the name of the finish and the entry's path to err.
func (h *Held) finishError(f finish, err error) error {
	if err != nil {
		err = fmt.Errorf("%s %s: %w", f.act, h.entry, err)
	}
	return err
}

// wasAppliedUnlessBroken reports that an earlier attempt was applied, unless an operator broke
// the lock: then its error is errBroken. While the session lives, only commits of this handle
// and operators remove its lock.
func (h *Held) wasAppliedUnlessBroken(ctx context.Context, _ *coord.Refusal) (bool, error) {
	broken, err := h.claimer.traces.wasBroken(ctx, h.lock.Session(), h.Name, h.lock.Revision())
	if broken {
		err = errBroken
	}
	return err == nil, err
}

// wasRemoved is wasAppliedUnlessBroken for finishes that remove the entry: only a missing entry
// can be the work of an earlier attempt. If its fence has moved, another process holds it. If
// only its lock is missing, the lock was lost before any attempt arrived.
func (h *Held) wasRemoved(ctx context.Context, r *coord.Refusal) (bool, error) {
	if r.Index != 0 || !errors.Is(r, coord.ErrNotExist) {
		return false, nil
	}
	return h.wasAppliedUnlessBroken(ctx, r)
}

// finishInBackground goes on with a finish after the end of the run: otherwise the entry might
// stay held as long as the session lives. It gives up when the session ends.
func (h *Held) finishInBackground(do func(context.Context) error) {
	var backoff retry.Backoff
	backoff.Do(context.Background(), h.lock.Session().Done(), func() (retry.Decision, error) {
		err := do(context.Background())
		if err == nil || errors.Is(err, ErrLockLost) || errors.Is(err, ErrAlreadyDone) || errors.Is(err, coord.ErrClosed) {
			return retry.Stop, err
		}
		return retry.Later, err
	})
}
