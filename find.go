package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/priority"
)

// Layout is which of kazoo's two queues a path holds.
type Layout string

// The layouts of queues.
const (
	LayoutLocking Layout = "locking" // a LockingQueue
	LayoutPlain   Layout = "plain"   // a Queue
)

// FindLayout returns which of kazoo's two queues is at the name, or "" if there is none. An
// empty directory is a plain queue: kazoo's Queue leaves one, while a locking queue keeps
// its "entries". etcd has no directories: there, a plain queue without entries leaves no
// sign.
func FindLayout(ctx context.Context, c coord.Coordinator, name string) (Layout, error) {
	root, err := CheckName(name)
	if err != nil {
		return "", err
	}
	if ctx == nil {
		return "", fmt.Errorf("find the layout of %s: nil context: %w", root, ErrInvalid)
	}
	for {
		s, err := c.Session(ctx)
		if err != nil {
			return "", err
		}
		l, err := findLayout(ctx, s, root)
		switch {
		case retry.NothingSent(err):
			continue // a new session
		case err != nil:
			return "", fmt.Errorf("find the layout of %s: %w", root, err)
		}
		return l, nil
	}
}

func findLayout(ctx context.Context, s coord.Session, root string) (Layout, error) {
	// Each listing begins just before the name that it is for.
	for _, look := range []struct {
		after string
		is    func(name string) bool
		found Layout
	}{
		{layout.BeforeEntries, layout.ShowsLocking, LayoutLocking},
		{priority.EntryPrefix, layout.ShowsPlain, LayoutPlain},
	} {
		l, err := s.List(ctx, root, coord.ListOptions{After: look.after, Limit: 1, Fresh: true})
		if err != nil {
			return "", err
		}
		if len(l.Nodes) > 0 && look.is(path.Base(l.Nodes[0].Path)) {
			return look.found, nil
		}
	}
	l, err := s.List(ctx, root, coord.ListOptions{Limit: 1})
	if err != nil || len(l.Nodes) > 0 {
		return "", err
	}
	_, err = s.Get(ctx, root)
	switch {
	case errors.Is(err, coord.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	}
	return LayoutPlain, nil
}
