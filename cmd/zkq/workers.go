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

func workersVerb() verb {
	return verb{
		name:  "workers",
		args:  "[QUEUE]",
		usage: "list the processes that work on a queue",
		more: `One line for each: host, pid, entries held, since when, queue. Without QUEUE those of
all queues. Holders that do not register themselves (kazoo workers, zkq get) are listed
last, without host and pid.`,
		example: []string{"zkq workers jobs", "zkq -o json workers | jq -r 'select(.entries == 0).host'"},
		max:     1, queue: true, locking: true, readOnly: true,
		run: workers,
	}
}

// workerRecord is the JSON of a process.
type workerRecord struct {
	Host    string     `json:"host"`
	PID     int        `json:"pid"`
	Queue   string     `json:"queue"`
	Entries int        `json:"entries"`
	Since   *time.Time `json:"since"`
	Holders []string   `json:"holders"` // as ls shows them
}

// workers prints a row for each process that works on the queue, or on any queue.
func workers(ctx context.Context, k *call) error {
	return k.withCoordinator(ctx, func(c coord.Coordinator) error {
		names, all := []string{k.queue}, k.queue == ""
		if all {
			found, err := zkq.Queues(ctx, c)
			if err != nil {
				return k.describe(err)
			}
			names = found
		}
		t := k.out.table("host", "pid", "entries", "since", "queue")
		for _, name := range names {
			k.queue = strings.TrimPrefix(name, "/")
			q := k.newLocking(c, k.queue)
			ws, err := q.Workers(ctx)
			q.Close()
			if all && errors.Is(err, zkq.ErrLayout) {
				continue // a plain queue has no workers
			}
			if err != nil {
				return k.describe(err)
			}
			for _, r := range mergeHandles(k.queue, ws) {
				pid, since := "", ""
				if r.PID > 0 {
					pid, since = strconv.Itoa(r.PID), r.Since.Format(time.RFC3339)
				}
				if err := t.row(r, r.Host, pid, strconv.Itoa(r.Entries), since, r.Queue); err != nil {
					return k.describe(err)
				}
			}
		}
		return k.describe(t.end())
	})
}

// mergeHandles merges the queue handles of each process into one record. Handles of one
// process are adjacent in ws.
func mergeHandles(queue string, ws []zkq.WorkerInfo) (records []workerRecord) {
	for i, w := range ws {
		if i > 0 && w.PID > 0 && w.PID == ws[i-1].PID && w.Host == ws[i-1].Host {
			r := &records[len(records)-1]
			r.Entries += w.Entries
			r.Holders = append(r.Holders, w.Holder)
			if w.Started.Before(*r.Since) {
				*r.Since = w.Started.UTC()
			}
			continue
		}
		r := workerRecord{Host: w.Host, PID: w.PID, Queue: queue, Entries: w.Entries, Holders: []string{w.Holder}}
		if w.PID > 0 {
			since := w.Started.UTC()
			r.Since = &since
		}
		records = append(records, r)
	}
	return records
}
