package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

func getVerb() verb {
	return verb{
		name:  "get",
		args:  "QUEUE",
		usage: "take an entry, print it and remove it",
		more: `The entry is held while it is written and removed when that has succeeded. In
the plain layout it is removed first, as kazoo's Queue does. Exit 3: nothing there.`,
		example: []string{"zkq get -w 10s jobs", "zkq get -n 100 jobs > batch.txt"},
		flags: []cli.Flag{
			boolFlag("raw", "", "exactly the value's bytes, without a newline after them"),
			stringFlag("max", "n", "N", "up to so many, those that are there (default 1)"),
			stringFlag("wait", "w", "D", "wait so long for the first, or forever (default 0: one attempt)"),
		},
		min: 1, max: 1, queue: true, anyLayout: true,
		run: get,
	}
}

// get takes up to n entries, prints them and removes them. It waits only for the first.
func get(ctx context.Context, k *call) error {
	n, err := countFlag(k.flags, "max", math.MaxInt32)
	if err != nil {
		return err
	}
	wait, err := flagValue(k.flags, "wait", 0, parseWait)
	if err != nil {
		return err
	}
	began := time.Now()
	return k.withCoordinator(ctx, func(c coord.Coordinator) error {
		waiting := ctx
		if wait != forever {
			// The wait includes the time to reach the coordinator.
			var cancel context.CancelFunc
			waiting, cancel = context.WithDeadline(ctx, began.Add(wait))
			defer cancel()
		}
		l, err := k.findLayout(waiting, c)
		if err != nil {
			return k.describe(err)
		}
		if l == layoutPlain {
			q := zkq.NewQueue(c, k.queue, zkq.Warn(k.logWarning), zkq.LogTo(k.log))
			defer q.Close()
			return k.describe(k.getPlain(ctx, waiting, q, max(n, 1), wait > 0))
		}
		q := k.newLocking(c, k.queue)
		defer q.Close()
		return k.describe(k.getLocking(ctx, waiting, q, max(n, 1), wait > 0))
	})
}

// chunk is the largest number of entries that get holds at a time.
const chunk = 32

// getLocking takes entries in chunks and hands each chunk over before it takes the next.
// waiting bounds the wait for the first entry, ctx everything.
func (k *call) getLocking(ctx, waiting context.Context, q *zkq.LockingQueue, n int, wait bool) error {
	for got := 0; got < n; {
		most := min(n-got, chunk)
		var held []*zkq.Held
		var err error
		if wait && got == 0 {
			held, err = q.TakeN(waiting, most)
		}
		if !wait || got > 0 || isOwnTimeout(err, ctx) {
			// Make one attempt even if the wait ended before the first take.
			tctx, cancel := k.changeContext(ctx)
			held, err = q.TryTakeN(tctx, most)
			cancel()
		}
		if errors.Is(err, zkq.ErrEmpty) {
			if errors.Is(err, zkq.ErrPaused) && got == 0 {
				return nothingError("the queue is paused: nothing is handed out")
			}
			return emptyError(got, wait)
		}
		if err == nil {
			for _, h := range held {
				k.log.Debug("claimed", "queue", k.queue, "entry", h.Name, "delivery", h.Deliveries, "token", h.Token)
			}
			err = k.handOver(ctx, held)
		}
		if err != nil {
			return addHandedOut(err, got)
		}
		got += len(held)
	}
	return nil
}

// addHandedOut adds to an error the number of entries that were printed and removed before it.
func addHandedOut(err error, got int) error {
	if got == 0 {
		return err
	}
	return partialError(err, pluralize(got, "entry was", "entries were")+" printed and removed before")
}

// isOwnTimeout reports whether a wait ended by its own deadline, not by the end of ctx. A
// change with an unknown outcome does not count.
func isOwnTimeout(err error, ctx context.Context) bool {
	return errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && !errors.Is(err, coord.ErrUnknown)
}

// emptyError returns the error of an empty queue, or nil if entries were printed.
func emptyError(got int, waited bool) error {
	switch {
	case got > 0:
		return nil
	case waited:
		return nothingError("nothing came in time")
	}
	return nothingError("nothing there")
}

// handOver prints the entries in order and removes those that were printed. After an
// error or the end of ctx it releases the rest.
func (k *call) handOver(ctx context.Context, held []*zkq.Held) error {
	written := 0
	var failed error
	for _, h := range held {
		if failed = ctx.Err(); failed != nil {
			break
		}
		if failed = k.out.value(newHeldRecord(k.queue, k.holder, h), h.Value, k.flags.Bool("raw")); failed != nil {
			break
		}
		written++
	}
	long, cancel := k.changeContext(ctx)
	defer cancel()
	errs := make([]error, len(held))
	var running sync.WaitGroup
	for i, h := range held {
		running.Go(func() {
			if i < written {
				errs[i] = h.Consume(long)
				k.log.Debug("removed", "queue", k.queue, "entry", h.Name, "error", errs[i])
			} else if err := h.Release(long); err != nil {
				k.log.Warn("could not give the entry back; it is ready again when this session ends: " + printable(h.Name+": "+err.Error()))
			}
		})
	}
	running.Wait()
	if failed != nil {
		return failed
	}
	return worstError(errs)
}

// worstError returns the most important error: a lost lock, then an unknown outcome, then
// any other.
func worstError(errs []error) error {
	var first error
	for _, err := range errs {
		switch {
		case errors.Is(err, zkq.ErrLockLost):
			return err
		case errors.Is(err, coord.ErrUnknown), first == nil:
			first = err
		}
	}
	return first
}

// getPlain removes entries one at a time and prints each after its removal. A failed
// print loses the entry; the error names it.
func (k *call) getPlain(ctx, waiting context.Context, q *zkq.Queue, n int, wait bool) error {
	for got := 0; got < n; got++ {
		var e zkq.Entry
		var err error
		if wait && got == 0 {
			e, err = q.Get(waiting)
		}
		if !wait || got > 0 || isOwnTimeout(err, ctx) {
			tctx, cancel := k.changeContext(ctx)
			e, err = q.TryGet(tctx)
			cancel()
		}
		switch {
		case errors.Is(err, zkq.ErrEmpty):
			return emptyError(got, wait)
		case errors.Is(err, coord.ErrUnknown) && e.Name != "":
			err = fmt.Errorf("%s was printed and may still be in the queue: %w", e.Name, err)
		case err != nil:
			return addHandedOut(err, got)
		}
		if werr := k.out.value(newEntryRecord(k.queue, e), e.Value, k.flags.Bool("raw")); werr != nil {
			return fmt.Errorf("%s was removed, and could not be written: %w", e.Name, werr)
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}
