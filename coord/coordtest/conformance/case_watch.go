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

var watchCases = []testCase{
	{name: "WatchSignalsCreateAndDelete", run: func(e *env) {
		for _, own := range []bool{true, false} {
			a := e.openPeer()
			b := a
			if !own {
				b = e.openPeer()
			}
			dir := fmt.Sprintf("/q%v", own)
			ch := a.watch(dir)
			r := b.commitOne(coord.Create(dir+"/a", nil))
			e.awaitSignal(ch, "created")
			b.commitOne(coord.Delete(dir+"/a", r.Fence))
			e.awaitSignal(ch, "deleted")
			b.commitOne(coord.CreateSequential(dir+"/s-", nil))
			e.awaitSignal(ch, "created sequential")
			b.commitOne(coord.CreateEphemeral(dir+"/e", nil))
			e.awaitSignal(ch, "created ephemeral")
		}
	}},
	{name: "WatchSignalsOwnCommitsBeforeTheyReturn", run: func(e *env) {
		p := e.openPeer()
		p.makeDir("/q/entries")
		p.makeDir("/q/taken")
		ch := p.watch("/q/entries", "/q/taken")
		signals := func(what string, ops ...coord.Op) []coord.Result {
			time.Sleep(20 * time.Millisecond) // for signals that come twice
			discardSignal(ch)
			r := p.commit(ops...)
			if e.hasLateSignals {
				e.awaitSignal(ch, what)
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
		p := e.openPeer()
		ch := p.watch("/q")
		for range 10 {
			time.Sleep(20 * time.Millisecond)
			discardSignal(ch)
			op := coord.Create("/q/a", nil)
			op.SignalLater = true
			f := p.commitOne(op).Fence
			e.awaitSignal(ch, "created")
			time.Sleep(20 * time.Millisecond)
			discardSignal(ch)
			op = coord.Delete("/q/a", f)
			op.SignalLater = true
			p.commitOne(op)
			e.awaitSignal(ch, "deleted")
		}
	}},
	{name: "WatchSignalsEndOfAnothersSession", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		b.commitOne(coord.CreateEphemeral("/q/e", nil))
		ch := a.watch("/q")
		discardSignal(ch)
		if err := b.client.Close(); err != nil {
			e.Fatal(err)
		}
		e.pollUntil(10*time.Second, "the lock is gone for one who looks after each signal", func() bool {
			e.awaitSignal(ch, "session closed")
			return joinNames(a.list("/q", coord.ListOptions{})) == ""
		})
	}},
	{name: "WatchOfAFullDirectory", run: func(e *env) {
		p := e.openFilled(5)
		q := e.openPeer()
		ch := q.watch("/q")
		p.commitOne(coord.Create("/q/a", nil))
		e.awaitSignal(ch, "created")
	}},
	{name: "WatchOfAMissingDirectory", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		ch := a.watch("/q/not/there/yet")
		b.commitOne(coord.Create("/q/not/there/yet/a", nil))
		listUntil(a, ch, "/q/not/there/yet", "a")
	}},
	{name: "WatchOfADirectoryThatGoesAndComes", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		ch := a.watch("/q")
		for i := range 5 {
			r := b.commitOne(coord.Create("/q/a", nil))
			e.awaitSignal(ch, fmt.Sprintf("created, round %d", i))
			b.commitOne(coord.Delete("/q/a", r.Fence))
			e.awaitSignal(ch, fmt.Sprintf("deleted, round %d", i))
		}
	}},
	{name: "WatchOfSeveralDirectories", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		ch := a.watch("/q/entries", "/q/taken", "/q/missing")
		for _, path := range []string{"/q/entries/a", "/q/taken/a", "/q/missing/a", "/q/entries/b"} {
			discardSignal(ch)
			b.commitOne(coord.Create(path, nil))
			e.awaitSignal(ch, path)
		}
	}},
	{name: "WatchOfTheRoot", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		ch := a.watch("/")
		discardSignal(ch)
		b.commitOne(coord.Create("/top", nil))
		e.awaitSignal(ch, "created")
	}},
	{name: "EachChangeAfterASignalSignalsAgain", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		ch := a.watch("/q")
		for i := range 30 {
			r := b.commitOne(coord.CreateSequential("/q/n-", nil))
			e.awaitSignal(ch, fmt.Sprintf("round %d", i))
			// One signal may stand for several changes, and signals may come twice. After
			// the last signal the listing must show the last change.
			for !strings.Contains(joinNames(a.list("/q", coord.ListOptions{})), r.Path[len("/q/"):]) {
				e.awaitSignal(ch, fmt.Sprintf("round %d, not yet listed", i))
			}
		}
	}},
	{name: "ReadsAfterASignalSeeTheChange", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		b.commitOne(coord.Create("/q/0", nil))
		ch := a.watch("/q")
		for i := 1; i <= 5; i++ {
			awaitQuiet(ch)
			path := fmt.Sprintf("/q/%d", i)
			b.commitOne(coord.Create(path, nil))
			e.awaitSignal(ch, "created")
			e.wantEqual(len(a.list("/q", coord.ListOptions{}).Nodes), i+1, "nodes listed after the signal")
			e.wantEqual(a.exists(path), true, "node there after the signal")
		}
	}},
	{name: "SignalsCoalesce", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		ch := a.watch("/q")
		for range 20 {
			b.commitOne(coord.CreateSequential("/q/n-", nil))
		}
		e.wantEqual(cap(ch), 1, "room of the channel")
		e.pollUntil(10*time.Second, "all twenty are listed after a signal", func() bool {
			e.awaitSignal(ch, "twenty created")
			return len(a.list("/q", coord.ListOptions{}).Nodes) == 20
		})
	}},
	{name: "TwoWatchesOfOneDirectory", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		first, err := a.Watch(ctx, "/q")
		if err != nil {
			e.Fatal(err)
		}
		second := a.watch("/q")
		b.commitOne(coord.Create("/q/a", nil))
		e.awaitSignal(first, "created")
		e.awaitSignal(second, "created")
		cancel()
		b.commitOne(coord.Create("/q/b", nil))
		e.awaitSignal(second, "created after the first watch ended")
		third := a.watch("/q")
		b.commitOne(coord.Create("/q/c", nil))
		e.awaitSignal(second, "created after a third one began")
		e.awaitSignal(third, "created")
	}},
	{name: "WatchesOfEightClients", run: func(e *env) {
		var chs []<-chan struct{}
		for range 8 {
			chs = append(chs, e.openPeer().watch("/q"))
		}
		p := e.openPeer()
		for range 3 {
			p.commitOne(coord.CreateSequential("/q/n-", nil))
			for i, ch := range chs {
				e.awaitSignal(ch, fmt.Sprintf("client %d", i))
			}
		}
	}},
	{name: "EndedWatchIsSilentAndOpen", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		ctx, cancel := context.WithCancel(e.ctx)
		ch, err := a.Watch(ctx, "/q")
		if err != nil {
			e.Fatal(err)
		}
		cancel()
		time.Sleep(100 * time.Millisecond)
		b.commitOne(coord.Create("/q/a", nil))
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
		a, b := e.openPeer(), e.openPeer()
		for i := range 10 {
			ctx, cancel := context.WithCancel(e.ctx)
			ch, err := a.Watch(ctx, "/q")
			if err != nil {
				e.Fatal(err)
			}
			b.commitOne(coord.CreateSequential("/q/n-", nil))
			e.awaitSignal(ch, fmt.Sprintf("round %d", i))
			cancel()
		}
	}},
	{name: "NothingIsMissedAmongWriters", run: func(e *env) {
		// Subscribe, read, wait: while four clients create and delete, a reader that lists
		// only after signals finds the final state.
		a := e.openPeer()
		ch := a.watch("/q")
		var wg sync.WaitGroup
		for w := range 4 {
			b := e.openPeer()
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
				e.Fatalf("no signal, and %d nodes listed: %s", len(l.Nodes), joinNames(l))
			}
		}
	}},
	{name: "NothingIsMissedBetweenWatchAndList", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		for i := range 40 {
			dir := fmt.Sprintf("/q/%d", i)
			created := runAsync(func() error {
				_, err := b.Commit(e.ctx, coord.Create(dir+"/a", nil))
				return err
			})
			ctx, cancel := context.WithCancel(e.ctx)
			ch, err := a.Watch(ctx, dir)
			if err != nil {
				e.Fatal(err)
			}
			listUntil(a, ch, dir, "a")
			cancel()
			if err := e.awaitOutcome(10*time.Second, created, "create"); err != nil {
				e.Fatal(err)
			}
		}
	}},
	{name: "WatchSignalsEndOfItsOwnSession", hooks: []string{"Expire"}, run: func(e *env) {
		p := e.openPeer()
		ch := p.watch("/q")
		discardSignal(ch)
		p.expire()
		e.awaitSignal(ch, "session expired")
		p.reopenSession()
		p.commitOne(coord.Create("/q/a", nil))
	}},
	{name: "WatchSignalsAfterACut", hooks: []string{"Cut"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := b.commitOne(coord.Create("/q/a", nil)).Fence
		ch := a.watch("/q")
		for i := range 3 {
			a.cut()
			time.Sleep(50 * time.Millisecond)
			discardSignal(ch)
			r := b.commit(coord.Delete("/q/a", f), coord.Create(fmt.Sprintf("/q/b%d", i), nil))
			a.heal()
			listUntil(a, ch, "/q", fmt.Sprintf("b%d", i))
			f = b.commit(coord.Delete(r[1].Path, r[1].Fence), coord.Create("/q/a", nil))[1].Fence
			listUntil(a, ch, "/q", "a")
		}
	}},
	{name: "WatchBegunWhileCut", hooks: []string{"Cut"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		a.cut()
		e.waitForDisconnect()
		var ch <-chan struct{}
		watched := runAsync(func() (err error) {
			ch, err = a.Watch(e.ctx, "/q")
			return err
		})
		b.commitOne(coord.Create("/q/a", nil))
		a.heal()
		if err := e.awaitOutcome(e.timeout, watched, "watch"); err != nil {
			e.Fatal(err)
		}
		listUntil(a, ch, "/q", "a")
		b.commitOne(coord.Create("/q/b", nil))
		listUntil(a, ch, "/q", "a b")
	}},
	{name: "EndedWatchesLeaveNoGoroutine", runsAlone: true, run: func(e *env) {
		p := e.openPeer()
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
		e.pollUntil(10*time.Second, "no more goroutines than before 300 watches", func() bool { return runtime.NumGoroutine() <= before+3 })
	}},
}

// listUntil lists dir now and after each signal, until it holds the names.
func listUntil(p *peer, ch <-chan struct{}, dir, want string) {
	p.Helper()
	for {
		got := joinNames(p.list(dir, coord.ListOptions{}))
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

// awaitQuiet waits until no signal comes any more: a signal may come without a change.
func awaitQuiet(ch <-chan struct{}) {
	for {
		select {
		case <-ch:
		case <-time.After(250 * time.Millisecond):
			return
		}
	}
}
