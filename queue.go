package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/priority"
)

// Queue is kazoo's Queue: taking an entry removes it. Every entry is handed out at most once,
// so an entry is lost if its taker dies while working on it. Where that must not happen, use
// [LockingQueue]. Workers in Python and Go may share a queue.
//
// Its methods may be called from several goroutines.
type Queue struct {
	*base
	head *head.Head
}

// NewQueue returns a handle to the simple queue of that name. It contacts no service and
// creates nothing. Every method of a handle whose name [CheckName] refuses returns that
// error. A queue into which no process has put is an empty queue.
func NewQueue(c coord.Coordinator, name string, opts ...Option) *Queue {
	q := &Queue{base: newBase(c, name, true, opts)}
	q.head = head.New(q.headConfig())
	return q
}

// Put puts a value and returns the name of its entry; the promises are those of
// [LockingQueue.Put].
func (q *Queue) Put(ctx context.Context, value []byte, opts ...PutOption) (string, error) {
	return q.puts.put(ctx, value, opts)
}

// PutAll puts the values, all or none; the promises are those of
// [LockingQueue.PutAll].
func (q *Queue) PutAll(ctx context.Context, values [][]byte, opts ...PutOption) ([]string, error) {
	return q.puts.putAll(ctx, values, opts)
}

// PutSome puts all of the values, since a simple queue has no bound; see
// [LockingQueue.PutSome].
func (q *Queue) PutSome(ctx context.Context, values [][]byte, opts ...PutOption) ([]string, error) {
	return q.puts.putSome(ctx, values, opts)
}

// Get waits for an entry, removes it and returns it with its value. It returns ctx's error
// when ctx ends. If the answer to the removal is lost, Get asks for the outcome until ctx
// ends. If it is still unknown then, Get returns the entry with an [*UnknownError]. [Resolve]
// tells whether this call removed the entry. If it did not, it never will, and another process
// gets the entry.
//
// If ctx's deadline has passed already, Get looks once, as [LockingQueue.Get] does.
func (q *Queue) Get(ctx context.Context) (Entry, error) {
	if ctx != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		once, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookOnce)
		defer cancel()
		e, err := q.TryGet(once)
		if errors.Is(err, ErrEmpty) {
			err = fmt.Errorf("get from %s: %w", q.handle.Root, ctx.Err())
		}
		return e, err
	}
	if q.handle.Invalid != nil {
		return Entry{}, q.handle.Invalid
	}
	if ctx == nil {
		return Entry{}, fmt.Errorf("nil context: %w", ErrInvalid)
	}
	bound, cancel := q.handle.Bound(ctx)
	defer cancel()
	e, err := q.take(bound)
	if err != nil {
		err = fmt.Errorf("get from %s: %w", q.handle.Root, q.handle.CallError(ctx, err))
	}
	return e, err
}

// take waits for an entry and removes the first one that no other process takes before it.
// With an [ErrUnknown] it returns the entry too.
func (q *Queue) take(ctx context.Context) (e Entry, err error) {
	backoff := q.handle.Backoff(actTake)
	err, interrupted := backoff.Do(ctx, nil, func() (retry.Decision, error) {
		e = Entry{}
		c, err := q.head.Choose(ctx, 1, true)
		if err != nil {
			return retry.Stop, err
		}
		e, err = q.remove(ctx, c.Names[0], c.Nodes[0])
		switch {
		case err == nil:
			q.head.Suppressed.Add(e.Name, head.WasRemoved)
		case errors.Is(err, errUnavailable):
			q.head.Suppressed.Add(c.Names[0], head.WasLost)
		}
		q.head.Claims.Release(c.Names[0])
		c.Done()
		switch {
		case err == nil:
			backoff.Succeeded()
			return retry.Stop, nil
		case errors.Is(err, errUnavailable):
			return retry.Now, err
		case retry.NothingSent(err):
			q.handle.Session(ctx) // the next choice returns the error of the session
			return retry.Now, err
		}
		q.head.Resting.WakeTake() // the entry may still be there, and no watch announces it again
		return retry.LaterIfBusy(err), err
	})
	if interrupted != nil {
		err = retry.WithDeadline(ctx, err)
	}
	return e, err
}

// TryGet is Get without waiting, like kazoo's get. It returns [ErrEmpty] if the queue was
// empty at an instant during the call.
func (q *Queue) TryGet(ctx context.Context) (Entry, error) {
	var e Entry
	err := q.finder.tryTake(ctx, q.head.Resting, 1, func(ctx context.Context, s coord.Session, names []string, _ int) (got, cleared int, err error) {
		for _, name := range names {
			nodes, err := s.Read(ctx, path.Join(q.handle.Entries, name))
			if err != nil {
				return 0, 0, fmt.Errorf("read %s: %w", name, err)
			}
			if nodes[0].Unreadable {
				q.finder.skipUnreadable(nodes[0])
				continue
			}
			if nodes[0].Path == "" {
				continue
			}
			if e, err = q.remove(ctx, name, nodes[0]); errors.Is(err, errUnavailable) {
				continue
			}
			if err != nil {
				return 0, 0, err
			}
			return 1, 0, nil
		}
		return 0, 0, nil
	})
	if err != nil {
		err = fmt.Errorf("get from %s: %w", q.handle.Root, err)
	}
	return e, err
}

// remove removes an entry if it is unchanged since it was read: errUnavailable means that
// another process has removed or changed it. With an [ErrUnknown] it returns the entry too,
// because it may have been removed.
func (q *Queue) remove(ctx context.Context, name string, n coord.Node) (Entry, error) {
	parsed, _ := priority.Parse(name)
	e := newEntry(name, parsed, n)
	_, err := q.lanes.commitOnce(ctx, nil, []coord.Op{coord.Delete(n.Path, n.Fence)}, nil)
	switch {
	case err == nil:
		return e, nil
	case retry.IsRefused(err):
		return Entry{}, errUnavailable
	case errors.Is(err, ErrUnknown):
		return e, fmt.Errorf("remove %s: %w", name, err)
	}
	return Entry{}, fmt.Errorf("remove %s: %w", name, err)
}

// Len returns the number of entries that there were at an instant during the call.
func (q *Queue) Len(ctx context.Context) (n int, err error) {
	err = q.handle.Do(ctx, func(ctx context.Context, s coord.Session) error {
		n = 0
		return q.inspect.eachName(ctx, s, func(string) error { n++; return nil })
	})
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", q.handle.Root, err)
	}
	return n, nil
}

// Close ends waiting gets with [ErrClosed] and returns when the handle's goroutines have
// ended, or after a second. A second Close does nothing.
func (q *Queue) Close() error {
	q.handle.End()
	q.head.Close()
	q.close()
	return nil
}
