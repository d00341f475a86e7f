package main

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/priority"
)

func rmVerb() verb {
	return verb{
		name:  "rm",
		args:  "QUEUE NAME…",
		usage: "remove entries by name",
		more: `A dead entry's NAME is what ls prints. Exit 3: one of them is not there; the others
were removed.`,
		example: []string{"zkq rm jobs entry-100-0000000042"},
		flags:   []cli.Flag{boolFlag("force", "", "also entries that somebody works on")},
		min:     2, max: -1, queue: true,
		run: rm,
	}
}

func rm(ctx context.Context, k *call) error {
	names := k.words[1:]
	for _, name := range names {
		if err := checkEntryOrDead(name); err != nil {
			return err
		}
	}
	return k.withQueue(ctx, func(q queue) error {
		return k.eachName(ctx, names, func(ctx context.Context, name string) error {
			err := q.Remove(ctx, name, k.flags.Bool("force"))
			if errors.Is(err, zkq.ErrNoEntry) {
				err = nothing("no entry %s", name)
			}
			return err
		})
	})
}

// checkEntry refuses what names no entry.
func checkEntry(name string) error {
	if _, ok := priority.Parse(name); !ok {
		return usageError("", "entry name %q: entries are called entry-PPP-…, as put and ls print them", name)
	}
	return nil
}

// later is what a delayed put is called, behind the time when it is due.
var later = regexp.MustCompile(`^put-[0-9]{3}-[0-9a-f]{16}$`)

// checkEntryOrDead takes the name of a dead entry too, when it died and what it
// was called, and that of a delayed put.
func checkEntryOrDead(name string) error {
	if at, was, _ := strings.Cut(name, "-"); len(at) == 13 && strings.Trim(at, "0123456789") == "" {
		if later.MatchString(was) {
			return nil
		}
		return checkEntry(was)
	}
	return checkEntry(name)
}
