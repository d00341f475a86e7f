package main

import (
	"context"
	"math"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
)

func purgeVerb() verb {
	return verb{
		name:    "purge",
		args:    "QUEUE",
		usage:   "remove all entries in a state, and print how many",
		more:    `Refused without --yes.`,
		example: []string{"zkq purge --yes jobs"},
		flags: []cli.Flag{
			boolFlag("yes", "", "really"),
			stringFlag("state", "", "STATE", "ready (default), held, delayed or dead"),
			stringFlag("keep-newest", "", "N", "of the dead, leave those that died last"),
		},
		min: 1, max: 1, queue: true,
		run: purge,
	}
}

// purgeRecord is the JSON of purge's result.
type purgeRecord struct {
	Queue   string    `json:"queue"`
	State   zkq.State `json:"state"`
	Removed int       `json:"removed"`
}

// purge removes the entries and prints their number, also after an error if there were
// some.
func purge(ctx context.Context, k *call) error {
	st, err := flagValue(k.flags, "state", zkq.StateReady, parseState)
	if err != nil {
		return err
	}
	if !k.flags.Bool("yes") {
		return usageError("zkq purge --yes removes them", "purge of %s entries of %s is refused without --yes", st, k.queue)
	}
	keep, err := flagValue(k.flags, "keep-newest", 0, func(s string) (int, error) { return parseDecimal(s, 0, math.MaxInt32) })
	if err != nil {
		return err
	}
	if k.flags.IsSet("keep-newest") && (st != zkq.StateDead || k.settings.layout == layoutPlain) {
		return usageError("", "--keep-newest needs --state dead")
	}
	return k.withQueue(ctx, func(q queue) error {
		n, err := purgeInSteps(ctx, q, st, keep, newCountLine(k, "purge"))
		if n > 0 || err == nil {
			if werr := k.out.record(purgeRecord{k.queue, st, n}, strconv.Itoa(n)); err == nil {
				err = werr
			}
		}
		if err != nil && n > 0 {
			err = partialError(err, pluralize(n, "entry was", "entries were")+" removed")
		}
		return k.describe(err)
	})
}

// purgeInSteps removes the entries, and shows on line how many it has removed. It returns their
// number, also with an error.
func purgeInSteps(ctx context.Context, q queue, st zkq.State, keep int, line *countLine) (removed int, err error) {
	defer line.end()
	for n, err := range q.PurgeInSteps(ctx, st, keep) {
		if err != nil {
			return removed, err
		}
		removed += n
		line.add(n)
	}
	return removed, nil
}
