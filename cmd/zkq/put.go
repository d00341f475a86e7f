package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/priority"
)

func putVerb() verb {
	return verb{
		name:  "put",
		args:  "QUEUE [VALUE…]",
		usage: "put entries, and print their names",
		more: `One entry for each VALUE. Without VALUE, -l, -0 or --file all of standard
input, byte for byte, is one entry. A newline (-l) or NUL (-0) ends an entry: the
last may lack it, and an empty one is an empty entry.`,
		example: []string{
			"zkq put jobs 'hello world'",
			"find . -name '*.wav' -print0 | zkq put -0 jobs",
			"zkq put -- jobs -v",
		},
		flags: []cli.Flag{
			stringFlag("priority", "p", "N", "0 to 999, the lowest is taken first (default 100)"),
			boolFlag("lines", "l", "each line of standard input is an entry"),
			boolFlag("null", "0", "the same, but NUL ends an entry"),
			&cli.StringSliceFlag{Name: "file", Usage: "`PATH` put what is in a file as one entry; may be repeated"},
			boolFlag("atomic", "", "put all entries in one transaction, or none"),
			stringFlag("delay", "", "D", "ready only after this time: 90s, 1h30m"),
			stringFlag("ttl", "", "D", "never handed out after this time, counted from now"),
			stringFlag("unique", "", "KEY", "only if the queue has no entry of this KEY; otherwise exit 9, naming it. For one entry"),
			stringFlag("wait", "w", "D", "wait that long, or forever, while the queue is full (default 0: exit 7)"),
		},
		min: 1, max: -1, queue: true,
		run: put,
	}
}

// put puts the values of its input and prints the names of the entries.
func put(ctx context.Context, k *call) error {
	p, err := flagValue(k.flags, "priority", priority.Default, func(s string) (int, error) { return parseDecimal(s, 0, 999) })
	if err != nil {
		return err
	}
	o, err := k.putOptions(p)
	if err != nil {
		return err
	}
	in, err := k.input()
	if err != nil {
		return k.describe(err)
	}
	return k.withCoordinator(ctx, func(c coord.Coordinator) error {
		var q putQueue = zkq.NewQueue(c, k.queue, zkq.Warn(k.logWarning), zkq.LogTo(k.log))
		if k.settings.layout == layoutLocking {
			q = k.newLocking(c, k.queue)
		}
		defer q.Close()
		defer k.sweepSometimes(ctx, c)
		w := &putter{call: k, queue: q, priority: p, putOptions: o, atomic: k.flags.Bool("atomic")}
		w.progress = k.newProgress("put", inputSize(k.stdin, in), true)
		defer w.progress.end()
		return k.describe(w.run(ctx, in))
	})
}

// putOptions holds the options of each put.
type putOptions struct {
	delay time.Duration
	wait  time.Duration
	all   []zkq.PutOption // including those above
}

// putOptions reads the flags that become options of each put.
func (k *call) putOptions(priority int) (o putOptions, err error) {
	if o.delay, err = flagValue(k.flags, "delay", 0, parseDuration); err != nil {
		return o, err
	}
	ttl, err := flagValue(k.flags, "ttl", 0, parsePositiveDuration)
	if err != nil {
		return o, err
	}
	if o.wait, err = flagValue(k.flags, "wait", 0, parseWait); err != nil {
		return o, err
	}
	for _, name := range []string{"delay", "ttl", "unique", "wait"} {
		if k.flags.IsSet(name) && k.settings.layout == layoutPlain {
			return o, usageError("", "--%s needs the locking layout", name)
		}
	}
	o.all = []zkq.PutOption{zkq.WithPriority(priority), zkq.WithDelay(o.delay), zkq.WithTTL(ttl), zkq.WithWait(o.wait)}
	if k.flags.IsSet("unique") {
		key := k.flags.String("unique")
		switch {
		case len(k.words) > 2 || len(k.flags.StringSlice("file")) > 1 || k.flags.Bool("lines") || k.flags.Bool("null"):
			return o, usageError("", "--unique takes one entry: one VALUE, one --file, or all of standard input")
		case len(key) > zkq.MaxKey:
			return o, usageError("", "--unique: %d bytes, the limit is %d", len(key), zkq.MaxKey)
		}
		o.all = append(o.all, zkq.WithUnique(key))
	}
	return o, nil
}

// state returns the state of an entry directly after its put.
func (o putOptions) state() zkq.State {
	if o.delay > 0 {
		return zkq.StateDelayed
	}
	return zkq.StateReady
}

// sweepEvery is the average number of put commands for each that sweeps: it removes the
// nodes of dead producers. Queue handles that live for an hour sweep by themselves, but
// this command may be the only producer.
const sweepEvery = 64

// sweepSometimes sweeps in one of sweepEvery calls. Its errors are only logged.
func (k *call) sweepSometimes(ctx context.Context, c coord.Coordinator) {
	if rand.IntN(sweepEvery) != 0 {
		return
	}
	ctx, cancel := k.changeContext(ctx)
	defer cancel()
	if err := zkq.Sweep(ctx, c); err != nil {
		k.log.Debug(printable(err.Error()))
	}
}

// input returns the source of values that the command line names. Two are an error.
func (k *call) input() (input, error) {
	values, paths := k.words[1:], k.flags.StringSlice("file")
	sources := 0
	for _, given := range []bool{len(values) > 0, k.flags.Bool("lines"), k.flags.Bool("null"), len(paths) > 0} {
		if given {
			sources++
		}
	}
	if sources > 1 {
		return nil, usageError("", "values come from one source: VALUE, --lines, --null or --file")
	}
	switch {
	case len(values) > 0:
		return newArgumentInput(values)
	case len(paths) > 0:
		return newFileInput(paths)
	case isTerminal(k.stdin):
		k.hint("reading from the terminal; end with Ctrl-D")
	}
	switch {
	case k.flags.Bool("lines"):
		return newDelimitedInput(k.stdin, '\n'), nil
	case k.flags.Bool("null"):
		return newDelimitedInput(k.stdin, 0), nil
	}
	return &wholeInput{r: k.stdin}, nil
}

// inputSize returns the number of bytes in the input, for the progress bar. It returns 0
// if the number is unknown, and -1 if the input needs no bar.
func inputSize(stdin io.Reader, in input) int64 {
	if _, ok := in.(*delimitedInput); !ok {
		return -1
	}
	if f, ok := stdin.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			return info.Size()
		}
	}
	return 0
}

// The limits of one commit. They are well below those of every service. More entries in a
// commit make puts faster.
const (
	batchEntries = 500
	batchBytes   = 512 << 10
	entryBytes   = 256      // estimate for an entry, besides its queue's name and value
	atomicBytes  = 16 << 20 // of all input with --atomic
)

// putter puts the values of an input in order, one commit at a time.
type putter struct {
	*call
	queue    putQueue
	priority int
	putOptions
	atomic   bool
	progress *progress
	put      int // entries that were put
}

// putQueue has the operations of a queue that a putter uses.
type putQueue interface {
	PutAll(ctx context.Context, values [][]byte, opts ...zkq.PutOption) ([]string, error)
	PutSome(ctx context.Context, values [][]byte, opts ...zkq.PutOption) ([]string, error)
	Close() error
}

// batch is a part of the input that is read before the next commit.
type batch struct {
	values [][]byte
	bytes  int64 // bytes of input that were consumed
	err    error // the error that ended the input; io.EOF at its end
}

// run puts all of the input. An error says how many entries were put.
func (w *putter) run(ctx context.Context, in input) error {
	// A goroutine reads the input, because a read cannot be interrupted. When ctx ends, the
	// goroutine may block in a read until the process exits.
	batches := make(chan batch)
	done := make(chan struct{})
	defer close(done)
	go func() {
		defer close(batches)
		for more := true; more; {
			b := w.read(in)
			more = b.err == nil
			select {
			case batches <- b:
			case <-done:
				return
			}
		}
	}()
	for {
		var b batch
		select {
		case b = <-batches:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return w.addPutCount(context.Cause(ctx))
		}
		if err := w.commit(ctx, b); err != nil {
			return err
		}
		switch {
		case errors.Is(b.err, io.EOF):
			return nil
		case b.err != nil:
			return w.addPutCount(b.err)
		}
	}
}

// read returns the values that are available without waiting, and at least one. With
// --atomic it returns all values, or none after an error.
func (w *putter) read(in input) (b batch) {
	size, most := 0, batchBytes
	if w.atomic {
		most = atomicBytes
	}
	before := consumedBytes(in)
	for {
		v, err := in.next()
		if err != nil {
			b.err = err
			break
		}
		b.values = append(b.values, v)
		size += len(v) + entryBytes + len(w.call.queue)
		if w.atomic {
			if size > most {
				b.err = &coord.LimitError{What: "--atomic", Unit: "bytes", Size: size, Limit: most}
				break
			}
			continue
		}
		if len(b.values) == batchEntries || size > most || !in.ready() {
			break
		}
	}
	b.bytes = consumedBytes(in) - before
	if w.atomic && b.err != io.EOF {
		b.values = nil
	}
	return b
}

// consumedBytes returns the number of bytes of a delimited input read so far, otherwise 0.
func consumedBytes(in input) int64 {
	if p, ok := in.(*delimitedInput); ok {
		return p.read
	}
	return 0
}

// commit puts a batch and prints the names. It makes several commits if the batch is too
// large for one, or if a bounded queue has room for only some of the entries.
func (w *putter) commit(ctx context.Context, b batch) error {
	for rest := b.values; len(rest) > 0; {
		put, n := w.queue.PutAll, len(rest)
		if !w.atomic {
			put, n = w.queue.PutSome, w.countFitting(rest)
		}
		note := zkq.WithNoteOf(func(some int) []byte { return noteOf(w.put + some) })
		long, cancel := w.waitingChangeContext(ctx, w.wait)
		names, err := put(long, rest[:n], append(w.all[:len(w.all):len(w.all)], note)...)
		cancel()
		if err != nil {
			return w.addPutCount(err)
		}
		n = len(names)
		w.put += n
		w.log.Debug("put", "queue", w.call.queue, "entries", n, "so far", w.put)
		for i, name := range names {
			e := zkq.Entry{Name: name, Priority: w.priority, State: w.state(), Size: len(rest[i])}
			if err := w.out.record(newEntryRecord(w.call.queue, e), name); err != nil {
				return w.addPutCount(err)
			}
		}
		rest = rest[n:]
		w.progress.add(n, 0)
	}
	w.progress.add(0, b.bytes)
	return nil
}

// noteOf returns the note that is stored with a put: the number of entries of its input
// that are put by then. zkq resolve prints it.
func noteOf(entries int) []byte { return strconv.AppendInt(nil, int64(entries), 10) }

// countFitting returns how many of the values fit into one commit, at least one.
func (w *putter) countFitting(values [][]byte) int {
	size := 0
	for i, v := range values {
		size += len(v) + entryBytes + len(w.call.queue)
		if size > batchBytes && i > 0 {
			return i
		}
	}
	return len(values)
}

// addPutCount adds to an error the number of entries that were put before it.
func (w *putter) addPutCount(err error) error {
	switch {
	case w.put == 1:
		return partialError(err, "the first entry was put")
	case w.put > 0:
		return partialError(err, fmt.Sprintf("the first %d entries were put", w.put))
	case errors.Is(err, zkq.ErrFull):
		return partialError(err, "nothing was put")
	}
	return err
}
