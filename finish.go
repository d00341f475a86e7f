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

// Consume removes the entry: the work is done. One commit deletes the entry and its lock, and
// only in the state in which the claim left them. Consume retries after a lost answer until
// ctx or the session ends. It returns
//
//   - nil if this call removed the entry;
//   - [ErrLockLost] if the entry was not held any more: this call removed nothing;
//   - [ErrAlreadyDone] if an earlier call finished this Held;
//   - [ErrUnknown] if there was no answer in time: the entry was removed, or is handed out
//     again. Call Consume again to learn more;
//   - another error if nothing was changed: the entry is still held.
func (h *Held) Consume(ctx context.Context) error {
	return h.finish(ctx, h.consumption())
}

// consumption is the finish of [Held.Consume].
func (h *Held) consumption() finish {
	return finish{
		act: "consume", entry: coord.Delete(h.entry, h.at()), wasApplied: h.wasRemoved,
		beside: func(context.Context) ([]coord.Op, error) { return h.past.removeOps(), nil },
	}
}

// ReleaseOption changes a release.
type ReleaseOption func(*releaseOptions)

type releaseOptions struct{ alone, after time.Duration }

// LeaveAlone keeps takes of this queue handle from the entry for d. Other handles may take it
// at once.
func LeaveAlone(d time.Duration) ReleaseOption {
	return func(o *releaseOptions) { o.alone = d }
}

// After delays the entry for d: it keeps its name and its place, but no process is handed it
// until d is over. Then any process that takes entries makes it ready, even if this process
// has ended. The due time is by this machine's clock, and the process that makes the entry
// ready compares it with its own. A d of 0 or less is no delay; it must end before the year
// 2286.
func After(d time.Duration) ReleaseOption {
	return func(o *releaseOptions) { o.after = d }
}

// Release gives the entry back undone: it is ready in its old place at once, for any process.
// [MaxDeliveries] does not count this delivery, because it was no failure. Errors are those
// of Consume. After [ErrUnknown] the entry is given back, or will be when the session ends,
// unless an operator removed it.
func (h *Held) Release(ctx context.Context, opts ...ReleaseOption) error {
	return h.giveBack(ctx, h.release(), opts)
}

// release is the finish of [Held.Release].
func (h *Held) release() finish {
	return finish{
		act: "release", entry: coord.Check(h.entry, h.at()),
		beside: func(context.Context) ([]coord.Op, error) {
			a := h.past
			if a.Forgiven += h.bumps; h.bumps == 0 {
				return nil, nil
			}
			return []coord.Op{a.writeOp()}, nil
		},
		wasApplied: h.unlessBroken,
	}
}

// Fail gives the entry back as Release does, counts a failure and stores the beginning of its
// reason. Errors are those of Consume. After [ErrUnknown] the entry is given back, or will be
// when the session ends, and the failure is counted or not.
func (h *Held) Fail(ctx context.Context, reason string, opts ...ReleaseOption) error {
	return h.fail(ctx, reason, false, opts)
}

// fail is Fail, which also counts that the handler got stuck.
func (h *Held) fail(ctx context.Context, reason string, stuck bool, opts []ReleaseOption) error {
	return h.giveBack(ctx, finish{
		act: "fail", entry: coord.Check(h.entry, h.at()),
		beside: func(context.Context) ([]coord.Op, error) {
			a := h.past
			a.Failures++
			if stuck {
				a.Stuck++
			}
			a.Reason = layout.CutText(reason, layout.MaxReason)
			return []coord.Op{a.writeOp()}, nil
		},
		wasApplied: h.unlessBroken,
	}, opts)
}

// giveBack makes a finish after which the entry stays in the queue.
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

// delay returns the finish f, after which no process is handed the entry for d.
func (h *Held) delay(f finish, d time.Duration) (finish, error) {
	due, err := dueIn(d)
	if err != nil {
		return f, err
	}
	index := coord.Create(path.Join(h.claimer.Root, layout.DelayedDir, layout.DelayedName(due, h.Name)), []byte{})
	beside := f.beside
	f.act += " for later"
	f.lock = h.lock.PutAside(due)
	f.wasApplied = h.unlessBroken // an operator who broke the lock made the entry ready at once
	f.beside = func(ctx context.Context) ([]coord.Op, error) {
		ops, err := beside(ctx)
		return append(ops, index), err
	}
	return f, nil
}

// finish is one way to end a hold: the commit of what becomes of the entry, of its lock,
// and of what goes with them.
//
// Op 0 of the commit is of the entry, at the fence that the claim or the last update left. Op
// 1 deletes or replaces the lock, at its own fence. The other ops write the entry's history,
// delete its unique key, or create entries elsewhere. After a lost answer the same commit is
// made again: the entry's fence lets only one of the two apply. What an attempt came to is an
// outcome, what earlier attempts left open is a doubt, and nextStep says how to go on.
type finish struct {
	act    string                                    // its name in errors
	entry  coord.Op                                  // what becomes of the entry
	lock   coord.Op                                  // what becomes of the lock; the zero Op gives it back
	beside func(context.Context) ([]coord.Op, error) // the ops that go with these two

	// wasApplied reports, when an attempt was refused after one without an answer, whether
	// that one was applied. Its error means that this cannot be known.
	wasApplied func(context.Context, *coord.Refusal) (bool, error)

	// besideRefused says what the refusal of an op that goes with entry and lock means: nil,
	// or a nil error, makes the attempt again; other errors leave the entry held.
	besideRefused func(context.Context, *coord.Refusal) error
}

// outcome is what became of one attempt at a finish or an update.
type outcome int

const (
	outcomeApplied       outcome = iota
	outcomeRefused               // the entry or its lock is not as the claim left it
	outcomeBesideRefused         // entry and lock are; what goes with them has changed
	outcomeNotHeld               // the entry is certainly not held any more
	outcomeSessionOver           // nothing was sent
	outcomeUnanswered            // applied or not
	outcomeBusy                  // refused for now: nothing was changed
	outcomeTooLarge              // refused for good: nothing was changed
	outcomeFailed                // nothing was changed
	outcomeCount
)

// outcomeOf returns the outcome of an attempt that ended with err. Op 0 of a commit is of
// the entry and op 1 of its lock.
func outcomeOf(err error) outcome {
	switch refused := retry.RefusedOp(err); {
	case err == nil:
		return outcomeApplied
	case refused > 1:
		return outcomeBesideRefused
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
	doubtNone    doubt = iota
	doubtThis          // the last one without an answer was of the same finish
	doubtAnother       // it was of another finish of the same Held
	doubtCount
)

// step is how a finish or an update goes on after an attempt.
type step int

const (
	stepSucceed    step = iota + 1 // it was applied
	stepLose                       // the lock is lost, and this Held changed nothing
	stepKeep                       // nothing was changed, and the entry stays held
	stepAskThis                    // find out whether the earlier attempt was applied
	stepAskAnother                 // find out whether the other finish was applied
	stepAskBeside                  // look again at what goes with entry and lock
	stepRetry                      // make the attempt again, after a pause
)

// nextStep is the state table of finishes and updates. Its invariant: while an attempt is in
// doubt, no step says that nothing was changed, and the end of the session alone does not mean
// that the lock is lost. Only a commit that is too large is given up at once: it is never
// applied, and the caller can finish the entry in another way.
var nextStep = [outcomeCount][doubtCount]step{
	//                     doubtNone      doubtThis      doubtAnother
	outcomeApplied:       {stepSucceed, stepSucceed, stepSucceed},
	outcomeRefused:       {stepLose, stepAskThis, stepAskAnother},
	outcomeBesideRefused: {stepAskBeside, stepAskBeside, stepAskBeside},
	outcomeNotHeld:       {stepLose, stepLose, stepLose},
	outcomeSessionOver:   {stepLose, stepRetry, stepRetry},
	outcomeUnanswered:    {stepRetry, stepRetry, stepRetry},
	outcomeBusy:          {stepRetry, stepRetry, stepRetry},
	outcomeTooLarge:      {stepKeep, stepKeep, stepKeep},
	outcomeFailed:        {stepKeep, stepRetry, stepRetry},
}

// note adds an attempt without an answer.
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

// finish ends the hold. Its result is that of [Held.Consume].
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
	h.tried.Store(true)
	if f.lock.Kind == 0 {
		f.lock = h.lock.GiveBack()
	}
	h.lock.Settling(true)
	for backoff := h.claimer.Backoff(actFinish); ; {
		err := h.send(ctx, f)
		if retry.RefusedOp(err) == 0 {
			if moved, problem := h.adoptUpdate(ctx); moved {
				continue
			} else if problem != nil {
				err = problem
			}
		}
		outcome := outcomeOf(err)
		switch nextStep[outcome][h.unanswered.seenBy(f.act)] {
		case stepSucceed:
			backoff.Succeeded()
			return h.endFinish(f, stateDone, nil)
		case stepLose:
			return h.endFinish(f, stateLost, ErrLockLost)
		case stepAskThis:
			return h.endRefused(ctx, f, err)
		case stepAskAnother:
			return h.endAfterAnother(ctx, f, err)
		case stepKeep:
			return h.keepHeld(f, err)
		case stepAskBeside:
			h.isHistoryKnown = false // another process has changed it
			if problem := f.askBeside(ctx, err); problem != nil {
				return h.keepHeld(f, h.withDoubt(problem))
			}
		}
		if outcome == outcomeUnanswered {
			h.unanswered.note(f)
		}
		if interrupted := backoff.Wait(ctx, h.lock.Session().Done(), err); interrupted != nil || errors.Is(err, coord.ErrClosed) {
			return h.endInterrupted(f, interrupted, err)
		}
	}
}

// lockFinish takes h.sem. It does so even if ctx has ended: only the caller that has it knows
// whether a finish is in doubt.
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

// send makes the commit of a finish. It reads the entry's history first if that is not known.
func (h *Held) send(ctx context.Context, f finish) error {
	if !h.isHistoryKnown {
		if err := h.recall(ctx); err != nil {
			return err
		}
	}
	var beside []coord.Op
	var err error
	if !handle.IsOver(h.lock.Session()) { // otherwise beside may ask in the next session, and wait for it
		if beside, err = f.beside(ctx); err != nil {
			return err
		}
	}
	f.entry.Fence = h.fence
	if f.entry.Kind == coord.KindDelete { // this handle skips what it removed
		f.entry.SignalLater, f.lock.SignalLater = true, true
	}
	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, beside...)...)
	return err
}

// askBeside asks the finish what a refusal of the ops beside entry and lock means.
func (f *finish) askBeside(ctx context.Context, err error) error {
	var refusal *coord.Refusal
	if f.besideRefused == nil || !errors.As(err, &refusal) {
		return nil
	}
	return f.besideRefused(ctx, refusal)
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

// endAfterAnother ends a finish that was refused after another finish of this Held without
// an answer: that one was applied, or the lock is lost. A moved fence means that another
// process holds the entry, and a missing lock under an entry that stands fits only a finish
// that gives it back.
func (h *Held) endAfterAnother(ctx context.Context, f finish, err error) error {
	var refusal *coord.Refusal
	errors.As(err, &refusal)
	if errors.Is(err, coord.ErrVersion) || refusal.Index != 0 && !h.unanswered.givesBack {
		return h.endFinish(f, stateLost, ErrLockLost)
	}
	if _, problem := h.unlessBroken(ctx, refusal); problem != nil {
		return h.endInDoubt(f, problem)
	}
	return h.endFinish(f, stateDone, ErrAlreadyDone)
}

// endInDoubt ends a finish of which nobody can tell whether it was applied. If an operator
// broke the lock, another attempt tells no more: the entry is not held.
func (h *Held) endInDoubt(f finish, problem error) error {
	err := fmt.Errorf("%w: %w", ErrUnknown, problem)
	if errors.Is(problem, errBroken) {
		return h.endFinish(f, stateLost, err)
	}
	return h.finishError(f, err)
}

// endInterrupted ends a finish for which there is no time left.
func (h *Held) endInterrupted(f finish, interrupted, err error) error {
	if !h.unanswered.exists() { // nothing was changed
		return h.keepHeld(f, fmt.Errorf("%w: %w", interrupted, err))
	}
	return h.finishError(f, h.withDoubt(err))
}

// endFinish ends a finish after which the entry is not in hand any more.
func (h *Held) endFinish(f finish, state heldState, err error) error {
	h.end(state, err == nil && f.entry.Kind == coord.KindDelete)
	return h.finishError(f, err)
}

// keepHeld ends a finish after which the entry is still held, unless an earlier one without
// an answer is applied after all.
func (h *Held) keepHeld(f finish, err error) error {
	h.lock.Settling(h.unanswered.exists())
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

// unlessBroken takes a refusal for the success of an earlier attempt: while the session
// lives, only commits of this handle remove its lock, or an operator.
func (h *Held) unlessBroken(ctx context.Context, _ *coord.Refusal) (bool, error) {
	broken, err := h.claimer.traces.wasBroken(ctx, h.lock.Session(), h.Name, h.lock.Revision())
	if broken {
		err = errBroken
	}
	return err == nil, err
}

// wasRemoved is unlessBroken for finishes that remove the entry. A moved fence means that
// another process holds it, and a missing lock that it was taken away before any attempt
// arrived.
func (h *Held) wasRemoved(ctx context.Context, r *coord.Refusal) (bool, error) {
	if r.Index != 0 || !errors.Is(r, coord.ErrNotExist) {
		return false, nil
	}
	return h.unlessBroken(ctx, r)
}
