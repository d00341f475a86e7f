package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// Held is an entry that the caller holds and works on. Other processes skip it until the
// caller finishes it (Consume, Release, Fail, Bury, Forward) or the session ends. Its methods
// may be called from several goroutines. It must not be copied.
type Held struct {
	Name     string
	Value    []byte
	Priority int

	// Deliveries counts how often the entry was handed out, including this time: 1 at
	// first. Deliveries that ended in a crash count; takes by kazoo do not.
	Deliveries int
	// Failures counts the earlier deliveries that ended in [Held.Fail].
	Failures int
	// Token is a fencing token for work outside the queue: a later holder of the same entry
	// has a greater one. A store that refuses a token smaller than the greatest it has seen
	// is safe from a holder that lost its lock and does not know it.
	Token int64
	// Created is when the entry was put, by the clock of the service (ZooKeeper) or of the
	// process that put it (etcd).
	Created time.Time

	claimer *claimer    // of the queue handle; nil: the Held was not made by a take
	entry   string      // the path of its node
	fence   coord.Fence // of the entry, as the claim left it

	headers  layout.Headers
	born     int64 // the commit that created the entry
	stuck    int   // earlier deliveries in which a handler got stuck
	changes  int64 // of the entry, before the claim
	bumps    int64 // changes that the claim added: 1, or 0 if it moved no fence
	updates  int64 // how many this Held made
	updating int64 // the number of the update without an answer; 0: there is none

	sem            chan struct{}      // one-token lock of a finish or an update; guards the fields below
	past           history            // what became of earlier deliveries
	isHistoryKnown bool               // past was read
	unanswered     unansweredFinishes // finishes without an answer
	*hold
}

// unansweredFinishes is what a Held knows of its finishes that were sent and not answered.
// Such a finish may have been applied, or may still be, as long as the session lives. The
// next attempt at any finish finds out; see nextStep.
type unansweredFinishes struct {
	act          string // of the last one; "" if there is none
	severalKinds bool   // they are not all of the same kind
	givesBack    bool   // one of them gives the entry back
}

// hold is the part of a Held that its queue handle remembers. It does not keep the Held
// reachable: the garbage collector finds out when the program has dropped it.
type hold struct {
	name  string
	lock  *lock.Lock
	state atomic.Int32 // a heldState
	tried atomic.Bool  // a finish was tried
}

// claimer is what claims and finishes use of their queue handle. It claims entries, and
// remembers those that it holds.
type claimer struct {
	*handle.Handle
	holder        lock.Holder
	log           Logger       // may be nil
	warn          func(string) // may be nil
	strict        bool
	maxDeliveries int

	head     *head.Head
	keeper   *lock.Keeper
	holds    map[string]*hold // entries that were handed out and are not finished; guarded by handle.mu
	deferred *head.Resting    // entries that this handle gave back with After

	finder  *finder
	history *histories
	keys    *keys
	puts    *putter
	traces  *traces
}

// warnOfDropped warns of a Held that the program dropped without finishing it. A goroutine of
// the runtime calls it when the garbage collector has found that out.
func (c *claimer) warnOfDropped(d *hold) {
	if d.state.Load() == stateHolding && !d.tried.Load() {
		c.WarnOnce(path.Join(c.Entries, d.name), "was taken and dropped without Consume, Release, Fail or Bury: it stays held as long as this session lasts")
	}
}

type heldState = int32

const (
	stateHolding heldState = iota
	stateDone              // this Held finished the entry
	stateLost              // the lock is certainly lost
)

// addHold remembers an entry that is handed out. It returns the hold that it replaces, if the
// same entry was handed out before and never finished.
func (c *claimer) addHold(h *hold) (old *hold) {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	old = c.holds[h.name]
	c.holds[h.name] = h
	if len(c.holds)%1024 == 0 { // forget those whose sessions are over
		for name, h := range c.holds {
			if handle.IsOver(h.lock.Session()) {
				delete(c.holds, name)
			}
		}
	}
	return old
}

// holdsLock reports whether the lock is that of an entry that was handed out.
func (c *claimer) holdsLock(name string, l *lock.Lock) bool {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	h := c.holds[name]
	return h != nil && h.lock.Session() == l.Session() && h.lock.Revision() == l.Revision()
}

func (c *claimer) countHolds() int {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	return len(c.holds)
}

func (c *claimer) removeHold(h *hold) {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	if c.holds[h.name] == h {
		delete(c.holds, h.name)
	}
}

// recall reads the history of the entry, and the node of its unique key.
func (h *Held) recall(ctx context.Context) error {
	s := h.lock.Session()
	a, err := h.claimer.history.readHistory(ctx, s, h.Name)
	if err == nil {
		var key coord.Node
		key, err = h.claimer.keys.ownKey(ctx, s, h.headers, h.born)
		a.key, a.keyFence = key.Path, key.Fence
	}
	if err == nil {
		h.past, h.isHistoryKnown = a, true
	}
	return err
}

// deliveries returns how often the entry was handed out, this time included.
func (h *Held) deliveries() int { return int(h.changes-h.past.Updates+h.updates) + 1 }

// isMovedByUpdate reports whether the entry's fence was moved by the update without an
// answer, and by nothing else. The count was read before the entry: a second change in
// between would show.
func (h *Held) isMovedByUpdate(n coord.Node) bool {
	return h.updating > 0 && h.past.Updates == h.updating && n.Changes == h.changes+h.bumps+h.updates+1
}

// adoptFence goes on with the fence that an update left.
func (h *Held) adoptFence(f coord.Fence) {
	atomic.StoreInt64((*int64)(&h.fence), int64(f))
	h.updates++
	h.updating, h.isHistoryKnown = 0, false
}

// at returns the entry's fence.
func (h *Held) at() coord.Fence { return coord.Fence(atomic.LoadInt64((*int64)(&h.fence))) }

// adoptUpdate reports whether a finish was refused because an update without an answer was
// applied. Then the finish is made again, at the fence that the update left.
func (h *Held) adoptUpdate(ctx context.Context) (bool, error) {
	if h.updating == 0 {
		return false, nil
	}
	if err := h.recall(ctx); err != nil {
		return false, err
	}
	n, err := h.lock.Session().Get(ctx, h.entry)
	if err != nil || !h.isMovedByUpdate(n) {
		if errors.Is(err, coord.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	h.adoptFence(n.Fence)
	return true, nil
}

// end notes that the entry is not in hand any more, and whether this handle removed it.
func (h *Held) end(state heldState, wasRemoved bool) {
	h.state.Store(state)
	if wasRemoved {
		h.claimer.head.Suppressed.Add(h.Name, head.WasRemoved)
	}
	h.claimer.removeHold(h.hold)
	if state == stateLost { // the keeper leaves it to the finish to tell
		h.claimer.keeper.Lose(h.lock)
	}
	if !wasRemoved {
		h.claimer.head.Suppressed.Remove(h.Name)
		h.claimer.head.Resting.Signal() // takes skipped the entry meanwhile
	}
}

// HoldsLock asks the service whether this Held still holds the entry. The answer may be out
// of date when it arrives. No write of the queue depends on it.
func (h *Held) HoldsLock(ctx context.Context) (bool, error) {
	if ctx == nil {
		return false, fmt.Errorf("nil context: %w", ErrInvalid)
	}
	if h.claimer == nil {
		return false, nil
	}
	if h.state.Load() != stateHolding {
		return false, nil
	}
	return h.lock.Holds(ctx)
}

// Context returns a context for the work. It ends with parent, and with the cause
// [ErrLockLost] when the lock is lost. When the session is lost it ends, by this machine's
// clock, before the service hands the entry to another process. When an operator breaks the
// lock it ends about a second later. Call cancel when the work is done.
func (h *Held) Context(parent context.Context) (ctx context.Context, cancel context.CancelFunc) {
	if parent == nil {
		ctx, end := context.WithCancelCause(context.Background())
		end(fmt.Errorf("nil context: %w", ErrInvalid))
		return ctx, func() {}
	}
	if h.claimer == nil {
		ctx, lose := context.WithCancelCause(parent)
		lose(ErrLockLost)
		return ctx, func() {}
	}
	return h.claimer.keeper.Context(parent, h.lock)
}

// history is what an entry's earlier deliveries came to, and the node that says so. The
// holder of the entry writes the node in the commit that gives the entry back, and the
// commit that removes the entry removes it. So it does not change while the entry is held.
type history struct {
	layout.History

	path     string
	fence    coord.Fence
	revision int64 // of the commit that wrote the node
	exists   bool  // the node does

	key      string // the node of the key that the entry stands for, "" if for none
	keyFence coord.Fence
}

// histories reads and sweeps the histories of a queue's entries.
type histories struct {
	*handle.Handle
	swept atomic.Int64 // Unix nanoseconds of the last sweep by this handle; 0: none yet
}

// readHistory reads the history of an entry; it is empty where there is no node.
func (hs *histories) readHistory(ctx context.Context, s coord.Session, name string) (history, error) {
	h := history{path: path.Join(hs.Root, layout.HistoryDir, name)}
	n, err := s.Get(ctx, h.path)
	if errors.Is(err, coord.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return h, fmt.Errorf("read what became of %s before: %w", name, err)
	}
	return parseHistory(n), nil
}

// parseHistory returns the history in a node.
func parseHistory(n coord.Node) history {
	return history{History: layout.ParseHistory(n.Value), path: n.Path, fence: n.Fence, revision: n.Revision, exists: true}
}

// readHistoriesUpTo reads the histories of the entries after one name, up to another.
func (hs *histories) readHistoriesUpTo(ctx context.Context, s coord.Session, after, last string) (map[string]history, error) {
	known := make(map[string]history)
	for after < last {
		l, err := s.List(ctx, path.Join(hs.Root, layout.HistoryDir), coord.ListOptions{After: after, Limit: handle.NodesPage, Values: true, Fresh: true})
		if err != nil {
			return nil, err
		}
		for _, n := range l.Nodes {
			after = path.Base(n.Path)
			known[after] = parseHistory(n)
		}
		if !l.More {
			break
		}
	}
	return known, nil
}

// writeOp returns the op that stores h.
func (h history) writeOp() coord.Op {
	if h.exists {
		return coord.Set(h.path, h.Value(), h.fence)
	}
	return coord.Create(h.path, h.Value())
}

// removeOps returns the ops to commit together with the removal of the entry.
func (h history) removeOps() (ops []coord.Op) {
	if h.exists {
		ops = append(ops, coord.Delete(h.path, h.fence))
	}
	if h.key != "" {
		ops = append(ops, coord.Delete(h.key, h.keyFence))
	}
	return ops
}

// handOverOps returns the ops to commit together with the removal of the entry and the puts
// of its results. If a put has the entry's own unique key, the key's node is written instead
// of removed: from then on it belongs to the new entry.
func (h history) handOverOps(puts []coord.Op) []coord.Op {
	for i, op := range puts {
		if h.key != "" && op.Path == h.key {
			puts[i] = coord.Set(h.key, op.Value, h.keyFence)
			h.key = ""
		}
	}
	return append(h.removeOps(), puts...)
}

// sweepEvery is how often a handle that gives entries back looks for histories whose entry
// is gone: kazoo's consume leaves them behind.
const sweepEvery = time.Hour

// sweepIfDue sweeps in the background, if it is time.
func (hs *histories) sweepIfDue(s coord.Session) {
	now := time.Now().UnixNano()
	if hs.swept.CompareAndSwap(0, now) {
		return
	}
	last := hs.swept.Load()
	if now-last < int64(sweepEvery) || !hs.swept.CompareAndSwap(last, now) || hs.IsClosed() {
		return
	}
	hs.Spawn(func() { hs.sweepHistories(hs.Life, s) })
}

// sweepHistories removes histories whose entry is gone. No name among the entries is created
// twice, so an entry that does not exist never will. After an error, a later sweep goes on.
func (hs *histories) sweepHistories(ctx context.Context, s coord.Session) {
	for page, err := range handle.Pages(ctx, s, path.Join(hs.Root, layout.HistoryDir), coord.ListOptions{Limit: handle.NodesPage, Values: true}) {
		if err != nil {
			return
		}
		for _, n := range page {
			name := path.Base(n.Path)
			if _, ok := priority.Parse(name); !ok {
				continue // another client's node
			}
			_, err := s.Get(ctx, path.Join(hs.Entries, name))
			if err == nil {
				continue
			}
			if errors.Is(err, coord.ErrNotExist) {
				_, err = s.Commit(ctx, coord.Delete(n.Path, n.Fence))
			}
			if err != nil && !retry.IsRefused(err) {
				return
			}
		}
	}
}
