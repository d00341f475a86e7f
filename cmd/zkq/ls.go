package main

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
)

func lsVerb() verb {
	return verb{
		name:    "ls",
		args:    "QUEUE",
		usage:   "list entries in the order in which they are taken",
		more:    `One line for each: name, priority, state, holder, deliveries, failures, size.`,
		example: []string{"zkq ls --state held jobs", "zkq -o json ls jobs | jq -r 'select(.deliveries > 3).name'"},
		flags: []cli.Flag{
			stringFlag("state", "", "STATES", "only these: ready, held, delayed, dead, joined by commas (default all)"),
			stringFlag("max", "n", "N", "the first N"),
		},
		min: 1, max: 1, queue: true,
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
		t := k.out.table("name", "priority", "state", "holder", "deliveries", "failures", "size")
		shown := 0
		for e, err := range q.Entries(ctx, only...) {
			if err != nil {
				return k.about(err)
			}
			err := t.row(newEntryRecord(k.queue, e), e.Name, strconv.Itoa(e.Priority), string(e.State), e.Holder,
				strconv.Itoa(e.Deliveries), strconv.Itoa(e.Failures), strconv.Itoa(e.Size))
			if err != nil {
				return k.about(err)
			}
			if shown++; shown == n {
				break
			}
		}
		return k.about(t.end())
	})
}
