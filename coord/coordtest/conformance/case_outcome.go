package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
)

var outcomeCases = []example{
	{name: "HeldReplyIsUnknown", needs: []string{"HoldReplies"}, run: func(e *env) {
		a, b := e.open(), e.open()
		b.made("/q")
		a.holdReplies()
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		commit := async(func() error { _, err := a.Commit(ctx, coord.Create("/q/a", nil)); return err })
		e.until(e.timeout, "the commit is applied", func() bool { return b.there("/q/a") })
		cancel()
		err := e.within(time.Second, commit, "commit")
		e.is(err, coord.ErrUnknown, "commit")
		e.is(err, context.Canceled, "commit")
		a.heal()
		e.equal(b.there("/q/a"), true, "node there")
	}},
	{name: "HeldReplyEndsWithTheSession", needs: []string{"HoldReplies"}, run: func(e *env) {
		// It was sent: that the session is over does not make it "not applied".
		a, b := e.open(), e.open()
		b.made("/q")
		a.holdReplies()
		commit := async(func() error { _, err := a.Commit(e.ctx, coord.Create("/q/a", nil)); return err })
		e.until(e.timeout, "the commit is applied", func() bool { return b.there("/q/a") })
		err := e.within(a.overdue(), commit, "commit")
		e.is(err, coord.ErrUnknown, "commit")
		<-a.Done()
		a.heal()
	}},
	{name: "LostReplyIsUnknownAndNotSentAgain", needs: []string{"HoldReplies", "Cut"}, run: func(e *env) {
		a, b := e.open(), e.open()
		b.made("/q")
		a.holdReplies()
		// Not a sequential node: a service may have to be asked for its name first.
		// Sent again, the commit would be refused.
		commit := async(func() error { _, err := a.Commit(e.ctx, coord.Create("/q/n", nil)); return err })
		e.until(e.timeout, "the commit is applied", func() bool { return b.count("/q") == 1 })
		a.cut()
		time.Sleep(20 * time.Millisecond)
		a.heal()
		e.is(e.within(a.overdue(), commit, "commit"), coord.ErrUnknown, "commit")
		a.do(coord.Create("/q/a", nil))
		e.equal(b.count("/q"), 2, "count: the commit was applied once")
	}},
	{name: "LostReplyOfARefusalIsUnknown", needs: []string{"HoldReplies", "Cut"}, run: func(e *env) {
		a, b := e.open(), e.open()
		b.do(coord.Create("/q/a", []byte("b")))
		a.holdReplies()
		commit := async(func() error { _, err := a.Commit(e.ctx, coord.Create("/q/a", []byte("a"))); return err })
		time.Sleep(200 * time.Millisecond)
		a.cut()
		time.Sleep(20 * time.Millisecond)
		a.heal()
		e.is(e.within(a.overdue(), commit, "commit"), coord.ErrUnknown, "commit")
		e.equal(string(b.get("/q/a").Value), "b", "value")
	}},
	{name: "LostRequestIsUnknownAndNotApplied", needs: []string{"HoldRequests", "Cut"}, run: func(e *env) {
		a, b := e.open(), e.open()
		a.made("/q")
		a.holdRequests()
		commit := async(func() error { _, err := a.Commit(e.ctx, coord.Create("/q/a", nil)); return err })
		time.Sleep(200 * time.Millisecond)
		a.cut()
		time.Sleep(20 * time.Millisecond)
		a.heal()
		e.is(e.within(a.overdue(), commit, "commit"), coord.ErrUnknown, "commit")
		a.do(coord.Create("/q/b", nil))
		time.Sleep(100 * time.Millisecond)
		e.equal(b.fresh("/q"), "b", "listed")
	}},
	{name: "HeldRequestIsUnknown", needs: []string{"HoldRequests"}, run: func(e *env) {
		p := e.open()
		p.made("/q")
		p.holdRequests()
		ctx, cancel := context.WithTimeout(e.ctx, 200*time.Millisecond)
		defer cancel()
		_, err := p.Commit(ctx, coord.Create("/q/a", nil))
		e.is(err, coord.ErrUnknown, "commit")
		e.is(err, context.DeadlineExceeded, "commit")
		p.heal()
		p.do(coord.Create("/q/b", nil))
	}},
	{name: "ManyHeldRepliesAreAllUnknown", needs: []string{"HoldReplies", "Cut"}, run: func(e *env) {
		a, b := e.open(), e.open()
		b.made("/q")
		a.holdReplies()
		var commits []<-chan outcome
		for i := range 20 {
			commits = append(commits, async(func() error {
				_, err := a.Commit(e.ctx, coord.Create(fmt.Sprintf("/q/%02d", i), nil))
				return err
			}))
		}
		e.until(e.timeout, "one commit is applied", func() bool { return b.count("/q") > 0 })
		time.Sleep(200 * time.Millisecond)
		a.cut()
		time.Sleep(20 * time.Millisecond)
		a.heal()
		// One of them may have waited behind the others, unsent: then it was sent
		// afterwards, and knows.
		for i, c := range commits {
			err := e.within(a.overdue(), c, "commit")
			if err == nil {
				e.equal(b.there(fmt.Sprintf("/q/%02d", i)), true, "node there")
			} else {
				e.is(err, coord.ErrUnknown, "commit")
			}
		}
	}},
	{name: "HeldReplyThatComesIsAnAnswer", needs: []string{"HoldReplies"}, run: func(e *env) {
		p := e.open()
		p.made("/q")
		p.holdReplies()
		commit := async(func() error { _, err := p.Commit(e.ctx, coord.Create("/q/a", nil)); return err })
		time.Sleep(50 * time.Millisecond)
		p.heal()
		if err := e.within(e.timeout, commit, "commit"); err != nil {
			e.is(err, coord.ErrUnknown, "commit")
		}
		e.equal(p.there("/q/a"), true, "node there")
	}},
	{name: "ReadsAreSentAgain", needs: []string{"HoldReplies", "Cut"}, run: func(e *env) {
		p := e.open()
		p.do(coord.Create("/q/a", []byte("v")))
		p.holdReplies()
		get := async(func() error {
			n, err := p.Get(e.ctx, "/q/a")
			if err == nil && string(n.Value) != "v" {
				err = fmt.Errorf("value %q", n.Value)
			}
			return err
		})
		list := async(func() error {
			l, err := p.List(e.ctx, "/q", coord.ListOptions{Values: true, Fresh: true})
			if err == nil && names(l) != "a" {
				err = fmt.Errorf("listed %q", names(l))
			}
			return err
		})
		count := async(func() error { _, err := p.Count(e.ctx, "/q"); return err })
		time.Sleep(100 * time.Millisecond)
		p.cut()
		time.Sleep(20 * time.Millisecond)
		p.heal()
		for name, call := range map[string]<-chan outcome{"get": get, "list": list, "count": count} {
			if err := e.within(p.overdue(), call, name); err != nil {
				e.Errorf("%s: %v", name, err)
			}
		}
	}},
	{name: "OutcomesAreTrueUnderCuts", needs: []string{"Cut"}, run: func(e *env) {
		// nil: applied once. ErrUnknown: once or never. Anything else: never.
		a, b := e.open(), e.open()
		stop := make(chan struct{})
		cutter := async(func() error {
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
			case <-time.After(patience / 2):
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
