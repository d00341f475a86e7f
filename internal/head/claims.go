package head

import (
	"context"
	"errors"
	"sync"
)

// ErrUnavailable says that an entry cannot be claimed, or not now: another process
// holds it or has removed it. The search for an entry goes on.
var ErrUnavailable = errors.New("entry is not available")

// Claims are the entries that goroutines of one handle are claiming right now.
//
// Two goroutines never claim the same entry at once: a lock that is found after a lost
// answer could belong to either. The second one waits. If it passed on to a later entry,
// that entry's first claim could come before this one's.
type Claims struct {
	mu      *sync.Mutex // the head's
	entries map[string]*claimants
	woke    func(context.Context) // called by a goroutine that has waited for another
}

func newClaims(mu *sync.Mutex, woke func(context.Context)) *Claims {
	return &Claims{mu: mu, entries: make(map[string]*claimants), woke: woke}
}

// claimants are the goroutines that want to claim one entry. One of them has the
// reservation, the others wait for it. Claims.mu guards the fields.
type claimants struct {
	sem            chan struct{} // one-token lock: the reservation
	users          int           // goroutines that have it or wait for it
	blocked        chan struct{} // closed while the claim waits for another's lock to go
	isBlocked      bool          // blocked is closed
	retryRequested chan struct{} // holds one: a goroutine arrived since the claim was last tried
	inDoubt        bool          // the caller has gone, and the outcome of its claim is still unknown
}

func newClaimants() *claimants {
	return &claimants{sem: make(chan struct{}, 1), retryRequested: make(chan struct{}, 1), blocked: make(chan struct{})}
}

// TryReserve reserves an entry if no goroutine has reserved it or waits for it.
func (c *Claims) TryReserve(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[name] != nil {
		return false
	}
	t := newClaimants()
	t.users = 1
	t.sem <- struct{}{}
	c.entries[name] = t
	return true
}

// Reserve waits for the reservation of an entry. [ErrUnavailable] means that the claim
// of another goroutine is blocked by a foreign lock: the outcome may take long, and a
// signal tells it.
func (c *Claims) Reserve(ctx context.Context, name string) error {
	c.mu.Lock()
	t := c.entries[name]
	if t == nil {
		t = newClaimants()
		c.entries[name] = t
	}
	if t.users++; t.users > 1 {
		t.noteArrival()
	}
	blocked := t.blocked
	c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		c.leave(name, t)
		return err
	}
	select {
	case t.sem <- struct{}{}:
		t.takeRetryRequest()
		return nil
	default:
	}
	var err error
	reserved := false
	select {
	case t.sem <- struct{}{}:
		t.takeRetryRequest()
		reserved = true
	case <-blocked:
		err = ErrUnavailable
	case <-ctx.Done():
	}
	c.woke(ctx)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if reserved && err != nil {
		<-t.sem
	}
	if err != nil {
		c.leave(name, t)
	}
	return err
}

// Release ends the reservation that the caller has.
func (c *Claims) Release(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.entries[name]
	t.inDoubt = false
	<-t.sem
	c.leaveLocked(name, t)
}

// leave takes the caller off the goroutines that want the entry.
func (c *Claims) leave(name string, t *claimants) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaveLocked(name, t)
}

// leaveLocked is leave for a caller with the lock.
func (c *Claims) leaveLocked(name string, t *claimants) {
	if t.users--; t.users == 0 {
		delete(c.entries, name)
	}
}

// Has reports whether a goroutine has reserved the entry or waits for it.
func (c *Claims) Has(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[name] != nil
}

// Len returns the number of entries with a reservation.
func (c *Claims) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

// MarkInDoubt notes that the caller of a claim has gone and that the outcome of the
// claim is still unknown.
func (c *Claims) MarkInDoubt(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries[name].inDoubt = true
}

// holdsBackLocked reports whether the claim of an entry that no process seems to hold is in
// doubt. Later entries wait for it: otherwise their first claim could come before its.
// A blocked claim is asked to try again, because the foreign lock is gone.
func (c *Claims) holdsBackLocked(name string) bool {
	t := c.entries[name]
	if t == nil || !t.inDoubt {
		return false
	}
	if t.isBlocked {
		t.noteArrival()
	}
	return true
}

// FirstInDoubt returns the first entry whose claim is in doubt and not blocked by a
// foreign lock, or "". If this handle holds the entry by now, it is about to give it back.
func (c *Claims) FirstInDoubt() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := ""
	for name, t := range c.entries {
		if t.inDoubt && !t.isBlocked && (first == "" || name < first) {
			first = name
		}
	}
	return first
}

// LetOthersPass notes that the claim of an entry is blocked by a foreign lock. The
// goroutines that already wait for the reservation stop waiting. If one arrived since the
// claim was last tried, nothing is noted and retry is true: the claim must be tried again,
// because the newcomer has not seen that lock.
func (c *Claims) LetOthersPass(name string) (retry bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.entries[name]
	if t.takeRetryRequest() {
		return true
	}
	if !t.isBlocked {
		t.isBlocked = true
		close(t.blocked)
	}
	return false
}

// RetryRequests returns a channel for the goroutine that has reserved the entry. It holds one
// value when another goroutine has arrived since the claim was last tried.
func (c *Claims) RetryRequests(name string) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[name].retryRequested
}

// ClearRetryRequest forgets the goroutines that have arrived so far. The goroutine that has
// reserved the entry calls it just before it tries the claim.
func (c *Claims) ClearRetryRequest(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries[name].takeRetryRequest()
}

// requestRetry asks for one more try of the claim.
func (t *claimants) requestRetry() {
	select {
	case t.retryRequested <- struct{}{}:
	default:
	}
}

// takeRetryRequest reports whether another goroutine arrived since the last call, and
// clears the flag.
func (t *claimants) takeRetryRequest() bool {
	select {
	case <-t.retryRequested:
		return true
	default:
		return false
	}
}

// noteArrival notes a goroutine that has seen no lock at the entry. An earlier answer
// that there is one does not count for it.
func (t *claimants) noteArrival() {
	t.requestRetry()
	if t.isBlocked {
		t.isBlocked, t.blocked = false, make(chan struct{})
	}
}
