package zkq

import (
	"sync"
	"time"
)

// skipped are the entries that this process leaves alone for a while, because it
// gave them back a moment ago. They are as available as before to all others.
type skipped struct {
	changed chan struct{} // holds one: somebody should look at next again

	mu    sync.Mutex
	until map[string]time.Time
}

func newSkipped() *skipped {
	return &skipped{changed: make(chan struct{}, 1), until: make(map[string]time.Time)}
}

// add leaves an entry alone for d.
func (s *skipped) add(name string, d time.Duration) {
	s.prune() // the signal below is also for these
	s.mu.Lock()
	s.until[name] = time.Now().Add(d)
	s.mu.Unlock()
	s.signal()
}

// remove ends that early.
func (s *skipped) remove(name string) {
	s.mu.Lock()
	delete(s.until, name)
	s.mu.Unlock()
	s.signal()
}

func (s *skipped) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// has says whether the entry is left alone now.
func (s *skipped) has(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.until[name]
	return ok && time.Now().Before(until)
}

// next is when the first of them is due, or was.
func (s *skipped) next() (at time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, until := range s.until {
		if !ok || until.Before(at) {
			at, ok = until, true
		}
	}
	return at, ok
}

// prune forgets those that are due and says whether there were any. Whoever calls
// it looks at the queue again: nothing else will say that they can be taken.
func (s *skipped) prune() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, now := len(s.until), time.Now()
	for name, until := range s.until {
		if !now.Before(until) {
			delete(s.until, name)
		}
	}
	return len(s.until) < n
}

// len is how many are left alone and not yet due.
func (s *skipped) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, now := 0, time.Now()
	for _, until := range s.until {
		if now.Before(until) {
			n++
		}
	}
	return n
}
