package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"
)

func waitVerb() verb {
	return verb{
		name:    "wait",
		args:    "QUEUE",
		usage:   "wait until nothing is ready, held or delayed",
		more:    `Exit 3: the time was over first. The dead are not waited for; see --fail-on-dead.`,
		example: []string{"zkq wait --timeout 10m jobs && echo all done"},
		flags: []cli.Flag{
			stringFlag("timeout", "", "D", "wait no longer than this (default: forever)"),
			boolFlag("fail-on-dead", "", "exit 6 when there are dead entries in the end"),
		},
		min: 1, max: 1, queue: true, anyLayout: true,
		run: wait,
	}
}

// wait waits until a queue is empty, then looks at its dead entries if asked to.
func wait(ctx context.Context, k *call) error {
	most, err := flagValue(k.flags, "timeout", forever, parseDuration)
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
		over := isOwnTimeout(err, ctx)
		if err != nil && !over || err == nil && !k.flags.Bool("fail-on-dead") {
			return k.describe(err)
		}
		pctx, cancel := k.changeContext(ctx)
		defer cancel()
		st, err := q.Stat(pctx)
		if err != nil {
			return k.describe(err)
		}
		// After a timeout, the queue may have become empty since WaitEmpty's last look.
		if left := st.Ready + st.Held + st.Delayed; over && left > 0 {
			return k.describe(nothingError("the time is over, and %s left", pluralize(left, "entry is", "entries are")))
		}
		if st.Dead > 0 && k.flags.Bool("fail-on-dead") {
			return k.describe(&failure{code: exitSome, err: fmt.Errorf("%s dead", pluralize(st.Dead, "entry is", "entries are")), hint: "zkq ls --state dead " + quoteWord(k.queue) + " lists them"})
		}
		return nil
	})
}
