package zkq

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// kazoo's LockingQueue has one current entry: get returns it, and consume and release finish
// it. The methods in this file are kazoo's, with the same names. Each says where it differs
// from kazoo's. They run one at a time, under kazooMu, and use only what Take and a [Held]
// offer.

// Get is kazoo's get(timeout): it blocks until an entry is available, claims it and returns its
// value. While the handle still holds that entry, further calls return the same value at once;
// [LockingQueue.Consume] or [LockingQueue.Release] finishes it. It returns ctx's error when ctx
// ends, and [ErrClosed] after Close.
//
// kazoo returns None at the timeout, and None for an empty queue with get(timeout=0). Here ctx
// is the timeout. If the deadline of ctx has already passed, Get looks once, for at most five
// seconds, and returns [context.DeadlineExceeded] if no entry is available. A cancelled ctx
// ends Get at once.
//
// kazoo keeps returning the value of an entry whose lock was lost. Get asks the service whether
// the lock is still held; if not, it forgets the entry and takes another one.
func (q *LockingQueue) Get(ctx context.Context) (value []byte, err error) {
	if ctx == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return q.get(ctx, q.Take)
	}
	once, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookOnce)
	defer cancel()
	value, err = q.get(once, q.TryTake)
	if errors.Is(err, ErrEmpty) {
		err = ctx.Err()
	}
	return value, err
}

// lookOnce bounds the one look of a Get whose deadline has already passed.
const lookOnce = 5 * time.Second

// TryGet is kazoo's get(timeout=0): Get without waiting for entries. [ErrEmpty], where kazoo
// returns None, means that no entry was available at an instant during the call. [ErrPaused]
// means that the queue is paused; kazoo knows no pause.
func (q *LockingQueue) TryGet(ctx context.Context) ([]byte, error) { return q.get(ctx, q.TryTake) }

// get returns the value of the current entry while its lock is held. Otherwise it forgets that
// entry, and returns the value of the one that take returns.
func (q *LockingQueue) get(ctx context.Context, take func(context.Context) (*Held, error)) (value []byte, err error) {
	err = q.withKazooMu(ctx, func(ctx context.Context) error {
		if q.current != nil {
			holds, err := q.current.HoldsLock(ctx)
			if err != nil {
				return err
			}
			if holds {
				value = q.current.Value
				return nil
			}
		}
		q.current = nil
		h, err := take(ctx)
		if err != nil {
			return err
		}
		q.current, value = h, h.Value
		return nil
	})
	return value, err
}

// Consume is kazoo's consume: it removes the entry that Get returned. Without such an entry it
// returns [ErrNotHeld]; kazoo returns False.
//
// kazoo first checks the lock and then removes whatever stands at the entry's path. Between the
// two another worker may get the entry: kazoo removes it then, and returns True. Consume does
// both in one commit. If the lock was lost it removes nothing and returns [ErrLockLost]. Other
// errors are those of [Held.Consume]; after them a further call tries again.
func (q *LockingQueue) Consume(ctx context.Context) error {
	return q.withKazooMu(ctx, func(ctx context.Context) error {
		return q.finishCurrent(func(h *Held) error { return h.Consume(ctx) })
	})
}

// Release is kazoo's release: it gives back the entry that Get returned, which is ready in its
// old place at once. Without such an entry it returns [ErrNotHeld], and [ErrLockLost] if the
// lock was lost; kazoo returns False. Other errors are those of [Held.Release]; after them a
// further call tries again. kazoo checks the lock before it removes it. Release does both in
// one commit, and so never removes another worker's lock.
func (q *LockingQueue) Release(ctx context.Context) error {
	return q.withKazooMu(ctx, func(ctx context.Context) error {
		return q.finishCurrent(func(h *Held) error { return h.Release(ctx) })
	})
}

// HoldsLock is kazoo's holds_lock: it asks the service whether the handle still holds the entry
// that Get returned. It is false without such an entry. It is also false if the lock's node is
// gone, where kazoo raises NoNodeError. The answer may be out of date when it arrives; Consume
// and Release do not depend on it.
func (q *LockingQueue) HoldsLock(ctx context.Context) (holds bool, err error) {
	err = q.withKazooMu(ctx, func(ctx context.Context) error {
		if q.current != nil {
			holds, err = q.current.HoldsLock(ctx)
		}
		return err
	})
	return holds, err
}

// withKazooMu calls f with the lock of kazoo's methods. f's context ends when the handle is
// closed. It waits for the lock until ctx ends, and returns [ErrClosed] if the handle is closed.
func (q *LockingQueue) withKazooMu(ctx context.Context, f func(context.Context) error) error {
	if ctx == nil {
		return fmt.Errorf("nil context: %w", ErrInvalid)
	}
	if q.handle.Invalid != nil {
		return q.handle.Invalid
	}
	if q.handle.IsClosed() {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	bound, cancel := q.handle.Bound(ctx)
	defer cancel()
	select {
	case q.kazooMu <- struct{}{}:
		defer func() { <-q.kazooMu }()
		return q.handle.CallError(ctx, f(bound))
	case <-bound.Done():
		return q.handle.CallError(ctx, bound.Err())
	}
}

// finishCurrent finishes the current entry; [ErrNotHeld] if there is none. It forgets the entry
// once it is certainly not held any more. After other errors the entry stays current. The
// caller has kazooMu.
func (q *LockingQueue) finishCurrent(do func(*Held) error) error {
	if q.current == nil {
		return ErrNotHeld
	}
	err := do(q.current)
	if err == nil || errors.Is(err, ErrLockLost) || errors.Is(err, ErrAlreadyDone) {
		q.current = nil
	}
	return err
}
