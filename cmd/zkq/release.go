package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/priority"
)

func releaseVerb() verb {
	return verb{
		name:  "release",
		args:  "QUEUE NAME",
		usage: "break the lock of a held entry",
		more: `The entry is ready again at once, and its former holder cannot remove it any more.
Exit 3: it is not there, or not held.`,
		example: []string{"zkq release --force jobs entry-100-0000000042"},
		flags:   []cli.Flag{boolFlag("force", "", "really")},
		min:     2, max: 2, queue: true, locking: true,
		run: release,
	}
}

// release breaks the lock of one held entry.
func release(ctx context.Context, k *call) error {
	name := k.words[1]
	if err := checkEntry(name); err != nil {
		return err
	}
	if !k.flags.Bool("force") {
		return usageError("zkq release --force breaks it", "breaking the lock of %s is refused without --force: a worker may be busy with it", name)
	}
	return k.withCoordinator(ctx, func(c coord.Coordinator) error {
		q := k.newLocking(c, k.queue)
		defer q.Close()
		names, err := k.wholeNames(ctx, q, []string{name})
		if err != nil {
			return k.describe(err)
		}
		name := names[0]
		if _, lives := priority.Parse(name); !lives {
			return k.describe(noEntryError(name))
		}
		rctx, cancel := k.changeContext(ctx)
		defer cancel()
		err = q.BreakLock(rctx, name)
		switch {
		case errors.Is(err, zkq.ErrNoEntry):
			err = noEntryError(name)
		case errors.Is(err, zkq.ErrNotHeld):
			err = nothingError("%s is not held", name)
		}
		return k.describe(err)
	})
}
