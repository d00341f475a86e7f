package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
)

// Puts alone keep an exact bound. Each put reads the fence of <q>/count, counts the entries,
// and writes that node at the fence in its own commit. A put in between has moved the fence,
// so the commit is refused. A change of the bound writes the node, too, so a put reads the
// bound after the fence. A finish only makes the number of entries smaller, so it writes no
// count and costs nothing more. The number in the node is for people: it is right just after
// a put.

// fullError is an [ErrFull], with what a put needs to wait for room in the right queue.
type fullError struct {
	puts      *putter   // of the queue that is full: a pipeline puts into several
	have, max int       // entries
	expires   time.Time // the first entry expires then; zero: wait for a change
}

func (e *fullError) Error() string {
	return fmt.Sprintf("%v: %d of %d entries", ErrFull, e.have, e.max)
}

func (e *fullError) Is(target error) bool { return target == ErrFull }

// demand is the room that a put asks for.
type demand struct {
	entries int  // that the put creates
	removed int  // entries of the same queue that the same commit removes
	partial bool // the put may create fewer, but at least one
}

// roomFor returns how many of the wanted entries there is room for, and the ops that keep the
// bound in the commit that puts them: none in a queue without an exact bound. If the queue
// is full it first removes entries that have expired.
//
// The error is a *fullError if there is not enough room now, and an [ErrTooLarge] if the put
// asks for more than the bound allows.
func (pt *putter) roomFor(ctx context.Context, s coord.Session, want demand) (n int, ops []coord.Op, err error) {
	n = want.entries
	c, err := pt.settings.config(ctx, s)
	if err != nil || c.MaxEntries == 0 {
		return n, nil, err
	}
	var guard coord.Op
	if !c.Approximate {
		guard = coord.Create(path.Join(pt.Root, layout.CountNode), nil)
		at, err := s.Get(ctx, guard.Path)
		if err == nil {
			guard = coord.Set(at.Path, nil, at.Fence)
		} else if !errors.Is(err, coord.ErrNotExist) {
			return n, nil, err
		}
		// A change of the bound writes the count, too. So a bound that is read after the
		// count is right as long as the count's fence has not moved.
		if c, err = pt.settings.refreshConfig(ctx, s); err != nil || c.MaxEntries == 0 {
			return n, nil, err
		}
	}
	if n > c.MaxEntries && !want.partial {
		return n, nil, &coord.LimitError{What: "put into a bounded queue", Unit: "entries", Size: n, Limit: c.MaxEntries}
	}
	have, err := pt.countBound(ctx, s)
	expires, next := false, time.Time{}
	if err == nil && have-want.removed+n > c.MaxEntries {
		expires, err = pt.expiry.mayExpireIn(ctx, s)
	}
	if err == nil && expires {
		if next, err = pt.removal.removeExpired(ctx, s); err == nil {
			have, err = pt.countBound(ctx, s)
		} else if errors.Is(err, ErrUnknown) {
			// The outcome of that removal is unknown, not of the put: the put is tried again,
			// and counts once more.
			err = fmt.Errorf("remove what expired: %v: %w", err, coord.ErrBusy)
		}
	}
	if err != nil {
		return n, nil, err
	}
	stay := have - want.removed
	if want.partial {
		n = min(n, max(c.MaxEntries-stay, 1))
	}
	switch {
	case stay+n > c.MaxEntries:
		return n, nil, &fullError{pt, have, c.MaxEntries, next}
	case c.Approximate:
		return n, nil, nil
	}
	guard.Value = strconv.AppendInt(nil, int64(stay+n), 10)
	return n, []coord.Op{guard}, nil
}

// countBound returns the number of entries that count for a bound: ready, held and delayed.
// It counts delayed puts first. So a put that becomes an entry meanwhile is counted twice
// rather than not at all. A number that is too high could refuse a put for no reason, so
// countBound counts again if the delayed puts changed.
func (pt *putter) countBound(ctx context.Context, s coord.Session) (int, error) {
	for {
		later := 0
		before, err := s.List(ctx, path.Join(pt.Root, layout.DelayedDir), coord.ListOptions{Fresh: true})
		if err != nil {
			return 0, err
		}
		for _, n := range before.Nodes {
			if pt.delayed.isDelayedPut(path.Base(n.Path)) {
				later++
			}
		}
		entries, err := s.Count(ctx, pt.Entries)
		if err != nil || later == 0 {
			return entries, err
		}
		after, err := s.List(ctx, path.Join(pt.Root, layout.DelayedDir), coord.ListOptions{Fresh: true})
		if err != nil || after.Stamp == before.Stamp {
			return entries + later, err
		}
	}
}

// checkSize returns an [ErrTooLarge] for a value beyond the queue's own limit of a size.
func (pt *putter) checkSize(ctx context.Context, s coord.Session, size int) error {
	c, err := pt.settings.config(ctx, s)
	if err == nil && c.MaxSize > 0 && size > c.MaxSize {
		return &coord.LimitError{What: "value", Unit: "bytes", Size: size, Limit: c.MaxSize}
	}
	return err
}

// waitRoom is the wait of one put for room in a full queue. It subscribes to changes first,
// then the put looks again, and only then it waits: so no change is missed.
type waitRoom struct {
	until   time.Time          // the put gives up then
	puts    *putter            // of the queue that it watches
	session coord.Session      // in which it watches
	changed <-chan struct{}    // signals that entries, delayed puts or the configuration changed
	stop    context.CancelFunc // ends the watch; nil: nothing is watched yet
}

// waitForRoom is called after a put was refused with full. It returns nil if the put should
// be tried again, full if the time to wait is over, or ctx's error. The first call for a
// queue only subscribes.
func (w *waitRoom) waitForRoom(ctx context.Context, p *putter, full error) error {
	s, err := p.Session(ctx)
	if err != nil {
		return err
	}
	p.settings.expire() // another process may have changed the bound
	if s != w.session || p != w.puts {
		w.close()
		watching, stop := context.WithCancel(ctx)
		changed, err := s.Watch(watching, p.Entries, path.Join(p.Root, layout.DelayedDir), path.Join(p.Root, layout.WorkersDir))
		if err != nil {
			stop()
			return err
		}
		w.puts, w.session, w.changed, w.stop = p, s, changed, stop
		return nil
	}
	at := w.until
	if e := (*fullError)(nil); errors.As(full, &e) && !e.expires.IsZero() {
		at = earlier(at, e.expires)
	}
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-s.Done():
	case <-w.changed:
	case <-t.C:
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !time.Now().Before(w.until):
		return full
	}
	return nil
}

// close ends the watch. It may be called at any time, and again.
func (w *waitRoom) close() {
	if w.stop != nil {
		w.stop()
	}
}
