package conformance

import (
	"context"
	"errors"
	"time"

	"github.com/zkq/zkq/coord"
)

var contextCases = []testCase{
	{name: "CancelledContextSendsNothing", run: func(e *env) {
		p := e.openPeer()
		p.commitOne(coord.Create("/q/a", nil))
		ctx, cancel := context.WithCancel(e.ctx)
		cancel()
		for name, call := range callsThatWait(p, ctx) {
			err := e.awaitOutcome(time.Second, runAsync(call), name)
			e.wantError(err, context.Canceled, name)
			e.wantEqual(errors.Is(err, coord.ErrUnknown), false, name+" is unknown")
		}
		_, err := p.client.Session(ctx)
		e.wantError(err, context.Canceled, "session")
		e.wantEqual(p.freshNames("/q"), "a", "listed")
	}},
	{name: "PassedDeadlineSendsNothing", run: func(e *env) {
		p := e.openPeer()
		ctx, cancel := context.WithDeadline(e.ctx, time.Now().Add(-time.Second))
		defer cancel()
		for name, call := range callsThatWait(p, ctx) {
			e.wantError(e.awaitOutcome(time.Second, runAsync(call), name), context.DeadlineExceeded, name)
		}
		e.wantEqual(p.freshNames("/q"), "", "listed")
	}},
	{name: "NilContextIsInvalid", run: func(e *env) {
		p := e.openPeer()
		var none context.Context
		for name, call := range callsThatWait(p, none) {
			e.wantError(e.awaitOutcome(time.Second, runAsync(call), name), coord.ErrInvalid, name)
		}
		_, err := p.client.Session(none)
		e.wantError(err, coord.ErrInvalid, "session")
		e.wantEqual(p.freshNames("/q"), "", "listed")
	}},
	{name: "ContextsEndDoesNotEndTheSession", run: func(e *env) {
		c := e.service.Open(e.T)
		defer c.Close()
		ctx, cancel := context.WithCancel(e.ctx)
		s, err := c.Session(ctx)
		if err != nil {
			e.Fatal(err)
		}
		cancel()
		time.Sleep(100 * time.Millisecond)
		if _, err := s.Commit(e.ctx, coord.CreateEphemeral("/q/a", nil)); err != nil {
			e.Errorf("commit after the end of the context that Session was called with: %v", err)
		}
		select {
		case <-s.Done():
			e.Error("the session is over")
		default:
		}
	}},
	{name: "CancelEndsCallsThatWait", hooks: []string{"Cut"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		wantPromptCancel(a, func() { a.cut(); e.waitForDisconnect() }, func(name string, err error) {
			e.wantError(err, context.Canceled, name)
			if name == "commit" {
				a.heal()
				a.exists("/q/x") // returns once there is a connection again
				time.Sleep(50 * time.Millisecond)
				if !errors.Is(err, coord.ErrUnknown) && b.exists("/q/x") {
					e.Error("applied, though it was not unknown")
				}
			}
		})
	}},
	{name: "CancelEndsCallsThatHang", hooks: []string{"HoldReplies"}, run: func(e *env) {
		a := e.openPeer()
		wantPromptCancel(a, a.holdReplies, func(name string, err error) {
			e.wantError(err, context.Canceled, name)
			if name == "commit" {
				e.wantError(err, coord.ErrUnknown, name)
			}
		})
	}},
	{name: "CancelEndsSessionThatWaits", hooks: []string{"Cut"}, run: func(e *env) {
		p := e.openPeer()
		p.cut()
		<-p.Done()
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		session := runAsync(func() error { _, err := p.client.Session(ctx); return err })
		time.Sleep(100 * time.Millisecond)
		cancel()
		err := e.awaitOutcome(time.Second, session, "session")
		if !errors.Is(err, context.Canceled) && !errors.Is(err, coord.ErrUnreachable) {
			e.Errorf("%v", err)
		}
		p.heal()
		p.reopenSession()
	}},
	{name: "ManyCancelledCallsDoNoHarm", run: func(e *env) {
		p := e.openPeer()
		for i := range 100 {
			ctx, cancel := context.WithCancel(e.ctx)
			call := runAsync(func() error { _, err := p.Commit(ctx, coord.CreateSequential("/q/n-", nil)); return err })
			if i%3 == 0 {
				time.Sleep(time.Duration(i) * 10 * time.Microsecond)
			}
			cancel()
			if err := e.awaitOutcome(5*time.Second, call, "commit"); err != nil && !errors.Is(err, context.Canceled) {
				e.Errorf("commit: %v", err)
			}
		}
		p.commitOne(coord.Create("/q/a", nil))
		select {
		case <-p.Done():
			e.Error("the session is over")
		default:
		}
	}},
}

// callsThatWait returns the calls of a session that can wait for the service.
func callsThatWait(p *peer, ctx context.Context) map[string]func() error {
	return map[string]func() error{
		"get":        func() error { _, err := p.Get(ctx, "/q/a"); return err },
		"list":       func() error { _, err := p.List(ctx, "/q", coord.ListOptions{}); return err },
		"fresh list": func() error { _, err := p.List(ctx, "/q", coord.ListOptions{Fresh: true}); return err },
		"seen list":  func() error { _, err := p.List(ctx, "/q", coord.ListOptions{Seen: true}); return err },
		"read":       func() error { _, err := p.Read(ctx, "/q/a"); return err },
		"count":      func() error { _, err := p.Count(ctx, "/q"); return err },
		"watch":      func() error { _, err := p.Watch(ctx, "/q"); return err },
		"commit":     func() error { _, err := p.Commit(ctx, coord.Create("/q/x", nil)); return err },
	}
}

// wantPromptCancel blocks each call by a fault, cancels it, and asserts that it returns
// within 100 ms in one of three tries: a busy machine may be late. It calls ended with
// the error of each call.
func wantPromptCancel(p *peer, fault func(), ended func(name string, err error)) {
	p.Helper()
	for _, name := range []string{"get", "read", "fresh list", "count", "watch", "commit"} {
		var best time.Duration
		for try := range 3 {
			p.heal()
			p.reopenSession()
			p.exists("/q/a")
			fault()
			ctx, cancel := context.WithCancel(p.ctx)
			call := runAsync(callsThatWait(p, ctx)[name])
			time.Sleep(50 * time.Millisecond)
			start := time.Now()
			cancel()
			err := p.awaitOutcome(5*time.Second, call, name)
			took := time.Since(start)
			if try == 0 || took < best {
				best = took
			}
			ended(name, err)
			if best <= 100*time.Millisecond {
				break
			}
		}
		if best > 100*time.Millisecond {
			p.Errorf("%s returned %v after the cancel", name, best)
		}
	}
	p.heal()
}
