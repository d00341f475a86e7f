package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a coordination service with clients, in virtual time.
type bench struct {
	*testing.T
	store *coordtest.Store
	ctx   context.Context
}

// virtual runs a test on a service in memory, where time costs nothing.
func virtual(t *testing.T, f func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		f(t, &bench{T: t, store: coordtest.NewStore(), ctx: ctx})
		cancel()
	})
}

// client is a process of its own, as far as the service can tell.
func (b *bench) client() *coordtest.Coordinator {
	c := b.store.Open(coordtest.Options{Timeout: 6 * time.Second})
	b.Cleanup(func() { c.Close() })
	return c
}

// queue is a handle to the queue "jobs" in a process of its own.
func (b *bench) queue(opts ...zkq.Option) (*zkq.LockingQueue, *coordtest.Coordinator) {
	c := b.client()
	return b.on(c, opts...), c
}

func (b *bench) on(c coord.Coordinator, opts ...zkq.Option) *zkq.LockingQueue {
	q := zkq.NewLockingQueue(c, "jobs", opts...)
	b.Cleanup(func() { q.Close() })
	return q
}

func (b *bench) put(q interface {
	Put(context.Context, []byte, ...zkq.PutOption) (string, error)
}, value string, opts ...zkq.PutOption,
) string {
	b.Helper()
	name, err := q.Put(b.ctx, []byte(value), opts...)
	if err != nil {
		b.Fatalf("Put(%q): %v", value, err)
	}
	return name
}

func (b *bench) take(q *zkq.LockingQueue) *zkq.Held {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	h, err := q.Take(ctx)
	if err != nil {
		b.Fatalf("Take: %v", err)
	}
	return h
}

func (b *bench) consume(h *zkq.Held) {
	b.Helper()
	if err := h.Consume(b.ctx); err != nil {
		b.Fatalf("Consume: %v", err)
	}
}

func (b *bench) want(err, target error) {
	b.Helper()
	if !errors.Is(err, target) {
		b.Fatalf("error %v, want %v", err, target)
	}
}

func (b *bench) empty(q *zkq.LockingQueue) {
	b.Helper()
	if h, err := q.TryTake(b.ctx); !errors.Is(err, zkq.ErrEmpty) {
		b.Fatalf("TryTake = %v, %v; want ErrEmpty", h, err)
	}
}

// session is the client's live session, to do to nodes what others might do.
func (b *bench) session(c coord.Coordinator) coord.Session {
	b.Helper()
	s, err := c.Session(b.ctx)
	if err != nil {
		b.Fatalf("Session: %v", err)
	}
	return s
}

func (b *bench) commit(s coord.Session, ops ...coord.Op) {
	b.Helper()
	if _, err := s.Commit(b.ctx, ops...); err != nil {
		b.Fatalf("Commit: %v", err)
	}
}

func (b *bench) get(s coord.Session, path string) coord.Node {
	b.Helper()
	n, err := s.Get(b.ctx, path)
	if err != nil {
		b.Fatalf("Get(%s): %v", path, err)
	}
	return n
}

func (b *bench) children(s coord.Session, dir string) []string {
	b.Helper()
	l, err := s.List(b.ctx, dir, coord.ListOptions{Fresh: true})
	if err != nil {
		b.Fatalf("List(%s): %v", dir, err)
	}
	var names []string
	for _, n := range l.Nodes {
		names = append(names, n.Path)
	}
	return names
}

func (b *bench) entries(q *zkq.LockingQueue) []zkq.Entry {
	b.Helper()
	var es []zkq.Entry
	for e, err := range q.Entries(b.ctx) {
		if err != nil {
			b.Fatalf("Entries: %v", err)
		}
		es = append(es, e)
	}
	return es
}

// counting counts what goes through it to a coordinator, and can run something
// just before a read or a commit.
type counting struct {
	coord.Coordinator

	mu       sync.Mutex
	session  *countingSession
	requests map[string]int
	nodes    int // that listings returned
	values   int // that were read
	watching int // watches whose context has not ended
	before   func(s coord.Session, act, path string)
}

func newCounting(c coord.Coordinator) *counting {
	return &counting{Coordinator: c, requests: make(map[string]int)}
}

// hook has f run just before each request from now on; nil: nothing.
func (c *counting) hook(f func(s coord.Session, act, path string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before = f
}

func (c *counting) count(s coord.Session, act, path string) {
	c.mu.Lock()
	c.requests[act]++
	f := c.before
	c.mu.Unlock()
	if f != nil {
		f(s, act, path)
	}
}

func (c *counting) of(acts ...string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for act, k := range c.requests {
		if len(acts) == 0 || slices.Contains(acts, act) {
			n += k
		}
	}
	return n
}

func (c *counting) watches() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watching
}

func (c *counting) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.requests)
	c.nodes = 0
}

func (c *counting) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil || c.session.Session != s {
		c.session = &countingSession{Session: s, c: c}
	}
	return c.session, nil
}

type countingSession struct {
	coord.Session
	c *counting
}

func (s *countingSession) Get(ctx context.Context, path string) (coord.Node, error) {
	s.c.count(s.Session, "get", path)
	return s.Session.Get(ctx, path)
}

func (s *countingSession) Read(ctx context.Context, paths ...string) ([]coord.Node, error) {
	s.c.count(s.Session, "read", paths[0])
	s.c.mu.Lock()
	s.c.values += len(paths)
	s.c.mu.Unlock()
	return s.Session.Read(ctx, paths...)
}

func (s *countingSession) List(ctx context.Context, dir string, o coord.ListOptions) (coord.List, error) {
	s.c.count(s.Session, "list", dir)
	l, err := s.Session.List(ctx, dir, o)
	s.c.mu.Lock()
	s.c.nodes += len(l.Nodes)
	s.c.mu.Unlock()
	return l, err
}

func (s *countingSession) Watch(ctx context.Context, dirs ...string) (<-chan struct{}, error) {
	s.c.count(s.Session, "watch", dirs[0])
	ch, err := s.Session.Watch(ctx, dirs...)
	if err == nil {
		s.c.mu.Lock()
		s.c.watching++
		s.c.mu.Unlock()
		context.AfterFunc(ctx, func() {
			s.c.mu.Lock()
			s.c.watching--
			s.c.mu.Unlock()
		})
	}
	return ch, err
}

func (s *countingSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	path := ""
	if len(ops) > 0 {
		path = fmt.Sprint(ops[0].Kind, " ", ops[0].Path)
	}
	s.c.count(s.Session, "commit", path)
	return s.Session.Commit(ctx, ops...)
}
