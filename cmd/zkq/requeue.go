package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

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
		names, err := k.wholeNames(ctx, q, names)
		if err != nil {
			return k.describe(err)
		}
		m := k.newManyChanges(ctx, "requeue")
		defer m.end()
		names = m.withoutTails(names, func(name string) *failure { return nothingError("no dead entry's name ends in -%s", name) })
		if !all && len(names) == 0 {
			return m.result()
		}
		for r, err := range q.RequeueAll(m.ctx, names...) {
			isMissing := errors.Is(err, zkq.ErrNoEntry) && !errors.Is(err, zkq.ErrUnknown)
			switch {
			case isMissing && all:
				continue // another process requeued or removed it
			case isMissing:
				err = nothingError("no dead entry %s", r.Was)
			case err == nil:
				err = k.out.record(requeueRecord{k.queue, r.Name, r.Was}, r.Name)
			}
			if !m.next(err) {
				break
			}
		}
		return m.result()
	})
}

// manyChanges is a change of many entries that a verb makes, and what has come of it so far. It
// prints an error on stderr for an entry that does not exist or is held, and goes on. Any other
// error, or a signal, ends it.
type manyChanges struct {
	*call
	user context.Context // ends with a signal
	ctx  context.Context // of the change; ends 2 s later, or when no entry was changed for too long
	line *countLine

	patience *time.Timer // ends ctx
	limit    time.Duration
	cancel   context.CancelFunc
	isLate   atomic.Bool // patience has ended ctx

	done  int
	last  *failure // the first printed error that is not about a missing entry, or else the last
	fatal error
}

// newManyChanges begins the change. It may take for ever as a whole. But it ends when no entry was
// changed for as long as a single change may take.
func (k *call) newManyChanges(ctx context.Context, label string) *manyChanges {
	m := &manyChanges{call: k, user: ctx, line: newCountLine(k, label), limit: k.settings.sessionTimeout + k.settings.connectTimeout}
	m.ctx, m.cancel = extendContext(ctx, forever, 2*time.Second)
	m.patience = time.AfterFunc(m.limit, func() {
		m.isLate.Store(true)
		m.cancel()
	})
	return m
}

// withoutTails returns the names without the tails that no entry's name ends in, and prints the
// error of each of these.
func (m *manyChanges) withoutTails(names []string, missing func(name string) *failure) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		isTail := nameTail.MatchString(name)
		if isTail {
			m.next(missing(name))
		}
		return isTail
	})
}

// next takes the outcome of the next entry. It reports whether to go on.
func (m *manyChanges) next(err error) bool {
	m.patience.Reset(m.limit)
	if err == nil {
		m.done++
		m.line.add(1)
	} else {
		if m.isLate.Load() {
			err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
		}
		f := m.describe(err).(*failure)
		if f.code != exitNothing && !errors.Is(err, zkq.ErrHeld) {
			m.fatal = f
			if m.done > 0 {
				m.fatal = partialError(f, pluralize(m.done, "entry was", "entries were")+" changed before")
			}
			return false
		}
		m.line.clear()
		m.printFailure(f)
		f.reported = true
		if m.last == nil || m.last.code == exitNothing {
			m.last = f
		}
	}
	if m.user.Err() != nil {
		m.fatal = m.describe(context.Cause(m.user))
	}
	return m.fatal == nil
}

// result returns the error of the whole change.
func (m *manyChanges) result() error {
	switch {
	case m.fatal != nil:
		return m.fatal
	case m.last != nil:
		return m.last
	}
	return nil
}

// end ends the progress line and the change's context.
func (m *manyChanges) end() {
	m.patience.Stop()
	m.cancel()
	m.line.end()
}
