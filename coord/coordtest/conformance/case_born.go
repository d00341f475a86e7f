package conformance

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/zkq/zkq/coord"
)

var bornCases = []example{
	{name: "BornFindsOneOfMany", run: func(e *env) {
		a, b := e.open(), e.open()
		m := e.marked(a)
		for range 6 {
			a.fill("/q", "n-", 50)
			m.put("/q/n-")
		}
		for i := range m.commits {
			e.equal(m.born(b, i), m.made(i), fmt.Sprintf("born in commit %d", i))
		}
	}},
	{name: "BornFindsABatchInOrder", run: func(e *env) {
		p := e.open()
		p.fill("/q", "n-", 150)
		m := e.marked(p)
		m.put(slices.Repeat([]string{"/q/n-"}, 300)...)
		p.fill("/q", "n-", 150)
		e.equal(m.born(p, 0), m.made(0), "born")
		l := p.list("/q", coord.ListOptions{Born: m.revisions[0], Values: true})
		for i, n := range l.Nodes {
			if string(n.Value) != fmt.Sprint(i) {
				e.Fatalf("the %d. has the value %s", i, n.Value)
			}
		}
	}},
	{name: "BornFindsALargeBatch", run: func(e *env) {
		p := e.open()
		m := e.marked(p)
		p.fill("/q", "n-", 500)
		m.put(slices.Repeat([]string{"/q/n-"}, p.Limits().Creates-1)...)
		p.fill("/q", "n-", 500)
		e.equal(m.born(p, 0), m.made(0), "born")
	}},
	{name: "BornFindsWhatIsInThatDirectoryOnly", run: func(e *env) {
		p := e.open()
		m := e.marked(p)
		m.put("/q/n-", "/r/n-", "/q/deeper/n-", "/q/n-")
		m.put("/r/n-")
		for dir, want := range map[string]int{"/q": 2, "/r": 1, "/q/deeper": 1, "/": 0, "/no/such": 0} {
			e.equal(len(p.list(dir, coord.ListOptions{Born: m.revisions[0]}).Nodes), want, "nodes in "+dir)
		}
	}},
	{name: "BornLeavesOutWhatIsGone", run: func(e *env) {
		a, b := e.open(), e.open()
		m := e.marked(a)
		a.fill("/q", "n-", 100)
		m.put(slices.Repeat([]string{"/q/n-"}, 6)...)
		a.fill("/q", "n-", 100)
		for _, i := range []int{0, 3, 5} {
			r := m.commits[0][i+1]
			b.do(coord.Delete(r.Path, r.Fence))
		}
		left := strings.Fields(m.made(0))
		e.equal(m.born(a, 0), strings.Join([]string{left[1], left[2], left[4]}, " "), "born")
		for _, i := range []int{1, 2, 4} {
			r := m.commits[0][i+1]
			b.do(coord.Delete(r.Path, r.Fence))
		}
		e.equal(m.born(a, 0), "", "born, when all are gone")
		e.equal(len(a.list("/q", coord.ListOptions{Born: m.revisions[0], Values: true}).Nodes), 0, "nodes")
	}},
	{name: "BornFindsWhatIsWrittenSince", run: func(e *env) {
		// An entry that was claimed and released is still the putter's.
		a, b := e.open(), e.open()
		m := e.marked(a)
		m.put("/q/n-", "/q/n-")
		first := m.commits[0][1]
		f := first.Fence
		for range 3 {
			f = b.do(coord.Touch(first.Path, []byte("0"), f)).Fence
		}
		last := b.do(coord.Set(first.Path, []byte("new"), f))
		e.equal(m.born(a, 0), m.made(0), "born")
		e.equal(len(a.list("/q", coord.ListOptions{Born: last.Revision}).Nodes), 0, "nodes of the commit that wrote it last")
		l := a.list("/q", coord.ListOptions{Born: m.revisions[0], Values: true})
		for _, n := range l.Nodes {
			if want := a.get(n.Path); !reflect.DeepEqual(n, want) {
				e.Errorf("listed %+v, got %+v", n, want)
			}
		}
	}},
	{name: "BornFindsAmongForeignNodes", run: func(e *env) {
		// Neither names without a number nor invented numbers hide it.
		p := e.open()
		for i := range 300 {
			p.do(coord.Create(fmt.Sprintf("/q/foreign%d", i), nil))
			if i%3 == 0 {
				p.do(coord.Create(fmt.Sprintf("/q/n-%010d", 7919*i), nil))
			}
		}
		m := e.marked(p)
		p.fill("/q", "n-", 200)
		m.put("/q/n-", "/q/m-")
		p.fill("/q", "l-", 200)
		for i := range 300 {
			p.do(coord.Create(fmt.Sprintf("/q/stranger-%010d", 104729*i), nil))
		}
		for _, name := range []string{"0", "-", "--2147483648", "n--2147483648", "n-99999999999", "n-+000000001"} {
			p.do(coord.Create("/q/"+name, nil))
		}
		got := strings.Fields(m.born(p, 0))
		want := strings.Fields(m.made(0))
		slices.Sort(want)
		e.equal(fmt.Sprint(got), fmt.Sprint(want), "born")
	}},
	{name: "BornIsFresh", run: func(e *env) {
		a, b := e.open(), e.open()
		m := e.marked(a)
		for i := range 30 {
			m.put("/q/n-")
			e.equal(m.born(b, i), m.made(i), fmt.Sprintf("born in commit %d", i))
		}
	}},
	{name: "BornIsNotListedInPages", run: func(e *env) {
		p := e.open()
		for _, o := range []coord.ListOptions{{Born: 1, Limit: 1}, {Born: 1, After: "a"}, {Born: -1}, {Limit: -1}} {
			_, err := p.List(e.ctx, "/q", o)
			e.is(err, coord.ErrInvalid, fmt.Sprintf("%+v", o))
		}
	}},
}

// marker makes commits that tell what they created by a node they all write.
type marker struct {
	*env
	p         *peer
	fence     coord.Fence
	commits   [][]coord.Result
	revisions []int64
}

func (e *env) marked(p *peer) *marker {
	e.Helper()
	return &marker{env: e, p: p, fence: p.do(coord.Create("/marker/m", nil)).Fence}
}

// put creates sequential nodes whose values count them.
func (m *marker) put(prefixes ...string) {
	m.Helper()
	ops := []coord.Op{coord.Set("/marker/m", fmt.Append(nil, len(m.commits)), m.fence)}
	for i, prefix := range prefixes {
		ops = append(ops, coord.CreateSequential(prefix, fmt.Append(nil, i)))
	}
	r := m.p.commit(ops...)
	m.fence = r[0].Fence
	m.commits = append(m.commits, r)
	m.revisions = append(m.revisions, m.p.get("/marker/m").Revision)
}

// made is what the i-th put was told that it created.
func (m *marker) made(i int) string {
	var l coord.List
	for _, r := range m.commits[i][1:] {
		l.Nodes = append(l.Nodes, coord.Node{Path: r.Path})
	}
	return names(l)
}

// born is what p finds of it.
func (m *marker) born(p *peer, i int) string {
	m.Helper()
	return names(p.list("/q", coord.ListOptions{Born: m.revisions[i]}))
}

// fill puts n sequential nodes into dir, each in a commit of its own or nearly so.
func (p *peer) fill(dir, prefix string, n int) {
	p.Helper()
	for n > 0 {
		ops := slices.Repeat([]coord.Op{coord.CreateSequential(dir+"/"+prefix, nil)}, min(n, 5))
		p.commit(ops...)
		n -= len(ops)
	}
}
