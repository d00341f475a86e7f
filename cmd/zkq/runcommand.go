package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/zkq/zkq"
)

// The exit statuses of CMD that mean neither done nor failed. 65 is EX_DATAERR and 75 is
// EX_TEMPFAIL of sysexits.h.
const (
	statusDead    = 65
	statusPutBack = 75
)

// command runs CMD for an entry. It returns the result of the attempt for the worker.
func (c *consumer) command(ctx context.Context, h *zkq.Held, a *attempt) error {
	cmd := &exec.Cmd{Path: c.path, Args: c.cmd, Env: c.childEnv(h)}
	var kept *spill
	var next *forwardOutput
	direct := false // CMD writes to zkq's own standard output
	switch {
	case c.next != nil:
		next = &forwardOutput{}
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
		return zkq.Release()
	}
	end := c.supervise(ctx, child)
	a.recordEnd(child.state)
	err = child.err
	if err == nil && kept != nil {
		if err = kept.writeTo(c.out); err != nil && kept.err == nil {
			c.end(err) // the output of the other commands could not be written either
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
	switch end {
	case endLost:
		return context.Cause(ctx)
	case endTold:
		return zkq.Release()
	case endLate:
		a.Reason = fmt.Sprintf("ran longer than %v: %v", c.timeout, child.state)
		return errors.New(a.Reason)
	}
	return c.exitResult(ctx, h, a, child.state.ExitCode(), next)
}

// exitResult returns the result of an attempt whose CMD ended with this exit status. next is
// the output to forward, or nil without --forward.
func (c *consumer) exitResult(ctx context.Context, h *zkq.Held, a *attempt, status int, next *forwardOutput) error {
	switch status {
	case 0:
		if next == nil {
			return nil
		}
		value, err := next.value()
		return c.passOn(ctx, h, a, value, err)
	case statusPutBack:
		a.Outcome = outcomePutBack
		return zkq.Release(zkq.LeaveAlone(c.backoff))
	case statusDead:
		return zkq.Skip(errors.New(a.Reason))
	}
	return errors.New(a.Reason)
}

// lostReader reports whether CMD most likely failed because the reader of zkq's standard
// output or error has gone, say after | head. The statuses 0, 65 and 75 keep their
// meaning even then.
func (c *consumer) lostReader(child *child) bool {
	switch child.state.ExitCode() {
	case 0, statusDead, statusPutBack:
		return false
	}
	return hungUp(c.out.file) || c.messages.file != nil && hungUp(c.messages.file)
}

// killAfter is the time between SIGTERM and SIGKILL for a CMD that ran too long.
const killAfter = time.Second

// ending is the reason why CMD ended.
type ending int

const (
	endOwn  ending = iota // by itself: only then its status counts
	endLate               // its --timeout passed
	endTold               // the consumer is ending
	endLost               // the lock was lost
)

// supervise waits until the child has ended, and returns why. It terminates the child
// when the lock is lost, the timeout passes or the consumer ends, and kills it later.
// After a lost lock the child has the whole grace.
func (c *consumer) supervise(ctx context.Context, ch *child) ending {
	why, killDelay, told := endOwn, killAfter, c.ending.Done()
	var late <-chan time.Time
	if c.timeout > 0 {
		t := time.NewTimer(c.timeout)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-ch.done:
		return endOwn
	case <-late:
		why = endLate
	case <-ctx.Done():
		why = endTold
		if errors.Is(context.Cause(ctx), zkq.ErrLockLost) {
			why, killDelay = endLost, c.grace
		} else {
			told = nil
		}
	}
	ch.terminate()
	t := time.NewTimer(killDelay)
	defer t.Stop()
	for {
		select {
		case <-ch.done:
			ch.kill() // kill the processes that it left in its group
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

// childEnv returns the environment of CMD: that of zkq, and the entry's variables.
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
