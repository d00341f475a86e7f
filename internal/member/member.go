// Package member keeps the members of a queue: the handles of processes that go on taking
// from it. Each has an ephemeral node, named by its holder, so that a lock tells which
// process holds an entry. The members share out the entries at the head of the queue by
// rendezvous hashing, and each due entry has one member that moves it first.
package member

import (
	"context"
	"errors"
	"os"
	"path"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Parse reads a member's node. It reports false for a node that is not ephemeral, and for one
// that exists only for an instant, to wake processes that wait.
func Parse(n coord.Node) (layout.Worker, bool) {
	w, ok := layout.ParseWorker(n.Value)
	return w, ok && n.Owner != ""
}

// List returns the names of the members in a directory, in order. It may be as old as the
// last change that the session was told of.
func List(ctx context.Context, s coord.Session, dir string) ([]string, error) {
	l, err := s.List(ctx, dir, coord.ListOptions{Seen: true})
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(l.Nodes))
	for _, n := range l.Nodes {
		if name := path.Base(n.Path); layout.IsHolder(name) { // other nodes lead to queues further down
			names = append(names, name)
		}
	}
	return names, nil
}

// Registry is the node of one handle among the members of its queue. The node goes with
// the session; the handle gets another in each session that follows.
type Registry struct {
	path   string      // of the node
	closed func() bool // reports whether the handle is closed

	mu            sync.Mutex
	stays         bool          // the handle goes on taking: it is registered in every session
	isRegistering bool          // a goroutine creates the node
	session       coord.Session // in which the node exists, or may not be created
	started       time.Time     // when the handle began to take; zero: not yet
	fence         coord.Fence   // of the node; 0 if it may not be created
}

// NewRegistry returns the registry of a handle whose node is at that path. closed reports
// whether the handle is closed: then it registers no more.
func NewRegistry(path string, closed func() bool) *Registry {
	return &Registry{path: path, closed: closed}
}

// Stay makes the handle a member in every session from now on. Its next call in each session
// creates the node.
func (r *Registry) Stay() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stays = true; r.started.IsZero() {
		r.started = time.Now().UTC()
	}
}

// Register creates the handle's node in the session, and makes the handle a member in every
// later session too. It sends nothing if the node exists, or while another goroutine creates
// it. A service that forbids the node is no error: then other processes do not see the handle.
func (r *Registry) Register(ctx context.Context, s coord.Session) error {
	r.Stay()
	r.mu.Lock()
	if r.session == s || r.isRegistering || r.closed() {
		r.mu.Unlock()
		return nil
	}
	r.isRegistering = true
	started := r.started
	r.mu.Unlock()
	fence, err := r.create(ctx, s, started)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isRegistering = false; errors.Is(err, coord.ErrForbidden) {
		err = nil // the handle works without its node
	}
	if err == nil {
		r.session, r.fence = s, fence
	}
	return err
}

// RegisterAgain registers a handle in a new session if it was registered before. An error
// is left for the next call.
func (r *Registry) RegisterAgain(ctx context.Context, s coord.Session) {
	r.mu.Lock()
	again := r.stays && r.session != s
	r.mu.Unlock()
	if again {
		r.Register(ctx, s)
	}
}

// IsRegistered reports whether other processes can know of the handle in the session.
func (r *Registry) IsRegistered(s coord.Session) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.session == s
}

// create creates the node. A node that exists was created by an attempt without an
// answer, or by a session of this handle that the service has not ended yet: no other
// handle has this name.
func (r *Registry) create(ctx context.Context, s coord.Session, started time.Time) (coord.Fence, error) {
	host, _ := os.Hostname()
	value, err := layout.Worker{Host: host, PID: os.Getpid(), Started: started}.Value()
	if err != nil {
		return 0, err
	}
	for {
		results, err := s.Commit(ctx, coord.CreateEphemeral(r.path, value))
		if err == nil {
			return results[0].Fence, nil
		}
		if !retry.IsRefused(err) {
			return 0, err
		}
		n, err := s.Get(ctx, r.path)
		switch {
		case err == nil && n.Owner == s.ID():
			return n.Fence, nil
		case err == nil:
			_, err = s.Commit(ctx, coord.Delete(r.path, n.Fence))
		}
		if err != nil && !retry.IsRefused(err) && !errors.Is(err, coord.ErrNotExist) {
			return 0, err
		}
	}
}

// Unregister removes the node of a handle that is closed.
func (r *Registry) Unregister(ctx context.Context) {
	r.mu.Lock()
	s, fence := r.session, r.fence
	r.session, r.stays = nil, false
	r.mu.Unlock()
	if s == nil || fence == 0 {
		return
	}
	select {
	case <-s.Done(): // the node goes with the session
	default:
		s.Commit(ctx, coord.Delete(r.path, fence)) // or it goes with the session
	}
}
