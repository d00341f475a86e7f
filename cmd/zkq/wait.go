package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"
)

func waitVerb() verb {
	return verb{
		name:    "wait",
		args:    "QUEUE",
		usage:   "wait until nothing is ready, held or delayed",
		more:    `Exit 3: the time was over first.`,
		example: []string{"zkq wait --timeout 10m jobs && echo all done"},
		flags:   []cli.Flag{stringFlag("timeout", "", "D", "wait no longer than this (default: forever)")},
		min:     1, max: 1, queue: true, anyLayout: true,
		run: wait,
	}
}

func wait(ctx context.Context, k *call) error {
	most, err := flagValue(k.flags, "timeout", forever, duration)
	if err != nil {
		return err
	}
	began := time.Now()
	return k.withQueue(ctx, func(q queue) error {
		waiting := ctx
		if most != forever {
			var cancel context.CancelFunc
			waiting, cancel = context.WithDeadline(ctx, began.Add(most))
			defer cancel()
		}
		err := q.WaitEmpty(waiting)
		if !ranOut(err, ctx) {
			return k.about(err)
		}
		// The last look may have been long ago, or there was none.
		pctx, cancel := k.patient(ctx)
		defer cancel()
		st, err := q.Stat(pctx)
		if left := st.Ready + st.Held + st.Delayed; err == nil && left > 0 {
			err = nothing("the time is over, and %s left", counted(left, "entry is", "entries are"))
		}
		return k.about(err)
	})
}
