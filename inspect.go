package zkq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/member"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// inspector reads entries for those who look at a queue, and takes nothing. It reads page by
// page: what changes meanwhile may be seen or not, and what stays is seen once.
type inspector struct {
	*handle.Handle
	dead    *deadLetters
	delayed *delayedPuts
	expiry  *lifetimes
	finder  *finder
	history *histories
}

// eachName calls f with the names of the entries, in take order.
func (in *inspector) eachName(ctx context.Context, s coord.Session, f func(string) error) error {
	for page, err := range handle.Pages(ctx, s, in.Entries, coord.ListOptions{Limit: handle.NamesPage, Fresh: true}) {
		if err != nil {
			return err
		}
		for _, name := range in.EntryNames(page) {
			if err := f(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// locks reads what stands in taken, and warns of what is no lock and will not go by itself.
func (in *inspector) locks(ctx context.Context, s coord.Session) (map[string]coord.Node, error) {
	if in.Taken == "" {
		return nil, nil
	}
	l, err := s.List(ctx, in.Taken, coord.ListOptions{Values: true, Fresh: true})
	if err != nil {
		return nil, err
	}
	locks := make(map[string]coord.Node, len(l.Nodes))
	for _, n := range l.Nodes {
		locks[path.Base(n.Path)] = n
		if lock.Read(n).Kind == lock.Foreign {
			in.WarnOnce(n.Path, "is not a lock of zkq or kazoo: an entry of its name is left alone")
		}
	}
	return locks, nil
}

func (in *inspector) entriesPaged(ctx context.Context, f func(Entry) bool) error {
	after, limit := "", handle.NodesPage
	return in.Do(ctx, func(ctx context.Context, s coord.Session) error {
		for {
			l, err := s.List(ctx, in.Entries, coord.ListOptions{After: after, Limit: limit, Values: true, Fresh: after == ""})
			if err != nil {
				return err
			}
			locks, err := in.locks(ctx, s)
			if err != nil {
				return err
			}
			in.EntryNames(l.Nodes) // warns
			before, err := in.before(ctx, s, after, l.Nodes)
			if err != nil {
				return err
			}
			for _, n := range l.Nodes {
				name := path.Base(n.Path)
				after = name
				parsed, ok := priority.Parse(name)
				if !ok {
					continue
				}
				e := newEntry(name, parsed, n)
				e.Failures, e.Reason = before[name].Failures, before[name].Reason
				e.Deliveries -= int(before[name].Updates)
				if lk, held := locks[name]; held {
					e = e.locked(lk)
				}
				if n.Unreadable {
					in.finder.skipUnreadable(n)
				}
				if !f(e) {
					return errStop
				}
			}
			if !l.More {
				return nil
			}
		}
	})
}

// before reads what became before of the entries of a page, which begins after a
// name, if any was handed out at all.
func (in *inspector) before(ctx context.Context, s coord.Session, after string, page []coord.Node) (map[string]history, error) {
	delivered := func(n coord.Node) bool { return n.Changes > 0 }
	if in.Taken == "" || !slices.ContainsFunc(page, delivered) {
		return nil, nil
	}
	return in.history.readHistoriesUpTo(ctx, s, after, path.Base(page[len(page)-1].Path))
}

func (in *inspector) peek(ctx context.Context, name string) (e Entry, err error) {
	if name == "" {
		if may, err := in.expiry.mayExpire(ctx); err != nil || may {
			if err != nil {
				return e, err
			}
			return in.nextLiving(ctx)
		}
		err = in.finder.tryTake(ctx, head.NewResting(), 1, func(ctx context.Context, s coord.Session, names []string, _ int) (got, cleared int, err error) {
			for _, name := range names {
				nodes, err := s.Read(ctx, path.Join(in.Entries, name))
				if err == nil && nodes[0].Unreadable {
					in.finder.skipUnreadable(nodes[0])
				}
				if err == nil && (nodes[0].Path == "" || nodes[0].Unreadable) {
					continue
				}
				if err == nil {
					e, err = in.seen(ctx, s, name, nodes[0])
				}
				switch {
				case err == nil:
					return 1, 0, nil
				case !errors.Is(err, errUnavailable):
					return 0, 0, err
				}
			}
			return 0, 0, nil
		})
		return e, err
	}
	if e, err = in.find(ctx, name); err == nil && e.expired() {
		return Entry{}, fmt.Errorf("%s: %w", name, ErrNoEntry)
	}
	return e, err
}

// find is the entry of that name, also if it has expired.
func (in *inspector) find(ctx context.Context, name string) (e Entry, err error) {
	if _, _, dead := layout.ParseDead(name); dead && in.Taken != "" {
		err := in.Do(ctx, func(ctx context.Context, s coord.Session) error {
			n, err := s.Get(ctx, path.Join(in.Root, layout.DeadDir, name))
			if errors.Is(err, coord.ErrNotExist) {
				return fmt.Errorf("%s: %w", name, ErrNoEntry)
			}
			e, _ = deadEntry(n)
			return err
		})
		return e, err
	}
	if in.delayed.isDelayedPut(name) {
		return in.delayed.get(ctx, name)
	}
	if err := checkEntryName(name); err != nil {
		return Entry{}, err
	}
	err = in.Do(ctx, func(ctx context.Context, s coord.Session) error {
		var lk *coord.Node
		if in.Taken != "" {
			n, err := s.Get(ctx, path.Join(in.Taken, name))
			if err == nil {
				lk = &n
			} else if !errors.Is(err, coord.ErrNotExist) {
				return err
			}
		}
		n, err := s.Get(ctx, path.Join(in.Entries, name))
		if errors.Is(err, coord.ErrNotExist) {
			return fmt.Errorf("%s: %w", name, ErrNoEntry)
		}
		if err != nil {
			return err
		}
		e, err = in.seen(ctx, s, name, n)
		if lk != nil {
			e = e.locked(*lk)
		}
		return err
	})
	return e, err
}

// seen is an entry as it stands in its node, with what became of it before.
func (in *inspector) seen(ctx context.Context, s coord.Session, name string, n coord.Node) (Entry, error) {
	parsed, _ := priority.Parse(name)
	e := newEntry(name, parsed, n)
	if in.Taken == "" || n.Changes == 0 {
		return e, nil
	}
	a, err := in.history.readHistory(ctx, s, name)
	e.Failures, e.Reason = a.Failures, a.Reason
	e.Deliveries -= int(a.Updates)
	return e, err
}

// warnSequence is from where on Stat warns that ZooKeeper's numbers come to their end.
const warnSequence = 2_000_000_000

func (in *inspector) stat(ctx context.Context, s coord.Session) (Stat, error) {
	var st Stat
	locks, err := in.locks(ctx, s)
	if err != nil {
		return st, err
	}
	lapsed, err := in.expiry.lapsedNames(ctx, s, locks)
	if err != nil {
		return st, err
	}
	var firsts []string // of each priority: the oldest entry is among them
	last := -1
	err = in.eachName(ctx, s, func(name string) error {
		if lapsed[name] {
			return nil
		}
		n, _ := priority.Parse(name)
		if n.Priority != last {
			last = n.Priority
			firsts = append(firsts, name)
		}
		if n.Put.IsZero() && n.Sequence >= warnSequence {
			in.WarnOnce(in.Entries, "nears the end of its numbers, 2147483646: move its entries to a queue of another name")
		}
		lk, ok := locks[name]
		switch {
		case !ok:
			st.Ready++
		case lock.Read(lk).Kind == lock.Aside:
			st.Delayed++
		default:
			st.Held++
		}
		return nil
	})
	if err != nil {
		return st, err
	}
	for _, name := range firsts {
		created, err := in.created(ctx, s, name)
		if err != nil {
			return st, err
		}
		if !created.IsZero() && (st.Oldest.IsZero() || created.Before(st.Oldest)) {
			st.Oldest = created
		}
	}
	if st.Delayed, err = in.countLater(ctx, s, st.Delayed); err != nil {
		return st, err
	}
	if in.Taken != "" {
		if st.Dead, err = in.dead.countDead(ctx, s); err != nil {
			return st, err
		}
	}
	return st, nil
}

// created is when an entry was put, zero if it is gone or nobody knows.
func (in *inspector) created(ctx context.Context, s coord.Session, name string) (created time.Time, err error) {
	parsed, _ := priority.Parse(name)
	if !parsed.Put.IsZero() {
		return parsed.Put, nil
	}
	n, err := getRestricted(ctx, s, path.Join(in.Entries, name))
	if errors.Is(err, coord.ErrNotExist) {
		return created, nil
	}
	return n.Created, err
}

// nextLiving is the first entry that is ready and has not expired, of a queue in which
// some may have.
func (in *inspector) nextLiving(ctx context.Context) (next Entry, err error) {
	err = in.entriesPaged(ctx, func(e Entry) bool {
		if e.State != StateReady || e.expired() || e.Unreadable {
			return true
		}
		next = e
		return false
	})
	if err = notStop(err); err == nil && next.Name == "" {
		err = ErrEmpty
	}
	return next, err
}

// countLater adds the delayed puts that have not expired to n.
func (in *inspector) countLater(ctx context.Context, s coord.Session, n int) (int, error) {
	if may, err := in.expiry.expires(ctx, s); err != nil || !may {
		if err == nil {
			err = in.delayed.walkNames(ctx, s, func(string) error { n++; return nil })
		}
		return n, err
	}
	err := in.delayed.walk(ctx, func(e Entry) bool {
		if !e.expired() {
			n++
		}
		return true
	})
	return n, err
}

// waiting says whether anything is ready, held or delayed, and if not, that there was an
// instant at which nothing was. What it found may expire: then until is not zero.
func (in *inspector) waiting(ctx context.Context, s coord.Session) (left bool, until time.Time, err error) {
	expires, err := in.expiry.expires(ctx, s)
	if err != nil {
		return false, until, err
	}
	dir := path.Join(in.Root, layout.DelayedDir)
	for {
		var before coord.List
		if in.Taken != "" {
			if before, err = s.List(ctx, dir, coord.ListOptions{Fresh: true}); err != nil {
				return false, until, err
			}
			if left, until, err = in.laterLeft(ctx, s, expires); err != nil || left {
				return left, until, err
			}
		}
		if left, until, err = in.entriesLeft(ctx, s, expires); err != nil || left || in.Taken == "" {
			return left, until, err
		}
		// What was delayed before the entries were read, and is one now, stood in
		// neither: it did not if the same was delayed all the time.
		after, err := s.List(ctx, dir, coord.ListOptions{Fresh: true})
		if err != nil || after.Stamp == before.Stamp {
			return false, until, err
		}
	}
}

// laterLeft says whether there is a delayed put that has not expired, and when it does.
func (in *inspector) laterLeft(ctx context.Context, s coord.Session, expires bool) (left bool, until time.Time, err error) {
	if !expires {
		err = in.delayed.walkNames(ctx, s, func(string) error { left = true; return errStop })
	} else {
		err = in.delayed.walk(ctx, func(e Entry) bool {
			left, until = !e.expired(), e.Expires
			return !left
		})
	}
	return left, until, notStop(err)
}

// lookAtHeld is how often an entry that expired while it was held is looked at: no entry
// changes when it is given back, and then nothing is left of it.
const lookAtHeld = time.Second

// entriesLeft is laterLeft of the entries.
func (in *inspector) entriesLeft(ctx context.Context, s coord.Session, expires bool) (left bool, until time.Time, err error) {
	if !expires {
		err = in.eachName(ctx, s, func(string) error { left = true; return errStop })
		return left, until, notStop(err)
	}
	locks, err := in.locks(ctx, s)
	if err != nil {
		return false, until, err
	}
	err = in.expiry.lifetimes(ctx, s, locks, func(l lifetime) error {
		if l.hasExpired() {
			return nil
		}
		if left, until = true, l.expires; l.isHeld && expired(until) {
			until = time.Now().Add(lookAtHeld)
		}
		return errStop
	})
	return left, until, notStop(err)
}

// WorkerInfo is a queue handle that takes from a queue.
type WorkerInfo struct {
	// Holder is its name in the locks of the entries that it holds.
	Holder string
	// Host and PID say where it runs. They are "" and 0 for a holder that is not
	// registered: a kazoo worker, or a single take.
	Host string
	PID  int
	// Started is when the handle began to take, by the clock of its host; zero if Host is
	// unknown.
	Started time.Time
	// Entries is how many entries it holds.
	Entries int
}

// listWorkers returns the members of a queue by host and process, and then other holders of
// entries.
func listWorkers(ctx context.Context, s coord.Session, membersDir, takenDir string) ([]WorkerInfo, error) {
	// A worker registers before it takes: in this order of looks no lock is seen without
	// its holder.
	locks, err := s.List(ctx, takenDir, coord.ListOptions{Values: true, Fresh: true})
	if err != nil {
		return nil, err
	}
	l, err := s.List(ctx, membersDir, coord.ListOptions{Values: true, Fresh: true})
	if err != nil {
		return nil, err
	}
	held := make(map[string]int)
	for _, n := range locks.Nodes {
		if st := lock.Read(n); st.Kind == lock.Held {
			held[st.Holder]++
		}
	}
	var workers []WorkerInfo
	for _, n := range l.Nodes {
		w, ok := member.Parse(n)
		if !ok {
			continue
		}
		holder := path.Base(n.Path)
		workers = append(workers, WorkerInfo{Holder: holder, Host: w.Host, PID: w.PID, Started: w.Started, Entries: held[holder]})
		delete(held, holder)
	}
	for holder, n := range held {
		workers = append(workers, WorkerInfo{Holder: holder, Entries: n})
	}
	slices.SortFunc(workers, func(a, b WorkerInfo) int {
		if (a.PID == 0) != (b.PID == 0) {
			return cmp.Compare(b.PID, a.PID)
		}
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.PID, b.PID), cmp.Compare(a.Holder, b.Holder))
	})
	return workers, nil
}
