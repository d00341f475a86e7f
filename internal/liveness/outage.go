package liveness

import (
	"fmt"
	"time"
)

// warnAfter is how long a session may take to open before the user is told why.
const warnAfter = time.Second

// OutageWarning warns once that no session can be opened yet, and once that there is one
// again. It belongs to one goroutine.
type OutageWarning struct {
	service string
	warn    func(string)
	began   time.Time
	warned  bool
}

// NewOutageWarning returns the warning of a session that is being opened from now on.
func NewOutageWarning(service string, warn func(string)) *OutageWarning {
	return &OutageWarning{service: service, warn: warn, began: time.Now()}
}

// Waiting warns of the cause if opening the session has taken a second.
func (w *OutageWarning) Waiting(cause error) {
	if !w.warned && time.Since(w.began) >= warnAfter {
		w.warned = true
		w.warn(fmt.Sprintf("no new session with %s yet, still trying: %v", w.service, cause))
	}
}

// Ended warns that there is a session again, if Waiting has warned that there was none.
func (w *OutageWarning) Ended() {
	if w.warned {
		w.warn(fmt.Sprintf("there is a session with %s again", w.service))
	}
}

// Due returns a channel that receives once, when Waiting warns from then on.
func (w *OutageWarning) Due() <-chan time.Time { return time.After(time.Until(w.began.Add(warnAfter))) }
