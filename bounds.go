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

// An exact bound is kept by the putters alone. Each reads the fence of <q>/count, counts
// the entries, and writes that node at the fence in the commit that puts: whoever else put
// in between has moved the fence, and the commit is refused. Who changes the bound writes
// it too, so the bound is read behind the fence. Those who finish only make the
// number smaller, so they need not say so, and a finish costs nothing more. The number in
// the node is what the last putter made it, for people.

// fullError is an ErrFull.
type fullError struct {
	puts      *putter
	have, max int
	expires   time.Time // there may be room then; zero: only when something changes
}

func (e *fullError) Error() string {
	return fmt.Sprintf("%v: %d of %d entries", ErrFull, e.have, e.max)
}

func (e *fullError) Is(target error) bool { return target == ErrFull }

// demand is the room that a put asks for.
type demand struct {
	entries int
	removed int  // entries of the same queue that the same commit removes
	partial bool // fewer will do, but not none
}

// room returns how many of the entries there is room for, and the ops that their put needs:
// all of them, or as many as there is room for where some will do. [ErrFull] when there is
// not enough; [ErrTooLarge] when there never will be.
func (pt *putter) room(ctx context.Context, s coord.Session, want demand) (n int, ops []coord.Op, err error) {
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
		// A change of the bound writes the count, too: a bound that is read after it holds
		// as long as the count stands.
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
		expires, err = pt.expiry.expires(ctx, s)
	}
	if err == nil && expires {
		if next, err = pt.removal.removeExpired(ctx, s); err == nil {
			have, err = pt.countBound(ctx, s)
		} else if errors.Is(err, ErrUnknown) {
			// Not the put: it is made again, and sees what became of that.
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

// countBound counts what a bound counts. What is delayed is counted first: one that
// becomes an entry meanwhile is counted twice rather than not at all. That may refuse a
// put, so it is made sure.
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

// checkSize refuses a value that is too large for the queue.
func (pt *putter) checkSize(ctx context.Context, s coord.Session, size int) error {
	c, err := pt.settings.config(ctx, s)
	if err == nil && c.MaxSize > 0 && size > c.MaxSize {
		return &coord.LimitError{What: "value", Unit: "bytes", Size: size, Limit: c.MaxSize}
	}
	return err
}

// waitRoom waits for room until a time: it subscribes before the put looks again. nil
// means that there may be some.
type waitRoom struct {
	until   time.Time
	puts    *putter
	session coord.Session
	changed <-chan struct{}
	stop    context.CancelFunc
}

// waitForRoom returns full when the time is over.
func (w *waitRoom) waitForRoom(ctx context.Context, p *putter, full error) error {
	s, err := p.Session(ctx)
	if err != nil {
		return err
	}
	p.settings.expire() // the bound may be another now
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

func (w *waitRoom) close() {
	if w.stop != nil {
		w.stop()
	}
}
