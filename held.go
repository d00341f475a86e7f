package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
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

	turn    chan struct{} // holds one while a call is finishing
	past    history
	known   bool   // past is
	unknown string // the finish that was sent and not answered last, if one was
	several bool   // finishes of several kinds were
	back    bool   // one of them gives the entry back
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
func (p *place) dropped(d *hold) {
	if d.state.Load() == stateHolding && !d.tried.Load() {
		p.warnOnce(path.Join(p.entries, d.name), "was taken and dropped without Consume, Release, Fail or Bury: it stays held as long as this session lasts")
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
		act: "consume", entry: coord.Delete(h.entry, h.at()), ours: h.removed,
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
		ours: h.unlessBroken,
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
		ours: h.unlessBroken,
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

// finish is how a hold ends: one commit of what becomes of the entry, of giving
// back the lock, and of what goes with it. When an answer was lost it is made
// again: the fence lets the two apply once.
type finish struct {
	act    string
	entry  coord.Op
	lock   coord.Op // what becomes of it; without one it is given back
	beside func(context.Context) ([]coord.Op, error)
	// ours says whether a refusal, after an attempt without an answer, means that
	// attempt was applied; its error, that nobody can know.
	ours func(context.Context, *coord.Refusal) (bool, error)
	// refused says what a refusal of what goes with it means: nil if it is to be made
	// again. Without one it is.
	refused func(context.Context, *coord.Refusal) error
}

// errBroken says that an operator took an entry from its holder.
var errBroken = errors.New("its lock was broken by hand")

// unlessBroken takes a refusal for the success of an earlier attempt: while the
// session lives, only this handle's commits remove its lock, or a hand.
func (h *Held) unlessBroken(ctx context.Context, _ *coord.Refusal) (bool, error) {
	broken, err := h.queue.wasBroken(ctx, h.lock.Session(), h.Name, h.lock.Revision())
	if broken {
		err = errBroken
	}
	return err == nil, err
}

// removed is unlessBroken for what removes the entry. A moved fence means that
// another holds it, and a missing lock that it was taken away before any attempt
// arrived.
func (h *Held) removed(ctx context.Context, r *coord.Refusal) (bool, error) {
	if r.Index != 0 || !errors.Is(r, coord.ErrNotExist) {
		return false, nil
	}
	return h.unlessBroken(ctx, r)
}

// recall reads what became of the entry before.
func (h *Held) recall(ctx context.Context) error {
	s := h.lock.Session()
	a, err := h.queue.readHistory(ctx, s, h.Name)
	if err == nil {
		var key coord.Node
		key, err = h.queue.ownKey(ctx, s, h.headers, h.born)
		a.key, a.keyFence = key.Path, key.Fence
	}
	if err == nil {
		h.past, h.known = a, true
	}
	return err
}

// send makes the commit of a finish.
func (h *Held) send(ctx context.Context, f finish) error {
	if !h.known {
		if err := h.recall(ctx); err != nil {
			return err
		}
	}
	var beside []coord.Op
	var err error
	if !over(h.lock.Session()) { // else what goes with it may ask in the next one, and wait for that
		if beside, err = f.beside(ctx); err != nil {
			return err
		}
	}
	f.entry.Fence = h.fence
	if f.entry.Kind == coord.KindDelete { // this handle passes over what it removed
		f.entry.SignalLater, f.lock.SignalLater = true, true
	}
	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, beside...)...)
	return err
}

func (h *Held) finish(ctx context.Context, f finish) error {
	if h.queue == nil {
		return fmt.Errorf("%s: this Held was not made by a take: %w", f.act, ErrNotHeld)
	}
	if ctx == nil {
		return fmt.Errorf("%s %s: nil context: %w", f.act, h.entry, ErrInvalid)
	}
	// The turn first, also when ctx has ended: who has it knows whether a finish is in doubt.
	select {
	case h.turn <- struct{}{}:
	default:
		select {
		case h.turn <- struct{}{}:
			h.queue.woke(ctx)
		case <-ctx.Done():
			h.queue.woke(ctx)
			return fmt.Errorf("%s %s: %w", f.act, h.entry, ctx.Err())
		}
	}
	defer func() { <-h.turn }()
	end := func(state heldState, err error) error {
		h.end(state, err == nil && f.entry.Kind == coord.KindDelete)
		if err != nil {
			err = fmt.Errorf("%s %s: %w", f.act, h.entry, err)
		}
		return err
	}
	// inDoubt: nobody can tell whether the finish was applied. When an operator broke the
	// lock, asking again tells no more: the entry is not held.
	inDoubt := func(doubt error) error {
		err := fmt.Errorf("%w: %w", ErrUnknown, doubt)
		if errors.Is(doubt, errBroken) {
			return end(stateLost, err)
		}
		return fmt.Errorf("%s %s: %w", f.act, h.entry, err)
	}
	switch h.state.Load() {
	case stateDone:
		return end(stateDone, ErrAlreadyDone)
	case stateLost:
		return end(stateLost, ErrLockLost)
	}
	h.tried.Store(true)
	s := h.lock.Session()
	if f.lock.Kind == 0 {
		f.lock = h.lock.GiveBack()
	}
	h.lock.Settling(true)
	for backoff := h.queue.backoff(actFinish); ; {
		err := h.send(ctx, f)
		var r *coord.Refusal
		if errors.As(err, &r) && r.Index == 0 {
			if moved, doubt := h.moved(ctx); moved {
				continue
			} else if doubt != nil {
				err, r = doubt, nil
			}
		}
		switch {
		case err == nil:
			backoff.Succeeded()
			return end(stateDone, nil)
		case r != nil && r.Index > 1:
			// Entry and lock stand as the claim left them: somebody else has
			// been at what goes with them.
			h.known = false
			if f.refused == nil {
				break
			}
			if err := f.refused(ctx, r); err != nil {
				h.lock.Settling(h.unknown != "")
				return fmt.Errorf("%s %s: %w", f.act, h.entry, h.stillHeld(err))
			}
		case r != nil && h.unknown == f.act:
			mine, doubt := f.ours(ctx, r)
			switch {
			case doubt != nil:
				return inDoubt(doubt)
			case mine && h.several:
				return end(stateDone, fmt.Errorf("%w: this or an earlier finish was applied", ErrUnknown))
			case mine:
				return end(stateDone, nil)
			}
			return end(stateLost, ErrLockLost)
		case r != nil && h.unknown != "" && !errors.Is(r, coord.ErrVersion) && (r.Index == 0 || h.back):
			if _, doubt := h.unlessBroken(ctx, r); doubt != nil {
				return inDoubt(doubt)
			}
			return end(stateDone, ErrAlreadyDone) // the other finish, whose answer was lost, was applied
		case r != nil, retry.NothingSent(err) && h.unknown == "":
			return end(stateLost, ErrLockLost)
		case errors.Is(err, coord.ErrUnknown):
			h.several = h.several || h.unknown != "" && h.unknown != f.act
			h.back = h.back || f.entry.Kind == coord.KindCheck
			h.unknown = f.act
		case h.unknown == "" && !errors.Is(err, coord.ErrBusy), errors.Is(err, ErrTooLarge):
			h.lock.Settling(h.unknown != "")
			return fmt.Errorf("%s %s: %w", f.act, h.entry, err)
		}
		if werr := backoff.Wait(ctx, s.Done(), err); werr != nil || errors.Is(err, coord.ErrClosed) {
			if h.unknown == "" { // nothing was changed
				h.lock.Settling(false)
				return fmt.Errorf("%s %s: %w: %w", f.act, h.entry, werr, err)
			}
			if !errors.Is(err, ErrUnknown) {
				err = fmt.Errorf("%w: %w", ErrUnknown, err)
			}
			return fmt.Errorf("%s %s: %w", f.act, h.entry, err)
		}
	}
}

// end notes that the entry is not in hand any more, and whether it was removed.
func (h *Held) end(state heldState, gone bool) {
	h.state.Store(state)
	if gone {
		h.queue.head.Suppressed.Add(h.Name, head.WasRemoved)
	}
	h.queue.holding.remove(h.hold)
	if state == stateLost { // the keeper leaves it to the finish to tell
		h.queue.keeper.Lose(h.lock)
	}
	if !gone {
		h.queue.head.Suppressed.Remove(h.Name)
		h.queue.resting.Signal() // takes passed over the entry meanwhile
	}
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
