package coordtest

import (
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest/internal/memory"
)

// Store is a coordination service in memory. Each [Coordinator] that it opens is
// one client process. Its methods may be called from several goroutines.
type Store struct{ service *memory.Service }

// NewStore returns an empty service that counts as ZooKeeper does: a fence is the
// version of its node, and sequential names end in a number.
func NewStore() *Store { return &Store{memory.New(false)} }

// NewEtcdStore returns an empty service that counts as etcd does: fences are
// revisions, and sequential names of commits that overlap are not in the order of
// the commits.
func NewEtcdStore() *Store { return &Store{memory.New(true)} }

// StoreOf is for package sim. No package outside of coordtest can name its argument.
func StoreOf(service *memory.Service) *Store { return &Store{service} }

// Options are what a client asks for. The zero value does.
type Options struct {
	Name    string        // for reports; "": client-N
	Timeout time.Duration // of its sessions; 0: 10s
	Limits  coord.Limits  // zero: ZooKeeper's
}

// Open returns a new client. It contacts nothing: the first
// [coord.Coordinator.Session] does.
func (s *Store) Open(o Options) *Coordinator {
	return &Coordinator{s.service.Open(o.Name, o.Timeout, o.Limits)}
}

// Applied is a commit that the service has applied, or the end of a session.
type Applied struct {
	Revision int64 // commits of one client that travelled together share it
	At       time.Time
	Session  string
	Client   string // the name of the client whose session it is

	// Expired means that the session ended. Ops are then the deletes of the
	// ephemeral nodes that it left.
	Expired bool

	Ops     []coord.Op
	Results []coord.Result // nil when Expired
}

// Observe has f called with every change from now on, in order. There is one observer:
// f replaces the one before, and nil ends it. The service stands still while f runs, so f must not call
// this package; nor may it write to what it is given.
func (s *Store) Observe(f func(Applied)) {
	if f == nil {
		s.service.Observe(nil)
		return
	}
	s.service.Observe(func(a memory.Applied) { f(Applied(a)) })
}

// Expire ends the session with the id now, as an administrator would, and reports
// whether there was one. Its client learns of the end at once, or when it is connected
// again.
func (s *Store) Expire(session string) bool { return s.service.Expire(session) }

// SetCounter sets the number that the next sequential node under dir gets. It is for
// stores that count as ZooKeeper does: after [coord.LastNumber] every create is refused
// with [coord.ErrExhausted].
func (s *Store) SetCounter(dir string, n int32) { s.service.SetCounter(dir, n) }

// Stop stops the service. Every client loses its connection. Clients give their
// sessions up in their time; the service ends none before [Store.Start].
func (s *Store) Stop() { s.service.Stop() }

// Start starts a stopped service with its nodes and sessions. Session timeouts begin
// anew.
func (s *Store) Start() { s.service.Start() }

// Restart stops the service and starts it.
func (s *Store) Restart() {
	s.Stop()
	s.Start()
}

// Backup is what a service held at one instant: see [Store.Backup].
type Backup struct{ backup *memory.Backup }

// Backup saves the persistent nodes of the service, as an operator does.
func (s *Store) Backup() *Backup { return &Backup{s.service.Backup()} }

// Restore puts the service back to a backup of it. Later writes are lost, and revisions
// and fences go back: the service gives them again. Every session ends, and its
// ephemeral nodes are gone.
func (s *Store) Restore(b *Backup) { s.service.Restore(b.backup) }
