package zkq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/lock"
)

// Held is an entry that the caller works on. Others see it as held and leave it
// alone, until the caller consumes or releases it, or its session ends. Its
// methods may be called from several goroutines. It must not be copied.
type Held struct {
	Name     string
	Value    []byte
	Priority int

	// Deliveries counts how often the entry was handed out, this time included:
	// 1 at first. Crashes count; kazoo's takes do not.
	Deliveries int
	// Failures counts the deliveries that ended in a failure.
	Failures int
	// Token is a fencing token for work outside the queue: of two holders of
	// one entry the later has the greater one. A store that refuses tokens
	// smaller than the greatest it has seen is safe from holders that lost
	// their lock and do not know it.
	Token int64
	// Created is when the entry was put, by the coordinator's clock (ZooKeeper)
	// or the putter's (etcd).
	Created time.Time

	queue *LockingQueue
	lock  *lock.Lock
	entry string
	fence coord.Fence // of the entry, as the claim left it

	turn    chan struct{} // holds one while a call is finishing
	unknown string        // the finish that was sent and not answered, if one was
	state   atomic.Int32  // a heldState
}

type heldState = int32

const (
	stateHolding heldState = iota
	stateDone              // consumed or released, by this handle
	stateLost              // it is certain that the lock was lost
)

// holding are the entries that a queue handle has handed out and knows nothing
// else of.
type holding struct {
	mu     sync.Mutex
	byName map[string]*Held
}

// add returns the one that it replaces, if the same entry was handed out before
// and never finished.
func (o *holding) add(h *Held) (old *Held) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old = o.byName[h.Name]
	o.byName[h.Name] = h
	if len(o.byName)%1024 == 0 { // those whose holders went away with their sessions
		for name, h := range o.byName {
			if over(h.lock.Session()) {
				delete(o.byName, name)
			}
		}
	}
	return old
}

func (o *holding) remove(h *Held) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byName[h.Name] == h {
		delete(o.byName, h.Name)
	}
}

// Consume removes the entry: the work is done. One commit deletes entry and
// lock, and only as this handle's claim left them.
//
// nil: removed, by this call. [ErrLockLost]: the entry was not held any more
// and this call removed nothing. [ErrAlreadyDone]: the handle was used up
// before; nothing was sent. [ErrUnknown]: no answer came before ctx or the
// session ended; the entry may have been removed, or may be handed out again. It
// was certainly removed by no one else in this call's name, and Consume may be
// called again to learn more. After any other error nothing was changed and
// the entry is still held. A lost answer is asked for again as long as ctx and
// session last.
func (h *Held) Consume(ctx context.Context) error {
	return h.finish(ctx, "consume", coord.Delete(h.entry, h.fence), func(r *coord.Refusal) (bool, error) {
		// A moved fence means that another holds it, and a missing lock that it
		// was taken away before any attempt arrived. Only this handle's commits
		// remove the entry at its fence while the session lives, unless it was
		// taken away by hand.
		if r.Index != 0 || !errors.Is(r, coord.ErrNotExist) {
			return false, nil
		}
		broken, err := h.queue.wasBroken(ctx, h.lock.Session(), h.Name)
		if broken {
			err = errors.New("somebody broke its lock, and it is gone")
		}
		return err == nil, err
	})
}

// ReleaseOption changes a release.
type ReleaseOption func(*releaseOptions)

type releaseOptions struct{ alone time.Duration }

// LeaveAlone keeps this handle's takes from the entry for d. Others may take it
// at once.
func LeaveAlone(d time.Duration) ReleaseOption {
	return func(o *releaseOptions) { o.alone = d }
}

// Release gives the entry back, undone: it stands in its old place at once, for
// anyone. Errors are those of Consume; after [ErrUnknown] the entry is given back
// or will be when the session ends.
func (h *Held) Release(ctx context.Context, opts ...ReleaseOption) error {
	var o releaseOptions
	for _, set := range opts {
		set(&o)
	}
	if o.alone > 0 && h.queue != nil {
		h.queue.skip.add(h.Name, o.alone)
	}
	err := h.finish(ctx, "release", coord.Check(h.entry, h.fence), func(*coord.Refusal) (bool, error) {
		return true, nil // the lock is gone, or the entry has moved on: not ours either way
	})
	if err != nil && o.alone > 0 && h.queue != nil {
		h.queue.skip.remove(h.Name)
	}
	return err
}

// finish commits op together with giving back the lock. When an answer was lost
// it commits again: the fence lets the two apply once. ours says whether a
// refusal, after an attempt without an answer, means that attempt was applied; its
// error, that nobody can know.
func (h *Held) finish(ctx context.Context, act string, op coord.Op, ours func(*coord.Refusal) (bool, error)) error {
	if h.queue == nil {
		return fmt.Errorf("%s: this Held was not made by a take: %w", act, ErrNotHeld)
	}
	if ctx == nil {
		return fmt.Errorf("%s %s: nil context: %w", act, h.entry, ErrInvalid)
	}
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", act, h.entry, ctx.Err())
	}
	end := func(state heldState, err error) error {
		h.state.Store(state)
		h.queue.holding.remove(h)
		if err != nil {
			err = fmt.Errorf("%s %s: %w", act, h.entry, err)
		}
		return err
	}
	switch h.state.Load() {
	case stateDone:
		return end(stateDone, ErrAlreadyDone)
	case stateLost:
		return end(stateLost, ErrLockLost)
	}
	s := h.lock.Session()
	h.lock.Settling(true)
	for pause := newPause(); ; {
		_, err := s.Commit(ctx, op, h.lock.GiveBack())
		var r *coord.Refusal
		switch {
		case err == nil:
			return end(stateDone, nil)
		case errors.As(err, &r) && h.unknown == act:
			mine, doubt := ours(r)
			switch {
			case doubt != nil:
				return fmt.Errorf("%s %s: %w: %w", act, h.entry, ErrUnknown, doubt)
			case mine:
				return end(stateDone, nil)
			}
			return end(stateLost, ErrLockLost)
		case r != nil && h.unknown != "" && !errors.Is(r, coord.ErrVersion):
			return end(stateDone, ErrAlreadyDone) // the other finish, whose answer was lost, was applied
		case r != nil, lostBefore(err) && h.unknown == "":
			return end(stateLost, ErrLockLost)
		case errors.Is(err, coord.ErrUnknown):
			h.unknown = act
		case h.unknown == "" && !errors.Is(err, coord.ErrBusy):
			h.lock.Settling(false)
			return fmt.Errorf("%s %s: %w", act, h.entry, err)
		}
		if werr := pause.wait(ctx, s.Done()); werr != nil || errors.Is(err, coord.ErrClosed) {
			if h.unknown == "" { // it was busy, and nothing was changed
				h.lock.Settling(false)
				return fmt.Errorf("%s %s: %w: %w", act, h.entry, werr, err)
			}
			if !errors.Is(err, ErrUnknown) {
				err = fmt.Errorf("%w: %w", ErrUnknown, err)
			}
			return fmt.Errorf("%s %s: %w", act, h.entry, err)
		}
	}
}

// HoldsLock asks the coordinator whether the entry is still held by this handle.
// The answer may be out of date when it arrives; no write of the queue depends
// on it.
func (h *Held) HoldsLock(ctx context.Context) (bool, error) {
	if h.queue == nil {
		return false, nil
	}
	if h.state.Load() != stateHolding {
		return false, nil
	}
	return h.lock.Holds(ctx)
}

// Context returns a context for the work: it ends with the cause [ErrLockLost]
// when the lock is lost, and with parent. It ends before the coordinator hands
// the entry to another when the session is lost, by this machine's clock, and a
// second or so after somebody broke the lock. Call cancel when the work is done.
func (h *Held) Context(parent context.Context) (ctx context.Context, cancel context.CancelFunc) {
	if h.queue == nil {
		ctx, lose := context.WithCancelCause(parent)
		lose(ErrLockLost)
		return ctx, func() {}
	}
	return h.queue.keeper.Context(parent, h.lock)
}
