package coordtest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
)

// session is the client's end of a session.
type session struct {
	c       *Coordinator
	id      string
	timeout time.Duration
	done    chan struct{}

	// The rest is guarded by the store's mutex.
	commits  *group.Queue // not yet sent
	checked  bool         // CheckFormat was content
	over     bool
	lost     bool      // over by the service's word or the clock's
	deadline time.Time // zero while heartbeats are answered
	subs     []*subscription
}

var _ coord.Session = (*session)(nil)

func (l *session) orNil() coord.Session {
	if l == nil {
		return nil
	}
	return l
}

func (l *session) ID() string             { return l.id }
func (l *session) Timeout() time.Duration { return l.timeout }
func (l *session) Done() <-chan struct{}  { return l.done }
func (l *session) Limits() coord.Limits   { return l.c.limits }

func (l *session) Get(ctx context.Context, path string) (n coord.Node, err error) {
	q := &request{session: l, kind: "get", where: []string{path}}
	q.apply = func(*remote) error {
		var ok bool
		if n, ok = l.c.store.st.node(path); !ok {
			return coord.ErrNotExist
		}
		return nil
	}
	if err := l.read(ctx, q, coord.CheckPath); err != nil {
		return coord.Node{}, err
	}
	return n, nil
}

func (l *session) Read(ctx context.Context, paths ...string) (nodes []coord.Node, err error) {
	q := &request{session: l, kind: "read", where: slices.Clone(paths)}
	q.apply = func(*remote) error {
		nodes = make([]coord.Node, len(paths))
		for i, path := range q.where {
			nodes[i], _ = l.c.store.st.at(path, l.c.behind())
		}
		return nil
	}
	if err := l.read(ctx, q, coord.CheckPath); err != nil {
		return nil, err
	}
	return nodes, nil
}

func (l *session) List(ctx context.Context, dir string, o coord.ListOptions) (list coord.List, err error) {
	q := &request{session: l, kind: "list", where: []string{dir}}
	q.apply = func(*remote) error {
		if o.Fresh || o.Born != 0 {
			l.c.catchUp()
		}
		view := l.c.view
		if o.Seen && l.watches(dir) {
			view = l.c.seen
		}
		list = l.c.store.st.list(dir, o, view)
		return nil
	}
	check := func(dir string) error { return coord.CheckList(dir, o) }
	if ctx != nil && check(dir) == nil && o.Seen && !o.Values {
		if seen, err := l.inMemory(ctx, q); err != nil || seen {
			return list, err
		}
	}
	if err := l.read(ctx, q, check); err != nil {
		return coord.List{}, err
	}
	return list, nil
}

// inMemory answers a listing without a request, where the directory is watched: as a
// driver does that follows the events of its watches.
func (l *session) inMemory(ctx context.Context, q *request) (bool, error) {
	l.c.store.mu.Lock()
	defer l.c.store.mu.Unlock()
	if err := l.c.may(ctx, q); err != nil {
		return false, fmt.Errorf("%s %v: %w", q.kind, q.where, err)
	}
	if !l.watches(q.where[0]) {
		return false, nil
	}
	return true, q.apply(nil)
}

func (l *session) watches(dir string) bool {
	return slices.ContainsFunc(l.subs, func(sub *subscription) bool { return slices.Contains(sub.dirs, dir) })
}

func (l *session) Count(ctx context.Context, dir string) (n int, err error) {
	q := &request{session: l, kind: "count", where: []string{dir}}
	q.apply = func(*remote) error {
		l.c.catchUp()
		names, _ := l.c.store.st.names(dir, l.c.view)
		n = len(names)
		return nil
	}
	if err := l.read(ctx, q, coord.CheckDir); err != nil {
		return 0, err
	}
	return n, nil
}

func (l *session) Watch(ctx context.Context, dirs ...string) (<-chan struct{}, error) {
	sub := &subscription{session: l, dirs: slices.Clone(dirs), ch: make(chan struct{}, 1)}
	q := &request{session: l, kind: "watch", where: sub.dirs}
	q.apply = func(*remote) error {
		l.c.store.subscribe(sub)
		l.c.catchUp() // what is too late to be signalled is seen by listings from now on
		l.c.seen = l.c.view
		return nil
	}
	err := l.read(ctx, q, coord.CheckDir)
	l.c.store.mu.Lock()
	defer l.c.store.mu.Unlock()
	if err != nil {
		l.c.store.unsubscribe(sub)
		return nil, err
	}
	if l.over && !slices.Contains(l.subs, sub) {
		sub.signal() // it ended between the answer and now
		return sub.ch, nil
	}
	sub.stop = context.AfterFunc(ctx, func() {
		l.c.store.mu.Lock()
		defer l.c.store.mu.Unlock()
		l.c.store.unsubscribe(sub)
	})
	return sub.ch, nil
}

func (l *session) read(ctx context.Context, q *request, check func(string) error) error {
	if ctx == nil {
		return fmt.Errorf("%s without a context: %w", q.kind, coord.ErrInvalid)
	}
	for _, path := range q.where {
		if err := check(path); err != nil {
			return fmt.Errorf("%s: %w", q.kind, err)
		}
	}
	if err := l.c.do(ctx, q); err != nil {
		return fmt.Errorf("%s %v: %w", q.kind, q.where, err)
	}
	return nil
}

func (l *session) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	if ctx == nil {
		return nil, fmt.Errorf("commit without a context: %w", coord.ErrInvalid)
	}
	if err := coord.CheckOps(l.c.limits, ops); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	q := &request{session: l, kind: "commit", ops: make([]coord.Op, len(ops))}
	for i, op := range ops {
		op.Value = bytes.Clone(op.Value) // it may be applied when the caller has gone on
		q.ops[i] = op
	}
	if len(ops) == 0 {
		l.c.store.mu.Lock()
		defer l.c.store.mu.Unlock()
		if err := l.c.may(ctx, q); err != nil {
			return nil, fmt.Errorf("commit: %w", err)
		}
		return nil, nil
	}
	q.commit = &group.Commit{Ops: q.ops, Caller: q}
	if err := l.c.do(ctx, q); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return q.results, nil
}

// alive compares the deadline with the clock.
func (l *session) alive() error {
	if !l.over && !l.deadline.IsZero() && !time.Now().Before(l.deadline) {
		l.lose()
	}
	if l.over {
		return coord.ErrSessionLost
	}
	return nil
}

func (l *session) lose() {
	if !l.over {
		l.lost = true
		l.end()
	}
}

// end ends the client's end of the session.
func (l *session) end() {
	if l.over {
		return
	}
	l.over = true
	close(l.done)
	for _, sub := range slices.Clone(l.subs) {
		if l.c.store.simulated {
			l.c.signals = append(l.c.signals, signal{sub: sub, last: true})
			continue
		}
		sub.signal()
		l.c.store.unsubscribe(sub)
	}
	l.c.hear()
}
