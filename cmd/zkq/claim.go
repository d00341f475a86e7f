package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// Why the claiming ended, when nothing went wrong.
var (
	errIdle    = errors.New("idle")
	errDrained = errors.New("drained")
	errHalted  = errors.New("halted")
)

// claim takes entries and starts their work until it is told to stop, or there
// is a reason to.
func (c *consumer) claim(ctx context.Context) {
	defer c.letGo()
	if c.drain {
		c.call.log.Info("draining: stops when nothing is ready", "queue", c.call.queue)
	}
	for ctx.Err() == nil {
		done := c.leavers(false)
		c.mu.Lock()
		free := c.jobs + c.ahead - c.running - len(c.held)
		room := free + len(done)
		if c.max > 0 {
			free, room = min(free, c.max-c.taken), min(room, c.max-c.taken)
		}
		enough := c.max > 0 && c.taken == c.max && len(c.held) == 0
		c.mu.Unlock()
		var held []*zkq.Held
		var err error
		switch {
		case len(done) > 0:
			held, err = c.swap(done, max(min(room, chunk), 0))
		case enough:
			return
		case free <= 0:
			c.pause(ctx, time.Hour)
		default:
			held, err = c.take(ctx, min(free, chunk))
		}
		c.hold(held)
		switch {
		case err == nil:
		case errors.Is(err, errIdle), errors.Is(err, errDrained), ctx.Err() != nil:
			return
		case errors.Is(err, coord.ErrUnknown), errors.Is(err, coord.ErrSessionLost), errors.Is(err, coord.ErrBusy), errors.Is(err, context.DeadlineExceeded):
			// The next attempt is made later, in a new session, or finds none.
			c.call.log.Debug("claim again", "queue", c.call.queue, "error", printable(err.Error()))
			c.pause(ctx, 100*time.Millisecond)
		default:
			c.fail(err)
			return
		}
	}
}

// job is an entry that this process holds.
type job struct {
	*zkq.Held
	locked context.Context // ends when the lock is lost
	cancel context.CancelFunc
}

// hold has the entries worked on, in their order.
func (c *consumer) hold(held []*zkq.Held) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range held {
		c.call.log.Debug("claimed", "queue", c.call.queue, "entry", h.Name, "delivery", h.Deliveries, "token", h.Token)
		locked, cancel := h.Context(context.Background())
		c.held = append(c.held, &job{h, locked, cancel})
		c.taken++
		c.active = time.Now()
	}
	c.begin()
}

// begin starts what is next, as long as fewer run than may, and no more is to be
// begun.
func (c *consumer) begin() {
	for c.claiming.Err() == nil && c.running < c.jobs && len(c.held) > 0 {
		j := c.held[0]
		c.held = c.held[1:]
		if j.locked.Err() != nil { // lost before anything was done
			j.cancel()
			continue
		}
		c.running++
		c.working.Go(func() { c.work(j) })
	}
}

// letGo sees to what is done, and gives back what was not begun: nothing has become
// of that. From then on everybody removes what he has done himself.
func (c *consumer) letGo() {
	if done := c.leavers(true); len(done) > 0 {
		c.swap(done, 0)
	}
	c.mu.Lock()
	held := c.held
	c.held = nil
	c.mu.Unlock()
	ctx, cancel := c.settling()
	defer cancel()
	var releasing sync.WaitGroup
	for _, j := range held {
		releasing.Go(func() {
			defer j.cancel()
			if err := j.Release(ctx); err != nil && !errors.Is(err, zkq.ErrLockLost) {
				c.call.log.Warn("could not give the entry back; it is ready again when this session ends", "entry", j.Name, "error", printable(err.Error()))
			}
		})
	}
	releasing.Wait()
}

// take claims up to n entries, and waits for one, or for something else to do.
func (c *consumer) take(ctx context.Context, n int) ([]*zkq.Held, error) {
	if !c.drain {
		if !c.standAside() {
			return nil, nil
		}
		ctx, cancel := c.untilIdle(ctx)
		defer cancel()
		held, err := c.queue.TakeN(ctx, n)
		if err != nil && context.Cause(ctx) == errIdle {
			err = errIdle
		}
		return held, err
	}
	// What ended in between may have been given back after the look.
	c.mu.Lock()
	idle := c.running == 0 && len(c.held) == 0
	c.mu.Unlock()
	settled := idle && c.queue.LeftAlone() == 0
	long, cancel := c.patient(ctx)
	held, err := c.queue.TryTakeN(long, n)
	cancel()
	c.tellBusy(err)
	switch {
	case !errors.Is(err, zkq.ErrEmpty):
		return held, err
	case errors.Is(err, zkq.ErrPaused) && idle:
		return nil, c.pausedDrain(ctx)
	case settled:
		return nil, errDrained
	case idle:
		c.tellFailing()
	}
	c.pause(ctx, 100*time.Millisecond)
	return nil, nil
}

// pausedDrain returns why a drain of a paused queue ends: what is ready stays.
func (c *consumer) pausedDrain(ctx context.Context) error {
	ctx, cancel := c.patient(ctx)
	defer cancel()
	st, err := c.queue.Stat(ctx)
	if err != nil {
		return err
	}
	f := nothing("the queue is paused, and %s ready", counted(st.Ready, "entry is", "entries are"))
	f.hint = "zkq resume " + quoteWord(c.call.queue) + " ends the pause"
	return f
}

// note keeps which entries fail here again and again. The caller holds c.mu.
func (c *consumer) note(a *attempt) {
	switch a.Outcome {
	case outcomeFailed:
		c.failing[a.Name] = true
	case outcomeDone, outcomeDead, outcomeLost:
		delete(c.failing, a.Name)
	}
}

// tellFailing says once that a drain waits for entries alone that failed here and
// rest: without --retries it may wait for ever.
func (c *consumer) tellFailing() {
	c.mu.Lock()
	n, told := len(c.failing), c.told
	c.told = told || n > 0
	c.mu.Unlock()
	if n == 0 || told {
		return
	}
	what := counted(n, "entry keeps failing", "entries keep failing")
	if c.retries > 0 {
		c.call.log.Info("draining: waits for what failed: "+what, "queue", c.call.queue, "retries", c.retries)
		return
	}
	c.call.log.Warn("draining: "+what+"; --retries N gives up", "queue", c.call.queue)
}

// tellBusy logs once that the service has refused the takes of a drain for a second, and
// once that it accepts them again. The library does so for takes that wait.
func (c *consumer) tellBusy(err error) {
	busy := errors.Is(err, coord.ErrBusy)
	switch {
	case busy && c.busySince.IsZero():
		c.busySince = time.Now()
	case busy && !c.toldBusy && time.Since(c.busySince) >= time.Second:
		c.toldBusy = true
		c.call.log.Warn("take waits: the service refuses it for now", "queue", c.call.queue, "error", printable(err.Error()))
	case err == nil || errors.Is(err, zkq.ErrEmpty):
		if c.toldBusy {
			c.call.log.Warn("take goes on: the service accepts it again", "queue", c.call.queue)
		}
		c.busySince, c.toldBusy = time.Time{}, false
	}
}

// untilIdle returns a context that ends with errIdle when nothing runs, and
// nothing was taken or done for the time given.
func (c *consumer) untilIdle(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	if c.idle == forever {
		return ctx, func() { cancel(nil) }
	}
	c.mu.Lock()
	if c.active.IsZero() {
		c.active = time.Now()
	}
	c.mu.Unlock()
	quit := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			c.mu.Lock()
			left := c.idle - time.Since(c.active)
			if c.running > 0 || len(c.held) > 0 {
				left = c.idle
			}
			c.mu.Unlock()
			if left <= 0 {
				cancel(errIdle)
				return
			}
			t := time.NewTimer(left)
			select {
			case <-t.C:
			case <-quit:
				t.Stop()
				return
			}
		}
	})
	return ctx, func() {
		close(quit)
		watching.Wait()
		cancel(nil)
	}
}

// pause waits until a job ended, and no longer than d.
func (c *consumer) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.ended:
	case <-ctx.Done():
	case <-t.C:
	}
}
