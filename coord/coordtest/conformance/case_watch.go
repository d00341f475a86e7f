package conformance

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
)

var watchCases = []example{
	{name: "WatchSignalsCreateAndDelete", run: func(e *env) {
		for _, own := range []bool{true, false} {
			a := e.open()
			b := a
			if !own {
				b = e.open()
			}
			dir := fmt.Sprintf("/q%v", own)
			ch := a.watch(dir)
			r := b.do(coord.Create(dir+"/a", nil))
			e.signalled(ch, "created")
			b.do(coord.Delete(dir+"/a", r.Fence))
			e.signalled(ch, "deleted")
			b.do(coord.CreateSequential(dir+"/s-", nil))
			e.signalled(ch, "created sequential")
			b.do(coord.CreateEphemeral(dir+"/e", nil))
			e.signalled(ch, "created ephemeral")
		}
	}},
	{name: "WatchSignalsOwnCommitsBeforeTheyReturn", run: func(e *env) {
		p := e.open()
		p.made("/q/entries")
		p.made("/q/taken")
		ch := p.watch("/q/entries", "/q/taken")
		signals := func(what string, ops ...coord.Op) []coord.Result {
			time.Sleep(20 * time.Millisecond) // what was signalled twice is forgotten
			drain(ch)
			r := p.commit(ops...)
			if e.late {
				e.signalled(ch, what)
				return r
			}
			select {
			case <-ch:
			default:
				e.Errorf("no signal when the commit returned: %s", what)
			}
			return r
		}
		for range 10 {
			entry := signals("create", coord.Create("/q/entries/a", nil))[0]
			lock := signals("create ephemeral", coord.CreateEphemeral("/q/taken/a", nil))[0]
			free := signals("delete", coord.Check("/q/entries/a", entry.Fence), coord.Delete("/q/taken/a", lock.Fence))
			signals("delete", coord.Delete("/q/entries/a", free[0].Fence))
		}
	}},
	{name: "WatchSignalsOwnCommitsThatMaySignalLater", run: func(e *env) {
		p := e.open()
		ch := p.watch("/q")
		for range 10 {
			time.Sleep(20 * time.Millisecond)
			drain(ch)
			op := coord.Create("/q/a", nil)
			op.SignalLater = true
			f := p.do(op).Fence
			e.signalled(ch, "created")
			time.Sleep(20 * time.Millisecond)
			drain(ch)
			op = coord.Delete("/q/a", f)
			op.SignalLater = true
			p.do(op)
			e.signalled(ch, "deleted")
		}
	}},
	{name: "WatchSignalsEndOfAnothersSession", run: func(e *env) {
		a, b := e.open(), e.open()
		b.do(coord.CreateEphemeral("/q/e", nil))
		ch := a.watch("/q")
		drain(ch)
		if err := b.c.Close(); err != nil {
			e.Fatal(err)
		}
		e.until(10*time.Second, "the lock is gone for one who looks after each signal", func() bool {
			e.signalled(ch, "session closed")
			return names(a.list("/q", coord.ListOptions{})) == ""
		})
	}},
	{name: "WatchOfAFullDirectory", run: func(e *env) {
		p := e.filled(5)
		q := e.open()
		ch := q.watch("/q")
		p.do(coord.Create("/q/a", nil))
		e.signalled(ch, "created")
	}},
	{name: "WatchOfAMissingDirectory", run: func(e *env) {
		a, b := e.open(), e.open()
		ch := a.watch("/q/not/there/yet")
		b.do(coord.Create("/q/not/there/yet/a", nil))
		lookUntil(a, ch, "/q/not/there/yet", "a")
	}},
	{name: "WatchOfADirectoryThatGoesAndComes", run: func(e *env) {
		a, b := e.open(), e.open()
		ch := a.watch("/q")
		for i := range 5 {
			r := b.do(coord.Create("/q/a", nil))
			e.signalled(ch, fmt.Sprintf("created, round %d", i))
			b.do(coord.Delete("/q/a", r.Fence))
			e.signalled(ch, fmt.Sprintf("deleted, round %d", i))
		}
	}},
	{name: "WatchOfSeveralDirectories", run: func(e *env) {
		a, b := e.open(), e.open()
		ch := a.watch("/q/entries", "/q/taken", "/q/missing")
		for _, path := range []string{"/q/entries/a", "/q/taken/a", "/q/missing/a", "/q/entries/b"} {
			drain(ch)
			b.do(coord.Create(path, nil))
			e.signalled(ch, path)
		}
	}},
	{name: "WatchOfTheRoot", run: func(e *env) {
		a, b := e.open(), e.open()
		ch := a.watch("/")
		drain(ch)
		b.do(coord.Create("/top", nil))
		e.signalled(ch, "created")
	}},
	{name: "EachChangeAfterASignalSignalsAgain", run: func(e *env) {
		a, b := e.open(), e.open()
		ch := a.watch("/q")
		for i := range 30 {
			r := b.do(coord.CreateSequential("/q/n-", nil))
			e.signalled(ch, fmt.Sprintf("round %d", i))
			// Signals may share and may come twice: what counts is that the last
			// one shows the last change.
			for !strings.Contains(names(a.list("/q", coord.ListOptions{})), r.Path[len("/q/"):]) {
				e.signalled(ch, fmt.Sprintf("round %d, not yet listed", i))
			}
		}
	}},
	{name: "ReadsAfterASignalSeeTheChange", run: func(e *env) {
		a, b := e.open(), e.open()
		b.do(coord.Create("/q/0", nil))
		ch := a.watch("/q")
		for i := 1; i <= 5; i++ {
			quiet(ch)
			path := fmt.Sprintf("/q/%d", i)
			b.do(coord.Create(path, nil))
			e.signalled(ch, "created")
			e.equal(len(a.list("/q", coord.ListOptions{}).Nodes), i+1, "nodes listed after the signal")
			e.equal(a.there(path), true, "node there after the signal")
		}
	}},
	{name: "SignalsCoalesce", run: func(e *env) {
		a, b := e.open(), e.open()
		ch := a.watch("/q")
		for range 20 {
			b.do(coord.CreateSequential("/q/n-", nil))
		}
		e.equal(cap(ch), 1, "room of the channel")
		e.until(10*time.Second, "all twenty are listed after a signal", func() bool {
			e.signalled(ch, "twenty created")
			return len(a.list("/q", coord.ListOptions{}).Nodes) == 20
		})
	}},
	{name: "TwoWatchesOfOneDirectory", run: func(e *env) {
		a, b := e.open(), e.open()
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		first, err := a.Watch(ctx, "/q")
		if err != nil {
			e.Fatal(err)
		}
		second := a.watch("/q")
		b.do(coord.Create("/q/a", nil))
		e.signalled(first, "created")
		e.signalled(second, "created")
		cancel()
		b.do(coord.Create("/q/b", nil))
		e.signalled(second, "created after the first watch ended")
		third := a.watch("/q")
		b.do(coord.Create("/q/c", nil))
		e.signalled(second, "created after a third one began")
		e.signalled(third, "created")
	}},
	{name: "WatchesOfEightClients", run: func(e *env) {
		var chs []<-chan struct{}
		for range 8 {
			chs = append(chs, e.open().watch("/q"))
		}
		p := e.open()
		for range 3 {
			p.do(coord.CreateSequential("/q/n-", nil))
			for i, ch := range chs {
				e.signalled(ch, fmt.Sprintf("client %d", i))
			}
		}
	}},
	{name: "EndedWatchIsSilentAndOpen", run: func(e *env) {
		a, b := e.open(), e.open()
		ctx, cancel := context.WithCancel(e.ctx)
		ch, err := a.Watch(ctx, "/q")
		if err != nil {
			e.Fatal(err)
		}
		cancel()
		time.Sleep(100 * time.Millisecond)
		b.do(coord.Create("/q/a", nil))
		time.Sleep(100 * time.Millisecond)
		for range 2 {
			select {
			case _, ok := <-ch:
				if !ok {
					e.Error("the channel was closed")
				}
			default:
			}
		}
	}},
	{name: "WatchAgainAfterTheLastEnded", run: func(e *env) {
		a, b := e.open(), e.open()
		for i := range 10 {
			ctx, cancel := context.WithCancel(e.ctx)
			ch, err := a.Watch(ctx, "/q")
			if err != nil {
				e.Fatal(err)
			}
			b.do(coord.CreateSequential("/q/n-", nil))
			e.signalled(ch, fmt.Sprintf("round %d", i))
			cancel()
		}
	}},
	{name: "NothingIsMissedAmongWriters", run: func(e *env) {
		// Subscribe, read, wait: with four who create and delete at once, one who
		// looks only when told to sees the end.
		a := e.open()
		ch := a.watch("/q")
		var wg sync.WaitGroup
		for w := range 4 {
			b := e.open()
			wg.Go(func() {
				for i := range 40 {
					path := fmt.Sprintf("/q/w%d-%02d", w, i)
					r, err := b.Commit(e.ctx, coord.Create(path, nil))
					if err == nil && i%2 == 0 {
						_, err = b.Commit(e.ctx, coord.Delete(path, r[0].Fence))
					}
					if err != nil {
						e.Errorf("%s: %v", path, err)
						return
					}
				}
			})
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		defer func() { <-done }()
		for {
			l := a.list("/q", coord.ListOptions{})
			odd := 0
			for _, n := range l.Nodes {
				if (n.Path[len(n.Path)-1]-'0')%2 == 1 {
					odd++
				}
			}
			if odd == 80 && len(l.Nodes) == 80 {
				return
			}
			select {
			case <-ch:
			case <-time.After(15 * time.Second):
				e.Fatalf("no signal, and %d nodes listed: %s", len(l.Nodes), names(l))
			}
		}
	}},
	{name: "NothingIsMissedBetweenWatchAndList", run: func(e *env) {
		a, b := e.open(), e.open()
		for i := range 40 {
			dir := fmt.Sprintf("/q/%d", i)
			created := async(func() error {
				_, err := b.Commit(e.ctx, coord.Create(dir+"/a", nil))
				return err
			})
			ctx, cancel := context.WithCancel(e.ctx)
			ch, err := a.Watch(ctx, dir)
			if err != nil {
				e.Fatal(err)
			}
			lookUntil(a, ch, dir, "a")
			cancel()
			if err := e.within(10*time.Second, created, "create"); err != nil {
				e.Fatal(err)
			}
		}
	}},
	{name: "WatchSignalsEndOfItsOwnSession", needs: []string{"Expire"}, run: func(e *env) {
		p := e.open()
		ch := p.watch("/q")
		drain(ch)
		p.expire()
		e.signalled(ch, "session expired")
		p.reopen()
		p.do(coord.Create("/q/a", nil))
	}},
	{name: "WatchSignalsAfterACut", needs: []string{"Cut"}, run: func(e *env) {
		a, b := e.open(), e.open()
		f := b.do(coord.Create("/q/a", nil)).Fence
		ch := a.watch("/q")
		for i := range 3 {
			a.cut()
			time.Sleep(50 * time.Millisecond)
			drain(ch)
			r := b.commit(coord.Delete("/q/a", f), coord.Create(fmt.Sprintf("/q/b%d", i), nil))
			a.heal()
			lookUntil(a, ch, "/q", fmt.Sprintf("b%d", i))
			f = b.commit(coord.Delete(r[1].Path, r[1].Fence), coord.Create("/q/a", nil))[1].Fence
			lookUntil(a, ch, "/q", "a")
		}
	}},
	{name: "WatchBegunWhileCut", needs: []string{"Cut"}, run: func(e *env) {
		a, b := e.open(), e.open()
		a.cut()
		e.noticed()
		var ch <-chan struct{}
		watched := async(func() (err error) {
			ch, err = a.Watch(e.ctx, "/q")
			return err
		})
		b.do(coord.Create("/q/a", nil))
		a.heal()
		if err := e.within(e.timeout, watched, "watch"); err != nil {
			e.Fatal(err)
		}
		lookUntil(a, ch, "/q", "a")
		b.do(coord.Create("/q/b", nil))
		lookUntil(a, ch, "/q", "a b")
	}},
	{name: "EndedWatchesLeaveNoGoroutine", alone: true, run: func(e *env) {
		p := e.open()
		watchAndEnd := func(n int) {
			for i := range n {
				ctx, cancel := context.WithCancel(e.ctx)
				if _, err := p.Watch(ctx, fmt.Sprintf("/q/%d", i%20)); err != nil {
					e.Fatal(err)
				}
				cancel()
			}
		}
		watchAndEnd(50)
		time.Sleep(300 * time.Millisecond)
		before := runtime.NumGoroutine()
		watchAndEnd(300)
		e.until(10*time.Second, "no more goroutines than before 300 watches", func() bool { return runtime.NumGoroutine() <= before+3 })
	}},
}

// lookUntil lists dir now and after each signal, until it holds the names.
func lookUntil(p *peer, ch <-chan struct{}, dir, want string) {
	p.Helper()
	for {
		got := names(p.list(dir, coord.ListOptions{}))
		if got == want {
			return
		}
		select {
		case <-ch:
		case <-time.After(10 * time.Second):
			p.Fatalf("no signal, and listed %q instead of %q", got, want)
		}
	}
}

// quiet waits until no signal is on its way any more: those may come for nothing.
func quiet(ch <-chan struct{}) {
	for {
		select {
		case <-ch:
		case <-time.After(250 * time.Millisecond):
			return
		}
	}
}
