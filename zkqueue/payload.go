package zkqueue

import (
	"sync"
	"time"
)

// payloadLimit is how many bytes of commits are merged into one request. A server with a
// lower jute.maxbuffer closes the connection over a larger request and gives no reason. So
// a request without an answer halves the limit, and after ten minutes it doubles again.
type payloadLimit struct {
	mu    sync.Mutex
	bytes int       // 0: maxFrame
	since time.Time // when it was last changed
}

// Requests of up to minPayload bytes never lower the limit. It is doubled after each
// raiseAfter.
const (
	minPayload = 16 << 10
	raiseAfter = 10 * time.Minute
)

// current returns the limit in bytes, and raises it if it has stood for long enough.
func (l *payloadLimit) current() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.bytes > 0 && time.Since(l.since) > raiseAfter {
		l.since = l.since.Add(raiseAfter)
		if l.bytes *= 2; l.bytes > maxFrame {
			l.bytes = 0
		}
	}
	if l.bytes == 0 {
		return maxFrame
	}
	return l.bytes
}

// lower halves the limit after a request of this size got no answer. Other causes of a lost
// answer lower it too, which only costs a few more requests for some minutes.
func (l *payloadLimit) lower(size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if limit := max(size/2, minPayload); size > minPayload && (l.bytes == 0 || limit < l.bytes) {
		l.bytes, l.since = limit, time.Now()
	}
}
