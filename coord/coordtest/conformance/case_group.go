package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
)

// Commits that are made at the same time may travel in one request. Their callers must
// not be able to tell.
var groupCases = []testCase{
	{name: "ManyAtOnceAreAllApplied", run: func(e *env) {
		p := e.openPeer()
		p.makeDir("/q")
		p.runAtOnce(64, func(i int) {
			for round := range 3 {
				path := fmt.Sprintf("/q/%02d-%d", i, round)
				r, err := p.Commit(e.ctx, coord.Create(path, []byte(path)), coord.CreateEphemeral(path+"-lock", []byte(path)))
				if err != nil {
					e.Errorf("%s: %v", path, err)
					continue
				}
				for j, n := range p.read(r[0].Path, r[1].Path) {
					if n.Path != r[j].Path || string(n.Value) != path || n.Fence != r[j].Fence {
						e.Errorf("results %+v, and the node is %+v", r, n)
					}
				}
			}
		})
		e.wantEqual(p.count("/q"), 64*3*2, "nodes")
	}},
	{name: "RefusalsAmongManyAreTheirOwn", run: func(e *env) {
		p := e.openPeer()
		for i := range 40 {
			p.commitOne(coord.Create(fmt.Sprintf("/q/there-%02d", i), nil))
		}
		fence := p.get("/q/there-00").Fence
		p.runAtOnce(40, func(i int) {
			fine := coord.Create(fmt.Sprintf("/q/fine-%02d", i), nil)
			there := fmt.Sprintf("/q/there-%02d", i)
			var op coord.Op
			var want error
			switch i % 5 {
			case 0:
				op, want = coord.Create(there, nil), coord.ErrExist
			case 1:
				op, want = coord.Set(fmt.Sprintf("/q/none-%02d", i), nil, fence), coord.ErrNotExist
			case 2:
				op, want = coord.Delete(there, fence+1<<40), coord.ErrVersion
			default:
				op = coord.Create(fmt.Sprintf("/q/also-%02d", i), nil)
			}
			_, err := p.Commit(e.ctx, fine, op)
			refusal := (*coord.Refusal)(nil)
			switch {
			case want == nil && err != nil:
				e.Errorf("commit %d: %v", i, err)
			case want != nil && (!errors.Is(err, want) || !errors.As(err, &refusal) || refusal.Index != 1 || refusal.Op.Path != op.Path):
				e.Errorf("commit %d: %v, want the refusal of its op 1 for %v", i, err, want)
			}
		})
		for i := range 40 {
			e.wantEqual(p.exists(fmt.Sprintf("/q/fine-%02d", i)), i%5 > 2, fmt.Sprintf("whether commit %d is applied", i))
		}
	}},
	{name: "RefusedClaimsAmongManyCostNoOther", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		const entries = 30
		fences := make([]coord.Fence, entries)
		for i := range entries {
			fences[i] = a.commitOne(coord.Create(fmt.Sprintf("/q/entries/%02d", i), []byte("v"))).Fence
		}
		for i := 0; i < entries; i += 3 { // b claims every third entry first
			b.commit(coord.Touch(fmt.Sprintf("/q/entries/%02d", i), []byte("v"), fences[i]), coord.CreateEphemeral(fmt.Sprintf("/q/taken/%02d", i), nil))
		}
		a.runAtOnce(entries, func(i int) {
			_, err := a.Commit(e.ctx, coord.Touch(fmt.Sprintf("/q/entries/%02d", i), []byte("v"), fences[i]), coord.CreateEphemeral(fmt.Sprintf("/q/taken/%02d", i), nil))
			if i%3 == 0 != errors.Is(err, coord.ErrVersion) || i%3 > 0 && err != nil {
				e.Errorf("claim %d: %v", i, err)
			}
		})
		for i := range entries {
			owner := a.ID()
			if i%3 == 0 {
				owner = b.ID()
			}
			e.wantEqual(a.get(fmt.Sprintf("/q/taken/%02d", i)).Owner, owner, fmt.Sprintf("owner of lock %d", i))
		}
	}},
	{name: "OneOfManyWritesOfAPathAtOnceIsApplied", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/q/a", []byte("v"))).Fence
		for round := range 8 {
			var won atomic.Int64
			next := make([]coord.Fence, 16)
			p.runAtOnce(16, func(i int) {
				ops := []coord.Op{coord.Set("/q/a", []byte(fmt.Sprint(i)), f), coord.Create(fmt.Sprintf("/q/%d-%02d", round, i), nil)}
				r, err := p.Commit(e.ctx, ops...)
				if err == nil {
					won.Add(1)
					next[i] = r[0].Fence
				} else if !errors.Is(err, coord.ErrVersion) {
					e.Errorf("set: %v", err)
				}
			})
			e.wantEqual(won.Load(), int64(1), "writes applied")
			n := p.get("/q/a")
			f = n.Fence
			for i, fence := range next {
				if mine := fence != 0; mine != (fmt.Sprint(i) == string(n.Value)) || mine && fence != f {
					e.Errorf("the write of %d was told the fence %d; the node holds %q at %d", i, fence, n.Value, f)
				}
			}
		}
		e.wantEqual(p.get("/q/a").Changes, int64(8), "changes")
		e.wantEqual(p.count("/q"), 9, "nodes")
	}},
	{name: "OneOfManyClaimsAndFinishesAtOnceIsApplied", run: func(e *env) {
		p := e.openPeer()
		const entries = 6
		fences := make([]coord.Fence, entries)
		for i := range entries {
			fences[i] = p.commitOne(coord.Create(fmt.Sprint("/q/entries/", i), nil)).Fence
		}
		var claimed, finished atomic.Int64
		var mu sync.Mutex
		held := make([][]coord.Result, entries)
		p.runAtOnce(4*entries, func(i int) {
			i %= entries
			r, err := p.Commit(e.ctx, coord.Touch(fmt.Sprint("/q/entries/", i), nil, fences[i]), coord.CreateEphemeral(fmt.Sprint("/q/taken/", i), nil))
			if err == nil {
				claimed.Add(1)
				mu.Lock()
				held[i] = r
				mu.Unlock()
			}
		})
		e.wantEqual(claimed.Load(), int64(entries), "claims applied")
		p.runAtOnce(4*entries, func(i int) {
			i %= entries
			_, err := p.Commit(e.ctx, coord.Delete(held[i][0].Path, held[i][0].Fence), coord.Delete(held[i][1].Path, held[i][1].Fence))
			if err == nil {
				finished.Add(1)
			}
		})
		e.wantEqual(finished.Load(), int64(entries), "finishes applied")
		e.wantEqual(p.freshNames("/q/entries")+p.freshNames("/q/taken"), "", "left")
	}},
	{name: "SequentialNamesOfManyAtOnceAreDistinct", run: func(e *env) {
		p := e.openPeer()
		var last string
		for round := range 4 {
			var mu sync.Mutex
			var all []string
			p.runAtOnce(24, func(i int) {
				value := []byte(fmt.Sprint(round, i))
				r, err := p.Commit(e.ctx, coord.CreateSequential("/q/e-", value), coord.CreateSequential("/q/e-", value))
				if err != nil {
					e.Errorf("create: %v", err)
					return
				}
				if r[0].Path >= r[1].Path {
					e.Errorf("%s before %s", r[0].Path, r[1].Path)
				}
				for _, n := range p.read(r[0].Path, r[1].Path) {
					e.wantEqual(string(n.Value), string(value), "value of "+n.Path)
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, r[0].Path, r[1].Path)
			})
			slices.Sort(all)
			e.wantEqual(len(slices.Compact(slices.Clone(all))), 48, "names")
			if all[0] <= last {
				e.Errorf("%s was named after %s", all[0], last)
			}
			last = all[len(all)-1]
		}
	}},
	{name: "RevisionsOfManyAtOnceAreTheirNodes", run: func(e *env) {
		p := e.openPeer()
		fences := make([]coord.Fence, 24)
		for i := range fences {
			fences[i] = p.commitOne(coord.Create(fmt.Sprintf("/q/%02d", i), nil)).Fence
		}
		var last int64
		for range 3 {
			revisions := make([]int64, len(fences))
			p.runAtOnce(len(fences), func(i int) {
				path := fmt.Sprintf("/q/%02d", i)
				r, err := p.Commit(e.ctx, coord.Set(path, nil, fences[i]))
				if err != nil {
					e.Errorf("%s: %v", path, err)
					return
				}
				fences[i], revisions[i] = r[0].Fence, r[0].Revision
				if n := p.read(path)[0]; n.Revision != r[0].Revision {
					e.Errorf("%s was written by %d, and its commit was told %d", path, n.Revision, r[0].Revision)
				}
			})
			if least := slices.Min(revisions); least <= last {
				e.Errorf("revision %d after %d", least, last)
			}
			last = slices.Max(revisions)
		}
	}},
	{name: "LargeAmongSmallAtOnce", run: func(e *env) {
		p := e.openPeer()
		p.makeDir("/q")
		p.runAtOnce(24, func(i int) {
			ops := []coord.Op{coord.Create(fmt.Sprintf("/q/%02d", i), make([]byte, 10))}
			switch i % 4 {
			case 0:
				ops[0].Value = make([]byte, 300<<10)
			case 1:
				for j := range 60 {
					ops = append(ops, coord.Create(fmt.Sprintf("/q/%02d-%d", i, j), nil))
				}
			}
			if _, err := p.Commit(e.ctx, ops...); err != nil {
				e.Errorf("commit %d: %v", i, err)
			}
		})
		e.wantEqual(p.count("/q"), 24+6*60, "nodes")
	}},
	{name: "DirectoriesOfManyAtOnceAreMade", run: func(e *env) {
		p := e.openPeer()
		p.runAtOnce(24, func(i int) {
			path := fmt.Sprintf("/q/%d/%d/%02d", i%3, i%5, i)
			if _, err := p.Commit(e.ctx, coord.Create(path, nil)); err != nil {
				e.Errorf("%s: %v", path, err)
			}
		})
		for i := range 24 {
			path := fmt.Sprintf("/q/%d/%d/%02d", i%3, i%5, i)
			e.wantEqual(p.exists(path), true, path+" is there")
		}
	}},
	{name: "ManyHeldAreEachAppliedOnce", hooks: []string{"HoldReplies", "Cut"}, run: func(e *env) {
		// A commit with an unknown outcome may be applied or not. A commit that was sent
		// twice would be refused.
		a, b := e.openPeer(), e.openPeer()
		b.makeDir("/q")
		for round := range 3 {
			var calls []<-chan outcome
			prefix := fmt.Sprintf("/q/%d-", round)
			a.exists("/q/x") // returns once there is a connection
			before := b.count("/q")
			a.holdReplies()
			for i := range 24 {
				calls = append(calls, runAsync(func() error {
					_, err := a.Commit(e.ctx, coord.Create(fmt.Sprint(prefix, i), nil))
					return err
				}))
			}
			e.pollUntil(e.timeout, "one is applied", func() bool { return b.count("/q") > before })
			a.cut()
			time.Sleep(20 * time.Millisecond)
			a.heal()
			ok, unknown := 0, 0
			for _, c := range calls {
				switch err := e.awaitOutcome(a.expiryLimit(), c, "commit"); {
				case err == nil:
					ok++
				case errors.Is(err, coord.ErrUnknown):
					unknown++
				default:
					e.Errorf("commit: %v", err)
				}
			}
			n := 0
			for _, node := range b.list("/q", coord.ListOptions{Fresh: true}).Nodes {
				if len(node.Path) > len(prefix) && node.Path[:len(prefix)] == prefix {
					n++
				}
			}
			if n < ok || n > ok+unknown {
				e.Errorf("%d nodes of %d commits that were applied and %d that are unknown", n, ok, unknown)
			}
		}
	}},
	{name: "ManyCommitsOverCutsAreEachAppliedOnce", hooks: []string{"Cut"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		b.makeDir("/q")
		applied := make([]atomic.Int64, 16)
		doubt := make([]atomic.Int64, 16)
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.runAtOnce(16, func(i int) {
				for n := range 12 {
					_, err := a.Commit(e.ctx, coord.CreateSequential(fmt.Sprintf("/q/%02d-", i), []byte{byte(n)}))
					switch {
					case err == nil:
						applied[i].Add(1)
					case errors.Is(err, coord.ErrUnknown):
						doubt[i].Add(1)
					default:
						e.Errorf("commit: %v", err)
					}
				}
			})
		}()
		for range 3 {
			time.Sleep(3 * time.Millisecond)
			a.cut()
			time.Sleep(10 * time.Millisecond)
			a.heal()
		}
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			e.Fatal("the commits do not end")
		}
		there := make([]map[byte]int, 16)
		for _, n := range b.list("/q", coord.ListOptions{Fresh: true, Values: true}).Nodes {
			var i int
			if _, err := fmt.Sscanf(n.Path, "/q/%02d-", &i); err != nil || len(n.Value) != 1 {
				e.Fatalf("a node %s: %v", n.Path, err)
			}
			if there[i] == nil {
				there[i] = map[byte]int{}
			}
			if there[i][n.Value[0]]++; there[i][n.Value[0]] > 1 {
				e.Errorf("commit %d of %d was applied twice", n.Value[0], i)
			}
		}
		for i := range there {
			ok, unknown, n := int(applied[i].Load()), int(doubt[i].Load()), len(there[i])
			if n < ok || n > ok+unknown {
				e.Errorf("%d: %d nodes of %d commits that were applied and %d that are unknown", i, n, ok, unknown)
			}
		}
	}},
	{name: "WhoLeavesCostsNoOther", hooks: []string{"HoldReplies"}, run: func(e *env) {
		p := e.openPeer()
		p.makeDir("/q")
		p.holdReplies()
		ctx, cancel := context.WithCancel(e.ctx)
		var leave, stay []<-chan outcome
		for i := range 10 {
			leave = append(leave, runAsync(func() error { _, err := p.Commit(ctx, coord.Create(fmt.Sprint("/q/left", i), nil)); return err }))
			stay = append(stay, runAsync(func() error { _, err := p.Commit(e.ctx, coord.Create(fmt.Sprint("/q/stays", i), nil)); return err }))
		}
		time.Sleep(50 * time.Millisecond)
		cancel()
		isCertain := make([]bool, len(leave)) // certainly not applied
		for i, c := range leave {
			err := e.awaitOutcome(time.Second, c, "a commit that was cancelled")
			if !errors.Is(err, context.Canceled) {
				e.Errorf("a commit that was cancelled: %v", err)
			}
			isCertain[i] = !errors.Is(err, coord.ErrUnknown)
		}
		p.heal()
		for i, c := range stay {
			if err := e.awaitOutcome(e.timeout, c, "a commit that stayed"); err != nil && !errors.Is(err, coord.ErrUnknown) {
				e.Errorf("a commit that stayed: %v", err)
			}
			e.wantEqual(p.exists(fmt.Sprint("/q/stays", i)), true, "node there")
		}
		for i := range leave {
			if isCertain[i] {
				e.wantEqual(p.exists(fmt.Sprint("/q/left", i)), false, "node of a commit that was cancelled before it was sent")
			}
		}
	}},
	{name: "ManyThatWaitEndWithTheSession", hooks: []string{"Cut", "Expire"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		b.makeDir("/q")
		a.cut()
		e.waitForDisconnect()
		var calls []<-chan outcome
		for i := range 20 {
			calls = append(calls, runAsync(func() error { _, err := a.Commit(e.ctx, coord.Create(fmt.Sprint("/q/", i), nil)); return err }))
		}
		a.expire()
		a.heal()
		for _, c := range calls {
			err := e.awaitOutcome(a.expiryLimit(), c, "commit")
			if !errors.Is(err, coord.ErrSessionLost) && !errors.Is(err, coord.ErrUnknown) {
				e.Errorf("a commit that waited when its session ended: %v", err)
			}
		}
		time.Sleep(100 * time.Millisecond)
		e.wantEqual(b.freshNames("/q"), "", "listed")
	}},
	{name: "TheValuesOfACommitAreTheCallersAgain", hooks: []string{"HoldRequests"}, run: func(e *env) {
		p := e.openPeer()
		p.makeDir("/q")
		p.holdRequests()
		ctx, cancel := context.WithCancel(e.ctx)
		var calls []<-chan outcome
		values := make([][]byte, 8)
		for i := range values {
			values[i] = []byte("as it was")
			calls = append(calls, runAsync(func() error { _, err := p.Commit(ctx, coord.Create(fmt.Sprint("/q/", i), values[i])); return err }))
		}
		time.Sleep(50 * time.Millisecond)
		cancel()
		for i, c := range calls {
			e.wantError(e.awaitOutcome(time.Second, c, "commit"), context.Canceled, "commit")
			copy(values[i], "CHANGED!!")
		}
		p.heal()
		p.commitOne(coord.Create("/q/last", []byte("as it was")))
		for _, n := range p.list("/q", coord.ListOptions{Fresh: true, Values: true}).Nodes {
			e.wantEqual(string(n.Value), "as it was", "value of "+n.Path)
		}
	}},
}

// runAtOnce calls f from n goroutines at the same time, and returns when all have ended.
func (p *peer) runAtOnce(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}
