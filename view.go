package zkq

import (
	"context"
	"errors"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/priority"
)

// headWindow is how many available entries a view wants to know of, unless the
// handle has more than that in hand at a time. More would be stale before they are
// taken.
const headWindow = 64

// errGone says that an entry cannot be claimed any more, or not now: somebody
// else has it. The search goes on.
var errGone = errors.New("entry is gone")

// view is what a process knows of the head of a queue: entries that nobody holds,
// in take order, and the values of the first. All takes of a handle choose from it,
// one after the other; what they chose they claim side by side. It is kept by a
// standing watch that begins before the first listing: a signal makes it stale, and
// nothing is chosen from a stale view.
type view struct {
	place   *place
	skip    *skipped
	holding *holding // what this handle holds; nil in the plain layout
	claims  claims
	aside   aside

	mayBeSpent func(coord.Node) bool // nil in the plain layout
	spent      func(context.Context, coord.Session, []coord.Node) (map[string]bool, error)

	turn chan struct{} // holds one while somebody chooses; what follows is his

	session coord.Session
	changed <-chan struct{}
	unwatch context.CancelFunc
	ahead   ahead
	members []string // who works on the queue, if this handle is one of them
	crowd   bool     // the watch is for them too
	listed  bool     // since the last signal
	fresh   bool     // the next listing has to be
	whole   bool     // ready is all there was, not just the head
	ready   []string // what is left of it
	doubt   string   // the first whose claim was in doubt when ready was listed, or ""
	waits   bool     // the last choice ended before an entry that waits for a claim in doubt
	passed  string   // the head that the last choices left to another
	since   int64    // the number of the first of them
	again   int64    // the number of one after that was answered; 0: none yet
	chosen  int64    // choices so far

	answered atomic.Int64 // the number of a choice, claimed or not

	mu     sync.Mutex
	asleep chan struct{} // closed while whoever has the turn waits
}

func newView(p *place, skip *skipped, h *holding) *view {
	return &view{
		place: p, skip: skip, holding: h,
		claims: claims{names: make(map[string]*turns), woke: p.woke},
		aside:  aside{names: make(map[string]putAside)},
		ahead:  ahead{nodes: make(map[string]coord.Node)},
		turn:   make(chan struct{}, 1),
		asleep: make(chan struct{}),
	}
}

// choice is what a take may claim now: no other take of the handle will try.
type choice struct {
	session coord.Session
	nodes   []coord.Node // as they were read
	names   []string
	number  int64
	done    func() // to be called when they are claimed, or are not
	spent   bool   // they are to be cleared away, and none is to be handed out
	stop    bool   // what comes behind them is not to be claimed before it is looked at again
}

// choose picks up to n entries, waiting for the first if it has to and may.
func (v *view) choose(ctx context.Context, n int, wait bool) (choice, error) {
	if !v.enter(ctx, wait) {
		return choice{}, ctx.Err()
	}
	leave := sync.OnceFunc(func() { <-v.turn })
	for backoff := v.place.backoff(actTake); ; {
		v.fresh = v.fresh || v.place.strict
		err := v.look(ctx, n)
		var c choice
		if err == nil {
			c, err = v.pick(ctx, n)
		}
		again := retry.NothingSent(err)
		if !again {
			again, err = backoff.WaitWhileBusy(ctx, nil, err)
		}
		switch {
		case again:
			continue
		case err != nil:
			leave()
			return choice{}, err
		case len(c.names) > 0:
			// To the letter, nothing is chosen before this is claimed.
			c.done = func() {
				v.answered.Store(c.number)
				leave()
			}
			if !v.place.strict {
				leave()
			}
			return c, nil
		case len(v.ready) > 0: // some of it was gone
		case v.aside.lost(), !v.whole && !v.waits:
			// All of the head went to others: the next look must show that.
			v.listed, v.fresh = false, true
		case !wait:
			leave()
			return choice{}, nil
		default:
			v.sleep(ctx)
		}
	}
}

// enter waits for the turn. Who does not want to wait for entries does not wait for
// one who does, either.
func (v *view) enter(ctx context.Context, wait bool) bool {
	v.mu.Lock()
	asleep := v.asleep
	v.mu.Unlock()
	if wait {
		asleep = nil
	}
	if ctx.Err() != nil {
		return false
	}
	select {
	case v.turn <- struct{}{}:
		return true
	default:
	}
	entered := false
	select {
	case v.turn <- struct{}{}:
		entered = true
	case <-asleep:
	case <-ctx.Done():
	}
	v.place.woke(ctx)
	if entered && ctx.Err() != nil {
		<-v.turn
		return false
	}
	return entered
}

// look brings the view up to date with every signal that has arrived.
func (v *view) look(ctx context.Context, n int) error {
	if err := v.open(ctx); err != nil {
		return err
	}
	if stale := v.stale(); stale || v.place.strict {
		return v.list(ctx, n)
	}
	return nil
}

// open subscribes in the live session, before anything is listed in it.
func (v *view) open(ctx context.Context) error {
	s, err := v.place.session(ctx)
	if err != nil {
		return err
	}
	v.place.registerAgain(ctx, s)
	crowd := v.place.registered(s)
	if s == v.session && crowd == v.crowd {
		return nil
	}
	v.close()
	watching, unwatch := context.WithCancel(context.Background())
	dirs := []string{v.place.entries}
	if v.place.taken != "" {
		dirs = append(dirs, v.place.taken)
	}
	if crowd {
		dirs = append(dirs, path.Join(v.place.root, dirWorkers))
	}
	stop := context.AfterFunc(ctx, unwatch) // ctx bounds the call, not the watch
	changed, err := s.Watch(watching, dirs...)
	if !stop() || err != nil {
		unwatch()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case retry.NothingSent(err):
			return v.open(ctx)
		}
		return err
	}
	v.session, v.changed, v.unwatch, v.crowd = s, changed, unwatch, crowd
	v.aside.clear()
	return nil
}

// end is the handle's end: whoever has the turn is on the way out.
func (v *view) end() {
	v.turn <- struct{}{}
	v.close()
	<-v.turn
}

// close ends the watch.
func (v *view) close() {
	if v.unwatch != nil {
		v.unwatch()
	}
	v.session, v.changed, v.unwatch = nil, nil, nil
	v.listed, v.ready, v.members = false, nil, nil
	clear(v.ahead.nodes)
}

// stale says that the listing must be made anew. It answers whatever was signalled
// until then.
func (v *view) stale() bool {
	select {
	case <-v.changed:
		v.listed = false
	default:
	}
	select {
	case <-v.skip.changed:
		v.listed = false
	default:
	}
	return !v.listed
}

// list makes the listing anew: so much of the head that n entries can be chosen from
// it whatever this handle does with others at the same time.
func (v *view) list(ctx context.Context, n int) error {
	fresh := v.fresh
	mark := v.aside.mark()
	doubt := v.claims.firstInDoubt() // its end signals, and what is listed below may be older
	want := max(headWindow, 2*min(n, mostSeized)) + v.skip.len() + v.claims.len() + v.aside.len() + 2*v.holding.len() + v.place.restricted.len()
	a, err := v.place.available(ctx, v.session, want, seen(fresh))
	if err != nil {
		return err
	}
	if v.crowd {
		if v.members, err = v.place.members(ctx, v.session); err != nil {
			return err
		}
	}
	v.aside.settle(&a, mark, fresh)
	v.ahead.settle(&a)
	v.ready, v.whole, v.listed, v.fresh, v.doubt = a.names, a.whole, true, false, doubt
	return nil
}

// seen is how a view lists: what the signals announced, which costs no request
// where the driver follows them, or fresh.
func seen(fresh bool) coord.ListOptions {
	return coord.ListOptions{Fresh: fresh, Seen: !fresh}
}

// sleep returns when there may be something new: what, the caller finds out.
func (v *view) sleep(ctx context.Context) {
	v.mu.Lock()
	close(v.asleep)
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		v.asleep = make(chan struct{})
		v.mu.Unlock()
	}()
	var due <-chan time.Time
	at, ok := v.skip.next()
	if claimed, some := v.aside.due(); some && (!ok || claimed.Before(at)) {
		at, ok = claimed, true
	}
	if ok {
		t := time.NewTimer(time.Until(at))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-v.session.Done():
	case <-v.changed:
		v.listed = false
	case <-v.skip.changed:
		// Something else is left alone now, or not any more.
		v.listed = false
	case <-due:
		v.listed = false
	}
	if v.skip.prune() {
		v.listed = false
	}
}

// available is the head of a queue at some instant.
type available struct {
	names []string // what nobody holds, in take order
	locks map[string]bool
	last  string // the last name that was looked at
	whole bool   // nothing available is missing
	stamp uint64 // of the locks, read before the entries
}

// has says what the listing has to say of an entry: that it is there and free, or
// that it is there and locked.
func (a *available) has(name string) (free, locked bool) {
	_, free = slices.BinarySearch(a.names, name)
	return free, a.locks[name]
}

// covers says that the entry would have been listed.
func (a *available) covers(name string) bool { return a.whole || name <= a.last }

// available lists entries that nobody holds: at least want of them if there are
// as many, in take order. Locks are read before entries, so that an entry whose
// lock was given back in between is missed rather than one that is held be
// offered; the signal of that change makes the caller look again.
func (p *place) available(ctx context.Context, s coord.Session, want int, o coord.ListOptions) (available, error) {
	var a available
	if p.taken != "" {
		l, err := s.List(ctx, p.taken, o)
		if err != nil {
			return a, err
		}
		a.locks = make(map[string]bool, len(l.Nodes))
		for _, n := range l.Nodes {
			a.locks[path.Base(n.Path)] = true
		}
		a.stamp = l.Stamp
	}
	// Foreign nodes, however many, are passed over where no entry can stand among them.
	after, more := priority.Beyond("")
	for limit := want + len(a.locks); ; limit *= 2 {
		o.After, o.Limit = after, limit
		l, err := s.List(ctx, p.entries, o)
		if err != nil {
			return a, err
		}
		free := slices.DeleteFunc(p.entryNames(l.Nodes), func(name string) bool { return a.locks[name] })
		if a.names == nil {
			a.names = free
		} else {
			a.names = append(a.names, free...)
		}
		if l.More {
			after = path.Base(l.Nodes[len(l.Nodes)-1].Path)
			a.last = after
			if _, entry := priority.Parse(after); !entry {
				after, more = priority.Beyond(after)
			}
		}
		if a.whole = !l.More || !more; a.whole || len(a.names) >= want {
			return a, nil
		}
	}
}
