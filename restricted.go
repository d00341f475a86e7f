package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
)

// restricted are entries whose nodes have an access list of their own, as producers with
// other clients can set on ZooKeeper: this process may not read them, or may not write
// them. One that may not be read is left alone and never stops the queue; one that may be
// read and not written is claimed without moving its fence, as kazoo claims.
type restricted struct {
	mu    sync.Mutex
	names map[string]restriction
}

type restriction struct {
	at       time.Time
	readable bool
}

// How long a restriction is believed, since an access list can change, and how many are
// remembered.
const (
	keepRestricted = time.Minute
	maxRestricted  = 10_000
)

func (r *restricted) put(name string, readable bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names == nil || len(r.names) >= maxRestricted {
		r.names = make(map[string]restriction)
	}
	r.names[name] = restriction{time.Now(), readable}
}

// has reports whether the entry cannot be read.
func (r *restricted) has(name string) bool {
	readable, ok := r.lookup(name)
	return ok && !readable
}

// readOnly reports whether the entry can be read and not written.
func (r *restricted) readOnly(name string) bool {
	readable, ok := r.lookup(name)
	return ok && readable
}

func (r *restricted) lookup(name string) (readable, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x, ok := r.names[name]
	if ok && time.Since(x.at) > keepRestricted {
		delete(r.names, name)
		return false, false
	}
	return x.readable, ok
}

func (r *restricted) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.names)
}

// errUnreadable is of an entry whose access list keeps this process from reading it.
var errUnreadable = fmt.Errorf("its access list does not let this process read it: %w", coord.ErrForbidden)

// skipUnreadable leaves an entry alone that cannot be read, and says so once.
func (p *place) skipUnreadable(n coord.Node) {
	p.restricted.put(path.Base(n.Path), false)
	p.warnOnce(n.Path, "cannot be read, because its access list does not allow it: skipped; rm --force removes it")
}

// readOnly says whether the claim of an entry was refused because it may not be written:
// it is claimed by a check from then on.
func (p *place) readOnly(err error, a *attempt) bool {
	var f *coord.ForbiddenError
	if !errors.As(err, &f) || f.Op.Path != a.node.Path || f.Op.Kind != coord.KindTouch {
		return false
	}
	p.restricted.put(a.name, true)
	a.checkOnly()
	return true
}

// checkOnly makes a claim that moves no fence: it is fenced by the session alone.
func (a *attempt) checkOnly() {
	a.ops[0], a.bumps = coord.Check(a.node.Path, a.node.Fence), 0
}

// known reads a node of which the value is not needed, if it may not be read.
func known(ctx context.Context, s coord.Session, at string) (coord.Node, error) {
	n, err := s.Get(ctx, at)
	if !errors.Is(err, coord.ErrForbidden) {
		return n, err
	}
	nodes, readErr := s.Read(ctx, at)
	switch {
	case readErr != nil:
		return n, err
	case nodes[0].Path == "":
		return n, coord.ErrNotExist
	}
	return nodes[0], nil
}
