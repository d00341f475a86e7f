package main

import (
	"context"
	"errors"
	"math"
	"os/exec"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

func consumeVerb() verb {
	return verb{
		name:  "consume",
		args:  "QUEUE [-- CMD ARG…]",
		usage: "take entries, run a command for each, and remove what is done",
		more: `CMD reads the value on its standard input. It exits 0: done, the entry is removed;
75: put back, not a failure; 65: dead at once; anything else: failed, the entry goes
back to its place and this process leaves it alone for a second; with --retries it is
dead after so many. zkq requeue brings it back. Without CMD values are printed.
SIGINT, SIGTERM or SIGHUP: takes no more, and lets what runs finish within --grace.`,
		example: []string{
			"zkq consume -j 4 audio -- ./transcode.sh",
			"zkq consume --drain jobs",
		},
		flags: []cli.Flag{
			stringFlag("jobs", "j", "N", "run so many at once (default 1)"),
			stringFlag("max", "n", "N", "stop after taking so many"),
			stringFlag("wait", "w", "D", "stop when idle that long"),
			boolFlag("drain", "", "stop when nothing is ready"),
			stringFlag("retries", "", "N", "an entry that failed so often is dead (default: never)"),
			stringFlag("grace", "", "D", "how long CMD may go on after a signal or a lost lock (default 30s)"),
			stringFlag("halt", "", "N", "stop after so many failures"),
			stringFlag("joblog", "", "FILE", "append a line of JSON for each attempt"),
			boolFlag("ungroup", "", "with -j: do not hold back CMD's output until it ends"),
		},
		min: 1, max: 1, queue: true, cmd: true, locking: true, twoSignals: true,
		run: consume,
	}
}

// consumer takes entries and works on them.
type consumer struct {
	*call
	queue    *zkq.LockingQueue
	jobs     int
	max      int           // entries to take; 0 for any number
	halt     int           // failures to stop after; 0 for any number
	retries  int           // failures after which an entry is dead; 0 for any number
	idle     time.Duration // to stop after; forever if not
	drain    bool
	grace    time.Duration
	path     string // of CMD
	group    bool   // hold CMD's output until it ends
	log      *jobLog
	progress *progress

	stop context.CancelCauseFunc // take no more
	end  context.CancelCauseFunc // end what runs, kindly
	kill context.CancelCauseFunc // end what runs, at once

	ending, killing context.Context
	ended           chan struct{} // holds one: a job ended
	working         sync.WaitGroup

	mu      sync.Mutex
	running int
	taken   int
	active  time.Time // something was taken or done
	tally   tally
	fatal   error // that ended it
	signal  *signalError
}

func consume(ctx context.Context, k *call) error {
	c := &consumer{call: k, idle: forever, ended: make(chan struct{}, 1)}
	if err := c.configure(); err != nil {
		return err
	}
	defer c.log.close()
	return k.with(ctx, func(co coord.Coordinator) error {
		c.queue = k.newLocking(co, k.queue)
		defer c.queue.Close()
		c.progress = k.newProgress("consume", c.expected(ctx), false, c.hasCmd && !c.group)
		defer c.progress.end()
		return c.run(ctx)
	})
}

func (c *consumer) configure() (err error) {
	f := c.flags
	if c.jobs, err = flagValue(f, "jobs", 1, func(s string) (int, error) { return decimal(s, 1, 1000) }); err != nil {
		return err
	}
	if c.max, err = countFlag(f, "max", math.MaxInt32); err != nil {
		return err
	}
	if c.halt, err = countFlag(f, "halt", math.MaxInt32); err != nil {
		return err
	}
	if c.retries, err = countFlag(f, "retries", math.MaxInt32); err != nil {
		return err
	}
	if c.idle, err = flagValue(f, "wait", forever, waiting); err != nil {
		return err
	}
	if c.grace, err = flagValue(f, "grace", 30*time.Second, duration); err != nil {
		return err
	}
	c.drain = f.Bool("drain") || c.idle == 0
	c.group = c.hasCmd && c.jobs > 1 && !f.Bool("ungroup")
	if c.hasCmd {
		if len(c.cmd) == 0 {
			return usageError("", "CMD is missing after --")
		}
		if c.path, err = exec.LookPath(c.cmd[0]); err != nil {
			return usageError("", "CMD %s: %w", quoteWord(c.cmd[0]), err)
		}
	} else if err := c.out.forValues(); err != nil {
		return c.about(err)
	}
	if c.log, err = openJobLog(f.String("joblog")); err != nil {
		return c.about(err)
	}
	return nil
}

// expected is how many entries a progress bar has ahead of it; 0 if nobody
// knows.
func (c *consumer) expected(ctx context.Context) int64 {
	if c.max > 0 || !c.drain || c.settings.progress == "never" || c.settings.progress == "auto" && !isTerminal(c.stderr) {
		return int64(c.max)
	}
	n, err := c.queue.Len(ctx)
	if err != nil {
		return 0
	}
	return int64(n)
}

func (c *consumer) run(ctx context.Context) error {
	claiming, stop := context.WithCancelCause(ctx)
	c.stop = stop
	c.ending, c.end = context.WithCancelCause(context.Background())
	c.killing, c.kill = context.WithCancelCause(context.Background())
	finished := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { c.watchSignals(ctx, finished) })

	c.claim(claiming)
	c.working.Wait()
	close(finished)
	watching.Wait()
	stop(nil)
	c.end(nil)
	c.kill(nil)
	return c.result()
}

// watchSignals ends what runs when the grace after the first signal is over, and
// kills it at the second.
func (c *consumer) watchSignals(ctx context.Context, finished <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-finished:
		return
	}
	grace := time.NewTimer(c.grace)
	defer grace.Stop()
	for {
		select {
		case <-finished:
			return
		case <-grace.C:
			c.end(context.Cause(ctx))
		case sig := <-c.second:
			c.mu.Lock()
			c.signal = sig
			c.mu.Unlock()
			c.kill(sig)
			c.end(sig)
		}
	}
}

// Why the claiming ended, when nothing went wrong.
var (
	errIdle    = errors.New("idle")
	errDrained = errors.New("drained")
	errHalted  = errors.New("halted")
)

// claim takes entries and starts their work until it is told to stop, or there
// is a reason to.
func (c *consumer) claim(ctx context.Context) {
	for ctx.Err() == nil {
		c.mu.Lock()
		free := c.jobs - c.running
		if c.max > 0 {
			free = min(free, c.max-c.taken)
		}
		enough := c.max > 0 && c.taken == c.max
		c.mu.Unlock()
		if enough {
			return
		}
		if free == 0 {
			c.pause(ctx, time.Hour)
			continue
		}
		held, err := c.take(ctx, min(free, chunk))
		for _, h := range held {
			c.mu.Lock()
			c.running++
			c.taken++
			c.active = time.Now()
			c.mu.Unlock()
			c.working.Go(func() { c.work(h) })
		}
		switch {
		case err == nil:
		case errors.Is(err, errIdle), errors.Is(err, errDrained), ctx.Err() != nil:
			return
		case errors.Is(err, coord.ErrUnknown), errors.Is(err, coord.ErrSessionLost), errors.Is(err, coord.ErrBusy), errors.Is(err, context.DeadlineExceeded):
			// The next attempt is made later, in a new session, or finds none.
			c.call.log.Info("claim again: " + printable(err.Error()))
			c.pause(ctx, 100*time.Millisecond)
		default:
			c.fail(err)
			return
		}
	}
}

// take claims up to n entries, and waits for one.
func (c *consumer) take(ctx context.Context, n int) ([]*zkq.Held, error) {
	if !c.drain {
		ctx, cancel := c.untilIdle(ctx)
		defer cancel()
		held, err := c.queue.TakeN(ctx, n)
		if err != nil && context.Cause(ctx) == errIdle {
			err = errIdle
		}
		return held, err
	}
	for {
		// What ended in between may have been given back after the look.
		c.mu.Lock()
		settled := c.running == 0
		c.mu.Unlock()
		settled = settled && c.queue.LeftAlone() == 0
		long, cancel := c.patient(ctx)
		held, err := c.queue.TryTakeN(long, n)
		cancel()
		switch {
		case !errors.Is(err, zkq.ErrEmpty):
			return held, err
		case settled:
			return nil, errDrained
		}
		c.pause(ctx, 100*time.Millisecond)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
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
			if c.running > 0 {
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

// fail ends the claiming for good; what runs goes on.
func (c *consumer) fail(err error) {
	c.mu.Lock()
	if c.fatal == nil {
		c.fatal = err
	}
	c.mu.Unlock()
	c.stop(err)
}
