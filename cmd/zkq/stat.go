package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

func statVerb() verb {
	return verb{
		name:  "stat",
		args:  "[QUEUE…]",
		usage: "count a queue's entries by state",
		more: `One line for each queue: its name, ready, held, delayed, dead, total, and the age of
the oldest entry; then a pause and the bounds of create, in three columns on a pipe.
Without QUEUE all queues, each in its own layout.`,
		example: []string{"zkq stat jobs", "zkq -o json stat"},
		max:     -1, readOnly: true,
		run: stat,
	}
}

// statRecord is the JSON of a queue's counts and bounds.
type statRecord struct {
	Queue   string   `json:"queue"`
	Ready   int      `json:"ready"`
	Held    int      `json:"held"`
	Delayed int      `json:"delayed"`
	Dead    int      `json:"dead"`
	Total   int      `json:"total"`
	Oldest  *float64 `json:"oldest_age_seconds"`

	Paused     bool `json:"paused"`
	MaxEntries *int `json:"max_entries"` // null: no bound
	MaxSize    *int `json:"max_size"`    // null: no bound
}

// queueStat holds what stat prints about one queue.
type queueStat struct {
	zkq.Stat
	config zkq.QueueConfig // zero in the plain layout, which has none
}

func (st queueStat) record(name string) statRecord {
	r := statRecord{
		Queue: name, Ready: st.Ready, Held: st.Held, Delayed: st.Delayed, Dead: st.Dead, Total: st.Total(),
		Paused: st.config.Paused, MaxEntries: boundOrNil(st.config.MaxEntries), MaxSize: boundOrNil(st.config.MaxSize),
	}
	if !st.Oldest.IsZero() {
		seconds := max(time.Since(st.Oldest).Seconds(), 0)
		r.Oldest = &seconds
	}
	return r
}

// boundOrNil returns a pointer to n, or nil for 0, which means no bound.
func boundOrNil(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}

// counts returns the queue's name and its counts, as cells of a row.
func (r statRecord) counts() []string {
	cells := []string{r.Queue}
	for _, n := range []int{r.Ready, r.Held, r.Delayed, r.Dead, r.Total} {
		cells = append(cells, strconv.Itoa(n))
	}
	return cells
}

// settings returns three cells for a pipe: a pause and two bounds; "" for none.
func (r statRecord) settings() []string {
	paused := ""
	if r.Paused {
		paused = "paused"
	}
	cells := []string{paused}
	for _, most := range []*int{r.MaxEntries, r.MaxSize} {
		cell := ""
		if most != nil {
			cell = strconv.Itoa(*most)
		}
		cells = append(cells, cell)
	}
	return cells
}

// note returns the same as one cell, in words, for a terminal.
func (r statRecord) note() string {
	var parts []string
	if r.Paused {
		parts = append(parts, "paused")
	}
	if r.MaxEntries != nil {
		parts = append(parts, "max "+pluralize(*r.MaxEntries, "entry", "entries"))
	}
	if r.MaxSize != nil {
		parts = append(parts, "max "+pluralize(*r.MaxSize, "byte", "bytes")+" each")
	}
	return strings.Join(parts, ", ")
}

// stat prints a row for each named queue, or for all queues.
func stat(ctx context.Context, k *call) error {
	var names []string
	for _, w := range k.words {
		name, err := queueName(w)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	return k.withCoordinator(ctx, func(c coord.Coordinator) error {
		all := len(names) == 0
		if all {
			found, err := zkq.Queues(ctx, c)
			if err != nil {
				return k.describe(err)
			}
			for _, name := range found {
				names = append(names, strings.TrimPrefix(name, "/"))
			}
		}
		t := k.out.table("queue", "ready", "held", "delayed", "dead", "total", "oldest", "note")
		for _, name := range names {
			k.queue = name
			st, err := k.stat(ctx, c, name, all || !k.settings.layoutGiven)
			if err != nil {
				return k.describe(err)
			}
			r := st.record(name)
			cells := append(r.counts(), age(st.Oldest))
			if t.aligned() {
				cells = append(cells, r.note())
			} else {
				cells = append(cells, r.settings()...)
			}
			if err := t.row(r, cells...); err != nil {
				return k.describe(err)
			}
		}
		return k.describe(t.end())
	})
}

// stat counts one queue. With either, it tries the other layout if the queue does not have
// that of the settings.
func (k *call) stat(ctx context.Context, c coord.Coordinator, name string, either bool) (queueStat, error) {
	st, err := k.statAs(ctx, c, name, k.settings.layout)
	if !either || !errors.Is(err, zkq.ErrLayout) {
		return st, err
	}
	other := layoutPlain
	if k.settings.layout == layoutPlain {
		other = layoutLocking
	}
	return k.statAs(ctx, c, name, other)
}

// statAs counts a queue of layout l and reads its bounds and pause.
func (k *call) statAs(ctx context.Context, c coord.Coordinator, name string, l layout) (st queueStat, err error) {
	q := k.newQueue(c, name, l)
	defer q.Close()
	if st.Stat, err = q.Stat(ctx); err != nil {
		return st, err
	}
	if locking, ok := q.(*zkq.LockingQueue); ok {
		st.config, err = locking.Config(ctx)
	}
	return st, err
}
