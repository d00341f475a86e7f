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

// inspector reads entries for Entries, Peek, Stat and WaitEmpty. It changes nothing. It reads
// page by page, so its results are of no single instant: an entry that changes meanwhile may be
// seen in either state, or not at all. An entry that does not change is seen exactly once.
type inspector struct {
	*handle.Handle
	dead    *deadLetters
	delayed *delayedPuts
	expiry  *lifetimes // which entries have expired
	finder  *finder    // told of entries that cannot be read, and searches for the next one
	history *histories // failures of earlier deliveries
}

// eachName calls f with the names of the entries, in take order, until f returns an error. It
// includes held, resting and expired entries, but no delayed puts and no dead.
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

// locks returns the nodes in the directory of locks, by entry name. It warns of nodes that are
// no locks: they do not disappear by themselves. A plain queue has no locks.
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

// entriesPaged calls f with each entry, in take order, with its state and history. It includes
// expired entries, but no delayed puts and no dead. When f returns false it ends with errStop.
// After a lost session it goes on where it was.
func (in *inspector) entriesPaged(ctx context.Context, f func(Entry) bool) error {
	after := "" // is kept over sessions
	return in.Do(ctx, func(ctx context.Context, s coord.Session) error {
		isLocked, err := in.lockNames(ctx, s)
		if err != nil {
			return err
		}
		o := coord.ListOptions{After: after, Limit: handle.NodesPage, Values: true, Fresh: after == ""}
		for page, err := range handle.Pages(ctx, s, in.Entries, o) {
			if err != nil {
				return err
			}
			in.EntryNames(page) // warns of nodes that are no entries
			locks, err := in.locksOfPage(ctx, s, isLocked, page)
			if err != nil {
				return err
			}
			past, err := in.historiesOfPage(ctx, s, page)
			if err != nil {
				return err
			}
			for _, n := range page {
				name := path.Base(n.Path)
				after = name
				parsed, ok := priority.Parse(name)
				if !ok {
					continue
				}
				e := newEntry(name, parsed, n)
				e.Failures, e.Reason = past[name].Failures, past[name].Reason
				e.Deliveries -= int(past[name].Updates)
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
		}
		return nil
	})
}

// lockNames returns the names of the entries that have a lock. A plain queue has no locks.
func (in *inspector) lockNames(ctx context.Context, s coord.Session) (map[string]bool, error) {
	if in.Taken == "" {
		return nil, nil
	}
	l, err := s.List(ctx, in.Taken, coord.ListOptions{Fresh: true})
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(l.Nodes))
	for _, n := range l.Nodes {
		names[path.Base(n.Path)] = true
	}
	return names, nil
}

// locksOfPage reads the locks of a page of entries, by entry name. isLocked says which entries had
// a lock when the listing began; a lock that is younger is not seen.
func (in *inspector) locksOfPage(ctx context.Context, s coord.Session, isLocked map[string]bool, page []coord.Node) (map[string]coord.Node, error) {
	locks, err := in.besidePage(ctx, s, in.Taken, page, func(n coord.Node) bool { return isLocked[path.Base(n.Path)] })
	for _, lk := range locks {
		if lock.Read(lk).Kind == lock.Foreign {
			in.WarnOnce(lk.Path, "is not a lock of zkq or kazoo: an entry of its name is left alone")
		}
	}
	return locks, err
}

// historiesOfPage reads the histories of a page of entries, by entry name. It reads nothing if no
// entry of the page was ever handed out.
func (in *inspector) historiesOfPage(ctx context.Context, s coord.Session, page []coord.Node) (map[string]history, error) {
	if in.Taken == "" {
		return nil, nil
	}
	nodes, err := in.besidePage(ctx, s, path.Join(in.Root, layout.HistoryDir), page, func(n coord.Node) bool { return n.Changes > 0 })
	past := make(map[string]history, len(nodes))
	for name, n := range nodes {
		past[name] = parseHistory(n)
	}
	return past, err
}

// besidePage reads the nodes in a directory that have the names of some entries of a page, by name.
func (in *inspector) besidePage(ctx context.Context, s coord.Session, dir string, page []coord.Node, wanted func(coord.Node) bool) (map[string]coord.Node, error) {
	found := make(map[string]coord.Node)
	nodes, err := readWhere(ctx, s.Read, page, func(_ int, n coord.Node) string {
		if _, isEntry := priority.Parse(path.Base(n.Path)); !isEntry || !wanted(n) {
			return ""
		}
		return path.Join(dir, path.Base(n.Path))
	})
	for _, n := range nodes {
		if n.Path != "" {
			found[path.Base(n.Path)] = n
		}
	}
	return found, err
}

// peek returns the entry of that name; [ErrNoEntry] if there is none, or it has expired. For ""
// it returns the entry that a take would claim next; [ErrEmpty] if there is none. If entries may
// expire it reads the queue page by page to find that one.
func (in *inspector) peek(ctx context.Context, name string) (e Entry, err error) {
	if name == "" {
		if may, err := in.expiry.mayExpire(ctx); err != nil || may {
			if err != nil {
				return e, err
			}
			return in.nextUnexpired(ctx)
		}
		err = in.finder.tryTake(ctx, head.NewResting(), 1, func(ctx context.Context, s coord.Session, names []string, _ int) (got, cleared int, err error) {
			for _, name := range names { // return the first that can be read
				nodes, err := s.Read(ctx, path.Join(in.Entries, name))
				if err == nil && nodes[0].Unreadable {
					in.finder.skipUnreadable(nodes[0])
				}
				if err == nil && (nodes[0].Path == "" || nodes[0].Unreadable) {
					continue
				}
				if err == nil {
					e, err = in.entryOf(ctx, s, name, nodes[0])
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

// find returns the entry of that name, in any state, even if it has expired. [ErrNoEntry] means
// that there is none, and [ErrInvalidName] that no entry can have the name.
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
		var lk *coord.Node // the entry's lock; nil: it has none
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
		e, err = in.entryOf(ctx, s, name, n)
		if lk != nil {
			e = e.locked(*lk)
		}
		return err
	})
	return e, err
}

// entryOf returns the entry in node n, as ready, with the failures of its history.
func (in *inspector) entryOf(ctx context.Context, s coord.Session, name string, n coord.Node) (Entry, error) {
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

// warnSequence is the sequence number of an entry from which on Stat warns that ZooKeeper's
// numbers for the queue run out.
const warnSequence = 2_000_000_000

// stat counts the entries by state. An expired entry counts only if it is held or dead. It finds
// the oldest entry by reading the first of each priority.
func (in *inspector) stat(ctx context.Context, s coord.Session) (Stat, error) {
	var st Stat
	locks, err := in.locks(ctx, s)
	if err != nil {
		return st, err
	}
	isExpired, err := in.expiry.expiredNames(ctx, s, locks)
	if err != nil {
		return st, err
	}
	var firsts []string // the first entry of each priority: the oldest is among them
	last := -1          // the priority of the entry before
	err = in.eachName(ctx, s, func(name string) error {
		if isExpired[name] {
			return nil
		}
		n, _ := priority.Parse(name)
		if n.Priority != last {
			last = n.Priority
			firsts = append(firsts, name)
		}
		if n.Put.IsZero() && n.Sequence >= warnSequence { // the name has no time: ZooKeeper numbered it
			in.WarnOnce(in.Entries, "nears the end of its numbers, 2147483646: move its entries to a queue of another name")
		}
		lk, ok := locks[name]
		switch {
		case !ok:
			st.Ready++
		case lock.Read(lk).Kind == lock.Resting:
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
	if st.Delayed, err = in.addDelayedPuts(ctx, s, st.Delayed); err != nil {
		return st, err
	}
	if in.Taken != "" {
		if st.Dead, err = in.dead.countDead(ctx, s); err != nil {
			return st, err
		}
	}
	return st, nil
}

// created returns when an entry was put. It is zero if the entry does not exist any more, or if
// the time is not known.
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

// nextUnexpired returns the first entry that is ready, readable and not expired; [ErrEmpty] if
// there is none. It reads the entries with their values.
func (in *inspector) nextUnexpired(ctx context.Context) (next Entry, err error) {
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

// addDelayedPuts returns n plus the number of delayed puts that have not expired.
func (in *inspector) addDelayedPuts(ctx context.Context, s coord.Session, n int) (int, error) {
	if may, err := in.expiry.mayExpireIn(ctx, s); err != nil || !may {
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

// waiting reports whether an entry is ready, held or delayed. If left is false there was an
// instant at which none was. If until is not zero, the entry that it found expires then, and the
// caller looks again.
func (in *inspector) waiting(ctx context.Context, s coord.Session) (left bool, until time.Time, err error) {
	expires, err := in.expiry.mayExpireIn(ctx, s)
	if err != nil {
		return false, until, err
	}
	dir := path.Join(in.Root, layout.DelayedDir)
	for {
		var before coord.List // the index of delayed entries, before anything else is read
		if in.Taken != "" {
			if before, err = s.List(ctx, dir, coord.ListOptions{Fresh: true}); err != nil {
				return false, until, err
			}
			if left, until, err = in.findDelayedPut(ctx, s, expires); err != nil || left {
				return left, until, err
			}
		}
		if left, until, err = in.findEntry(ctx, s, expires); err != nil || left || in.Taken == "" {
			return left, until, err
		}
		// A delayed put may have become an entry after the entries were read: then it was
		// in neither listing. That did not happen if the delayed puts are unchanged.
		after, err := s.List(ctx, dir, coord.ListOptions{Fresh: true})
		if err != nil || after.Stamp == before.Stamp {
			return false, until, err
		}
	}
}

// findDelayedPut reports whether there is a delayed put that has not expired, and when it does;
// zero if it never does. expires says whether any may.
func (in *inspector) findDelayedPut(ctx context.Context, s coord.Session, expires bool) (left bool, until time.Time, err error) {
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

// lookAtHeld is how often WaitEmpty looks at an entry that expired while it was held. When it is
// given back it counts as gone, but then no watched directory changes.
const lookAtHeld = time.Second

// findEntry is findDelayedPut for ready, held and resting entries. For a held one that has
// expired, until is when to look again.
func (in *inspector) findEntry(ctx context.Context, s coord.Session, expires bool) (left bool, until time.Time, err error) {
	if !expires {
		err = in.eachName(ctx, s, func(string) error { left = true; return errStop })
		return left, until, notStop(err)
	}
	locks, err := in.locks(ctx, s)
	if err != nil {
		return false, until, err
	}
	err = in.expiry.eachLifetime(ctx, s, locks, func(l lifetime) error {
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

// WorkerInfo describes a queue handle that takes from a queue, or another holder of entries.
type WorkerInfo struct {
	// Holder is the value of the locks of the entries that it holds. [Entry].Holder is the
	// same. zkq's handles use 32 hexadecimal digits.
	Holder string
	// Host and PID say where it runs. They are "" and 0 for a holder that is not
	// registered: a kazoo worker, or a single take.
	Host string
	PID  int
	// Started is when the handle began to take, by the clock of its host; zero if Host is
	// unknown.
	Started time.Time
	// Entries is how many entries it holds now.
	Entries int
}

// listWorkers returns the registered handles of a queue by host and process, and then the other
// holders of entries, with the numbers of entries that each holds.
func listWorkers(ctx context.Context, s coord.Session, membersDir, takenDir string) ([]WorkerInfo, error) {
	// List the locks first. A worker registers before it takes, so each lock's holder is
	// among the workers that are listed later.
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
	for holder, n := range held { // those that are not registered
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
