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

// consumer is zkq consume: the handler of a [zkq.Worker], which takes and finishes the
// entries. The consumer runs CMD or prints the value, counts the outcomes, and decides
// when to stop.
//
// It stops in three steps, each the end of a context. After claiming the worker takes
// nothing more. After ending running commands are terminated and their entries are
// released. After killing the commands are killed at once.
type consumer struct {
	*call
	queue      *zkq.LockingQueue
	next       *zkq.LockingQueue // the target of --forward; nil without it
	jobs       int
	ahead      int           // entries to hold in advance, besides those in work
	max        int           // entries to take; 0 for any number
	halt       int           // failures to stop after; 0 for any number
	deliveries int           // deliveries after which an entry is dead; 0 for any number
	retries    int           // failures after which an entry is dead; 0 for any number
	idle       time.Duration // stop after so long without an entry; forever never stops
	drain      bool
	backoff    time.Duration // delay of an entry after its first failure
	timeout    time.Duration // for one run of CMD; 0 for none
	memory     uint64        // limit for each process of CMD, in bytes; 0 for none
	grace      time.Duration // from the first signal, or a lost lock, to the end of CMD
	forward    string        // name of next
	path       string        // file of CMD
	group      bool          // print CMD's output only when CMD has ended
	log        *jobLog
	status     *status

	claiming, ending, killing context.Context
	stop, end, kill           context.CancelCauseFunc // end these contexts

	mu       sync.Mutex             // guards the fields below
	attempts map[*zkq.Held]*attempt // in progress
	tally    tally
	fatal    error           // the first error that stopped the consumer
	signal   *signalError    // the second signal, if there was one
	failing  map[string]bool // names of entries whose last attempt here failed
	lastEnd  time.Time       // when the last attempt ended
}

// errHalted is the cause with which claiming ends after --halt failures.
var errHalted = errors.New("halted")

// consume runs a consumer until it has nothing more to do, fails or gets a signal.
func consume(ctx context.Context, k *call) error {
	c := &consumer{call: k, attempts: make(map[*zkq.Held]*attempt), failing: make(map[string]bool)}
	if err := c.readConsume(); err != nil {
		return err
	}
	defer c.log.close()
	return k.withCoordinator(ctx, func(co coord.Coordinator) error {
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

// expected returns the number of entries that the consumer will work on. It returns 0 if
// the number is not known or no progress is shown.
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

// register adds this process to the queue's workers. If that fails, each take tries
// again.
func (c *consumer) register(ctx context.Context) {
	ctx, cancel := c.changeContext(ctx)
	defer cancel()
	if err := c.queue.Register(ctx); err != nil {
		c.call.log.Info("not among the workers yet: " + printable(err.Error()))
	}
}

// run starts the worker and the goroutines that watch for signals and for a drain. It
// returns the error of the whole run when all have ended.
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

// worker returns the worker whose handler is c. Run it with c.ending: the consumer itself
// measures the grace after a signal, so the worker has none.
func (c *consumer) worker() *zkq.Worker {
	w := &zkq.Worker{
		Queue: c.queue, Handler: c, Report: c.report, Logger: workerLog{c.call.log},
		Concurrency: c.jobs, ReadAhead: c.ahead, Limit: c.max, Drain: c.drain,
		MaxFailures: c.retries, Backoff: c.restAfter,
		Stop: c.claiming.Done(), Grace: -1,
		StuckAfter: min(c.grace, 365*24*time.Hour) + 5*time.Second, // after a lost lock, CMD has the grace too
	}
	if c.idle != forever {
		w.Idle = c.idle
	}
	return w
}

// Handle makes one attempt at an entry: it runs CMD or prints the value.
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

// print is an attempt without a CMD: it prints the value, or forwards it.
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

// report counts the outcome of an entry and writes it to the job log.
func (c *consumer) report(h zkq.Handled) {
	c.mu.Lock()
	a := c.attempts[h.Held]
	delete(c.attempts, h.Held)
	c.mu.Unlock()
	if a == nil {
		return // the worker released the entry without an attempt
	}
	a.Outcome = c.outcome(h, a.Outcome)
	a.Seconds = time.Since(a.Start).Seconds()
	if err := c.log.write(a); err != nil && !errors.Is(err, errStuck) {
		c.fail(err)
	}
	c.status.finish(a.Outcome)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastEnd = time.Now()
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

// outcome returns the name of an entry's outcome. wanted is the outcome that the attempt
// wants for a released entry; "" means outcomeReleased.
func (c *consumer) outcome(h zkq.Handled, wanted string) string {
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
		c.fail(h.Err) // nothing was changed; the entry is ready again when the session ends
	}
	if wanted != "" {
		return wanted
	}
	return outcomeReleased
}

// maxBackoff is the longest delay after a failure, unless --backoff is longer.
const maxBackoff = time.Minute

// restAfter returns the delay of an entry after its n-th failure. It doubles with each
// failure. A random addition of up to a tenth spreads entries that failed together.
func (c *consumer) restAfter(n int) time.Duration {
	d := c.backoff
	for ; n > 1 && d > 0 && d < maxBackoff; n-- {
		d = min(2*d, maxBackoff)
	}
	return d + rand.N(d/10+1)
}

// pausedDrain returns the error of a drain that stops because the queue is paused. The
// error counts the ready entries, which stay.
func (c *consumer) pausedDrain(ctx context.Context) error {
	ctx, cancel := c.changeContext(ctx)
	defer cancel()
	st, err := c.queue.Stat(ctx)
	if err != nil {
		return err
	}
	f := nothingError("the queue is paused, and %s ready", pluralize(st.Ready, "entry is", "entries are"))
	f.hint = "zkq resume " + quoteWord(c.call.queue) + " ends the pause"
	return f
}

// drainIdle is the idle time after which a drain logs what it waits for.
const drainIdle = 150 * time.Millisecond

// watchDrain logs once that a drain waits only for entries that failed here. Without
// --retries, such a wait may never end.
func (c *consumer) watchDrain(finished <-chan struct{}) {
	if !c.drain {
		return
	}
	tick := time.NewTicker(drainIdle / 3)
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
		resting := n > 0 && len(c.attempts) == 0 && time.Since(c.lastEnd) >= drainIdle
		c.mu.Unlock()
		if resting && c.queue.LeftAlone() > 0 {
			c.tellFailing(n)
			return
		}
	}
}

// tellFailing logs that n entries keep failing: a warning if no limit ends that.
func (c *consumer) tellFailing(n int) {
	what := pluralize(n, "entry keeps failing", "entries keep failing")
	if c.retries > 0 {
		c.call.log.Info("draining: waits for what failed: "+what, "queue", c.call.queue, "retries", c.retries)
		return
	}
	c.call.log.Warn("draining: "+what+"; --retries N gives up", "queue", c.call.queue)
}

// watchSignals terminates running commands when the grace after the first signal has
// passed, and kills them at the second signal. It then also bounds all writes, because
// a reader may have stopped reading.
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

// fail stops the claiming because of an error. Running commands go on. The first error
// becomes that of the consumer.
func (c *consumer) fail(err error) {
	c.mu.Lock()
	if c.fatal == nil {
		c.fatal = err
	}
	c.mu.Unlock()
	c.stop(err)
}

// workerLog passes the worker's messages to the command's log. It escapes data of other
// processes, which could act on a terminal.
type workerLog struct{ log hclog.Logger }

func (l workerLog) Debug(message string, args ...any) { l.log.Debug(message, printableArgs(args)...) }

func (l workerLog) Info(message string, args ...any) { l.log.Info(message, printableArgs(args)...) }

func (l workerLog) Warn(message string, args ...any) { l.log.Warn(message, printableArgs(args)...) }

func (l workerLog) Error(message string, args ...any) { l.log.Error(message, printableArgs(args)...) }

// printableArgs returns the arguments of a log line with strings and errors escaped.
func printableArgs(args []any) []any {
	safe := make([]any, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case string:
			if safe[i] = printable(arg); i > 0 && args[i-1] == "queue" {
				safe[i] = strings.TrimPrefix(arg, "/") // without the leading slash, as users write it
			}
		case error:
			safe[i] = printable(arg.Error())
		default:
			safe[i] = arg
		}
	}
	return safe
}
