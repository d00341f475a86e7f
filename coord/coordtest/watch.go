package coordtest

import (
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
)

// subscription is one Watch.
type subscription struct {
	session *session
	dirs    []string
	ch      chan struct{}
	stop    func() bool
}

// signal is a subscription's news of a change.
type signal struct {
	revision int64
	sub      *subscription
	at       time.Time // of the change
	last     bool      // the session is over
	due      time.Time // where signals are late: when it comes
}

func (sub *subscription) signal() {
	select {
	case sub.ch <- struct{}{}:
	default:
	}
}

// subscribe is done again when the first answer was lost.
func (s *Store) subscribe(sub *subscription) {
	if slices.Contains(sub.session.subs, sub) {
		return
	}
	sub.session.subs = append(sub.session.subs, sub)
	for _, dir := range sub.dirs {
		s.watchers[dir] = append(s.watchers[dir], sub)
	}
}

func (s *Store) unsubscribe(sub *subscription) {
	is := func(o *subscription) bool { return o == sub }
	l := sub.session
	l.subs = slices.DeleteFunc(l.subs, is)
	l.c.signals = slices.DeleteFunc(l.c.signals, func(o signal) bool { return o.sub == sub })
	for _, dir := range sub.dirs {
		if left := slices.DeleteFunc(s.watchers[dir], is); len(left) > 0 {
			s.watchers[dir] = left
		} else {
			delete(s.watchers, dir)
		}
	}
	if sub.stop != nil {
		sub.stop()
	}
}

// catchUp shows the client all there is, and delivers the signals of it when they
// get through. (A simulator delivers them later, one by one.)
func (c *Coordinator) catchUp() {
	for len(c.signals) > 0 && c.repliesReach() && !c.store.simulated && c.delay == 0 {
		c.deliver()
	}
	c.view = c.store.st.revision
	if c.lagging {
		c.store.trim()
	} else {
		c.seen = c.view
	}
}

// notify adds a signal to those that wait. With a delay a timer delivers it.
func (c *Coordinator) notify(sig signal) {
	sig.at = time.Now()
	if c.delay > 0 {
		sig.due = time.Now().Add(c.delay)
		time.AfterFunc(c.delay, func() {
			c.store.mu.Lock()
			defer c.store.mu.Unlock()
			c.deliverDue()
		})
	}
	c.signals = append(c.signals, sig)
}

// deliverDue delivers the late signals whose time has come, if they get through.
func (c *Coordinator) deliverDue() {
	for c.delay > 0 && len(c.signals) > 0 && c.repliesReach() && !c.signals[0].due.After(time.Now()) {
		c.deliver()
	}
}

// showOwn shows a simulator's client its own commit and signals it, and says whether
// anybody waits for that signal. The signal that waits with others' comes later, for
// nothing.
func (c *Coordinator) showOwn(q *request) (signalled bool) {
	c.seen = max(c.seen, q.applied)
	c.view = max(c.view, c.seen)
	changed := make(map[string]bool)
	for i, op := range q.ops {
		switch op.Kind {
		case coord.KindCreate, coord.KindEphemeral, coord.KindSequential, coord.KindDelete:
			if dir, _ := split(q.results[i].Path); !op.SignalLater {
				changed[dir] = true
			}
		}
	}
	for _, sub := range q.session.subs {
		if slices.ContainsFunc(sub.dirs, func(dir string) bool { return changed[dir] }) {
			c.store.wakeLater(sub.signal)
			signalled = true
		}
	}
	return signalled
}

// behind is the revision that a read by itself meets: the one that was signalled or
// made by this client, or a newer one.
func (c *Coordinator) behind() int64 {
	if draw := c.store.draw; draw != nil && draw() {
		return c.store.st.revision
	}
	return c.view
}

// oldest is the revision that the client may still ask for.
func (c *Coordinator) oldest() int64 {
	if c.session != nil && len(c.session.subs) > 0 {
		return min(c.view, c.seen)
	}
	return c.view
}

// deliver delivers the first signal that waits. A listing that is begun after it
// was received shows what it announced.
func (c *Coordinator) deliver() {
	sig := c.signals[0]
	c.signals = c.signals[1:]
	c.seen = max(c.seen, sig.revision)
	c.view = max(c.view, c.seen)
	sig.sub.signal()
	if sig.last {
		c.store.unsubscribe(sig.sub)
	}
}
