package zkq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// Pages of listings: of names, and of whole nodes, which may be large.
const (
	namesPage = 4096
	nodesPage = 32
)

// inspector looks at entries and takes nothing.
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
	for after := ""; ; {
		l, err := s.List(ctx, in.Entries, coord.ListOptions{After: after, Limit: namesPage, Fresh: after == ""})
		if err != nil {
			return err
		}
		for _, name := range in.EntryNames(l.Nodes) {
			if err := f(name); err != nil {
				return err
			}
		}
		if !l.More {
			return nil
		}
		after = path.Base(l.Nodes[len(l.Nodes)-1].Path)
	}
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

// locked describes an entry whose lock is n.
func (e Entry) locked(n coord.Node) Entry {
	switch st := lock.Read(n); st.Kind {
	case lock.Aside:
		e.State, e.Due = StateDelayed, st.Due
	default:
		e.State, e.Holder, e.Since = StateHeld, st.Holder, n.Created
	}
	return e
}

// Entries looks at the entries in take order, those of the given states or all,
// and takes nothing. Values are not filled in, though they are read for their
// size. It reads page by page: what changes meanwhile may be seen or not, but
// what stays is seen exactly once. An error is yielded with a zero Entry and
// ends the loop. After those that have a place come the delayed puts, as they fall due,
// and the dead.
func (b *base) Entries(ctx context.Context, states ...State) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range b.EntriesWithValues(ctx, states...) {
			e.Value = nil
			if !yield(e, err) {
				return
			}
		}
	}
}

// EntriesWithValues is Entries with the values filled in.
func (b *base) EntriesWithValues(ctx context.Context, states ...State) iter.Seq2[Entry, error] {
	want := func(s State) bool { return len(states) == 0 || slices.Contains(states, s) }
	return func(yield func(Entry, error) bool) {
		var err error
		for _, s := range states {
			if _, err = ParseState(string(s)); err != nil {
				break
			}
		}
		if err == nil {
			err = b.inspect.entriesPaged(ctx, func(e Entry) bool {
				return !want(e.State) || e.expired() || yield(e, nil)
			})
		}
		if err == nil && want(StateDelayed) {
			err = b.delayed.laterPaged(ctx, func(e Entry) bool { return e.expired() || yield(e, nil) })
		}
		if err == nil && want(StateDead) && b.handle.Taken != "" {
			err = b.dead.deadPaged(ctx, func(e Entry) bool { return yield(e, nil) })
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(Entry{}, fmt.Errorf("list %s: %w", b.handle.Root, err))
		}
	}
}

// FindNames returns, for each tail, the names of the entries that end in "-" and that
// tail, in take order: of those that have a place, of delayed puts and of the dead. It
// costs a listing of each.
func (b *base) FindNames(ctx context.Context, tails ...string) (map[string][]string, error) {
	found := make(map[string][]string)
	match := func(name string) error {
		for _, tail := range tails {
			if strings.HasSuffix(name, "-"+tail) && !slices.Contains(found[tail], name) {
				found[tail] = append(found[tail], name)
			}
		}
		return nil
	}
	err := b.handle.Do(ctx, func(ctx context.Context, s coord.Session) error {
		if err := b.inspect.eachName(ctx, s, match); err != nil || b.handle.Taken == "" {
			return err
		}
		for _, dir := range []string{layout.DelayedDir, layout.DeadDir} {
			l, err := s.List(ctx, path.Join(b.handle.Root, dir), coord.ListOptions{Fresh: true})
			if err != nil {
				return err
			}
			for _, n := range l.Nodes {
				name := path.Base(n.Path)
				if _, _, dead := layout.ParseDead(name); b.delayed.isLater(name) || dead && dir == layout.DeadDir {
					match(name)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find names in %s: %w", b.handle.Root, err)
	}
	return found, nil
}

// errStop ends a walk that somebody has seen enough of.
var errStop = errors.New("stop")

func (in *inspector) entriesPaged(ctx context.Context, f func(Entry) bool) error {
	after, limit := "", nodesPage
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

// Peek returns an entry with its value and takes nothing: the one of that name,
// [ErrNoEntry] if there is none, or for "" the next that would be taken,
// [ErrEmpty] if there is none. An entry that has expired is none, unless it is held. A dead
// entry is named as Entries calls it.
func (b *base) Peek(ctx context.Context, name string) (Entry, error) {
	e, err := b.inspect.peek(ctx, name)
	if err != nil {
		return Entry{}, fmt.Errorf("peek at %s: %w", b.handle.Root, err)
	}
	return e, nil
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
	if in.delayed.isLater(name) {
		return in.delayed.peekLater(ctx, name)
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

// Stat counts the entries by state, from the names alone: it costs a listing of
// the whole queue, and reads all of it where entries may expire. At rest the numbers are exact; while the queue is in use each
// is right for some instant of the call.
func (b *base) Stat(ctx context.Context) (Stat, error) {
	var st Stat
	err := b.handle.Do(ctx, func(ctx context.Context, s coord.Session) (err error) {
		st, err = b.inspect.stat(ctx, s)
		return err
	})
	if err != nil {
		return Stat{}, fmt.Errorf("count %s: %w", b.handle.Root, err)
	}
	return st, nil
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

// WaitEmpty returns when there is no entry that is ready, held or delayed: when
// there was such an instant during the call. It ends with ctx's error.
func (b *base) WaitEmpty(ctx context.Context) error {
	err := b.handle.Do(ctx, func(ctx context.Context, s coord.Session) error {
		watching, cancel := context.WithCancel(ctx)
		defer cancel()
		dirs := []string{b.handle.Entries}
		if b.handle.Taken != "" {
			dirs = append(dirs, path.Join(b.handle.Root, layout.DelayedDir))
		}
		changed, err := s.Watch(watching, dirs...)
		if err != nil {
			return err
		}
		for {
			left, until, err := b.inspect.waiting(ctx, s)
			if err != nil || !left {
				return err
			}
			var told bool // there are no news but changes
			if err := waitUntil(ctx, s, changed, nil, until, &told); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w", b.handle.Root, err)
	}
	return nil
}
