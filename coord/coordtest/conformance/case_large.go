package conformance

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
)

// Commits of more creates than CommitOps, with a few ops of other kinds among them.
var largeCases = []testCase{
	{name: "MostCreatesBesideASet", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/m", nil)).Fence
		ops := append([]coord.Op{coord.Set("/m", []byte("put"), f)}, sequentialCreates(p.Limits().Creates-1)...)
		r := p.commit(ops...)
		n := p.get("/m")
		e.wantEqual(string(n.Value), "put", "value")
		e.wantEqual(n.Fence, r[0].Fence, "fence")
		e.wantEqual(n.Revision, r[0].Revision, "revision")
		e.wantEqual(p.count("/q"), len(ops)-1, "count")
		var paths []string
		for _, r := range r[1:] {
			paths = append(paths, r.Path)
		}
		wantAscending(e, paths)
	}},
	{name: "MostCreatesBesideAllKinds", run: func(e *env) {
		p := e.openPeer()
		f := p.commit(coord.Create("/m/set", nil), coord.Create("/m/touch", []byte("v")), coord.Create("/m/delete", nil), coord.Create("/m/check", nil))
		ops := sequentialCreates(p.Limits().Creates - coord.MaxBeside - 1)
		ops = slices.Insert(ops, 3, coord.Touch("/m/touch", []byte("v"), f[1].Fence))
		ops = slices.Insert(ops, 70, coord.Check("/m/check", f[3].Fence))
		ops = slices.Insert(ops, 71, coord.Delete("/m/delete", f[2].Fence))
		ops = append(ops, coord.Set("/m/set", []byte("new"), f[0].Fence), coord.Create("/q/fixed", []byte("v")))
		r := p.commit(ops...)
		for _, i := range []int{3, 70, len(ops) - 2, len(ops) - 1} {
			e.wantEqual(p.get(ops[i].Path).Fence, r[i].Fence, ops[i].Path)
		}
		e.wantEqual(p.exists("/m/delete"), false, "deleted node there")
		e.wantEqual(string(p.get("/m/set").Value), "new", "value set")
		n := p.get("/m/touch")
		e.wantEqual(string(n.Value), "v", "value touched")
		e.wantEqual(n.Changes, int64(1), "changes of it")
		e.wantEqual(p.get("/m/check").Changes, int64(0), "changes of the one checked")
		e.wantEqual(p.count("/q"), len(ops)-coord.MaxBeside, "count")
	}},
	{name: "MostCreatesUnderManyPrefixes", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/m", nil)).Fence
		ops := []coord.Op{coord.Set("/m", []byte("put"), f)}
		for i := range p.Limits().Creates - 1 {
			path := fmt.Sprintf("/d%02d/n%04d-", i%40, i)
			if i%2 == 0 {
				ops = append(ops, coord.CreateSequential(path, nil))
			} else {
				ops = append(ops, coord.Create(path+"fixed", nil))
			}
		}
		p.commit(ops...)
		n := 0
		for i := range 40 {
			n += p.count(fmt.Sprintf("/d%02d", i))
		}
		e.wantEqual(n, len(ops)-1, "nodes")
		_, err := p.Commit(e.ctx, ops...)
		wantRefused(e, err, 0, coord.ErrVersion)
	}},
	{name: "LargeCommitIsRefusedByWhatIsBeside", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/m", []byte("v"))).Fence
		now := p.commitOne(coord.Set("/m", []byte("v"), f)).Fence
		creates := sequentialCreates(p.Limits().Creates - 1)
		for _, c := range []struct {
			op  coord.Op
			err error
		}{
			{coord.Set("/m", nil, f), coord.ErrVersion},
			{coord.Touch("/m", []byte("v"), f), coord.ErrVersion},
			{coord.Delete("/m", f), coord.ErrVersion},
			{coord.Check("/m", f), coord.ErrVersion},
			{coord.Set("/gone", nil, f), coord.ErrNotExist},
			{coord.Delete("/gone", now), coord.ErrNotExist},
			{coord.Check("/gone", 0), coord.ErrNotExist},
		} {
			for _, at := range []int{0, len(creates) / 2} {
				_, err := p.Commit(e.ctx, slices.Insert(slices.Clone(creates), at, c.op)...)
				wantRefused(e, err, at, c.err)
			}
		}
		e.wantEqual(p.get("/m").Fence, now, "fence")
		wantNothingApplied(p, "")
	}},
	{name: "LargeRefusalNamesTheFirst", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/m", nil)).Fence
		now := p.commitOne(coord.Set("/m", nil, f)).Fence
		p.commitOne(coord.Create("/q/taken", nil))
		creates := sequentialCreates(p.Limits().Creates - 2)
		taken := coord.Create("/q/taken", nil)
		_, err := p.Commit(e.ctx, append(slices.Clone(creates), coord.Set("/m", nil, f), taken)...)
		wantRefused(e, err, len(creates), coord.ErrVersion)
		_, err = p.Commit(e.ctx, append(slices.Clone(creates), taken, coord.Set("/m", nil, f))...)
		wantRefused(e, err, len(creates), coord.ErrExist)
		_, err = p.Commit(e.ctx, append([]coord.Op{coord.Set("/m", []byte("x"), now), taken}, creates...)...)
		wantRefused(e, err, 1, coord.ErrExist)
		e.wantEqual(p.get("/m").Fence, now, "fence")
		wantNothingApplied(p, "taken")
	}},
	{name: "TooManyOpsBesideCreates", run: func(e *env) {
		p := e.openPeer()
		n := p.Limits().Creates
		f := p.commitOne(coord.Create("/m", nil)).Fence
		ops := append([]coord.Op{coord.Set("/m", nil, f)}, sequentialCreates(n)...)
		_, err := p.Commit(e.ctx, ops...)
		wantTooLarge(e, err, n+1, n)

		var beside []coord.Op
		for i := range coord.MaxBeside + 1 {
			beside = append(beside, coord.Check(fmt.Sprintf("/m%d", i), 1))
		}
		most := p.Limits().CommitOps
		for _, beside := range [][]coord.Op{beside, {coord.CreateEphemeral("/q/e", nil)}, {coord.Replace("/q/e", nil, 1)}} {
			ops := append(slices.Clone(beside), sequentialCreates(most)...)
			_, err := p.Commit(e.ctx, ops...)
			wantTooLarge(e, err, len(ops), most)
		}
		e.wantEqual(p.get("/m").Fence, f, "fence")
		wantNothingApplied(p, "")
	}},
	{name: "LargeCommitWithoutAnswerIsToldByItsMarker", hooks: []string{"HoldReplies", "Cut"}, run: func(e *env) {
		// This is how a put resolves ErrUnknown. It writes the marker at the fence of the
		// commit, which fails if the commit was applied. The marker then tells whether
		// the commit was applied, and which nodes it created.
		a, b := e.openPeer(), e.openPeer()
		b.makeDir("/q")
		m := b.commitOne(coord.Create("/m", nil))
		size := a.Limits().CommitOps + 50
		start := time.Now()
		m.Fence = a.commit(append([]coord.Op{coord.Set("/m", []byte("first"), m.Fence)}, sequentialCreates(size)...)...)[0].Fence
		usual := time.Since(start)
		// A driver may ask the service for names first, so the answer must be held at
		// the right instant. Each round that held it too late makes the delay shorter,
		// each round that held it too early makes it longer.
		var delay time.Duration
		for end, rounds := time.Now().Add(caseTimeout/2), 0; ; rounds++ {
			if time.Now().After(end) {
				e.Fatalf("none of %d commits was applied without an answer", rounds)
			}
			value := fmt.Sprint("put ", rounds)
			ops := append([]coord.Op{coord.Set("/m", []byte(value), m.Fence)}, sequentialCreates(size)...)
			if rounds == 0 {
				a.holdReplies()
			}
			commit := runAsync(func() error { _, err := a.Commit(e.ctx, ops...); return err })
			if rounds > 0 {
				time.Sleep(delay)
				a.holdReplies()
			}
			late := len(commit) > 0
			time.Sleep(10*time.Millisecond + usual)
			a.cut()
			time.Sleep(10 * time.Millisecond)
			a.heal()
			err := e.awaitOutcome(a.expiryLimit(), commit, "commit")
			if late {
				delay = delay * 2 / 3
			} else {
				delay = max(delay*5/4, 200*time.Microsecond)
			}
			n := b.get("/m")
			if errors.Is(err, coord.ErrUnknown) && n.Fence == m.Fence {
				_, verr := b.Commit(e.ctx, coord.Set("/m", []byte("void"), m.Fence))
				if verr != nil {
					e.wantError(verr, coord.ErrVersion, "void")
				}
				n = b.get("/m")
			}
			born := len(b.list("/q", coord.ListOptions{Born: n.Revision}).Nodes)
			switch {
			case string(n.Value) == value:
				e.wantEqual(born, size, "nodes of an applied commit")
				if err != nil {
					e.wantError(err, coord.ErrUnknown, "applied commit")
					return
				}
			case err == nil:
				e.Errorf("answered as applied, and the marker says %q", n.Value)
			case string(n.Value) == "void":
				e.wantEqual(born, 0, "nodes of a voided commit")
			}
			m.Fence = n.Fence
		}
	}},
}

// sequentialCreates returns creates of n sequential nodes in /q.
func sequentialCreates(n int) []coord.Op {
	ops := make([]coord.Op, n)
	for i := range ops {
		ops[i] = coord.CreateSequential("/q/n-", fmt.Append(nil, i))
	}
	return ops
}

// wantRefused asserts that err refuses the op with that index for that reason.
func wantRefused(e *env, err error, index int, why error) {
	e.Helper()
	var r *coord.Refusal
	if !errors.As(err, &r) || r.Index != index || !errors.Is(r, why) {
		e.Errorf("%v, want op %d refused with %v", err, index, why)
	}
}
