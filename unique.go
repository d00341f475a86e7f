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

// A unique key has a node of its own. The node is named by the key's SHA-256 and holds the
// key. The commit of the put creates it, and the commit that removes the entry deletes it.
// The entry's headers name the key. When a delayed put becomes an entry, or a forward passes
// the key on, the same commit writes the key's node. So the node's last write is always the
// commit that created its owner: the entry or delayed put that has the key.
//
// Headers are bytes, and any client of the service can put any bytes. So a header counts only
// if the commit that created the entry also created, or last wrote, the key's node.

// ExistsError is an [ErrExists]: another entry has the unique key of this put. Nothing was
// put. Name tells the caller which entry to look at, or to remove.
type ExistsError struct {
	Name string // of the entry with the key, as Entries yields it
}

func (e *ExistsError) Error() string { return fmt.Sprintf("%v: %s", ErrExists, e.Name) }

// Is reports that an ExistsError is [ErrExists].
func (e *ExistsError) Is(target error) bool { return target == ErrExists }

// keys reads and removes the nodes of a queue's unique keys. A key is in use exactly as long as
// its owner exists, except where a client that knows no keys has removed the owner.
type keys struct{ *handle.Handle }

// uniquePath returns the path of a key's node. sum is the key's SHA-256 in hexadecimal.
func (k *keys) uniquePath(sum string) string { return path.Join(k.Root, layout.UniqueDir, sum) }

// isOwnerOf reports whether a node that was created at the revision born can be the key's owner.
func isOwnerOf(key coord.Node, born int64) bool { return born == key.Born || born == key.Revision }

// ownKey reads the node of the key that an entry has. h is the entry's headers, born the
// revision that created the entry. Without a key of its own it returns a node without a path.
func (k *keys) ownKey(ctx context.Context, s coord.Session, h layout.Headers, born int64) (coord.Node, error) {
	if h.Unique == "" {
		return coord.Node{}, nil
	}
	key, err := k.keyNode(ctx, s, h.Unique)
	if err != nil || !isOwnerOf(key, born) {
		return coord.Node{}, err
	}
	return key, nil
}

// keyNode reads the node of a key. It returns a node without a path if the key is free.
func (k *keys) keyNode(ctx context.Context, s coord.Session, sum string) (coord.Node, error) {
	n, err := s.Get(ctx, k.uniquePath(sum))
	if errors.Is(err, coord.ErrNotExist) {
		return coord.Node{}, nil
	}
	return n, err
}

// dropKeys returns for each of the nodes the op that deletes its unique key, for the commit that
// removes the node; nil for nodes without a key.
func (k *keys) dropKeys(ctx context.Context, nodes []coord.Node, read readFunc) ([][]coord.Op, error) {
	found, err := k.ownKeys(ctx, nodes, read)
	if err != nil {
		return nil, err
	}
	ops := make([][]coord.Op, len(nodes))
	for i, key := range found {
		if key.Path != "" {
			ops[i] = []coord.Op{coord.Delete(key.Path, key.Fence)}
		}
	}
	return ops, nil
}

// ownKeys is ownKey for several nodes, entries or delayed puts.
func (k *keys) ownKeys(ctx context.Context, nodes []coord.Node, read readFunc) ([]coord.Node, error) {
	found, err := readWhere(ctx, read, nodes, func(_ int, n coord.Node) string {
		if sum := layout.HeadersOf(n.Value).Unique; sum != "" {
			return k.uniquePath(sum)
		}
		return ""
	})
	for i, key := range found {
		if key.Path != "" && !isOwnerOf(key, nodes[i].Born) {
			found[i] = coord.Node{}
		}
	}
	return found, err
}

// findKeyOwner returns the name of the entry or delayed put that has the key, or "" if it finds
// none. It asks only for entries that were created with the key's last write, and for delayed
// puts: an owner that becomes an entry in between is missed.
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

// hasKey reports whether n is the key's owner: its headers name the key, and it was created
// with a write of the key's node.
func (k *keys) hasKey(n, key coord.Node) bool {
	return layout.HeadersOf(n.Value).Unique == path.Base(key.Path) && isOwnerOf(key, n.Born)
}

// findInDir returns the name of the node in a directory that has the key, or "". It reads the
// whole directory, a page at a time.
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

// removeOrphan removes the node n of a key that has no owner. If it finds an owner after all,
// it keeps the key and returns the owner's name.
//
// It writes the node before it looks. That moves the fence: a slower process that removes the
// same orphan is refused, and cannot remove the node of a later put. The write also breaks the
// link between the key and the commit that last wrote it. So the search compares with n, as it
// was read before, and goes through all delayed puts and entries.
func (k *keys) removeOrphan(ctx context.Context, s coord.Session, n coord.Node) (name string, err error) {
	rs, err := s.Commit(ctx, coord.Set(n.Path, n.Value, n.Fence))
	if err != nil {
		return "", err
	}
	for _, dir := range []string{layout.DelayedDir, layout.EntriesDir} { // in this order: a delayed put becomes an entry
		if name, err = k.findInDir(ctx, s, dir, n); err != nil || name != "" {
			return name, err
		}
	}
	_, err = s.Commit(ctx, coord.Delete(n.Path, rs[0].Fence))
	return "", err
}
