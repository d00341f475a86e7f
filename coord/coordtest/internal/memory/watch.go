package memory

import (
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
)

// subscription is one call of Watch.
type subscription struct {
	session     *session
	dirs        []string
	signals     chan struct{} // holds one signal
	stopContext func() bool   // stops waiting for the end of the caller's context
}

// Signal tells a subscription that a directory of it changed.
type Signal struct {
	// ChangedAt is when the signal was queued. DueAt is when it comes; package sim
	// draws it, and a client that lags by a fixed time sets it.
	ChangedAt, DueAt time.Time

	// IsLast means that the session is over. The client sends that signal to itself.
	IsLast bool

	revision     int64 // of the change
	subscription *subscription
}

// notify leaves a signal in the channel unless there is one.
func (sub *subscription) notify() {
	select {
	case sub.signals <- struct{}{}:
	default:
	}
}

// subscribeLocked adds sub. It does nothing the second time: a client asks again when
// the first answer was lost.
func (s *Service) subscribeLocked(sub *subscription) {
	if slices.Contains(sub.session.subscriptions, sub) {
		return
	}
	sub.session.subscriptions = append(sub.session.subscriptions, sub)
	for _, dir := range sub.dirs {
		s.subscriptions[dir] = append(s.subscriptions[dir], sub)
	}
}

func (s *Service) unsubscribeLocked(sub *subscription) {
	isIt := func(o *subscription) bool { return o == sub }
	by := sub.session
	by.subscriptions = slices.DeleteFunc(by.subscriptions, isIt)
	by.client.signals = slices.DeleteFunc(by.client.signals, func(o Signal) bool { return o.subscription == sub })
	for _, dir := range sub.dirs {
		if left := slices.DeleteFunc(s.subscriptions[dir], isIt); len(left) > 0 {
			s.subscriptions[dir] = left
		} else {
			delete(s.subscriptions, dir)
		}
	}
	if sub.stopContext != nil {
		sub.stopContext()
	}
}

// catchUpLocked lets the client's listings show the present state, and delivers the
// signals that announce it if they pass. In a stepped service each signal is a step.
func (c *Client) catchUpLocked() {
	for len(c.signals) > 0 && c.repliesPassLocked() && !c.service.isStepped && c.signalDelay == 0 {
		c.DeliverSignalLocked()
	}
	c.listRevision = c.service.state.revision
	if c.isLagging {
		c.service.TrimHistoryLocked()
	} else {
		c.seenRevision = c.listRevision
	}
}

// queueSignalLocked adds a signal to those that wait. With a delay a timer delivers it.
func (c *Client) queueSignalLocked(queued Signal) {
	queued.ChangedAt = time.Now()
	if c.signalDelay > 0 {
		queued.DueAt = time.Now().Add(c.signalDelay)
		time.AfterFunc(c.signalDelay, func() {
			c.service.mu.Lock()
			defer c.service.mu.Unlock()
			c.deliverDueSignalsLocked()
		})
	}
	c.signals = append(c.signals, queued)
}

// deliverDueSignalsLocked delivers the delayed signals whose time has come, if they
// pass.
func (c *Client) deliverDueSignalsLocked() {
	for c.signalDelay > 0 && len(c.signals) > 0 && c.repliesPassLocked() && !c.signals[0].DueAt.After(time.Now()) {
		c.DeliverSignalLocked()
	}
}

// showOwnCommitLocked shows a stepped client its own commit and wakes its watches of
// the directories that the commit changed. It reports whether there are such watches.
// The signal that waits in the queue comes later, and then announces nothing new.
func (c *Client) showOwnCommitLocked(q *Request) (isSignalled bool) {
	c.seenRevision = max(c.seenRevision, q.appliedRevision)
	c.listRevision = max(c.listRevision, c.seenRevision)
	changed := make(map[string]bool)
	for i, op := range q.Ops {
		switch op.Kind {
		case coord.KindCreate, coord.KindEphemeral, coord.KindSequential, coord.KindDelete:
			if dir, _ := splitPath(q.results[i].Path); !op.SignalLater {
				changed[dir] = true
			}
		}
	}
	for _, sub := range q.session.subscriptions {
		if slices.ContainsFunc(sub.dirs, func(dir string) bool { return changed[dir] }) {
			c.service.wakeLaterLocked(sub.notify)
			isSignalled = true
		}
	}
	return isSignalled
}

// readRevisionLocked returns the revision that a read of single nodes shows: the one
// that listings show or, in a stepped service, perhaps the latest.
func (c *Client) readRevisionLocked() int64 {
	if draw := c.service.drawBool; draw != nil && draw() {
		return c.service.state.revision
	}
	return c.listRevision
}

// oldestRevisionLocked returns the oldest revision that a read of the client may show.
func (c *Client) oldestRevisionLocked() int64 {
	if c.session != nil && len(c.session.subscriptions) > 0 {
		return min(c.listRevision, c.seenRevision)
	}
	return c.listRevision
}

// DeliverSignalLocked delivers the first signal that waits. A listing that begins
// after it was received shows the change that it announced.
func (c *Client) DeliverSignalLocked() {
	delivered := c.signals[0]
	c.signals = c.signals[1:]
	c.seenRevision = max(c.seenRevision, delivered.revision)
	c.listRevision = max(c.listRevision, c.seenRevision)
	delivered.subscription.notify()
	if delivered.IsLast {
		c.service.unsubscribeLocked(delivered.subscription)
	}
}
