package conformance

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
)

var seenCases = []example{
	{name: "SeenGoesWithNeitherFreshNorBorn", run: func(e *env) {
		p := e.open()
		for _, o := range []coord.ListOptions{{Seen: true, Fresh: true}, {Seen: true, Born: 1}} {
			_, err := p.List(e.ctx, "/q", o)
			e.is(err, coord.ErrInvalid, fmt.Sprintf("%+v", o))
		}
	}},
	{name: "SeenHoldsWhatWasThereBeforeTheWatch", run: func(e *env) {
		a, b := e.open(), e.open()
		for i := range 20 {
			dir := fmt.Sprintf("/q/%02d", i)
			for j := range i {
				b.do(coord.Create(fmt.Sprintf("%s/%02d", dir, j), nil))
			}
			a.watch(dir)
			e.equal(len(a.seen(dir).Nodes), i, "nodes seen after the watch began")
		}
	}},
	{name: "SeenIsSeenOrSignalledWhereAWatchFollowsAnother", run: func(e *env) {
		// What the one before had not been told of yet, the next one is.
		a, b := e.open(), e.open()
		for i := range 20 {
			b.do(coord.Create(fmt.Sprintf("/q/%02d", i), nil))
			signal, stop := a.watching("/q")
			a.awaits(signal, "all are seen", func() bool { return len(a.seen("/q").Nodes) == i+1 })
			stop()
		}
	}},
	{name: "SeenHoldsWhatASignalAnnounced", run: func(e *env) {
		a, b := e.open(), e.open()
		signal := a.watch("/q")
		for i := range 30 {
			name := fmt.Sprintf("%02d", i)
			b.do(coord.Create("/q/"+name, nil))
			a.awaits(signal, name+" is seen", func() bool { return a.sees("/q", name) })
		}
	}},
	{name: "SeenMissesWhatASignalSaidIsGone", run: func(e *env) {
		a, b := e.open(), e.open()
		var fences []coord.Fence
		for i := range 20 {
			fences = append(fences, b.do(coord.Create(fmt.Sprintf("/q/%02d", i), nil)).Fence)
		}
		signal := a.watch("/q")
		e.equal(len(a.seen("/q").Nodes), 20, "nodes seen")
		for i, f := range fences {
			name := fmt.Sprintf("%02d", i)
			b.do(coord.Delete("/q/"+name, f))
			a.awaits(signal, name+" is gone", func() bool { return !a.sees("/q", name) })
		}
	}},
	{name: "SeenShowsOwnChangesWithTheirSignal", run: func(e *env) {
		p := e.open()
		signal := p.watch("/q/entries", "/q/taken")
		f := p.do(coord.Create("/q/entries/1", nil)).Fence
		p.awaits(signal, "the entry is seen", func() bool { return p.sees("/q/entries", "1") })
		p.do(coord.CreateEphemeral("/q/taken/1", nil))
		p.awaits(signal, "the lock is seen", func() bool { return p.sees("/q/taken", "1") })
		p.do(coord.Delete("/q/entries/1", f))
		p.awaits(signal, "the entry is gone", func() bool { return !p.sees("/q/entries", "1") })
	}},
	{name: "SeenHoldsOwnAnsweredCommits", run: func(e *env) {
		// Without waiting for a signal, and beside another who changes the same directories.
		p, other := e.open(), e.open()
		p.watch("/q/entries", "/q/taken")
		stop := e.churn(other, "/q/entries", "/q/taken")
		defer stop()
		for i := range 60 {
			name := fmt.Sprintf("n%02d", i)
			r := p.commit(coord.Create("/q/entries/"+name, nil), coord.CreateEphemeral("/q/taken/"+name, nil))
			e.equal(p.sees("/q/entries", name), true, name+" is seen")
			e.equal(p.sees("/q/taken", name), true, "the lock of "+name+" is seen")
			if i%2 == 0 {
				free := coord.Delete("/q/taken/"+name, r[1].Fence)
				free.SignalLater = i%4 == 0
				p.commit(coord.Touch("/q/entries/"+name, nil, r[0].Fence), free)
				e.equal(p.sees("/q/taken", name), false, "the lock of "+name+" is still seen")
				continue
			}
			p.commit(coord.Delete("/q/entries/"+name, r[0].Fence), coord.Delete("/q/taken/"+name, r[1].Fence))
			e.equal(p.sees("/q/entries", name), false, name+" is still seen")
		}
		made := p.do(coord.CreateSequential("/q/entries/s-", nil)).Path
		e.equal(p.sees("/q/entries", made[len("/q/entries/"):]), true, made+" is seen")
	}},
	{name: "SeenHoldsOwnAnsweredCommitsInALargeDirectory", run: func(e *env) {
		// From the first listing on, however long it takes to read the directory.
		p, other := e.open(), e.open()
		for range 3 {
			ops := make([]coord.Op, 1000)
			for i := range ops {
				ops[i] = coord.CreateSequential("/q/b-", nil)
			}
			other.commit(ops...)
		}
		for i := range 5 {
			_, stop := p.watching("/q")
			for j := range 10 {
				name := fmt.Sprintf("a-%d-%d", i, j)
				p.do(coord.Create("/q/"+name, nil))
				l := p.list("/q", coord.ListOptions{Seen: true, After: "a", Limit: 10*i + j + 1})
				e.equal(l.Nodes[len(l.Nodes)-1].Path, "/q/"+name, "the last of what p made")
			}
			stop()
		}
	}},
	{name: "SeenHoldsWhatOthersOfTheSessionCommitted", run: func(e *env) {
		// Several goroutines share the session; each sees what any of them was answered.
		p := e.open()
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
		a, b := e.open(), e.open()
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
		// Two readers, one after the other or at once: none sees less than what one
		// had seen before it began.
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
		a.awaits(signal, "all are seen", func() bool { return read() == nodes })
		wg.Wait()
	}},
	{name: "SeenGoesOnFromAListing", run: func(e *env) {
		// What was listed in other ways before is no reason to go back.
		a, b := e.open(), e.open()
		for i := range 10 {
			b.do(coord.Create(fmt.Sprintf("/q/%d", i), nil))
			without := len(a.seen("/q").Nodes)
			signal, stop := a.watching("/q")
			with := len(a.seen("/q").Nodes)
			a.awaits(signal, "all are seen", func() bool { return len(a.seen("/q").Nodes) == i+1 })
			stop()
			after := len(a.seen("/q").Nodes)
			if with < without || after < i+1 {
				e.Errorf("%d nodes of %d seen without a watch, %d with one, then %d", without, i+1, with, after)
			}
		}
	}},
	{name: "SeenIsListedInOrderAndInParts", run: func(e *env) {
		a, b := e.open(), e.open()
		signal := a.watch("/q")
		for _, name := range []string{"c", "a-", "b", "a", "a/deep", "ab"} {
			if name == "a/deep" {
				b.do(coord.Create("/q/d/x", nil))
				continue
			}
			b.do(coord.Create("/q/"+name, nil))
		}
		a.awaits(signal, "all is seen", func() bool { return len(a.seen("/q").Nodes) == 6 })
		e.equal(names(a.seen("/q")), "a a- ab b c d", "all")
		l := a.list("/q", coord.ListOptions{Seen: true, Limit: 2})
		e.equal(names(l), "a a-", "the first two")
		e.equal(l.More, true, "more after two")
		l = a.list("/q", coord.ListOptions{Seen: true, After: "ab", Limit: 3})
		e.equal(names(l), "b c d", "after ab")
		e.equal(l.More, false, "more at the end")
		e.equal(names(a.list("/q", coord.ListOptions{Seen: true, After: "x"})), "", "after all")
	}},
	{name: "SeenWithValuesReadsTheNodes", run: func(e *env) {
		a, b := e.open(), e.open()
		f := b.do(coord.Create("/q/a", []byte("first"))).Fence
		b.do(coord.CreateEphemeral("/q/b", []byte("lock")))
		a.watch("/q")
		b.do(coord.Set("/q/a", []byte("second"), f))
		l := a.list("/q", coord.ListOptions{Seen: true, Values: true})
		e.equal(names(l), "a b", "names")
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
		a, b := e.open(), e.open()
		signal := a.watch("/q")
		b.do(coord.Create("/q/a", nil))
		a.awaits(signal, "a is seen", func() bool { return a.sees("/q", "a") })
		before := a.seen("/q")
		f := b.do(coord.Create("/q/b", nil)).Fence
		a.awaits(signal, "b is seen", func() bool { return a.sees("/q", "b") })
		between := a.seen("/q")
		b.do(coord.Delete("/q/b", f))
		a.awaits(signal, "b is gone", func() bool { return !a.sees("/q", "b") })
		after := a.seen("/q")
		if before.Stamp == between.Stamp || between.Stamp == after.Stamp {
			e.Errorf("stamps %d, %d, %d of other members", before.Stamp, between.Stamp, after.Stamp)
		}
	}},
	{name: "SeenFollowsManyChanges", run: func(e *env) {
		// Churn: what is seen in the end is what is there.
		a, b := e.open(), e.open()
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
			want := b.fresh(dir)
			a.awaits(signal, "all is seen", func() bool { return names(a.seen(dir)) == want })
		}
	}},
	{name: "SeenCatchesUpAfterACut", needs: []string{"Cut"}, run: func(e *env) {
		a, b := e.open(), e.open()
		f := b.do(coord.Create("/q/a", nil)).Fence
		signal := a.watch("/q")
		e.equal(names(a.seen("/q")), "a", "seen")
		a.cut()
		e.noticed()
		b.do(coord.Delete("/q/a", f))
		b.do(coord.Create("/q/b", nil))
		a.heal()
		a.awaits(signal, "what changed meanwhile is seen", func() bool { return names(a.seen("/q")) == "b" })
		b.do(coord.Create("/q/c", nil))
		a.awaits(signal, "what changes then is seen", func() bool { return names(a.seen("/q")) == "b c" })
	}},
	{name: "SeenEndsWithTheSession", needs: []string{"Expire"}, run: func(e *env) {
		a, b := e.open(), e.open()
		b.do(coord.Create("/q/a", nil))
		a.watch("/q")
		e.equal(names(a.seen("/q")), "a", "seen")
		old := a.Session
		a.expire()
		e.until(a.overdue(), "the session is over", func() bool {
			select {
			case <-old.Done():
				return true
			default:
				return false
			}
		})
		_, err := old.List(e.ctx, "/q", coord.ListOptions{Seen: true})
		e.is(err, coord.ErrSessionLost, "seen in a session that is over")
		b.do(coord.Create("/q/b", nil))
		a.reopen()
		a.watch("/q")
		e.equal(names(a.seen("/q")), "a b", "seen in the next session")
	}},
	{name: "SeenShowsLocksThatWentWithTheirSession", run: func(e *env) {
		a, b := e.open(), e.open()
		b.do(coord.CreateEphemeral("/q/taken/1", nil))
		signal := a.watch("/q/taken")
		e.equal(a.sees("/q/taken", "1"), true, "lock seen")
		if err := b.c.Close(); err != nil {
			e.Fatal(err)
		}
		a.awaits(signal, "the lock is gone", func() bool { return !a.sees("/q/taken", "1") })
	}},
}

// churn has p create and delete nodes in the directories until stop is called.
func (e *env) churn(p *peer, dirs ...string) (stop func()) {
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

// watching watches a directory until stop is called.
func (p *peer) watching(dir string) (signal <-chan struct{}, stop func()) {
	p.Helper()
	ctx, stop := context.WithCancel(p.ctx)
	signal, err := p.Watch(ctx, dir)
	if err != nil {
		p.Fatalf("watch %s: %v", dir, err)
	}
	return signal, stop
}

// seen lists what p has seen of dir.
func (p *peer) seen(dir string) coord.List {
	p.Helper()
	return p.list(dir, coord.ListOptions{Seen: true})
}

func (p *peer) sees(dir, name string) bool {
	p.Helper()
	for _, n := range p.seen(dir).Nodes {
		if n.Path == dir+"/"+name {
			return true
		}
	}
	return false
}

// awaits looks whenever there was a signal, and only then.
func (e *env) awaits(signal <-chan struct{}, what string, cond func() bool) {
	e.Helper()
	for !cond() {
		e.signalled(signal, what)
	}
}
