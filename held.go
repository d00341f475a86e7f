package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/bulk"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// Held is an entry that the caller holds and works on. Other processes skip it until the
// caller finishes it (Consume, Release, Fail, Bury, Forward) or the session ends. A Held that
// is dropped without a finish stays held as long as the session lives. Its methods may be
// called from several goroutines. It must not be copied.
type Held struct {
	Name     string
	Value    []byte // as it was claimed, or as the last [Held.Update] left it
	Priority int    // 0 to 999; 0 is the most urgent

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
	fence   coord.Fence // of the entry, as the claim or the last update left it; atomic

	headers  layout.Headers // stored with the value: time to live and unique key
	born     int64          // the commit that created the entry
	stuck    int            // earlier deliveries in which a handler got stuck
	changes  int64          // of the entry, before the claim
	bumps    int64          // changes that the claim added: 1, or 0 if it moved no fence
	updates  int64          // how many this Held made
	updating int64          // the number of the update without an answer; 0: there is none

	sem            chan struct{}      // one-token lock of a finish or an update; guards the fields below
	past           history            // of earlier deliveries: failures, and those that do not count
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

// hold is the part of a Held that its queue handle remembers until the entry is finished. It
// does not point to the Held. So the garbage collector can find out that the program has
// dropped the Held, and the handle warns of that.
type hold struct {
	name           string       // of the entry
	lock           *lock.Lock   // as the claim created it
	state          atomic.Int32 // a heldState
	wasFinishTried atomic.Bool  // a finish was tried: a dropped Held is no mistake then
}

// claimer claims entries for one queue handle and remembers those that it holds. Takes,
// finishes and updates share it. An entry is in holds from its claim until its finish is known,
// and a claim in doubt is no hold yet.
type claimer struct {
	*handle.Handle
	holder        lock.Holder  // the value of this handle's locks
	log           Logger       // may be nil
	warn          func(string) // may be nil
	strict        bool         // see [Strict]
	maxDeliveries int          // see [MaxDeliveries]; 0: no limit

	head     *head.Head       // the queue's head as this handle sees it, and claims in flight
	keeper   *lock.Keeper     // watches held locks, and ends contexts when one is lost
	holds    map[string]*hold // entries that were handed out and are not finished; guarded by Mu
	deferred *head.Resting    // entries that this handle gave back with After

	finder  *finder    // knows the entries that this process may not read or write
	history *histories // of deliveries
	keys    *keys      // unique keys
	puts    *putter    // of [Held.Forward]
	traces  *traces    // tells whether an operator broke a lock
}

// warnOfDropped warns if the program dropped a Held without trying to finish it. A goroutine of
// the runtime calls it when the garbage collector has found that out.
func (c *claimer) warnOfDropped(d *hold) {
	if d.state.Load() == stateHolding && !d.wasFinishTried.Load() {
		c.WarnOnce(path.Join(c.Entries, d.name), "was taken and dropped without Consume, Release, Fail or Bury: it stays held as long as this session lasts")
	}
}

// heldState is how far a hold has come. It leaves stateHolding once, and never changes again.
type heldState = int32

const (
	stateHolding heldState = iota // as far as this process knows
	stateDone                     // this Held finished the entry
	stateLost                     // the lock is certainly lost
)

// addHold remembers an entry that is handed out. It returns the hold that it replaces, or nil:
// the same entry may have been handed out before, and its lock lost without a finish.
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

// holdsLock reports whether l is the lock of an entry that this handle handed out. If not, it
// belongs to a claim without an answer.
func (c *claimer) holdsLock(name string, l *lock.Lock) bool {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	h := c.holds[name]
	return h != nil && h.lock.Session() == l.Session() && h.lock.Revision() == l.Revision()
}

// countHolds returns how many entries this handle has handed out and not finished.
func (c *claimer) countHolds() int {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	return len(c.holds)
}

// removeHold forgets h, unless a later hold of the same entry has replaced it.
func (c *claimer) removeHold(h *hold) {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	if c.holds[h.name] == h {
		delete(c.holds, h.name)
	}
}

// readHistory reads the history of the entry and the node of its unique key into h.past. While the
// lock is held only an update of this Held changes them.
func (h *Held) readHistory(ctx context.Context) error {
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

// isMovedByUpdate reports whether the update without an answer moved the entry's fence, and
// nothing else did. The caller read the history's count of updates before the entry n. So a
// second change in between would show in n.
func (h *Held) isMovedByUpdate(n coord.Node) bool {
	return h.updating > 0 && h.past.Updates == h.updating && n.Changes == h.changes+h.bumps+h.updates+1
}

// adoptFence notes that an update was applied, which left the fence f. The update has also
// written the history, so that must be read again.
func (h *Held) adoptFence(f coord.Fence) {
	atomic.StoreInt64((*int64)(&h.fence), int64(f))
	h.updates++
	h.updating, h.isHistoryKnown = 0, false
}

// at returns the fence at which the next commit changes the entry.
func (h *Held) at() coord.Fence { return coord.Fence(atomic.LoadInt64((*int64)(&h.fence))) }

// adoptUpdate reports whether a commit was refused because an update without an answer was
// applied. Then it adopts the fence that the update left, and the caller makes the commit again.
func (h *Held) adoptUpdate(ctx context.Context) (bool, error) {
	if h.updating == 0 {
		return false, nil
	}
	if err := h.readHistory(ctx); err != nil {
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

// end notes that this Held does not hold the entry any more. wasRemoved says that this handle
// removed it: its takes then skip the entry even if a listing still shows it.
func (h *Held) end(state heldState, wasRemoved bool) {
	h.state.Store(state)
	if wasRemoved {
		h.claimer.head.Suppressed.Add(h.Name, head.WasRemoved)
	}
	h.claimer.removeHold(h.hold)
	if state == stateLost { // while a finish runs, the keeper does not end the contexts itself
		h.claimer.keeper.Lose(h.lock)
	}
	if !wasRemoved {
		h.claimer.head.Suppressed.Remove(h.Name)
		h.claimer.head.Resting.WakeTake() // takes skipped the entry meanwhile
	}
}

// HoldsLock asks the service whether this Held still holds the entry. The answer may be out of
// date when it arrives: another process may take the entry at any time after the lock is lost.
// So it protects no work outside the queue; for that use the Token. Finishes do not depend on
// it. After a finish it returns false without asking.
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

// history is the record of an entry's earlier deliveries: failures, forgiven deliveries, updates.
// It is a node beside the entry. The commit that gives the entry back writes it, and the commit
// that removes the entry removes it. So it does not change while the entry is held, except by
// updates of the holder.
type history struct {
	layout.History

	path     string      // of the node, whether it exists or not
	fence    coord.Fence // of the node
	revision int64       // of the commit that wrote the node
	exists   bool        // the node does

	key      string      // path of the node of the entry's unique key; "" if it has none
	keyFence coord.Fence // of that node
}

// histories reads the histories of a queue's entries, and sweeps those whose entry is gone.
type histories struct {
	*handle.Handle
	swept atomic.Int64 // Unix nanoseconds of the last sweep by this handle; 0: none yet
}

// readHistory reads the history of an entry; it is empty if there is no node. It does not read
// the unique key.
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

// parseHistory returns the history in node n, without a unique key.
func parseHistory(n coord.Node) history {
	return history{History: layout.ParseHistory(n.Value), path: n.Path, fence: n.Fence, revision: n.Revision, exists: true}
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

// sweepEvery is how often a handle that gives entries back looks for histories whose entry is
// gone. A kazoo worker leaves them behind when it consumes an entry.
const sweepEvery = time.Hour

// sweepIfDue starts a sweep in the background if sweepEvery has passed. The first call only
// starts the time.
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
		var known []coord.Node // without other clients' nodes
		for _, n := range page {
			if _, ok := priority.Parse(path.Base(n.Path)); ok {
				known = append(known, n)
			}
		}
		entries, err := readWhere(ctx, s.Read, known, func(_ int, n coord.Node) string { return path.Join(hs.Entries, path.Base(n.Path)) })
		if err != nil {
			return
		}
		var orphans []coord.Node
		for i, n := range known {
			if entries[i].Path == "" {
				orphans = append(orphans, n)
			}
		}
		if bulk.Delete(ctx, s, orphans) != nil {
			return
		}
	}
}
