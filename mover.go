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

// mover makes due entries ready: it removes the lock of an entry that was put aside, and turns
// a delayed put into an entry. Every handle that takes has a mover, so a process that waits
// for entries needs no other process to move them, and no leader is elected. While nothing is
// delayed a mover costs one watch.
//
// Where handles are registered, each due entry has one owner among them; the others wait for
// dueOthers before they move it, so that two movers rarely meet at one entry.
type mover struct {
	*handle.Handle
	settings *settings
	delayed  *delayedPuts
	busy     *handle.BusyLog
	holder   string // this handle among the members
	page     int    // how many delayed entries one request lists

	once  sync.Once
	tries atomic.Int32 // takes that did not wait

	begun, ended atomic.Int64 // attempts to move one entry
}

const (
	dueOthers = time.Second           // time that the owner of a due entry has, before any other mover moves it
	dueRest   = 50 * time.Millisecond // between two listings of the index, unless an entry falls due
	duePage   = 64                    // names of the index that are read at once, unless an option says otherwise
)

// start runs the mover in the background, once.
func (m *mover) start() {
	m.once.Do(func() {
		if m.Invalid == nil {
			m.Spawn(m.moveDue)
		}
	})
}

// tried starts the mover with the second take that does not wait. A process that takes once
// and exits moves what it needs itself, and needs no mover.
func (m *mover) tried() {
	if m.tries.Add(1) > 1 {
		m.start()
	}
}

// moveDue moves due entries until the handle is closed.
func (m *mover) moveDue() {
	backoff := m.Backoff(actMove)
	backoff.Do(m.Life, nil, func() (retry.Decision, error) {
		s, err := m.Session(m.Life)
		if err == nil {
			err = m.moveIn(m.Life, s)
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

// moveIn moves what is due until the session is over. It subscribes, looks, and waits.
func (m *mover) moveIn(ctx context.Context, s coord.Session) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	changed, err := s.Watch(watching, path.Join(m.Root, layout.DelayedDir))
	if err != nil {
		return err
	}
	// A process that changes the configuration signals it by a node among the workers.
	news, err := s.Watch(watching, path.Join(m.Root, layout.WorkersDir))
	if err != nil {
		return err
	}
	defer m.settings.setWatched(false)
	for look := true; ; {
		if look {
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
		if look, err = restUntil(ctx, s, changed, news, next); err != nil {
			return err
		}
	}
}

// moveHead moves what is due at the head of the index: what is left to others only when
// they do not. It says when there will be more; zero if nothing is delayed. With all it
// leaves nothing to others, ends with the first page of which something was moved, and says
// whether that was so. What expired and went without becoming ready was moved too.
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
			if d.Due.After(time.Now()) {
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
			case errors.Is(err, errLeftAlone):
				next = earlier(next, d.Due.Add(keepOrphanIndex))
			case err != nil && !errors.Is(err, errUnavailable):
				return next, moved, err
			default:
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

// owns says whether this handle is the first to move what is due: where others are
// registered, one of them is.
func (m *mover) owns(ctx context.Context, s coord.Session, name string) (bool, error) {
	members, err := member.List(ctx, s, path.Join(m.Root, layout.WorkersDir))
	return len(members) == 0 || member.Owner(members, name) == m.holder, err
}

// earlier is the earlier of two times, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// restUntil returns when it is time for another look: something changed, or is due. look
// says that it may be the configuration. Its error says that there is no point in one.
func restUntil(ctx context.Context, s coord.Session, changed, news <-chan struct{}, next time.Time) (look bool, err error) {
	// However fast things change, the next look comes after some time only: on
	// ZooKeeper it costs as much as there is.
	if err := waitUntil(ctx, s, nil, news, earlier(next, time.Now().Add(dueRest)), &look); err != nil || look {
		return look, err
	}
	if err := waitUntil(ctx, s, changed, news, next, &look); err != nil {
		return look, err
	}
	select {
	case <-changed: // one look answers all
	default:
	}
	select {
	case <-news:
		look = true
	default:
	}
	return look, nil
}

// waitUntil returns when something changed, when there are news, which it says, or at a
// time, if it is not zero.
func waitUntil(ctx context.Context, s coord.Session, changed, news <-chan struct{}, at time.Time, told *bool) error {
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
	case <-news:
		*told = true
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

// moveAll makes ready what is due, a page of it, and reports whether it moved anything. It
// repeats a commit without an answer: the caller holds nothing by it.
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
