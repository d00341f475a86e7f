package testqueue

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// Env is a coordination service in memory with its clients, in virtual time. Its methods fail the test where a call does not
// succeed. They use the queue "jobs".
type Env struct {
	*testing.T
	Store *coordtest.Store
	Ctx   context.Context // ends with the test
}

// Run runs a test with a new service. It costs no real time to wait in it: see testing/synctest.
func Run(t *testing.T, f func(t *testing.T, env *Env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		f(t, &Env{T: t, Store: coordtest.NewStore(), Ctx: ctx})
		cancel()
	})
}

// Client opens a client. To the service it is a process of its own.
func (env *Env) Client() *coordtest.Coordinator {
	c := env.Store.Open(coordtest.Options{Timeout: 6 * time.Second})
	env.Cleanup(func() { c.Close() })
	return c
}

// Queue returns a handle in a process of its own, and the process's client.
func (env *Env) Queue(opts ...zkq.Option) (*zkq.LockingQueue, *coordtest.Coordinator) {
	c := env.Client()
	return env.QueueOn(c, opts...), c
}

// QueueOn returns a handle that uses c. The end of the test closes it.
func (env *Env) QueueOn(c coord.Coordinator, opts ...zkq.Option) *zkq.LockingQueue {
	q := zkq.NewLockingQueue(c, "jobs", opts...)
	env.Cleanup(func() { q.Close() })
	return q
}

// Session returns the client's live session, for requests that another program might make.
func (env *Env) Session(c coord.Coordinator) coord.Session {
	env.Helper()
	s, err := c.Session(env.Ctx)
	if err != nil {
		env.Fatalf("Session: %v", err)
	}
	return s
}

// Commit applies the ops.
func (env *Env) Commit(s coord.Session, ops ...coord.Op) {
	env.Helper()
	if _, err := s.Commit(env.Ctx, ops...); err != nil {
		env.Fatalf("Commit: %v", err)
	}
}

// Get reads a node.
func (env *Env) Get(s coord.Session, path string) coord.Node {
	env.Helper()
	n, err := s.Get(env.Ctx, path)
	if err != nil {
		env.Fatalf("Get(%s): %v", path, err)
	}
	return n
}

// Children returns the paths of the nodes in dir.
func (env *Env) Children(s coord.Session, dir string) []string {
	env.Helper()
	l, err := s.List(env.Ctx, dir, coord.ListOptions{Fresh: true})
	if err != nil {
		env.Fatalf("List(%s): %v", dir, err)
	}
	var names []string
	for _, n := range l.Nodes {
		names = append(names, n.Path)
	}
	return names
}

// History returns the value of the node that counts the failures of an entry, or "" if there is none.
func (env *Env) History(c coord.Coordinator, name string) string {
	env.Helper()
	n, err := env.Session(c).Get(env.Ctx, "/jobs/attempts/"+name)
	if errors.Is(err, coord.ErrNotExist) {
		return ""
	}
	if err != nil {
		env.Fatal(err)
	}
	return string(n.Value)
}
