package zkq

import (
	"context"
	"errors"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
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
// Each due entry has one owner among the registered handles. Other movers wait for dueOthers
// before they move it, so that two movers rarely try the same entry. The commit lets only one
// of them succeed.
type mover struct {
	*handle.Handle
	settings *settings
	delayed  *delayedPuts
	busy     *handle.BusyLog
	holder   string // this handle's name among the registered workers
	page     int    // how many names of the index one request lists

	once  sync.Once
	tries atomic.Int32 // calls of takes that do not wait

	// begun and ended count attempts to make one entry ready. A take that found nothing compares
	// them: if an attempt began before its end, it tries once more.
	begun, ended atomic.Int64
}

const (
	dueOthers = time.Second           // time that the owner of a due entry has, before any other mover moves it
	dueRest   = 50 * time.Millisecond // least time between two listings, unless an entry falls due
	duePage   = 64                    // names of the index in one request, unless an option says otherwise
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
	for after := ""; ; {
		l, err := s.List(ctx, path.Join(m.Root, layout.DelayedDir), coord.ListOptions{After: after, Limit: m.page, Fresh: all && after == ""})
		if err != nil {
			return next, moved, err
		}
		for _, n := range l.Nodes {
			after = path.Base(n.Path)
			d, ok := layout.ParseDelayed(after)
			if !ok {
				m.WarnOnce(n.Path, "is not a delayed entry of zkq: skipped")
				continue
			}
			if d.Due.After(time.Now()) { // and so are all names behind it
				return earlier(next, d.Due), moved, nil
			}
			at := d.Due
			if !all {
				owns, err := m.owns(ctx, s, after)
				if err != nil {
					return next, moved, err
				}
				if !owns {
					at = at.Add(dueOthers)
				}
			}
			if at.After(time.Now()) {
				next = earlier(next, at)
				continue
			}
			m.begun.Add(1)
			err := m.delayed.makeReady(ctx, s, after, d)
			m.ended.Add(1)
			switch {
			case errors.Is(err, errLeftAlone): // no entry has this name of the index now
				next = earlier(next, d.Due.Add(keepOrphanIndex))
			case err != nil && !errors.Is(err, errUnavailable):
				return next, moved, err
			default: // moved, by this or by another process
				// A name of the index whose entry is gone may remain: look again later.
				if moved = true; err != nil && time.Since(d.Due) < keepOrphanIndex {
					next = earlier(next, d.Due.Add(keepOrphanIndex))
				}
			}
		}
		if !l.More || all && moved {
			return next, moved, nil
		}
	}
}

// owns reports whether this handle moves the named entry first. One of the registered handles
// owns it; without registered handles, every handle does.
func (m *mover) owns(ctx context.Context, s coord.Session, name string) (bool, error) {
	members, err := member.List(ctx, s, path.Join(m.Root, layout.WorkersDir))
	return len(members) == 0 || member.Owner(members, name) == m.holder, err
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
