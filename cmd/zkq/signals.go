package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// signalError is the error of a verb that a signal ended early.
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

// code returns the exit code that a shell reports for the signal: 128 and its number.
func (e *signalError) code() int {
	if s, ok := e.sig.(syscall.Signal); ok {
		return 128 + int(s)
	}
	return exitFailed
}

// lastResort is the time that a verb with twoSignals has to end after the second
// signal.
const lastResort = 5 * time.Second

// catchSignals handles signals until the returned function is called. The first SIGINT,
// SIGTERM or SIGHUP ends the returned context; a signalError is its cause.
//
// For a verb with twoSignals, the second signal is sent to k.second. The third one ends
// the process, and so does lastResort after the second. For other verbs the second
// signal ends the process.
//
// SIGPIPE is caught and dropped, so that the write to a broken pipe returns an error and
// the verb can release the entry. A signal that was ignored when zkq started stays
// ignored: SIGINT in a shell's background, SIGHUP under nohup.
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

// hurry limits the time of each write, because the process is about to end.
func (p *program) hurry() {
	p.out.hurry()
	p.messages.hurry()
}

// exitNow ends the process at once. Entries that it holds are ready again when its session
// expires. Tests have no exit function, and nothing happens.
func (p *program) exitNow(code int) {
	if p.exit != nil {
		p.exit(code)
	}
}
