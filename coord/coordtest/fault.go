package coordtest

import (
	"time"

	"github.com/zkq/zkq/coord"
)

// Cut takes the client's connection away, both ways, until [Coordinator.Heal].
// Its calls wait. Its session is over after the session timeout less a sixth, by
// its own clock, and after the whole of it at the service.
func (c *Coordinator) Cut() {
	c.fault(func() {
		if !c.cut {
			c.cut = true
			c.disconnect()
		}
	})
}

// Heal ends a Cut or a hold. What was held is delivered, and a session that the
// service ended meanwhile is over.
func (c *Coordinator) Heal() {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.connected() {
		return
	}
	c.cut, c.holdRequests, c.holdReplies = false, false, false
	c.reconnect()
	c.store.arm()
}

// HoldRequests keeps back what the client sends, until [Coordinator.Heal]
// delivers it: a commit whose caller has long given up is applied then, if the
// session still stands.
func (c *Coordinator) HoldRequests() {
	c.fault(func() {
		c.holdRequests = true
		c.hear()
	})
}

// HoldReplies keeps back what the service answers, until [Coordinator.Heal]:
// commits are applied and their callers wait. The service goes on hearing the
// client, who hears nothing and gives the session up in its time.
func (c *Coordinator) HoldReplies() {
	c.fault(func() {
		c.holdReplies = true
		c.hear()
	})
}

// DropReply loses the answer to the next commit: it is applied (or refused) and
// its error is [coord.ErrUnknown]. Like the other faults of commits it may be
// called several times, for as many commits.
func (c *Coordinator) DropReply() { c.next(fault{apply: true, err: coord.ErrUnknown}) }

// DropRequest loses the next commit on its way: it is not applied, and its error
// is [coord.ErrUnknown] all the same.
func (c *Coordinator) DropRequest() { c.next(fault{err: coord.ErrUnknown}) }

// Refuse has the next commit certainly not applied: it ends with err, say
// [coord.ErrBusy].
func (c *Coordinator) Refuse(err error) { c.next(fault{err: err}) }

// Pass lets the next commit through: with [Coordinator.DropReply] after it, the
// fault is the second commit's.
func (c *Coordinator) Pass() { c.next(fault{apply: true}) }

func (c *Coordinator) next(f fault) {
	c.fault(func() { c.faults = append(c.faults, f) })
}

// Expire ends the client's session at the service now and reports whether it had
// one.
func (c *Coordinator) Expire() bool {
	c.store.mu.Lock()
	id := ""
	if c.session != nil {
		id = c.session.id
	}
	c.store.mu.Unlock()
	return c.store.Expire(id)
}

// Lag lets the client's server fall behind until [Coordinator.CatchUp]: signals
// are kept back, and listings that are not fresh show the state of now. A commit
// of the client's own and a fresh listing bring it up to the present, where it
// stays behind again.
func (c *Coordinator) Lag() {
	c.fault(func() {
		c.lagging, c.store.st.keepLog = true, true
		c.view = c.store.st.revision
	})
}

// LagBy lets what the client's watches tell it fall behind by d, until
// [Coordinator.CatchUp]: each signal comes d after the change, and until then a
// listing of what was seen ([coord.ListOptions].Seen) of a watched directory does not
// show the change. That holds for the client's own commits, too, though a service shows
// those at once: a commit whose answer was lost may look like that, and what a queue
// does then must be safe. All other reads are as in a [Coordinator.Lag]. It is not for
// clients of a [Sim].
func (c *Coordinator) LagBy(d time.Duration) {
	c.fault(func() {
		c.lagging, c.store.st.keepLog = true, true
		c.delay = d
		c.view = c.store.st.revision
	})
}

// CatchUp ends a Lag, also one of a fixed time.
func (c *Coordinator) CatchUp() {
	c.fault(func() {
		c.delay = 0
		c.catchUp()
		c.lagging = false
		c.store.trim()
	})
}

// Crash kills the client's process: nothing more is heard of it, its calls end
// with [coord.ErrClosed], or [coord.ErrUnknown] where a commit was on its way,
// and its session ends when the service has not heard of it for the timeout.
func (c *Coordinator) Crash() {
	c.fault(func() {
		c.leave()
		c.cut = true
		c.disconnect()
	})
}

func (c *Coordinator) fault(f func()) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if !c.closed {
		f()
		c.store.arm()
	}
}
