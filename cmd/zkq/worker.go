package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// What CMD's exit status says, besides 0 and that it failed.
const (
	statusDead    = 65
	statusPutBack = 75
)

// maxBackoff is the longest that an entry rests, unless --backoff says longer.
const maxBackoff = time.Minute

// rest is how long an entry rests after its n-th failure: twice as long each time,
// and up to a tenth more, so that what failed together is not tried together.
func (c *consumer) rest(n int) time.Duration {
	d := c.backoff
	for ; n > 1 && d > 0 && d < maxBackoff; n-- {
		d = min(2*d, maxBackoff)
	}
	return d + rand.N(d/10+1)
}

// work is one attempt at one entry.
func (c *consumer) work(j *job) {
	defer j.cancel()
	a := newAttempt(c.call, j.Held)
	c.status.start()
	if c.hasCmd {
		c.command(j, a)
	} else {
		c.print(j.Held, a)
	}
	a.Seconds = time.Since(a.Start).Seconds()
	if err := c.log.write(a); err != nil && !errors.Is(err, errStuck) {
		c.fail(err)
	}
	c.status.finish(a.Outcome)
	c.call.log.Debug("entry "+a.Outcome, "queue", a.Queue, "entry", a.Name, "seconds", a.Seconds)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note(a)
	c.running--
	c.active = time.Now()
	c.tally.add(a.Outcome)
	if c.halt > 0 && c.tally.failed+c.tally.dead >= c.halt {
		c.stop(errHalted)
	}
	c.begin()
	c.wake()
}

// print is the work where there is no CMD.
func (c *consumer) print(h *zkq.Held, a *attempt) {
	err := context.Cause(c.ending)
	if err == nil && c.next != nil {
		c.passOn(h, a, h.Value, nil)
		return
	}
	if err == nil {
		err = c.out.value(newHeldRecord(c.call.queue, c.holder, h), h.Value, false)
		if err != nil && !errors.Is(err, errStuck) {
			c.fail(err)
		}
	}
	if err != nil {
		c.release(h, a, outcomeReleased)
		return
	}
	c.finish(h, a)
}

// command is the work where there is one.
func (c *consumer) command(j *job, a *attempt) {
	h := j.Held
	cmd := &exec.Cmd{Path: c.path, Args: c.cmd, Env: c.childEnv(h)}
	var kept *spill
	var next *printed
	direct := false // CMD writes to zkq's own standard output
	switch {
	case c.next != nil:
		next = &printed{}
		cmd.Stdout = next
	case c.group:
		kept = &spill{}
		defer kept.close()
		cmd.Stdout = kept
	case c.out.file != nil && !(c.out.terminal && c.status.onTerminal()):
		cmd.Stdout, direct = c.out.file, true
	default:
		cmd.Stdout = writerFunc(c.out.write)
	}
	cmd.Stderr = c.status.stderr(c.stderr)
	child, err := startChild(cmd, h.Value, c.memory)
	if err != nil {
		c.fail(fmt.Errorf("start %s: %w", quoteWord(c.cmd[0]), err))
		c.release(h, a, outcomeReleased)
		return
	}
	end := c.supervise(child, j.locked.Done())
	a.ended(child.state)
	err = child.err
	if err == nil && kept != nil {
		if err = kept.to(c.out); err != nil && kept.err == nil {
			c.end(err) // nobody will see what the others print either
		}
	}
	if err == nil && direct && end == endOwn && c.lostReader(child) {
		err = &outputError{syscall.EPIPE}
		c.end(err)
	}
	if err != nil {
		if !errors.Is(err, errStuck) {
			c.fail(fmt.Errorf("pass on what %s printed: %w", quoteWord(c.cmd[0]), err))
		}
		if end != endLost {
			end = endTold
		}
	}
	if !child.state.Success() {
		a.Reason = child.state.String()
	}
	if end == endLate {
		a.Reason = fmt.Sprintf("ran longer than %v: %v", c.timeout, child.state)
	}
	status := child.state.ExitCode()
	switch {
	case end == endLost:
		a.Outcome = outcomeLost
	case end == endTold:
		c.release(h, a, outcomeReleased)
	case end == endLate:
		c.failed(h, a)
	case status == 0 && next != nil:
		value, err := next.value()
		c.passOn(h, a, value, err)
	case status == 0:
		c.finish(h, a)
	case status == statusPutBack:
		c.release(h, a, outcomePutBack, zkq.LeaveAlone(c.backoff))
	case status == statusDead:
		c.bury(h, a)
	default:
		c.failed(h, a)
	}
	if a.Outcome == outcomeLost {
		c.call.log.Warn("lock lost before the work was finished", "entry", h.Name)
	}
}

// lostReader reports whether a CMD that failed most likely did so because the reader
// of zkq's standard output or error has gone, as after | head. A status that says what
// is to become of the entry counts all the same.
func (c *consumer) lostReader(child *child) bool {
	switch child.state.ExitCode() {
	case 0, statusDead, statusPutBack:
		return false
	}
	return hungUp(c.out.file) || c.said.file != nil && hungUp(c.said.file)
}

// killAfter is how long CMD has after the SIGTERM at the end of its time.
const killAfter = time.Second

// ending is why CMD ended.
type ending int

const (
	endOwn  ending = iota // by itself: its status counts
	endLate               // its time was over
	endTold               // the consumer is ending
	endLost               // the lock was lost
)

// supervise waits for the child to end. When the lock is lost, its time is over,
// or the consumer ends, it ends the child: what it then exits with says nothing
// about the work.
func (c *consumer) supervise(ch *child, lock <-chan struct{}) ending {
	why, leash, told := endOwn, killAfter, c.ending.Done()
	var late <-chan time.Time
	if c.timeout > 0 {
		t := time.NewTimer(c.timeout)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-ch.done:
		return endOwn
	case <-told:
		why, told = endTold, nil
	case <-late:
		why = endLate
	case <-lock:
		why, leash = endLost, c.grace
	}
	ch.terminate()
	t := time.NewTimer(leash)
	defer t.Stop()
	for {
		select {
		case <-ch.done:
			ch.kill() // whom it left behind
			return why
		case <-told:
			told = nil
			t.Reset(min(killAfter, c.grace))
			continue
		case <-t.C:
		case <-c.killing.Done():
		}
		ch.kill()
		<-ch.done
		return why
	}
}

// childEnv is the environment of CMD: ours, and what it should know.
func (c *consumer) childEnv(h *zkq.Held) []string {
	env := maps.Clone(c.env)
	env["ZKQ_COORDINATOR"] = c.settings.target.String()
	env["ZKQ_LAYOUT"] = string(c.settings.layout)
	env["ZKQ_QUEUE"] = c.call.queue
	env["ZKQ_NAME"] = h.Name
	env["ZKQ_PRIORITY"] = strconv.Itoa(h.Priority)
	env["ZKQ_DELIVERIES"] = strconv.Itoa(h.Deliveries)
	env["ZKQ_FAILURES"] = strconv.Itoa(h.Failures)
	env["ZKQ_TOKEN"] = strconv.FormatInt(h.Token, 10)
	return env.list()
}

// settling is the context for giving back and removing: it outlasts a first
// signal, and hardly a second.
func (c *consumer) settling() (context.Context, context.CancelFunc) {
	return linger(c.killing, c.settings.sessionTimeout+c.settings.connectTimeout, 2*time.Second)
}

// persist calls finish, and again while the service takes no changes, as on a full disk.
// The entry stays held meanwhile. It gives up when the consumer has to end.
func (c *consumer) persist(h *zkq.Held, finish func() error) error {
	for told := false; ; told = true {
		err := finish()
		if !refusesForNow(err) || c.mustEnd() {
			return err
		}
		if !told {
			c.call.log.Warn("the service takes no changes for now: the entry stays held until it does", "entry", h.Name, "error", printable(err.Error()))
		}
		t := time.NewTimer(finishAgain)
		select {
		case <-t.C:
		case <-c.ending.Done():
			t.Stop()
		}
	}
}

// finishAgain is the wait before a finish that was refused is made again.
const finishAgain = 200 * time.Millisecond

// refusesForNow reports whether nothing was changed and a later attempt may succeed.
func refusesForNow(err error) bool {
	return (errors.Is(err, coord.ErrBusy) || errors.Is(err, context.DeadlineExceeded)) &&
		!errors.Is(err, coord.ErrUnknown) && !errors.Is(err, zkq.ErrLockLost) && !errors.Is(err, zkq.ErrFull)
}

// mustEnd reports whether the consumer ends now: its grace after a signal is over, or it
// stopped for another reason.
func (c *consumer) mustEnd() bool {
	signalled := errors.As(context.Cause(c.claiming), new(*signalError))
	return c.ending.Err() != nil || c.claiming.Err() != nil && !signalled
}

// finish removes an entry whose work is done.
func (c *consumer) finish(h *zkq.Held, a *attempt) {
	c.finished(h, a, c.persist(h, func() error { return c.remove(h) }))
}

// finished notes what became of an entry whose work is done.
func (c *consumer) finished(h *zkq.Held, a *attempt, err error) {
	switch {
	case err == nil:
		a.Outcome = outcomeDone
	case errors.Is(err, zkq.ErrLockLost):
		a.Outcome = outcomeLost
	case errors.Is(err, coord.ErrUnknown):
		a.Outcome = outcomeUnknown
	default:
		c.fail(err)
		c.release(h, a, outcomeReleased)
	}
}

// bury gives an entry up.
func (c *consumer) bury(h *zkq.Held, a *attempt) {
	err := c.persist(h, func() error {
		ctx, cancel := c.settling()
		defer cancel()
		return h.Bury(ctx, a.Reason)
	})
	switch {
	case err == nil:
		a.Outcome = outcomeDead
		c.call.log.Error("entry is dead", "queue", c.call.queue, "entry", h.Name, "reason", printable(a.Reason), "failures", h.Failures+1)
	case errors.Is(err, zkq.ErrLockLost):
		a.Outcome = outcomeLost
	case errors.Is(err, coord.ErrUnknown):
		a.Outcome = outcomeUnknown
	default: // it is held still: too large for it, for instance
		c.call.log.Warn("could not move the entry to the dead", "entry", h.Name, "error", printable(err.Error()))
		c.putAside(h, a)
	}
}

// failed puts an entry aside for its next attempt, if it has one.
func (c *consumer) failed(h *zkq.Held, a *attempt) {
	if c.retries > 0 && h.Failures+1 >= c.retries {
		c.bury(h, a)
		return
	}
	c.putAside(h, a)
}

// putAside counts a failure, and has the entry rest.
func (c *consumer) putAside(h *zkq.Held, a *attempt) {
	rest := c.rest(h.Failures + 1)
	if c.giveBack(h, a, outcomeFailed, func(ctx context.Context) error { return h.Fail(ctx, a.Reason, zkq.After(rest)) }) {
		c.call.log.Warn("entry failed", "queue", c.call.queue, "entry", h.Name, "reason", printable(a.Reason), "failures", h.Failures+1, "rests", rest.Round(time.Millisecond))
	}
}

// release gives an entry back to its place, which is nobody's fault.
func (c *consumer) release(h *zkq.Held, a *attempt, outcome string, opts ...zkq.ReleaseOption) {
	c.giveBack(h, a, outcome, func(ctx context.Context) error { return h.Release(ctx, opts...) })
}

// giveBack gives an entry back as do does, and reports whether it did.
func (c *consumer) giveBack(h *zkq.Held, a *attempt, outcome string, do func(context.Context) error) bool {
	a.Outcome = outcome
	err := c.persist(h, func() error {
		ctx, cancel := c.settling()
		defer cancel()
		return do(ctx)
	})
	switch {
	case err == nil:
		return true
	case errors.Is(err, zkq.ErrLockLost):
		a.Outcome = outcomeLost
	default:
		c.call.log.Warn("could not give the entry back; it is ready again when this session ends", "entry", h.Name, "error", printable(err.Error()))
	}
	return false
}
