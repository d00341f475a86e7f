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

var sessionCases = []testCase{
	{name: "SessionStaysTheSame", run: func(e *env) {
		p := e.openPeer()
		id := p.ID()
		for range 3 {
			p.reopenSession()
			e.wantEqual(p.ID(), id, "ID")
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
			e.wantEqual(id, ids[0], "ID")
		}
	}},
	{name: "SessionsOfClientsDiffer", run: func(e *env) {
		seen := map[string]bool{}
		for range 5 {
			p := e.openPeer()
			if seen[p.ID()] {
				e.Errorf("ID %s twice", p.ID())
			}
			seen[p.ID()] = true
		}
	}},
	{name: "TimeoutIsTheGranted", run: func(e *env) {
		if got := e.openPeer().Timeout(); got <= 0 || got > 10*e.timeout {
			e.Errorf("asked for %v, granted %v", e.timeout, got)
		}
	}},
	{name: "DoneIsOpenWhileTheSessionLives", run: func(e *env) {
		p := e.openPeer()
		select {
		case <-p.Done():
			e.Error("the session is over")
		case <-time.After(p.Timeout() * 3 / 2):
		}
		p.commitOne(coord.CreateEphemeral("/q/a", nil))
	}},
	{name: "IdleSessionLives", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		a.commitOne(coord.CreateEphemeral("/q/a", nil))
		time.Sleep(a.Timeout() * 5 / 2)
		e.wantEqual(b.exists("/q/a"), true, "ephemeral node there after two timeouts without a call")
		a.commitOne(coord.Check("/q/a", a.get("/q/a").Fence))
	}},
	{name: "CloseEndsEphemeralNodesAtOnce", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		a.commit(coord.CreateEphemeral("/q/a", nil), coord.CreateEphemeral("/q/b", nil), coord.Create("/q/c", nil))
		start := time.Now()
		if err := a.client.Close(); err != nil {
			e.Errorf("close: %v", err)
		}
		e.wantEqual(b.freshNames("/q"), "c", "listed after the close")
		if d := time.Since(start); d > e.timeout/2 {
			e.Errorf("close and list took %v", d)
		}
	}},
	{name: "CloseEndsTheSession", run: func(e *env) {
		p := e.openPeer()
		if err := p.client.Close(); err != nil {
			e.Errorf("close: %v", err)
		}
		select {
		case <-p.Done():
		case <-time.After(time.Second):
			e.Error("Done is open after the close")
		}
	}},
	{name: "CloseTwice", run: func(e *env) {
		p := e.openPeer()
		for range 3 {
			if err := p.client.Close(); err != nil {
				e.Errorf("close: %v", err)
			}
		}
		var wg sync.WaitGroup
		q := e.openPeer()
		for range 4 {
			wg.Go(func() {
				if err := q.client.Close(); err != nil {
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
		e.wantError(err, coord.ErrClosed, "session")
	}},
	{name: "EverythingAfterCloseIsErrClosed", run: func(e *env) {
		p, q := e.openPeer(), e.openPeer()
		if err := p.client.Close(); err != nil {
			e.Errorf("close: %v", err)
		}
		wantEveryCallToEnd(p, coord.ErrClosed)
		_, err := p.client.Session(e.ctx)
		e.wantError(err, coord.ErrClosed, "session")
		e.wantEqual(q.freshNames("/q"), "", "listed")
	}},
	{name: "ExpiryEndsTheSession", hooks: []string{"Expire"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		a.commit(coord.CreateEphemeral("/q/a", nil), coord.Create("/q/b", nil))
		a.expire()
		e.pollUntil(5*time.Second, "the ephemeral node is gone", func() bool { return b.freshNames("/q") == "b" })
		select {
		case <-a.Done():
		case <-time.After(a.expiryLimit()):
			e.Fatal("Done is open after the expiry")
		}
		wantEveryCallToEnd(a, coord.ErrSessionLost)
		e.wantEqual(b.freshNames("/q"), "b", "listed")
	}},
	{name: "CommitAfterExpiryIsNotApplied", hooks: []string{"Expire"}, run: func(e *env) {
		// The client may not know that its session has expired; the service refuses the
		// commit. If the connection ends as the commit is sent, the outcome is unknown.
		for i := range 5 {
			a, b := e.openPeer(), e.openPeer()
			a.expire()
			path := fmt.Sprintf("/q/%d", i)
			_, err := a.Commit(e.ctx, coord.Create(path, nil))
			if !errors.Is(err, coord.ErrSessionLost) && !errors.Is(err, coord.ErrUnknown) {
				e.Errorf("commit: %v, want ErrSessionLost or ErrUnknown", err)
			}
			e.wantEqual(b.exists(path), false, "node there")
		}
	}},
	{name: "ReconnectedClientHearsOfItsEnd", hooks: []string{"Cut", "Expire"}, run: func(e *env) {
		p := e.openPeer()
		ch := p.watch("/q")
		p.cut()
		e.waitForDisconnect()
		discardSignal(ch)
		p.expire()
		p.heal()
		select {
		case <-p.Done():
		case <-time.After(p.Timeout() / 2):
			e.Error("Done is open, half a timeout after the connection came back")
		}
		e.awaitSignal(ch, "session over")
	}},
	{name: "UnknownFormatIsRefused", hooks: []string{"Expire"}, run: func(e *env) {
		p := e.openPeer()
		n := p.get("/zkq/format")
		e.wantEqual(string(n.Value), strconv.Itoa(coord.Format), "format")
		p.commitOne(coord.Set("/zkq/format", []byte(strconv.Itoa(coord.Format+1)), n.Fence))
		p.expire()
		<-p.Done()
		for range 2 {
			_, err := p.client.Session(e.ctx)
			e.wantError(err, coord.ErrFormat, "session")
		}
	}},
	{name: "NewSessionAfterExpiry", hooks: []string{"Expire"}, run: func(e *env) {
		p := e.openPeer()
		old := p.Session
		p.commit(coord.CreateEphemeral("/q/a", nil), coord.Create("/q/b", nil))
		p.expire()
		<-old.Done()
		p.reopenSession()
		if p.ID() == old.ID() {
			e.Error("the new session has the old one's ID")
		}
		e.wantEqual(p.freshNames("/q"), "b", "listed")
		p.commitOne(coord.CreateEphemeral("/q/a", nil))
		e.wantEqual(p.get("/q/a").Owner, p.ID(), "owner")
		_, err := old.Get(e.ctx, "/q/b")
		e.wantError(err, coord.ErrSessionLost, "get on the old session")
		_, err = old.Commit(e.ctx, coord.Create("/q/c", nil))
		e.wantError(err, coord.ErrSessionLost, "commit on the old session")
		e.wantEqual(p.exists("/q/c"), false, "node there")
	}},
	{name: "ExpiredAgainAndAgain", hooks: []string{"Expire"}, run: func(e *env) {
		p := e.openPeer()
		seen := map[string]bool{}
		for range 4 {
			if seen[p.ID()] {
				e.Errorf("ID %s again", p.ID())
			}
			seen[p.ID()] = true
			p.commitOne(coord.CreateEphemeral("/q/a", nil))
			p.expire()
			<-p.Done()
			p.reopenSession()
		}
	}},
	{name: "SessionOutlivesItsConnection", hooks: []string{"Cut"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		a.commitOne(coord.CreateEphemeral("/q/a", nil))
		for range 3 {
			a.cut()
			time.Sleep(a.Timeout() / 4)
			a.heal()
			a.exists("/q/a") // returns once there is a connection again
		}
		e.wantEqual(b.get("/q/a").Owner, a.ID(), "owner")
		select {
		case <-a.Done():
			e.Error("the session is over")
		default:
		}
		a.commitOne(coord.Check("/q/a", a.get("/q/a").Fence))
	}},
	{name: "CutSessionEndsHereBeforeItEndsThere", hooks: []string{"Cut"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		a.commit(coord.CreateEphemeral("/q/a", nil), coord.Create("/q/b", nil))
		time.Sleep(a.Timeout() / 3)
		a.cut()
		start := time.Now()
		here := false
		for b.exists("/q/a") {
			select {
			case <-a.Done():
				here = true
			default:
			}
			time.Sleep(10 * time.Millisecond)
			if time.Since(start) > a.expiryLimit() {
				e.Fatalf("the ephemeral node is still there %v after the cut", time.Since(start))
			}
		}
		if !here {
			e.Error("others saw the end before the client did")
		}
		wantEveryCallToEnd(a, coord.ErrSessionLost)
		a.heal()
		old := a.ID()
		a.reopenSession()
		if a.ID() == old {
			e.Error("the new session has the old one's ID")
		}
		e.wantEqual(a.freshNames("/q"), "b", "listed")
	}},
	{name: "HungSessionEndsHereBeforeItEndsThere", hooks: []string{"HoldReplies"}, run: func(e *env) {
		// The connection stands and carries nothing, so the client can tell by its clock
		// only.
		a, b := e.openPeer(), e.openPeer()
		a.commitOne(coord.CreateEphemeral("/q/a", nil))
		a.holdReplies()
		select {
		case <-a.Done():
		case <-time.After(a.expiryLimit()):
			e.Fatal("Done is open, and nothing was heard of the service")
		}
		e.wantEqual(b.exists("/q/a"), true, "ephemeral node there when its client gave up")
		wantEveryCallToEnd(a, coord.ErrSessionLost)
		a.heal()
		a.reopenSession()
		a.commitOne(coord.Create("/q/b", nil))
	}},
	{name: "QueuedCallsEndWithTheSession", hooks: []string{"Cut"}, run: func(e *env) {
		// Calls that wait for the connection when the session ends return ErrSessionLost.
		// A later session must not send them.
		a, b := e.openPeer(), e.openPeer()
		a.cut()
		e.waitForDisconnect()
		var commits []<-chan outcome
		for i := range 10 {
			commits = append(commits, runAsync(func() error {
				_, err := a.Commit(e.ctx, coord.Create(fmt.Sprintf("/q/%d", i), nil))
				return err
			}))
		}
		get := runAsync(func() error { _, err := a.Get(e.ctx, "/q/0"); return err })
		<-a.Done()
		for _, c := range commits {
			e.wantError(e.awaitOutcome(2*time.Second, c, "queued commit"), coord.ErrSessionLost, "queued commit")
		}
		e.wantError(e.awaitOutcome(2*time.Second, get, "queued get"), coord.ErrSessionLost, "queued get")
		a.heal()
		a.reopenSession()
		a.commitOne(coord.Create("/q/later", nil))
		time.Sleep(200 * time.Millisecond)
		e.wantEqual(b.freshNames("/q"), "later", "listed")
	}},
	{name: "QueuedOverAnExpiryIsNotApplied", hooks: []string{"Cut", "Expire"}, run: func(e *env) {
		// Creates have no fence, so only the session protects them. The client learns of
		// the expiry when it is connected again.
		a, b := e.openPeer(), e.openPeer()
		a.cut()
		e.waitForDisconnect()
		var commits []<-chan outcome
		for i := range 5 {
			commits = append(commits, runAsync(func() error {
				_, err := a.Commit(e.ctx, coord.Create(fmt.Sprintf("/q/%d", i), nil))
				return err
			}))
		}
		time.Sleep(50 * time.Millisecond)
		a.expire()
		a.heal()
		for _, c := range commits {
			e.wantError(e.awaitOutcome(a.expiryLimit(), c, "queued commit"), coord.ErrSessionLost, "queued commit")
		}
		a.reopenSession()
		time.Sleep(200 * time.Millisecond)
		e.wantEqual(b.freshNames("/q"), "", "listed")
	}},
	{name: "CallsWaitForTheConnection", hooks: []string{"Cut"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		a.commitOne(coord.Create("/q/a", nil))
		a.cut()
		e.waitForDisconnect()
		calls := map[string]<-chan outcome{
			"get":    runAsync(func() error { _, err := a.Get(e.ctx, "/q/a"); return err }),
			"list":   runAsync(func() error { _, err := a.List(e.ctx, "/q", coord.ListOptions{Fresh: true}); return err }),
			"count":  runAsync(func() error { _, err := a.Count(e.ctx, "/q"); return err }),
			"commit": runAsync(func() error { _, err := a.Commit(e.ctx, coord.CreateSequential("/q/n-", nil)); return err }),
		}
		time.Sleep(50 * time.Millisecond)
		a.heal()
		for name, call := range calls {
			if err := e.awaitOutcome(e.timeout, call, name); err != nil {
				e.Errorf("%s: %v", name, err)
			}
		}
		e.wantEqual(b.count("/q"), 2, "count")
	}},
	{name: "SessionWhileCut", hooks: []string{"Cut"}, run: func(e *env) {
		p := e.openPeer()
		p.cut()
		<-p.Done()
		ctx, cancel := context.WithTimeout(e.ctx, 500*time.Millisecond)
		defer cancel()
		_, err := p.client.Session(ctx)
		if !errors.Is(err, coord.ErrUnreachable) && !errors.Is(err, context.DeadlineExceeded) {
			e.Errorf("%v, want ErrUnreachable or the deadline", err)
		}
		p.heal()
		p.reopenSession()
		p.commitOne(coord.Create("/q/a", nil))
	}},
	{name: "CloseWhileCut", hooks: []string{"Cut"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		a.commitOne(coord.CreateEphemeral("/q/a", nil))
		a.cut()
		e.waitForDisconnect()
		get := runAsync(func() error { _, err := a.Get(e.ctx, "/q/a"); return err })
		commit := runAsync(func() error { _, err := a.Commit(e.ctx, coord.Create("/q/b", nil)); return err })
		time.Sleep(50 * time.Millisecond)
		if err := e.awaitOutcome(3*time.Second, runAsync(a.client.Close), "close"); err != nil {
			e.Logf("close while cut: %v", err)
		}
		e.wantError(e.awaitOutcome(time.Second, get, "get"), coord.ErrClosed, "waiting get")
		e.wantError(e.awaitOutcome(time.Second, commit, "commit"), coord.ErrClosed, "waiting commit")
		e.pollUntil(a.expiryLimit(), "the session times out", func() bool { return !b.exists("/q/a") })
		a.heal()
		e.wantEqual(b.exists("/q/b"), false, "node of the commit that waited")
	}},
	{name: "CloseWhileHung", hooks: []string{"HoldReplies"}, run: func(e *env) {
		p := e.openPeer()
		p.holdReplies()
		if err := e.awaitOutcome(3*time.Second, runAsync(p.client.Close), "close"); err != nil {
			e.Logf("close while hung: %v", err)
		}
		p.heal()
	}},
	{name: "SessionOutlivesARestart", hooks: []string{"Restart"}, runsAlone: true, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := a.commit(coord.CreateEphemeral("/q/a", []byte("v")), coord.Create("/q/b", []byte("v")))
		ch := b.watch("/q")
		discardSignal(ch)
		e.service.(Restarter).Restart()
		e.wantEqual(b.get("/q/a").Owner, a.ID(), "owner")
		e.wantEqual(string(b.get("/q/b").Value), "v", "value")
		a.commitOne(coord.Create("/q/c", nil))
		listUntil(b, ch, "/q", "a b c")
		a.commit(coord.Delete("/q/a", f[0].Fence), coord.Check("/q/b", f[1].Fence))
		listUntil(b, ch, "/q", "b c")
	}},
	{name: "SequenceOutlivesARestart", hooks: []string{"Restart"}, runsAlone: true, run: func(e *env) {
		p := e.openPeer()
		var got []string
		for range 3 {
			for range 5 {
				r := p.commitOne(coord.CreateSequential("/q/n-", nil))
				got = append(got, r.Path)
				p.commitOne(coord.Delete(r.Path, r.Fence))
			}
			e.service.(Restarter).Restart()
		}
		wantAscending(e, got)
	}},
}

// wantEveryCallToEnd asserts with which error each call on p's session ends.
func wantEveryCallToEnd(p *peer, want error) {
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
		p.wantError(p.awaitOutcome(2*time.Second, runAsync(call), name), want, name)
	}
}
