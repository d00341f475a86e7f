package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
)

// session is the client's end of a session. It ends by the client's clock before the
// service may end its own, so that a holder never outlives its locks.
type session struct {
	client  *Client
	id      string
	timeout time.Duration
	done    chan struct{}

	// The rest is guarded by the service's mutex.
	commits       *group.Queue // not yet sent
	isChecked     bool         // the format of the nodes was found to be known
	isOver        bool
	isLost        bool      // over because the service ended it or the deadline passed
	deadline      time.Time // zero while heartbeats are answered
	subscriptions []*subscription
}

var _ coord.Session = (*session)(nil)

// orNil turns a nil pointer into a nil interface.
func (s *session) orNil() coord.Session {
	if s == nil {
		return nil
	}
	return s
}

func (s *session) ID() string             { return s.id }
func (s *session) Timeout() time.Duration { return s.timeout }
func (s *session) Done() <-chan struct{}  { return s.done }
func (s *session) Limits() coord.Limits   { return s.client.limits }

func (s *session) Get(ctx context.Context, path string) (n coord.Node, err error) {
	q := &Request{session: s, Kind: "get", Paths: []string{path}}
	q.apply = func(*serverSession) error {
		var exists bool
		if n, exists = s.client.service.state.node(path); !exists {
			return coord.ErrNotExist
		}
		return nil
	}
	if err := s.callChecked(ctx, q, coord.CheckPath); err != nil {
		return coord.Node{}, err
	}
	return n, nil
}

func (s *session) Read(ctx context.Context, paths ...string) (nodes []coord.Node, err error) {
	q := &Request{session: s, Kind: "read", Paths: slices.Clone(paths)}
	q.apply = func(*serverSession) error {
		nodes = make([]coord.Node, len(paths))
		for i, path := range q.Paths {
			nodes[i], _ = s.client.service.state.nodeAt(path, s.client.readRevisionLocked())
		}
		return nil
	}
	if err := s.callChecked(ctx, q, coord.CheckPath); err != nil {
		return nil, err
	}
	return nodes, nil
}

func (s *session) List(ctx context.Context, dir string, o coord.ListOptions) (list coord.List, err error) {
	q := &Request{session: s, Kind: "list", Paths: []string{dir}}
	q.apply = func(*serverSession) error {
		if o.Fresh || o.Born != 0 {
			s.client.catchUpLocked()
		}
		revision := s.client.listRevision
		if o.Seen && s.isWatchingLocked(dir) {
			revision = s.client.seenRevision
		}
		list = s.client.service.state.list(dir, o, revision)
		return nil
	}
	check := func(dir string) error { return coord.CheckList(dir, o) }
	if ctx != nil && check(dir) == nil && o.Seen && !o.Values {
		if isListed, err := s.listFromMemory(ctx, q); err != nil || isListed {
			return list, err
		}
	}
	if err := s.callChecked(ctx, q, check); err != nil {
		return coord.List{}, err
	}
	return list, nil
}

// listFromMemory answers a listing of a watched directory without a request, like a
// driver that follows the events of its watches. It reports whether it did.
func (s *session) listFromMemory(ctx context.Context, q *Request) (bool, error) {
	s.client.service.mu.Lock()
	defer s.client.service.mu.Unlock()
	if err := s.client.checkCallLocked(ctx, q); err != nil {
		return false, fmt.Errorf("%s %v: %w", q.Kind, q.Paths, err)
	}
	if !s.isWatchingLocked(q.Paths[0]) {
		return false, nil
	}
	return true, q.apply(nil)
}

func (s *session) isWatchingLocked(dir string) bool {
	return slices.ContainsFunc(s.subscriptions, func(sub *subscription) bool { return slices.Contains(sub.dirs, dir) })
}

func (s *session) Count(ctx context.Context, dir string) (n int, err error) {
	q := &Request{session: s, Kind: "count", Paths: []string{dir}}
	q.apply = func(*serverSession) error {
		s.client.catchUpLocked()
		names, _ := s.client.service.state.namesAt(dir, s.client.listRevision)
		n = len(names)
		return nil
	}
	if err := s.callChecked(ctx, q, coord.CheckDir); err != nil {
		return 0, err
	}
	return n, nil
}

func (s *session) Watch(ctx context.Context, dirs ...string) (<-chan struct{}, error) {
	sub := &subscription{session: s, dirs: slices.Clone(dirs), signals: make(chan struct{}, 1)}
	q := &Request{session: s, Kind: "watch", Paths: sub.dirs}
	q.apply = func(*serverSession) error {
		s.client.service.subscribeLocked(sub)
		s.client.catchUpLocked() // listings show from now on what came too early for a signal
		s.client.seenRevision = s.client.listRevision
		return nil
	}
	err := s.callChecked(ctx, q, coord.CheckDir)
	s.client.service.mu.Lock()
	defer s.client.service.mu.Unlock()
	if err != nil {
		s.client.service.unsubscribeLocked(sub)
		return nil, err
	}
	if s.isOver && !slices.Contains(s.subscriptions, sub) {
		sub.notify() // the session ended between the answer and now
		return sub.signals, nil
	}
	sub.stopContext = context.AfterFunc(ctx, func() {
		s.client.service.mu.Lock()
		defer s.client.service.mu.Unlock()
		s.client.service.unsubscribeLocked(sub)
	})
	return sub.signals, nil
}

// callChecked checks the arguments of a read and calls the service. Errors name the
// kind of read and its paths.
func (s *session) callChecked(ctx context.Context, q *Request, check func(string) error) error {
	if ctx == nil {
		return fmt.Errorf("%s without a context: %w", q.Kind, coord.ErrInvalid)
	}
	for _, path := range q.Paths {
		if err := check(path); err != nil {
			return fmt.Errorf("%s: %w", q.Kind, err)
		}
	}
	if err := s.client.call(ctx, q); err != nil {
		return fmt.Errorf("%s %v: %w", q.Kind, q.Paths, err)
	}
	return nil
}

func (s *session) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	if ctx == nil {
		return nil, fmt.Errorf("commit without a context: %w", coord.ErrInvalid)
	}
	if err := coord.CheckOps(s.client.limits, ops); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	q := &Request{session: s, Kind: "commit", Ops: make([]coord.Op, len(ops))}
	for i, op := range ops {
		op.Value = bytes.Clone(op.Value) // the commit may be applied after this call has returned
		q.Ops[i] = op
	}
	if len(ops) == 0 {
		s.client.service.mu.Lock()
		defer s.client.service.mu.Unlock()
		if err := s.client.checkCallLocked(ctx, q); err != nil {
			return nil, fmt.Errorf("commit: %w", err)
		}
		return nil, nil
	}
	q.commit = &group.Commit{Ops: q.Ops, Caller: q}
	if err := s.client.call(ctx, q); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return q.results, nil
}

// checkAliveLocked returns [coord.ErrSessionLost] if the session is over. It compares
// the deadline with the clock itself, for the timer may be late.
func (s *session) checkAliveLocked() error {
	if !s.isOver && !s.deadline.IsZero() && !time.Now().Before(s.deadline) {
		s.loseLocked()
	}
	if s.isOver {
		return coord.ErrSessionLost
	}
	return nil
}

// loseLocked ends the client's end of a session that expired.
func (s *session) loseLocked() {
	if !s.isOver {
		s.isLost = true
		s.endLocked()
	}
}

// endLocked ends the client's end of the session: Done is closed and every watch
// signals once more. In a stepped service those signals are steps of their own.
func (s *session) endLocked() {
	if s.isOver {
		return
	}
	s.isOver = true
	close(s.done)
	for _, sub := range slices.Clone(s.subscriptions) {
		if s.client.service.isStepped {
			s.client.signals = append(s.client.signals, Signal{subscription: sub, IsLast: true})
			continue
		}
		sub.notify()
		s.client.service.unsubscribeLocked(sub)
	}
	s.client.updateDeadlinesLocked()
}
