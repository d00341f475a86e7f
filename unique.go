package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
)

// A unique key is a node beside the entries, named by its SHA-256 and holding the key. It
// comes in the commit of the put, and goes in the commit that removes the entry: the
// entry's headers say which it is. When a delayed put becomes an entry, or an entry hands
// its key on, the node is written, so that its last commit is always the one that created
// what stands for the key.
//
// Headers are bytes, and any client of the service can put any bytes. So a header counts
// only if the key's node came, or was last written, in the commit that created the entry:
// nobody else's commits do that.

// ExistsError is an [ErrExists]: a unique key stands for another entry.
type ExistsError struct {
	Name string // of that entry, as Entries calls it
}

func (e *ExistsError) Error() string { return fmt.Sprintf("%v: %s", ErrExists, e.Name) }

// Is reports that an ExistsError is [ErrExists].
func (e *ExistsError) Is(target error) bool { return target == ErrExists }

// keys works on the nodes of unique keys. A key's node is created in the commit of the put and
// deleted in the commit that removes the entry, so a key is in use exactly as long as its
// entry is there. A header names a key; it counts only where the key's node was created, or
// last written, in the commit that created the entry.
type keys struct{ *handle.Handle }

func (k *keys) uniquePath(sum string) string { return path.Join(k.Root, layout.UniqueDir, sum) }

// standsFor says whether what was created in the commit born stands for the key.
func standsFor(key coord.Node, born int64) bool { return born == key.Born || born == key.Revision }

// ownKey reads the node of the key that an entry stands for, by its headers and the commit
// that created it: no path where it stands for none.
func (k *keys) ownKey(ctx context.Context, s coord.Session, h layout.Headers, born int64) (coord.Node, error) {
	if h.Unique == "" {
		return coord.Node{}, nil
	}
	key, err := k.keyNode(ctx, s, h.Unique)
	if err != nil || !standsFor(key, born) {
		return coord.Node{}, err
	}
	return key, nil
}

// keyNode reads the node of a key: no path where there is none.
func (k *keys) keyNode(ctx context.Context, s coord.Session, sum string) (coord.Node, error) {
	n, err := s.Get(ctx, k.uniquePath(sum))
	if errors.Is(err, coord.ErrNotExist) {
		return coord.Node{}, nil
	}
	return n, err
}

// dropKey are the ops that go with the removal of n, which may stand for a key.
func (k *keys) dropKey(ctx context.Context, s coord.Session, n coord.Node) ([]coord.Op, error) {
	key, err := k.ownKey(ctx, s, layout.HeadersOf(n.Value), n.Born)
	if err != nil || key.Path == "" {
		return nil, err
	}
	return []coord.Op{coord.Delete(key.Path, key.Fence)}, nil
}

// bornWith is the entry, or the delayed put, that came in the commit that last wrote its
// key.
func (k *keys) findKeyOwner(ctx context.Context, s coord.Session, key coord.Node) (string, error) {
	l, err := s.List(ctx, k.Entries, coord.ListOptions{Born: key.Revision, Values: true})
	if err != nil {
		return "", err
	}
	for _, n := range l.Nodes {
		if k.hasKey(n, key) {
			return path.Base(n.Path), nil
		}
	}
	return k.findInDir(ctx, s, layout.DelayedDir, key)
}

// hasKey says whether a node stands for the key, by what it says and by when it came.
func (k *keys) hasKey(n, key coord.Node) bool {
	return layout.HeadersOf(n.Value).Unique == path.Base(key.Path) && standsFor(key, n.Born)
}

// standing looks through a whole directory for what has the key.
func (k *keys) findInDir(ctx context.Context, s coord.Session, dir string, key coord.Node) (string, error) {
	for page, err := range handle.Pages(ctx, s, path.Join(k.Root, dir), coord.ListOptions{Limit: handle.NodesPage, Values: true, Fresh: true}) {
		if err != nil {
			return "", err
		}
		for _, n := range page {
			if k.hasKey(n, key) {
				return path.Base(n.Path), nil
			}
		}
	}
	return "", nil
}

// orphaned removes a key that stands for nothing. It is written first: so somebody else who
// would do the same, and is slow, removes no key that was put in its place. That write
// parts the key from the commit of its entry, if it has one after all, so that is looked
// for once more, among all there is. It returns the name of that, if there is one.
func (k *keys) removeOrphan(ctx context.Context, s coord.Session, n coord.Node) (name string, err error) {
	rs, err := s.Commit(ctx, coord.Set(n.Path, n.Value, n.Fence))
	if err != nil {
		return "", err
	}
	for _, dir := range []string{layout.DelayedDir, layout.EntriesDir} { // the way in which it moves
		if name, err = k.findInDir(ctx, s, dir, n); err != nil || name != "" {
			return name, err
		}
	}
	_, err = s.Commit(ctx, coord.Delete(n.Path, rs[0].Fence))
	return "", err
}
