package zkq

import (
	"context"
	"fmt"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
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
	// Failures counts the earlier deliveries that ended in [Held.Fail].
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
	entry string
	fence coord.Fence // of the entry, as the claim left it

	headers  layout.Headers
	born     int64 // the commit that created the entry
	stuck    int   // earlier deliveries in which its handler got stuck
	updates  int64 // that this handle made
	updating int64 // the number of the one without an answer; 0: there is none
	changes  int64 // of the entry, before the claim
	bumps    int64 // that the claim added to them

	sem        chan struct{} // one-token lock of a finish or an update; guards the fields below
	past       history
	known      bool       // past is
	unanswered unanswered // finishes without an answer
	*hold
}

// hold is what is known of a Held when the Held itself is no longer reachable.
type hold struct {
	name  string
	lock  *lock.Lock
	state atomic.Int32 // a heldState
	tried atomic.Bool  // a finish was
}

// dropped warns of a Held that the program lost without finishing it. It is called when the
// garbage collector has found that out, by a goroutine of the runtime's.
func (h *handle) dropped(d *hold) {
	if d.state.Load() == stateHolding && !d.tried.Load() {
		h.warnOnce(path.Join(h.entries, d.name), "was taken and dropped without Consume, Release, Fail or Bury: it stays held as long as this session lasts")
	}
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
	byName map[string]*hold // not the Held, which the collector could never find unreachable then
}

// add returns the one that it replaces, if the same entry was handed out before
// and never finished.
func (o *holding) add(h *hold) (old *hold) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old = o.byName[h.name]
	o.byName[h.name] = h
	if len(o.byName)%1024 == 0 { // those whose holders went away with their sessions
		for name, h := range o.byName {
			if over(h.lock.Session()) {
				delete(o.byName, name)
			}
		}
	}
	return old
}

// holds says whether the lock is of an entry that was handed out.
func (o *holding) holds(name string, l *lock.Lock) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.byName[name]
	return h != nil && h.lock.Session() == l.Session() && h.lock.Revision() == l.Revision()
}

func (o *holding) len() int {
	if o == nil {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.byName)
}

func (o *holding) remove(h *hold) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byName[h.name] == h {
		delete(o.byName, h.name)
	}
}

// Consume removes the entry: the work is done. One commit deletes entry and
// lock, and only as this handle's claim left them.
//
// nil: removed, by this call. [ErrLockLost]: the entry was not held any more
// and this call removed nothing. [ErrAlreadyDone]: the handle was used up
// before, by an earlier call. [ErrUnknown]: no answer came before ctx or the
// session ended; the entry may have been removed, or may be handed out again. It
// was certainly removed by no one else in this call's name, and Consume may be
// called again to learn more. After any other error nothing was changed and
// the entry is still held. A lost answer is asked for again as long as ctx and
// session last.
func (h *Held) Consume(ctx context.Context) error {
	return h.finish(ctx, h.consumption())
}

func (h *Held) consumption() finish {
	return finish{
		act: "consume", entry: coord.Delete(h.entry, h.at()), wasApplied: h.wasRemoved,
		beside: func(context.Context) ([]coord.Op, error) { return h.past.forget(), nil },
	}
}

// ReleaseOption changes a release.
type ReleaseOption func(*releaseOptions)

type releaseOptions struct{ alone, after time.Duration }

// LeaveAlone keeps this handle's takes from the entry for d. Others may take it
// at once.
func LeaveAlone(d time.Duration) ReleaseOption {
	return func(o *releaseOptions) { o.alone = d }
}

// After puts the entry aside for d, of at most some two centuries: it keeps its name and
// its place, nobody is handed it, and then it is ready again. That is so whatever becomes of
// this process: whichever handle of a [LockingQueue] takes then makes it ready. When it is
// due is by this machine's clock, and judged by the other's. A d of 0 or less is no delay.
func After(d time.Duration) ReleaseOption {
	return func(o *releaseOptions) { o.after = d }
}

// Release gives the entry back, undone: it stands in its old place at once, for
// anyone. This delivery was nobody's fault, and [MaxDeliveries] does not count it. Errors are
// those of Consume. After [ErrUnknown] the entry is given back or will be when the session
// ends, unless an operator removed it.
func (h *Held) Release(ctx context.Context, opts ...ReleaseOption) error {
	return h.giveBack(ctx, h.release(), opts)
}

func (h *Held) release() finish {
	return finish{
		act: "release", entry: coord.Check(h.entry, h.at()),
		beside: func(context.Context) ([]coord.Op, error) {
			a := h.past
			if a.Forgiven += h.bumps; h.bumps == 0 {
				return nil, nil
			}
			return []coord.Op{a.write()}, nil
		},
		wasApplied: h.unlessBroken,
	}
}

// Fail gives the entry back as Release does, and counts a failure, with the
// beginning of its reason. Errors are those of Consume; after [ErrUnknown] it is
// given back or will be when the session ends, and counted or not.
func (h *Held) Fail(ctx context.Context, reason string, opts ...ReleaseOption) error {
	return h.fail(ctx, reason, false, opts)
}

// fail is Fail, which also counts that the handler got stuck.
func (h *Held) fail(ctx context.Context, reason string, stuck bool, opts []ReleaseOption) error {
	return h.giveBack(ctx, finish{
		act: "fail", entry: coord.Check(h.entry, h.at()),
		beside: func(context.Context) ([]coord.Op, error) {
			a := h.past
			a.Failures++
			if stuck {
				a.Stuck++
			}
			a.Reason = layout.CutText(reason, layout.MaxReason)
			return []coord.Op{a.write()}, nil
		},
		wasApplied: h.unlessBroken,
	}, opts)
}

// giveBack is a finish after which the entry stands there.
func (h *Held) giveBack(ctx context.Context, f finish, opts []ReleaseOption) error {
	var o releaseOptions
	for _, set := range opts {
		set(&o)
	}
	if o.after > 0 && h.queue != nil {
		var err error
		if f, err = h.aside(f, o.after); err != nil {
			return fmt.Errorf("%s %s: %w", f.act, h.entry, err)
		}
	}
	if o.alone > 0 && h.queue != nil {
		h.queue.resting.Add(h.Name, o.alone)
	}
	err := h.finish(ctx, f)
	if err != nil && o.alone > 0 && h.queue != nil {
		h.queue.resting.Remove(h.Name)
	}
	if err == nil && o.after > 0 {
		h.queue.deferred.Add(h.Name, o.after)
	}
	if err == nil {
		h.queue.sweepHistoriesIfDue(h.lock.Session())
	}
	return err
}

// recall reads what became of the entry before.
func (h *Held) recall(ctx context.Context) error {
	s := h.lock.Session()
	a, err := h.queue.history.readHistory(ctx, s, h.Name)
	if err == nil {
		var key coord.Node
		key, err = h.queue.keys.ownKey(ctx, s, h.headers, h.born)
		a.key, a.keyFence = key.Path, key.Fence
	}
	if err == nil {
		h.past, h.known = a, true
	}
	return err
}

// HoldsLock asks the coordinator whether the entry is still held by this handle.
// The answer may be out of date when it arrives; no write of the queue depends
// on it.
func (h *Held) HoldsLock(ctx context.Context) (bool, error) {
	if ctx == nil {
		return false, fmt.Errorf("nil context: %w", ErrInvalid)
	}
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
	if parent == nil {
		ctx, end := context.WithCancelCause(context.Background())
		end(fmt.Errorf("nil context: %w", ErrInvalid))
		return ctx, func() {}
	}
	if h.queue == nil {
		ctx, lose := context.WithCancelCause(parent)
		lose(ErrLockLost)
		return ctx, func() {}
	}
	return h.queue.keeper.Context(parent, h.lock)
}
