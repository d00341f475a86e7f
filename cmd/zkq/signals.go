package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// signalError is the signal that ended a verb early.
type signalError struct{ sig os.Signal }

func (e *signalError) Error() string {
	switch e.sig {
	case syscall.SIGTERM:
		return "terminated"
	case syscall.SIGHUP:
		return "hung up"
	}
	return "interrupted"
}

// code is what a shell reports for a process that the signal ended.
func (e *signalError) code() int {
	if s, ok := e.sig.(syscall.Signal); ok {
		return 128 + int(s)
	}
	return exitFailed
}

// lastResort is how long a verb that deals with the second signal itself has to end
// after it.
const lastResort = 5 * time.Second

// catchSignals returns a context that ends with the first SIGINT, SIGTERM or
// SIGHUP, which is its cause, and a function that ends the catching. The second one
// reaches k.second if the verb wants it, and ends the process otherwise. A verb that
// does not end on the second is ended by the third, or after lastResort. SIGPIPE
// is caught and dropped, so that the write that met the broken pipe returns an
// error and what it would have shown can be given back. A signal that was
// ignored when zkq started, as SIGINT is in a shell's background and SIGHUP under
// nohup, stays ignored.
func (k *call) catchSignals(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	k.second = make(chan *signalError, 1)
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	caught := make(chan os.Signal, 2)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(caught, s)
		}
	}
	quit := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		var overdue <-chan time.Time
		code := exitFailed
		for n := 1; ; n++ {
			select {
			case <-quit:
				return
			case <-overdue:
				k.exitNow(code)
			case s := <-caught:
				sig := &signalError{s}
				switch {
				case n == 1 && !k.verb.twoSignals:
					signal.Stop(caught)
					k.hurry()
					cancel(sig)
				case n == 1:
					cancel(sig)
				case n == 2:
					k.second <- sig
					k.hurry()
					code, overdue = sig.code(), time.After(lastResort)
				default:
					k.exitNow(code)
				}
			}
		}
	})
	var once sync.Once
	return ctx, func() {
		once.Do(func() {
			signal.Stop(caught)
			signal.Stop(pipe)
			close(quit)
			running.Wait()
			cancel(nil)
		})
	}
}

// hurry bounds the writes of a process that is about to end.
func (p *program) hurry() {
	p.out.hurry()
	p.said.hurry()
}

// exitNow ends the process without another word: what it still holds comes back when
// its session ends.
func (p *program) exitNow(code int) {
	if p.exit != nil {
		p.exit(code)
	}
}
