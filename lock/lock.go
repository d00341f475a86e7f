// Package lock keeps ephemeral lock nodes: take one, hold it, notice that it is
// lost, give it back.
//
// A lock is a node in a directory of locks, named after the thing it locks. It
// belongs to a session of package coord and goes with it. Locks alone exclude
// nobody for certain: the service may end a session whose holder has not heard
// of it yet. So taking and giving back are ops, to be committed together with a
// condition on the locked thing itself:
//
//	rs, err := s.Commit(ctx, coord.Touch(entry, value, fence), lock.Take(dir, name, holder))
//	...
//	l := lock.Taken(s, rs[1], holder)
//	_, err = s.Commit(ctx, coord.Delete(entry, rs[0].Fence), l.GiveBack())
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

// ErrLost says that a lock is not held any more: its session is over, or
// somebody removed it.
var ErrLost = errors.New("lock lost")

// Holder names who holds a lock: 32 lowercase hexadecimal digits, as kazoo
// writes them.
type Holder string

// NewHolder returns a holder's name that no other has.
func NewHolder() Holder {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return Holder(hex.EncodeToString(b[:]))
}

// Take is the op that takes the lock called name in dir: [coord.ErrExist] when
// anybody has it.
func Take(dir, name string, h Holder) coord.Op {
	return coord.CreateEphemeral(path.Join(dir, name), []byte(h))
}

// Lock is a lock that was taken.
type Lock struct {
	session  coord.Session
	path     string
	fence    coord.Fence
	revision int64 // of the commit that took it
	holder   Holder
	settling atomic.Bool // a commit that gives it back is under way
}

// Taken is the lock that an applied [Take] by h left, from the op's result.
func Taken(s coord.Session, r coord.Result, h Holder) *Lock {
	return &Lock{session: s, path: r.Path, fence: r.Fence, revision: r.Revision, holder: h}
}

// Adopt is the lock that stands at dir/name if it is held by h in this session,
// or nil if it is not: how a taker whose answer was lost learns what became of
// it. h must not have taken this name before in the same session.
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

// Session is the session whose lock it is.
func (l *Lock) Session() coord.Session { return l.session }

// Path is the lock's node.
func (l *Lock) Path() string { return l.path }

// Revision is that of the commit that took the lock: no two locks have the same.
func (l *Lock) Revision() int64 { return l.revision }

// GiveBack is the op that removes the lock. On ZooKeeper the fence tells our
// locks from kazoo's, but not two of ours from each other: commit it together
// with a condition on the locked thing.
func (l *Lock) GiveBack() coord.Op { return coord.Delete(l.path, l.fence) }

// Settling says whether a commit that gives the lock back is under way. While it
// is, a [Keeper] does not take the lock's absence for a loss.
func (l *Lock) Settling(yes bool) { l.settling.Store(yes) }

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
	return l.is(n), nil
}

// is says whether the node is this lock. On ZooKeeper that cannot tell it from one
// that the same holder took later in the same session: the holder knows.
func (l *Lock) is(n coord.Node) bool {
	return n.Owner == l.session.ID() && n.Fence == l.fence && string(n.Value) == string(l.holder)
}
