package zkqueue

import (
	"sync"
	"time"
)

// payloadLimit is how many bytes of commits that wait may travel together. A server whose
// jute.maxbuffer is smaller than usual closes the connection over a larger request and
// says nothing: so after a lost answer half as much goes together, and after a time twice
// as much again.
type payloadLimit struct {
	mu    sync.Mutex
	bytes int // 0: as many as a batch has
	since time.Time
}

// minPayload travels together in any case, and wider after how long more is tried.
const (
	minPayload = 16 << 10
	raiseAfter = 10 * time.Minute
)

func (w *payloadLimit) current() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.bytes > 0 && time.Since(w.since) > raiseAfter {
		w.since = w.since.Add(raiseAfter)
		if w.bytes *= 2; w.bytes > maxFrame {
			w.bytes = 0
		}
	}
	if w.bytes == 0 {
		return maxFrame
	}
	return w.bytes
}

// lower notes that a request of this size got no answer.
func (w *payloadLimit) lower(size int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if half := max(size/2, minPayload); size > minPayload && (w.bytes == 0 || half < w.bytes) {
		w.bytes, w.since = half, time.Now()
	}
}
