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
		min: 1, max: 1, queue: true, anyLayout: true, looks: true,
		run: ls,
	}
}

var allStates = []string{string(zkq.StateReady), string(zkq.StateHeld), string(zkq.StateDelayed), string(zkq.StateDead)}

func state(s string) (zkq.State, error) {
	s, err := oneOf(allStates...)(s)
	return zkq.State(s), err
}

func states(s string) (list []zkq.State, err error) {
	for word := range strings.SplitSeq(s, ",") {
		st, err := state(word)
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
	only, err := flagValue(k.flags, "state", nil, states)
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
				return k.about(err)
			}
			if shown++; shown == n {
				break
			}
		}
		return k.about(l.table.end())
	})
}

// listing is the table that ls prints.
type listing struct {
	*call
	table  *table
	full   bool // whole names, and nothing is cut
	values bool

	asked   bool // the workers were read
	workers map[string]zkq.WorkerInfo
}

func newListing(k *call) *listing {
	l := &listing{call: k, full: k.flags.Bool("full"), values: k.flags.Bool("values")}
	header, cut := []string{"name", "pri", "state", "age", "tries", "fails", "size", "detail"}, 1
	if l.values {
		header, cut = append(header, "value"), 2
	}
	if l.table = k.out.table(header...); !l.full && l.table.aligned() {
		l.table.fit(cut)
	}
	return l
}

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
		cells = []string{name, strconv.Itoa(e.Priority), string(e.State), roughly(e.Created, time.Now()), tries, fails, size, r.detail()}
	} else {
		cells = []string{
			e.Name, strconv.Itoa(e.Priority), string(e.State), e.Holder, tries, fails, size,
			timestamp(e.Created), r.worker(), timestamp(e.Since), timestamp(e.Due), e.Reason,
		}
	}
	if l.values {
		cells = append(cells, string(e.Value))
		r = r.with(e.Value)
	}
	return l.table.row(r, cells...)
}

// readWorkers learns once which processes hold entries. A plain queue has none.
func (l *listing) readWorkers(ctx context.Context, q queue) error {
	locking, ok := q.(*zkq.LockingQueue)
	if !ok || l.asked {
		return nil
	}
	l.asked = true
	ws, err := locking.Workers(ctx)
	l.workers = make(map[string]zkq.WorkerInfo, len(ws))
	for _, w := range ws {
		l.workers[w.Holder] = w
	}
	if errors.Is(err, coord.ErrForbidden) {
		return nil // the entries can be shown without
	}
	return err
}

// worker is the process that holds the entry, "" if it is not known.
func (r entryRecord) worker() string {
	if r.PID == 0 {
		return ""
	}
	return r.Host + ":" + strconv.Itoa(r.PID)
}

// detail says what matters of an entry in its state, the shortest first: a terminal may
// have no room for the rest.
func (r entryRecord) detail() string {
	var parts []string
	now := time.Now()
	switch {
	case r.State == zkq.StateHeld:
		by := "by " + cmp.Or(r.worker(), r.Holder)
		if r.Since != nil {
			by = "for " + roughly(*r.Since, now) + " " + by
		}
		parts = append(parts, by)
	case r.Due != nil:
		parts = append(parts, "due "+due(*r.Due, now))
	case r.Since != nil:
		parts = append(parts, "died "+roughly(*r.Since, now)+" ago")
	}
	if r.Reason != "" && r.State != zkq.StateHeld {
		parts = append(parts, r.Reason)
	}
	return strings.Join(parts, "; ")
}

// due says when a delayed entry is ready. One whose time has come is moved by the next
// process that takes.
func due(t, now time.Time) string {
	if !t.After(now) {
		return "now"
	}
	return "in " + roughly(now, t)
}

// roughly is how long it is from one time to another, in the one unit that matters; "" for
// a time that nothing tells.
func roughly(from, to time.Time) string {
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

func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
