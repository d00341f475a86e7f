package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/priority"
)

func rmVerb() verb {
	return verb{
		name:    "rm",
		args:    "QUEUE NAME…",
		usage:   "remove entries by name",
		more:    `Exit 3: one of them is not there; the others were removed.`,
		example: []string{"zkq rm jobs entry-100-0000000042"},
		flags:   []cli.Flag{boolFlag("force", "", "also entries that somebody works on")},
		min:     2, max: -1, queue: true,
		run: rm,
	}
}

func rm(ctx context.Context, k *call) error {
	names := k.words[1:]
	for _, name := range names {
		if err := checkEntry(name); err != nil {
			return err
		}
	}
	return k.withQueue(ctx, func(q queue) error {
		var last *failure
		for _, name := range names {
			if ctx.Err() != nil {
				return k.about(context.Cause(ctx))
			}
			rctx, cancel := k.patient(ctx)
			err := q.Remove(rctx, name, k.flags.Bool("force"))
			cancel()
			switch {
			case err == nil:
				continue
			case errors.Is(err, zkq.ErrNoEntry):
				err = nothing("no entry %s", name)
			case !errors.Is(err, zkq.ErrHeld):
				return k.about(err)
			}
			f := k.about(err).(*failure)
			k.say(f)
			f.said = true
			if last == nil || last.code == exitNothing {
				last = f
			}
		}
		if last == nil {
			return nil
		}
		return last
	})
}

// checkEntry refuses what names no entry.
func checkEntry(name string) error {
	if _, ok := priority.Parse(name); !ok {
		return usageError("", "entry name %q: entries are called entry-PPP-…, as put and ls print them", name)
	}
	return nil
}
