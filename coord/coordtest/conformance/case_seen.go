package conformance

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
)

var seenCases = []testCase{
	{name: "SeenGoesWithNeitherFreshNorBorn", run: func(e *env) {
		p := e.openPeer()
		for _, o := range []coord.ListOptions{{Seen: true, Fresh: true}, {Seen: true, Born: 1}} {
			_, err := p.List(e.ctx, "/q", o)
			e.wantError(err, coord.ErrInvalid, fmt.Sprintf("%+v", o))
		}
	}},
	{name: "SeenHoldsWhatWasThereBeforeTheWatch", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		for i := range 20 {
			dir := fmt.Sprintf("/q/%02d", i)
			for j := range i {
				b.commitOne(coord.Create(fmt.Sprintf("%s/%02d", dir, j), nil))
			}
			a.watch(dir)
			e.wantEqual(len(a.listSeen(dir).Nodes), i, "nodes seen after the watch began")
		}
	}},
	{name: "SeenIsSeenOrSignalledWhereAWatchFollowsAnother", run: func(e *env) {
		// If the watch before has not seen a node yet, the next watch signals it.
		a, b := e.openPeer(), e.openPeer()
		for i := range 20 {
			b.commitOne(coord.Create(fmt.Sprintf("/q/%02d", i), nil))
			signal, stop := a.watchUntilStopped("/q")
			a.awaitSignals(signal, "all are seen", func() bool { return len(a.listSeen("/q").Nodes) == i+1 })
			stop()
		}
	}},
	{name: "SeenHoldsWhatASignalAnnounced", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		signal := a.watch("/q")
		for i := range 30 {
			name := fmt.Sprintf("%02d", i)
			b.commitOne(coord.Create("/q/"+name, nil))
			a.awaitSignals(signal, name+" is seen", func() bool { return a.hasSeen("/q", name) })
		}
	}},
	{name: "SeenMissesWhatASignalSaidIsGone", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		var fences []coord.Fence
		for i := range 20 {
			fences = append(fences, b.commitOne(coord.Create(fmt.Sprintf("/q/%02d", i), nil)).Fence)
		}
		signal := a.watch("/q")
		e.wantEqual(len(a.listSeen("/q").Nodes), 20, "nodes seen")
		for i, f := range fences {
			name := fmt.Sprintf("%02d", i)
			b.commitOne(coord.Delete("/q/"+name, f))
			a.awaitSignals(signal, name+" is gone", func() bool { return !a.hasSeen("/q", name) })
		}
	}},
	{name: "SeenShowsOwnChangesWithTheirSignal", run: func(e *env) {
		p := e.openPeer()
		signal := p.watch("/q/entries", "/q/taken")
		f := p.commitOne(coord.Create("/q/entries/1", nil)).Fence
		p.awaitSignals(signal, "the entry is seen", func() bool { return p.hasSeen("/q/entries", "1") })
		p.commitOne(coord.CreateEphemeral("/q/taken/1", nil))
		p.awaitSignals(signal, "the lock is seen", func() bool { return p.hasSeen("/q/taken", "1") })
		p.commitOne(coord.Delete("/q/entries/1", f))
		p.awaitSignals(signal, "the entry is gone", func() bool { return !p.hasSeen("/q/entries", "1") })
	}},
	{name: "SeenHoldsOwnAnsweredCommits", run: func(e *env) {
		// No signal is awaited, and another client changes the same directories.
		p, other := e.openPeer(), e.openPeer()
		p.watch("/q/entries", "/q/taken")
		stop := e.startChurn(other, "/q/entries", "/q/taken")
		defer stop()
		for i := range 60 {
			name := fmt.Sprintf("n%02d", i)
			r := p.commit(coord.Create("/q/entries/"+name, nil), coord.CreateEphemeral("/q/taken/"+name, nil))
			e.wantEqual(p.hasSeen("/q/entries", name), true, name+" is seen")
			e.wantEqual(p.hasSeen("/q/taken", name), true, "the lock of "+name+" is seen")
			if i%2 == 0 {
				free := coord.Delete("/q/taken/"+name, r[1].Fence)
				free.SignalLater = i%4 == 0
				p.commit(coord.Touch("/q/entries/"+name, nil, r[0].Fence), free)
				e.wantEqual(p.hasSeen("/q/taken", name), false, "the lock of "+name+" is still seen")
				continue
			}
			p.commit(coord.Delete("/q/entries/"+name, r[0].Fence), coord.Delete("/q/taken/"+name, r[1].Fence))
			e.wantEqual(p.hasSeen("/q/entries", name), false, name+" is still seen")
		}
		made := p.commitOne(coord.CreateSequential("/q/entries/s-", nil)).Path
		e.wantEqual(p.hasSeen("/q/entries", made[len("/q/entries/"):]), true, made+" is seen")
	}},
	{name: "SeenHoldsOwnAnsweredCommitsInALargeDirectory", run: func(e *env) {
		// The first listing must show them, however long it takes to read the directory.
		p, other := e.openPeer(), e.openPeer()
		for range 3 {
			ops := make([]coord.Op, 1000)
			for i := range ops {
				ops[i] = coord.CreateSequential("/q/b-", nil)
			}
			other.commit(ops...)
		}
		for i := range 5 {
			_, stop := p.watchUntilStopped("/q")
			for j := range 10 {
				name := fmt.Sprintf("a-%d-%d", i, j)
				p.commitOne(coord.Create("/q/"+name, nil))
				l := p.list("/q", coord.ListOptions{Seen: true, After: "a", Limit: 10*i + j + 1})
				e.wantEqual(l.Nodes[len(l.Nodes)-1].Path, "/q/"+name, "the last of what p made")
			}
			stop()
		}
	}},
	{name: "SeenHoldsWhatOthersOfTheSessionCommitted", run: func(e *env) {
		// Several goroutines share the session. Each sees every commit that any of them
		// was answered.
		p := e.openPeer()
		p.watch("/q")
		var mu sync.Mutex
		made := 0
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 25 {
					if _, err := p.Commit(e.ctx, coord.Create(fmt.Sprintf("/q/%d-%02d", g, i), nil)); err != nil {
						e.Errorf("create: %v", err)
						return
					}
					mu.Lock()
					made++
					least := made
					mu.Unlock()
					l, err := p.List(e.ctx, "/q", coord.ListOptions{Seen: true})
					if err != nil || len(l.Nodes) < least {
						e.Errorf("%d nodes seen, and %d were made: %v", len(l.Nodes), least, err)
					}
				}
			})
		}
		wg.Wait()
	}},
	{name: "SeenNeverGoesBack", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		signal := a.watch("/q")
		const nodes = 120
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range nodes {
				if _, err := b.Commit(e.ctx, coord.Create(fmt.Sprintf("/q/%03d", i), nil)); err != nil {
					e.Errorf("create: %v", err)
				}
			}
		})
		// No listing shows less than a listing that had ended before it began. Two
		// goroutines read, partly at the same time.
		var mu sync.Mutex
		most := 0
		read := func() int {
			mu.Lock()
			least := most
			mu.Unlock()
			l, err := a.List(e.ctx, "/q", coord.ListOptions{Seen: true})
			if err != nil {
				e.Errorf("list: %v", err)
				return nodes
			}
			mu.Lock()
			defer mu.Unlock()
			if most = max(most, len(l.Nodes)); len(l.Nodes) < least {
				e.Errorf("%d nodes seen, and %d before", len(l.Nodes), least)
			}
			return len(l.Nodes)
		}
		wg.Go(func() {
			for read() < nodes && e.ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
		})
		a.awaitSignals(signal, "all are seen", func() bool { return read() == nodes })
		wg.Wait()
	}},
	{name: "SeenGoesOnFromAListing", run: func(e *env) {
		// Listings with a watch and without one alternate; none may show less than the one
		// before.
		a, b := e.openPeer(), e.openPeer()
		for i := range 10 {
			b.commitOne(coord.Create(fmt.Sprintf("/q/%d", i), nil))
			without := len(a.listSeen("/q").Nodes)
			signal, stop := a.watchUntilStopped("/q")
			with := len(a.listSeen("/q").Nodes)
			a.awaitSignals(signal, "all are seen", func() bool { return len(a.listSeen("/q").Nodes) == i+1 })
			stop()
			after := len(a.listSeen("/q").Nodes)
			if with < without || after < i+1 {
				e.Errorf("%d nodes of %d seen without a watch, %d with one, then %d", without, i+1, with, after)
			}
		}
	}},
	{name: "SeenIsListedInOrderAndInParts", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		signal := a.watch("/q")
		for _, name := range []string{"c", "a-", "b", "a", "a/deep", "ab"} {
			if name == "a/deep" {
				b.commitOne(coord.Create("/q/d/x", nil))
				continue
			}
			b.commitOne(coord.Create("/q/"+name, nil))
		}
		a.awaitSignals(signal, "all is seen", func() bool { return len(a.listSeen("/q").Nodes) == 6 })
		e.wantEqual(joinNames(a.listSeen("/q")), "a a- ab b c d", "all")
		l := a.list("/q", coord.ListOptions{Seen: true, Limit: 2})
		e.wantEqual(joinNames(l), "a a-", "the first two")
		e.wantEqual(l.More, true, "more after two")
		l = a.list("/q", coord.ListOptions{Seen: true, After: "ab", Limit: 3})
		e.wantEqual(joinNames(l), "b c d", "after ab")
		e.wantEqual(l.More, false, "more at the end")
		e.wantEqual(joinNames(a.list("/q", coord.ListOptions{Seen: true, After: "x"})), "", "after all")
	}},
	{name: "SeenWithValuesReadsTheNodes", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := b.commitOne(coord.Create("/q/a", []byte("first"))).Fence
		b.commitOne(coord.CreateEphemeral("/q/b", []byte("lock")))
		a.watch("/q")
		b.commitOne(coord.Set("/q/a", []byte("second"), f))
		l := a.list("/q", coord.ListOptions{Seen: true, Values: true})
		e.wantEqual(joinNames(l), "a b", "names")
		for _, n := range l.Nodes {
			if n.Path == "/q/a" && string(n.Value) == "first" {
				continue // it may lag
			}
			if want := a.get(n.Path); !reflect.DeepEqual(n, want) {
				e.Errorf("listed %+v, and it is %+v", n, want)
			}
		}
	}},
	{name: "SeenStampsTellMembership", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		signal := a.watch("/q")
		b.commitOne(coord.Create("/q/a", nil))
		a.awaitSignals(signal, "a is seen", func() bool { return a.hasSeen("/q", "a") })
		before := a.listSeen("/q")
		f := b.commitOne(coord.Create("/q/b", nil)).Fence
		a.awaitSignals(signal, "b is seen", func() bool { return a.hasSeen("/q", "b") })
		between := a.listSeen("/q")
		b.commitOne(coord.Delete("/q/b", f))
		a.awaitSignals(signal, "b is gone", func() bool { return !a.hasSeen("/q", "b") })
		after := a.listSeen("/q")
		if before.Stamp == between.Stamp || between.Stamp == after.Stamp {
			e.Errorf("stamps %d, %d, %d of other members", before.Stamp, between.Stamp, after.Stamp)
		}
	}},
	{name: "SeenFollowsManyChanges", run: func(e *env) {
		// After many changes at the same time the listing shows what exists.
		a, b := e.openPeer(), e.openPeer()
		signal := a.watch("/q", "/r")
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 40 {
					path := fmt.Sprintf("%s/%d-%02d", []string{"/q", "/r"}[i%2], g, i)
					r, err := b.Commit(e.ctx, coord.Create(path, nil))
					if err == nil && i%3 == 0 {
						_, err = b.Commit(e.ctx, coord.Delete(path, r[0].Fence))
					}
					if err != nil {
						e.Errorf("%s: %v", path, err)
					}
				}
			})
		}
		wg.Wait()
		for _, dir := range []string{"/q", "/r"} {
			want := b.freshNames(dir)
			a.awaitSignals(signal, "all is seen", func() bool { return joinNames(a.listSeen(dir)) == want })
		}
	}},
	{name: "SeenCatchesUpAfterACut", hooks: []string{"Cut"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := b.commitOne(coord.Create("/q/a", nil)).Fence
		signal := a.watch("/q")
		e.wantEqual(joinNames(a.listSeen("/q")), "a", "seen")
		a.cut()
		e.waitForDisconnect()
		b.commitOne(coord.Delete("/q/a", f))
		b.commitOne(coord.Create("/q/b", nil))
		a.heal()
		a.awaitSignals(signal, "what changed meanwhile is seen", func() bool { return joinNames(a.listSeen("/q")) == "b" })
		b.commitOne(coord.Create("/q/c", nil))
		a.awaitSignals(signal, "what changes then is seen", func() bool { return joinNames(a.listSeen("/q")) == "b c" })
	}},
	{name: "SeenEndsWithTheSession", hooks: []string{"Expire"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		b.commitOne(coord.Create("/q/a", nil))
		a.watch("/q")
		e.wantEqual(joinNames(a.listSeen("/q")), "a", "seen")
		old := a.Session
		a.expire()
		e.pollUntil(a.expiryLimit(), "the session is over", func() bool {
			select {
			case <-old.Done():
				return true
			default:
				return false
			}
		})
		_, err := old.List(e.ctx, "/q", coord.ListOptions{Seen: true})
		e.wantError(err, coord.ErrSessionLost, "seen in a session that is over")
		b.commitOne(coord.Create("/q/b", nil))
		a.reopenSession()
		a.watch("/q")
		e.wantEqual(joinNames(a.listSeen("/q")), "a b", "seen in the next session")
	}},
	{name: "SeenShowsLocksThatWentWithTheirSession", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		b.commitOne(coord.CreateEphemeral("/q/taken/1", nil))
		signal := a.watch("/q/taken")
		e.wantEqual(a.hasSeen("/q/taken", "1"), true, "lock seen")
		if err := b.client.Close(); err != nil {
			e.Fatal(err)
		}
		a.awaitSignals(signal, "the lock is gone", func() bool { return !a.hasSeen("/q/taken", "1") })
	}},
}

// startChurn has p create and delete nodes in the directories until stop is called.
func (e *env) startChurn(p *peer, dirs ...string) (stop func()) {
	ctx, cancel := context.WithCancel(e.ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			path := fmt.Sprintf("%s/churn-%d", dirs[i%len(dirs)], i)
			r, err := p.Commit(e.ctx, coord.Create(path, nil))
			if err == nil {
				_, err = p.Commit(e.ctx, coord.Delete(path, r[0].Fence))
			}
			if err != nil {
				e.Errorf("%s: %v", path, err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// watchUntilStopped watches a directory until stop is called.
func (p *peer) watchUntilStopped(dir string) (signal <-chan struct{}, stop func()) {
	p.Helper()
	ctx, stop := context.WithCancel(p.ctx)
	signal, err := p.Watch(ctx, dir)
	if err != nil {
		p.Fatalf("watch %s: %v", dir, err)
	}
	return signal, stop
}

// listSeen lists what p has seen of dir.
func (p *peer) listSeen(dir string) coord.List {
	p.Helper()
	return p.list(dir, coord.ListOptions{Seen: true})
}

func (p *peer) hasSeen(dir, name string) bool {
	p.Helper()
	for _, n := range p.listSeen(dir).Nodes {
		if n.Path == dir+"/"+name {
			return true
		}
	}
	return false
}

// awaitSignals returns when cond holds. It looks at first and after each signal, and
// fails the case when no signal comes.
func (e *env) awaitSignals(signal <-chan struct{}, what string, cond func() bool) {
	e.Helper()
	for !cond() {
		e.awaitSignal(signal, what)
	}
}
