package main

import (
	"fmt"
	"math"
	"os/exec"
	"time"

	"github.com/urfave/cli/v2"
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

// readConsume reads what consume was given, before anything is contacted.
func (c *consumer) readConsume() error {
	for _, read := range []func() error{c.readCounts, c.readTimes, c.readForward, c.readCommand} {
		if err := read(); err != nil {
			return err
		}
	}
	c.drain = c.flags.Bool("drain") || c.idle == 0
	c.group = c.hasCmd && (c.forward != "" || c.jobs > 1 && !c.flags.Bool("ungroup"))
	var err error
	if c.log, err = openJobLog(c.flags.String("joblog")); err != nil {
		return c.describe(err)
	}
	return nil
}

// readCounts parses the flags that are numbers or sizes.
func (c *consumer) readCounts() (err error) {
	if c.jobs, err = flagValue(c.flags, "jobs", 1, func(s string) (int, error) { return parseDecimal(s, 1, 1000) }); err != nil {
		return err
	}
	for _, count := range []struct {
		name string
		to   *int
		most int
	}{
		{"read-ahead", &c.ahead, 1000},
		{"max", &c.max, math.MaxInt32},
		{"halt", &c.halt, math.MaxInt32},
		{"retries", &c.retries, math.MaxInt32},
		{"max-deliveries", &c.deliveries, math.MaxInt32},
	} {
		if *count.to, err = countFlag(c.flags, count.name, count.most); err != nil {
			return err
		}
	}
	c.memory, err = flagValue(c.flags, "memory-limit", 0, parseSize)
	return err
}

// readTimes parses the flags that are durations.
func (c *consumer) readTimes() (err error) {
	for _, length := range []struct {
		name   string
		to     *time.Duration
		absent time.Duration
		read   func(string) (time.Duration, error)
	}{
		{"wait", &c.idle, forever, parseWait},
		{"grace", &c.grace, 30 * time.Second, parseDuration},
		{"backoff", &c.backoff, time.Second, parseBackoff},
		{"timeout", &c.timeout, 0, parsePositiveDuration},
	} {
		if *length.to, err = flagValue(c.flags, length.name, length.absent, length.read); err != nil {
			return err
		}
	}
	return nil
}

// workerMaxBackoff is the longest delay after a failure that a [zkq.Worker] allows.
const workerMaxBackoff = 30 * 24 * time.Hour

// parseBackoff parses the delay of an entry after its first failure.
func parseBackoff(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && d > workerMaxBackoff {
		err = fmt.Errorf("%q: at most %.0fh, thirty days", s, workerMaxBackoff.Hours())
	}
	return d, err
}

// readForward checks --forward, and the flags that exclude it.
func (c *consumer) readForward() (err error) {
	if !c.flags.IsSet("forward") {
		return nil
	}
	if c.forward, err = queueName(c.flags.String("forward")); err != nil {
		return err
	}
	if c.flags.Bool("ungroup") {
		return usageError("", "--ungroup has no use with --forward, which prints nothing: leave one of them out")
	}
	if c.forward == c.call.queue {
		return usageError("", "--forward %s names the queue that is consumed: name another", quoteWord(c.forward))
	}
	return nil
}

// readCommand finds the file of CMD, and refuses flags that need a CMD if there is none.
func (c *consumer) readCommand() (err error) {
	if c.memory > 0 && !limitsMemory {
		return usageError("", "--memory-limit works on Linux only")
	}
	if !c.hasCmd {
		for _, name := range []string{"timeout", "memory-limit"} {
			if c.flags.IsSet(name) {
				return usageError("", "--%s needs a CMD: write it after --", name)
			}
		}
		return nil
	}
	if len(c.cmd) == 0 {
		return usageError("", "CMD is missing after --")
	}
	if c.path, err = exec.LookPath(c.cmd[0]); err != nil {
		return usageError("", "CMD %s: %w", quoteWord(c.cmd[0]), err)
	}
	return nil
}
