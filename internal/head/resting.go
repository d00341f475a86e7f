package head

import (
	"sync"
	"time"
)

// Resting are entries that this process does not take for a while, because it gave them
// back a moment ago. Other processes may take them at once.
type Resting struct {
	changed chan struct{} // holds one: a waiting take must look at next again

	mu    *sync.Mutex
	until map[string]time.Time
}

// NewResting returns an empty set.
func NewResting() *Resting { return newResting(new(sync.Mutex)) }

func newResting(mu *sync.Mutex) *Resting {
	return &Resting{mu: mu, changed: make(chan struct{}, 1), until: make(map[string]time.Time)}
}

// Add lets an entry rest for d.
func (r *Resting) Add(name string, d time.Duration) {
	r.prune() // the signal below tells of these too
	r.mu.Lock()
	r.until[name] = time.Now().Add(d)
	r.mu.Unlock()
	r.WakeTake()
}

// Remove ends the rest of an entry early.
func (r *Resting) Remove(name string) {
	r.mu.Lock()
	delete(r.until, name)
	r.mu.Unlock()
	r.WakeTake()
}

// WakeTake wakes a take that waits: it lists the queue again.
func (r *Resting) WakeTake() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// Has reports whether the entry rests now.
func (r *Resting) Has(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hasLocked(name)
}

// hasLocked is Has for a caller with the lock.
func (r *Resting) hasLocked(name string) bool {
	until, ok := r.until[name]
	return ok && time.Now().Before(until)
}

// Len returns how many entries rest now.
func (r *Resting) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, now := 0, time.Now()
	for _, until := range r.until {
		if now.Before(until) {
			n++
		}
	}
	return n
}

// next returns when the first rest ends, or ended.
func (r *Resting) next() (at time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, until := range r.until {
		if !ok || until.Before(at) {
			at, ok = until, true
		}
	}
	return at, ok
}

// prune forgets entries whose rest is over, and reports whether there were any. The
// caller then lists the queue again: nothing else tells that they can be taken.
func (r *Resting) prune() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, now := len(r.until), time.Now()
	for name, until := range r.until {
		if !now.Before(until) {
			delete(r.until, name)
		}
	}
	return len(r.until) < n
}
