package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// A claim is one commit: it moves the entry's fence and creates the lock. The moved fence
// keeps an earlier holder, which may not know that it lost the lock, from changing the entry.
// Without an answer the same commit is made again: both have the same conditions, so at most
// one of them can be applied.
//
// A caller may give up before the outcome of its claim is known. Then a goroutine finds out,
// and gives the entry back: undoClaim. So a claim that no caller knows of never keeps an entry
// for longer than that takes, or than the session lives.

// claimAttempt is one claim of one entry: the entry as it was read, and the commit that
// claims it in that state and no other.
type claimAttempt struct {
	session coord.Session // the lock lives as long as this
	name    string
	node    coord.Node // the entry as it was read
	ops     []coord.Op // op 0 is of the entry, op 1 of the lock
	bumps   int64      // how many changes the claim adds to the entry: 1, or 0 if it moves no fence
}

// purpose is what an entry is claimed for.
type purpose int

const (
	forWork     purpose = iota // to be handed out
	forRemoval                 // to be removed, however often it was delivered
	forClearing                // it seems to be spent; its history is read later, with those of others
)

// claim claims an entry in a commit of its own. It waits while another goroutine of this
// handle claims the same entry. The error is errUnavailable if the entry does not exist or
// another process holds it, and errUnreadable if its access list forbids to read it. An entry
// that was delivered too often is moved to the dead: errCleared, which is an errUnavailable.
func (c *claimer) claim(ctx context.Context, s coord.Session, name string, why purpose) (*Held, error) {
	if err := c.head.Claims.Reserve(ctx, name); err != nil {
		return nil, err
	}
	nodes, err := s.Read(ctx, path.Join(c.Entries, name))
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
	if c.claimByCheck(&a, err) { // the entry may not be written, but it can be claimed
		rs, err = s.Commit(ctx, a.ops...)
	}
	return c.settleClaim(ctx, a, rs, err, why)
}

// newClaimAttempt returns the claim of an entry as it was read. An entry that may not be
// written, or is too large to be written once more, is claimed without moving its fence.
func (c *claimer) newClaimAttempt(s coord.Session, name string, n coord.Node) claimAttempt {
	a := claimAttempt{session: s, name: name, node: n, bumps: 1}
	a.ops = []coord.Op{coord.Touch(n.Path, n.Value, n.Fence), lock.AcquireOp(c.Taken, name, c.holder)}
	a.ops[1].SignalLater = true // this handle skips what it holds
	if c.finder.restricted.IsReadOnly(name) || coord.CheckOps(s.Limits(), a.ops) != nil {
		a.checkOnly()
	}
	return a
}

// heldByResults returns the Held of an applied claim, whose ops had the results rs.
func (c *claimer) heldByResults(a claimAttempt, rs []coord.Result) *Held {
	return c.newHeld(a, rs[0].Fence, lock.Acquired(a.session, rs[1], c.holder), max(rs[0].Revision, rs[1].Revision))
}

// settleClaim returns the Held of a claim whose commit ended with rs and err. Without an answer
// it finds out what became of the claim. It ends the reservation of the entry, so that other
// takes of this handle may claim it. If the outcome is still unknown when ctx or the session
// ends, a goroutine undoes the claim and ends the reservation then.
func (c *claimer) settleClaim(ctx context.Context, a claimAttempt, rs []coord.Result, err error, why purpose) (*Held, error) {
	s, name := a.session, a.name
	isInDoubt, mayBeFree := false, false // the outcome is still unknown; other takes may find the entry ready
	defer func() {
		if !isInDoubt {
			c.head.Claims.Release(name)
		}
		if mayBeFree {
			c.head.Resting.WakeTake() // other takes skipped the entry meanwhile, and nothing else tells them
		}
	}()
	var h *Held
	switch {
	case err == nil:
		h = c.heldByResults(a, rs)
	case retry.IsRefused(err):
		mayBeFree = true
		c.head.Suppressed.Add(name, head.WasLost)
		return nil, errUnavailable
	case errors.Is(err, coord.ErrInvalid):
		// The caller gave no wrong argument and can go on taking: its error is no ErrInvalid.
		mayBeFree = true
		return nil, fmt.Errorf("claim %s: %v", name, err)
	case !errors.Is(err, coord.ErrUnknown):
		mayBeFree = true
		return nil, fmt.Errorf("claim %s: %w", name, err)
	default:
		h, err = c.resolveClaim(ctx, a)
	}
	if err == nil {
		err = c.clearIfSpent(ctx, h, why)
	}
	switch {
	case err == nil:
		c.head.Suppressed.Add(name, head.WasClaimed)
		return h, nil
	case errors.Is(err, errCleared):
		mayBeFree = true
		return nil, err
	case errors.Is(err, errUnavailable):
		mayBeFree = true
		c.head.Suppressed.Add(name, head.WasLost)
		return nil, err
	case handle.IsOver(s): // if there was a lock, it went with the session
		return nil, fmt.Errorf("claim %s: %w", name, coord.ErrSessionLost)
	}
	// The caller does not wait any longer, but the claim may have been applied, or may be
	// applied later.
	// Other takes of this handle wait for the outcome, unless another process holds the entry.
	isInDoubt = true
	c.head.Claims.MarkInDoubt(name)
	if errors.Is(err, errBlocked) {
		c.head.Claims.LetOthersPass(name)
	}
	c.head.Resting.WakeTake() // the head does not have the entry any more
	c.Spawn(func() {
		c.undoClaim(a, h)
		c.head.Claims.Release(name)
		c.head.Resting.WakeTake() // takes skipped the entry meanwhile
	})
	switch {
	case ctx.Err() != nil:
		return nil, retry.BusyUntil(ctx.Err(), err)
	case errors.Is(err, errBlocked), errors.Is(err, ErrUnknown): // the latter from the move to the dead, and an operator broke the lock
		return nil, errUnavailable
	}
	return nil, err
}

// clearIfSpent reads the history of a claimed entry and decides whether the caller gets it. An entry
// that has expired or was delivered too often is cleared away: errCleared. If an operator
// broke the lock meanwhile, the history may be that of a later delivery: errUnavailable.
func (c *claimer) clearIfSpent(ctx context.Context, h *Held, why purpose) error {
	if why == forClearing {
		return nil
	}
	if err := c.learnHistory(ctx, h); err != nil {
		return err
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
		c.log.Error("entry is dead", "queue", c.Root, "entry", h.Name, "reason", reason, "deliveries", h.Deliveries)
	}
	switch {
	case err == nil:
		return errCleared
	case errors.Is(err, ErrLockLost):
		return errUnavailable
	case errors.Is(err, ErrTooLarge):
		c.WarnOnce(h.entry, "is too large to be moved to the dead, and is handed out once more")
		return nil
	}
	return err
}

// learnHistory reads the history of a claimed entry if it is not known. It waits while the
// service is busy. errUnavailable means that the lock is lost, and that the history may be that
// of a later delivery.
func (c *claimer) learnHistory(ctx context.Context, h *Held) error {
	if h.isHistoryKnown {
		return nil
	}
	err, interrupted := c.Backoff(actTake).Do(ctx, h.lock.Session().Done(), func() (retry.Decision, error) {
		err := h.readHistory(ctx)
		if err == nil && h.past.revision > h.Token {
			// The history was written since the claim, by a later holder or by another client.
			if h.isHistoryKnown, err = h.lock.Holds(ctx); err == nil && !h.isHistoryKnown {
				h.end(stateLost, false)
				return retry.Stop, errUnavailable
			}
		}
		switch {
		case err == nil:
			return retry.Stop, nil
		case errors.Is(err, coord.ErrBusy):
			return retry.Later, err
		}
		return retry.Stop, retry.WithDeadline(ctx, err)
	})
	if interrupted != nil {
		return retry.WithDeadline(ctx, err)
	}
	return err
}

// errBlocked says that a claim without an answer meets the lock of another process. The claim
// is not applied now. It may be applied when that lock is given back, because that moves no
// fence and the claim may still be on its way.
var errBlocked = errors.New("another process holds it")

// resolveClaim finds out what became of a claim without an answer, by making it again. It
// returns the Held if one of the attempts was applied. errUnavailable means that the claim
// does not hold and never will, errBlocked that another process holds the entry now. It retries until the
// service answers, or until ctx or the session ends.
func (c *claimer) resolveClaim(ctx context.Context, a claimAttempt) (h *Held, err error) {
	err = c.repeatForClaim(ctx, a, func() (retry.Decision, error) {
		rs, err := a.session.Commit(ctx, a.ops...)
		switch {
		case err == nil:
			h = c.heldByResults(a, rs)
			return retry.Stop, nil
		case retry.RefusedOp(err) == 0: // the entry has changed: no claim of its former state can be applied any more
			h, err = c.adoptClaim(ctx, a)
			return retry.Stop, err
		case retry.IsRefused(err) && a.bumps == 0: // only the lock tells which process has it
			if h, err = c.adoptClaim(ctx, a); errors.Is(err, errUnavailable) {
				err = errBlocked
			}
			return retry.Stop, err
		case retry.IsRefused(err):
			return retry.Stop, errBlocked
		case !errors.Is(err, coord.ErrUnknown) && !errors.Is(err, coord.ErrBusy):
			return retry.Stop, fmt.Errorf("claim %s: %w", a.name, err)
		}
		return retry.Later, err
	})
	return h, err
}

// repeatForClaim makes attempts that settle a claim until one decides to stop, or until ctx or
// the session ends.
func (c *claimer) repeatForClaim(ctx context.Context, a claimAttempt, attempt func() (retry.Decision, error)) error {
	err, interrupted := c.Backoff(actTake).Do(ctx, a.session.Done(), attempt)
	if interrupted != nil {
		return fmt.Errorf("claim %s: %w", a.name, retry.BusyUntil(interrupted, err))
	}
	return err
}

// adoptClaim returns the Held of a claim that was applied without an answer, or
// errUnavailable. It reads the lock before the entry: if the lock is this handle's, and the
// entry has changed by nothing but the claim, then the entry's fence is that of the claim.
func (c *claimer) adoptClaim(ctx context.Context, a claimAttempt) (h *Held, err error) {
	err = c.repeatForClaim(ctx, a, func() (retry.Decision, error) {
		l, err := lock.Adopt(ctx, a.session, c.Taken, a.name, c.holder)
		// If a Held of this handle has that very lock, another claim created it.
		if err == nil && (l == nil || c.holdsLock(a.name, l)) {
			return retry.Stop, errUnavailable
		}
		var n coord.Node
		if err == nil {
			n, err = a.session.Get(ctx, a.node.Path)
		}
		switch {
		case err == nil && n.Changes == a.node.Changes+a.bumps:
			h = c.newHeld(a, n.Fence, l, max(n.Revision, l.Revision()))
			return retry.Stop, nil
		case err == nil, errors.Is(err, coord.ErrNotExist):
			return retry.Stop, errUnavailable
		}
		return retry.Later, err
	})
	return h, err
}

// undoClaim gives back an entry whose claim no caller waits for any more. h is the Held, or
// nil if the outcome of the claim is still unknown. Only the end of the session, which gives
// the entry back too, ends undoClaim without success. So it may outlive its queue handle.
func (c *claimer) undoClaim(a claimAttempt, h *Held) {
	backoff := c.Backoff(actRelease)
	if h == nil { // the entry is still reserved
		backoff.Wake = c.head.Claims.RetryRequests(a.name)
	}
	backoff.Do(context.Background(), a.session.Done(), func() (retry.Decision, error) {
		var err error
		if h == nil {
			c.head.Claims.ClearRetryRequest(a.name) // this attempt comes after all that arrived
			h, err = c.resolveClaim(context.Background(), a)
		}
		if h != nil {
			err = h.Release(context.Background())
		}
		if err == nil || errors.Is(err, errUnavailable) || errors.Is(err, ErrLockLost) || errors.Is(err, ErrAlreadyDone) {
			return retry.Stop, err
		}
		if errors.Is(err, errBlocked) {
			if c.head.Claims.LetOthersPass(a.name) {
				return retry.Now, err
			}
			c.head.Resting.WakeTake() // later entries need not wait for this one
		}
		return retry.Later, err
	})
}

// newHeld returns the Held of a claim that was applied, and remembers it in this handle.
// fence is the entry's fence after the claim. token is the higher of the revisions of entry
// and lock: it grows with each claim of the entry.
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
		past:       history{path: path.Join(c.Root, layout.HistoryDir, a.name)},
		sem:        make(chan struct{}, 1),
	}
	// An entry that was never handed out has no history; one without a key needs none read.
	h.isHistoryKnown = a.node.Changes == 0 && a.bumps > 0 && h.headers.Unique == ""
	if c.warn != nil {
		runtime.AddCleanup(h, c.warnOfDropped, h.hold)
	}
	if old := c.addHold(h.hold); old != nil {
		// This handle held the entry before, and lost that lock without noticing. To the service
		// the two locks may look the same, so the former Held must not finish the entry.
		if old.state.CompareAndSwap(stateHolding, stateLost) {
			c.keeper.Lose(old.lock)
		}
	}
	return h
}

// claimAndConsume removes an entry that no process holds: it claims the entry first, so that
// it takes it from no holder. Its errors are those of claim and of Consume. If it cannot
// remove the entry, a goroutine gives it back.
func (c *claimer) claimAndConsume(ctx context.Context, s coord.Session, name string) error {
	h, err := c.claim(ctx, s, name, forRemoval)
	if err != nil {
		return err
	}
	if err = h.Consume(ctx); err != nil && !errors.Is(err, ErrLockLost) {
		// The caller has no Held, so it cannot give the entry back itself.
		c.Spawn(func() { c.undoClaim(claimAttempt{session: s, name: name}, h) })
	}
	return err
}

// claimByCheck reports whether a claim was refused because this process may not write the
// entry. Then it changes the attempt, and later ones of this handle, to claim the entry
// without moving its fence, and the caller makes the attempt again.
func (c *claimer) claimByCheck(a *claimAttempt, err error) bool {
	var f *coord.ForbiddenError
	if !errors.As(err, &f) || f.Op.Path != a.node.Path || f.Op.Kind != coord.KindTouch {
		return false
	}
	c.finder.restricted.Add(a.name, true)
	a.checkOnly()
	return true
}

// checkOnly turns the attempt into one that moves no fence. Then an earlier holder is fenced
// off by the end of its session alone.
func (a *claimAttempt) checkOnly() {
	a.ops[0], a.bumps = coord.Check(a.node.Path, a.node.Fence), 0
}

// isWornOut reports whether a claimed entry was delivered too often before. Deliveries that
// were given back without a failure do not count.
func (c *claimer) isWornOut(h *Held) bool {
	return c.maxDeliveries > 0 && h.changes-h.past.Forgiven >= int64(c.maxDeliveries)
}

// wornOutReason returns the reason that is stored with a dead entry that was delivered too
// often: how often, and its last failure.
func wornOutReason(h *Held) string {
	reason := "handed out " + counted(int(h.changes-h.past.Forgiven), "time", "times") + " and never finished"
	if h.past.Reason != "" {
		reason += "; the last failure: " + h.past.Reason
	}
	return reason
}
