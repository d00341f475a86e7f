package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/priority"
)

// The longest queue name and the longest segment of one, in bytes.
const (
	MaxName    = layout.MaxName
	MaxSegment = layout.MaxSegment
)

// CheckName returns the canonical form of a queue's name, with one leading slash. It sends no
// request. For a name that no queue can have it returns an [ErrInvalidName] that says what is
// wrong. Every method of a queue handle returns that error too.
//
// A name is segments joined by single slashes; one leading slash is optional.
//   - The name has at most [MaxName] bytes, and each segment at most [MaxSegment].
//   - No segment is empty, ".", "..", "entries" or "taken", or begins with "entry-".
//   - The first segment is neither "zkq" nor "zookeeper".
//   - The last segment is none of the names that zkq keeps beside the entries: delayed,
//     dead, broken, attempts, workers, retained, unique, config and count. These may be
//     earlier segments, if the next one is not a name that zkq gives to nodes there.
//   - There are no control characters, and no characters beyond U+FFFF, such as emoji.
//
// A name below the config or count of another queue is accepted, but puts there fail if that
// queue has bounds.
func CheckName(name string) (string, error) {
	bad := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("queue name %q: %s: %w", name, fmt.Sprintf(format, args...), ErrInvalidName)
	}
	canonical := "/" + strings.TrimPrefix(name, "/")
	switch {
	case canonical == "/":
		return bad("is empty")
	case len(canonical) > MaxName:
		return bad("%d bytes, the limit is %d", len(canonical), MaxName)
	}
	if i := coord.BadByte(name); i >= 0 {
		if r, size := utf8.DecodeRuneInString(name[i:]); r == utf8.RuneError && size == 1 {
			return bad("byte %d is not UTF-8", i)
		} else if r > 0xffff {
			return bad("character %q at byte %d is beyond U+FFFF, and ZooKeeper takes none of those", r, i)
		}
		return bad("byte %d is not of a printable character", i)
	}
	if err := layout.CheckSegments(name); err != nil {
		return bad("%v", err)
	}
	return canonical, nil
}

// checkEntryName returns [ErrInvalidName] for a name that no entry can have. Delayed puts and
// dead entries have names of other forms, which it refuses too.
func checkEntryName(name string) error {
	if _, ok := priority.Parse(name); !ok {
		return fmt.Errorf("entry name %q: entries are called entry-PPP-…, as put and ls print them: %w", name, ErrInvalidName)
	}
	return nil
}

// Layout tells which of kazoo's two kinds of queues is at a path.
type Layout string

// The layouts of queues.
const (
	LayoutLocking Layout = "locking" // kazoo's LockingQueue: [LockingQueue]
	LayoutPlain   Layout = "plain"   // kazoo's Queue: [Queue]
)

// FindLayout returns which of kazoo's two kinds of queues is at the name, or "" if it finds
// none. Another process may create or remove the queue right after. An empty directory is a
// plain queue: kazoo's Queue leaves one, while a locking queue keeps its "entries". etcd has no
// directories, so there a plain queue without entries is not found.
//
// FindLayout blocks until the service answers or ctx ends. A name that [CheckName] refuses is
// [ErrInvalidName].
func FindLayout(ctx context.Context, c coord.Coordinator, name string) (Layout, error) {
	root, err := CheckName(name)
	if err != nil {
		return "", err
	}
	if ctx == nil {
		return "", fmt.Errorf("find the layout of %s: nil context: %w", root, ErrInvalid)
	}
	var found Layout
	err = retry.AcrossSessions(func() error {
		s, err := c.Session(ctx)
		if err != nil {
			return err
		}
		if found, err = findLayout(ctx, s, root); err != nil {
			return fmt.Errorf("find the layout of %s: %w", root, err)
		}
		return nil
	})
	return found, err
}

// findLayout is [FindLayout] in one session. It costs up to four requests, each for one node.
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
