package zkqueue

import (
	"sync"
	"time"
)

// width is how many bytes of commits that wait may travel together. A server whose
// jute.maxbuffer is smaller than usual closes the connection over a larger request and
// says nothing: so after a lost answer half as much goes together, and after a time twice
// as much again.
type width struct {
	mu    sync.Mutex
	bytes int // 0: as many as a batch has
	since time.Time
}

// leastWidth travels together in any case, and wider after how long more is tried.
const (
	leastWidth = 16 << 10
	wider      = 10 * time.Minute
)

func (w *width) most() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.bytes > 0 && time.Since(w.since) > wider {
		w.since = w.since.Add(wider)
		if w.bytes *= 2; w.bytes > mostFrame {
			w.bytes = 0
		}
	}
	if w.bytes == 0 {
		return mostFrame
	}
	return w.bytes
}

// failed notes that a request of this size got no answer.
func (w *width) failed(size int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if half := max(size/2, leastWidth); size > leastWidth && (w.bytes == 0 || half < w.bytes) {
		w.bytes, w.since = half, time.Now()
	}
}
