package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

func requeueVerb() verb {
	return verb{
		name:  "requeue",
		args:  "QUEUE [NAME…]",
		usage: "make dead entries ready again, and print their new names",
		more: `NAME is what ls --state dead prints, or the entry's name before it died. Each comes
back as a new entry at the end of its priority. Exit 3: one of them is not there, or
not dead; the others were requeued.`,
		example: []string{
			"zkq requeue jobs entry-100-0000000042",
			"zkq requeue --all jobs",
		},
		flags: []cli.Flag{boolFlag("all", "", "all that are dead")},
		min:   1, max: -1, queue: true, locking: true,
		run: requeue,
	}
}

// requeueRecord is the JSON of a dead entry that was requeued.
type requeueRecord struct {
	Queue string `json:"queue"`
	Name  string `json:"name"`
	Was   string `json:"was"` // its name as a dead entry
}

// requeue makes the named dead entries, or all, ready again.
func requeue(ctx context.Context, k *call) error {
	names, all := k.words[1:], k.flags.Bool("all")
	switch {
	case all && len(names) > 0:
		return usageError("", "give --all or NAMEs, not both")
	case !all && len(names) == 0:
		return usageError("zkq requeue --all requeues all", "NAME or --all is missing")
	}
	for _, name := range names {
		if err := checkEntryOrDead(name); err != nil {
			return err
		}
	}
	return k.withCoordinator(ctx, func(c coord.Coordinator) error {
		q := k.newLocking(c, k.queue)
		defer q.Close()
		if all {
			for e, err := range q.Entries(ctx, zkq.StateDead) {
				if err != nil {
					return k.describe(err)
				}
				names = append(names, e.Name)
			}
		}
		names, err := k.wholeNames(ctx, q, names)
		if err != nil {
			return k.describe(err)
		}
		return k.eachName(ctx, names, func(ctx context.Context, name string) error {
			if nameTail.MatchString(name) {
				return nothingError("no dead entry's name ends in -%s", name)
			}
			again, err := q.Requeue(ctx, name)
			switch {
			case errors.Is(err, zkq.ErrNoEntry) && !errors.Is(err, zkq.ErrUnknown):
				if all {
					return nil // another process requeued or removed it
				}
				return nothingError("no dead entry %s", name)
			case err != nil:
				return err
			}
			return k.out.record(requeueRecord{k.queue, again, name}, again)
		})
	})
}

// eachName calls do for each name. It prints an error on stderr for an entry that does not
// exist or is held, and goes on. Any other error stops it. It returns the first printed
// error that is not about a missing entry, or else the last.
func (k *call) eachName(ctx context.Context, names []string, do func(context.Context, string) error) error {
	var last *failure
	done := 0
	for _, name := range names {
		if ctx.Err() != nil {
			return k.describe(context.Cause(ctx))
		}
		long, cancel := k.changeContext(ctx)
		err := do(long, name)
		cancel()
		if err == nil {
			done++
			continue
		}
		f := k.describe(err).(*failure)
		if f.code != exitNothing && !errors.Is(err, zkq.ErrHeld) {
			if done > 0 {
				return partialError(f, pluralize(done, "entry was", "entries were")+" changed before")
			}
			return f
		}
		k.printFailure(f)
		f.reported = true
		if last == nil || last.code == exitNothing {
			last = f
		}
	}
	if last == nil {
		return nil
	}
	return last
}
