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
		more: `Every put obeys them; running processes notice within seconds. A bound that is not given
is no bound. Creating a queue again with the same bounds changes nothing; with other
bounds it fails, unless --change is given.`,
		example: []string{"zkq create --max-entries 10000 --max-size 64KiB jobs"},
		flags: []cli.Flag{
			stringFlag("max-entries", "", "N", "entries that are ready, held or delayed; a put beyond it exits 7"),
			stringFlag("max-size", "", "SIZE", "of each value; a put of a larger one exits 2"),
			boolFlag("approximate", "", "puts at the same time do not wait for each other, and may exceed N a little"),
			boolFlag("change", "", "replace the bounds that the queue has"),
		},
		min: 1, max: 1, queue: true, locking: true,
		run: create,
	}
}

// create stores the bounds of a queue, or replaces them with --change.
func create(ctx context.Context, k *call) error {
	var want zkq.QueueConfig
	var err error
	if want.MaxEntries, err = countFlag(k.flags, "max-entries", math.MaxInt32); err != nil {
		return err
	}
	most, err := flagValue(k.flags, "max-size", 0, parseSize)
	if err != nil {
		return err
	}
	if most > zkq.MaxValue {
		return usageError("", "--max-size %d bytes: the largest value that a queue takes has %d bytes", most, zkq.MaxValue)
	}
	want.MaxSize = int(most)
	if want.Approximate = k.flags.Bool("approximate"); want.Approximate && want.MaxEntries == 0 {
		return usageError("", "--approximate needs --max-entries")
	}
	return k.change(ctx, func(ctx context.Context, q *zkq.LockingQueue) error {
		if k.flags.Bool("change") {
			return q.Configure(ctx, want)
		}
		err := q.Create(ctx, want)
		if have := (*zkq.ConfigError)(nil); errors.As(err, &have) {
			err = &failure{code: exitFailed, err: fmt.Errorf("the queue has other bounds: %v", have.Have), hint: "create --change replaces them"}
		}
		return err
	})
}

// change opens the verb's queue and runs do, which makes one change. The context of do
// is that of changeContext.
func (k *call) change(ctx context.Context, do func(context.Context, *zkq.LockingQueue) error) error {
	return k.withCoordinator(ctx, func(c coord.Coordinator) error {
		q := k.newLocking(c, k.queue)
		defer q.Close()
		long, cancel := k.changeContext(ctx)
		defer cancel()
		return k.describe(do(long, q))
	})
}

func pauseVerb() verb {
	return verb{
		name:  "pause",
		args:  "QUEUE",
		usage: "hand out nothing until resume",
		more: `Waiting consumers go on waiting; get exits 3. Held entries can be finished, and puts go
on. Workers that run kazoo do not notice a pause.`,
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
