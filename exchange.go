package zkq

import (
	"context"
	"errors"
	"slices"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/retry"
)

// FinishError says why one of several entries was not removed for certain.
type FinishError struct {
	Held *Held
	Err  error // see [Held.Consume]
}

func (e *FinishError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *FinishError) Unwrap() error { return e.Err }

// consumeAlone removes one entry in a commit of its own.
func consumeAlone(ctx context.Context, h *Held) error {
	if err := h.Consume(ctx); err != nil {
		return &FinishError{h, h.claimer.CallError(context.Background(), err)}
	}
	return nil
}

// exchangeCommit is one commit that finishes entries and claims others: a worker that goes on
// with the next entry pays one commit for each entry, not two. All ops apply, or none does. So
// what is refused is taken out, and the rest is committed again. Entries that cannot be
// finished together with others are finished one by one. No promise depends on this fast way:
// each entry ends as it would end by itself.
type exchangeCommit struct {
	claimer   *claimer
	session   coord.Session
	finishing []*Held        // entries to be finished; the commit has taken their sem
	claims    []claimAttempt // of entries that are reserved in the head's Claims
	noClaims  bool           // there were none to begin with: it only finishes
	purpose   purpose        // of the claims

	finishOf    func(*Held) finish                 // how an entry is finished
	finishAlone func(context.Context, *Held) error // the same, in a commit of its own

	// Results.

	separate      []*Held // to be finished in commits of their own, before anything is claimed
	postponed     []*Held // to be finished with the next commit
	failed        error   // of entries that were finished in commits of their own
	cleared       int     // how many claimed entries turned out to be spent
	refusedClaims int     // how many claims were refused, because other processes were faster
}

// newExchangeCommit prepares the commit that consumes the entries of done and claims those of
// the choice.
func (c *claimer) newExchangeCommit(chosen head.Choice, done []*Held) *exchangeCommit {
	x := &exchangeCommit{claimer: c, session: chosen.Session, noClaims: len(chosen.Names) == 0, finishOf: (*Held).consumption, finishAlone: consumeAlone}
	for i, name := range chosen.Names {
		if slices.ContainsFunc(done, func(h *Held) bool { return h.name == name }) {
			c.head.LetGo([]string{name}) // a listing that lags shows it as free
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

// add takes in an entry to be finished. It reports false if the entry needs a commit of its
// own: it is held in another session, another goroutine finishes it, or an earlier finish or
// update of it has no answer.
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
	h.lock.Settling(true)
	x.finishing = append(x.finishing, h)
	return true
}

// takeOut takes entry i out again.
func (x *exchangeCommit) takeOut(i int) *Held {
	h := x.finishing[i]
	h.lock.Settling(h.unanswered.exists())
	<-h.sem
	x.finishing = append(x.finishing[:i:i], x.finishing[i+1:]...)
	return h
}

// separateOne lets entry i be finished in a commit of its own.
func (x *exchangeCommit) separateOne(i int) { x.separate = append(x.separate, x.takeOut(i)) }

// separateAll lets every entry be finished in a commit of its own.
func (x *exchangeCommit) separateAll() {
	for len(x.finishing) > 0 {
		x.separateOne(len(x.finishing) - 1)
	}
}

// postponeAll leaves the entries to the next commit.
func (x *exchangeCommit) postponeAll() {
	for len(x.finishing) > 0 {
		x.postponed = append(x.postponed, x.takeOut(len(x.finishing)-1))
	}
}

// unfinished returns the entries that the commit did not finish.
func (x *exchangeCommit) unfinished() []*Held { return append(x.separate, x.postponed...) }

// dropClaims claims nothing, because an entry has to be finished in a commit of its own first.
func (x *exchangeCommit) dropClaims() {
	for _, a := range x.claims {
		x.claimer.head.Claims.Release(a.name)
	}
	if len(x.claims) > 0 {
		x.claimer.head.Resting.Signal() // takes skipped the entries meanwhile
	}
	x.claims = nil
	x.postponeAll()
}

// keepClaims claims the first n entries only.
func (x *exchangeCommit) keepClaims(n int) {
	for _, a := range x.claims[n:] {
		x.claimer.head.Claims.Release(a.name)
	}
	x.claims = x.claims[:n]
	x.claimer.head.Resting.Signal() // takes skipped the entries meanwhile
}

// commit makes the commit, and again with less in it where a part is refused. It returns the
// entries that it claimed. Its error is that of the claims; those of the finishes are in
// failed.
func (x *exchangeCommit) commit(ctx context.Context) (held []*Held, err error) {
	defer x.postponeAll()
	for backoff := x.claimer.Backoff(x.act()); len(x.claims) > 0 || x.noClaims && len(x.finishing) > 0; {
		if !x.noClaims && len(x.separate) > 0 {
			x.dropClaims()
			return nil, nil
		}
		ops, parts, err := x.ops(ctx)
		if err != nil {
			x.separateAll()
			continue
		}
		if !x.fits(ops) {
			x.shrink(ctx)
			continue
		}
		results, err := x.session.Commit(ctx, ops...)
		switch refused := retry.RefusedOp(err); {
		case err == nil:
			for _, h := range x.finishing {
				h.end(stateDone, x.finishOf(h).entry.Kind == coord.KindDelete)
				<-h.sem
			}
			backoff.Succeeded()
			first := parts[len(x.finishing)]
			x.finishing = nil
			return x.concludeClaims(ctx, results[first:], nil)
		case refused >= 0:
			x.takeOutRefused(ctx, parts, refused, err)
			continue
		case x.claimByCheck(err):
			continue
		case retry.IsBusy(err) && backoff.Wait(ctx, x.session.Done(), err) == nil:
			continue
		case errors.Is(err, coord.ErrUnknown):
			x.resolveFinishes(ctx)
		}
		x.postponeAll()
		return x.concludeClaims(ctx, nil, err)
	}
	return nil, nil
}

// act names the commit in the log.
func (x *exchangeCommit) act() string {
	if len(x.claims) == 0 {
		return actFinish
	}
	return actTake
}

// ops returns the ops of the commit. parts are the indexes at which the ops of each entry
// begin, and at last those of the claims.
func (x *exchangeCommit) ops(ctx context.Context) (ops []coord.Op, parts []int, err error) {
	for _, h := range x.finishing {
		parts = append(parts, len(ops))
		f := x.finishOf(h)
		beside, err := f.beside(ctx)
		if err != nil {
			return nil, nil, err
		}
		giveBack := h.lock.GiveBack()
		if f.entry.Kind == coord.KindDelete { // this handle skips what it removed
			f.entry.SignalLater, giveBack.SignalLater = true, true
		}
		ops = append(append(ops, f.entry, giveBack), beside...)
	}
	parts = append(parts, len(ops))
	for _, a := range x.claims {
		ops = append(ops, a.ops...)
	}
	return ops, parts, nil
}

// fits reports whether the ops are within the limits of one commit.
func (x *exchangeCommit) fits(ops []coord.Op) bool {
	limits, size := x.session.Limits(), 0
	for _, op := range ops {
		size += coord.OpOverhead + len(op.Path) + len(op.Value)
	}
	return len(ops) <= limits.CommitOps && size <= limits.CommitBytes
}

// claimByCheck reports whether the commit was refused because an entry may not be written.
// From now on the claim of that entry moves no fence.
func (x *exchangeCommit) claimByCheck(err error) bool {
	for i := range x.claims {
		if x.claimer.claimByCheck(&x.claims[i], err) {
			return true
		}
	}
	return false
}

// shrink makes the commit smaller: by a claim, as long as there is more than one.
func (x *exchangeCommit) shrink(ctx context.Context) {
	switch last := len(x.claims) - 1; {
	case last > 0:
		x.keepClaims(last)
	case len(x.finishing) > 0:
		x.separateOne(len(x.finishing) - 1)
	default: // one claim that is too large for the service
		x.noClaims = false
		err := &coord.LimitError{What: "claim of " + x.claims[0].name, Unit: "ops", Size: 2, Limit: x.session.Limits().CommitOps}
		_, problem := x.claimer.conclude(ctx, x.claims[0], nil, err, x.purpose)
		x.failed = errors.Join(x.failed, problem)
		x.claims = nil
	}
}

// takeOutRefused takes out the entry whose op was refused.
func (x *exchangeCommit) takeOutRefused(ctx context.Context, parts []int, refused int, err error) {
	for i := range x.finishing {
		if refused < parts[i+1] {
			x.separateOne(i)
			return
		}
	}
	i := (refused - parts[len(x.finishing)]) / 2
	x.claimer.conclude(ctx, x.claims[i], nil, err, x.purpose) // it is lost
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

// resolveFinishes finishes the entries one by one, after a commit without an answer. When it
// knows what became of them, that is known of the whole commit too, or the commit cannot be
// applied any more.
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

// concludeClaims returns the entries that the commit claimed; err is that of the commit.
func (x *exchangeCommit) concludeClaims(ctx context.Context, results []coord.Result, err error) (held []*Held, worst error) {
	for i, a := range x.claims {
		var own []coord.Result
		if err == nil {
			own = results[2*i : 2*i+2]
		}
		h, problem := x.claimer.conclude(ctx, a, own, err, x.purpose)
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
