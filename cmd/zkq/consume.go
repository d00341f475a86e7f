package main

import (
	"context"
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
75: put back, not a failure; 65: dead at once; anything else: failed, and the entry is
put aside for --backoff, twice as long each time; with --retries it is dead after so
many. zkq requeue brings it back. Without CMD values are printed.
SIGINT, SIGTERM or SIGHUP: takes no more, and lets what runs finish within --grace.`,
		example: []string{
			"zkq consume -j 4 audio -- ./transcode.sh",
			"zkq consume --drain jobs",
		},
		flags: []cli.Flag{
			stringFlag("jobs", "j", "N", "run so many at once (default 1)"),
			stringFlag("read-ahead", "", "N", "hold so many more, to go on with at once (default 0)"),
			stringFlag("max", "n", "N", "stop after taking so many"),
			stringFlag("wait", "w", "D", "stop when idle that long"),
			boolFlag("drain", "", "stop when nothing is ready"),
			stringFlag("retries", "", "N", "an entry that failed so often is dead (default: never)"),
			stringFlag("max-deliveries", "", "N", "an entry handed out so often, and back from there, is dead (default: never)"),
			stringFlag("backoff", "", "D", "how long an entry rests after its first failure, doubling to 1m (default 1s)"),
			stringFlag("timeout", "", "D", "end CMD after that long: it has failed"),
			stringFlag("memory-limit", "", "SIZE", "of data for each of CMD's processes: 500MB, 2GiB (Linux)"),
			stringFlag("grace", "", "D", "how long CMD may go on after a signal or a lost lock (default 30s)"),
			stringFlag("halt", "", "N", "stop after so many failures"),
			stringFlag("joblog", "", "FILE", "append a line of JSON for each attempt"),
			stringFlag("forward", "", "QUEUE", "what CMD prints becomes an entry of QUEUE, in the transaction that removes this one"),
			boolFlag("ungroup", "", "with -j: do not hold back CMD's output until it ends"),
		},
		min: 1, max: 1, queue: true, cmd: true, locking: true, twoSignals: true,
		run: consume,
	}
}

// consumer takes entries and works on them.
type consumer struct {
	*call
	queue      *zkq.LockingQueue
	next       *zkq.LockingQueue // gets what CMD prints; nil for nobody
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

	stop context.CancelCauseFunc // take no more
	end  context.CancelCauseFunc // end what runs, kindly
	kill context.CancelCauseFunc // end what runs, at once

	claiming, ending, killing context.Context
	ended                     chan struct{} // holds one: a job ended
	working                   sync.WaitGroup

	mu      sync.Mutex
	running int
	swaps   swaps
	held    []*job // not begun yet, in the order in which they were taken
	taken   int
	active  time.Time // something was taken or done
	tally   tally
	fatal   error // that ended it
	signal  *signalError
	failing map[string]bool // entries that failed here and were not done since
	told    bool            // that only such entries are left

	busySince time.Time // of the first take of a drain that the service refused; zero: it did not
	toldBusy  bool      // that it does
}

func consume(ctx context.Context, k *call) error {
	c := &consumer{call: k, idle: forever, ended: make(chan struct{}, 1), failing: make(map[string]bool)}
	if err := c.configure(); err != nil {
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

func (c *consumer) configure() (err error) {
	f := c.flags
	if c.jobs, err = flagValue(f, "jobs", 1, func(s string) (int, error) { return decimal(s, 1, 1000) }); err != nil {
		return err
	}
	if c.ahead, err = countFlag(f, "read-ahead", 1000); err != nil {
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
	if c.deliveries, err = countFlag(f, "max-deliveries", math.MaxInt32); err != nil {
		return err
	}
	if c.idle, err = flagValue(f, "wait", forever, waiting); err != nil {
		return err
	}
	if c.grace, err = flagValue(f, "grace", 30*time.Second, duration); err != nil {
		return err
	}
	if c.backoff, err = flagValue(f, "backoff", time.Second, restTime); err != nil {
		return err
	}
	if c.timeout, err = flagValue(f, "timeout", 0, above0); err != nil {
		return err
	}
	if c.memory, err = flagValue(f, "memory-limit", 0, size); err != nil {
		return err
	}
	if f.IsSet("forward") {
		if c.forward, err = queueName(f.String("forward")); err != nil {
			return err
		}
		if f.Bool("ungroup") {
			return usageError("", "--ungroup has no use with --forward, which prints nothing: leave one of them out")
		}
		if c.forward == c.call.queue {
			return usageError("", "--forward %s names the queue that is consumed: name another", quoteWord(c.forward))
		}
	}
	if c.memory > 0 && !limitsMemory {
		return usageError("", "--memory-limit works on Linux only")
	}
	for _, name := range []string{"timeout", "memory-limit"} {
		if f.IsSet(name) && !c.hasCmd {
			return usageError("", "--%s needs a CMD: write it after --", name)
		}
	}
	c.drain = f.Bool("drain") || c.idle == 0
	c.group = c.hasCmd && (c.forward != "" || c.jobs > 1 && !f.Bool("ungroup"))
	if c.hasCmd {
		if len(c.cmd) == 0 {
			return usageError("", "CMD is missing after --")
		}
		if c.path, err = exec.LookPath(c.cmd[0]); err != nil {
			return usageError("", "CMD %s: %w", quoteWord(c.cmd[0]), err)
		}
	}
	if c.log, err = openJobLog(f.String("joblog")); err != nil {
		return c.about(err)
	}
	return nil
}

// expected is how many entries the consumer has ahead of it; 0 if nobody knows, or
// asks.
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

// register has others see that this process is there; where it fails at first it
// is tried again with each take.
func (c *consumer) register(ctx context.Context) {
	ctx, cancel := c.patient(ctx)
	defer cancel()
	if err := c.queue.Register(ctx); err != nil {
		c.call.log.Info("not among the workers yet: " + printable(err.Error()))
	}
}

func (c *consumer) run(ctx context.Context) error {
	c.claiming, c.stop = context.WithCancelCause(ctx)
	c.ending, c.end = context.WithCancelCause(context.Background())
	c.killing, c.kill = context.WithCancelCause(context.Background())
	finished := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { c.watchSignals(ctx, finished) })
	defer reapOrphans()()

	c.call.log.Info("consumer started", "queue", c.call.queue, "jobs", c.jobs, "command", printable(quoteLine(c.cmd)))
	c.claim(c.claiming)
	c.working.Wait()
	close(finished)
	watching.Wait()
	c.stop(nil)
	c.end(nil)
	c.kill(nil)
	c.call.log.Info("consumer stopped", "queue", c.call.queue, "entries", c.tally.String())
	return c.result()
}

// watchSignals ends what runs when the grace after the first signal is over, and
// kills it at the second. A write to a stream without a reader must not outlast
// either.
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

// fail ends the claiming for good; what runs goes on.
func (c *consumer) fail(err error) {
	c.mu.Lock()
	if c.fatal == nil {
		c.fatal = err
	}
	c.mu.Unlock()
	c.stop(err)
}
