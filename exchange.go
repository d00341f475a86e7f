package zkq

import (
	"context"
	"errors"
	"slices"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/retry"
)

// FinishError is a part of the error of [LockingQueue.Exchange]. It says why one of the entries
// was not removed for certain. Use [errors.As] to find it, or unwrap the joined errors.
type FinishError struct {
	Held *Held
	Err  error // see [Held.Consume]
}

func (e *FinishError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *FinishError) Unwrap() error { return e.Err }

// consumeAlone removes one entry in a commit of its own. Its error is a [*FinishError].
func consumeAlone(ctx context.Context, h *Held) error {
	if err := h.Consume(ctx); err != nil {
		return &FinishError{h, h.claimer.CallError(context.Background(), err)}
	}
	return nil
}

// exchangeCommit is one commit that finishes entries and claims others. A worker that goes on
// with the next entry then pays one commit for each entry, not two.
//
// All ops of a commit apply, or none does. So a refused finish or claim is taken out, and the
// rest is committed again. Entries that cannot be finished together with others are finished
// one by one. The invariant: each entry ends as it would end in a commit of its own, and no
// promise depends on the shared one.
type exchangeCommit struct {
	claimer   *claimer
	session   coord.Session
	finishing []*Held        // entries to be finished; the commit has taken their sem
	claims    []claimAttempt // of entries that are reserved in the head's Claims
	noClaims  bool           // it began without claims, and only finishes
	purpose   purpose        // of the claims

	finishOf    func(*Held) finish                 // returns how an entry is finished
	finishAlone func(context.Context, *Held) error // finishes it so in a commit of its own

	// Results.

	separate      []*Held // to be finished in commits of their own, before anything is claimed
	postponed     []*Held // to be finished with the next commit
	failed        error   // errors of entries that were finished in commits of their own
	cleared       int     // how many claimed entries turned out to be spent, and were cleared away
	refusedClaims int     // how many claims were refused, because other processes were faster
}

// newExchangeCommit prepares the commit that consumes the entries of done and claims those of
// the choice, which the caller has reserved. It takes the sem of each entry in finishing.
// Entries that need a commit of their own are in separate.
func (c *claimer) newExchangeCommit(chosen head.Choice, done []*Held) *exchangeCommit {
	x := &exchangeCommit{claimer: c, session: chosen.Session, noClaims: len(chosen.Names) == 0, finishOf: (*Held).consumption, finishAlone: consumeAlone}
	for i, name := range chosen.Names {
		if slices.ContainsFunc(done, func(h *Held) bool { return h.name == name }) {
			c.head.LetGo([]string{name}) // a stale listing shows it as free
			continue
		}
		x.claims = append(x.claims, c.newClaimAttempt(chosen.Session, name, chosen.Nodes[i]))
	}
	for _, h := range done {
		if !x.add(h) {
			x.separate = append(x.separate, h)
		}
	}
	return x
}

// add adds an entry to finishing, and takes its sem. It reports false if the entry needs a commit
// of its own: it is held in another session, another goroutine finishes it, its history is not
// known, or an earlier finish or update of it has no answer.
func (x *exchangeCommit) add(h *Held) bool {
	if h.lock.Session() != x.session {
		return false
	}
	select {
	case h.sem <- struct{}{}:
	default:
		return false // another goroutine finishes it
	}
	if h.state.Load() != stateHolding || h.unanswered.exists() || !h.isHistoryKnown || h.updating != 0 {
		<-h.sem
		return false
	}
	h.lock.SetReleasing(true)
	x.finishing = append(x.finishing, h)
	return true
}

// takeOut removes entry i from finishing, gives its sem back and returns it.
func (x *exchangeCommit) takeOut(i int) *Held {
	h := x.finishing[i]
	h.lock.SetReleasing(h.unanswered.exists())
	<-h.sem
	x.finishing = append(x.finishing[:i:i], x.finishing[i+1:]...)
	return h
}

// separateOne moves entry i from finishing to separate.
func (x *exchangeCommit) separateOne(i int) { x.separate = append(x.separate, x.takeOut(i)) }

// separateAll moves all entries from finishing to separate.
func (x *exchangeCommit) separateAll() {
	for len(x.finishing) > 0 {
		x.separateOne(len(x.finishing) - 1)
	}
}

// postponeAll moves all entries from finishing to postponed.
func (x *exchangeCommit) postponeAll() {
	for len(x.finishing) > 0 {
		x.postponed = append(x.postponed, x.takeOut(len(x.finishing)-1))
	}
}

// unfinished returns the entries that the commit did not finish.
func (x *exchangeCommit) unfinished() []*Held { return append(x.separate, x.postponed...) }

// dropClaims gives up all claims, because an entry has to be finished in a commit of its own
// first. Other takes of the handle may then reserve the entries.
func (x *exchangeCommit) dropClaims() {
	for _, a := range x.claims {
		x.claimer.head.Claims.Release(a.name)
	}
	if len(x.claims) > 0 {
		x.claimer.head.Resting.WakeTake() // takes skipped the entries meanwhile
	}
	x.claims = nil
	x.postponeAll()
}

// keepClaims gives up all claims but the first n.
func (x *exchangeCommit) keepClaims(n int) {
	for _, a := range x.claims[n:] {
		x.claimer.head.Claims.Release(a.name)
	}
	x.claims = x.claims[:n]
	x.claimer.head.Resting.WakeTake() // takes skipped the entries meanwhile
}

// commit makes the commit. If a part is refused, it makes the commit again without that part. It
// returns the entries that it claimed. Its error is that of the claims; the errors of finishes
// are in failed. Afterwards finishing and claims are empty: what was not finished is in
// separate and postponed.
func (x *exchangeCommit) commit(ctx context.Context) (held []*Held, err error) {
	defer x.postponeAll()
	backoff := x.claimer.Backoff(x.act())
	var results []coord.Result // of the claims
	err, _ = backoff.Do(ctx, x.session.Done(), func() (retry.Decision, error) {
		if len(x.claims) == 0 && !(x.noClaims && len(x.finishing) > 0) {
			return retry.Stop, nil
		}
		if !x.noClaims && len(x.separate) > 0 {
			x.dropClaims()
			return retry.Stop, nil
		}
		ops, parts, err := x.ops(ctx)
		if err != nil {
			x.separateAll()
			return retry.Now, nil
		}
		if !x.fitsLimits(ops) {
			x.shrink(ctx)
			return retry.Now, nil
		}
		rs, err := x.session.Commit(ctx, ops...)
		switch refused := retry.RefusedOp(err); {
		case err == nil:
			for _, h := range x.finishing {
				h.end(stateDone, x.finishOf(h).entry.Kind == coord.KindDelete)
				<-h.sem
			}
			backoff.Succeeded()
			results, x.finishing = rs[parts[len(x.finishing)]:], nil
			return retry.Stop, nil
		case refused >= 0:
			x.takeOutRefused(ctx, parts, refused, err)
			return retry.Now, nil
		case x.claimByCheck(err):
			return retry.Now, nil
		case errors.Is(err, coord.ErrUnknown):
			x.resolveFinishes(ctx)
			return retry.Stop, err
		}
		return retry.LaterIfBusy(err), err
	})
	x.postponeAll()
	return x.settleClaims(ctx, results, err)
}

// act returns the action's name for the log and the back-off.
func (x *exchangeCommit) act() string {
	if len(x.claims) == 0 {
		return actFinish
	}
	return actTake
}

// ops returns the ops of the commit: those of the entries, then those of the claims. parts holds
// the index at which the ops of each entry begin, and as its last element that of the claims.
func (x *exchangeCommit) ops(ctx context.Context) (ops []coord.Op, parts []int, err error) {
	for _, h := range x.finishing {
		parts = append(parts, len(ops))
		f := x.finishOf(h)
		extra, err := f.extraOps(ctx)
		if err != nil {
			return nil, nil, err
		}
		giveBack := h.lock.ReleaseOp()
		if f.entry.Kind == coord.KindDelete { // this handle skips what it removed
			f.entry.SignalLater, giveBack.SignalLater = true, true
		}
		ops = append(append(ops, f.entry, giveBack), extra...)
	}
	parts = append(parts, len(ops))
	for _, a := range x.claims {
		ops = append(ops, a.ops...)
	}
	return ops, parts, nil
}

// fitsLimits reports whether the ops are within the service's limits for one commit.
func (x *exchangeCommit) fitsLimits(ops []coord.Op) bool {
	limits, size := x.session.Limits(), 0
	for _, op := range ops {
		size += coord.OpOverhead + len(op.Path) + len(op.Value)
	}
	return len(ops) <= limits.CommitOps && size <= limits.CommitBytes
}

// claimByCheck reports whether the commit was refused because this process may not write one of
// the entries to be claimed. Then it changes that claim: it only checks the entry and moves no
// fence.
func (x *exchangeCommit) claimByCheck(err error) bool {
	for i := range x.claims {
		if x.claimer.claimByCheck(&x.claims[i], err) {
			return true
		}
	}
	return false
}

// shrink makes a commit smaller that exceeds the limits. It gives up a claim as long as there are
// several, and then moves an entry to separate. A single claim that does not fit ends with an
// error in failed.
func (x *exchangeCommit) shrink(ctx context.Context) {
	switch last := len(x.claims) - 1; {
	case last > 0:
		x.keepClaims(last)
	case len(x.finishing) > 0:
		x.separateOne(len(x.finishing) - 1)
	default: // one claim that is too large for the service
		x.noClaims = false
		err := &coord.LimitError{What: "claim of " + x.claims[0].name, Unit: "ops", Size: 2, Limit: x.session.Limits().CommitOps}
		_, problem := x.claimer.settleClaim(ctx, x.claims[0], nil, err, x.purpose)
		x.failed = errors.Join(x.failed, problem)
		x.claims = nil
	}
}

// takeOutRefused takes out the finish or claim whose op was refused. A refused finish moves to
// separate, where its own commit tells why. A refused claim has lost against another process.
func (x *exchangeCommit) takeOutRefused(ctx context.Context, parts []int, refused int, err error) {
	for i := range x.finishing {
		if refused < parts[i+1] {
			x.separateOne(i)
			return
		}
	}
	i := (refused - parts[len(x.finishing)]) / 2
	x.claimer.settleClaim(ctx, x.claims[i], nil, err, x.purpose) // another process was faster
	x.claims = append(x.claims[:i:i], x.claims[i+1:]...)
	if x.claimer.strict {
		x.keepClaims(i) // the refused entry may have come back: the next listing tells
		return
	}
	if x.refusedClaims++; x.purpose == forClearing && x.refusedClaims > 1 {
		// Another process clears the same entries: leave half of them to it.
		x.keepClaims(i + (len(x.claims)-i)/2)
	}
}

// resolveFinishes finishes the entries one by one, after a shared commit without an answer. Once
// one of them has an answer, the shared commit was applied or never will be: both commits
// delete the same lock.
func (x *exchangeCommit) resolveFinishes(ctx context.Context) {
	inDoubt := x.finishing
	for _, h := range inDoubt {
		h.unanswered.note(x.finishOf(h))
		<-h.sem
	}
	x.finishing = nil
	for _, h := range inDoubt {
		x.failed = errors.Join(x.failed, x.finishAlone(ctx, h))
	}
}

// settleClaims returns the entries that the commit claimed. results and err are those of the
// commit. worst is the first error that is more than an entry taken by another process or
// cleared away.
func (x *exchangeCommit) settleClaims(ctx context.Context, results []coord.Result, err error) (held []*Held, worst error) {
	for i, a := range x.claims {
		var own []coord.Result
		if err == nil {
			own = results[2*i : 2*i+2]
		}
		h, problem := x.claimer.settleClaim(ctx, a, own, err, x.purpose)
		switch {
		case problem == nil:
			held = append(held, h)
		case errors.Is(problem, errCleared):
			x.cleared++
		case !errors.Is(problem, errUnavailable) && worst == nil:
			worst = problem
		}
	}
	x.claims = nil
	return held, worst
}
