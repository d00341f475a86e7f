package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zkq/zkq/etcdqueue/embedded"
)

func serveVerb() verb {
	return verb{
		name:  "serve",
		usage: "keep the embedded store up until SIGINT, SIGTERM or SIGHUP",
		more: `Other processes use the store while it is up, and need not start it themselves. If
another process has it, serve waits and takes over when that one leaves.`,
		example: []string{"zkq -c local:/var/lib/zkq serve"},
		run:     serve,
	}
}

// serve runs the embedded store until a signal ends it.
func serve(ctx context.Context, k *call) error {
	if k.settings.target.scheme != "local" {
		return usageError("", "serve runs the embedded store, and %s is a server: name local: or local:DIR", k.settings.target)
	}
	where := printable(k.settings.target.String())
	say := func(text string) {
		if isTerminal(k.stderr) && !k.out.json {
			fmt.Fprintf(k.messages, "zkq: %s; Ctrl-C ends it\n", text)
		} else {
			k.log.Info(text)
		}
	}
	waiting := time.AfterFunc(time.Second, func() { say("serve waits: another process may run " + where) })
	defer waiting.Stop()
	err := embedded.Serve(ctx, embedded.Config{
		Dir:            k.settings.target.dir,
		SessionTimeout: k.settings.sessionTimeout,
		ConnectTimeout: k.settings.connectTimeout,
		Warn:           k.logWarning,
		Serving: func() {
			waiting.Stop()
			say("serving " + where)
		},
	})
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil // a signal asked for the end, and the store is closed
	}
	return k.describe(err)
}
