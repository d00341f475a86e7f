package conformance

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/zkq/zkq/coord"
)

var raceCases = []testCase{
	{name: "OneOfManyCreatesWins", run: func(e *env) {
		winners := raceCommits(e, 8, 10, func(p *peer, round int) coord.Op { return coord.Create(fmt.Sprintf("/q/%d", round), nil) }, coord.ErrExist)
		e.wantEqual(winners, 10, "winners")
	}},
	{name: "OneOfManyLocksWins", run: func(e *env) {
		winners := raceCommits(e, 8, 10, func(p *peer, round int) coord.Op { return coord.CreateEphemeral(fmt.Sprintf("/q/%d", round), nil) }, coord.ErrExist)
		e.wantEqual(winners, 10, "winners")
	}},
	{name: "OneOfManyDeletesWins", run: func(e *env) {
		p := e.openPeer()
		for i := range 10 {
			p.commitOne(coord.Create(fmt.Sprintf("/q/%d", i), nil))
		}
		f := p.get("/q/0").Fence
		winners := raceCommits(e, 8, 10, func(p *peer, round int) coord.Op {
			return coord.Delete(fmt.Sprintf("/q/%d", round), p.fenceOr(fmt.Sprintf("/q/%d", round), f))
		}, coord.ErrNotExist)
		e.wantEqual(winners, 10, "winners")
		e.wantEqual(p.freshNames("/q"), "", "listed")
	}},
	{name: "CountedByManyIsExact", run: func(e *env) {
		// Read, add one, write at the fence that was read.
		first := e.openPeer()
		first.commitOne(coord.Create("/q/n", []byte("0")))
		const clients, rounds = 6, 12
		var wg sync.WaitGroup
		for range clients {
			p := e.openPeer()
			wg.Go(func() {
				for done := 0; done < rounds; {
					n, err := p.Get(e.ctx, "/q/n")
					if err != nil {
						e.Errorf("get: %v", err)
						return
					}
					v, _ := strconv.Atoi(string(n.Value))
					_, err = p.Commit(e.ctx, coord.Set("/q/n", []byte(strconv.Itoa(v+1)), n.Fence))
					if err == nil {
						done++
					} else if !errors.Is(err, coord.ErrVersion) {
						e.Errorf("set: %v", err)
						return
					}
				}
			})
		}
		wg.Wait()
		n := first.get("/q/n")
		e.wantEqual(string(n.Value), fmt.Sprint(clients*rounds), "value")
		e.wantEqual(n.Changes, int64(clients*rounds), "changes")
	}},
	{name: "ClaimsExcludeEachOther", run: func(e *env) {
		// A claim touches the entry and creates the lock, a finish deletes both. Each
		// entry must be claimed and finished once.
		first := e.openPeer()
		const entries = 12
		for i := range entries {
			first.commitOne(coord.Create(fmt.Sprintf("/q/entries/%02d", i), nil))
		}
		var held, finished atomic.Int64
		var wg sync.WaitGroup
		for range 6 {
			p := e.openPeer()
			wg.Go(func() {
				for i := range entries {
					entry, lock := fmt.Sprintf("/q/entries/%02d", i), fmt.Sprintf("/q/taken/%02d", i)
					n, err := p.Get(e.ctx, entry)
					if errors.Is(err, coord.ErrNotExist) {
						continue
					}
					r, err := p.Commit(e.ctx, coord.Touch(entry, n.Value, n.Fence), coord.CreateEphemeral(lock, nil))
					if err != nil {
						continue
					}
					if held.Add(1) > entries {
						e.Error("more claims than entries")
					}
					if _, err := p.Commit(e.ctx, coord.Delete(entry, r[0].Fence), coord.Delete(lock, r[1].Fence)); err != nil {
						e.Errorf("finish: %v", err)
						continue
					}
					finished.Add(1)
				}
			})
		}
		wg.Wait()
		e.wantEqual(finished.Load(), int64(entries), "finished")
		e.wantEqual(first.freshNames("/q/entries")+first.freshNames("/q/taken"), "", "left")
	}},
	{name: "StaleFinishIsRefused", run: func(e *env) {
		// The data fence alone must refuse it: the first holder's session lives, its lock
		// was deleted, and another client holds the entry.
		a, b := e.openPeer(), e.openPeer()
		f := a.commitOne(coord.Create("/q/entries/e", nil)).Fence
		first := a.commit(coord.Touch("/q/entries/e", nil, f), coord.CreateEphemeral("/q/taken/e", nil))
		b.commitOne(coord.Delete("/q/taken/e", first[1].Fence))
		second := b.commit(coord.Touch("/q/entries/e", nil, first[0].Fence), coord.CreateEphemeral("/q/taken/e", nil))
		_, err := a.Commit(e.ctx, coord.Delete("/q/entries/e", first[0].Fence), coord.Delete("/q/taken/e", first[1].Fence))
		e.wantError(err, coord.ErrVersion, "stale finish")
		e.wantEqual(a.get("/q/taken/e").Owner, b.ID(), "owner of the lock")
		b.commit(coord.Delete("/q/entries/e", second[0].Fence), coord.Delete("/q/taken/e", second[1].Fence))
	}},
	{name: "ReplaceLeavesNoGap", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		const rounds = 30
		a.commitOne(coord.CreateEphemeral("/q/0", nil))
		done := runAsync(func() error {
			for i := range rounds {
				n, err := a.Get(e.ctx, fmt.Sprintf("/q/%d", i))
				if err != nil {
					return err
				}
				// The next node is created in the same commit, so b always finds a last one.
				if _, err := a.Commit(e.ctx, coord.Replace(n.Path, []byte("due"), n.Fence), coord.CreateEphemeral(fmt.Sprintf("/q/%d", i+1), nil)); err != nil {
					return err
				}
			}
			return nil
		})
		for last := 1; last < rounds+1; {
			l := b.list("/q", coord.ListOptions{Fresh: true})
			if len(l.Nodes) < last {
				e.Fatalf("%d nodes after %d", len(l.Nodes), last)
			}
			last = len(l.Nodes)
			if _, err := b.Get(e.ctx, fmt.Sprintf("/q/%d", last-1)); err != nil {
				e.Fatalf("the last of %d: %v", last, err)
			}
		}
		if err := e.awaitOutcome(caseTimeout/2, done, "replaces"); err != nil {
			e.Fatal(err)
		}
	}},
	{name: "ManyGoroutinesShareASession", run: func(e *env) {
		p := e.openPeer()
		var wg sync.WaitGroup
		for g := range 50 {
			wg.Go(func() {
				path := fmt.Sprintf("/q/g%02d", g)
				r, err := p.Commit(e.ctx, coord.Create(path, []byte("1")))
				if err != nil {
					e.Errorf("create: %v", err)
					return
				}
				n, err := p.Get(e.ctx, path)
				if err != nil || n.Fence != r[0].Fence {
					e.Errorf("get: %+v, %v", n, err)
				}
				if _, err := p.List(e.ctx, "/q", coord.ListOptions{Values: g%2 == 0, Fresh: g%3 == 0}); err != nil {
					e.Errorf("list: %v", err)
				}
				if _, err := p.Commit(e.ctx, coord.Delete(path, r[0].Fence)); err != nil {
					e.Errorf("delete: %v", err)
				}
			})
		}
		wg.Wait()
		e.wantEqual(p.freshNames("/q"), "", "listed")
	}},
}

// raceCommits has clients try the same op in each round. It returns how many commits were
// applied; all others must end with want.
func raceCommits(e *env, clients, rounds int, op func(p *peer, round int) coord.Op, want error) int {
	var winners atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		p := e.openPeer()
		wg.Go(func() {
			for round := range rounds {
				_, err := p.Commit(e.ctx, op(p, round))
				if err == nil {
					winners.Add(1)
				} else if !errors.Is(err, want) {
					e.Errorf("round %d: %v, want %v", round, err, want)
				}
			}
		})
	}
	wg.Wait()
	return int(winners.Load())
}

// fenceOr returns the fence of a node, or gone if there is no node.
func (p *peer) fenceOr(path string, gone coord.Fence) coord.Fence {
	if n, err := p.Get(p.ctx, path); err == nil {
		return n.Fence
	}
	return gone
}
