package head

import (
	"sync"
	"time"
)

// Restricted are entries whose nodes have an access list of their own. Producers with
// other clients can set one on ZooKeeper. This process skips an entry that it may not
// read, so that it never stops the queue. An entry that it may read but not write is
// claimed without moving its fence, as kazoo claims.
type Restricted struct {
	mu      *sync.Mutex // the head's
	entries map[string]restriction
}

// NewRestricted returns an empty set. The head that gets it in its [Config] shares its mutex.
func NewRestricted() *Restricted { return &Restricted{mu: new(sync.Mutex)} }

// restriction is what this process may do with one entry, as it found out at a time.
type restriction struct {
	found      time.Time
	isReadable bool
}

const (
	keepRestriction = time.Minute // then the access is tried again: a list can change
	maxRestrictions = 10_000
)

// Add remembers an entry that may be read but not written, or not even read.
func (r *Restricted) Add(name string, isReadable bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries == nil || len(r.entries) >= maxRestrictions {
		r.entries = make(map[string]restriction)
	}
	r.entries[name] = restriction{time.Now(), isReadable}
}

// IsUnreadable reports whether the entry cannot be read.
func (r *Restricted) IsUnreadable(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.isUnreadableLocked(name)
}

// isUnreadableLocked is IsUnreadable for a caller with the lock.
func (r *Restricted) isUnreadableLocked(name string) bool {
	isReadable, ok := r.lookupLocked(name)
	return ok && !isReadable
}

// IsReadOnly reports whether the entry can be read and not written.
func (r *Restricted) IsReadOnly(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	isReadable, ok := r.lookupLocked(name)
	return ok && isReadable
}

// lookupLocked returns what is known of an entry. It forgets what is older than keepRestriction.
func (r *Restricted) lookupLocked(name string) (isReadable, ok bool) {
	x, ok := r.entries[name]
	if ok && time.Since(x.found) > keepRestriction {
		delete(r.entries, name)
		return false, false
	}
	return x.isReadable, ok
}

// Len returns how many entries are remembered.
func (r *Restricted) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.entries)
}
