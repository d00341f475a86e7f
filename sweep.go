package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
)

// pathSwept is written by whoever swept the lanes: "1 <unix ms>". Not every service
// keeps the times of its nodes, but each orders its commits: a lane that was last
// written before this node was is older than what this node says.
const pathSwept = "/zkq/swept"

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
		return fmt.Errorf("sweep %s: %w", dirProducers, err)
	}
	return nil
}

func sweep(ctx context.Context, s coord.Session) error {
	now := []byte("1 " + strconv.FormatInt(time.Now().UnixMilli(), 10))
	last, err := s.Get(ctx, pathSwept)
	if errors.Is(err, coord.ErrNotExist) {
		_, err = s.Commit(ctx, coord.Create(pathSwept, now))
		return err
	}
	if err != nil {
		return err
	}
	said, ok := strings.CutPrefix(string(last.Value), "1 ")
	ms, err := strconv.ParseInt(said, 10, 64)
	if !ok || err != nil {
		return fmt.Errorf("%s holds %.40q, which is not of this version: %w", pathSwept, last.Value, coord.ErrFormat)
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
	_, err = s.Commit(ctx, coord.Set(pathSwept, now, last.Fence))
	return err
}

// removeLanes removes the lanes that were last written before a revision.
func removeLanes(ctx context.Context, s coord.Session, before int64) error {
	for after := ""; ; {
		l, err := s.List(ctx, dirProducers, coord.ListOptions{After: after, Limit: nodesPage, Values: true})
		if err != nil {
			return err
		}
		for _, n := range l.Nodes {
			after = path.Base(n.Path)
			if n.Revision >= before || !laneForm.MatchString(after) {
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
