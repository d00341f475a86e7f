package memory

import (
	"time"

	"github.com/zkq/zkq/coord"
)

// The methods of this file are the faults of coordtest.Coordinator, which documents
// them. Each is without effect on a closed client.

// plannedFault is what happens to a client's next commit.
type plannedFault struct {
	applies bool
	err     error // nil: the answer of the service
}

// Cut takes the connection away until [Client.Heal].
func (c *Client) Cut() {
	c.changeFaults(func() {
		if !c.isCut {
			c.CutLocked()
		}
	})
}

// Heal ends a cut or a hold.
func (c *Client) Heal() {
	c.service.mu.Lock()
	defer c.service.mu.Unlock()
	if c.IsConnectedLocked() {
		return
	}
	c.HealLocked()
	c.service.armTimerLocked()
}

// HoldRequests keeps back what the client sends until [Client.Heal].
func (c *Client) HoldRequests() {
	c.changeFaults(func() {
		c.holdsRequests = true
		c.updateDeadlinesLocked()
	})
}

// HoldReplies keeps back what the service answers until [Client.Heal].
func (c *Client) HoldReplies() {
	c.changeFaults(func() {
		c.holdsReplies = true
		c.updateDeadlinesLocked()
	})
}

// DropReply plans that the next commit is applied and its answer lost.
func (c *Client) DropReply() { c.planFault(plannedFault{applies: true, err: coord.ErrUnknown}) }

// DropRequest plans that the next commit is lost before it is applied.
func (c *Client) DropRequest() { c.planFault(plannedFault{err: coord.ErrUnknown}) }

// Refuse plans that the next commit is not applied and ends with err.
func (c *Client) Refuse(err error) { c.planFault(plannedFault{err: err}) }

// Pass plans that nothing happens to the next commit.
func (c *Client) Pass() { c.planFault(plannedFault{applies: true}) }

func (c *Client) planFault(f plannedFault) {
	c.changeFaults(func() { c.faults = append(c.faults, f) })
}

// Expire ends the client's session at the service and reports whether it had one.
func (c *Client) Expire() bool {
	c.service.mu.Lock()
	id := ""
	if c.session != nil {
		id = c.session.id
	}
	c.service.mu.Unlock()
	return c.service.Expire(id)
}

// Lag freezes what the client's listings show until [Client.CatchUp].
func (c *Client) Lag() {
	c.changeFaults(func() {
		c.isLagging, c.service.state.keepsHistory = true, true
		c.listRevision = c.service.state.revision
	})
}

// LagBy delays the client's signals, and what they announce, by d.
func (c *Client) LagBy(d time.Duration) {
	c.changeFaults(func() {
		c.isLagging, c.service.state.keepsHistory = true, true
		c.signalDelay = d
		c.listRevision = c.service.state.revision
	})
}

// CatchUp ends a lag.
func (c *Client) CatchUp() {
	c.changeFaults(func() {
		c.signalDelay = 0
		c.catchUpLocked()
		c.isLagging = false
		c.service.TrimHistoryLocked()
	})
}

// Crash kills the client's process: it sends nothing more, not even the end of its
// session.
func (c *Client) Crash() {
	c.changeFaults(func() {
		c.closeLocked()
		c.CutLocked()
	})
}

// changeFaults calls change with the lock held, unless the client is closed.
func (c *Client) changeFaults(change func()) {
	c.service.mu.Lock()
	defer c.service.mu.Unlock()
	if !c.isClosed {
		change()
		c.service.armTimerLocked()
	}
}
