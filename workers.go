package zkq

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/member"
	"github.com/zkq/zkq/lock"
)

// WorkerInfo is somebody who works on a queue.
type WorkerInfo struct {
	// Holder is the name in the locks of what he holds.
	Holder string
	// Host and PID are where he runs: "" and 0 of one who holds entries and did
	// not say so, as kazoo's workers and takes by hand.
	Host string
	PID  int
	// Started is when his handle began to take, by his own clock; zero where Host
	// is unknown.
	Started time.Time
	// Entries is how many entries he holds.
	Entries int
}

// Register has [LockingQueue.Workers] name this handle from now until Close, in
// this session and those that follow. What it returns tells only that others do
// not see it yet: it is tried again with the handle's next call. Credentials that
// do not allow it are no error. All does it by itself.
func (q *LockingQueue) Register(ctx context.Context) error {
	q.registry.Stay()
	err := q.handle.do(ctx, func(ctx context.Context, s coord.Session) error { return q.registry.Register(ctx, s) })
	if err != nil {
		return fmt.Errorf("register among the workers of %s: %w", q.handle.root, err)
	}
	return nil
}

// Workers returns those who work on the queue: the handles that are registered, by
// host and process, then those who hold entries without being that. It costs two
// listings, of the workers and of the locks.
func (q *LockingQueue) Workers(ctx context.Context) ([]WorkerInfo, error) {
	var workers []WorkerInfo
	err := q.handle.do(ctx, func(ctx context.Context, s coord.Session) (err error) {
		workers, err = q.workers(ctx, s)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the workers of %s: %w", q.handle.root, err)
	}
	return workers, nil
}

func (q *LockingQueue) workers(ctx context.Context, s coord.Session) ([]WorkerInfo, error) {
	// Who registers does so before he takes: looked at in this order, a lock is not
	// seen without its holder.
	locks, err := s.List(ctx, q.handle.taken, coord.ListOptions{Values: true, Fresh: true})
	if err != nil {
		return nil, err
	}
	l, err := s.List(ctx, path.Join(q.handle.root, layout.WorkersDir), coord.ListOptions{Values: true, Fresh: true})
	if err != nil {
		return nil, err
	}
	held := make(map[string]int)
	for _, n := range locks.Nodes {
		if st := lock.Read(n); st.Kind == lock.Held {
			held[st.Holder]++
		}
	}
	var workers []WorkerInfo
	for _, n := range l.Nodes {
		w, ok := member.Parse(n)
		if !ok {
			continue
		}
		holder := path.Base(n.Path)
		workers = append(workers, WorkerInfo{Holder: holder, Host: w.Host, PID: w.PID, Started: w.Started, Entries: held[holder]})
		delete(held, holder)
	}
	for holder, n := range held {
		workers = append(workers, WorkerInfo{Holder: holder, Entries: n})
	}
	slices.SortFunc(workers, func(a, b WorkerInfo) int {
		if (a.PID == 0) != (b.PID == 0) {
			return cmp.Compare(b.PID, a.PID)
		}
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.PID, b.PID), cmp.Compare(a.Holder, b.Holder))
	})
	return workers, nil
}
