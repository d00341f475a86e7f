package zkq

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/lane"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// An entry that is put aside stays where it is, under a persistent lock that says when
// it is due. Beside the entries stands an index of these, in the order in which they
// fall due: <due ms, 13 digits>-<entry name>, without data. Lock and index come in one
// commit, and go in one.

// delayedPuts are the puts with a delay, and the index of the entries that were put aside.
//
// A delayed put is a node beside the entries: <due ms, 13 digits>-put-PPP-<16 hex>, with the
// entry's bytes. When it is due, one commit deletes the node and creates the entry, with a
// name of its own, behind those of its priority that are there. It has no entry name before:
// entry names sort in the order of the puts, and none is given twice.
type delayedPuts struct {
	*handle.Handle
	keys  *keys
	lanes lanes
}

// dueIn is when something is due that is to wait for d: a whole millisecond, and not
// before d is over.
func dueIn(d time.Duration) (time.Time, error) {
	due := time.Now().Round(0).Add(d + time.Millisecond - 1).Truncate(time.Millisecond)
	if ms := due.UnixMilli(); d < 0 || ms > layout.LastMillis || ms < 0 {
		return due, fmt.Errorf("a delay of %v: it must end before the year 2286: %w", d, ErrInvalid)
	}
	return due, nil
}

// indexOps are the ops that go with the removal of a lock that puts an entry aside.
func (dp *delayedPuts) indexOps(ctx context.Context, s coord.Session, lk coord.Node) ([]coord.Op, error) {
	st := lock.Read(lk)
	if st.Kind != lock.Aside {
		return nil, nil
	}
	n, err := s.Get(ctx, path.Join(dp.Root, layout.DelayedDir, layout.DelayedName(st.Due, path.Base(lk.Path))))
	switch {
	case errors.Is(err, coord.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return []coord.Op{coord.Delete(n.Path, n.Fence)}, nil
}

// errLeftAlone says that an index stands for nothing now, and is left alone for a while.
var errLeftAlone = errors.New("index of nothing")

// makeReady makes ready what is due: errUnavailable if another has, errLeftAlone if it is left alone.
func (dp *delayedPuts) makeReady(ctx context.Context, s coord.Session, name string, d layout.Delayed) error {
	if d.IsPut() {
		return dp.materialize(ctx, s, name, d)
	}
	index, err := s.Get(ctx, path.Join(dp.Root, layout.DelayedDir, name))
	if err != nil {
		return asUnavailable(err)
	}
	lk, err := s.Get(ctx, path.Join(dp.Taken, d.Entry))
	if err != nil && !errors.Is(err, coord.ErrNotExist) {
		return err
	}
	ops := []coord.Op{coord.Delete(index.Path, index.Fence)}
	if st := lock.Read(lk); err == nil && st.Kind == lock.Aside && st.Due.Equal(d.Due) {
		ops = append(ops, coord.Delete(lk.Path, lk.Fence))
	} else if time.Since(d.Due) < keepOrphanIndex {
		return errLeftAlone // it is on its way out, or another client removed the lock by hand
	}
	_, err = s.Commit(ctx, ops...)
	return asUnavailable(err)
}

// keepOrphanIndex is how long an index of nothing is left alone. Its name might be given
// again by somebody whose clock is behind.
const keepOrphanIndex = time.Minute

// asUnavailable makes errUnavailable of what says that somebody was faster.
func asUnavailable(err error) error {
	if retry.IsRefused(err) || errors.Is(err, coord.ErrNotExist) {
		return errUnavailable
	}
	return err
}

// createOp is the op of the i-th value of a delayed put. id tells the puts apart.
func (dp *delayedPuts) createOp(o putOptions, due time.Time, id [6]byte, i int, value []byte) coord.Op {
	name := layout.DelayedPut(o.priority, id, i)
	return coord.Create(path.Join(dp.Root, layout.DelayedDir, layout.DelayedName(due, name)), value)
}

// putID names a delayed put: that of a token is the same in whatever process it is made
// again.
func (dp *delayedPuts) putID(t *Token) (id [6]byte) {
	text := dp.lanes.ID()
	if t != nil {
		text = string(*t)
	}
	sum := sha256.Sum256([]byte("delayed put " + text))
	copy(id[:], sum[:])
	return id
}

// namesOfToken are those of a delayed put that was made before with the token: nothing where
// it is not there any more.
func (dp *delayedPuts) namesOfToken(ctx context.Context, ops []coord.Op) []string {
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

// materialize makes a delayed put an entry when it is due, or nothing if it has expired, if nobody else has: errUnavailable then.
func (dp *delayedPuts) materialize(ctx context.Context, s coord.Session, name string, d layout.Delayed) error {
	n, err := s.Get(ctx, path.Join(dp.Root, layout.DelayedDir, name))
	if err != nil {
		return asUnavailable(err)
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
	return asUnavailable(err)
}

// delayedEntry is the entry in the node of a delayed put.
func delayedEntry(n coord.Node) (Entry, bool) {
	d, ok := layout.ParseDelayed(path.Base(n.Path))
	if !ok || !d.IsPut() {
		return Entry{}, false
	}
	e := newEntry(path.Base(n.Path), priority.Name{Priority: d.Priority}, n)
	e.State, e.Due, e.Deliveries = StateDelayed, d.Due, 0
	return e, true
}

// walk walks the delayed puts, the first to fall due first.
func (dp *delayedPuts) walk(ctx context.Context, f func(Entry) bool) error {
	if dp.Taken == "" {
		return nil
	}
	after := ""
	return dp.Do(ctx, func(ctx context.Context, s coord.Session) error {
		for {
			l, err := s.List(ctx, path.Join(dp.Root, layout.DelayedDir), coord.ListOptions{After: after, Limit: handle.NodesPage, Values: true, Fresh: after == ""})
			if err != nil {
				return err
			}
			for _, n := range l.Nodes {
				after = path.Base(n.Path)
				if e, ok := delayedEntry(n); ok && !f(e) {
					return errStop
				}
			}
			if !l.More {
				return nil
			}
		}
	})
}

// walkNames calls f with the names of the delayed puts.
func (dp *delayedPuts) walkNames(ctx context.Context, s coord.Session, f func(name string) error) error {
	if dp.Taken == "" {
		return nil
	}
	for page, err := range handle.Pages(ctx, s, path.Join(dp.Root, layout.DelayedDir), coord.ListOptions{Limit: handle.NamesPage, Fresh: true}) {
		if err != nil {
			return err
		}
		for _, n := range page {
			name := path.Base(n.Path)
			d, ok := layout.ParseDelayed(name)
			if !ok {
				dp.WarnOnce(n.Path, "is not a delayed entry of zkq: skipped")
			}
			if !ok || !d.IsPut() {
				continue
			}
			if err := f(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// isDelayedPut says whether a name is one of a delayed put.
func (dp *delayedPuts) isDelayedPut(name string) bool {
	d, ok := layout.ParseDelayed(name)
	return ok && d.IsPut() && dp.Taken != ""
}

// get is a delayed put of that name.
func (dp *delayedPuts) get(ctx context.Context, name string) (e Entry, err error) {
	err = dp.Do(ctx, func(ctx context.Context, s coord.Session) error {
		n, err := s.Get(ctx, path.Join(dp.Root, layout.DelayedDir, name))
		if errors.Is(err, coord.ErrNotExist) {
			return fmt.Errorf("%s: %w", name, ErrNoEntry)
		}
		e, _ = delayedEntry(n)
		return err
	})
	return e, err
}
