package zkq

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/bulk"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// Two kinds of delay share the directory layout.DelayedDir, in which nodes sort by the time
// at which they are due:
//
//   - A delayed put is not an entry yet. Its node is <due ms, 13 digits>-put-PPP-<16 hex>,
//     with the entry's bytes. When it is due, one commit deletes the node and creates the
//     entry, behind those of its priority that are there. It gets its entry name only then:
//     entry names sort in the order of the puts, and none is given twice.
//   - A resting entry was given back with a delay. It stays in its place, under a persistent
//     lock that says when it is due. Its index node is <due ms, 13 digits>-<entry name>,
//     without data. One commit creates lock and index, and one commit deletes both.
//
// The mover (mover.go) makes both ready when they are due.

// delayedPuts works on the delayed puts of a queue, and on the index of its resting entries.
// Several processes may move the same due entry: each commits at the fences that it read, so
// one of them succeeds.
type delayedPuts struct {
	*handle.Handle
	keys  *keys
	lanes lanes
}

// dueIn returns the time at which a delay of d ends: rounded up to a millisecond, so never
// too early. The error is [ErrInvalid] for a negative delay or one beyond the year 2286.
func dueIn(d time.Duration) (time.Time, error) {
	due := time.Now().Round(0).Add(d + time.Millisecond - 1).Truncate(time.Millisecond)
	if ms := due.UnixMilli(); d < 0 || ms > layout.LastMillis || ms < 0 {
		return due, fmt.Errorf("a delay of %v: it must end before the year 2286: %w", d, ErrInvalid)
	}
	return due, nil
}

// errLeftAlone says that an index node has no resting entry, and is kept for a while.
var errLeftAlone = errors.New("index of nothing")

// makeReady makes a due entry ready: name is its node in layout.DelayedDir. The error is
// errUnavailable if another process was faster, and errLeftAlone if the node is the index of
// no resting entry and is too young to be removed.
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
	if isRestOf(lk, d) {
		ops = append(ops, coord.Delete(lk.Path, lk.Fence))
	} else if time.Since(d.Due) < keepOrphanIndex {
		return errLeftAlone // another process is removing it, or another client removed the lock by hand
	}
	_, err = s.Commit(ctx, ops...)
	return asUnavailable(err)
}

// dueEntry is a node of the index whose time has come.
type dueEntry struct {
	name string
	layout.Delayed
}

// makeAllReady is makeReady for several due entries, with few commits, and returns the error of
// each. An entry that another process has changed since it was read is tried again by itself.
func (dp *delayedPuts) makeAllReady(ctx context.Context, s coord.Session, due []dueEntry) []error {
	errs := make([]error, len(due))
	changes, of, err := dp.changesOf(ctx, s, due)
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	for i := range errs {
		errs[i] = errUnavailable
	}
	for i, o := range bulk.Commit(ctx, s.Limits(), bulk.Size, changes, s.Commit) {
		errs[of[i]] = asUnavailable(o.Err)
	}
	for i, d := range due {
		if errors.Is(errs[i], errUnavailable) {
			errs[i] = dp.makeReady(ctx, s, d.name, d.Delayed)
		}
	}
	return errs
}

// changesOf returns the ops that make due entries ready, as they are read now, and which of the
// entries each change is of. It leaves out those that seem to be gone, or to have no lock.
func (dp *delayedPuts) changesOf(ctx context.Context, s coord.Session, due []dueEntry) (changes [][]coord.Op, of []int, err error) {
	nodes, err := readWhere(ctx, s.Read, due, func(_ int, d dueEntry) string { return path.Join(dp.Root, layout.DelayedDir, d.name) })
	if err != nil {
		return nil, nil, err
	}
	keys, err := dp.keys.ownKeys(ctx, nodes, s.Read)
	if err != nil {
		return nil, nil, err
	}
	locks, err := readWhere(ctx, s.Read, due, func(_ int, d dueEntry) string {
		if d.IsPut() {
			return ""
		}
		return path.Join(dp.Taken, d.Entry)
	})
	if err != nil {
		return nil, nil, err
	}
	for i, d := range due {
		var ops []coord.Op
		switch n := nodes[i]; {
		case !isReadable(n):
		case d.IsPut():
			ops = dp.materialOps(n, keys[i], d.Delayed)
		case isRestOf(locks[i], d.Delayed):
			ops = []coord.Op{coord.Delete(n.Path, n.Fence), coord.Delete(locks[i].Path, locks[i].Fence)}
		}
		if ops != nil {
			changes, of = append(changes, ops), append(of, i)
		}
	}
	return changes, of, nil
}

// isRestOf reports whether a lock is the one that an index node was created with. An entry that was
// given back again since has a lock with another due time, and another index node.
func isRestOf(lk coord.Node, d layout.Delayed) bool {
	st := lock.Read(lk)
	return lk.Path != "" && st.Kind == lock.Resting && st.Due.Equal(d.Due)
}

// keepOrphanIndex is how long an index node without a resting entry is kept after it was due.
// A process whose clock is behind may create a node of the same name until then.
const keepOrphanIndex = time.Minute

// asUnavailable returns errUnavailable for an error that says that another process was faster,
// and other errors unchanged.
func asUnavailable(err error) error {
	if retry.IsRefused(err) || errors.Is(err, coord.ErrNotExist) {
		return errUnavailable
	}
	return err
}

// createOp returns the op that creates the node for the i-th value of a delayed put. id is the
// put's putID.
func (dp *delayedPuts) createOp(o putOptions, due time.Time, id [6]byte, i int, value []byte) coord.Op {
	name := layout.DelayedPut(o.priority, id, i)
	return coord.Create(path.Join(dp.Root, layout.DelayedDir, layout.DelayedName(due, name)), value)
}

// putID returns what the names of a delayed put's nodes are made of. With a token it is the
// same in every process that makes the put again, so the put's names stay the same.
func (dp *delayedPuts) putID(t *Token) (id [6]byte) {
	text := dp.lanes.ID()
	if t != nil {
		text = string(*t)
	}
	sum := sha256.Sum256([]byte("delayed put " + text))
	copy(id[:], sum[:])
	return id
}

// namesOfToken returns the nodes' names of a delayed put that was made before with the same
// token. ops are those of the put made again, whose due time differs: names are compared
// without it. It returns nil if some of the nodes do not exist any more, or if they cannot be listed.
func (dp *delayedPuts) namesOfToken(ctx context.Context, ops []coord.Op) []string {
	l, err := dp.ListPatiently(ctx, actPut, path.Join(dp.Root, layout.DelayedDir), coord.ListOptions{Fresh: true})
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(ops))
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

// materialize turns a due delayed put into an entry, in one commit that also moves its unique
// key over. If the put has expired, it removes node and key and creates no entry. The error is
// errUnavailable if another process was faster.
func (dp *delayedPuts) materialize(ctx context.Context, s coord.Session, name string, d layout.Delayed) error {
	n, err := s.Get(ctx, path.Join(dp.Root, layout.DelayedDir, name))
	if err != nil {
		return asUnavailable(err)
	}
	key, err := dp.keys.ownKey(ctx, s, layout.HeadersOf(n.Value), n.Born)
	if err != nil {
		return err
	}
	_, err = s.Commit(ctx, dp.materialOps(n, key, d)...)
	return asUnavailable(err)
}

// materialOps returns the ops that turn a delayed put, as it was read, into an entry, or remove it
// if it has expired. key is the node of its unique key, without a path if it has none.
func (dp *delayedPuts) materialOps(n, key coord.Node, d layout.Delayed) []coord.Op {
	ops := []coord.Op{coord.Delete(n.Path, n.Fence)}
	hasExpired := hasExpired(n)
	switch {
	case key.Path == "":
	case hasExpired: // the key is free again
		ops = append(ops, coord.Delete(key.Path, key.Fence))
	default: // a key counts if it was last written in the entry's own commit
		ops = append(ops, coord.Set(key.Path, key.Value, key.Fence))
	}
	if !hasExpired {
		ops = append(ops, coord.CreateSequential(path.Join(dp.Entries, priority.Prefix(d.Priority)), n.Value))
	}
	return ops
}

// delayedEntry returns the entry in the node of a delayed put, or false for another node.
func delayedEntry(n coord.Node) (Entry, bool) {
	d, ok := layout.ParseDelayed(path.Base(n.Path))
	if !ok || !d.IsPut() {
		return Entry{}, false
	}
	e := newEntry(path.Base(n.Path), priority.Name{Priority: d.Priority}, n)
	e.State, e.Due, e.Deliveries = StateDelayed, d.Due, 0
	return e, true
}

// walk calls f with the delayed puts, in the order in which they are due, until f returns
// false: then it returns errStop. If the session is lost, it goes on in the next one behind
// the last put. A plain queue has none.
func (dp *delayedPuts) walk(ctx context.Context, f func(Entry) bool) error {
	if dp.Taken == "" {
		return nil
	}
	after := ""
	return dp.Do(ctx, func(ctx context.Context, s coord.Session) error {
		o := coord.ListOptions{After: after, Limit: handle.NodesPage, Values: true, Fresh: after == ""}
		for page, err := range handle.Pages(ctx, s, path.Join(dp.Root, layout.DelayedDir), o) {
			if err != nil {
				return err
			}
			for _, n := range page {
				after = path.Base(n.Path)
				if e, ok := delayedEntry(n); ok && !f(e) {
					return errStop
				}
			}
		}
		return nil
	})
}

// walkNames calls f with the names of the delayed puts, in the order in which they are due,
// until f returns an error, which it returns. It warns once about each node that is neither a
// delayed put nor an index node.
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

// isDelayedPut reports whether name is that of a delayed put's node.
func (dp *delayedPuts) isDelayedPut(name string) bool {
	d, ok := layout.ParseDelayed(name)
	return ok && d.IsPut() && dp.Taken != ""
}

// get returns the delayed put of that name with its value, or [ErrNoEntry].
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
