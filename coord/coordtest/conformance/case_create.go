package conformance

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/zkq/zkq/coord"
)

var createCases = []testCase{
	{name: "CreatedNodeIsRead", run: func(e *env) {
		p := e.openPeer()
		r := p.commitOne(coord.Create("/q/a", []byte("v")))
		n := p.get("/q/a")
		e.wantEqual(string(n.Value), "v", "value")
		e.wantEqual(n.Path, "/q/a", "path")
		e.wantEqual(r.Path, "/q/a", "path of the result")
		e.wantEqual(n.Fence, r.Fence, "fence")
		e.wantEqual(n.Changes, int64(0), "changes")
		e.wantEqual(n.Owner, "", "owner")
	}},
	{name: "CreatedNodeIsReadByOthers", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		for i := range 20 {
			path := fmt.Sprintf("/q/%d", i)
			r := a.commitOne(coord.Create(path, []byte(path)))
			n := b.get(path)
			e.wantEqual(string(n.Value), path, "value")
			e.wantEqual(n.Fence, r.Fence, "fence")
		}
	}},
	{name: "CreateOfTakenPathIsRefused", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		a.commitOne(coord.Create("/q/a", []byte("first")))
		for _, p := range []*peer{a, b} {
			_, err := p.Commit(e.ctx, coord.Create("/q/a", []byte("second")))
			e.wantError(err, coord.ErrExist, "second create")
		}
		e.wantEqual(string(a.get("/q/a").Value), "first", "value")
	}},
	{name: "EmptyValueIsEmptyNotNil", run: func(e *env) {
		p := e.openPeer()
		p.commit(coord.Create("/q/a", nil), coord.Create("/q/b", []byte{}), coord.CreateEphemeral("/q/c", nil))
		for _, path := range []string{"/q/a", "/q/b", "/q/c"} {
			if v := p.get(path).Value; v == nil || len(v) != 0 {
				e.Errorf("%s: %#v", path, v)
			}
		}
		for _, n := range p.list("/q", coord.ListOptions{Values: true}).Nodes {
			if len(n.Value) != 0 {
				e.Errorf("listed %s: %#v", n.Path, n.Value)
			}
		}
	}},
	{name: "ValuesKeepEveryByte", run: func(e *env) {
		p := e.openPeer()
		v := make([]byte, 256)
		for i := range v {
			v[i] = byte(i)
		}
		p.commitOne(coord.Create("/q/a", v))
		e.wantEqual(string(p.get("/q/a").Value), string(v), "value")
	}},
	{name: "ValuesAreCopied", run: func(e *env) {
		p := e.openPeer()
		v := []byte("mine")
		p.commitOne(coord.Create("/q/a", v))
		copy(v, "gone")
		n := p.get("/q/a")
		e.wantEqual(string(n.Value), "mine", "value after the caller wrote to its own")
		copy(n.Value, "gone")
		e.wantEqual(string(p.get("/q/a").Value), "mine", "value after the reader wrote to its own")
	}},
	{name: "LargestValueIsKept", run: func(e *env) {
		p := e.openPeer()
		v := bytes.Repeat([]byte{0xa5}, p.Limits().ValueBytes)
		r := p.commitOne(coord.Create("/q/a", v))
		if !bytes.Equal(p.get("/q/a").Value, v) {
			e.Error("another value was read")
		}
		p.commitOne(coord.Set("/q/a", v[1:], r.Fence))
	}},
	{name: "CreateMakesDirectories", run: func(e *env) {
		p := e.openPeer()
		p.commitOne(coord.Create("/q/b/c/d", nil))
		for dir, want := range map[string]string{"/q": "b", "/q/b": "c", "/q/b/c": "d"} {
			e.wantEqual(p.freshNames(dir), want, "list "+dir)
		}
	}},
	{name: "OneCommitMakesSeveralDirectories", run: func(e *env) {
		p := e.openPeer()
		p.commit(coord.Create("/q/a/x", nil), coord.CreateSequential("/q/b/", nil),
			coord.CreateEphemeral("/q/c/d/x", nil), coord.Create("/q/c/e/x", nil))
		e.wantEqual(p.freshNames("/q"), "a b c", "list /q")
		e.wantEqual(p.freshNames("/q/c"), "d e", "list /q/c")
	}},
	{name: "NamesMayBeUnusual", run: func(e *env) {
		p := e.openPeer()
		for _, name := range []string{"ä", "日本", "a b", "a.b", "-", "~", "%", "=+,;:@&$!*()'", strings.Repeat("n", 200), "zookeeper", "a\\b"} {
			p.commitOne(coord.Create("/q/"+name, []byte(name)))
			e.wantEqual(string(p.get("/q/"+name).Value), name, name)
		}
		e.wantEqual(len(p.list("/q", coord.ListOptions{Fresh: true}).Nodes), 11, "nodes")
	}},
	{name: "EphemeralNodeHasAnOwner", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		r := a.commitOne(coord.CreateEphemeral("/q/a", []byte("v")))
		for _, p := range []*peer{a, b} {
			n := p.get("/q/a")
			e.wantEqual(n.Owner, a.ID(), "owner")
			e.wantEqual(n.Fence, r.Fence, "fence")
			e.wantEqual(n.Changes, int64(0), "changes")
			e.wantEqual(string(n.Value), "v", "value")
		}
	}},
	{name: "EphemeralNodeOfTakenPathIsRefused", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		a.commit(coord.Create("/q/persistent", nil), coord.CreateEphemeral("/q/ephemeral", nil))
		for _, p := range []*peer{a, b} {
			for _, path := range []string{"/q/persistent", "/q/ephemeral"} {
				_, err := p.Commit(e.ctx, coord.CreateEphemeral(path, nil))
				e.wantError(err, coord.ErrExist, path)
			}
		}
		_, err := b.Commit(e.ctx, coord.Create("/q/ephemeral", nil))
		e.wantError(err, coord.ErrExist, "persistent over ephemeral")
		e.wantEqual(b.get("/q/ephemeral").Owner, a.ID(), "owner")
	}},
	{name: "SequentialNameIsPrefixAndSuffix", run: func(e *env) {
		p := e.openPeer()
		for _, prefix := range []string{"/q/entry-100-", "/q/plain", "/q/"} {
			r := p.commitOne(coord.CreateSequential(prefix, []byte(prefix)))
			if !strings.HasPrefix(r.Path, prefix) || len(r.Path) == len(prefix) || strings.Contains(r.Path[len(prefix):], "/") {
				e.Errorf("%s became %s", prefix, r.Path)
			}
			n := p.get(r.Path)
			e.wantEqual(string(n.Value), prefix, "value")
			e.wantEqual(n.Fence, r.Fence, "fence")
			e.wantEqual(n.Owner, "", "owner")
		}
	}},
	{name: "SequentialNamesSortAsCommitted", run: func(e *env) {
		p := e.openPeer()
		var got []string
		for range 30 {
			got = append(got, p.commitOne(coord.CreateSequential("/q/n-", nil)).Path)
		}
		wantAscending(e, got)
	}},
	{name: "SequentialNamesSortAsTheirOps", run: func(e *env) {
		p := e.openPeer()
		var got []string
		for range 3 {
			var ops []coord.Op
			for range 50 {
				ops = append(ops, coord.CreateSequential("/q/n-", nil))
			}
			for _, r := range p.commit(ops...) {
				got = append(got, r.Path)
			}
		}
		wantAscending(e, got)
	}},
	{name: "SequentialNamesSortWithinEachPrefix", run: func(e *env) {
		p := e.openPeer()
		got := map[string][]string{}
		for range 10 {
			for _, prefix := range []string{"/q/entry-100-", "/q/entry-050-", "/q/other/entry-100-"} {
				r := p.commit(coord.CreateSequential(prefix, nil), coord.CreateSequential(prefix, nil))
				got[prefix] = append(got[prefix], r[0].Path, r[1].Path)
			}
		}
		for _, paths := range got {
			wantAscending(e, paths)
		}
	}},
	{name: "SequentialNamesSortBesideOtherCreates", run: func(e *env) {
		p := e.openPeer()
		var got []string
		for i := range 10 {
			r := p.commit(coord.Create(fmt.Sprintf("/q/a%d", i), nil), coord.CreateSequential("/q/n-", nil),
				coord.CreateEphemeral(fmt.Sprintf("/q/b%d", i), nil), coord.CreateSequential("/q/n-", nil))
			got = append(got, r[1].Path, r[3].Path)
		}
		wantAscending(e, got)
	}},
	{name: "SequentialNameIsNotGivenAgain", run: func(e *env) {
		p := e.openPeer()
		var got []string
		for range 10 {
			r := p.commitOne(coord.CreateSequential("/q/n-", nil))
			got = append(got, r.Path)
			p.commitOne(coord.Delete(r.Path, r.Fence))
		}
		wantAscending(e, got)
	}},
	{name: "SequentialNamesSortAcrossEightClients", run: func(e *env) {
		peers := make([]*peer, 8)
		for i := range peers {
			peers[i] = e.openPeer()
		}
		var got []string
		for i := range 64 {
			got = append(got, peers[(i*5)%8].commitOne(coord.CreateSequential("/q/n-", nil)).Path)
		}
		wantAscending(e, got)
	}},
	{name: "SequentialNamesSortByHappenedBefore", run: func(e *env) {
		// Eight clients create nodes at the same time. A name that was answered before a
		// commit began must sort before the names of that commit.
		var mu sync.Mutex
		var last string
		var wg sync.WaitGroup
		all := map[string]bool{}
		for range 8 {
			p := e.openPeer()
			wg.Go(func() {
				for range 15 {
					mu.Lock()
					before := last
					mu.Unlock()
					r, err := p.Commit(e.ctx, coord.CreateSequential("/q/n-", nil), coord.CreateSequential("/q/n-", nil))
					if err != nil {
						e.Errorf("commit: %v", err)
						return
					}
					mu.Lock()
					if r[0].Path <= before || r[1].Path <= r[0].Path {
						e.Errorf("%s and %s came after %s was answered", r[0].Path, r[1].Path, before)
					}
					last = max(last, r[1].Path)
					all[r[0].Path], all[r[1].Path] = true, true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		e.wantEqual(len(all), 8*15*2, "distinct names")
	}},
	{name: "CreateAgainStartsAnew", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/q/a", []byte("1"))).Fence
		f = p.commitOne(coord.Set("/q/a", []byte("2"), f)).Fence
		p.commitOne(coord.Delete("/q/a", f))
		r := p.commitOne(coord.Create("/q/a", []byte("3")))
		n := p.get("/q/a")
		e.wantEqual(n.Changes, int64(0), "changes")
		e.wantEqual(n.Fence, r.Fence, "fence")
		e.wantEqual(string(n.Value), "3", "value")
	}},
}

// wantAscending asserts strict byte order.
func wantAscending(e *env, paths []string) {
	e.Helper()
	if !slices.IsSorted(paths) || len(slices.Compact(slices.Clone(paths))) != len(paths) {
		e.Errorf("not ascending: %v", paths)
	}
}
