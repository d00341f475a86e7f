package zkq

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/lane"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/priority"
)

// A delayed put is a node beside the entries: <due ms, 13 digits>-put-PPP-<16 hex>, with
// the entry's bytes. When it is due it goes, and in the same commit the entry comes, with
// a name of its own, behind those of its priority that are there. No entry has a name
// before: names sort as puts happened, among those that stand, and none is given twice.

// createLater is the op of the i-th value of a delayed put. id tells the puts apart.
func (dp *delayedPuts) createLater(o putOptions, due time.Time, id [6]byte, i int, value []byte) coord.Op {
	name := layout.DelayedPut(o.priority, id, i)
	return coord.Create(path.Join(dp.Root, layout.DelayedDir, layout.DelayedName(due, name)), value)
}

// laterID names a delayed put: that of a token is the same in whatever process it is made
// again.
func (dp *delayedPuts) laterID(t *Token) (id [6]byte) {
	text := dp.lanes.ID()
	if t != nil {
		text = string(*t)
	}
	sum := sha256.Sum256([]byte("delayed put " + text))
	copy(id[:], sum[:])
	return id
}

// laterNames are those of a delayed put that was made before with the token: nothing where
// it is not there any more.
func (dp *delayedPuts) laterNames(ctx context.Context, ops []coord.Op) []string {
	names := make([]string, 0, len(ops))
	for backoff := dp.Backoff(actPut); ; {
		s, err := dp.Session(ctx)
		var l coord.List
		if err == nil {
			l, err = s.List(ctx, path.Join(dp.Root, layout.DelayedDir), coord.ListOptions{Fresh: true})
		}
		if err != nil {
			if !lane.Again(ctx, err, backoff) {
				return nil
			}
			continue
		}
		for _, op := range ops {
			_, want, _ := layout.CutMillis(path.Base(op.Path))
			for _, n := range l.Nodes {
				if _, rest, ok := layout.CutMillis(path.Base(n.Path)); ok && rest == want {
					names = append(names, path.Base(n.Path))
				}
			}
		}
		if len(names) != len(ops) {
			return nil
		}
		return names
	}
}

// becomes makes a delayed put an entry when it is due, or nothing if it has expired, if nobody else has: errUnavailable then.
func (dp *delayedPuts) becomes(ctx context.Context, s coord.Session, name string, d layout.Delayed) error {
	n, err := s.Get(ctx, path.Join(dp.Root, layout.DelayedDir, name))
	if err != nil {
		return gone(err)
	}
	ops := []coord.Op{coord.Delete(n.Path, n.Fence)}
	h := layout.HeadersOf(n.Value)
	key, err := dp.keys.ownKey(ctx, s, h, n.Born)
	switch {
	case err != nil:
		return err
	case expired(h.Expires()) && key.Path != "":
		ops = append(ops, coord.Delete(key.Path, key.Fence))
	case key.Path != "":
		ops = append(ops, coord.Set(key.Path, key.Value, key.Fence))
	}
	if !expired(h.Expires()) {
		ops = append(ops, coord.CreateSequential(path.Join(dp.Entries, priority.Prefix(d.Priority)), n.Value))
	}
	_, err = s.Commit(ctx, ops...)
	return gone(err)
}

// laterEntry is the entry in the node of a delayed put.
func laterEntry(n coord.Node) (Entry, bool) {
	d, ok := layout.ParseDelayed(path.Base(n.Path))
	if !ok || !d.IsPut() {
		return Entry{}, false
	}
	e := newEntry(path.Base(n.Path), priority.Name{Priority: d.Priority}, n)
	e.State, e.Due, e.Deliveries = StateDelayed, d.Due, 0
	return e, true
}

// laterPaged walks the delayed puts, the first to fall due first.
func (dp *delayedPuts) laterPaged(ctx context.Context, f func(Entry) bool) error {
	if dp.Taken == "" {
		return nil
	}
	after := ""
	return dp.Do(ctx, func(ctx context.Context, s coord.Session) error {
		for {
			l, err := s.List(ctx, path.Join(dp.Root, layout.DelayedDir), coord.ListOptions{After: after, Limit: nodesPage, Values: true, Fresh: after == ""})
			if err != nil {
				return err
			}
			for _, n := range l.Nodes {
				after = path.Base(n.Path)
				if e, ok := laterEntry(n); ok && !f(e) {
					return errStop
				}
			}
			if !l.More {
				return nil
			}
		}
	})
}

// eachLater calls f with the names of the delayed puts.
func (dp *delayedPuts) eachLater(ctx context.Context, s coord.Session, f func(name string) error) error {
	if dp.Taken == "" {
		return nil
	}
	for after := ""; ; {
		l, err := s.List(ctx, path.Join(dp.Root, layout.DelayedDir), coord.ListOptions{After: after, Limit: namesPage, Fresh: after == ""})
		if err != nil {
			return err
		}
		for _, n := range l.Nodes {
			after = path.Base(n.Path)
			d, ok := layout.ParseDelayed(after)
			if !ok {
				dp.WarnOnce(n.Path, "is not a delayed entry of zkq: skipped")
			}
			if !ok || !d.IsPut() {
				continue
			}
			if err := f(after); err != nil {
				return err
			}
		}
		if !l.More {
			return nil
		}
	}
}

// isLater says whether a name is one of a delayed put.
func (dp *delayedPuts) isLater(name string) bool {
	d, ok := layout.ParseDelayed(name)
	return ok && d.IsPut() && dp.Taken != ""
}

// peekLater is a delayed put of that name.
func (dp *delayedPuts) peekLater(ctx context.Context, name string) (e Entry, err error) {
	err = dp.Do(ctx, func(ctx context.Context, s coord.Session) error {
		n, err := s.Get(ctx, path.Join(dp.Root, layout.DelayedDir, name))
		if errors.Is(err, coord.ErrNotExist) {
			return fmt.Errorf("%s: %w", name, ErrNoEntry)
		}
		e, _ = laterEntry(n)
		return err
	})
	return e, err
}

// purgeLater removes the delayed puts.
func (rm *remover) purgeLater(ctx context.Context, s coord.Session) (removed int, err error) {
	var names []string
	err = rm.delayed.eachLater(ctx, s, func(name string) error { names = append(names, name); return nil })
	for _, name := range names {
		if err != nil {
			break
		}
		if err = rm.removeBeside(ctx, layout.DelayedDir, name); err == nil {
			removed++
		} else if errors.Is(err, ErrNoEntry) {
			err = nil
		}
	}
	return removed, err
}

// countLater adds the delayed puts that have not expired to n.
func (in *inspector) countLater(ctx context.Context, s coord.Session, n int) (int, error) {
	if may, err := in.expiry.expires(ctx, s); err != nil || !may {
		if err == nil {
			err = in.delayed.eachLater(ctx, s, func(string) error { n++; return nil })
		}
		return n, err
	}
	err := in.delayed.laterPaged(ctx, func(e Entry) bool {
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
		err = in.delayed.eachLater(ctx, s, func(string) error { left = true; return errStop })
	} else {
		err = in.delayed.laterPaged(ctx, func(e Entry) bool {
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
		if l.over() {
			return nil
		}
		if left, until = true, l.expires; l.held && expired(until) {
			until = time.Now().Add(lookAtHeld)
		}
		return errStop
	})
	return left, until, notStop(err)
}

func notStop(err error) error {
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
