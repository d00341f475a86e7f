// Package liveness decides how long a client may rely on its session without hearing
// from the service.
//
// A service ends a session when it has heard nothing for the session timeout. The client
// must stop relying on the session before that, or another client could hold the same lock
// while the first one still works under it. So both drivers and the simulated service end
// a session by a clock of their own: [Trust] after the client sent the last request that
// was answered.
package liveness

import (
	"sync"
	"sync/atomic"
	"time"
)

// Trust returns how long a client may rely on a session after it sent a request that the
// service answered: the session timeout less a sixth, which leaves room for clocks that run
// at different rates and for a goroutine that is late to notice.
func Trust(timeout time.Duration) time.Duration { return timeout - timeout/6 }

// Deadline is the moment at which a client gives its session up. It is safe for use by
// several goroutines. Its times are durations on the clock passed to [New].
type Deadline struct {
	now     func() time.Duration
	expired func()

	trust time.Duration
	at    atomic.Int64 // 0 until Start

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

// New returns a deadline that has not started. The clock must go on while the machine
// sleeps and must never go back; it must not return 0. expired is called in a goroutine of
// its own when the deadline passes. That may be late, as a timer stands still while the
// machine sleeps: call [Deadline.Passed] before each request that relies on the session.
func New(clock func() time.Duration, expired func()) *Deadline {
	return &Deadline{now: clock, expired: expired}
}

// Start sets the deadline of a session whose first answered request was sent at that time.
// It must be called once, before [Deadline.Extend].
func (d *Deadline) Start(timeout, sent time.Duration) {
	d.trust = Trust(timeout)
	d.Extend(sent)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stopped {
		d.timer = time.AfterFunc(d.left(), d.check)
	}
}

// Extend moves the deadline: the service answered a request that was sent at that time.
// An earlier deadline changes nothing, so answers may be reported in any order.
func (d *Deadline) Extend(sent time.Duration) {
	for {
		old, at := d.at.Load(), int64(sent+d.trust)
		if at <= old || d.at.CompareAndSwap(old, at) {
			return
		}
	}
}

// Passed reports whether the deadline has passed. It is false before [Deadline.Start].
func (d *Deadline) Passed() bool { return d.at.Load() != 0 && d.left() <= 0 }

// Stop ends the timer. A call of expired that has already begun goes on.
func (d *Deadline) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	if d.timer != nil {
		d.timer.Stop()
	}
}

func (d *Deadline) left() time.Duration { return time.Duration(d.at.Load()) - d.now() }

// check runs when the timer fires. Extend does not touch the timer, so that an answer costs
// no more than an atomic write; check sets it again if the deadline has moved.
func (d *Deadline) check() {
	left := d.left()
	if left <= 0 {
		d.expired()
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stopped {
		d.timer.Reset(left)
	}
}
