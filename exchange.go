package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/retry"
)

// FinishError is what became of one of several entries that were to be removed at
// once.
type FinishError struct {
	Held *Held
	Err  error // as [Held.Consume] tells it
}

func (e *FinishError) Error() string { return e.Err.Error() }

// Unwrap is Err.
func (e *FinishError) Unwrap() error { return e.Err }

// Exchange removes the entries of done, whose work is done, and takes up to n others
// that are there, all in one commit: a worker that goes on with the next entry pays
// one commit for each, not two. It does not wait for entries: fewer than n, or none,
// is no error. An entry that came back is taken alone.
//
// What is removed is removed as by [Held.Consume], each by itself: an entry that was
// lost costs the others nothing. The error joins a [*FinishError] for each entry of
// done that was not removed for certain, and whatever else went wrong; the entries
// returned beside it are held. The first call makes the handle known as a worker of
// the queue: see [LockingQueue.Register].
func (q *LockingQueue) Exchange(ctx context.Context, done []*Held, n int) ([]*Held, error) {
	if ctx == nil {
		return nil, fmt.Errorf("exchange: nil context: %w", ErrInvalid)
	}
	if n < 0 {
		return nil, fmt.Errorf("exchange for %d entries: allowed are 0 and more: %w", n, ErrInvalid)
	}
	if q.handle.invalid != nil {
		return nil, q.handle.invalid
	}
	seen := make(map[*Held]bool, len(done))
	for i, h := range done {
		if h == nil || h.queue != q || seen[h] {
			return nil, fmt.Errorf("exchange: entry %d of %d is not one that this queue handed out, once: %w", i+1, len(done), ErrNotHeld)
		}
		seen[h] = true
	}
	bound, cancel := q.handle.bound(ctx)
	defer cancel()
	var untaken error
	if n > 0 {
		q.registry.Stay()
		q.mover.start()
		q.settings.take()
		var paused bool
		if paused, untaken = q.paused(ctx); untaken != nil || paused {
			n = 0 // what is done is done
		}
	}
	held, failed, err := q.taker.swap(bound, done, n, false)
	return held, errors.Join(failed, untaken, q.handle.ended(ctx, err))
}

// chooseAgain is how often entries are chosen, where others are faster, before what
// is done is removed without taking another.
const chooseAgain = 3

// swap removes done and takes up to n entries, waiting for the first if it may. failed
// is of those that were not removed, and err of the taking. An entry that cannot be removed
// in the commit of the claims is removed before: nothing is claimed while that is in doubt.
func (tk *taker) swap(ctx context.Context, done []*Held, n int, wait bool) (held []*Held, failed, err error) {
	backoff := tk.q.handle.backoff(actTake)
	for tries := 0; ; {
		var c head.Choice
		err = nil
		if n > 0 && (wait || tries < chooseAgain) {
			c, err = tk.q.head.Choose(ctx, n, wait)
		}
		if err != nil || len(c.Names) == 0 {
			return nil, errors.Join(failed, tk.removeAll(ctx, done)), err
		}
		progress := 0
		if c.IsSpent {
			failed, done = errors.Join(failed, tk.removeAll(ctx, done)), nil
			progress, err = tk.q.clearing.clear(ctx, c)
			c.Done()
		} else {
			b := tk.bundle(c, done)
			if len(b.rest) > 0 {
				b.standBack()
			} else {
				held, err = b.commit(ctx)
			}
			c.Done()
			done, progress = b.again, b.cleared+len(b.rest)
			failed = errors.Join(failed, b.failed, tk.removeAll(ctx, b.rest))
			if held = tk.withLock(held); len(held) > 0 {
				// What is held is worth more than the error, which will show again.
				return held, errors.Join(failed, tk.removeAll(ctx, done)), nil
			}
			if b.failed != nil {
				return nil, errors.Join(failed, tk.removeAll(ctx, done)), err
			}
		}
		if retry.NothingSent(err) {
			tk.q.handle.session(ctx) // what is wrong with it the next choice will tell
		} else if err != nil {
			if _, err = backoff.WaitWhileBusy(ctx, nil, err); err != nil {
				return nil, errors.Join(failed, tk.removeAll(ctx, done)), err
			}
		}
		if progress == 0 {
			tries++
		}
	}
}

// withLock returns those entries whose session lives. The others were lost while something
// else was in doubt: their caller could do nothing with them.
func (tk *taker) withLock(held []*Held) []*Held {
	var live []*Held
	for _, h := range held {
		if over(h.lock.Session()) {
			h.end(stateLost, false)
			continue
		}
		live = append(live, h)
	}
	return live
}

// removeAll removes entries, in one commit if that can be.
func (tk *taker) removeAll(ctx context.Context, done []*Held) error {
	var failed error
	if len(done) > 1 {
		b := tk.bundle(head.Choice{Session: done[0].lock.Session()}, done)
		b.commit(ctx)
		done, failed = b.left(), b.failed
	}
	for _, h := range done {
		failed = errors.Join(failed, remove(ctx, h))
	}
	return failed
}

func remove(ctx context.Context, h *Held) error {
	if err := h.Consume(ctx); err != nil {
		return &FinishError{h, h.queue.handle.ended(context.Background(), err)}
	}
	return nil
}

// bundle is one commit that removes entries and claims others. What it could not do
// in one is done one by one: the commit is the fast way, and no promise hangs on it.
type bundle struct {
	q       *LockingQueue
	session coord.Session
	done    []*Held // to be removed; nobody else finishes them meanwhile
	claims  []claimAttempt
	bare    bool // there were no claims to begin with
	why     purpose
	finish  func(*Held) finish                 // how an entry of done is finished
	single  func(context.Context, *Held) error // the same, by itself

	rest    []*Held // to be finished by themselves, before anything is claimed
	again   []*Held // to be finished with the next commit
	failed  error   // of what was finished otherwise
	cleared int     // claimed entries that turned out to be spent
	refused int     // claims
}

func (tk *taker) bundle(c head.Choice, done []*Held) *bundle {
	b := &bundle{q: tk.q, session: c.Session, bare: len(c.Names) == 0, finish: (*Held).consumption, single: remove}
	for i, name := range c.Names {
		if slices.ContainsFunc(done, func(h *Held) bool { return h.name == name }) {
			tk.q.head.LetGo([]string{name}) // a listing that lags shows it as free
			continue
		}
		b.claims = append(b.claims, tk.claimAttempt(c.Session, name, c.Nodes[i]))
	}
	for _, h := range done {
		if !b.joins(h) {
			b.rest = append(b.rest, h)
		}
	}
	return b
}

// joins takes an entry into the bundle if its finish is a plain one.
func (b *bundle) joins(h *Held) bool {
	if h.lock.Session() != b.session {
		return false
	}
	select {
	case h.sem <- struct{}{}:
	default:
		return false // somebody else finishes it
	}
	if h.state.Load() != stateHolding || h.unanswered.exists() || !h.known || h.updating != 0 {
		<-h.sem
		return false
	}
	h.lock.Settling(true)
	b.done = append(b.done, h)
	return true
}

// leaves lets entry i be finished by itself.
func (b *bundle) leaves(i int) { b.rest = append(b.rest, b.part(i)) }

func (b *bundle) allLeave() {
	for len(b.done) > 0 {
		b.leaves(len(b.done) - 1)
	}
}

// allAgain leaves the entries to the next commit.
func (b *bundle) allAgain() {
	for len(b.done) > 0 {
		b.again = append(b.again, b.part(len(b.done)-1))
	}
}

// part takes entry i out of the bundle.
func (b *bundle) part(i int) *Held {
	h := b.done[i]
	h.lock.Settling(h.unanswered.exists())
	<-h.sem
	b.done = append(b.done[:i:i], b.done[i+1:]...)
	return h
}

// left are the entries that the bundle did not finish.
func (b *bundle) left() []*Held { return append(b.rest, b.again...) }

// standBack claims nothing: an entry of done has to be finished by itself first.
func (b *bundle) standBack() {
	for _, a := range b.claims {
		b.q.head.Claims.Release(a.name)
	}
	if len(b.claims) > 0 {
		b.q.resting.Signal() // takes passed over the entries meanwhile
	}
	b.claims = nil
	b.allAgain()
}

// commit makes the commit, and again with less where a part of it is refused. The
// error is that of the claims.
func (b *bundle) commit(ctx context.Context) (held []*Held, err error) {
	defer b.allAgain()
	for backoff := b.q.handle.backoff(b.act()); len(b.claims) > 0 || b.bare && len(b.done) > 0; {
		if !b.bare && len(b.rest) > 0 {
			b.standBack()
			return nil, nil
		}
		ops, parts, err := b.ops(ctx)
		if err != nil {
			b.allLeave()
			continue
		}
		if !b.fits(ops) {
			b.shed(ctx)
			continue
		}
		rs, err := b.session.Commit(ctx, ops...)
		switch at := retry.RefusedOp(err); {
		case err == nil:
			for _, h := range b.done {
				h.end(stateDone, b.finish(h).entry.Kind == coord.KindDelete)
				<-h.sem
			}
			backoff.Succeeded()
			first := parts[len(b.done)]
			b.done = nil
			return b.concluded(ctx, rs[first:], nil)
		case at >= 0:
			b.refuse(ctx, parts, at, err)
			continue
		case b.readOnly(err):
			continue
		case errors.Is(err, coord.ErrBusy) && !errors.Is(err, coord.ErrUnknown) && backoff.Wait(ctx, b.session.Done(), err) == nil:
			continue
		case errors.Is(err, coord.ErrUnknown):
			b.resolve(ctx)
		}
		b.allAgain()
		return b.concluded(ctx, nil, err)
	}
	return nil, nil
}

// act is what the commit is for, as it is logged.
func (b *bundle) act() string {
	if len(b.claims) == 0 {
		return actFinish
	}
	return actTake
}

// ops are those of the commit; parts says where the ops of each entry begin, and last
// where those of the claims do.
func (b *bundle) ops(ctx context.Context) (ops []coord.Op, parts []int, err error) {
	for _, h := range b.done {
		parts = append(parts, len(ops))
		f := b.finish(h)
		beside, err := f.beside(ctx)
		if err != nil {
			return nil, nil, err
		}
		free := h.lock.GiveBack()
		if f.entry.Kind == coord.KindDelete { // this handle passes over what it removed
			f.entry.SignalLater, free.SignalLater = true, true
		}
		ops = append(append(ops, f.entry, free), beside...)
	}
	parts = append(parts, len(ops))
	for _, a := range b.claims {
		ops = append(ops, a.ops...)
	}
	return ops, parts, nil
}

func (b *bundle) fits(ops []coord.Op) bool {
	limits, size := b.session.Limits(), 0
	for _, op := range ops {
		size += coord.OpOverhead + len(op.Path) + len(op.Value)
	}
	return len(ops) <= limits.CommitOps && size <= limits.CommitBytes
}

// readOnly claims by a check what was refused because it may not be written.
func (b *bundle) readOnly(err error) bool {
	for i := range b.claims {
		if b.q.base.finder.readOnly(err, &b.claims[i]) {
			return true
		}
	}
	return false
}

// shed makes the commit smaller: a claim less, as long as there is more than one.
func (b *bundle) shed(ctx context.Context) {
	switch last := len(b.claims) - 1; {
	case last > 0:
		b.q.head.Claims.Release(b.claims[last].name)
		b.q.resting.Signal() // takes passed over the entry meanwhile
		b.claims = b.claims[:last]
	case len(b.done) > 0:
		b.leaves(len(b.done) - 1)
	default: // one claim that is too large for the service: let it say so
		b.bare = false
		_, err := b.q.taker.conclude(ctx, b.claims[0], nil, &coord.LimitError{What: "claim of " + b.claims[0].name, Unit: "ops", Size: 2, Limit: b.session.Limits().CommitOps}, b.why)
		b.failed = errors.Join(b.failed, err)
		b.claims = nil
	}
}

// refuse takes out what stood in the way of the whole.
func (b *bundle) refuse(ctx context.Context, parts []int, at int, err error) {
	for i := range b.done {
		if at < parts[i+1] {
			b.leaves(i)
			return
		}
	}
	i := (at - parts[len(b.done)]) / 2
	b.q.taker.conclude(ctx, b.claims[i], nil, err, b.why) // which says that it is gone
	b.claims = append(b.claims[:i:i], b.claims[i+1:]...)
	if b.q.strict {
		b.letGo(i) // the refused entry may have come back: the next look tells
		return
	}
	if b.refused++; b.why == forClearing && b.refused > 1 {
		// Another process clears the same entries: leave half of them to it.
		b.letGo(i + (len(b.claims)-i)/2)
	}
}

// letGo claims the first keep entries only.
func (b *bundle) letGo(keep int) {
	for _, a := range b.claims[keep:] {
		b.q.head.Claims.Release(a.name)
	}
	b.claims = b.claims[:keep]
	b.q.resting.Signal() // takes passed over the entries meanwhile
}

// resolve removes, after a commit without an answer, what that was to remove: when it
// is known what became of that, it is known of the commit too, or it cannot be
// applied any more.
func (b *bundle) resolve(ctx context.Context) {
	doubtful := b.done
	for _, h := range doubtful {
		h.unanswered.note(b.finish(h))
		<-h.sem
	}
	b.done = nil
	for _, h := range doubtful {
		b.failed = errors.Join(b.failed, b.single(ctx, h))
	}
}

// concluded takes up the claims after the commit.
func (b *bundle) concluded(ctx context.Context, rs []coord.Result, err error) (held []*Held, worst error) {
	for i, a := range b.claims {
		var own []coord.Result
		if err == nil {
			own = rs[2*i : 2*i+2]
		}
		h, problem := b.q.taker.conclude(ctx, a, own, err, b.why)
		switch {
		case problem == nil:
			held = append(held, h)
		case errors.Is(problem, errCleared):
			b.cleared++
		case !errors.Is(problem, errUnavailable) && worst == nil:
			worst = problem
		}
	}
	b.claims = nil
	return held, worst
}

// claimNamed claims up to n of the entries of those names, in one commit if it can be;
// one that came back alone. It passes over none that is there: where it is not known
// what becomes of an entry, or its claim is refused, it ends with what it has, and the
// caller looks again. It clears away spent entries, of which it looks at up to ahead at
// once, and says how many.
func (tk *taker) claimNamed(ctx context.Context, s coord.Session, names []string, n, ahead int) (held []*Held, cleared int, err error) {
	for stop := false; !stop && len(names) > 0 && len(held) < n; {
		some := names[:min(len(names), max(n-len(held), ahead), head.MaxReadAhead)]
		paths := make([]string, len(some))
		for i, name := range some {
			paths[i] = path.Join(tk.q.handle.entries, name)
		}
		nodes, err := s.Read(ctx, paths...)
		if err != nil {
			return tk.withLock(held), cleared, fmt.Errorf("read %s: %w", some[0], err)
		}
		c, passed, err := tk.chooseNamed(ctx, s, some, nodes, n-len(held), len(held) == 0)
		if err != nil {
			return tk.withLock(held), cleared, err
		}
		names, stop = names[passed:], c.IsLast
		if c.IsSpent {
			k, err := tk.q.clearing.clear(ctx, c)
			cleared += k
			if err != nil || k < len(c.Names) {
				return tk.withLock(held), cleared, err
			}
			continue
		}
		b := tk.bundle(c, nil)
		got, err := b.commit(ctx)
		held, cleared = append(held, got...), cleared+b.cleared
		if err != nil {
			return tk.withLock(held), cleared, err
		}
		stop = stop || len(got) < len(c.Names)
	}
	return tk.withLock(held), cleared, nil
}

// chooseNamed chooses, of entries that were read, up to n to claim for work, or spent ones
// to clear away where the first is spent. passed is how many of the names it is done with.
func (tk *taker) chooseNamed(ctx context.Context, s coord.Session, names []string, nodes []coord.Node, n int, alone bool) (c head.Choice, passed int, err error) {
	c.Session = s
	for _, n := range nodes {
		if n.Unreadable {
			tk.q.finder.skipUnreadable(n)
		}
	}
	first := slices.IndexFunc(nodes, func(n coord.Node) bool { return n.Path != "" && !n.Unreadable })
	if first < 0 {
		return c, len(names), nil
	}
	var spent map[string]bool
	if tk.q.clearing.mayBeSpent(nodes[first]) {
		if spent, err = tk.q.clearing.spent(ctx, s, nodes); err != nil {
			return c, 0, err
		}
	}
	if c.IsSpent = spent[nodes[first].Path]; c.IsSpent {
		for i, node := range nodes {
			if spent[node.Path] && 2*len(c.Names) < s.Limits().CommitOps-1 && tk.q.head.Claims.TryReserve(names[i]) {
				c.Names, c.Nodes = append(c.Names, names[i]), append(c.Nodes, node)
			}
		}
		if len(c.Names) > 0 {
			return c, first, nil // what is cleared will be missing when it is read again
		}
		c.IsSpent = false // another take of this handle clears them: it is waited for
	}
	for i, node := range nodes {
		if len(c.Names) == n {
			break
		}
		if passed = i + 1; node.Path == "" || node.Unreadable || len(c.Names) > 0 && hasExpired(node) {
			continue
		}
		cameBack := node.Changes > 0
		if c.IsLast = cameBack && (!alone || len(c.Names) > 0); c.IsLast {
			break
		}
		// Whoever is at it is waited for: what comes behind it is not to be first.
		err := tk.q.head.Claims.Reserve(ctx, names[i])
		if err != nil && !errors.Is(err, errUnavailable) {
			tk.q.head.LetGo(c.Names)
			return head.Choice{}, 0, err
		}
		if err == nil {
			c.Names, c.Nodes = append(c.Names, names[i]), append(c.Nodes, node)
		}
		if c.IsLast = cameBack || err != nil; c.IsLast {
			break
		}
	}
	return c, passed, nil
}
