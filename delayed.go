package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/lock"
)

// An entry that is put aside stays where it is, under a persistent lock that says when
// it is due. Beside the entries stands an index of these, in the order in which they
// fall due: <due ms, 13 digits>-<entry name>, without data. Lock and index come in one
// commit, and go in one.

// delayedPuts are the puts for later, and the index of what is put aside.
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

// delayedIndex are the ops that go with the removal of a lock that puts an entry aside.
func (dp *delayedPuts) delayedIndex(ctx context.Context, s coord.Session, lk coord.Node) ([]coord.Op, error) {
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

// errStays says that an index stands for nothing now, and is left alone for a while.
var errStays = errors.New("index of nothing")

// wake makes ready what is due: errUnavailable if another has, errStays if it is left alone.
func (dp *delayedPuts) wake(ctx context.Context, s coord.Session, name string, d layout.Delayed) error {
	if d.IsPut() {
		return dp.becomes(ctx, s, name, d)
	}
	index, err := s.Get(ctx, path.Join(dp.Root, layout.DelayedDir, name))
	if err != nil {
		return gone(err)
	}
	lk, err := s.Get(ctx, path.Join(dp.Taken, d.Entry))
	if err != nil && !errors.Is(err, coord.ErrNotExist) {
		return err
	}
	ops := []coord.Op{coord.Delete(index.Path, index.Fence)}
	if st := lock.Read(lk); err == nil && st.Kind == lock.Aside && st.Due.Equal(d.Due) {
		ops = append(ops, coord.Delete(lk.Path, lk.Fence))
	} else if time.Since(d.Due) < keepIndex {
		return errStays // it is on its way out, or another client removed the lock by hand
	}
	_, err = s.Commit(ctx, ops...)
	return gone(err)
}

// keepIndex is how long an index of nothing is left alone. Its name might be given
// again by somebody whose clock is behind.
const keepIndex = time.Minute

// gone makes errUnavailable of what says that somebody was faster.
func gone(err error) error {
	if retry.IsRefused(err) || errors.Is(err, coord.ErrNotExist) {
		return errUnavailable
	}
	return err
}
