package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
)

var outcomeCases = []testCase{
	{name: "HeldReplyIsUnknown", hooks: []string{"HoldReplies"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		b.makeDir("/q")
		a.holdReplies()
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		commit := runAsync(func() error { _, err := a.Commit(ctx, coord.Create("/q/a", nil)); return err })
		e.pollUntil(e.timeout, "the commit is applied", func() bool { return b.exists("/q/a") })
		cancel()
		err := e.awaitOutcome(time.Second, commit, "commit")
		e.wantError(err, coord.ErrUnknown, "commit")
		e.wantError(err, context.Canceled, "commit")
		a.heal()
		e.wantEqual(b.exists("/q/a"), true, "node there")
	}},
	{name: "HeldReplyEndsWithTheSession", hooks: []string{"HoldReplies"}, run: func(e *env) {
		// The commit was sent, so its outcome is unknown also when the session is over.
		a, b := e.openPeer(), e.openPeer()
		b.makeDir("/q")
		a.holdReplies()
		commit := runAsync(func() error { _, err := a.Commit(e.ctx, coord.Create("/q/a", nil)); return err })
		e.pollUntil(e.timeout, "the commit is applied", func() bool { return b.exists("/q/a") })
		err := e.awaitOutcome(a.expiryLimit(), commit, "commit")
		e.wantError(err, coord.ErrUnknown, "commit")
		<-a.Done()
		a.heal()
	}},
	{name: "LostReplyIsUnknownAndNotSentAgain", hooks: []string{"HoldReplies", "Cut"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		b.makeDir("/q")
		a.holdReplies()
		// The node is not sequential, because a driver may ask the service for a name
		// first. If the driver sent the commit again, it would be refused.
		commit := runAsync(func() error { _, err := a.Commit(e.ctx, coord.Create("/q/n", nil)); return err })
		e.pollUntil(e.timeout, "the commit is applied", func() bool { return b.count("/q") == 1 })
		a.cut()
		time.Sleep(20 * time.Millisecond)
		a.heal()
		e.wantError(e.awaitOutcome(a.expiryLimit(), commit, "commit"), coord.ErrUnknown, "commit")
		a.commitOne(coord.Create("/q/a", nil))
		e.wantEqual(b.count("/q"), 2, "count: the commit was applied once")
	}},
	{name: "LostReplyOfARefusalIsUnknown", hooks: []string{"HoldReplies", "Cut"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		b.commitOne(coord.Create("/q/a", []byte("b")))
		a.holdReplies()
		commit := runAsync(func() error { _, err := a.Commit(e.ctx, coord.Create("/q/a", []byte("a"))); return err })
		time.Sleep(200 * time.Millisecond)
		a.cut()
		time.Sleep(20 * time.Millisecond)
		a.heal()
		e.wantError(e.awaitOutcome(a.expiryLimit(), commit, "commit"), coord.ErrUnknown, "commit")
		e.wantEqual(string(b.get("/q/a").Value), "b", "value")
	}},
	{name: "LostRequestIsUnknownAndNotApplied", hooks: []string{"HoldRequests", "Cut"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		a.makeDir("/q")
		a.holdRequests()
		commit := runAsync(func() error { _, err := a.Commit(e.ctx, coord.Create("/q/a", nil)); return err })
		time.Sleep(200 * time.Millisecond)
		a.cut()
		time.Sleep(20 * time.Millisecond)
		a.heal()
		e.wantError(e.awaitOutcome(a.expiryLimit(), commit, "commit"), coord.ErrUnknown, "commit")
		a.commitOne(coord.Create("/q/b", nil))
		time.Sleep(100 * time.Millisecond)
		e.wantEqual(b.freshNames("/q"), "b", "listed")
	}},
	{name: "HeldRequestIsUnknown", hooks: []string{"HoldRequests"}, run: func(e *env) {
		p := e.openPeer()
		p.makeDir("/q")
		p.holdRequests()
		ctx, cancel := context.WithTimeout(e.ctx, 200*time.Millisecond)
		defer cancel()
		_, err := p.Commit(ctx, coord.Create("/q/a", nil))
		e.wantError(err, coord.ErrUnknown, "commit")
		e.wantError(err, context.DeadlineExceeded, "commit")
		p.heal()
		p.commitOne(coord.Create("/q/b", nil))
	}},
	{name: "ManyHeldRepliesAreAllUnknown", hooks: []string{"HoldReplies", "Cut"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		b.makeDir("/q")
		a.holdReplies()
		var commits []<-chan outcome
		for i := range 20 {
			commits = append(commits, runAsync(func() error {
				_, err := a.Commit(e.ctx, coord.Create(fmt.Sprintf("/q/%02d", i), nil))
				return err
			}))
		}
		e.pollUntil(e.timeout, "one commit is applied", func() bool { return b.count("/q") > 0 })
		time.Sleep(200 * time.Millisecond)
		a.cut()
		time.Sleep(20 * time.Millisecond)
		a.heal()
		// A commit that waited unsent behind the others is sent after the cut, and its
		// outcome is known.
		for i, c := range commits {
			err := e.awaitOutcome(a.expiryLimit(), c, "commit")
			if err == nil {
				e.wantEqual(b.exists(fmt.Sprintf("/q/%02d", i)), true, "node there")
			} else {
				e.wantError(err, coord.ErrUnknown, "commit")
			}
		}
	}},
	{name: "HeldReplyThatComesIsAnAnswer", hooks: []string{"HoldReplies"}, run: func(e *env) {
		p := e.openPeer()
		p.makeDir("/q")
		p.holdReplies()
		commit := runAsync(func() error { _, err := p.Commit(e.ctx, coord.Create("/q/a", nil)); return err })
		time.Sleep(50 * time.Millisecond)
		p.heal()
		if err := e.awaitOutcome(e.timeout, commit, "commit"); err != nil {
			e.wantError(err, coord.ErrUnknown, "commit")
		}
		e.wantEqual(p.exists("/q/a"), true, "node there")
	}},
	{name: "ReadsAreSentAgain", hooks: []string{"HoldReplies", "Cut"}, run: func(e *env) {
		p := e.openPeer()
		p.commitOne(coord.Create("/q/a", []byte("v")))
		p.holdReplies()
		get := runAsync(func() error {
			n, err := p.Get(e.ctx, "/q/a")
			if err == nil && string(n.Value) != "v" {
				err = fmt.Errorf("value %q", n.Value)
			}
			return err
		})
		list := runAsync(func() error {
			l, err := p.List(e.ctx, "/q", coord.ListOptions{Values: true, Fresh: true})
			if err == nil && joinNames(l) != "a" {
				err = fmt.Errorf("listed %q", joinNames(l))
			}
			return err
		})
		count := runAsync(func() error { _, err := p.Count(e.ctx, "/q"); return err })
		time.Sleep(100 * time.Millisecond)
		p.cut()
		time.Sleep(20 * time.Millisecond)
		p.heal()
		for name, call := range map[string]<-chan outcome{"get": get, "list": list, "count": count} {
			if err := e.awaitOutcome(p.expiryLimit(), call, name); err != nil {
				e.Errorf("%s: %v", name, err)
			}
		}
	}},
	{name: "OutcomesAreTrueUnderCuts", hooks: []string{"Cut"}, run: func(e *env) {
		// nil means applied once, ErrUnknown once or never, every other error never.
		a, b := e.openPeer(), e.openPeer()
		stop := make(chan struct{})
		cutter := runAsync(func() error {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return nil
				case <-time.After(time.Duration(7+i%13) * time.Millisecond):
				}
				a.cut()
				time.Sleep(time.Duration(1+i%5) * time.Millisecond)
				a.heal()
			}
		})
		outcomes := make(chan outcome, 200)
		const workers, rounds = 4, 15
		for w := range workers {
			go func() {
				for i := range rounds {
					value := fmt.Sprintf("%d-%d;", w, i)
					_, err := a.Commit(e.ctx, coord.CreateSequential("/q/n-", []byte(value)))
					if err == nil {
						outcomes <- outcome{}
					} else {
						outcomes <- outcome{err: fmt.Errorf("%s: %w", value, err)}
					}
				}
			}()
		}
		counts := map[string]int{}
		var ends []outcome
		for range workers * rounds {
			select {
			case o := <-outcomes:
				ends = append(ends, o)
			case <-time.After(caseTimeout / 2):
				e.Fatalf("%d commits were answered, then no more", len(ends))
			}
		}
		close(stop)
		<-cutter
		for _, n := range b.list("/q", coord.ListOptions{Values: true, Fresh: true}).Nodes {
			counts[string(n.Value)]++
		}
		applied, unknown := 0, 0
		for _, o := range ends {
			switch {
			case o.err == nil:
				applied++
			case errors.Is(o.err, coord.ErrUnknown):
				unknown++
			default:
				value := o.err.Error()[:strings.IndexByte(o.err.Error(), ';')+1]
				if counts[value] != 0 {
					e.Errorf("applied, though %v", o.err)
				}
			}
		}
		for value, n := range counts {
			if n > 1 {
				e.Errorf("%s was applied %d times", value, n)
			}
		}
		if n := len(counts); n < applied || n > applied+unknown {
			e.Errorf("%d nodes, of %d applied and %d unknown", n, applied, unknown)
		}
	}},
}
