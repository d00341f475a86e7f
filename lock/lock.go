// Package lock keeps ephemeral lock nodes: acquire one, hold it, notice that it is
// lost, release it.
//
// A lock is a node in a directory of locks, named after the thing it locks. It
// belongs to a session of package coord and ends with it. A lock alone does not exclude
// another holder for certain: the service may end a session before its holder learns
// of that. So acquiring and releasing are ops, to be committed together with a condition
// on the locked thing itself:
//
//	rs, err := s.Commit(ctx, coord.Touch(entry, value, fence), lock.AcquireOp(dir, name, holder))
//	...
//	l := lock.Acquired(s, rs[1], holder)
//	_, err = s.Commit(ctx, coord.Delete(entry, rs[0].Fence), l.ReleaseOp())
//
// The layout is kazoo's: an ephemeral node whose value is the 32 lowercase hex
// digits of its holder.
package lock

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"sync/atomic"

	"github.com/zkq/zkq/coord"
)

// ErrLost means that a lock is not held any more: its session is over, or another
// process removed it.
var ErrLost = errors.New("lock lost")

// Holder is the name of a lock's holder: 32 lowercase hexadecimal digits, as kazoo
// writes them.
type Holder string

// NewHolder returns a random name that no other holder has.
func NewHolder() Holder {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return Holder(hex.EncodeToString(b[:]))
}

// AcquireOp returns the op that acquires the lock called name in dir. Its commit is refused with
// [coord.ErrExist] when the lock is held.
func AcquireOp(dir, name string, h Holder) coord.Op {
	return coord.CreateEphemeral(path.Join(dir, name), []byte(h))
}

// Lock is a lock that was acquired. It may be lost at any time: see [Keeper] and
// [Lock.Holds].
type Lock struct {
	session     coord.Session
	path        string
	fence       coord.Fence
	revision    int64 // of the commit that acquired it
	holder      Holder
	isReleasing atomic.Bool // see SetReleasing
}

// Acquired returns the lock that an applied [AcquireOp] of h acquired. r is the result of that op.
func Acquired(s coord.Session, r coord.Result, h Holder) *Lock {
	return &Lock{session: s, path: r.Path, fence: r.Fence, revision: r.Revision, holder: h}
}

// Adopt returns the lock at dir/name if h holds it in this session, and nil if not. With
// it a client finds out whether an [AcquireOp] was applied whose answer was lost. h must not
// have acquired this name before in the same session.
func Adopt(ctx context.Context, s coord.Session, dir, name string, h Holder) (*Lock, error) {
	n, err := s.Get(ctx, path.Join(dir, name))
	if errors.Is(err, coord.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read lock %s: %w", name, err)
	}
	if n.Owner != s.ID() || string(n.Value) != string(h) {
		return nil, nil
	}
	return &Lock{session: s, path: n.Path, fence: n.Fence, revision: n.Revision, holder: h}, nil
}

// Session returns the session that the lock belongs to.
func (l *Lock) Session() coord.Session { return l.session }

// Path returns the path of the lock's node.
func (l *Lock) Path() string { return l.path }

// Revision returns the revision of the commit that acquired the lock. No two locks have the
// same.
func (l *Lock) Revision() int64 { return l.revision }

// ReleaseOp returns the op that removes the lock. On ZooKeeper the fence distinguishes
// zkq's locks from kazoo's, but not two locks of zkq. So commit the op together with a
// condition on the locked thing.
func (l *Lock) ReleaseOp() coord.Op { return coord.Delete(l.path, l.fence) }

// SetReleasing tells the lock whether a commit that releases it is under way. Meanwhile a
// [Keeper] does not take the lock's absence for a loss.
func (l *Lock) SetReleasing(underWay bool) { l.isReleasing.Store(underWay) }

// Holds asks the service whether the lock is still held. A session that is over
// holds nothing, whatever the service would say.
func (l *Lock) Holds(ctx context.Context) (bool, error) {
	n, err := l.session.Get(ctx, l.path)
	switch {
	case errors.Is(err, coord.ErrNotExist), errors.Is(err, coord.ErrSessionLost):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read lock %s: %w", l.path, err)
	}
	return l.isNode(n), nil
}

// isNode reports whether the node is this lock. On ZooKeeper a lock that the same holder
// acquired later in the same session looks the same.
func (l *Lock) isNode(n coord.Node) bool {
	return n.Owner == l.session.ID() && n.Fence == l.fence && string(n.Value) == string(l.holder)
}
