package testqueue

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/zkq/zkq/coord"
)

// Counter is a coordinator that counts the requests that pass through it, and can call a function before each.
type Counter struct {
	coord.Coordinator

	mu       sync.Mutex
	session  *countingSession
	Requests map[string]int // by kind: "get", "read", "list", "watch", "commit"
	Nodes    int            // that listings returned
	Values   int            // that were read
	watching int            // watches whose context has not ended
	before   func(s coord.Session, act, path string)
}

// NewCounter returns a Counter of what is sent to c.
func NewCounter(c coord.Coordinator) *Counter {
	return &Counter{Coordinator: c, Requests: make(map[string]int)}
}

// Before sets a function that is called before each request: with the session behind the Counter, the kind of the request,
// and its first path. nil sets none.
func (c *Counter) Before(f func(s coord.Session, act, path string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before = f
}

func (c *Counter) record(s coord.Session, act, path string) {
	c.mu.Lock()
	c.Requests[act]++
	f := c.before
	c.mu.Unlock()
	if f != nil {
		f(s, act, path)
	}
}

// Count returns the number of requests of these kinds, or of all kinds.
func (c *Counter) Count(acts ...string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for act, k := range c.Requests {
		if len(acts) == 0 || slices.Contains(acts, act) {
			n += k
		}
	}
	return n
}

// Watches returns the number of watches whose context has not ended.
func (c *Counter) Watches() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watching
}

// Reset begins to count requests and nodes from 0.
func (c *Counter) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.Requests)
	c.Nodes = 0
}

func (c *Counter) Session(ctx context.Context) (coord.Session, error) {
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
	c *Counter
}

func (s *countingSession) Get(ctx context.Context, path string) (coord.Node, error) {
	s.c.record(s.Session, "get", path)
	return s.Session.Get(ctx, path)
}

func (s *countingSession) Read(ctx context.Context, paths ...string) ([]coord.Node, error) {
	s.c.record(s.Session, "read", paths[0])
	s.c.mu.Lock()
	s.c.Values += len(paths)
	s.c.mu.Unlock()
	return s.Session.Read(ctx, paths...)
}

func (s *countingSession) List(ctx context.Context, dir string, o coord.ListOptions) (coord.List, error) {
	s.c.record(s.Session, "list", dir)
	l, err := s.Session.List(ctx, dir, o)
	s.c.mu.Lock()
	s.c.Nodes += len(l.Nodes)
	s.c.mu.Unlock()
	return l, err
}

func (s *countingSession) Watch(ctx context.Context, dirs ...string) (<-chan struct{}, error) {
	s.c.record(s.Session, "watch", dirs[0])
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
	s.c.record(s.Session, "commit", path)
	return s.Session.Commit(ctx, ops...)
}
