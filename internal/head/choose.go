package head

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/priority"
)

// MaxCleared is how many spent entries one commit claims. A claim is two ops.
const MaxCleared = 64

// pick chooses up to n of the ready entries, and reserves them. An entry that was delivered
// before is chosen alone: if it crashes its worker, no other entry must count as delivered
// with it. The choice is empty if nothing is ready, or if the entries were gone when they
// were read.
func (h *Head) pick(ctx context.Context, n int) (Choice, error) {
	started := time.Now()
	n = min(n, max(h.session.Limits().CommitOps/2, 1))   // a claim is two ops
	order, first := h.order(n, n+h.Claims.Len())         // entries that others claim may be listed as free
	if !h.readAhead.hasAll(order[:min(n, len(order))]) { // more of them are read with these
		order, first = h.order(n, max(n+h.Claims.Len(), MaxReadAhead))
	}
	c := Choice{Session: h.session, started: started}
	if len(order) == 0 {
		c.number = h.fairness.choose("", first)
		if !h.isLeft {
			h.ready = nil
		}
		return c, nil
	}
	c.number = h.fairness.choose(order[0], first)
	missing, err := h.readAhead.read(ctx, h.Entries, h.session, order, n)
	if err != nil {
		return c, err
	}
	for _, name := range missing {
		h.Suppressed.Add(name, WasLost)
	}
	order, spent, err := h.spentFirst(ctx, order, n)
	if err != nil {
		return c, err
	}
	if c.IsSpent = spent != nil; c.IsSpent {
		n = min(MaxCleared, max(h.session.Limits().CommitOps/2, 1))
	}
	for _, name := range order {
		node, isRead := h.readAhead.nodes[name]
		cameBack := isRead && node.Changes > 0 && h.isLocking() && !c.IsSpent
		if len(c.Names) == n || cameBack && len(c.Names) > 0 {
			break
		}
		if isRead && !h.fits(node, c, spent) {
			continue
		}
		if !isRead && !slices.Contains(missing, name) {
			break // it is read with the next choice
		}
		reserved, err := h.takeReady(ctx, name, node, isRead)
		if err != nil {
			h.LetGo(c.Names)
			return Choice{}, err
		}
		if !reserved {
			continue
		}
		c.Names, c.Nodes = append(c.Names, name), append(c.Nodes, node)
		if cameBack {
			break
		}
	}
	return c, nil
}

// fits reports whether an entry that was read may be part of the choice: a spent one only
// with others that are spent, and an expired one never behind one to be handed out.
func (h *Head) fits(node coord.Node, c Choice, spent map[string]bool) bool {
	if c.IsSpent {
		return spent[node.Path]
	}
	return len(c.Names) == 0 || h.HasExpired == nil || !h.HasExpired(node)
}

// takeReady removes an entry from the ready ones and reserves it. reserved is false if the entry
// is missing, may not be read, is excluded, or is reserved by another take of this handle.
func (h *Head) takeReady(ctx context.Context, name string, node coord.Node, isRead bool) (reserved bool, err error) {
	if i, found := slices.BinarySearch(h.ready, name); found {
		h.ready = slices.Delete(h.ready, i, i+1)
	}
	if isRead && node.Unreadable {
		h.SkipUnreadable(node)
		delete(h.readAhead.nodes, name)
		return false, nil
	}
	if !isRead || h.isExcluded(name) {
		return false, nil
	}
	if reserved, err = h.reserve(ctx, name); reserved && err == nil {
		delete(h.readAhead.nodes, name)
	}
	return reserved, err
}

// spentFirst decides whether the choice is one of spent entries, to be cleared away. That is so
// if the first entry that was read is spent. Then it returns the order of all entries that were
// read ahead, and the paths of the spent ones. Otherwise it returns order itself, and nil.
func (h *Head) spentFirst(ctx context.Context, order []string, n int) ([]string, map[string]bool, error) {
	first := slices.IndexFunc(order, h.readAhead.has)
	if h.MayBeSpent == nil || first < 0 || !h.MayBeSpent(h.readAhead.nodes[order[first]]) {
		return order, nil, nil
	}
	all, _ := h.order(n, max(n+h.Claims.Len(), MaxReadAhead))
	var nodes []coord.Node
	for _, name := range all {
		if h.readAhead.has(name) {
			nodes = append(nodes, h.readAhead.nodes[name])
		}
	}
	spent, err := h.FindSpent(ctx, h.session, nodes)
	if err != nil || !spent[h.readAhead.nodes[order[first]].Path] {
		return order, nil, err
	}
	return all, spent, nil
}

// reserve reserves an entry, and reports false if another take of the handle has reserved it. A
// strict take first waits for that take, because no later entry may be claimed before this one.
func (h *Head) reserve(ctx context.Context, name string) (bool, error) {
	if !h.Strict {
		return h.Claims.TryReserve(name), nil
	}
	err := h.Claims.Reserve(ctx, name)
	if errors.Is(err, ErrUnavailable) {
		return false, nil
	}
	return err == nil, err
}

// LetGo releases the reservations of entries that were chosen and are not claimed after all. It
// wakes a take that waits, which may want them.
func (h *Head) LetGo(names []string) {
	for _, name := range names {
		h.Claims.Release(name)
	}
	h.Resting.WakeTake()
}

// order returns ready entries in the order in which this handle wants them for a choice of n.
// It returns want of them, if there are as many. first is the first of the queue, whether this
// handle wants it first or not.
//
// Processes that all wanted the first entry would lose most claims to each other. So each wants
// the entries first that it owns, among the first entries of the most urgent priority. Entries
// of other members follow when their owners have had their time (patience). Of these the
// handle begins with the entries that it would own next, and of them with the last, because
// their owner begins with the first. When an entry stays first for too long, fairness opens it
// to all members.
//
// Nothing behind the entries that are left to others is taken, so that no entry is overtaken
// by more than the window. But a less urgent entry is never taken before a more urgent one:
// a handle that has only such a choice does not wait.
func (h *Head) order(n, want int) (order []string, first string) {
	window := h.sharedWindow(n)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.isLeft = false
	own, others, behind, first := h.sortOutLocked(window, want)
	if len(own) >= n || len(others) == 0 {
		return own, first
	}
	hasLessUrgent := len(behind) > 0 && !hasPriorityOf(behind[0], first)
	if open := h.openLocked(others); len(open) < len(others) && !hasLessUrgent {
		others, behind = open, nil
		h.isLeft = len(own)+len(open) == 0
		h.isShort = !h.isComplete && !h.isHeldBack && window > h.listedWindow
	}
	slices.Reverse(others)
	slices.SortStableFunc(others, func(a, b othersEntry) int { return cmp.Compare(a.before, b.before) })
	order = own
	for _, o := range others {
		order = append(order, o.name)
	}
	return append(order, behind...), first
}

// sortOutLocked returns the first ready entries: want of them that this handle owns, or as many
// of all kinds. Others are entries of other members within the window, and behind is what stands
// behind them.
func (h *Head) sortOutLocked(window, want int) (own []string, others []othersEntry, behind []string, first string) {
	seen := 0
	h.isHeldBack = false
	for _, name := range h.ready {
		if h.isHeldBack = h.firstInDoubt != "" && name > h.firstInDoubt || h.Claims.holdsBackLocked(name); h.isHeldBack {
			break
		}
		if h.isExcludedLocked(name) || !h.Strict && h.Claims.entries[name] != nil {
			continue
		}
		if first == "" {
			first = name
		}
		seen++
		isShared := seen <= window && hasPriorityOf(name, first)
		before := 0
		if isShared && (name != first || !h.fairness.isOpenToAll(first)) {
			before = h.ranks.Before(name)
		}
		switch {
		case before > 0:
			others = append(others, othersEntry{name, before})
		case !isShared && len(others) > 0:
			behind = append(behind, name)
		default:
			own = append(own, name)
		}
		if len(own) == want || !isShared && len(own)+len(others)+len(behind) >= want {
			break
		}
	}
	return own, others, behind, first
}

// openLocked returns those entries of other members that this handle may take now, and notes in
// opensAt when the next may be taken.
func (h *Head) openLocked(others []othersEntry) (open []othersEntry) {
	now := time.Now()
	h.opensAt = time.Time{}
	for _, o := range others {
		at := h.patience.opensAt(o.name, o.before, h.changedAt)
		switch {
		case !at.After(now):
			open = append(open, o)
		case h.opensAt.IsZero() || at.Before(h.opensAt):
			h.opensAt = at
		}
	}
	return open
}

// sharedWindow returns how many of the first entries the members share out for a choice of n; 0
// if this handle shares with no other. It grows with the fleet, so that each member finds
// entries of its own for all its workers.
func (h *Head) sharedWindow(n int) int {
	if !h.ranks.IsMember() {
		return 0
	}
	return h.windowOf(h.ranks.Len(), n)
}

// windowOf is sharedWindow among so many members.
func (h *Head) windowOf(members, n int) int {
	if h.Strict || members < 2 {
		return 0
	}
	wanted := 2 * (min(n, MaxWanted) + h.heldCount()) * members
	return max(h.Window/2, min(wanted, mostShared), 1) // half, because each first entry may be passed twice
}

// othersEntry is an entry that another member owns.
type othersEntry struct {
	name   string
	before int // how many members rank before this handle for it
}

// isExcluded reports whether this handle holds, has just finished or skips the entry.
func (h *Head) isExcluded(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.isExcludedLocked(name)
}

// isExcludedLocked is isExcluded for a caller with the lock.
func (h *Head) isExcludedLocked(name string) bool {
	return h.Resting.hasLocked(name) || h.Suppressed.hasLocked(name) || h.Restricted.isUnreadableLocked(name)
}

// isLocking reports whether the queue is of the locking layout.
func (h *Head) isLocking() bool { return h.Taken != "" }

// hasPriorityOf reports whether two entries have the same priority.
func hasPriorityOf(name, other string) bool { return name[:priorityEnd] == other[:priorityEnd] }

// priorityEnd is where the priority ends in the name of an entry.
var priorityEnd = len(priority.Prefix(0))
