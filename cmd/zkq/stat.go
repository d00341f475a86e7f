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
the oldest entry. Without QUEUE all queues, each in its own layout.`,
		example: []string{"zkq stat jobs", "zkq -o json stat"},
		max:     -1,
		run:     stat,
	}
}

// statRecord is a queue's counts in JSON.
type statRecord struct {
	Queue   string   `json:"queue"`
	Ready   int      `json:"ready"`
	Held    int      `json:"held"`
	Delayed int      `json:"delayed"`
	Dead    int      `json:"dead"`
	Total   int      `json:"total"`
	Oldest  *float64 `json:"oldest_age_seconds"`
}

func stat(ctx context.Context, k *call) error {
	var names []string
	for _, w := range k.words {
		name, err := queueName(w)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	return k.with(ctx, func(c coord.Coordinator) error {
		all := len(names) == 0
		if all {
			found, err := zkq.Queues(ctx, c)
			if err != nil {
				return k.about(err)
			}
			for _, name := range found {
				names = append(names, strings.TrimPrefix(name, "/"))
			}
		}
		t := k.out.table("queue", "ready", "held", "delayed", "dead", "total", "oldest")
		for _, name := range names {
			k.queue = name
			st, err := k.stat(ctx, c, name, all)
			if err != nil {
				return k.about(err)
			}
			r := statRecord{Queue: name, Ready: st.Ready, Held: st.Held, Delayed: st.Delayed, Dead: st.Dead, Total: st.Total()}
			if !st.Oldest.IsZero() {
				seconds := max(time.Since(st.Oldest).Seconds(), 0)
				r.Oldest = &seconds
			}
			err = t.row(r, name, strconv.Itoa(r.Ready), strconv.Itoa(r.Held), strconv.Itoa(r.Delayed),
				strconv.Itoa(r.Dead), strconv.Itoa(r.Total), age(st.Oldest))
			if err != nil {
				return k.about(err)
			}
		}
		return k.about(t.end())
	})
}

// stat counts one queue; either says that its layout need not be the one asked
// for.
func (k *call) stat(ctx context.Context, c coord.Coordinator, name string, either bool) (zkq.Stat, error) {
	q := k.newQueue(c, name, k.settings.layout)
	defer q.Close()
	st, err := q.Stat(ctx)
	if !either || !errors.Is(err, zkq.ErrLayout) {
		return st, err
	}
	other := layoutPlain
	if k.settings.layout == layoutPlain {
		other = layoutLocking
	}
	o := k.newQueue(c, name, other)
	defer o.Close()
	return o.Stat(ctx)
}
