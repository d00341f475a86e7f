package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"sync"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// claims are the entries that goroutines of this handle are claiming right now.
// Two of them never try for the same one at once: a lock that was found after a
// lost answer could be either's. The second waits rather than pass on to a later
// entry, whose first claim might then come before this one's.
type claims struct {
	mu    sync.Mutex
	names map[string]*turns
	woke  func(context.Context) // whoever waited for another and goes on
}

// turns is a queue of goroutines at one entry.
type turns struct {
	turn    chan struct{} // holds one while somebody claims
	users   int
	blocked chan struct{} // closed when whoever has the turn waits for another's lock
	passed  bool          // it is closed
	again   chan struct{} // holds one: somebody came since whoever has the turn began to try
	doubt   bool          // nobody waits for whoever has the turn, who does not know what became of his claim
}

func newTurns() *turns {
	return &turns{turn: make(chan struct{}, 1), again: make(chan struct{}, 1), blocked: make(chan struct{})}
}

// tryBegin is begin where nobody is at the name; otherwise it is false.
func (c *claims) tryBegin(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names[name] != nil {
		return false
	}
	t := newTurns()
	t.users = 1
	t.turn <- struct{}{}
	c.names[name] = t
	return true
}

// has says whether somebody is at the name.
func (c *claims) has(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names[name] != nil
}

func (c *claims) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.names)
}

// begin waits for the turn at the name. errGone: what becomes of it may take long,
// and is told by a signal.
func (c *claims) begin(ctx context.Context, name string) error {
	c.mu.Lock()
	t := c.names[name]
	if t == nil {
		t = newTurns()
		c.names[name] = t
	}
	if t.users++; t.users > 1 {
		t.come()
	}
	blocked := t.blocked
	c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		c.leave(name, t)
		return err
	}
	select {
	case t.turn <- struct{}{}:
		t.asked()
		return nil
	default:
	}
	var err error
	mine := false
	select {
	case t.turn <- struct{}{}:
		t.asked()
		mine = true
	case <-blocked:
		err = errGone
	case <-ctx.Done():
	}
	c.woke(ctx)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if mine && err != nil {
		<-t.turn
	}
	if err != nil {
		c.leave(name, t)
	}
	return err
}

// ask makes whoever has the turn try once more.
func (t *turns) ask() {
	select {
	case t.again <- struct{}{}:
	default:
	}
}

// asked says whether anybody came since it was called last.
func (t *turns) asked() bool {
	select {
	case <-t.again:
		return true
	default:
		return false
	}
}

// come notes that somebody comes who has seen no lock there: an answer from before is
// not for him.
func (t *turns) come() {
	t.ask()
	if t.passed {
		t.passed, t.blocked = false, make(chan struct{})
	}
}

// inDoubt says that nobody waits any more for the one who has the turn, and that it
// is not known what became of his claim.
func (c *claims) inDoubt(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names[name].doubt = true
}

// holdsBack says whether the claim of an entry that nobody seems to hold is in doubt.
// Later entries wait for that: a first claim of theirs could come before its own.
func (c *claims) holdsBack(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.names[name]
	if t == nil || !t.doubt {
		return false
	}
	if t.passed {
		t.come()
	}
	return true
}

// firstInDoubt is the first entry whose claim is in doubt and not known to wait for
// another's lock, or "". If this handle holds it by now, it will give it back at once.
func (c *claims) firstInDoubt() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := ""
	for name, t := range c.names {
		if t.doubt && !t.passed && (first == "" || name < first) {
			first = name
		}
	}
	return first
}

// pass says that whoever has the turn at the name will keep it until another has
// given back his lock: nobody who came before he tried need wait for that. If
// somebody came since, he has to try again.
func (c *claims) pass(name string) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.names[name]
	if t.asked() {
		return true
	}
	if !t.passed {
		t.passed = true
		close(t.blocked)
	}
	return false
}

// at is the turn that the caller has.
func (c *claims) at(name string) *turns {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names[name]
}

func (c *claims) end(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.names[name]
	t.doubt = false
	<-t.turn
	c.left(name, t)
}

func (c *claims) leave(name string, t *turns) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left(name, t)
}

func (c *claims) left(name string, t *turns) {
	if t.users--; t.users == 0 {
		delete(c.names, name)
	}
}

// attempt is one claim of one entry: the entry as it was read, and the commit
// that takes it in that state and no other.
type attempt struct {
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

// claim takes an entry, if it is still there and nobody has it: errGone
// otherwise. The one commit moves the entry's fence on and creates the lock, so
// that whoever held the entry before can do nothing to it any more. An entry that
// was delivered too often is moved to the dead, and is gone then too.
func (q *LockingQueue) claim(ctx context.Context, s coord.Session, name string, why purpose) (*Held, error) {
	if err := q.view.claims.begin(ctx, name); err != nil {
		return nil, err
	}
	nodes, err := s.Read(ctx, path.Join(q.entries, name))
	switch {
	case err != nil:
		err = fmt.Errorf("read %s: %w", name, err)
	case nodes[0].Path == "":
		err = errGone
	case nodes[0].Unreadable:
		err = errUnreadable
	}
	if err != nil {
		q.view.claims.end(name)
		return nil, err
	}
	a := q.attempt(s, name, nodes[0])
	rs, err := s.Commit(ctx, a.ops...)
	if q.readOnly(err, &a) {
		rs, err = s.Commit(ctx, a.ops...)
	}
	return q.conclude(ctx, a, rs, err, why)
}

// attempt is the claim of an entry as it was read.
func (q *LockingQueue) attempt(s coord.Session, name string, n coord.Node) attempt {
	a := attempt{session: s, name: name, node: n, bumps: 1}
	a.ops = []coord.Op{coord.Touch(n.Path, n.Value, n.Fence), lock.Take(q.taken, name, q.holder)}
	a.ops[1].SignalLater = true // this handle passes over what it holds
	if q.restricted.readOnly(name) || coord.CheckOps(s.Limits(), a.ops) != nil {
		// Somebody with higher limits put it. Its fence cannot be moved without
		// sending the value, so it is fenced by the session alone.
		a.checkOnly()
	}
	return a
}

// applied makes the handle of a claim from the results of its ops.
func (q *LockingQueue) applied(a attempt, rs []coord.Result) *Held {
	return q.held(a, rs[0].Fence, lock.Taken(a.session, rs[1], q.holder), max(rs[0].Revision, rs[1].Revision))
}

// conclude takes up a claim after its commit, which ended with rs and err: it finds
// out what became of it if that is not known. When it returns, others of this handle
// may try for the entry; unless the claim is in doubt, and then they may later.
func (q *LockingQueue) conclude(ctx context.Context, a attempt, rs []coord.Result, err error, why purpose) (*Held, error) {
	s, name := a.session, a.name
	unresolved, missed := false, false
	defer func() {
		if !unresolved {
			q.view.claims.end(name)
		}
		if missed {
			q.skip.signal() // others passed over it meanwhile; it may stand free, and nothing else will say so
		}
	}()
	var h *Held
	switch {
	case err == nil:
		h = q.applied(a, rs)
	case retry.IsRefused(err):
		missed = true
		q.view.aside.put(name, lost)
		return nil, errGone
	case errors.Is(err, coord.ErrInvalid):
		// The caller gave no argument that could be wrong: it can go on taking.
		missed = true
		return nil, fmt.Errorf("claim %s: %v", name, err)
	case !errors.Is(err, coord.ErrUnknown):
		missed = true
		return nil, fmt.Errorf("claim %s: %w", name, err)
	default:
		h, err = q.resolveClaim(ctx, a)
	}
	if err == nil {
		err = q.admit(ctx, h, why)
	}
	switch {
	case err == nil:
		q.view.aside.put(name, claimed)
		return h, nil
	case errors.Is(err, errCleared):
		missed = true
		return nil, err
	case errors.Is(err, errGone):
		missed = true
		q.view.aside.put(name, lost)
		return nil, err
	case over(s): // with it went whatever lock it may have left
		return nil, fmt.Errorf("claim %s: %w", name, coord.ErrSessionLost)
	}
	// The caller will not wait, and the entry is held, or the claim may still
	// succeed: nobody would know that. Other takes of this handle wait for it,
	// unless somebody holds the entry anyway.
	unresolved = true
	q.view.claims.inDoubt(name)
	if errors.Is(err, errBlocked) {
		q.view.claims.pass(name)
	}
	q.view.claims.at(name).asked() // what the undoing tries first answers it
	q.skip.signal()                // the view has it no more
	q.spawn(func() {
		q.undoClaim(a, h)
		q.view.claims.end(name)
		q.skip.signal() // takes passed over the entry meanwhile
	})
	switch {
	case ctx.Err() != nil:
		return nil, retry.BusyUntil(ctx.Err(), err)
	case errors.Is(err, errBlocked), errors.Is(err, ErrUnknown): // of the move to the dead, and it was broken
		return nil, errGone
	}
	return nil, err
}

// admit reads what became of a claimed entry before. An entry that has expired or was
// delivered too often is cleared away: errCleared. If the lock was broken meanwhile, and
// what is read is of later deliveries than this one, it is errGone.
func (q *LockingQueue) admit(ctx context.Context, h *Held, why purpose) error {
	if why == forClearing {
		return nil
	}
	for backoff := q.backoff(actTake); !h.known; {
		err := h.recall(ctx)
		if err == nil && h.past.revision > h.Token {
			// It was written since the claim: by a later holder, or by who is none.
			if h.known, err = h.lock.Holds(ctx); err == nil && !h.known {
				h.end(stateLost, false)
				return errGone
			}
		}
		if err != nil && (!errors.Is(err, coord.ErrBusy) || backoff.Wait(ctx, h.lock.Session().Done(), err) != nil) {
			return retry.WithDeadline(ctx, err)
		}
	}
	h.Failures, h.Deliveries, h.stuck = h.past.Failures, h.deliveries(), h.past.Stuck
	if why != forRemoval && expired(h.headers.expires()) {
		return h.discard(ctx)
	}
	if why == forRemoval || !q.wornOut(h) {
		return nil
	}
	reason := wornOutReason(h)
	err := h.bury(ctx, 0, reason)
	if err == nil && q.log != nil {
		q.log.Error("entry is dead", "queue", q.Name(), "entry", h.Name, "reason", reason, "deliveries", h.Deliveries)
	}
	switch {
	case err == nil:
		return errCleared
	case errors.Is(err, ErrLockLost):
		return errGone
	case errors.Is(err, ErrTooLarge):
		q.warnOnce(h.entry, "is too large to be moved to the dead, and is handed out once more")
		return nil
	}
	return err
}

// errBlocked says that a claim whose answer was lost met somebody's lock: it is
// not applied now, but may be when that lock is given back, which moves no fence.
var errBlocked = errors.New("somebody holds it")

// resolveClaim finds out what became of a claim without an answer, by making it
// again: both have the same conditions, so at most one of them can ever apply.
func (q *LockingQueue) resolveClaim(ctx context.Context, a attempt) (*Held, error) {
	for backoff := q.backoff(actTake); ; {
		rs, err := a.session.Commit(ctx, a.ops...)
		switch {
		case err == nil:
			return q.applied(a, rs), nil
		case retry.RefusedOp(err) == 0: // the entry has moved on, and no claim of that state can apply any more
			return q.adopt(ctx, a)
		case retry.IsRefused(err) && a.bumps == 0: // only the lock tells whose it is
			if h, err := q.adopt(ctx, a); !errors.Is(err, errGone) {
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
func (q *LockingQueue) adopt(ctx context.Context, a attempt) (*Held, error) {
	for backoff := q.backoff(actTake); ; {
		l, err := lock.Adopt(ctx, a.session, q.taken, a.name, q.holder)
		if err == nil && (l == nil || q.holding.holds(a.name, l)) {
			return nil, errGone
		}
		var n coord.Node
		if err == nil {
			n, err = a.session.Get(ctx, a.node.Path)
		}
		switch {
		case err == nil && n.Changes == a.node.Changes+a.bumps:
			return q.held(a, n.Fence, l, max(n.Revision, l.Revision())), nil
		case err == nil, errors.Is(err, coord.ErrNotExist):
			return nil, errGone
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
func (q *LockingQueue) undoClaim(a attempt, h *Held) {
	backoff := q.backoff(actRelease)
	if h == nil { // and the turn is still at this claim
		backoff.Wake = q.view.claims.at(a.name).again
	}
	for {
		var err error
		if h == nil {
			h, err = q.resolveClaim(context.Background(), a)
		}
		if h != nil {
			err = h.Release(context.Background())
		}
		if err == nil || errors.Is(err, errGone) || errors.Is(err, ErrLockLost) || errors.Is(err, ErrAlreadyDone) {
			return
		}
		if errors.Is(err, errBlocked) {
			if q.view.claims.pass(a.name) {
				continue
			}
			q.skip.signal() // what is behind it need not wait
		}
		if backoff.Wait(context.Background(), a.session.Done(), err) != nil {
			return
		}
		if h == nil {
			q.view.claims.at(a.name).asked() // what is tried now answers it
		}
	}
}

// held makes the handle of a claim that was applied.
func (q *LockingQueue) held(a attempt, fence coord.Fence, l *lock.Lock, token int64) *Held {
	n, _ := priority.Parse(a.name)
	e := newEntry(a.name, n, a.node)
	h := &Held{
		Name:       e.Name,
		Value:      e.Value,
		Priority:   e.Priority,
		Deliveries: e.Deliveries + 1,
		Token:      token,
		Created:    e.Created,
		queue:      q,
		hold:       &hold{name: e.Name, lock: l},
		entry:      a.node.Path,
		fence:      fence,
		changes:    a.node.Changes,
		bumps:      a.bumps,
		headers:    headersOf(a.node.Value),
		born:       a.node.Born,
		past:       attempts{path: path.Join(q.root, dirAttempts, a.name)},
		turn:       make(chan struct{}, 1),
	}
	// It was never handed out, nor given back, and stands for no key.
	h.known = a.node.Changes == 0 && a.bumps > 0 && h.headers.Unique == ""
	if q.warn != nil {
		runtime.AddCleanup(h, q.dropped, h.hold)
	}
	if old := q.holding.add(h.hold); old != nil {
		// Its lock was taken from it, and this handle has the next: to the
		// service the two locks may look the same.
		if old.state.CompareAndSwap(stateHolding, stateLost) {
			q.keeper.Lose(old.lock)
		}
	}
	return h
}
