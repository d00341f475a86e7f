package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// The node layout.SweptNode is written after each sweep of the lanes, with its time. Not every
// service keeps the times of its nodes, but each orders its commits: a lane that was last
// written before this node is older than the time in this node.

// keepLanes is how long a lane is kept that nobody uses, at least: a day, and some
// time in which it was idle before its last put, and that was asked for.
const keepLanes = 24*time.Hour + 2*restLane

// Sweep removes what producers left behind that died, and the tokens that nobody
// forgot, once they are older than a day; until then it does nothing but read one
// node. Queue handles that live for an hour call it by themselves once a day, so it
// is for systems in which no process that puts lives that long.
func Sweep(ctx context.Context, c coord.Coordinator) error {
	s, err := c.Session(ctx)
	if err == nil {
		err = sweep(ctx, s)
	}
	if err != nil && !retry.IsRefused(err) { // another sweeps
		return fmt.Errorf("sweep %s: %w", layout.ProducersDir, err)
	}
	return nil
}

func sweep(ctx context.Context, s coord.Session) error {
	now := layout.SweptValue(time.Now().UnixMilli())
	last, err := s.Get(ctx, layout.SweptNode)
	if errors.Is(err, coord.ErrNotExist) {
		_, err = s.Commit(ctx, coord.Create(layout.SweptNode, now))
		return err
	}
	if err != nil {
		return err
	}
	ms, ok := layout.ParseSwept(last.Value)
	if !ok {
		return fmt.Errorf("%s holds %.40q, which is not of this version: %w", layout.SweptNode, last.Value, coord.ErrFormat)
	}
	age := time.Since(time.UnixMilli(ms))
	if age.Abs() < keepLanes {
		return nil
	}
	if age > 0 { // one from the future was written by a clock that is wrong
		if err := removeLanes(ctx, s, last.Revision); err != nil {
			return err
		}
	}
	_, err = s.Commit(ctx, coord.Set(layout.SweptNode, now, last.Fence))
	return err
}

// removeLanes removes the lanes that were last written before a revision.
func removeLanes(ctx context.Context, s coord.Session, before int64) error {
	for after := ""; ; {
		l, err := s.List(ctx, layout.ProducersDir, coord.ListOptions{After: after, Limit: nodesPage, Values: true})
		if err != nil {
			return err
		}
		for _, n := range l.Nodes {
			after = path.Base(n.Path)
			if n.Revision >= before || !layout.IsLane(after) {
				continue
			}
			if _, err := s.Commit(ctx, coord.Delete(n.Path, n.Fence)); err != nil && !retry.IsRefused(err) {
				return err
			}
		}
		if !l.More {
			return nil
		}
	}
}
