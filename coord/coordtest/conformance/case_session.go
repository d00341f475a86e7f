package conformance

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
)

var sessionCases = []example{
	{name: "SessionStaysTheSame", run: func(e *env) {
		p := e.open()
		id := p.ID()
		for range 3 {
			p.reopen()
			e.equal(p.ID(), id, "ID")
		}
		if id == "" {
			e.Error("no ID")
		}
	}},
	{name: "SessionsOfAtOnceCallersAreOne", run: func(e *env) {
		c := e.service.Open(e.T)
		defer c.Close()
		ids := make([]string, 8)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				s, err := c.Session(e.ctx)
				if err != nil {
					e.Errorf("session: %v", err)
					return
				}
				ids[i] = s.ID()
			})
		}
		wg.Wait()
		for _, id := range ids {
			e.equal(id, ids[0], "ID")
		}
	}},
	{name: "SessionsOfClientsDiffer", run: func(e *env) {
		seen := map[string]bool{}
		for range 5 {
			p := e.open()
			if seen[p.ID()] {
				e.Errorf("ID %s twice", p.ID())
			}
			seen[p.ID()] = true
		}
	}},
	{name: "TimeoutIsTheGranted", run: func(e *env) {
		if got := e.open().Timeout(); got <= 0 || got > 10*e.timeout {
			e.Errorf("asked for %v, granted %v", e.timeout, got)
		}
	}},
	{name: "DoneIsOpenWhileTheSessionLives", run: func(e *env) {
		p := e.open()
		select {
		case <-p.Done():
			e.Error("the session is over")
		case <-time.After(p.Timeout() * 3 / 2):
		}
		p.do(coord.CreateEphemeral("/q/a", nil))
	}},
	{name: "IdleSessionLives", run: func(e *env) {
		a, b := e.open(), e.open()
		a.do(coord.CreateEphemeral("/q/a", nil))
		time.Sleep(a.Timeout() * 5 / 2)
		e.equal(b.there("/q/a"), true, "ephemeral node there after two timeouts without a call")
		a.do(coord.Check("/q/a", a.get("/q/a").Fence))
	}},
	{name: "CloseEndsEphemeralNodesAtOnce", run: func(e *env) {
		a, b := e.open(), e.open()
		a.commit(coord.CreateEphemeral("/q/a", nil), coord.CreateEphemeral("/q/b", nil), coord.Create("/q/c", nil))
		start := time.Now()
		if err := a.c.Close(); err != nil {
			e.Errorf("close: %v", err)
		}
		e.equal(b.fresh("/q"), "c", "listed after the close")
		if d := time.Since(start); d > e.timeout/2 {
			e.Errorf("close and list took %v", d)
		}
	}},
	{name: "CloseEndsTheSession", run: func(e *env) {
		p := e.open()
		if err := p.c.Close(); err != nil {
			e.Errorf("close: %v", err)
		}
		select {
		case <-p.Done():
		case <-time.After(time.Second):
			e.Error("Done is open after the close")
		}
	}},
	{name: "CloseTwice", run: func(e *env) {
		p := e.open()
		for range 3 {
			if err := p.c.Close(); err != nil {
				e.Errorf("close: %v", err)
			}
		}
		var wg sync.WaitGroup
		q := e.open()
		for range 4 {
			wg.Go(func() {
				if err := q.c.Close(); err != nil {
					e.Errorf("close: %v", err)
				}
			})
		}
		wg.Wait()
	}},
	{name: "CloseWithoutASession", run: func(e *env) {
		c := e.service.Open(e.T)
		if err := c.Close(); err != nil {
			e.Errorf("close: %v", err)
		}
		_, err := c.Session(e.ctx)
		e.is(err, coord.ErrClosed, "session")
	}},
	{name: "EverythingAfterCloseIsErrClosed", run: func(e *env) {
		p, q := e.open(), e.open()
		if err := p.c.Close(); err != nil {
			e.Errorf("close: %v", err)
		}
		everything(p, coord.ErrClosed)
		_, err := p.c.Session(e.ctx)
		e.is(err, coord.ErrClosed, "session")
		e.equal(q.fresh("/q"), "", "listed")
	}},
	{name: "ExpiryEndsTheSession", needs: []string{"Expire"}, run: func(e *env) {
		a, b := e.open(), e.open()
		a.commit(coord.CreateEphemeral("/q/a", nil), coord.Create("/q/b", nil))
		a.expire()
		e.until(5*time.Second, "the ephemeral node is gone", func() bool { return b.fresh("/q") == "b" })
		select {
		case <-a.Done():
		case <-time.After(a.overdue()):
			e.Fatal("Done is open after the expiry")
		}
		everything(a, coord.ErrSessionLost)
		e.equal(b.fresh("/q"), "b", "listed")
	}},
	{name: "CommitAfterExpiryIsNotApplied", needs: []string{"Expire"}, run: func(e *env) {
		// Told or not, the service knows. (The connection may end as it is sent.)
		for i := range 5 {
			a, b := e.open(), e.open()
			a.expire()
			path := fmt.Sprintf("/q/%d", i)
			// Who was not told sends it, and may get no answer.
			_, err := a.Commit(e.ctx, coord.Create(path, nil))
			if !errors.Is(err, coord.ErrSessionLost) && !errors.Is(err, coord.ErrUnknown) {
				e.Errorf("commit: %v, want ErrSessionLost or ErrUnknown", err)
			}
			e.equal(b.there(path), false, "node there")
		}
	}},
	{name: "ReconnectedClientHearsOfItsEnd", needs: []string{"Cut", "Expire"}, run: func(e *env) {
		p := e.open()
		ch := p.watch("/q")
		p.cut()
		e.noticed()
		drain(ch)
		p.expire()
		p.heal()
		select {
		case <-p.Done():
		case <-time.After(p.Timeout() / 2):
			e.Error("Done is open, half a timeout after the connection came back")
		}
		e.signalled(ch, "session over")
	}},
	{name: "UnknownFormatIsRefused", needs: []string{"Expire"}, run: func(e *env) {
		p := e.open()
		n := p.get("/zkq/format")
		e.equal(string(n.Value), strconv.Itoa(coord.Format), "format")
		p.do(coord.Set("/zkq/format", []byte(strconv.Itoa(coord.Format+1)), n.Fence))
		p.expire()
		<-p.Done()
		for range 2 {
			_, err := p.c.Session(e.ctx)
			e.is(err, coord.ErrFormat, "session")
		}
	}},
	{name: "NewSessionAfterExpiry", needs: []string{"Expire"}, run: func(e *env) {
		p := e.open()
		old := p.Session
		p.commit(coord.CreateEphemeral("/q/a", nil), coord.Create("/q/b", nil))
		p.expire()
		<-old.Done()
		p.reopen()
		if p.ID() == old.ID() {
			e.Error("the new session has the old one's ID")
		}
		e.equal(p.fresh("/q"), "b", "listed")
		p.do(coord.CreateEphemeral("/q/a", nil))
		e.equal(p.get("/q/a").Owner, p.ID(), "owner")
		_, err := old.Get(e.ctx, "/q/b")
		e.is(err, coord.ErrSessionLost, "get on the old session")
		_, err = old.Commit(e.ctx, coord.Create("/q/c", nil))
		e.is(err, coord.ErrSessionLost, "commit on the old session")
		e.equal(p.there("/q/c"), false, "node there")
	}},
	{name: "ExpiredAgainAndAgain", needs: []string{"Expire"}, run: func(e *env) {
		p := e.open()
		seen := map[string]bool{}
		for range 4 {
			if seen[p.ID()] {
				e.Errorf("ID %s again", p.ID())
			}
			seen[p.ID()] = true
			p.do(coord.CreateEphemeral("/q/a", nil))
			p.expire()
			<-p.Done()
			p.reopen()
		}
	}},
	{name: "SessionOutlivesItsConnection", needs: []string{"Cut"}, run: func(e *env) {
		a, b := e.open(), e.open()
		a.do(coord.CreateEphemeral("/q/a", nil))
		for range 3 {
			a.cut()
			time.Sleep(a.Timeout() / 4)
			a.heal()
			a.there("/q/a") // it has a connection again
		}
		e.equal(b.get("/q/a").Owner, a.ID(), "owner")
		select {
		case <-a.Done():
			e.Error("the session is over")
		default:
		}
		a.do(coord.Check("/q/a", a.get("/q/a").Fence))
	}},
	{name: "CutSessionEndsHereBeforeItEndsThere", needs: []string{"Cut"}, run: func(e *env) {
		a, b := e.open(), e.open()
		a.commit(coord.CreateEphemeral("/q/a", nil), coord.Create("/q/b", nil))
		time.Sleep(a.Timeout() / 3)
		a.cut()
		start := time.Now()
		here := false
		for b.there("/q/a") {
			select {
			case <-a.Done():
				here = true
			default:
			}
			time.Sleep(10 * time.Millisecond)
			if time.Since(start) > a.overdue() {
				e.Fatalf("the ephemeral node is still there %v after the cut", time.Since(start))
			}
		}
		if !here {
			e.Error("others saw the end before the client did")
		}
		everything(a, coord.ErrSessionLost)
		a.heal()
		old := a.ID()
		a.reopen()
		if a.ID() == old {
			e.Error("the new session has the old one's ID")
		}
		e.equal(a.fresh("/q"), "b", "listed")
	}},
	{name: "HungSessionEndsHereBeforeItEndsThere", needs: []string{"HoldReplies"}, run: func(e *env) {
		// The connection stands and carries nothing: only the clock can tell.
		a, b := e.open(), e.open()
		a.do(coord.CreateEphemeral("/q/a", nil))
		a.holdReplies()
		select {
		case <-a.Done():
		case <-time.After(a.overdue()):
			e.Fatal("Done is open, and nothing was heard of the service")
		}
		e.equal(b.there("/q/a"), true, "ephemeral node there when its client gave up")
		everything(a, coord.ErrSessionLost)
		a.heal()
		a.reopen()
		a.do(coord.Create("/q/b", nil))
	}},
	{name: "QueuedCallsEndWithTheSession", needs: []string{"Cut"}, run: func(e *env) {
		// What waits for the connection when the session ends is told so, and no
		// later session sends it.
		a, b := e.open(), e.open()
		a.cut()
		e.noticed()
		var commits []<-chan outcome
		for i := range 10 {
			commits = append(commits, async(func() error {
				_, err := a.Commit(e.ctx, coord.Create(fmt.Sprintf("/q/%d", i), nil))
				return err
			}))
		}
		get := async(func() error { _, err := a.Get(e.ctx, "/q/0"); return err })
		<-a.Done()
		for _, c := range commits {
			e.is(e.within(2*time.Second, c, "queued commit"), coord.ErrSessionLost, "queued commit")
		}
		e.is(e.within(2*time.Second, get, "queued get"), coord.ErrSessionLost, "queued get")
		a.heal()
		a.reopen()
		a.do(coord.Create("/q/later", nil))
		time.Sleep(200 * time.Millisecond)
		e.equal(b.fresh("/q"), "later", "listed")
	}},
	{name: "QueuedOverAnExpiryIsNotApplied", needs: []string{"Cut", "Expire"}, run: func(e *env) {
		// The session fence with all other fences out of play: creates have no
		// version. The client learns of the expiry when it is back.
		a, b := e.open(), e.open()
		a.cut()
		e.noticed()
		var commits []<-chan outcome
		for i := range 5 {
			commits = append(commits, async(func() error {
				_, err := a.Commit(e.ctx, coord.Create(fmt.Sprintf("/q/%d", i), nil))
				return err
			}))
		}
		time.Sleep(50 * time.Millisecond)
		a.expire()
		a.heal()
		for _, c := range commits {
			e.is(e.within(a.overdue(), c, "queued commit"), coord.ErrSessionLost, "queued commit")
		}
		a.reopen()
		time.Sleep(200 * time.Millisecond)
		e.equal(b.fresh("/q"), "", "listed")
	}},
	{name: "CallsWaitForTheConnection", needs: []string{"Cut"}, run: func(e *env) {
		a, b := e.open(), e.open()
		a.do(coord.Create("/q/a", nil))
		a.cut()
		e.noticed()
		calls := map[string]<-chan outcome{
			"get":    async(func() error { _, err := a.Get(e.ctx, "/q/a"); return err }),
			"list":   async(func() error { _, err := a.List(e.ctx, "/q", coord.ListOptions{Fresh: true}); return err }),
			"count":  async(func() error { _, err := a.Count(e.ctx, "/q"); return err }),
			"commit": async(func() error { _, err := a.Commit(e.ctx, coord.CreateSequential("/q/n-", nil)); return err }),
		}
		time.Sleep(50 * time.Millisecond)
		a.heal()
		for name, call := range calls {
			if err := e.within(e.timeout, call, name); err != nil {
				e.Errorf("%s: %v", name, err)
			}
		}
		e.equal(b.count("/q"), 2, "count")
	}},
	{name: "SessionWhileCut", needs: []string{"Cut"}, run: func(e *env) {
		p := e.open()
		p.cut()
		<-p.Done()
		ctx, cancel := context.WithTimeout(e.ctx, 500*time.Millisecond)
		defer cancel()
		_, err := p.c.Session(ctx)
		if !errors.Is(err, coord.ErrUnreachable) && !errors.Is(err, context.DeadlineExceeded) {
			e.Errorf("%v, want ErrUnreachable or the deadline", err)
		}
		p.heal()
		p.reopen()
		p.do(coord.Create("/q/a", nil))
	}},
	{name: "CloseWhileCut", needs: []string{"Cut"}, run: func(e *env) {
		a, b := e.open(), e.open()
		a.do(coord.CreateEphemeral("/q/a", nil))
		a.cut()
		e.noticed()
		get := async(func() error { _, err := a.Get(e.ctx, "/q/a"); return err })
		commit := async(func() error { _, err := a.Commit(e.ctx, coord.Create("/q/b", nil)); return err })
		time.Sleep(50 * time.Millisecond)
		if err := e.within(3*time.Second, async(a.c.Close), "close"); err != nil {
			e.Logf("close while cut: %v", err)
		}
		e.is(e.within(time.Second, get, "get"), coord.ErrClosed, "waiting get")
		e.is(e.within(time.Second, commit, "commit"), coord.ErrClosed, "waiting commit")
		e.until(a.overdue(), "the session times out", func() bool { return !b.there("/q/a") })
		a.heal()
		e.equal(b.there("/q/b"), false, "node of the commit that waited")
	}},
	{name: "CloseWhileHung", needs: []string{"HoldReplies"}, run: func(e *env) {
		p := e.open()
		p.holdReplies()
		if err := e.within(3*time.Second, async(p.c.Close), "close"); err != nil {
			e.Logf("close while hung: %v", err)
		}
		p.heal()
	}},
	{name: "SessionOutlivesARestart", needs: []string{"Restart"}, alone: true, run: func(e *env) {
		a, b := e.open(), e.open()
		f := a.commit(coord.CreateEphemeral("/q/a", []byte("v")), coord.Create("/q/b", []byte("v")))
		ch := b.watch("/q")
		drain(ch)
		e.service.(Restarter).Restart()
		e.equal(b.get("/q/a").Owner, a.ID(), "owner")
		e.equal(string(b.get("/q/b").Value), "v", "value")
		a.do(coord.Create("/q/c", nil))
		lookUntil(b, ch, "/q", "a b c")
		a.commit(coord.Delete("/q/a", f[0].Fence), coord.Check("/q/b", f[1].Fence))
		lookUntil(b, ch, "/q", "b c")
	}},
	{name: "SequenceOutlivesARestart", needs: []string{"Restart"}, alone: true, run: func(e *env) {
		p := e.open()
		var got []string
		for range 3 {
			for range 5 {
				r := p.do(coord.CreateSequential("/q/n-", nil))
				got = append(got, r.Path)
				p.do(coord.Delete(r.Path, r.Fence))
			}
			e.service.(Restarter).Restart()
		}
		ascending(e, got)
	}},
}

// everything asserts how each call on p's session ends.
func everything(p *peer, want error) {
	p.Helper()
	calls := map[string]func() error{
		"get":          func() error { _, err := p.Get(p.ctx, "/q/x"); return err },
		"list":         func() error { _, err := p.List(p.ctx, "/q", coord.ListOptions{}); return err },
		"fresh list":   func() error { _, err := p.List(p.ctx, "/q", coord.ListOptions{Fresh: true}); return err },
		"count":        func() error { _, err := p.Count(p.ctx, "/q"); return err },
		"watch":        func() error { _, err := p.Watch(p.ctx, "/q"); return err },
		"commit":       func() error { _, err := p.Commit(p.ctx, coord.Create("/q/x", nil)); return err },
		"empty commit": func() error { _, err := p.Commit(p.ctx); return err },
	}
	for name, call := range calls {
		p.is(p.within(2*time.Second, async(call), name), want, name)
	}
}
