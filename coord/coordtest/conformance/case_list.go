package conformance

import (
	"fmt"
	"path"
	"reflect"
	"strings"
	"sync"

	"github.com/zkq/zkq/coord"
)

var listCases = []testCase{
	{name: "MissingDirectoryIsEmpty", run: func(e *env) {
		p := e.openPeer()
		for _, o := range []coord.ListOptions{{}, {Fresh: true}, {Values: true}, {Limit: 3}, {After: "a"}} {
			l := p.list("/no/such", o)
			if len(l.Nodes) != 0 || l.More {
				e.Errorf("%+v: %+v", o, l)
			}
		}
		n, err := p.Count(e.ctx, "/no/such")
		if n != 0 || err != nil {
			e.Errorf("count: %d, %v", n, err)
		}
	}},
	{name: "EmptiedDirectoryIsEmpty", run: func(e *env) {
		p := e.openPeer()
		f := p.commitOne(coord.Create("/q/a", nil)).Fence
		p.commitOne(coord.Delete("/q/a", f))
		e.wantEqual(len(p.list("/q", coord.ListOptions{}).Nodes), 0, "nodes")
		e.wantEqual(p.count("/q"), 0, "count")
	}},
	{name: "LeafHasNoChildren", run: func(e *env) {
		p := e.openPeer()
		p.commit(coord.Create("/q/a", nil), coord.Create("/q/ab", nil))
		e.wantEqual(p.freshNames("/q/a"), "", "listed")
		e.wantEqual(p.count("/q/a"), 0, "count")
	}},
	{name: "ListIsInByteOrder", run: func(e *env) {
		p := e.openPeer()
		for _, name := range strings.Fields("b a B A 10 9 _ - ~ ä aa a-") {
			p.commitOne(coord.Create("/q/"+name, nil))
		}
		const want = "- 10 9 A B _ a a- aa b ~ ä"
		e.wantEqual(p.freshNames("/q"), want, "names")
		e.wantEqual(joinNames(p.list("/q", coord.ListOptions{Values: true})), want, "with values")
	}},
	{name: "ListHasDirectChildrenOnly", run: func(e *env) {
		p := e.openPeer()
		p.commit(coord.Create("/q/a", nil), coord.Create("/q/d/x", nil), coord.Create("/q/d/y", nil), coord.Create("/q/d/e/z", nil), coord.Create("/q/z", nil))
		e.wantEqual(p.freshNames("/q"), "a d z", "names")
		e.wantEqual(p.freshNames("/q/d"), "e x y", "names below")
		e.wantEqual(joinNames(p.list("/q", coord.ListOptions{Values: true, Fresh: true})), "a z", "with values, no directories")
	}},
	{name: "DirectoriesSortAmongNodes", run: func(e *env) {
		// A directory sorts by its own name, not by the paths of the nodes in it. "-" and
		// "." sort before the slash, digits after it.
		p := e.openPeer()
		for _, path := range []string{"/q/a/x", "/q/a/y", "/q/a-b", "/q/a.b", "/q/a0", "/q/a!/z", "/q/b/x", "/q/b-"} {
			p.commitOne(coord.Create(path, nil))
		}
		const want = "a a! a-b a.b a0 b b-"
		e.wantEqual(p.freshNames("/q"), want, "names")
		for limit := 1; limit <= 8; limit++ {
			e.wantEqual(p.namesByPage("/q", coord.ListOptions{Limit: limit}), want, fmt.Sprintf("in pages of %d", limit))
		}
		e.wantEqual(joinNames(p.list("/q", coord.ListOptions{After: "a"})), "a! a-b a.b a0 b b-", "after the directory")
	}},
	{name: "NeighboursWithOnePrefixStayApart", run: func(e *env) {
		p := e.openPeer()
		for _, path := range []string{"/q/a", "/qq/b", "/q-/c", "/q0/d", "/Q/e"} {
			p.commitOne(coord.Create(path, nil))
		}
		for dir, want := range map[string]string{"/q": "a", "/qq": "b", "/q-": "c", "/q0": "d", "/Q": "e"} {
			e.wantEqual(p.freshNames(dir), want, dir)
			e.wantEqual(p.count(dir), 1, "count "+dir)
		}
	}},
	{name: "RootIsListed", run: func(e *env) {
		p := e.openPeer()
		p.commit(coord.Create("/q/a", nil), coord.Create("/top", nil))
		got := " " + p.freshNames("/") + " "
		if !strings.Contains(got, " q ") || !strings.Contains(got, " top ") {
			e.Errorf("%q", got)
		}
	}},
	{name: "ListGivesPaths", run: func(e *env) {
		p := e.openPeer()
		p.commitOne(coord.Create("/q/a", nil))
		e.wantEqual(p.list("/q", coord.ListOptions{}).Nodes[0].Path, "/q/a", "path")
		p.commitOne(coord.Create("/top", nil))
		for _, n := range p.list("/", coord.ListOptions{}).Nodes {
			if n.Path[0] != '/' || strings.Count(n.Path, "/") != 1 {
				e.Errorf("path %s", n.Path)
			}
		}
	}},
	{name: "ValuesAreWholeNodes", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := a.commitOne(coord.Create("/q/a", []byte("1"))).Fence
		a.commitOne(coord.Set("/q/a", []byte("2"), f))
		a.commitOne(coord.CreateEphemeral("/q/b", []byte("lock")))
		a.commitOne(coord.CreateSequential("/q/c-", nil))
		for _, p := range []*peer{a, b} {
			l := p.list("/q", coord.ListOptions{Values: true, Fresh: true})
			e.wantEqual(len(l.Nodes), 3, "nodes")
			for _, n := range l.Nodes {
				want := p.get(n.Path)
				if len(n.Value) == 0 && len(want.Value) == 0 {
					n.Value = want.Value
				}
				if !reflect.DeepEqual(n, want) {
					e.Errorf("listed %+v, got %+v", n, want)
				}
			}
		}
	}},
	{name: "LimitCutsAndSaysSo", run: func(e *env) {
		p := e.openFilled(5)
		for limit, want := range []string{"0 1 2 3 4", "0", "0 1", "0 1 2", "0 1 2 3", "0 1 2 3 4", "0 1 2 3 4"} {
			for _, values := range []bool{false, true} {
				l := p.list("/q", coord.ListOptions{Limit: limit, Values: values})
				e.wantEqual(joinNames(l), want, fmt.Sprintf("limit %d", limit))
				e.wantEqual(l.More, len(l.Nodes) < 5, fmt.Sprintf("more at limit %d", limit))
			}
		}
	}},
	{name: "AfterLeavesOut", run: func(e *env) {
		p := e.openFilled(5)
		for after, want := range map[string]string{"": "0 1 2 3 4", "0": "1 2 3 4", "00": "1 2 3 4", "2": "3 4", "25": "3 4", "4": "", "5": "", "!": "0 1 2 3 4"} {
			for _, values := range []bool{false, true} {
				l := p.list("/q", coord.ListOptions{After: after, Values: values})
				e.wantEqual(joinNames(l), want, fmt.Sprintf("after %q", after))
				e.wantEqual(l.More, false, "more")
			}
		}
	}},
	{name: "PagesMakeTheWhole", run: func(e *env) {
		p := e.openFilled(10)
		for limit := 1; limit <= 11; limit++ {
			for _, values := range []bool{false, true} {
				got := p.namesByPage("/q", coord.ListOptions{Limit: limit, Values: values, Fresh: values})
				e.wantEqual(got, "0 1 2 3 4 5 6 7 8 9", fmt.Sprintf("in pages of %d", limit))
			}
		}
	}},
	{name: "LargeDirectoryIsListed", run: func(e *env) {
		p := e.openPeer()
		const n = 3000
		for i := 0; i < n; i += 500 {
			ops := make([]coord.Op, 500)
			for j := range ops {
				ops[j] = coord.Create(fmt.Sprintf("/q/n%05d", i+j), fmt.Append(nil, i+j))
			}
			p.commit(ops...)
		}
		e.wantEqual(p.count("/q"), n, "count")
		for _, o := range []coord.ListOptions{{}, {Fresh: true}, {Values: true}} {
			l := p.list("/q", o)
			e.wantEqual(len(l.Nodes), n, "nodes")
			for i, node := range l.Nodes {
				if node.Path != fmt.Sprintf("/q/n%05d", i) || o.Values && string(node.Value) != fmt.Sprint(i) {
					e.Fatalf("the %d. is %s: %q", i, node.Path, node.Value)
				}
			}
		}
		e.wantEqual(len(strings.Fields(p.namesByPage("/q", coord.ListOptions{Limit: 700}))), n, "in pages")
	}},
	{name: "OwnWritesAreListed", run: func(e *env) {
		p := e.openPeer()
		for i := range 20 {
			r := p.commitOne(coord.CreateSequential("/q/n-", nil))
			if got := joinNames(p.list("/q", coord.ListOptions{})); !strings.Contains(r.Path, got) || got == "" {
				e.Fatalf("round %d: listed %q after %s", i, got, r.Path)
			}
			p.commitOne(coord.Delete(r.Path, r.Fence))
			e.wantEqual(joinNames(p.list("/q", coord.ListOptions{})), "", "listed after the delete")
		}
	}},
	{name: "FreshListsWhatOthersWereAnswered", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		for i := range 30 {
			r := a.commitOne(coord.Create("/q/n", nil))
			e.wantEqual(b.freshNames("/q"), "n", fmt.Sprintf("round %d, created", i))
			e.wantEqual(b.count("/q"), 1, "count")
			a.commitOne(coord.Delete("/q/n", r.Fence))
			e.wantEqual(b.freshNames("/q"), "", fmt.Sprintf("round %d, deleted", i))
			e.wantEqual(b.count("/q"), 0, "count")
		}
	}},
	{name: "FreshValuesAreWhatOthersWereAnswered", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := a.commitOne(coord.Create("/q/n", nil)).Fence
		for i := range 20 {
			f = a.commitOne(coord.Set("/q/n", fmt.Append(nil, i), f)).Fence
			l := b.list("/q", coord.ListOptions{Fresh: true, Values: true})
			if len(l.Nodes) != 1 || string(l.Nodes[0].Value) != fmt.Sprint(i) || l.Nodes[0].Fence != f {
				e.Fatalf("round %d: %+v", i, l.Nodes)
			}
		}
	}},
	{name: "GetReadsWhatOthersWereAnswered", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := a.commitOne(coord.Create("/q/n", nil)).Fence
		for i := range 40 {
			f = a.commitOne(coord.Set("/q/n", fmt.Append(nil, i), f)).Fence
			e.wantEqual(b.get("/q/n").Fence, f, fmt.Sprintf("fence in round %d", i))
		}
	}},
	{name: "CountCounts", run: func(e *env) {
		p := e.openPeer()
		for i := range 25 {
			e.wantEqual(p.count("/q"), i, "count")
			p.commitOne(coord.CreateSequential("/q/n-", nil))
		}
		p.commitOne(coord.CreateEphemeral("/q/e", nil))
		e.wantEqual(p.count("/q"), 26, "count with an ephemeral node")
	}},
	{name: "StampStandsWhileNothingChanges", run: func(e *env) {
		p := e.openFilled(3)
		want := p.list("/q", coord.ListOptions{Fresh: true}).Stamp
		for _, o := range []coord.ListOptions{{}, {Fresh: true}, {Limit: 3}, {Limit: 10}} {
			e.wantEqual(p.list("/q", o).Stamp, want, fmt.Sprintf("stamp of %+v", o))
		}
		p.commitOne(coord.Create("/elsewhere/a", nil))
		e.wantEqual(p.list("/q", coord.ListOptions{Fresh: true}).Stamp, want, "stamp after a change elsewhere")
	}},
	{name: "StampMovesWithTheMembers", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		stamps := map[uint64]string{}
		look := func(when string) {
			e.Helper()
			stamp := b.list("/q", coord.ListOptions{Fresh: true}).Stamp
			if was, ok := stamps[stamp]; ok {
				e.Errorf("%s has the stamp of %s", when, was)
			}
			stamps[stamp] = when
		}
		a.commitOne(coord.Create("/q/a", nil))
		look("{a}")
		f := a.commitOne(coord.Create("/q/b", nil)).Fence
		look("{a b}")
		a.commitOne(coord.Delete("/q/b", f))
		f = a.commitOne(coord.Create("/q/b", nil)).Fence
		look("{a b} after a delete and a create")
		a.commit(coord.Delete("/q/b", f), coord.Create("/q/c", nil))
		look("{a c}")
		a.commitOne(coord.CreateEphemeral("/q/d", nil))
		look("{a c d}")
		if err := a.client.Close(); err != nil {
			e.Fatal(err)
		}
		b.commitOne(coord.CreateEphemeral("/q/d", nil))
		look("{a c d} with another's d")
	}},
	{name: "ListingWhileNodesGo", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		var ops []coord.Op
		for i := range 100 {
			ops = append(ops, coord.Create(fmt.Sprintf("/q/n%03d", i), fmt.Appendf(nil, "n%03d", i)))
		}
		made := a.commit(ops...)
		var wg sync.WaitGroup
		wg.Go(func() {
			for _, r := range made[:90] {
				if _, err := a.Commit(e.ctx, coord.Delete(r.Path, r.Fence)); err != nil {
					e.Errorf("delete: %v", err)
				}
			}
		})
		for last := 101; last > 10; {
			l := b.list("/q", coord.ListOptions{Values: true, Fresh: true})
			if len(l.Nodes) > last || len(l.Nodes) < 10 {
				e.Fatalf("%d nodes after %d", len(l.Nodes), last)
			}
			last = len(l.Nodes)
			for _, n := range l.Nodes {
				if n.Path != "/q/"+string(n.Value) {
					e.Errorf("%s has the value %q", n.Path, n.Value)
				}
			}
		}
		wg.Wait()
	}},
	{name: "CommitsAreListedWhole", run: func(e *env) {
		// Each listing shows all nodes of a commit or none.
		a, b := e.openPeer(), e.openPeer()
		done := runAsync(func() error {
			for i := range 30 {
				var ops []coord.Op
				for j := range 10 {
					ops = append(ops, coord.Create(fmt.Sprintf("/q/n%02d-%d", i, j), nil))
				}
				if _, err := a.Commit(e.ctx, ops...); err != nil {
					return err
				}
			}
			return nil
		})
		for last := 0; last < 300; {
			for _, fresh := range []bool{true, false} {
				n := len(b.list("/q", coord.ListOptions{Fresh: fresh}).Nodes)
				if n%10 != 0 {
					e.Fatalf("%d nodes of commits of 10", n)
				}
				last = max(last, n)
			}
			select {
			case o := <-done:
				if o.err != nil {
					e.Fatal(o.err)
				}
				e.wantEqual(len(b.list("/q", coord.ListOptions{Fresh: true}).Nodes), 300, "nodes in the end")
				return
			default:
			}
		}
	}},
}

func (p *peer) count(dir string) int {
	p.Helper()
	n, err := p.Count(p.ctx, dir)
	if err != nil {
		p.Fatalf("count %s: %v", dir, err)
	}
	return n
}

// openFilled returns a client after it has created the nodes 0 to n-1 in /q.
func (e *env) openFilled(n int) *peer {
	e.Helper()
	p := e.openPeer()
	for i := range n {
		p.commitOne(coord.Create(fmt.Sprintf("/q/%d", i), fmt.Append(nil, i)))
	}
	return p
}

// namesByPage lists dir page by page.
func (p *peer) namesByPage(dir string, o coord.ListOptions) string {
	p.Helper()
	var all coord.List
	for range 10000 {
		l := p.list(dir, o)
		if len(l.Nodes) > o.Limit {
			p.Errorf("%d nodes on a page of %d", len(l.Nodes), o.Limit)
		}
		all.Nodes = append(all.Nodes, l.Nodes...)
		if !l.More {
			return joinNames(all)
		}
		if len(l.Nodes) == 0 {
			p.Fatal("an empty page, and more to come")
		}
		o.After = path.Base(l.Nodes[len(l.Nodes)-1].Path)
	}
	p.Fatal("the pages do not end")
	return ""
}
