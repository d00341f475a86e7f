package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/plot"
	"github.com/zkq/zkq/internal/workload"
)

// benchQueue is the queue that bench uses unless the user names another.
const benchQueue = "zkq-bench"

func benchVerb() verb {
	return verb{
		name:  "bench",
		args:  "[QUEUE]",
		usage: "measure puts, takes and waiting times on your own cluster",
		more: `Puts, takes and finishes entries of its own and says how fast that went: put; take and
finish one at a time, in batches, by several processes; from put to finish; the time from a
put to its worker at 100 puts a second; and the cost of an entry against the backlog.

It loads the cluster as hard as it can. It works in a queue of its own, ` + benchQueue + `
unless QUEUE names another, which must be empty, and removes the entries it has put.`,
		example: []string{"zkq -c zk://h1,h2,h3 bench", "zkq bench --duration 2m --svg backlog.svg"},
		flags: []cli.Flag{
			stringFlag("duration", "", "D", "for all measurements together, about (30s)"),
			stringFlag("entries", "", "N", "at most that many entries in the queue, from 100 (10000)"),
			stringFlag("size", "", "SIZE", "of each value (100)"),
			stringFlag("workers", "", "N", "workers of one process, and putters (16)"),
			stringFlag("processes", "", "N", "that take side by side, with 4 workers each (4)"),
			stringFlag("svg", "", "FILE", "draw the cost of an entry against the backlog"),
		},
		max: 1, locking: true,
		run: runBench,
	}
}

// bench is one run of all measurements. It measures in an empty queue and removes its
// entries at the end, also after an error or a signal.
type bench struct {
	*call
	client *countingCoordinator
	queue  *zkq.LockingQueue
	share  time.Duration // the time for one measurement

	entries, size, workers, processes int

	table *table
	costs []plot.Point // milliseconds for one entry, against the backlog
}

// benchRecord is the JSON of a measurement. A value that was not measured is null.
type benchRecord struct {
	Measurement string   `json:"measurement"`
	Processes   int      `json:"processes"`
	Workers     int      `json:"workers"` // of each process
	Batch       int      `json:"batch"`
	Backlog     int      `json:"backlog"` // at the start
	Entries     int      `json:"entries"`
	Seconds     float64  `json:"seconds"`
	PerSecond   float64  `json:"per_second"`
	P50         *float64 `json:"p50_ms"`
	P99         *float64 `json:"p99_ms"`
	Lost        *float64 `json:"lost_per_entry"` // commits that another process made impossible
}

func runBench(ctx context.Context, k *call) error {
	b, svg, err := newBench(k)
	if err != nil {
		return err
	}
	return k.withCoordinator(ctx, func(c coord.Coordinator) error {
		b.client = newCountingCoordinator(c)
		b.queue = k.newLocking(b.client, k.queue)
		defer b.queue.Close()
		st, err := b.queue.Stat(ctx)
		if err != nil {
			return k.describe(err)
		}
		if st.Total() > 0 {
			return k.describe(&failure{
				code: exitFailed, err: fmt.Errorf("the queue holds %s, and bench would take what is in it", pluralize(st.Total(), "entry", "entries")),
				hint: "name a queue that is empty: zkq bench QUEUE",
			})
		}
		var file *os.File
		if svg != "" { // created first: a bad path must fail before minutes of work
			if file, err = os.Create(svg); err != nil {
				return k.describe(err)
			}
			defer file.Close()
		}
		b.table = k.out.table("measurement", "processes", "workers", "batch", "backlog", "entries", "per second", "p50", "p99", "lost")
		err = b.runAll(ctx)
		cleaned := b.clean(ctx)
		switch {
		case err == nil:
			err = cleaned
		case cleaned != nil:
			k.log.Warn("entries of bench may be left in " + k.queue + ": " + printable(cleaned.Error()))
		}
		if err == nil {
			err = b.table.end()
		}
		if err == nil && file != nil {
			_, err = file.WriteString(plot.Costs("Time for one entry, taken and finished, against the backlog",
				k.settings.target.String()+", "+time.Now().UTC().Format(time.DateOnly), plot.Series{Points: b.costs}))
		}
		return k.describe(err)
	})
}

// newBench reads the flags of bench. svg is the path of the drawing, or "".
func newBench(k *call) (b *bench, svg string, err error) {
	b = &bench{call: k}
	if len(k.words) > 0 {
		b.call.queue, err = queueName(k.words[0])
	} else {
		b.call.queue = benchQueue
	}
	if err != nil {
		return nil, "", err
	}
	duration, err := flagValue(k.flags, "duration", 30*time.Second, parsePositiveDuration)
	if err != nil {
		return nil, "", err
	}
	for _, n := range []struct {
		to                  *int
		name                string
		absent, least, most int
	}{
		{&b.entries, "entries", 10_000, 100, 1_000_000},
		{&b.workers, "workers", 16, 1, 1000},
		{&b.processes, "processes", 4, 1, 64},
	} {
		*n.to, err = flagValue(k.flags, n.name, n.absent, func(s string) (int, error) { return parseDecimal(s, n.least, n.most) })
		if err != nil {
			return nil, "", err
		}
	}
	bytes, err := flagValue(k.flags, "size", 100, parseSize)
	if err != nil {
		return nil, "", err
	}
	if bytes < benchHeader || bytes > zkq.MaxValue {
		return nil, "", usageError("", "--size %d: allowed are %d to %d bytes", bytes, benchHeader, zkq.MaxValue)
	}
	b.size = int(bytes)
	svg = k.flags.String("svg")
	if k.flags.IsSet("svg") && svg == "" {
		return nil, "", usageError("", "--svg: a file's name is missing")
	}
	if svg != "" {
		if _, err := os.Stat(filepath.Dir(svg)); err != nil {
			return nil, "", usageError("", "--svg %s: %w", svg, err)
		}
	}
	b.share = duration / time.Duration(len(b.measurements()))
	return b, svg, nil
}

// measurement is one line of the table.
type measurement struct {
	name string
	run  func(context.Context) (benchRecord, error)
}

// measurements returns all measurements in the order in which they run. The first ones
// let the backlog grow, the later ones empty the queue.
func (b *bench) measurements() []measurement {
	var all []measurement
	for backlog := 100; backlog <= b.entries; backlog *= 10 {
		all = append(all, measurement{"backlog", func(ctx context.Context) (benchRecord, error) {
			r, err := b.takes(ctx, backlog, b.workers, 1)
			if err == nil {
				b.costs = append(b.costs, plot.Point{Backlog: float64(r.Backlog), Cost: 1000 * r.Seconds / float64(r.Entries)})
			}
			return r, err
		}})
	}
	return append(all,
		measurement{"take", func(ctx context.Context) (benchRecord, error) { return b.takes(ctx, b.entries, 1, 1) }},
		measurement{"take", func(ctx context.Context) (benchRecord, error) { return b.takes(ctx, b.entries, b.workers, 1) }},
		measurement{"take", func(ctx context.Context) (benchRecord, error) { return b.takes(ctx, b.entries, b.workers, 8) }},
		measurement{"contention", b.contention},
		measurement{"put", b.puts},
		measurement{"put to finish", b.endToEnd},
		measurement{"latency", b.latency},
	)
}

// runAll runs the measurements and prints each result at once.
func (b *bench) runAll(ctx context.Context) error {
	todo := b.measurements()
	bar := b.newProgress("measured", int64(len(todo)), false)
	defer bar.end()
	for _, m := range todo {
		r, err := m.run(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		r.Measurement = m.name
		if r.Seconds > 0 {
			r.PerSecond = float64(r.Entries) / r.Seconds
		}
		if err := b.show(r); err != nil {
			return err
		}
		bar.add(1, 0)
	}
	return nil
}

// show prints one result as a row.
func (b *bench) show(r benchRecord) error {
	shown := func(f *float64, format string) string {
		if f == nil {
			return ""
		}
		return fmt.Sprintf(format, *f)
	}
	return b.table.row(r, r.Measurement, strconv.Itoa(r.Processes), strconv.Itoa(r.Workers), strconv.Itoa(r.Batch),
		strconv.Itoa(r.Backlog), strconv.Itoa(r.Entries), fmt.Sprintf("%.1f", r.PerSecond),
		shown(r.P50, "%.2fms"), shown(r.P99, "%.2fms"), shown(r.Lost, "%.3f"))
}

// clean removes the entries that the measurements left, even after a signal. It
// repeats until the queue is empty, because workers may give entries back meanwhile.
func (b *bench) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.settings.sessionTimeout+b.settings.connectTimeout+benchPatience)
	defer cancel()
	for {
		if err := b.takeAway(ctx); err != nil {
			return fmt.Errorf("remove what it put: %w", err)
		}
		for _, s := range []zkq.State{zkq.StateReady, zkq.StateHeld} {
			if _, err := b.queue.Purge(ctx, s); err != nil {
				return fmt.Errorf("remove what it put: %w", err)
			}
		}
		if n, err := b.queue.Len(ctx); err != nil || n == 0 {
			return err
		}
	}
}

// takeAway takes and finishes all ready entries, which is faster than a purge.
func (b *bench) takeAway(ctx context.Context) error {
	const hands, batch = 4, 32
	return workload.InParallel(hands, func(int) error {
		held, err := b.queue.TryTakeN(ctx, batch)
		for err == nil && len(held) > 0 {
			held, err = b.queue.Exchange(ctx, held, batch)
		}
		if errors.Is(err, zkq.ErrEmpty) {
			return nil
		}
		return err
	})
}

// errNothingTaken is the error of a measurement in which no entry was taken.
var errNothingTaken = errors.New("nothing was taken")

// benchPatience is the extra time that a measurement waits for its first or last
// entry.
const benchPatience = 20 * time.Second
