package zkq

import (
	"cmp"
	"context"
	"errors"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/priority"
)

// pick chooses up to n of what is ready, for which no other take of this handle
// tries. What came back is chosen alone: should it kill its worker, others would
// count as delivered with it. None: there was nothing, or it went while it was read.
func (v *view) pick(ctx context.Context, n int) (choice, error) {
	n = min(n, max(v.session.Limits().CommitOps/2, 1)) // a claim is two
	order, head := v.order(n, n+v.claims.len())        // those that others try for may be listed as free
	if !v.ahead.has(order[:min(n, len(order))]) {
		order, head = v.order(n, max(n+v.claims.len(), mostAhead)) // to be read too
	}
	c := choice{session: v.session, number: v.count(order, head)}
	if len(order) == 0 {
		v.ready = nil
		return c, nil
	}
	gone, err := v.ahead.read(ctx, v.place.entries, v.session, order, n)
	if err != nil {
		return c, err
	}
	for _, name := range gone {
		v.aside.put(name, lost)
	}
	order, spent, err := v.spentFirst(ctx, order, n)
	if err != nil {
		return c, err
	}
	if c.spent = spent != nil; c.spent {
		n = min(mostCleared, max(v.session.Limits().CommitOps/2, 1))
	}
	for _, name := range order {
		node, ok := v.ahead.nodes[name]
		if len(c.names) == n || ok && node.Changes > 0 && len(c.names) > 0 && v.holding != nil && !c.spent {
			break
		}
		if c.spent && ok && !spent[node.Path] || !c.spent && ok && len(c.names) > 0 && v.mayBeSpent != nil && hasExpired(node) {
			continue
		}
		if !ok && !slices.Contains(gone, name) {
			break // read with the next choice
		}
		if i, found := slices.BinarySearch(v.ready, name); found {
			v.ready = slices.Delete(v.ready, i, i+1)
		}
		if ok && node.Unreadable {
			v.place.skipUnreadable(node)
			delete(v.ahead.nodes, name)
			continue
		}
		if !ok || v.busy(name) {
			continue
		}
		begun, err := v.begin(ctx, name)
		if err != nil {
			v.letGo(c.names)
			return choice{}, err
		}
		if !begun {
			continue
		}
		delete(v.ahead.nodes, name)
		c.names, c.nodes = append(c.names, name), append(c.nodes, node)
		if node.Changes > 0 && v.holding != nil && !c.spent {
			break
		}
	}
	return c, nil
}

// spentFirst returns the paths of the entries in the order that are spent, where the first
// that was read is: then the choice is of these, and the order is of all that was read ahead.
func (v *view) spentFirst(ctx context.Context, order []string, n int) ([]string, map[string]bool, error) {
	read := func(name string) bool { return v.ahead.has([]string{name}) }
	first := slices.IndexFunc(order, read)
	if v.mayBeSpent == nil || first < 0 || !v.mayBeSpent(v.ahead.nodes[order[first]]) {
		return order, nil, nil
	}
	all, _ := v.order(n, max(n+v.claims.len(), mostAhead))
	var nodes []coord.Node
	for _, name := range all {
		if read(name) {
			nodes = append(nodes, v.ahead.nodes[name])
		}
	}
	spent, err := v.spent(ctx, v.session, nodes)
	if err != nil || !spent[v.ahead.nodes[order[first]].Path] {
		return order, nil, err
	}
	return all, spent, nil
}

// begin reserves an entry, unless another take of the handle is at it. To the letter,
// that one is waited for: nothing behind is to be claimed first.
func (v *view) begin(ctx context.Context, name string) (bool, error) {
	if !v.place.strict {
		return v.claims.tryBegin(name), nil
	}
	err := v.claims.begin(ctx, name)
	if errors.Is(err, errGone) {
		return false, nil
	}
	return err == nil, err
}

// letGo lets others try for what was chosen, and is not claimed after all.
func (v *view) letGo(names []string) {
	for _, name := range names {
		v.claims.end(name)
	}
	v.skip.signal()
}

// order is what is ready, most urgent first, in the order in which this handle wants
// it for a choice of n: want of it, if there is as much. head is the first of all.
//
// Processes that all wanted the head would lose three of four claims to each other.
// So each wants first what is its own, among the first entries of the most urgent
// priority, and the others' after that: those first of which it is the next owner, and
// of them the last, since their owner begins with the first. A head that is still there
// after two claims of this handle, one after the other, has an owner who is slow, or
// stands still: it is anybody's.
func (v *view) order(n, want int) (order []string, head string) {
	me := string(v.place.holder)
	_, member := slices.BinarySearch(v.members, me)
	apart := member && len(v.members) > 1 && !v.place.strict
	window := max(v.place.window, 2*(n+v.holding.len())) / 2 // as each head may be passed twice
	var own, beyond []string
	var others []other
	seen := 0
	v.waits = false
	for _, name := range v.ready {
		if v.waits = v.doubt != "" && name > v.doubt || v.claims.holdsBack(name); v.waits {
			break
		}
		switch {
		case v.busy(name), !v.place.strict && v.claims.has(name):
			continue
		case head == "":
			head = name
		}
		seen++
		inside, after := apart && seen <= max(window, 1) && name[:priorityEnd] == head[:priorityEnd], 0
		if inside && (name != head || !v.passedLong(head)) {
			after = membersBefore(v.members, me, name)
		}
		switch {
		case after > 0:
			others = append(others, other{name, after})
		case !inside && len(others) > 0:
			beyond = append(beyond, name)
		default:
			own = append(own, name)
		}
		if len(own) == want || !inside && len(own)+len(others)+len(beyond) >= want {
			break
		}
	}
	slices.Reverse(others)
	slices.SortStableFunc(others, func(a, b other) int { return cmp.Compare(a.after, b.after) })
	order = own
	for _, o := range others {
		order = append(order, o.name)
	}
	return append(order, beyond...), head
}

// count numbers a choice, and notes whether it leaves the head to another.
func (v *view) count(order []string, head string) int64 {
	switch v.chosen++; {
	case len(order) == 0 || order[0] == head:
		v.passed = ""
	case v.passed != head:
		v.passed, v.since, v.again = head, v.chosen, 0
	case v.again == 0 && v.answered.Load() >= v.since:
		v.again = v.chosen
	}
	return v.chosen
}

// other is an entry that is another's before it is this handle's.
type other struct {
	name  string
	after int // so many members
}

// passedLong says that the head was left to its owner for two claims of this handle,
// one after the other: so long none takes that is under way.
func (v *view) passedLong(head string) bool {
	return v.passed == head && v.again != 0 && v.answered.Load() >= v.again
}

// busy says that this handle has the entry in hand, or leaves it alone.
func (v *view) busy(name string) bool {
	return v.skip.has(name) || v.aside.has(name) || v.place.restricted.has(name)
}

// priorityEnd is where the priority ends in a name.
var priorityEnd = len(priority.Prefix(0))

// ahead are the entries that were read before they were chosen.
type ahead struct {
	nodes map[string]coord.Node
	size  int // of an entry, on average, lately
	many  int // so many were read at once, last
}

// Values are read for so many entries at once, of so many bytes together.
const (
	mostAhead      = 64
	mostAheadBytes = 4 << 20
)

// read reads the first n of the names, and more while it is at it; gone are those
// that are not there.
func (a *ahead) read(ctx context.Context, dir string, s coord.Session, names []string, n int) (gone []string, err error) {
	n = min(n, len(names))
	if a.has(names[:n]) {
		return nil, nil
	}
	// Who takes only once has no use for more; who goes on soon reads as many as may be.
	a.many = min(max(16*a.many, n), mostAhead)
	most := max(n, min(a.many, mostAheadBytes/max(a.size, 4<<10)))
	var paths, wanted []string
	for _, name := range names[:min(most, len(names))] {
		if _, ok := a.nodes[name]; !ok {
			paths, wanted = append(paths, path.Join(dir, name)), append(wanted, name)
		}
	}
	nodes, err := s.Read(ctx, paths...)
	if err != nil {
		return nil, err
	}
	sum := 0
	for i, node := range nodes {
		if node.Path == "" {
			gone = append(gone, wanted[i])
			continue
		}
		a.nodes[wanted[i]] = node
		sum += len(node.Value)
	}
	a.size = max(sum/len(nodes), a.size/2)
	return gone, nil
}

// has says whether all of them are there.
func (a *ahead) has(names []string) bool {
	for _, name := range names {
		if _, ok := a.nodes[name]; !ok {
			return false
		}
	}
	return true
}

// settle forgets what has changed hands since it was read.
func (a *ahead) settle(l *available) {
	for name := range a.nodes {
		if free, _ := l.has(name); !free {
			delete(a.nodes, name)
		}
	}
}

// aside are entries that are not to be chosen though a listing may show them as
// available: it lags behind what this handle knows.
type aside struct {
	mu    sync.Mutex
	names map[string]putAside
	count int64 // of all that were put aside so far
	most  int   // names, before old ones are looked for
}

type putAside struct {
	why    reason
	at     time.Time
	number int64 // so many were put aside before it, and it
}

// reason is why an entry is put aside.
type reason int

const (
	removed reason = iota // by this handle
	claimed               // by this handle
	lost                  // somebody else was faster
)

// keepAside is how long an entry that was claimed is not tried for again, unless a
// listing tells earlier what became of it.
const keepAside = 100 * time.Millisecond

// An entry is put aside for no longer than oldAside where no listing is made, as in a handle
// that only polls. A waiting take then lists anew, for the entry changed. Old ones are looked
// for when there are asideMany.
const (
	oldAside  = 10 * time.Second
	asideMany = 1024
)

// put puts an entry aside.
func (a *aside) put(name string, why reason) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if len(a.names) >= max(a.most, asideMany) {
		for name, p := range a.names {
			if now.Sub(p.at) > oldAside {
				delete(a.names, name)
			}
		}
		a.most = 2 * len(a.names)
	}
	a.count++
	a.names[name] = putAside{why, now, a.count}
}

// mark returns the number of the last entry put aside, for settle.
func (a *aside) mark() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}

// drop says that the entry is as available as a listing says.
func (a *aside) drop(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.names, name)
}

func (a *aside) has(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.names[name]
	return ok
}

func (a *aside) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.names)
}

// lost says whether there are some that only a fresh listing can clear up.
func (a *aside) lost() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.names {
		if p.why == lost {
			return true
		}
	}
	return false
}

// due is when the first of those that were claimed is tried for again.
func (a *aside) due() (at time.Time, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.names {
		if end := p.at.Add(keepAside); p.why == claimed && (!ok || end.Before(at)) {
			at, ok = end, true
		}
	}
	return at, ok
}

func (a *aside) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.names)
}

// settle forgets those of which a listing shows that it knows as much. mark was taken
// before the listing, which shows all claims that this handle had made by then: one
// that it does not show was broken.
func (a *aside) settle(l *available, mark int64, fresh bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, p := range a.names {
		free, locked := l.has(name)
		switch {
		case p.why == removed && !free && !locked && l.covers(name):
		case p.why == claimed && p.number <= mark:
		case p.why != removed && (fresh || !free || time.Since(p.at) >= keepAside):
		default:
			continue
		}
		delete(a.names, name)
	}
}
