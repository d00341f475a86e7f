package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

func lsVerb() verb {
	return verb{
		name:  "ls",
		args:  "QUEUE",
		usage: "list entries in the order in which they are taken",
		more: `On a terminal: the end of the name (which every command takes as NAME), priority,
state, age, deliveries, failures, size, and the state's details: for how long an entry
is held and by which process, when a delayed one is due, when and why one died. On a
pipe, separated by tabs: name, priority, state, holder, deliveries, failures, size, when
it was put, HOST:PID of its holder, since when it is held or dead, when it is due, and
the reason of its last failure; times in RFC 3339.`,
		example: []string{"zkq ls --state held jobs", "zkq -o json ls jobs | jq -r 'select(.deliveries > 3).name'"},
		flags: []cli.Flag{
			stringFlag("state", "", "STATES", "only these: ready, held, delayed, dead, joined by commas (default all)"),
			stringFlag("max", "n", "N", "the first N"),
			boolFlag("full", "", "on a terminal: whole names, and no line is cut to fit"),
			boolFlag("values", "", "the values too, in a last column"),
		},
		min: 1, max: 1, queue: true, anyLayout: true, readOnly: true,
		run: ls,
	}
}

// allStates lists the words that --state accepts.
var allStates = []string{string(zkq.StateReady), string(zkq.StateHeld), string(zkq.StateDelayed), string(zkq.StateDead)}

// parseState parses the name of a state.
func parseState(s string) (zkq.State, error) {
	s, err := oneOf(allStates...)(s)
	return zkq.State(s), err
}

// parseStates parses a list of states, separated by commas, and drops repeated ones.
func parseStates(s string) (list []zkq.State, err error) {
	for word := range strings.SplitSeq(s, ",") {
		st, err := parseState(word)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(list, st) {
			list = append(list, st)
		}
	}
	return list, nil
}

func ls(ctx context.Context, k *call) error {
	only, err := flagValue(k.flags, "state", nil, parseStates)
	if err != nil {
		return err
	}
	n, err := countFlag(k.flags, "max", math.MaxInt32)
	if err != nil {
		return err
	}
	return k.withQueue(ctx, func(q queue) error {
		l := newListing(k)
		entries := q.Entries
		if l.values {
			entries = q.EntriesWithValues
		}
		shown := 0
		for e, err := range entries(ctx, only...) {
			if err == nil {
				err = l.row(ctx, q, e)
			}
			if err != nil {
				return k.describe(err)
			}
			if shown++; shown == n {
				break
			}
		}
		return k.describe(l.table.end())
	})
}

// listing is the table that ls prints.
//
// New columns go at the end, because scripts read the columns of a pipe by number. Only
// the values of --values stay behind them. On a terminal a new column goes before detail.
// JSON has its own record, entryRecord in output.go.
type listing struct {
	*call
	table  *table
	full   bool // --full: whole names, and no line is cut
	values bool // --values: a last column with the values

	workersRead bool
	workers     map[string]zkq.WorkerInfo // by holder
}

// freeTextColumns is the number of trailing columns, without the values, whose text is cut
// where a line is wider than the terminal.
const freeTextColumns = 1

// newListing returns the table for the verb's flags.
func newListing(k *call) *listing {
	l := &listing{call: k, full: k.flags.Bool("full"), values: k.flags.Bool("values")}
	header, cut := []string{"name", "pri", "state", "age", "tries", "fails", "size", "detail"}, freeTextColumns
	if l.values {
		header, cut = append(header, "value"), freeTextColumns+1
	}
	if l.table = k.out.table(header...); !l.full && l.table.aligned() {
		l.table.fit(cut)
	}
	return l
}

// row prints one entry. The first held entry makes it read the queue's workers.
func (l *listing) row(ctx context.Context, q queue, e zkq.Entry) error {
	if e.Unreadable {
		e.Reason = "zkq may not read it; rm --force removes it"
	}
	r := newEntryRecord(l.queue, e)
	if e.State == zkq.StateHeld {
		if err := l.readWorkers(ctx, q); err != nil {
			return err
		}
		w := l.workers[e.Holder]
		r.Host, r.PID = w.Host, w.PID
	}
	tries, fails, size := strconv.Itoa(e.Deliveries), strconv.Itoa(e.Failures), strconv.Itoa(e.Size)
	var cells []string
	if l.table.aligned() {
		name := e.Name
		if !l.full {
			name = shortName(name)
		}
		cells = []string{name, strconv.Itoa(e.Priority), string(e.State), roughAge(e.Created, time.Now()), tries, fails, size, r.detail()}
	} else {
		cells = []string{
			e.Name, strconv.Itoa(e.Priority), string(e.State), e.Holder, tries, fails, size,
			formatTime(e.Created), r.worker(), formatTime(e.Since), formatTime(e.Due), e.Reason,
		}
	}
	if l.values {
		cells = append(cells, string(e.Value))
		r = r.withValue(e.Value)
	}
	return l.table.row(r, cells...)
}

// readWorkers reads the queue's workers once. A plain queue has none. An account that may
// not read them sees entries without host and pid.
func (l *listing) readWorkers(ctx context.Context, q queue) error {
	locking, ok := q.(*zkq.LockingQueue)
	if !ok || l.workersRead {
		return nil
	}
	l.workersRead = true
	ws, err := locking.Workers(ctx)
	l.workers = make(map[string]zkq.WorkerInfo, len(ws))
	for _, w := range ws {
		l.workers[w.Holder] = w
	}
	if errors.Is(err, coord.ErrForbidden) {
		return nil // show the entries without their workers
	}
	return err
}

// worker returns HOST:PID of the process that holds the entry, or "" if that is unknown.
func (r entryRecord) worker() string {
	if r.PID == 0 {
		return ""
	}
	return r.Host + ":" + strconv.Itoa(r.PID)
}

// detail describes the entry's state for people. The shortest part comes first, because a
// terminal may have no room for the rest.
func (r entryRecord) detail() string {
	var parts []string
	now := time.Now()
	switch {
	case r.State == zkq.StateHeld:
		by := "by " + cmp.Or(r.worker(), r.Holder)
		if r.Since != nil {
			by = "for " + roughAge(*r.Since, now) + " " + by
		}
		parts = append(parts, by)
	case r.Due != nil:
		parts = append(parts, "due "+dueText(*r.Due, now))
	case r.Since != nil:
		parts = append(parts, "died "+roughAge(*r.Since, now)+" ago")
	}
	if r.Reason != "" && r.State != zkq.StateHeld {
		parts = append(parts, r.Reason)
	}
	return strings.Join(parts, "; ")
}

// dueText says when a delayed entry becomes ready. "now" means that its time has come: the
// next process that takes entries moves it.
func dueText(t, now time.Time) string {
	if !t.After(now) {
		return "now"
	}
	return "in " + roughAge(now, t)
}

// roughAge returns the time between two times in the largest fitting unit, say "3h". It
// returns "" if from is unknown.
func roughAge(from, to time.Time) string {
	if from.IsZero() {
		return ""
	}
	const day = 24 * time.Hour
	switch d := max(to.Sub(from), 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/day)
	}
}

// formatTime returns t in RFC 3339 and UTC, or "" if t is zero.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
