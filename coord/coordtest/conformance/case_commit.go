package conformance

import (
	"fmt"

	"github.com/zkq/zkq/coord"
)

var commitCases = []testCase{
	{name: "SetMovesFenceAndCounts", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/q/a", []byte("1"))).Fence
		r := p.commitOne(coord.Set("/q/a", []byte("2"), f))
		if r.Fence == f {
			e.Error("the fence stood still")
		}
		n := p.get("/q/a")
		e.wantEqual(string(n.Value), "2", "value")
		e.wantEqual(n.Fence, r.Fence, "fence")
		e.wantEqual(n.Changes, int64(1), "changes")
	}},
	{name: "SetMayEmptyAValue", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/q/a", []byte("1"))).Fence
		p.commitOne(coord.Set("/q/a", nil, f))
		if v := p.get("/q/a").Value; v == nil || len(v) != 0 {
			e.Errorf("%#v", v)
		}
	}},
	{name: "TouchMovesFenceAndKeepsValue", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/q/a", []byte("1"))).Fence
		r := p.commitOne(coord.Touch("/q/a", []byte("1"), f))
		if r.Fence == f {
			e.Error("the fence stood still")
		}
		n := p.get("/q/a")
		e.wantEqual(string(n.Value), "1", "value")
		e.wantEqual(n.Fence, r.Fence, "fence")
		e.wantEqual(n.Changes, int64(1), "changes")
		_, err := p.Commit(e.ctx, coord.Touch("/q/a", []byte("1"), f))
		e.wantError(err, coord.ErrVersion, "touch at the old fence")
	}},
	{name: "TouchKeepsAnEmptyValue", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/q/a", nil)).Fence
		p.commitOne(coord.Touch("/q/a", []byte{}, f))
		if v := p.get("/q/a").Value; v == nil || len(v) != 0 {
			e.Errorf("%#v", v)
		}
	}},
	{name: "DeleteRemoves", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := a.commitOne(coord.Create("/q/a", nil)).Fence
		r := b.commitOne(coord.Delete("/q/a", f))
		e.wantEqual(r.Fence, coord.Fence(0), "fence of the result")
		e.wantEqual(a.exists("/q/a"), false, "node there")
		e.wantEqual(a.freshNames("/q"), "", "listed")
	}},
	{name: "CheckChangesNothing", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/q/a", []byte("v"))).Fence
		r := p.commitOne(coord.Check("/q/a", f))
		e.wantEqual(r.Fence, f, "fence of the result")
		n := p.get("/q/a")
		e.wantEqual(n.Fence, f, "fence")
		e.wantEqual(n.Changes, int64(0), "changes")
		p.commit(coord.Check("/q/a", f), coord.Create("/q/b", nil))
	}},
	{name: "FencesNeverRepeat", run: func(e *env) {
		p := e.openPeer()
		for _, op := range []coord.Op{coord.Create("/q/a", nil), coord.CreateEphemeral("/q/b", nil)} {
			f := p.commitOne(op).Fence
			seen := map[coord.Fence]bool{f: true}
			for i := range 20 {
				next := coord.Set(op.Path, nil, f)
				if i%2 == 1 {
					next = coord.Touch(op.Path, nil, f)
				}
				f = p.commitOne(next).Fence
				if seen[f] {
					e.Errorf("%s: fence %d again after %d writes", op.Path, f, i+1)
				}
				seen[f] = true
			}
		}
	}},
	{name: "OldFencesAreRefusedForEver", run: func(e *env) {
		p := e.openPeer()
		fences := []coord.Fence{p.commitOne(coord.Create("/q/a", nil)).Fence}
		for range 5 {
			fences = append(fences, p.commitOne(coord.Set("/q/a", nil, fences[len(fences)-1])).Fence)
		}
		for _, f := range fences[:5] {
			for _, op := range []coord.Op{coord.Set("/q/a", nil, f), coord.Touch("/q/a", nil, f), coord.Delete("/q/a", f), coord.Check("/q/a", f)} {
				_, err := p.Commit(e.ctx, op)
				e.wantError(err, coord.ErrVersion, fmt.Sprint(op.Kind, " at an old fence"))
			}
		}
		p.commitOne(coord.Delete("/q/a", fences[5]))
	}},
	{name: "ChangesCountWrites", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		for _, op := range []coord.Op{coord.Create("/q/a", []byte("v")), coord.CreateEphemeral("/q/b", []byte("v")), coord.CreateSequential("/q/c", []byte("v"))} {
			r := a.commitOne(op)
			for i := range int64(6) {
				e.wantEqual(b.get(r.Path).Changes, i, op.Path)
				w := coord.Set(r.Path, []byte("v"), r.Fence)
				if i%2 == 0 {
					w = coord.Touch(r.Path, []byte("v"), r.Fence)
				}
				r = []*peer{a, b}[i%2].commitOne(w)
			}
		}
	}},
	{name: "SetAndTouchKeepTheOwner", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := a.commitOne(coord.CreateEphemeral("/q/a", []byte("1"))).Fence
		f = a.commitOne(coord.Set("/q/a", []byte("2"), f)).Fence
		f = b.commitOne(coord.Set("/q/a", []byte("3"), f)).Fence
		b.commitOne(coord.Touch("/q/a", []byte("3"), f))
		e.wantEqual(b.get("/q/a").Owner, a.ID(), "owner")
		if err := a.client.Close(); err != nil {
			e.Fatal(err)
		}
		e.wantEqual(b.exists("/q/a"), false, "node there after its owner closed")
	}},
	{name: "SetOfOthersKeepsPersistence", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := a.commitOne(coord.Create("/q/a", []byte("1"))).Fence
		f = b.commitOne(coord.Set("/q/a", []byte("2"), f)).Fence
		b.commitOne(coord.Touch("/q/a", []byte("2"), f))
		if err := b.client.Close(); err != nil {
			e.Fatal(err)
		}
		e.wantEqual(a.get("/q/a").Owner, "", "owner")
	}},
	{name: "AnybodyDeletesAnEphemeralNode", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := a.commitOne(coord.CreateEphemeral("/q/a", nil)).Fence
		b.commitOne(coord.Delete("/q/a", f))
		e.wantEqual(a.exists("/q/a"), false, "node there")
		b.commitOne(coord.CreateEphemeral("/q/a", nil))
		if err := a.client.Close(); err != nil {
			e.Fatal(err)
		}
		e.wantEqual(b.get("/q/a").Owner, b.ID(), "owner after the first one closed")
	}},
	{name: "ReplaceMakesANodePersistent", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := a.commitOne(coord.CreateEphemeral("/q/a", []byte("lock"))).Fence
		r := a.commitOne(coord.Replace("/q/a", []byte("due"), f))
		n := b.get("/q/a")
		e.wantEqual(string(n.Value), "due", "value")
		e.wantEqual(n.Owner, "", "owner")
		e.wantEqual(n.Fence, r.Fence, "fence")
		if r.Fence == f {
			e.Error("the fence stood still")
		}
		if err := a.client.Close(); err != nil {
			e.Fatal(err)
		}
		e.wantEqual(b.exists("/q/a"), true, "node there after its owner closed")
		b.commitOne(coord.Delete("/q/a", r.Fence))
	}},
	{name: "ReplaceByOthers", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := a.commitOne(coord.CreateEphemeral("/q/a", nil)).Fence
		b.commitOne(coord.Replace("/q/a", []byte("due"), f))
		if err := a.client.Close(); err != nil {
			e.Fatal(err)
		}
		e.wantEqual(b.get("/q/a").Owner, "", "owner")
	}},
	{name: "AllKindsInOneCommit", run: func(e *env) {
		p := e.openPeer()
		f := p.commit(coord.Create("/q/set", nil), coord.Create("/q/touch", []byte("v")), coord.Create("/q/delete", nil),
			coord.Create("/q/check", nil), coord.CreateEphemeral("/q/replace", nil))
		r := p.commit(coord.Create("/q/create", nil), coord.CreateEphemeral("/q/ephemeral", nil), coord.CreateSequential("/q/sequential-", nil),
			coord.Set("/q/set", []byte("new"), f[0].Fence), coord.Touch("/q/touch", []byte("v"), f[1].Fence), coord.Delete("/q/delete", f[2].Fence),
			coord.Check("/q/check", f[3].Fence), coord.Replace("/q/replace", []byte("r"), f[4].Fence))
		for i, r := range r {
			if i == 5 {
				e.wantEqual(p.exists(r.Path), false, "deleted node there")
				continue
			}
			e.wantEqual(p.get(r.Path).Fence, r.Fence, "fence of "+r.Path)
		}
		e.wantEqual(string(p.get("/q/set").Value), "new", "value set")
		e.wantEqual(string(p.get("/q/touch").Value), "v", "value touched")
		e.wantEqual(string(p.get("/q/replace").Value), "r", "value replaced")
	}},
	{name: "ResultsOfOneCommitAreUsableInTheNext", run: func(e *env) {
		// As a worker does: claim, finish and claim the next, finish.
		p := e.openPeer()
		q := p.commit(coord.CreateSequential("/q/entries/e-", []byte("1")), coord.CreateSequential("/q/entries/e-", []byte("2")))
		first := p.commit(coord.Touch(q[0].Path, []byte("1"), q[0].Fence), coord.CreateEphemeral("/q/taken/1", nil))
		second := p.commit(coord.Delete(first[0].Path, first[0].Fence), coord.Delete(first[1].Path, first[1].Fence),
			coord.Touch(q[1].Path, []byte("2"), q[1].Fence), coord.CreateEphemeral("/q/taken/2", nil))
		p.commit(coord.Delete(second[2].Path, second[2].Fence), coord.Delete(second[3].Path, second[3].Fence))
		e.wantEqual(p.freshNames("/q/entries")+p.freshNames("/q/taken"), "", "left")
	}},
	{name: "RevisionsGrowInCommitOrder", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := a.commitOne(coord.Create("/q/a", nil)).Fence
		var last int64
		for i := range 8 {
			p := []*peer{a, b}[i%2]
			for _, op := range []coord.Op{coord.Set("/q/a", nil, f), coord.CreateEphemeral(fmt.Sprintf("/q/e%d", i), nil)} {
				r := p.commitOne(op)
				if r.Revision <= last {
					e.Errorf("%v: revision %d after %d", op.Kind, r.Revision, last)
				}
				last = r.Revision
				if op.Kind == coord.KindSet {
					f = p.commitOne(coord.Touch("/q/a", nil, r.Fence)).Fence
				}
			}
		}
	}},
	{name: "RevisionIsTheCommits", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/q/a", nil)).Fence
		r := p.commit(coord.Touch("/q/a", nil, f), coord.CreateEphemeral("/q/b", nil))
		if r[0].Revision == 0 || r[0].Revision != r[1].Revision {
			e.Errorf("revisions %d and %d", r[0].Revision, r[1].Revision)
		}
	}},
	{name: "NodeTellsTheCommitThatWroteIt", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		first := a.commit(coord.Create("/q/a", []byte("v")), coord.CreateEphemeral("/q/b", nil))
		e.wantEqual(b.get("/q/b").Revision, first[1].Revision, "revision of the ephemeral node")
		e.wantEqual(b.get("/q/a").Revision, first[1].Revision, "revision of the node created beside it")
		second := b.commit(coord.Touch("/q/a", []byte("v"), first[0].Fence), coord.Set("/q/b", nil, first[1].Fence))
		for i, path := range []string{"/q/a", "/q/b"} {
			e.wantEqual(a.get(path).Revision, second[i].Revision, "revision of "+path)
		}
		a.commitOne(coord.Check("/q/a", second[0].Fence))
		e.wantEqual(a.get("/q/a").Revision, second[0].Revision, "revision after a check")
	}},
	{name: "NodeTellsTheCommitThatMadeIt", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		first := a.commit(coord.Create("/q/a", []byte("v")), coord.CreateEphemeral("/q/b", nil), coord.CreateSequential("/q/c-", nil))
		for i, fence := range []coord.Fence{first[0].Fence, first[1].Fence, first[2].Fence} {
			b.commitOne(coord.Set(first[i].Path, []byte("w"), fence))
			e.wantEqual(a.get(first[i].Path).Born, first[1].Revision, "commit that made "+first[i].Path)
		}
		second := b.commit(coord.Create("/q/d", nil), coord.CreateEphemeral("/q/e", nil))
		for _, n := range append(a.list("/q", coord.ListOptions{Values: true, Fresh: true}).Nodes, a.read("/q/a", "/q/d")...) {
			want := first[1].Revision
			if n.Path == "/q/d" || n.Path == "/q/e" {
				want = second[1].Revision
			}
			e.wantEqual(n.Born, want, "commit that made "+n.Path)
		}
	}},
	{name: "EmptyCommitIsApplied", run: func(e *env) {
		p := e.openPeer()
		if r, err := p.Commit(e.ctx); err != nil || len(r) != 0 {
			e.Errorf("%v, %v", r, err)
		}
	}},
	{name: "ServiceTimesAreSane", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/q/a", nil)).Fence
		n := p.get("/q/a")
		p.commitOne(coord.Set("/q/a", nil, f))
		m := p.get("/q/a")
		e.wantEqual(n.Created.IsZero(), n.Modified.IsZero(), "one time kept and not the other")
		e.wantEqual(m.Created.Equal(n.Created), true, "time of creation kept by a write")
		e.wantEqual(m.Modified.Before(n.Modified), false, "time of change went back")
	}},
}
