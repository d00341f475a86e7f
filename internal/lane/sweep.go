package lane

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/bulk"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Sweep removes the lanes of producers that died, and the tokens that were never
// forgotten, once they are older than a day. Until then it reads one node.
//
// It writes the node layout.SweptNode with its time. Not every service keeps the times of
// its nodes, but each orders its commits: a lane that was last written before that node is
// older than the time in it.
func Sweep(ctx context.Context, c coord.Coordinator) error {
	session, err := c.Session(ctx)
	if err == nil {
		err = sweep(ctx, session)
	}
	if err != nil && !retry.IsRefused(err) { // another process sweeps
		return fmt.Errorf("sweep %s: %w", layout.ProducersDir, err)
	}
	return nil
}

// sweep is Sweep in one session. It returns a refusal if another process sweeps.
func sweep(ctx context.Context, session coord.Session) error {
	now := layout.SweptValue(time.Now().UnixMilli())
	last, err := session.Get(ctx, layout.SweptNode)
	if errors.Is(err, coord.ErrNotExist) {
		_, err = session.Commit(ctx, coord.Create(layout.SweptNode, now))
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
	if age.Abs() < keep {
		return nil
	}
	if age > 0 { // a time in the future was written by a clock that is wrong
		if err := removeLanes(ctx, session, last.Revision); err != nil {
			return err
		}
	}
	_, err = session.Commit(ctx, coord.Set(layout.SweptNode, now, last.Fence))
	return err
}

// removeLanes removes the lanes that were last written before a revision.
func removeLanes(ctx context.Context, session coord.Session, before int64) error {
	for page, err := range handle.Pages(ctx, session, layout.ProducersDir, coord.ListOptions{Limit: handle.NodesPage, Values: true}) {
		if err != nil {
			return err
		}
		var old []coord.Node
		for _, n := range page {
			if n.Revision < before && layout.IsLane(path.Base(n.Path)) {
				old = append(old, n)
			}
		}
		if err := bulk.Delete(ctx, session, old); err != nil {
			return err
		}
	}
	return nil
}
