package conformance

import (
	"fmt"
	"path"
	"reflect"
	"strings"
	"sync"

	"github.com/zkq/zkq/coord"
)

var listCases = []example{
	{name: "MissingDirectoryIsEmpty", run: func(e *env) {
		p := e.open()
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
		p := e.open()
		f := p.do(coord.Create("/q/a", nil)).Fence
		p.do(coord.Delete("/q/a", f))
		e.equal(len(p.list("/q", coord.ListOptions{}).Nodes), 0, "nodes")
		e.equal(p.count("/q"), 0, "count")
	}},
	{name: "LeafHasNoChildren", run: func(e *env) {
		p := e.open()
		p.commit(coord.Create("/q/a", nil), coord.Create("/q/ab", nil))
		e.equal(p.fresh("/q/a"), "", "listed")
		e.equal(p.count("/q/a"), 0, "count")
	}},
	{name: "ListIsInByteOrder", run: func(e *env) {
		p := e.open()
		for _, name := range strings.Fields("b a B A 10 9 _ - ~ ä aa a-") {
			p.do(coord.Create("/q/"+name, nil))
		}
		const want = "- 10 9 A B _ a a- aa b ~ ä"
		e.equal(p.fresh("/q"), want, "names")
		e.equal(names(p.list("/q", coord.ListOptions{Values: true})), want, "with values")
	}},
	{name: "ListHasDirectChildrenOnly", run: func(e *env) {
		p := e.open()
		p.commit(coord.Create("/q/a", nil), coord.Create("/q/d/x", nil), coord.Create("/q/d/y", nil), coord.Create("/q/d/e/z", nil), coord.Create("/q/z", nil))
		e.equal(p.fresh("/q"), "a d z", "names")
		e.equal(p.fresh("/q/d"), "e x y", "names below")
		e.equal(names(p.list("/q", coord.ListOptions{Values: true, Fresh: true})), "a z", "with values, no directories")
	}},
	{name: "DirectoriesSortAmongNodes", run: func(e *env) {
		// A directory's name is what counts, not the paths of what is in it: "-"
		// and "." sort before the slash, digits after it.
		p := e.open()
		for _, path := range []string{"/q/a/x", "/q/a/y", "/q/a-b", "/q/a.b", "/q/a0", "/q/a!/z", "/q/b/x", "/q/b-"} {
			p.do(coord.Create(path, nil))
		}
		const want = "a a! a-b a.b a0 b b-"
		e.equal(p.fresh("/q"), want, "names")
		for limit := 1; limit <= 8; limit++ {
			e.equal(p.paged("/q", coord.ListOptions{Limit: limit}), want, fmt.Sprintf("in pages of %d", limit))
		}
		e.equal(names(p.list("/q", coord.ListOptions{After: "a"})), "a! a-b a.b a0 b b-", "after the directory")
	}},
	{name: "NeighboursWithOnePrefixStayApart", run: func(e *env) {
		p := e.open()
		for _, path := range []string{"/q/a", "/qq/b", "/q-/c", "/q0/d", "/Q/e"} {
			p.do(coord.Create(path, nil))
		}
		for dir, want := range map[string]string{"/q": "a", "/qq": "b", "/q-": "c", "/q0": "d", "/Q": "e"} {
			e.equal(p.fresh(dir), want, dir)
			e.equal(p.count(dir), 1, "count "+dir)
		}
	}},
	{name: "RootIsListed", run: func(e *env) {
		p := e.open()
		p.commit(coord.Create("/q/a", nil), coord.Create("/top", nil))
		got := " " + p.fresh("/") + " "
		if !strings.Contains(got, " q ") || !strings.Contains(got, " top ") {
			e.Errorf("%q", got)
		}
	}},
	{name: "ListGivesPaths", run: func(e *env) {
		p := e.open()
		p.do(coord.Create("/q/a", nil))
		e.equal(p.list("/q", coord.ListOptions{}).Nodes[0].Path, "/q/a", "path")
		p.do(coord.Create("/top", nil))
		for _, n := range p.list("/", coord.ListOptions{}).Nodes {
			if n.Path[0] != '/' || strings.Count(n.Path, "/") != 1 {
				e.Errorf("path %s", n.Path)
			}
		}
	}},
	{name: "ValuesAreWholeNodes", run: func(e *env) {
		a, b := e.open(), e.open()
		f := a.do(coord.Create("/q/a", []byte("1"))).Fence
		a.do(coord.Set("/q/a", []byte("2"), f))
		a.do(coord.CreateEphemeral("/q/b", []byte("lock")))
		a.do(coord.CreateSequential("/q/c-", nil))
		for _, p := range []*peer{a, b} {
			l := p.list("/q", coord.ListOptions{Values: true, Fresh: true})
			e.equal(len(l.Nodes), 3, "nodes")
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
		p := e.filled(5)
		for limit, want := range []string{"0 1 2 3 4", "0", "0 1", "0 1 2", "0 1 2 3", "0 1 2 3 4", "0 1 2 3 4"} {
			for _, values := range []bool{false, true} {
				l := p.list("/q", coord.ListOptions{Limit: limit, Values: values})
				e.equal(names(l), want, fmt.Sprintf("limit %d", limit))
				e.equal(l.More, len(l.Nodes) < 5, fmt.Sprintf("more at limit %d", limit))
			}
		}
	}},
	{name: "AfterLeavesOut", run: func(e *env) {
		p := e.filled(5)
		for after, want := range map[string]string{"": "0 1 2 3 4", "0": "1 2 3 4", "00": "1 2 3 4", "2": "3 4", "25": "3 4", "4": "", "5": "", "!": "0 1 2 3 4"} {
			for _, values := range []bool{false, true} {
				l := p.list("/q", coord.ListOptions{After: after, Values: values})
				e.equal(names(l), want, fmt.Sprintf("after %q", after))
				e.equal(l.More, false, "more")
			}
		}
	}},
	{name: "PagesMakeTheWhole", run: func(e *env) {
		p := e.filled(10)
		for limit := 1; limit <= 11; limit++ {
			for _, values := range []bool{false, true} {
				got := p.paged("/q", coord.ListOptions{Limit: limit, Values: values, Fresh: values})
				e.equal(got, "0 1 2 3 4 5 6 7 8 9", fmt.Sprintf("in pages of %d", limit))
			}
		}
	}},
	{name: "LargeDirectoryIsListed", run: func(e *env) {
		p := e.open()
		const n = 3000
		for i := 0; i < n; i += 500 {
			ops := make([]coord.Op, 500)
			for j := range ops {
				ops[j] = coord.Create(fmt.Sprintf("/q/n%05d", i+j), fmt.Append(nil, i+j))
			}
			p.commit(ops...)
		}
		e.equal(p.count("/q"), n, "count")
		for _, o := range []coord.ListOptions{{}, {Fresh: true}, {Values: true}} {
			l := p.list("/q", o)
			e.equal(len(l.Nodes), n, "nodes")
			for i, node := range l.Nodes {
				if node.Path != fmt.Sprintf("/q/n%05d", i) || o.Values && string(node.Value) != fmt.Sprint(i) {
					e.Fatalf("the %d. is %s: %q", i, node.Path, node.Value)
				}
			}
		}
		e.equal(len(strings.Fields(p.paged("/q", coord.ListOptions{Limit: 700}))), n, "in pages")
	}},
	{name: "OwnWritesAreListed", run: func(e *env) {
		p := e.open()
		for i := range 20 {
			r := p.do(coord.CreateSequential("/q/n-", nil))
			if got := names(p.list("/q", coord.ListOptions{})); !strings.Contains(r.Path, got) || got == "" {
				e.Fatalf("round %d: listed %q after %s", i, got, r.Path)
			}
			p.do(coord.Delete(r.Path, r.Fence))
			e.equal(names(p.list("/q", coord.ListOptions{})), "", "listed after the delete")
		}
	}},
	{name: "FreshListsWhatOthersWereAnswered", run: func(e *env) {
		a, b := e.open(), e.open()
		for i := range 30 {
			r := a.do(coord.Create("/q/n", nil))
			e.equal(b.fresh("/q"), "n", fmt.Sprintf("round %d, created", i))
			e.equal(b.count("/q"), 1, "count")
			a.do(coord.Delete("/q/n", r.Fence))
			e.equal(b.fresh("/q"), "", fmt.Sprintf("round %d, deleted", i))
			e.equal(b.count("/q"), 0, "count")
		}
	}},
	{name: "FreshValuesAreWhatOthersWereAnswered", run: func(e *env) {
		a, b := e.open(), e.open()
		f := a.do(coord.Create("/q/n", nil)).Fence
		for i := range 20 {
			f = a.do(coord.Set("/q/n", fmt.Append(nil, i), f)).Fence
			l := b.list("/q", coord.ListOptions{Fresh: true, Values: true})
			if len(l.Nodes) != 1 || string(l.Nodes[0].Value) != fmt.Sprint(i) || l.Nodes[0].Fence != f {
				e.Fatalf("round %d: %+v", i, l.Nodes)
			}
		}
	}},
	{name: "GetReadsWhatOthersWereAnswered", run: func(e *env) {
		a, b := e.open(), e.open()
		f := a.do(coord.Create("/q/n", nil)).Fence
		for i := range 40 {
			f = a.do(coord.Set("/q/n", fmt.Append(nil, i), f)).Fence
			e.equal(b.get("/q/n").Fence, f, fmt.Sprintf("fence in round %d", i))
		}
	}},
	{name: "CountCounts", run: func(e *env) {
		p := e.open()
		for i := range 25 {
			e.equal(p.count("/q"), i, "count")
			p.do(coord.CreateSequential("/q/n-", nil))
		}
		p.do(coord.CreateEphemeral("/q/e", nil))
		e.equal(p.count("/q"), 26, "count with an ephemeral node")
	}},
	{name: "StampStandsWhileNothingChanges", run: func(e *env) {
		p := e.filled(3)
		want := p.list("/q", coord.ListOptions{Fresh: true}).Stamp
		for _, o := range []coord.ListOptions{{}, {Fresh: true}, {Limit: 3}, {Limit: 10}} {
			e.equal(p.list("/q", o).Stamp, want, fmt.Sprintf("stamp of %+v", o))
		}
		p.do(coord.Create("/elsewhere/a", nil))
		e.equal(p.list("/q", coord.ListOptions{Fresh: true}).Stamp, want, "stamp after a change elsewhere")
	}},
	{name: "StampMovesWithTheMembers", run: func(e *env) {
		a, b := e.open(), e.open()
		stamps := map[uint64]string{}
		look := func(when string) {
			e.Helper()
			stamp := b.list("/q", coord.ListOptions{Fresh: true}).Stamp
			if was, ok := stamps[stamp]; ok {
				e.Errorf("%s has the stamp of %s", when, was)
			}
			stamps[stamp] = when
		}
		a.do(coord.Create("/q/a", nil))
		look("{a}")
		f := a.do(coord.Create("/q/b", nil)).Fence
		look("{a b}")
		a.do(coord.Delete("/q/b", f))
		f = a.do(coord.Create("/q/b", nil)).Fence
		look("{a b} after a delete and a create")
		a.commit(coord.Delete("/q/b", f), coord.Create("/q/c", nil))
		look("{a c}")
		a.do(coord.CreateEphemeral("/q/d", nil))
		look("{a c d}")
		if err := a.c.Close(); err != nil {
			e.Fatal(err)
		}
		b.do(coord.CreateEphemeral("/q/d", nil))
		look("{a c d} with another's d")
	}},
	{name: "ListingWhileNodesGo", run: func(e *env) {
		a, b := e.open(), e.open()
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
		// All or none of a commit in any listing.
		a, b := e.open(), e.open()
		done := async(func() error {
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
				e.equal(len(b.list("/q", coord.ListOptions{Fresh: true}).Nodes), 300, "nodes in the end")
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

// filled returns a client, having put nodes named by the first n digits into /q.
func (e *env) filled(n int) *peer {
	e.Helper()
	p := e.open()
	for i := range n {
		p.do(coord.Create(fmt.Sprintf("/q/%d", i), fmt.Append(nil, i)))
	}
	return p
}

// paged lists dir page by page.
func (p *peer) paged(dir string, o coord.ListOptions) string {
	p.Helper()
	var all coord.List
	for range 10000 {
		l := p.list(dir, o)
		if len(l.Nodes) > o.Limit {
			p.Errorf("%d nodes on a page of %d", len(l.Nodes), o.Limit)
		}
		all.Nodes = append(all.Nodes, l.Nodes...)
		if !l.More {
			return names(all)
		}
		if len(l.Nodes) == 0 {
			p.Fatal("an empty page, and more to come")
		}
		o.After = path.Base(l.Nodes[len(l.Nodes)-1].Path)
	}
	p.Fatal("the pages do not end")
	return ""
}
