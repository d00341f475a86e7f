package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// What CMD's exit status says, besides 0 and that it failed.
const (
	statusDead    = 65
	statusPutBack = 75
)

// aloneFor is how long this process leaves an entry alone that it gave back.
const aloneFor = time.Second

// work is one attempt at one entry.
func (c *consumer) work(h *zkq.Held) {
	a := newAttempt(c.call, h)
	if c.hasCmd {
		c.command(h, a)
	} else {
		c.print(h, a)
	}
	a.Seconds = time.Since(a.Start).Seconds()
	if err := c.log.write(a); err != nil {
		c.fail(err)
	}
	if a.Outcome == outcomeDone {
		c.progress.add(1, 0)
	} else {
		c.progress.failed()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	c.active = time.Now()
	switch a.Outcome {
	case outcomeDone:
		c.tally.done++
	case outcomePutBack:
		c.tally.putBack++
	case outcomeReleased:
		c.tally.released++
	case outcomeLost:
		c.tally.lost++
	case outcomeUnknown:
		c.tally.unknown++
	case outcomeFailed:
		c.tally.failed++
	case outcomeDead:
		c.tally.dead++
	}
	if c.halt > 0 && c.tally.failed+c.tally.dead >= c.halt {
		c.stop(errHalted)
	}
	select {
	case c.ended <- struct{}{}:
	default:
	}
}

// print is the work where there is no CMD.
func (c *consumer) print(h *zkq.Held, a *attempt) {
	err := context.Cause(c.ending)
	if err == nil {
		if err = c.out.value(newHeldRecord(c.call.queue, c.holder, h), h.Value, false); err != nil {
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
func (c *consumer) command(h *zkq.Held, a *attempt) {
	locked, cancel := h.Context(context.Background())
	defer cancel()
	cmd := &exec.Cmd{Path: c.path, Args: c.cmd, Env: c.childEnv(h)}
	var kept *spill
	switch {
	case c.group:
		kept = &spill{}
		defer kept.close()
		cmd.Stdout = kept
	case c.out.file != nil:
		cmd.Stdout = c.out.file
	default:
		cmd.Stdout = writerFunc(c.out.write)
	}
	cmd.Stderr = c.stderr
	child, err := startChild(cmd, h.Value)
	if err != nil {
		c.fail(fmt.Errorf("start %s: %w", quoteWord(c.cmd[0]), err))
		c.release(h, a, outcomeReleased)
		return
	}
	lost, ended := c.supervise(child, locked.Done())
	a.ended(child.state)
	err = child.err
	if err == nil && kept != nil {
		if err = kept.to(c.out); err != nil && kept.err == nil {
			c.end(err) // nobody will see what the others print either
		}
	}
	if err != nil {
		c.fail(fmt.Errorf("pass on what %s printed: %w", quoteWord(c.cmd[0]), err))
		ended = true
	}
	switch {
	case lost:
		a.Outcome = outcomeLost
	case ended:
		c.release(h, a, outcomeReleased)
	case child.state.Success():
		c.finish(h, a)
	case child.state.ExitCode() == statusPutBack:
		c.release(h, a, outcomePutBack, zkq.LeaveAlone(aloneFor))
	case child.state.ExitCode() == statusDead, c.retries > 0 && h.Failures+1 >= c.retries:
		c.bury(h, a, child.state.String())
	default:
		c.giveBack(h, a, outcomeFailed, func(ctx context.Context) error {
			return h.Fail(ctx, child.state.String(), zkq.LeaveAlone(aloneFor))
		})
	}
	if a.Outcome == outcomeLost {
		c.call.log.Warn("lock lost before the work was finished", "entry", h.Name)
	}
}

// killAfter is how long CMD has after the SIGTERM at the end of the grace.
const killAfter = time.Second

// supervise waits for the child to end. When the lock is lost, or the consumer
// ends, it ends the child: what it then exits with says nothing about the work.
func (c *consumer) supervise(ch *child, lock <-chan struct{}) (lost, ended bool) {
	leash, ending := killAfter, c.ending.Done()
	select {
	case <-ch.done:
		return false, false
	case <-c.ending.Done():
		ended, ending = true, nil
	case <-lock:
		lost, leash = true, c.grace
	}
	ch.terminate()
	t := time.NewTimer(leash)
	defer t.Stop()
	for {
		select {
		case <-ch.done:
			ch.kill() // whom it left behind
			return lost, ended
		case <-ending:
			ended, ending = true, nil
			t.Reset(min(killAfter, c.grace))
			continue
		case <-t.C:
		case <-c.killing.Done():
		}
		ch.kill()
		<-ch.done
		return lost, ended
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
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// settling is the context for giving back and removing: it outlasts a first
// signal, and hardly a second.
func (c *consumer) settling() (context.Context, context.CancelFunc) {
	return linger(c.killing, c.settings.sessionTimeout+c.settings.connectTimeout, 2*time.Second)
}

// finish removes an entry whose work is done.
func (c *consumer) finish(h *zkq.Held, a *attempt) {
	ctx, cancel := c.settling()
	defer cancel()
	err := h.Consume(ctx)
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
func (c *consumer) bury(h *zkq.Held, a *attempt, reason string) {
	ctx, cancel := c.settling()
	defer cancel()
	err := h.Bury(ctx, reason)
	switch {
	case err == nil:
		a.Outcome = outcomeDead
	case errors.Is(err, zkq.ErrLockLost):
		a.Outcome = outcomeLost
	case errors.Is(err, coord.ErrUnknown):
		a.Outcome = outcomeUnknown
	default: // it is held still: too large for it, for instance
		c.call.log.Warn("not given up", "entry", h.Name, "error", printable(err.Error()))
		c.giveBack(h, a, outcomeFailed, func(ctx context.Context) error {
			return h.Fail(ctx, reason, zkq.LeaveAlone(aloneFor))
		})
	}
}

// release gives an entry back to its place, which is nobody's fault.
func (c *consumer) release(h *zkq.Held, a *attempt, outcome string, opts ...zkq.ReleaseOption) {
	c.giveBack(h, a, outcome, func(ctx context.Context) error { return h.Release(ctx, opts...) })
}

func (c *consumer) giveBack(h *zkq.Held, a *attempt, outcome string, do func(context.Context) error) {
	ctx, cancel := c.settling()
	defer cancel()
	a.Outcome = outcome
	if err := do(ctx); errors.Is(err, zkq.ErrLockLost) {
		a.Outcome = outcomeLost
	} else if err != nil {
		c.call.log.Warn("not given back, and back when the session ends", "entry", h.Name, "error", printable(err.Error()))
	}
}
