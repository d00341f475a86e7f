package zkq

import (
	"context"
	"errors"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/bulk"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/member"
	"github.com/zkq/zkq/internal/retry"
)

// mover makes due entries ready: it removes the lock of an entry that rests until it is due,
// and turns a delayed put into an entry. It finds both in one index, which is ordered by due
// time. Every handle that takes has a mover. So no leader is elected, and a take needs no other
// process. While nothing is delayed a mover costs one watch.
//
// Each due entry has one owner among the registered handles, which moves its entries many in a
// commit. Other movers leave an entry alone for dueOthers. Then a mover that has none of its own
// left moves a part of those entries, and looks again. Each mover begins at another place, so that
// two movers rarely try the same entry. The commit lets only one of them succeed.
type mover struct {
	*handle.Handle
	settings *settings
	delayed  *delayedPuts
	busy     *handle.BusyLog
	holder   string // this handle's name among the registered workers
	page     int    // how many names of the index one request of a take lists
	movePage int    // and one of the mover's goroutine
	bulk     bulkSize
	chosen   int // parts of other owners' entries that the mover's goroutine has chosen so far

	once  sync.Once
	tries atomic.Int32 // calls of takes that do not wait

	// begun and ended count attempts to make entries ready. A take that found nothing compares
	// them: if an attempt began before its end, it tries once more.
	begun, ended atomic.Int64
}

const (
	dueOthers = time.Second           // time that the owner of a due entry has, before any other mover moves it
	dueRest   = 50 * time.Millisecond // least time between two listings, unless an entry falls due
	duePage   = 64                    // names of the index in one request of a take, unless an option says otherwise
	movePage  = 1000                  // and of the mover's goroutine
	dueParts  = 16                    // parts from which a mover chooses one, of the entries that others own
)

// start starts the mover's goroutine, which ends when the handle is closed. Later calls do
// nothing.
func (m *mover) start() {
	m.once.Do(func() {
		if m.Invalid == nil {
			m.Spawn(m.moveDue)
		}
	})
}

// countTry counts a take that does not wait, and starts the mover with the second one. A
// process that takes once and exits needs no mover: that take itself makes due entries ready.
func (m *mover) countTry() {
	if m.tries.Add(1) > 1 {
		m.start()
	}
}

// moveDue moves due entries, in one session after the other, until the handle or the
// coordinator is closed. After other errors it tries again with back-off.
func (m *mover) moveDue() {
	backoff := m.Backoff(actMove)
	backoff.Do(m.Life, nil, func() (retry.Decision, error) {
		s, err := m.Session(m.Life)
		if err == nil {
			err = m.moveInSession(m.Life, s)
		}
		switch {
		case m.IsClosed(), errors.Is(err, coord.ErrClosed):
			return retry.Stop, err
		case retry.NothingSent(err):
			return retry.Now, err
		}
		return retry.Later, err
	})
}

// moveInSession moves due entries until the session ends or a request fails. It watches the
// index, moves the due entries at its head, and waits for a change or the next due time. It
// also watches the workers, to read a changed configuration at once. It always returns an
// error.
func (m *mover) moveInSession(ctx context.Context, s coord.Session) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	changed, err := s.Watch(watching, path.Join(m.Root, layout.DelayedDir))
	if err != nil {
		return err
	}
	// A process that changes the configuration signals it by a node among the workers.
	configured, err := s.Watch(watching, path.Join(m.Root, layout.WorkersDir))
	if err != nil {
		return err
	}
	defer m.settings.setWatched(false)
	for readConfig := true; ; {
		if readConfig {
			if _, err := m.settings.refreshConfig(ctx, s); err != nil && !errors.Is(err, coord.ErrFormat) {
				return err
			}
			m.settings.setWatched(true)
		}
		next, _, err := m.moveHead(ctx, s, false)
		if err != nil {
			return err
		}
		m.busy.Served(actMove)
		if readConfig, err = awaitDue(ctx, s, changed, configured, next); err != nil {
			return err
		}
	}
}

// moveHead moves the due entries at the head of the index. It moves an entry of another owner
// only after dueOthers. next is when to call it again; zero if nothing is delayed. With all it
// moves entries of every owner, and returns after the first page in which it moved one. moved
// reports whether this or another process moved an entry, or removed an expired one. A commit
// that another process overtook is no error.
func (m *mover) moveHead(ctx context.Context, s coord.Session, all bool) (next time.Time, moved bool, err error) {
	limit := m.movePage
	if all {
		limit = m.page
	}
	var late []dueEntry // of other owners, which had their time
	for after, more := "", true; more; {
		l, err := s.List(ctx, path.Join(m.Root, layout.DelayedDir), coord.ListOptions{After: after, Limit: limit, Fresh: all && after == ""})
		if err != nil {
			return next, moved, err
		}
		page, future := m.dueIn(l.Nodes)
		if more = l.More; len(l.Nodes) > 0 {
			after = path.Base(l.Nodes[len(l.Nodes)-1].Path)
		}
		if !future.IsZero() {
			next, more = earlier(next, future), false
		}
		own := page
		if !all {
			var others []dueEntry
			if own, others, err = m.divide(ctx, s, page); err != nil {
				return next, moved, err
			}
			for _, d := range others {
				switch at := d.Due.Add(dueOthers); {
				case at.After(time.Now()):
					next = earlier(next, at)
				case len(late) < dueParts*bulk.Size:
					late = append(late, d)
				}
			}
		}
		again, some, err := m.moveAndNote(ctx, s, own)
		moved = moved || some
		if !again.IsZero() {
			next = earlier(next, again)
		}
		if err != nil || all && moved {
			return next, moved, err
		}
	}
	if len(late) == 0 {
		return next, moved, nil
	}
	if moved { // there may be more of its own by now
		return time.Now(), moved, nil
	}
	part := m.chooseLate(late)
	again, moved, err := m.moveAndNote(ctx, s, part)
	if !again.IsZero() {
		next = earlier(next, again)
	}
	switch {
	case len(part) == len(late):
	case moved:
		next = time.Now()
	default: // the next part may have entries that can be moved
		next = earlier(next, time.Now().Add(dueRest))
	}
	return next, moved, err
}

// dueIn returns the entries of a page of the index that are due. future is when the next one is;
// zero if the page does not tell.
func (m *mover) dueIn(page []coord.Node) (due []dueEntry, future time.Time) {
	for _, n := range page {
		name := path.Base(n.Path)
		d, ok := layout.ParseDelayed(name)
		switch {
		case !ok:
			m.WarnOnce(n.Path, "is not a delayed entry of zkq: skipped")
		case d.Due.After(time.Now()): // and so are all names behind it
			return due, d.Due
		default:
			due = append(due, dueEntry{name, d})
		}
	}
	return due, future
}

// divide divides due entries into those that this handle moves first, and those of other owners.
// One of the registered handles owns an entry; without registered handles, every handle does.
func (m *mover) divide(ctx context.Context, s coord.Session, due []dueEntry) (own, others []dueEntry, err error) {
	if len(due) == 0 {
		return nil, nil, nil
	}
	members, err := member.List(ctx, s, path.Join(m.Root, layout.WorkersDir))
	for _, d := range due {
		if len(members) == 0 || member.Owner(members, d.name) == m.holder {
			own = append(own, d)
		} else {
			others = append(others, d)
		}
	}
	return own, others, err
}

// chooseLate returns the part of other owners' entries that this handle moves now: the next one each
// time. Handles begin at different places, so that several rarely choose the same.
func (m *mover) chooseLate(late []dueEntry) []dueEntry {
	size := m.bulk.size()
	parts := (len(late) + size - 1) / size
	part := m.chosen
	for _, digit := range []byte(m.holder) {
		part = (31*part + int(digit)) % parts
	}
	m.chosen++
	first := part * size
	return late[first:min(first+size, len(late))]
}

// moveAndNote makes due entries ready. moved and err are as in moveHead. again is when to look at
// the index again for one of these entries; zero if that is not needed.
func (m *mover) moveAndNote(ctx context.Context, s coord.Session, due []dueEntry) (again time.Time, moved bool, err error) {
	if len(due) == 0 {
		return again, false, nil
	}
	note := func(at time.Time) { again = earlier(again, at) }
	var hasFailed atomic.Bool
	at := 0
	for errs := range inParts(m.bulk, due, func(part []dueEntry) []error {
		if hasFailed.Load() {
			return make([]error, len(part))
		}
		m.begun.Add(1)
		defer m.ended.Add(1)
		return m.delayed.makeAllReady(ctx, s, part)
	}) {
		for _, problem := range errs {
			d := due[at]
			at++
			switch {
			case hasFailed.Load():
			case errors.Is(problem, errLeftAlone): // no entry has this name of the index now
				note(d.Due.Add(keepOrphanIndex))
			case problem != nil && !errors.Is(problem, errUnavailable):
				err = problem
				hasFailed.Store(true)
			default: // moved, by this or by another process
				// A name of the index whose entry is gone may remain: look again later.
				if moved = true; problem != nil && time.Since(d.Due) < keepOrphanIndex {
					note(d.Due.Add(keepOrphanIndex))
				}
			}
		}
	}
	return again, moved, err
}

// earlier returns the earlier of two times. A zero time means none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// awaitDue blocks until the index is to be listed again: it changed, or an entry is due at next.
// readConfig reports that the configuration may have changed. An error means that ctx or the
// session has ended.
func awaitDue(ctx context.Context, s coord.Session, changed, configured <-chan struct{}, next time.Time) (readConfig bool, err error) {
	// Limit how often the index is listed while it changes: ZooKeeper sends all of it.
	if err := waitUntil(ctx, s, nil, configured, earlier(next, time.Now().Add(dueRest)), &readConfig); err != nil || readConfig {
		return readConfig, err
	}
	if err := waitUntil(ctx, s, changed, configured, next, &readConfig); err != nil {
		return readConfig, err
	}
	select {
	case <-changed: // one listing shows all changes
	default:
	}
	select {
	case <-configured:
		readConfig = true
	default:
	}
	return readConfig, nil
}

// waitUntil blocks until changed or configured has a value, or until the time at, unless that is
// zero. It sets *readConfig after a value of configured. An error means that ctx or the session
// has ended. A nil channel never has a value.
func waitUntil(ctx context.Context, s coord.Session, changed, configured <-chan struct{}, at time.Time, readConfig *bool) error {
	var due <-chan time.Time
	if !at.IsZero() {
		t := time.NewTimer(time.Until(at))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-s.Done():
	case <-changed:
	case <-configured:
		*readConfig = true
	case <-due:
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case handle.IsOver(s):
		return coord.ErrSessionLost
	}
	return nil
}

// moveAll makes a page of due entries ready, whatever their owners, and reports whether any was
// moved. After a commit without an answer it lists the index again, so the caller never gets
// [ErrUnknown]: moved is then true, because the commit may have been applied. It returns
// [ErrClosed] if the handle is closed meanwhile.
func (m *mover) moveAll(ctx context.Context) (moved bool, err error) {
	unknown := false
	var backoff retry.Backoff
	err, interrupted := backoff.Do(ctx, m.Life.Done(), func() (retry.Decision, error) {
		err := m.Do(ctx, func(ctx context.Context, s coord.Session) (err error) {
			_, moved, err = m.moveHead(ctx, s, true)
			return err
		})
		if !errors.Is(err, ErrUnknown) {
			return retry.Stop, err
		}
		unknown = true
		return retry.Later, err
	})
	switch {
	case interrupted == nil:
		return moved || unknown && err == nil, err
	case m.IsClosed():
		return false, ErrClosed
	}
	return false, retry.NotApplied(ctx, err)
}
