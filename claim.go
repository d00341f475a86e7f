package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// claimAttempt is one claim of one entry: the entry as it was read, and the commit
// that takes it in that state and no other.
type claimAttempt struct {
	session coord.Session
	name    string
	node    coord.Node
	ops     []coord.Op
	bumps   int64 // changes that the claim adds to the entry
}

// purpose is what an entry is claimed for.
type purpose int

const (
	forWork     purpose = iota
	forRemoval          // however often it was delivered
	forClearing         // it is spent: what became of it is read later, with that of others
)

// claim takes an entry, if it is still there and nobody has it: errUnavailable
// otherwise. The one commit moves the entry's fence on and creates the lock, so
// that whoever held the entry before can do nothing to it any more. An entry that
// was delivered too often is moved to the dead, and is gone then too.
func (c *claimer) claim(ctx context.Context, s coord.Session, name string, why purpose) (*Held, error) {
	if err := c.head.Claims.Reserve(ctx, name); err != nil {
		return nil, err
	}
	nodes, err := s.Read(ctx, path.Join(c.entries, name))
	switch {
	case err != nil:
		err = fmt.Errorf("read %s: %w", name, err)
	case nodes[0].Path == "":
		err = errUnavailable
	case nodes[0].Unreadable:
		err = errUnreadable
	}
	if err != nil {
		c.head.Claims.Release(name)
		return nil, err
	}
	a := c.newClaimAttempt(s, name, nodes[0])
	rs, err := s.Commit(ctx, a.ops...)
	if c.claimByCheck(&a, err) {
		rs, err = s.Commit(ctx, a.ops...)
	}
	return c.conclude(ctx, a, rs, err, why)
}

// newClaimAttempt returns the claim of an entry as it was read.
func (c *claimer) newClaimAttempt(s coord.Session, name string, n coord.Node) claimAttempt {
	a := claimAttempt{session: s, name: name, node: n, bumps: 1}
	a.ops = []coord.Op{coord.Touch(n.Path, n.Value, n.Fence), lock.Take(c.taken, name, c.holder)}
	a.ops[1].SignalLater = true // this handle passes over what it holds
	if c.finder.restricted.IsReadOnly(name) || coord.CheckOps(s.Limits(), a.ops) != nil {
		// Somebody with higher limits put it. Its fence cannot be moved without
		// sending the value, so it is fenced by the session alone.
		a.checkOnly()
	}
	return a
}

// applied makes the handle of a claim from the results of its ops.
func (c *claimer) applied(a claimAttempt, rs []coord.Result) *Held {
	return c.newHeld(a, rs[0].Fence, lock.Taken(a.session, rs[1], c.holder), max(rs[0].Revision, rs[1].Revision))
}

// conclude takes up a claim after its commit, which ended with rs and err: it finds
// out what became of it if that is not known. When it returns, others of this handle
// may try for the entry; unless the claim is in doubt, and then they may later.
func (c *claimer) conclude(ctx context.Context, a claimAttempt, rs []coord.Result, err error, why purpose) (*Held, error) {
	s, name := a.session, a.name
	unresolved, missed := false, false
	defer func() {
		if !unresolved {
			c.head.Claims.Release(name)
		}
		if missed {
			c.head.Resting.Signal() // others passed over it meanwhile; it may stand free, and nothing else will say so
		}
	}()
	var h *Held
	switch {
	case err == nil:
		h = c.applied(a, rs)
	case retry.IsRefused(err):
		missed = true
		c.head.Suppressed.Add(name, head.WasLost)
		return nil, errUnavailable
	case errors.Is(err, coord.ErrInvalid):
		// The caller gave no argument that could be wrong: it can go on taking.
		missed = true
		return nil, fmt.Errorf("claim %s: %v", name, err)
	case !errors.Is(err, coord.ErrUnknown):
		missed = true
		return nil, fmt.Errorf("claim %s: %w", name, err)
	default:
		h, err = c.resolveClaim(ctx, a)
	}
	if err == nil {
		err = c.admit(ctx, h, why)
	}
	switch {
	case err == nil:
		c.head.Suppressed.Add(name, head.WasClaimed)
		return h, nil
	case errors.Is(err, errCleared):
		missed = true
		return nil, err
	case errors.Is(err, errUnavailable):
		missed = true
		c.head.Suppressed.Add(name, head.WasLost)
		return nil, err
	case over(s): // with it went whatever lock it may have left
		return nil, fmt.Errorf("claim %s: %w", name, coord.ErrSessionLost)
	}
	// The caller will not wait, and the entry is held, or the claim may still
	// succeed: nobody would know that. Other takes of this handle wait for it,
	// unless somebody holds the entry anyway.
	unresolved = true
	c.head.Claims.MarkInDoubt(name)
	if errors.Is(err, errBlocked) {
		c.head.Claims.LetOthersPass(name)
	}
	c.head.Claims.ClearRetryRequest(name) // what the undoing tries first answers it
	c.head.Resting.Signal()               // the view has it no more
	c.spawn(func() {
		c.undoClaim(a, h)
		c.head.Claims.Release(name)
		c.head.Resting.Signal() // takes passed over the entry meanwhile
	})
	switch {
	case ctx.Err() != nil:
		return nil, retry.BusyUntil(ctx.Err(), err)
	case errors.Is(err, errBlocked), errors.Is(err, ErrUnknown): // of the move to the dead, and it was broken
		return nil, errUnavailable
	}
	return nil, err
}

// admit reads what became of a claimed entry before. An entry that has expired or was
// delivered too often is cleared away: errCleared. If the lock was broken meanwhile, and
// what is read is of later deliveries than this one, it is errUnavailable.
func (c *claimer) admit(ctx context.Context, h *Held, why purpose) error {
	if why == forClearing {
		return nil
	}
	for backoff := c.backoff(actTake); !h.known; {
		err := h.recall(ctx)
		if err == nil && h.past.revision > h.Token {
			// It was written since the claim: by a later holder, or by who is none.
			if h.known, err = h.lock.Holds(ctx); err == nil && !h.known {
				h.end(stateLost, false)
				return errUnavailable
			}
		}
		if err != nil && (!errors.Is(err, coord.ErrBusy) || backoff.Wait(ctx, h.lock.Session().Done(), err) != nil) {
			return retry.WithDeadline(ctx, err)
		}
	}
	h.Failures, h.Deliveries, h.stuck = h.past.Failures, h.deliveries(), h.past.Stuck
	if why != forRemoval && expired(h.headers.Expires()) {
		return h.discard(ctx)
	}
	if why == forRemoval || !c.isWornOut(h) {
		return nil
	}
	reason := wornOutReason(h)
	err := h.bury(ctx, 0, reason)
	if err == nil && c.log != nil {
		c.log.Error("entry is dead", "queue", c.root, "entry", h.Name, "reason", reason, "deliveries", h.Deliveries)
	}
	switch {
	case err == nil:
		return errCleared
	case errors.Is(err, ErrLockLost):
		return errUnavailable
	case errors.Is(err, ErrTooLarge):
		c.warnOnce(h.entry, "is too large to be moved to the dead, and is handed out once more")
		return nil
	}
	return err
}

// errBlocked says that a claim whose answer was lost met somebody's lock: it is
// not applied now, but may be when that lock is given back, which moves no fence.
var errBlocked = errors.New("somebody holds it")

// resolveClaim finds out what became of a claim without an answer, by making it
// again: both have the same conditions, so at most one of them can ever apply.
func (c *claimer) resolveClaim(ctx context.Context, a claimAttempt) (*Held, error) {
	for backoff := c.backoff(actTake); ; {
		rs, err := a.session.Commit(ctx, a.ops...)
		switch {
		case err == nil:
			return c.applied(a, rs), nil
		case retry.RefusedOp(err) == 0: // the entry has moved on, and no claim of that state can apply any more
			return c.adopt(ctx, a)
		case retry.IsRefused(err) && a.bumps == 0: // only the lock tells whose it is
			if h, err := c.adopt(ctx, a); !errors.Is(err, errUnavailable) {
				return h, err
			}
			return nil, errBlocked
		case retry.IsRefused(err):
			return nil, errBlocked
		case !errors.Is(err, coord.ErrUnknown) && !errors.Is(err, coord.ErrBusy):
			return nil, fmt.Errorf("claim %s: %w", a.name, err)
		}
		if end := backoff.Wait(ctx, a.session.Done(), err); end != nil {
			return nil, fmt.Errorf("claim %s: %w", a.name, retry.BusyUntil(end, err))
		}
	}
}

// adopt takes up a claim that was applied without an answer. The lock is read
// before the entry: if the lock is ours, and the entry has since changed by
// nothing but the claim, then the entry's fence is the claim's.
func (c *claimer) adopt(ctx context.Context, a claimAttempt) (*Held, error) {
	for backoff := c.backoff(actTake); ; {
		l, err := lock.Adopt(ctx, a.session, c.taken, a.name, c.holder)
		if err == nil && (l == nil || c.holding.holds(a.name, l)) {
			return nil, errUnavailable
		}
		var n coord.Node
		if err == nil {
			n, err = a.session.Get(ctx, a.node.Path)
		}
		switch {
		case err == nil && n.Changes == a.node.Changes+a.bumps:
			return c.newHeld(a, n.Fence, l, max(n.Revision, l.Revision())), nil
		case err == nil, errors.Is(err, coord.ErrNotExist):
			return nil, errUnavailable
		}
		if end := backoff.Wait(ctx, a.session.Done(), err); end != nil {
			return nil, fmt.Errorf("claim %s: %w", a.name, retry.BusyUntil(end, err))
		}
	}
}

// undoClaim resolves a claim that nobody waits for any more, and gives back what
// it got; h is that, if it is known already. It gives up with the session, whose
// end does the same, and with nothing else: a handle that is closed may leave it
// behind.
func (c *claimer) undoClaim(a claimAttempt, h *Held) {
	backoff := c.backoff(actRelease)
	if h == nil { // and the turn is still at this claim
		backoff.Wake = c.head.Claims.RetryRequests(a.name)
	}
	for {
		var err error
		if h == nil {
			h, err = c.resolveClaim(context.Background(), a)
		}
		if h != nil {
			err = h.Release(context.Background())
		}
		if err == nil || errors.Is(err, errUnavailable) || errors.Is(err, ErrLockLost) || errors.Is(err, ErrAlreadyDone) {
			return
		}
		if errors.Is(err, errBlocked) {
			if c.head.Claims.LetOthersPass(a.name) {
				continue
			}
			c.head.Resting.Signal() // what is behind it need not wait
		}
		if backoff.Wait(context.Background(), a.session.Done(), err) != nil {
			return
		}
		if h == nil {
			c.head.Claims.ClearRetryRequest(a.name) // what is tried now answers it
		}
	}
}

// newHeld returns the Held of a claim that was applied.
func (c *claimer) newHeld(a claimAttempt, fence coord.Fence, l *lock.Lock, token int64) *Held {
	n, _ := priority.Parse(a.name)
	e := newEntry(a.name, n, a.node)
	h := &Held{
		Name:       e.Name,
		Value:      e.Value,
		Priority:   e.Priority,
		Deliveries: e.Deliveries + 1,
		Token:      token,
		Created:    e.Created,
		claimer:    c,
		hold:       &hold{name: e.Name, lock: l},
		entry:      a.node.Path,
		fence:      fence,
		changes:    a.node.Changes,
		bumps:      a.bumps,
		headers:    layout.HeadersOf(a.node.Value),
		born:       a.node.Born,
		past:       history{path: path.Join(c.root, layout.HistoryDir, a.name)},
		sem:        make(chan struct{}, 1),
	}
	// It was never handed out, nor given back, and stands for no key.
	h.known = a.node.Changes == 0 && a.bumps > 0 && h.headers.Unique == ""
	if c.warn != nil {
		runtime.AddCleanup(h, c.dropped, h.hold)
	}
	if old := c.holding.add(h.hold); old != nil {
		// Its lock was taken from it, and this handle has the next: to the
		// service the two locks may look the same.
		if old.state.CompareAndSwap(stateHolding, stateLost) {
			c.keeper.Lose(old.lock)
		}
	}
	return h
}

// claimAndConsume removes an entry that no process holds.
func (c *claimer) claimAndConsume(ctx context.Context, s coord.Session, name string) error {
	h, err := c.claim(ctx, s, name, forRemoval)
	if err != nil {
		return err
	}
	if err = h.Consume(ctx); err != nil && !errors.Is(err, ErrLockLost) {
		// The caller does not know that it is held, or may be: no one else gives it back.
		c.spawn(func() { c.undoClaim(claimAttempt{session: s, name: name}, h) })
	}
	return err
}

// claimByCheck reports whether a claim was refused because the entry may not be written. From
// now on it is claimed without moving its fence.
func (c *claimer) claimByCheck(a *claimAttempt, err error) bool {
	var f *coord.ForbiddenError
	if !errors.As(err, &f) || f.Op.Path != a.node.Path || f.Op.Kind != coord.KindTouch {
		return false
	}
	c.finder.restricted.Add(a.name, true)
	a.checkOnly()
	return true
}

// checkOnly makes a claim that moves no fence: the session alone fences it.
func (a *claimAttempt) checkOnly() {
	a.ops[0], a.bumps = coord.Check(a.node.Path, a.node.Fence), 0
}

// isWornOut reports whether a claimed entry was delivered too often before.
func (c *claimer) isWornOut(h *Held) bool {
	return c.maxDeliveries > 0 && h.changes-h.past.Forgiven >= int64(c.maxDeliveries)
}

func wornOutReason(h *Held) string {
	reason := "handed out " + counted(int(h.changes-h.past.Forgiven), "time", "times") + " and never finished"
	if h.past.Reason != "" {
		reason += "; the last failure: " + h.past.Reason
	}
	return reason
}
