package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
)

func peekVerb() verb {
	return verb{
		name:    "peek",
		args:    "QUEUE [NAME]",
		usage:   "print a value without taking it",
		more:    `Without NAME the entry that would be taken next. Exit 3: nothing there.`,
		example: []string{"zkq peek jobs"},
		flags:   []cli.Flag{boolFlag("raw", "", "exactly the value's bytes, without a newline after them")},
		min:     1, max: 2, queue: true, anyLayout: true, readOnly: true,
		run: peek,
	}
}

func peek(ctx context.Context, k *call) error {
	name := ""
	if len(k.words) == 2 {
		if name = k.words[1]; name == "" {
			return usageError("", "NAME is empty")
		}
	}
	return k.withQueue(ctx, func(q queue) error {
		pctx, cancel := k.changeContext(ctx)
		defer cancel()
		if nameTail.MatchString(name) {
			names, err := k.wholeNames(ctx, q, []string{name})
			if err != nil {
				return k.describe(err)
			}
			if name = names[0]; nameTail.MatchString(name) {
				return k.describe(noEntryError(name))
			}
		}
		e, err := q.Peek(pctx, name)
		switch {
		case errors.Is(err, zkq.ErrEmpty):
			err = nothingError("nothing there")
		case errors.Is(err, zkq.ErrNoEntry):
			err = noEntryError(name)
		case err == nil:
			err = k.out.value(newEntryRecord(k.queue, e), e.Value, k.flags.Bool("raw"))
		}
		return k.describe(err)
	})
}
