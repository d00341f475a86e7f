package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// An entry's headers may say when it expires. A take that meets an expired entry removes it.
// Listings, Peek and Stat skip it; its node exists until a take, or a put into a full
// queue, removes it. The queue's
// configuration says whether any entry ever had a time to live. If not, values are not read to
// find out.

// expiresIn returns when an entry expires that is put now and lives for d, in Unix
// milliseconds, rounded down. A time after the year 2285 is [ErrInvalid].
func expiresIn(d time.Duration) (ms int64, err error) {
	ms = time.Now().Add(d).UnixMilli()
	if ms > layout.LastMillis || ms < 1 {
		return 0, fmt.Errorf("a time to live of %v: it must end before the year 2286: %w", d, ErrInvalid)
	}
	return ms, nil
}

// expired reports whether the time at is over, by this machine's clock. A zero time never is.
func expired(at time.Time) bool { return !at.IsZero() && !time.Now().Before(at) }

// markExpiring stores in the queue's configuration that entries may expire, unless that is
// stored already. A put with a time to live does this first. After an error nothing was put.
func (lt *lifetimes) markExpiring(ctx context.Context, s coord.Session) error {
	if c, err := lt.settings.config(ctx, s); err != nil || c.Expires {
		return err
	}
	return retry.NotApplied(ctx, lt.settings.changeConfig(ctx, func(c *config) error {
		if c.Expires {
			return errUnchanged
		}
		c.Expires = true
		return nil
	}))
}

// discard removes a claimed entry that has expired. It always returns an error: errCleared if it
// removed the entry, errUnavailable if the lock was lost, or another error of [Held.Consume].
func (h *Held) discard(ctx context.Context) error {
	switch err := h.Consume(ctx); {
	case err == nil:
		return errCleared
	case errors.Is(err, ErrLockLost):
		return errUnavailable
	default:
		return err
	}
}

// lifetimes finds out which entries of a queue expire. Their times to live are stored with their
// values, so that costs a listing with values. It is saved if the queue's configuration says
// that no entry ever had a time to live.
type lifetimes struct {
	*handle.Handle
	settings *settings
}

// lifetime is what is known of an entry that may expire.
type lifetime struct {
	node      coord.Node
	name      string
	expires   time.Time // zero: never
	isHeld    bool      // a held entry does not expire
	isDelayed bool      // it rests until it is due
}

// hasExpired reports whether takes skip the entry because its time to live is over.
func (l lifetime) hasExpired() bool { return !l.isHeld && expired(l.expires) }

// eachLifetime calls f with the lifetime of each entry, in take order, until f returns an error.
// locks are those of the entries, by name. Delayed puts and the dead are not included.
func (lt *lifetimes) eachLifetime(ctx context.Context, s coord.Session, locks map[string]coord.Node, f func(lifetime) error) error {
	for page, err := range handle.Pages(ctx, s, lt.Entries, coord.ListOptions{Limit: handle.NodesPage, Values: true, Fresh: true}) {
		if err != nil {
			return err
		}
		for _, n := range page {
			name := path.Base(n.Path)
			if _, ok := priority.Parse(name); !ok {
				continue
			}
			l := lifetime{node: n, name: name, expires: layout.HeadersOf(n.Value).Expires()}
			if lk, locked := locks[name]; locked {
				l.isDelayed = lock.Read(lk).Kind == lock.Resting
				l.isHeld = !l.isDelayed
			}
			if err := f(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// expiredNames returns the names of the entries that have expired. It reads nothing if no entry
// may expire.
func (lt *lifetimes) expiredNames(ctx context.Context, s coord.Session, locks map[string]coord.Node) (map[string]bool, error) {
	if may, err := lt.mayExpireIn(ctx, s); err != nil || !may {
		return nil, err
	}
	names := make(map[string]bool)
	err := lt.eachLifetime(ctx, s, locks, func(l lifetime) error {
		if l.hasExpired() {
			names[l.name] = true
		}
		return nil
	})
	return names, err
}

// mayExpire reports whether entries of the queue may have a time to live.
func (lt *lifetimes) mayExpire(ctx context.Context) (may bool, err error) {
	err = lt.Do(ctx, func(ctx context.Context, s coord.Session) error {
		may, err = lt.mayExpireIn(ctx, s)
		return err
	})
	return may, err
}

// mayExpireIn is mayExpire in a session. A yes may come from what was read before. A no is read
// again, because another process may have put the first such entry since.
func (lt *lifetimes) mayExpireIn(ctx context.Context, s coord.Session) (bool, error) {
	c, err := lt.settings.config(ctx, s)
	if err == nil && !c.Expires && lt.Taken != "" {
		c, err = lt.settings.refreshConfig(ctx, s)
	}
	return c.Expires, err
}

// A spent entry is one that no take hands out any more: it has expired, or it was delivered
// too often. A take that meets spent entries clears them away in two commits. The first
// claims up to head.MaxCleared of them, so that no kazoo worker can hold one when it is
// removed. The second removes the expired ones and moves the others to the dead. In between
// their histories are read, because a delivery may have been forgiven.

// clearer clears away spent entries. Its invariant: it removes an entry, or moves it to the
// dead, only while this handle holds the entry. An entry that turns out not to be spent, or
// cannot be cleared away, is given back.
type clearer struct {
	*claimer
	dead *deadLetters
}

// mayBeSpent reports whether an entry, as it was read, has expired or was delivered so often
// that only its history tells whether it is handed out once more.
func (cl *clearer) mayBeSpent(n coord.Node) bool {
	return hasExpired(n) || cl.wasDelivered(n)
}

// hasExpired reports whether an entry, as it was read, has expired. It does not know whether the
// entry is held.
func hasExpired(n coord.Node) bool { return expired(layout.HeadersOf(n.Value).Expires()) }

// wasDelivered reports whether the entry was delivered as often as MaxDeliveries allows,
// including deliveries that were forgiven.
func (cl *clearer) wasDelivered(n coord.Node) bool {
	return cl.maxDeliveries > 0 && n.Changes >= int64(cl.maxDeliveries)
}

// findSpent returns the paths of the entries that are spent, as they were read. It reads
// histories only if at least two entries need it, or one has expired. A single entry that was
// delivered too often is judged when it is claimed.
func (cl *clearer) findSpent(ctx context.Context, s coord.Session, nodes []coord.Node) (map[string]bool, error) {
	paths := make(map[string]bool)
	var often []coord.Node // delivered often enough that the history decides
	for _, n := range nodes {
		switch {
		case n.Path == "" || n.Unreadable:
		case hasExpired(n):
			paths[n.Path] = true
		case cl.wasDelivered(n) && cl.fitsTheDead(s, n):
			often = append(often, n)
		}
	}
	if len(often) < 2 && len(paths) == 0 {
		return nil, nil
	}
	past, err := cl.history.readHistories(ctx, s, often)
	if err != nil {
		return nil, err
	}
	for i, n := range often {
		if n.Changes-past[i].Forgiven >= int64(cl.maxDeliveries) {
			paths[n.Path] = true
		}
	}
	return paths, nil
}

// fitsTheDead reports whether the entry can be moved to the dead. An entry that is too large
// for that is handed out once more.
func (cl *clearer) fitsTheDead(s coord.Session, n coord.Node) bool {
	l := s.Limits()
	l.ValueBytes -= deadHeaders
	l.CommitBytes -= deadHeaders
	return coord.CheckOps(l, cl.dead.moveToDeadOps(path.Base(n.Path), n.Value)) == nil
}

// readHistories reads the histories of several entries in one request. They are in the order of
// the nodes, and empty for entries that have none.
func (hs *histories) readHistories(ctx context.Context, s coord.Session, nodes []coord.Node) ([]history, error) {
	if len(nodes) == 0 {
		return nil, nil
	}
	paths := make([]string, len(nodes))
	for i, n := range nodes {
		paths[i] = path.Join(hs.Root, layout.HistoryDir, path.Base(n.Path))
	}
	read, err := s.Read(ctx, paths...)
	if err != nil {
		return nil, fmt.Errorf("read what became of %s before: %w", path.Base(nodes[0].Path), err)
	}
	past := make([]history, len(nodes))
	for i, n := range read {
		if past[i] = (history{path: paths[i]}); n.Path != "" {
			past[i] = parseHistory(n)
		}
	}
	return past, nil
}

// clear clears away the spent entries of a choice, whose entries are reserved. It returns how
// many it cleared away; the error counts only if that is none. An entry that stays held after
// an error is given back in the background.
func (cl *clearer) clear(ctx context.Context, c head.Choice) (cleared int, err error) {
	values := make(map[string][]byte, len(c.Nodes)) // by path, as they were read
	for _, n := range c.Nodes {
		values[n.Path] = n.Value
	}
	held, err := cl.claimAll(ctx, c)
	if len(held) == 0 {
		return 0, err
	}
	finishes, err := cl.chooseFinishes(ctx, held, values)
	rest, err := cl.clearAll(ctx, held, finishes, err)
	if cleared = len(held) - len(rest); cleared > 0 {
		err = nil // the next attempt shows the error again
	}
	return cleared, err
}

// claimAll claims the reserved entries of a choice, to be cleared away.
func (cl *clearer) claimAll(ctx context.Context, c head.Choice) ([]*Held, error) {
	x := cl.newExchangeCommit(c, nil)
	x.purpose = forClearing
	return x.commit(ctx)
}

// clearNodes clears away entries as they were read, except those that another take of this
// handle is claiming.
func (cl *clearer) clearNodes(ctx context.Context, s coord.Session, nodes []coord.Node) error {
	for len(nodes) > 0 {
		n := min(len(nodes), head.MaxCleared, max(s.Limits().CommitOps/2, 1))
		if _, err := cl.clear(ctx, cl.reserve(s, nodes[:n])); err != nil {
			return err
		}
		nodes = nodes[n:]
	}
	return nil
}

// reserve returns the choice of those of the nodes that no other take of this handle is claiming,
// and that fit into one commit together.
func (cl *clearer) reserve(s coord.Session, nodes []coord.Node) head.Choice {
	c, size := head.Choice{Session: s}, 0
	for _, n := range nodes {
		name := path.Base(n.Path)
		size += 2 * (coord.OpOverhead + len(n.Path) + len(n.Value)/2 + len(cl.holder))
		if len(c.Names) > 0 && (size > s.Limits().CommitBytes || 2*len(c.Names)+2 > s.Limits().CommitOps) {
			break
		}
		if cl.head.Claims.TryReserve(name) {
			c.Names, c.Nodes = append(c.Names, name), append(c.Nodes, n)
		}
	}
	return c
}

// removeNodes removes entries as they were read, in two commits: it claims them and removes them.
// So it removes none that another process holds. It returns the names of those that it removed. It
// leaves out entries that do not fit into the commit, that another take of this handle is
// claiming, or that another process has changed or holds.
func (cl *clearer) removeNodes(ctx context.Context, s coord.Session, nodes []coord.Node) (removed []string, err error) {
	held, err := cl.claimAll(ctx, cl.reserve(s, nodes))
	if len(held) == 0 {
		return nil, err
	}
	problem := cl.readPast(ctx, held)
	finishes := make(map[*Held]finish, len(held))
	for _, h := range held {
		finishes[h] = h.consumption()
	}
	_, problem = cl.clearAll(ctx, held, finishes, problem)
	for _, h := range held {
		if h.state.Load() == stateDone {
			removed = append(removed, h.Name)
		}
	}
	if err == nil {
		err = problem
	}
	return removed, err
}

// chooseFinishes returns how each claimed entry is finished: an expired one is removed, and one
// that was delivered too often is moved to the dead. An entry that turns out not to be spent is
// given back, and so is one whose history was written after the claim. values holds the values
// by path, for the dead entries.
func (cl *clearer) chooseFinishes(ctx context.Context, held []*Held, values map[string][]byte) (map[*Held]finish, error) {
	if err := cl.readPast(ctx, held); err != nil {
		return nil, err
	}
	finishes := make(map[*Held]finish, len(held))
	for _, h := range held {
		switch {
		case expired(h.headers.Expires()):
			finishes[h] = h.consumption()
		case h.past.revision <= h.Token && cl.isWornOut(h):
			value := values[h.entry]
			finishes[h] = h.burial(0, wornOutReason(h), func(context.Context) ([]byte, error) { return value, nil })
		default:
			finishes[h] = h.release()
		}
	}
	return finishes, nil
}

// readPast reads the histories of the entries and the nodes of their unique keys, in two
// requests for all of them. It is [Held.readHistory] for several entries.
func (cl *clearer) readPast(ctx context.Context, held []*Held) error {
	var unknown, unique []*Held // whose history is not known; of these, those with a unique key
	var nodes []coord.Node      // of unknown
	var keys []string           // the paths of the keys of unique
	for _, h := range held {
		if h.isHistoryKnown {
			continue
		}
		unknown, nodes = append(unknown, h), append(nodes, coord.Node{Path: h.entry})
		if h.headers.Unique != "" {
			unique, keys = append(unique, h), append(keys, cl.keys.uniquePath(h.headers.Unique))
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	s := held[0].lock.Session()
	past, err := cl.history.readHistories(ctx, s, nodes)
	if err != nil {
		return err
	}
	var read []coord.Node
	if len(keys) > 0 {
		if read, err = s.Read(ctx, keys...); err != nil {
			return fmt.Errorf("read the key of %s: %w", unique[0].Name, err)
		}
	}
	for i, h := range unknown {
		h.past, h.isHistoryKnown = past[i], true
	}
	for i, h := range unique {
		if key := read[i]; key.Path != "" && isOwnerOf(key, h.born) {
			h.past.key, h.past.keyFence = key.Path, key.Fence
		}
	}
	return nil
}

// clearAll makes the finishes, many in one commit; none if problem is an error. It returns the
// entries that are still held afterwards, with problem or the error of the last of them. No caller
// gets them, so they are given back in the background. Lost locks and earlier finishes are no
// errors: then this handle does not hold the entry any more.
func (cl *clearer) clearAll(ctx context.Context, held []*Held, finishes map[*Held]finish, problem error) (rest []*Held, err error) {
	if rest, err = held, problem; problem == nil {
		rest, err = cl.finishAll(ctx, held, finishes)
	}
	for _, h := range rest {
		cl.Spawn(func() { cl.undoClaim(claimAttempt{session: h.lock.Session(), name: h.name}, h) })
	}
	return rest, err
}

// finishAll makes the finishes, many in one commit; see clearAll.
func (cl *clearer) finishAll(ctx context.Context, held []*Held, finishes map[*Held]finish) (rest []*Held, err error) {
	finishOne := func(ctx context.Context, h *Held) error {
		err := h.finish(ctx, finishes[h])
		if errors.Is(err, ErrLockLost) || errors.Is(err, ErrAlreadyDone) {
			return nil
		}
		return err
	}
	finishOrKeep := func(ctx context.Context, h *Held) error { // keeps it in rest after an error
		problem := finishOne(ctx, h)
		if problem != nil {
			rest, err = append(rest, h), problem
		}
		return problem
	}
	// Share commits as long as each one finishes some entries.
	for progress := true; progress && len(held) > 1; {
		x := cl.newExchangeCommit(head.Choice{Session: held[0].lock.Session()}, held)
		x.finishOf, x.finishAlone = func(h *Held) finish { return finishes[h] }, finishOrKeep
		x.commit(ctx)
		left := x.unfinished()
		progress, held = len(left) < len(held), left
	}
	for _, h := range held {
		finishOrKeep(ctx, h)
	}
	return rest, err
}
