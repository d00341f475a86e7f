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

// errUnavailable says that an entry cannot be claimed, or not now: another process holds it
// or has removed it.
var errUnavailable = head.ErrUnavailable

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

// taker claims entries for a queue handle, and finishes them together with claims.
type taker struct{ q *LockingQueue }

// claim takes an entry, if it is still there and nobody has it: errUnavailable
// otherwise. The one commit moves the entry's fence on and creates the lock, so
// that whoever held the entry before can do nothing to it any more. An entry that
// was delivered too often is moved to the dead, and is gone then too.
func (tk *taker) claim(ctx context.Context, s coord.Session, name string, why purpose) (*Held, error) {
	if err := tk.q.head.Claims.Reserve(ctx, name); err != nil {
		return nil, err
	}
	nodes, err := s.Read(ctx, path.Join(tk.q.handle.entries, name))
	switch {
	case err != nil:
		err = fmt.Errorf("read %s: %w", name, err)
	case nodes[0].Path == "":
		err = errUnavailable
	case nodes[0].Unreadable:
		err = errUnreadable
	}
	if err != nil {
		tk.q.head.Claims.Release(name)
		return nil, err
	}
	a := tk.claimAttempt(s, name, nodes[0])
	rs, err := s.Commit(ctx, a.ops...)
	if tk.q.finder.readOnly(err, &a) {
		rs, err = s.Commit(ctx, a.ops...)
	}
	return tk.conclude(ctx, a, rs, err, why)
}

// claimAttempt is the claim of an entry as it was read.
func (tk *taker) claimAttempt(s coord.Session, name string, n coord.Node) claimAttempt {
	a := claimAttempt{session: s, name: name, node: n, bumps: 1}
	a.ops = []coord.Op{coord.Touch(n.Path, n.Value, n.Fence), lock.Take(tk.q.handle.taken, name, tk.q.handle.holder)}
	a.ops[1].SignalLater = true // this handle passes over what it holds
	if tk.q.restricted.IsReadOnly(name) || coord.CheckOps(s.Limits(), a.ops) != nil {
		// Somebody with higher limits put it. Its fence cannot be moved without
		// sending the value, so it is fenced by the session alone.
		a.checkOnly()
	}
	return a
}

// applied makes the handle of a claim from the results of its ops.
func (tk *taker) applied(a claimAttempt, rs []coord.Result) *Held {
	return tk.held(a, rs[0].Fence, lock.Taken(a.session, rs[1], tk.q.handle.holder), max(rs[0].Revision, rs[1].Revision))
}

// conclude takes up a claim after its commit, which ended with rs and err: it finds
// out what became of it if that is not known. When it returns, others of this handle
// may try for the entry; unless the claim is in doubt, and then they may later.
func (tk *taker) conclude(ctx context.Context, a claimAttempt, rs []coord.Result, err error, why purpose) (*Held, error) {
	s, name := a.session, a.name
	unresolved, missed := false, false
	defer func() {
		if !unresolved {
			tk.q.head.Claims.Release(name)
		}
		if missed {
			tk.q.resting.Signal() // others passed over it meanwhile; it may stand free, and nothing else will say so
		}
	}()
	var h *Held
	switch {
	case err == nil:
		h = tk.applied(a, rs)
	case retry.IsRefused(err):
		missed = true
		tk.q.head.Suppressed.Add(name, head.WasLost)
		return nil, errUnavailable
	case errors.Is(err, coord.ErrInvalid):
		// The caller gave no argument that could be wrong: it can go on taking.
		missed = true
		return nil, fmt.Errorf("claim %s: %v", name, err)
	case !errors.Is(err, coord.ErrUnknown):
		missed = true
		return nil, fmt.Errorf("claim %s: %w", name, err)
	default:
		h, err = tk.resolveClaim(ctx, a)
	}
	if err == nil {
		err = tk.admit(ctx, h, why)
	}
	switch {
	case err == nil:
		tk.q.head.Suppressed.Add(name, head.WasClaimed)
		return h, nil
	case errors.Is(err, errCleared):
		missed = true
		return nil, err
	case errors.Is(err, errUnavailable):
		missed = true
		tk.q.head.Suppressed.Add(name, head.WasLost)
		return nil, err
	case over(s): // with it went whatever lock it may have left
		return nil, fmt.Errorf("claim %s: %w", name, coord.ErrSessionLost)
	}
	// The caller will not wait, and the entry is held, or the claim may still
	// succeed: nobody would know that. Other takes of this handle wait for it,
	// unless somebody holds the entry anyway.
	unresolved = true
	tk.q.head.Claims.MarkInDoubt(name)
	if errors.Is(err, errBlocked) {
		tk.q.head.Claims.LetOthersPass(name)
	}
	tk.q.head.Claims.ClearRetryRequest(name) // what the undoing tries first answers it
	tk.q.resting.Signal()                    // the view has it no more
	tk.q.handle.spawn(func() {
		tk.undoClaim(a, h)
		tk.q.head.Claims.Release(name)
		tk.q.resting.Signal() // takes passed over the entry meanwhile
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
func (tk *taker) admit(ctx context.Context, h *Held, why purpose) error {
	if why == forClearing {
		return nil
	}
	for backoff := tk.q.handle.backoff(actTake); !h.known; {
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
	if why == forRemoval || !tk.wornOut(h) {
		return nil
	}
	reason := wornOutReason(h)
	err := h.bury(ctx, 0, reason)
	if err == nil && tk.q.handle.log != nil {
		tk.q.handle.log.Error("entry is dead", "queue", tk.q.Name(), "entry", h.Name, "reason", reason, "deliveries", h.Deliveries)
	}
	switch {
	case err == nil:
		return errCleared
	case errors.Is(err, ErrLockLost):
		return errUnavailable
	case errors.Is(err, ErrTooLarge):
		tk.q.handle.warnOnce(h.entry, "is too large to be moved to the dead, and is handed out once more")
		return nil
	}
	return err
}

// errBlocked says that a claim whose answer was lost met somebody's lock: it is
// not applied now, but may be when that lock is given back, which moves no fence.
var errBlocked = errors.New("somebody holds it")

// resolveClaim finds out what became of a claim without an answer, by making it
// again: both have the same conditions, so at most one of them can ever apply.
func (tk *taker) resolveClaim(ctx context.Context, a claimAttempt) (*Held, error) {
	for backoff := tk.q.handle.backoff(actTake); ; {
		rs, err := a.session.Commit(ctx, a.ops...)
		switch {
		case err == nil:
			return tk.applied(a, rs), nil
		case retry.RefusedOp(err) == 0: // the entry has moved on, and no claim of that state can apply any more
			return tk.adopt(ctx, a)
		case retry.IsRefused(err) && a.bumps == 0: // only the lock tells whose it is
			if h, err := tk.adopt(ctx, a); !errors.Is(err, errUnavailable) {
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
func (tk *taker) adopt(ctx context.Context, a claimAttempt) (*Held, error) {
	for backoff := tk.q.handle.backoff(actTake); ; {
		l, err := lock.Adopt(ctx, a.session, tk.q.handle.taken, a.name, tk.q.handle.holder)
		if err == nil && (l == nil || tk.q.holding.holds(a.name, l)) {
			return nil, errUnavailable
		}
		var n coord.Node
		if err == nil {
			n, err = a.session.Get(ctx, a.node.Path)
		}
		switch {
		case err == nil && n.Changes == a.node.Changes+a.bumps:
			return tk.held(a, n.Fence, l, max(n.Revision, l.Revision())), nil
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
func (tk *taker) undoClaim(a claimAttempt, h *Held) {
	backoff := tk.q.handle.backoff(actRelease)
	if h == nil { // and the turn is still at this claim
		backoff.Wake = tk.q.head.Claims.RetryRequests(a.name)
	}
	for {
		var err error
		if h == nil {
			h, err = tk.resolveClaim(context.Background(), a)
		}
		if h != nil {
			err = h.Release(context.Background())
		}
		if err == nil || errors.Is(err, errUnavailable) || errors.Is(err, ErrLockLost) || errors.Is(err, ErrAlreadyDone) {
			return
		}
		if errors.Is(err, errBlocked) {
			if tk.q.head.Claims.LetOthersPass(a.name) {
				continue
			}
			tk.q.resting.Signal() // what is behind it need not wait
		}
		if backoff.Wait(context.Background(), a.session.Done(), err) != nil {
			return
		}
		if h == nil {
			tk.q.head.Claims.ClearRetryRequest(a.name) // what is tried now answers it
		}
	}
}

// held makes the handle of a claim that was applied.
func (tk *taker) held(a claimAttempt, fence coord.Fence, l *lock.Lock, token int64) *Held {
	n, _ := priority.Parse(a.name)
	e := newEntry(a.name, n, a.node)
	h := &Held{
		Name:       e.Name,
		Value:      e.Value,
		Priority:   e.Priority,
		Deliveries: e.Deliveries + 1,
		Token:      token,
		Created:    e.Created,
		queue:      tk.q,
		hold:       &hold{name: e.Name, lock: l},
		entry:      a.node.Path,
		fence:      fence,
		changes:    a.node.Changes,
		bumps:      a.bumps,
		headers:    layout.HeadersOf(a.node.Value),
		born:       a.node.Born,
		past:       history{path: path.Join(tk.q.handle.root, layout.HistoryDir, a.name)},
		sem:        make(chan struct{}, 1),
	}
	// It was never handed out, nor given back, and stands for no key.
	h.known = a.node.Changes == 0 && a.bumps > 0 && h.headers.Unique == ""
	if tk.q.handle.warn != nil {
		runtime.AddCleanup(h, tk.q.handle.dropped, h.hold)
	}
	if old := tk.q.holding.add(h.hold); old != nil {
		// Its lock was taken from it, and this handle has the next: to the
		// service the two locks may look the same.
		if old.state.CompareAndSwap(stateHolding, stateLost) {
			tk.q.keeper.Lose(old.lock)
		}
	}
	return h
}

// errUnreadable is of an entry whose access list keeps this process from reading it.
var errUnreadable = fmt.Errorf("its access list does not let this process read it: %w", coord.ErrForbidden)

// skipUnreadable leaves an entry alone that cannot be read, and says so once.
func (fd *finder) skipUnreadable(n coord.Node) {
	fd.restricted.Add(path.Base(n.Path), false)
	fd.warnOnce(n.Path, "cannot be read, because its access list does not allow it: skipped; rm --force removes it")
}

// readOnly says whether the claim of an entry was refused because it may not be written:
// it is claimed by a check from then on.
func (fd *finder) readOnly(err error, a *claimAttempt) bool {
	var f *coord.ForbiddenError
	if !errors.As(err, &f) || f.Op.Path != a.node.Path || f.Op.Kind != coord.KindTouch {
		return false
	}
	fd.restricted.Add(a.name, true)
	a.checkOnly()
	return true
}

// checkOnly makes a claim that moves no fence: it is fenced by the session alone.
func (a *claimAttempt) checkOnly() {
	a.ops[0], a.bumps = coord.Check(a.node.Path, a.node.Fence), 0
}

// known reads a node of which the value is not needed, if it may not be read.
func known(ctx context.Context, s coord.Session, at string) (coord.Node, error) {
	n, err := s.Get(ctx, at)
	if !errors.Is(err, coord.ErrForbidden) {
		return n, err
	}
	nodes, readErr := s.Read(ctx, at)
	switch {
	case readErr != nil:
		return n, err
	case nodes[0].Path == "":
		return n, coord.ErrNotExist
	}
	return nodes[0], nil
}
