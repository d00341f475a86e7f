package conformance

import (
	"context"
	"errors"
	"time"

	"github.com/zkq/zkq/coord"
)

var contextCases = []example{
	{name: "CancelledContextSendsNothing", run: func(e *env) {
		p := e.open()
		p.do(coord.Create("/q/a", nil))
		ctx, cancel := context.WithCancel(e.ctx)
		cancel()
		for name, call := range waiting(p, ctx) {
			err := e.within(time.Second, async(call), name)
			e.is(err, context.Canceled, name)
			e.equal(errors.Is(err, coord.ErrUnknown), false, name+" is unknown")
		}
		_, err := p.c.Session(ctx)
		e.is(err, context.Canceled, "session")
		e.equal(p.fresh("/q"), "a", "listed")
	}},
	{name: "PassedDeadlineSendsNothing", run: func(e *env) {
		p := e.open()
		ctx, cancel := context.WithDeadline(e.ctx, time.Now().Add(-time.Second))
		defer cancel()
		for name, call := range waiting(p, ctx) {
			e.is(e.within(time.Second, async(call), name), context.DeadlineExceeded, name)
		}
		e.equal(p.fresh("/q"), "", "listed")
	}},
	{name: "NilContextIsInvalid", run: func(e *env) {
		p := e.open()
		var none context.Context
		for name, call := range waiting(p, none) {
			e.is(e.within(time.Second, async(call), name), coord.ErrInvalid, name)
		}
		_, err := p.c.Session(none)
		e.is(err, coord.ErrInvalid, "session")
		e.equal(p.fresh("/q"), "", "listed")
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
	{name: "CancelEndsCallsThatWait", needs: []string{"Cut"}, run: func(e *env) {
		a, b := e.open(), e.open()
		promptly(a, func() { a.cut(); e.noticed() }, func(name string, err error) {
			e.is(err, context.Canceled, name)
			if name == "commit" {
				a.heal()
				a.there("/q/x") // it has a connection again
				time.Sleep(50 * time.Millisecond)
				if !errors.Is(err, coord.ErrUnknown) && b.there("/q/x") {
					e.Error("applied, though it was not unknown")
				}
			}
		})
	}},
	{name: "CancelEndsCallsThatHang", needs: []string{"HoldReplies"}, run: func(e *env) {
		a := e.open()
		promptly(a, a.holdReplies, func(name string, err error) {
			e.is(err, context.Canceled, name)
			if name == "commit" {
				e.is(err, coord.ErrUnknown, name)
			}
		})
	}},
	{name: "CancelEndsSessionThatWaits", needs: []string{"Cut"}, run: func(e *env) {
		p := e.open()
		p.cut()
		<-p.Done()
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		session := async(func() error { _, err := p.c.Session(ctx); return err })
		time.Sleep(100 * time.Millisecond)
		cancel()
		err := e.within(time.Second, session, "session")
		if !errors.Is(err, context.Canceled) && !errors.Is(err, coord.ErrUnreachable) {
			e.Errorf("%v", err)
		}
		p.heal()
		p.reopen()
	}},
	{name: "ManyCancelledCallsDoNoHarm", run: func(e *env) {
		p := e.open()
		for i := range 100 {
			ctx, cancel := context.WithCancel(e.ctx)
			call := async(func() error { _, err := p.Commit(ctx, coord.CreateSequential("/q/n-", nil)); return err })
			if i%3 == 0 {
				time.Sleep(time.Duration(i) * 10 * time.Microsecond)
			}
			cancel()
			if err := e.within(5*time.Second, call, "commit"); err != nil && !errors.Is(err, context.Canceled) {
				e.Errorf("commit: %v", err)
			}
		}
		p.do(coord.Create("/q/a", nil))
		select {
		case <-p.Done():
			e.Error("the session is over")
		default:
		}
	}},
}

// waiting are the calls of a session that can wait.
func waiting(p *peer, ctx context.Context) map[string]func() error {
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

// promptly blocks each call by fault and cancels it. A busy machine may be late
// once: the promise of 100 ms is kept if one of three tries keeps it.
func promptly(p *peer, fault func(), ended func(name string, err error)) {
	p.Helper()
	for _, name := range []string{"get", "read", "fresh list", "count", "watch", "commit"} {
		var best time.Duration
		for try := range 3 {
			p.heal()
			p.reopen()
			p.there("/q/a")
			fault()
			ctx, cancel := context.WithCancel(p.ctx)
			call := async(waiting(p, ctx)[name])
			time.Sleep(50 * time.Millisecond)
			start := time.Now()
			cancel()
			err := p.within(5*time.Second, call, name)
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
