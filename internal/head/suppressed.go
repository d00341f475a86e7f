package head

import (
	"sync"
	"time"
)

// Suppressed are entries that are not chosen though a listing may show them as
// available: the listing lags behind what this handle knows.
type Suppressed struct {
	mu      *sync.Mutex // the head's
	entries map[string]suppression
	count   int64 // of all suppressions so far
	most    int   // the number of entries from which old ones are removed, if it is over pruneFrom
}

// suppression is why, and since when, an entry is suppressed.
type suppression struct {
	why    Reason
	since  time.Time
	number int64 // Suppressed.count when it was added
}

// Reason is why an entry is suppressed.
type Reason int

// The reasons.
const (
	WasRemoved Reason = iota // by this handle
	WasClaimed               // by this handle
	WasLost                  // another process was faster
)

// keepClaimed is how long an entry that was claimed is not tried again, unless a listing
// tells earlier what became of it.
const keepClaimed = 100 * time.Millisecond

// A handle that only polls makes no listing that would end a suppression. So suppressions
// older than maxAge are removed once there are pruneFrom of them. A waiting take needs no
// such limit: the entry has changed, and so the take lists anew long before.
const (
	maxAge    = 10 * time.Second
	pruneFrom = 1024
)

func newSuppressed(mu *sync.Mutex) *Suppressed {
	return &Suppressed{mu: mu, entries: make(map[string]suppression)}
}

// Add suppresses an entry.
func (s *Suppressed) Add(name string, why Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if len(s.entries) >= max(s.most, pruneFrom) {
		for name, x := range s.entries {
			if now.Sub(x.since) > maxAge {
				delete(s.entries, name)
			}
		}
		s.most = 2 * len(s.entries)
	}
	s.count++
	s.entries[name] = suppression{why, now, s.count}
}

// Remove ends the suppression of an entry: it is as available as a listing says.
func (s *Suppressed) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, name)
}

// hasLocked reports whether the entry is suppressed.
func (s *Suppressed) hasLocked(name string) bool {
	_, ok := s.entries[name]
	return ok
}

// Len returns how many entries are suppressed.
func (s *Suppressed) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries)
}

// lastNumber returns the number of the last suppression, for reconcile.
func (s *Suppressed) lastNumber() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// anyLost reports whether there are entries that only a fresh listing can clear up.
func (s *Suppressed) anyLost() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.entries {
		if x.why == WasLost {
			return true
		}
	}
	return false
}

// nextClaimed returns when the first of the claimed entries is tried again.
func (s *Suppressed) nextClaimed() (at time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.entries {
		if end := x.since.Add(keepClaimed); x.why == WasClaimed && (!ok || end.Before(at)) {
			at, ok = end, true
		}
	}
	return at, ok
}

// clear ends all suppressions: everything is listed anew in another session.
func (s *Suppressed) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.entries)
}

// reconcile ends the suppressions that a listing makes needless, because it is as new as what
// this handle knew. before is the number of the last suppression before the listing. The
// listing shows all claims that this handle had made by then: if it shows such an entry as
// free, its lock was broken.
func (s *Suppressed) reconcile(l *Listing, before int64, isFresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, x := range s.entries {
		isFree, isLocked := l.find(name)
		switch {
		case x.why == WasRemoved && !isFree && !isLocked && l.covers(name):
		case x.why == WasClaimed && x.number <= before:
		case x.why != WasRemoved && (isFresh || !isFree || time.Since(x.since) >= keepClaimed):
		default:
			continue
		}
		delete(s.entries, name)
	}
}
