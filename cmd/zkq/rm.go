package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
)

func rmVerb() verb {
	return verb{
		name:  "rm",
		args:  "QUEUE NAME…",
		usage: "remove entries by name",
		more: `A dead entry's NAME is what ls prints. Exit 3: one of them is not there; the others
were removed.`,
		example: []string{"zkq rm jobs entry-100-0000000042"},
		flags:   []cli.Flag{boolFlag("force", "", "also entries that are held")},
		min:     2, max: -1, queue: true,
		run: rm,
	}
}

// rm removes the named entries.
func rm(ctx context.Context, k *call) error {
	names := k.words[1:]
	for _, name := range names {
		if err := checkEntryOrDead(name); err != nil {
			return err
		}
	}
	return k.withQueue(ctx, func(q queue) error {
		names, err := k.wholeNames(ctx, q, names)
		if err != nil {
			return k.describe(err)
		}
		m := k.newManyChanges(ctx, "rm")
		defer m.end()
		for name, err := range q.RemoveAll(m.ctx, m.withoutTails(names, noEntryError), k.flags.Bool("force")) {
			if errors.Is(err, zkq.ErrNoEntry) && !errors.Is(err, zkq.ErrUnknown) {
				err = noEntryError(name)
			}
			if !m.next(err) {
				break
			}
		}
		return m.result()
	})
}
