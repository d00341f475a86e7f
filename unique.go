package zkq

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"

	"github.com/zkq/zkq/coord"
)

// A unique key is a node beside the entries, named by its SHA-256 and holding the key. It
// comes in the commit of the put, and goes in the commit that removes the entry: the
// entry's headers say which it is. When a delayed put becomes an entry the node is written,
// so that its last commit is always the one that created what stands for the key.

const dirUnique = "unique"

// ExistsError is an [ErrExists]: a unique key stands for another entry.
type ExistsError struct {
	Name string // of that entry, as Entries calls it
}

func (e *ExistsError) Error() string { return fmt.Sprintf("%v: %s", ErrExists, e.Name) }

// Is reports that an ExistsError is [ErrExists].
func (e *ExistsError) Is(target error) bool { return target == ErrExists }

// keySum names a key.
func keySum(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

func (p *place) uniquePath(sum string) string { return path.Join(p.root, dirUnique, sum) }

// keyNode reads the node of an entry's key: no path where there is none.
func (p *place) keyNode(ctx context.Context, s coord.Session, sum string) (coord.Node, error) {
	if len(sum) != 2*sha256.Size {
		return coord.Node{}, nil
	}
	n, err := s.Get(ctx, p.uniquePath(sum))
	if errors.Is(err, coord.ErrNotExist) {
		return coord.Node{}, nil
	}
	return n, err
}

// dropKey are the ops that go with the removal of what stands for a key.
func (p *place) dropKey(ctx context.Context, s coord.Session, value []byte) ([]coord.Op, error) {
	n, err := p.keyNode(ctx, s, headersOf(value).Unique)
	if err != nil || n.Path == "" {
		return nil, err
	}
	return []coord.Op{coord.Delete(n.Path, n.Fence)}, nil
}

// refusedKey says what a put met that found its key in use: an [*ExistsError], or nil when
// it is free now.
func (p *place) refusedKey(ctx context.Context, key string) error {
	sum := path.Base(key)
	return p.do(ctx, func(ctx context.Context, s coord.Session) error {
		for pause := newPause(); ; {
			n, err := p.keyNode(ctx, s, sum)
			if err != nil || n.Path == "" {
				return err
			}
			name, err := p.bornWith(ctx, s, sum, n.Revision)
			if err == nil && name != "" {
				return &ExistsError{name}
			}
			var now coord.Node
			if err == nil {
				now, err = p.keyNode(ctx, s, sum)
			}
			if err == nil && now.Revision == n.Revision && now.Path != "" {
				// The entry went without its key: kazoo knows nothing of it.
				err = p.orphaned(ctx, s, sum, now)
			}
			if exists := (*ExistsError)(nil); errors.As(err, &exists) {
				return err
			}
			if err != nil && !refused(err) && !errors.Is(err, coord.ErrUnknown) && !errors.Is(err, coord.ErrBusy) {
				return err
			}
			if err := pause.wait(ctx, s.Done()); err != nil {
				return err
			}
		}
	})
}

// bornWith is the entry, or the delayed put, that came with its key in the commit of a
// revision.
func (p *place) bornWith(ctx context.Context, s coord.Session, sum string, revision int64) (string, error) {
	l, err := s.List(ctx, p.entries, coord.ListOptions{Born: revision, Values: true})
	if err != nil {
		return "", err
	}
	for _, n := range l.Nodes {
		if headersOf(n.Value).Unique == sum {
			return path.Base(n.Path), nil
		}
	}
	return p.standing(ctx, s, dirDelayed, sum)
}

// standing looks through a whole directory for what has the key.
func (p *place) standing(ctx context.Context, s coord.Session, dir, sum string) (string, error) {
	for after := ""; ; {
		l, err := s.List(ctx, path.Join(p.root, dir), coord.ListOptions{After: after, Limit: nodesPage, Values: true, Fresh: after == ""})
		if err != nil {
			return "", err
		}
		for _, n := range l.Nodes {
			after = path.Base(n.Path)
			if headersOf(n.Value).Unique == sum {
				return after, nil
			}
		}
		if !l.More {
			return "", nil
		}
	}
}

// orphaned removes a key that stands for nothing. It is written first: so somebody else who
// would do the same, and is slow, removes no key that was put in its place. That write
// parts the key from the commit of its entry, if it has one after all, so that is looked
// for once more, among all there is.
func (p *place) orphaned(ctx context.Context, s coord.Session, sum string, n coord.Node) error {
	rs, err := s.Commit(ctx, coord.Set(n.Path, n.Value, n.Fence))
	if err != nil {
		return err
	}
	for _, dir := range []string{dirDelayed, dirEntries} { // the way in which it moves
		name, err := p.standing(ctx, s, dir, sum)
		if err != nil {
			return err
		}
		if name != "" {
			return &ExistsError{name}
		}
	}
	_, err = s.Commit(ctx, coord.Delete(n.Path, rs[0].Fence))
	return err
}
