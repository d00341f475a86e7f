package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// consumer is zkq consume: the handler of a [zkq.Worker], which does everything about the
// queue. The consumer runs CMD or prints the value, counts what became of the entries, and
// says when to stop.
//
// It stops in three steps. When claiming has ended, the worker takes nothing more. When
// ending has, running commands are terminated and their entries given back; when killing
// has, they are killed at once.
type consumer struct {
	*call
	queue      *zkq.LockingQueue
	next       *zkq.LockingQueue // gets the output of CMD; nil without --forward
	jobs       int
	ahead      int           // entries to hold beyond those that are worked on
	max        int           // entries to take; 0 for any number
	halt       int           // failures to stop after; 0 for any number
	deliveries int           // after which an entry is dead if it is back; 0 for any number
	retries    int           // failures after which an entry is dead; 0 for any number
	idle       time.Duration // to stop after; forever if not
	drain      bool
	backoff    time.Duration // after the first failure
	timeout    time.Duration // of CMD; 0 for none
	memory     uint64        // of CMD's processes, in bytes; 0 for any
	grace      time.Duration
	forward    string // name of next
	path       string // of CMD
	group      bool   // hold CMD's output until it ends
	log        *jobLog
	status     *status

	claiming, ending, killing context.Context
	stop, end, kill           context.CancelCauseFunc // end these contexts

	mu       sync.Mutex
	attempts map[*zkq.Held]*attempt // under way
	tally    tally
	fatal    error // ended the consumer
	signal   *signalError
	failing  map[string]bool // names of entries that failed here and were not done since
	rested   time.Time       // when the last attempt ended
}

// errHalted ends the taking after --halt failures.
var errHalted = errors.New("halted")

func consume(ctx context.Context, k *call) error {
	c := &consumer{call: k, attempts: make(map[*zkq.Held]*attempt), failing: make(map[string]bool)}
	if err := c.readConsume(); err != nil {
		return err
	}
	defer c.log.close()
	return k.with(ctx, func(co coord.Coordinator) error {
		c.queue = k.newLocking(co, k.queue, zkq.MaxDeliveries(c.deliveries))
		defer c.queue.Close()
		if c.forward != "" {
			c.next = k.newLocking(co, c.forward)
			defer c.next.Close()
		}
		c.register(ctx)
		c.status = k.newStatus(c.expected(ctx))
		defer c.status.end()
		return c.run(ctx)
	})
}

// expected returns how many entries the consumer will work on; 0 if that is not known, or
// not shown.
func (c *consumer) expected(ctx context.Context) int {
	if c.max > 0 || !c.drain || !c.showsProgress() {
		return c.max
	}
	n, err := c.queue.Len(ctx)
	if err != nil {
		return 0
	}
	return n
}

// register makes this process known as a worker of the queue. Where that fails, each take
// tries it again.
func (c *consumer) register(ctx context.Context) {
	ctx, cancel := c.patient(ctx)
	defer cancel()
	if err := c.queue.Register(ctx); err != nil {
		c.call.log.Info("not among the workers yet: " + printable(err.Error()))
	}
}

func (c *consumer) run(ctx context.Context) error {
	c.claiming, c.stop = context.WithCancelCause(ctx)
	c.ending, c.end = context.WithCancelCause(context.WithoutCancel(ctx))
	c.killing, c.kill = context.WithCancelCause(context.WithoutCancel(ctx))
	finished := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { c.watchSignals(ctx, finished) })
	watching.Go(func() { c.watchDrain(finished) })
	defer reapOrphans()()

	c.call.log.Info("consumer started", "queue", c.call.queue, "jobs", c.jobs, "command", printable(quoteLine(c.cmd)))
	if c.drain {
		c.call.log.Info("draining: stops when nothing is ready", "queue", c.call.queue)
	}
	err := c.worker().Run(c.ending)
	if errors.Is(err, zkq.ErrPaused) {
		err = c.pausedDrain(ctx)
	}
	if err != nil && !(errors.Is(err, zkq.ErrStuck) && c.ending.Err() != nil) {
		c.fail(err)
	}
	close(finished)
	watching.Wait()
	c.stop(nil)
	c.end(nil)
	c.kill(nil)
	c.call.log.Info("consumer stopped", "queue", c.call.queue, "entries", c.tally.String())
	return c.result()
}

// worker returns the worker that consume is the handler of. Its context is ending: the
// consumer measures the grace after a signal itself.
func (c *consumer) worker() *zkq.Worker {
	w := &zkq.Worker{
		Queue: c.queue, Handler: c, Report: c.report, Logger: workerLog{c.call.log},
		Concurrency: c.jobs, ReadAhead: c.ahead, Limit: c.max, Drain: c.drain,
		MaxFailures: c.retries, Backoff: c.restAfter,
		Stop: c.claiming.Done(), Grace: -1,
		StuckAfter: min(c.grace, 365*24*time.Hour) + 5*time.Second, // CMD has the grace after a lost lock too
	}
	if c.idle != forever {
		w.Idle = c.idle
	}
	return w
}

// Handle makes one attempt at an entry.
func (c *consumer) Handle(ctx context.Context, h *zkq.Held) error {
	a := newAttempt(c.call, h)
	c.mu.Lock()
	c.attempts[h] = a
	c.mu.Unlock()
	c.status.start()
	if c.hasCmd {
		return c.command(ctx, h, a)
	}
	return c.print(ctx, h, a)
}

// print is the attempt where there is no CMD.
func (c *consumer) print(ctx context.Context, h *zkq.Held, a *attempt) error {
	if ctx.Err() != nil {
		return zkq.Release()
	}
	if c.next != nil {
		return c.passOn(ctx, h, a, h.Value, nil)
	}
	err := c.out.value(newHeldRecord(c.call.queue, c.holder, h), h.Value, false)
	if err == nil {
		return nil
	}
	if !errors.Is(err, errStuck) {
		c.fail(err)
	}
	return zkq.Release()
}

// report notes what became of an entry.
func (c *consumer) report(h zkq.Handled) {
	c.mu.Lock()
	a := c.attempts[h.Held]
	delete(c.attempts, h.Held)
	c.mu.Unlock()
	if a == nil {
		return // no attempt was made, and the entry was given back
	}
	a.Outcome = c.outcome(h, a.Outcome)
	a.Seconds = time.Since(a.Start).Seconds()
	if err := c.log.write(a); err != nil && !errors.Is(err, errStuck) {
		c.fail(err)
	}
	c.status.finish(a.Outcome)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rested = time.Now()
	switch a.Outcome {
	case outcomeFailed:
		c.failing[a.Name] = true
	case outcomeDone, outcomeDead, outcomeLost:
		delete(c.failing, a.Name)
	}
	c.tally.add(a.Outcome)
	if c.halt > 0 && c.tally.failed+c.tally.dead >= c.halt {
		c.stop(errHalted)
	}
}

// outcome names what became of an entry. asked is the outcome that the attempt asked for, ""
// if that follows from its result.
func (c *consumer) outcome(h zkq.Handled, asked string) string {
	switch h.Ending {
	case zkq.EndingDone:
		return outcomeDone
	case zkq.EndingFailed:
		return outcomeFailed
	case zkq.EndingDead:
		return outcomeDead
	case zkq.EndingLost:
		return outcomeLost
	case zkq.EndingUnknown:
		if errors.Is(h.Err, coord.ErrUnknown) {
			return outcomeUnknown
		}
		c.fail(h.Err) // nothing was changed, and the end of the session gives the entry back
	}
	if asked != "" {
		return asked
	}
	return outcomeReleased
}

// maxBackoff is the longest that an entry rests, unless --backoff is longer.
const maxBackoff = time.Minute

// restAfter returns how long an entry rests after its n-th failure: twice as long each time,
// and up to a tenth more, so that entries that failed together are not tried together.
func (c *consumer) restAfter(n int) time.Duration {
	d := c.backoff
	for ; n > 1 && d > 0 && d < maxBackoff; n-- {
		d = min(2*d, maxBackoff)
	}
	return d + rand.N(d/10+1)
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

// restBefore is how long nothing was done when a drain says what it waits for.
const restBefore = 150 * time.Millisecond

// watchDrain says once that a drain waits for nothing but entries that failed here and rest:
// without --retries it may wait for ever.
func (c *consumer) watchDrain(finished <-chan struct{}) {
	if !c.drain {
		return
	}
	tick := time.NewTicker(restBefore / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.claiming.Done():
			return
		case <-finished:
			return
		}
		c.mu.Lock()
		n := len(c.failing)
		resting := n > 0 && len(c.attempts) == 0 && time.Since(c.rested) >= restBefore
		c.mu.Unlock()
		if resting && c.queue.LeftAlone() > 0 {
			c.tellFailing(n)
			return
		}
	}
}

func (c *consumer) tellFailing(n int) {
	what := counted(n, "entry keeps failing", "entries keep failing")
	if c.retries > 0 {
		c.call.log.Info("draining: waits for what failed: "+what, "queue", c.call.queue, "retries", c.retries)
		return
	}
	c.call.log.Warn("draining: "+what+"; --retries N gives up", "queue", c.call.queue)
}

// watchSignals terminates running commands when the grace after the first signal is over,
// and kills them at the second signal. It also bounds writes to streams without a reader.
func (c *consumer) watchSignals(ctx context.Context, finished <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-finished:
		return
	}
	c.call.log.Info("consumer takes no more", "cause", context.Cause(ctx), "grace", c.grace)
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
		c.hurry()
		c.log.hurry()
	}
}

// fail ends the claiming because of an error; running commands go on.
func (c *consumer) fail(err error) {
	c.mu.Lock()
	if c.fatal == nil {
		c.fatal = err
	}
	c.mu.Unlock()
	c.stop(err)
}

// workerLog is the command's log as the worker uses it: what comes from others is made
// printable.
type workerLog struct{ log hclog.Logger }

func (l workerLog) Debug(message string, args ...any) { l.log.Debug(message, printableArgs(args)...) }

func (l workerLog) Info(message string, args ...any) { l.log.Info(message, printableArgs(args)...) }

func (l workerLog) Warn(message string, args ...any) { l.log.Warn(message, printableArgs(args)...) }

func (l workerLog) Error(message string, args ...any) { l.log.Error(message, printableArgs(args)...) }

func printableArgs(args []any) []any {
	safe := make([]any, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case string:
			if safe[i] = printable(arg); i > 0 && args[i-1] == "queue" {
				safe[i] = strings.TrimPrefix(arg, "/") // as the user writes it
			}
		case error:
			safe[i] = printable(arg.Error())
		default:
			safe[i] = arg
		}
	}
	return safe
}
