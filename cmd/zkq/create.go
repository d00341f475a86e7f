package main

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

func createVerb() verb {
	return verb{
		name:  "create",
		args:  "QUEUE",
		usage: "store bounds with a queue",
		more: `All who put go by them, within seconds also those that run already. Without a bound
the queue has none. It is no error where the same bounds stand; where others do it fails,
unless --change is given.`,
		example: []string{"zkq create --max-entries 10000 --max-size 64KiB jobs"},
		flags: []cli.Flag{
			stringFlag("max-entries", "", "N", "entries that are ready, held or delayed; above it put is exit 7"),
			stringFlag("max-size", "", "SIZE", "of each value; above it put is exit 2"),
			boolFlag("approximate", "", "let puts that happen at once exceed N a little, and not wait for each other"),
			boolFlag("change", "", "in the place of other bounds"),
		},
		min: 1, max: 1, queue: true, locking: true,
		run: create,
	}
}

func create(ctx context.Context, k *call) error {
	var want zkq.QueueConfig
	var err error
	if want.MaxEntries, err = countFlag(k.flags, "max-entries", math.MaxInt32); err != nil {
		return err
	}
	most, err := flagValue(k.flags, "max-size", 0, size)
	if err != nil {
		return err
	}
	if most > zkq.MaxValue {
		return usageError("", "--max-size %d bytes: the largest value has %d", most, zkq.MaxValue)
	}
	want.MaxSize = int(most)
	if want.Approximate = k.flags.Bool("approximate"); want.Approximate && want.MaxEntries == 0 {
		return usageError("", "--approximate is of --max-entries")
	}
	return k.change(ctx, func(ctx context.Context, q *zkq.LockingQueue) error {
		if k.flags.Bool("change") {
			return q.Configure(ctx, want)
		}
		err := q.Create(ctx, want)
		if have := (*zkq.ConfigError)(nil); errors.As(err, &have) {
			err = &failure{code: exitFailed, err: fmt.Errorf("it has other bounds: %v", have.Have), hint: "--change puts the new ones in their place"}
		}
		return err
	})
}

// change makes one change of the queue that the verb names.
func (k *call) change(ctx context.Context, do func(context.Context, *zkq.LockingQueue) error) error {
	return k.with(ctx, func(c coord.Coordinator) error {
		q := k.newLocking(c, k.queue)
		defer q.Close()
		long, cancel := k.patient(ctx)
		defer cancel()
		return k.about(do(long, q))
	})
}

func pauseVerb() verb {
	return verb{
		name:  "pause",
		args:  "QUEUE",
		usage: "hand out nothing until resume",
		more: `Those who wait go on waiting; get says that nothing is there (exit 3). What is held can be
finished, and puts go on. kazoo's workers know nothing of it.`,
		example: []string{"zkq pause jobs"},
		min:     1, max: 1, queue: true, locking: true,
		run: func(ctx context.Context, k *call) error {
			return k.change(ctx, func(ctx context.Context, q *zkq.LockingQueue) error { return q.Pause(ctx) })
		},
	}
}

func resumeVerb() verb {
	return verb{
		name:    "resume",
		args:    "QUEUE",
		usage:   "end a pause",
		example: []string{"zkq resume jobs"},
		min:     1, max: 1, queue: true, locking: true,
		run: func(ctx context.Context, k *call) error {
			return k.change(ctx, func(ctx context.Context, q *zkq.LockingQueue) error { return q.Resume(ctx) })
		},
	}
}
