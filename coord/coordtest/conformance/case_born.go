package conformance

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/zkq/zkq/coord"
)

var bornCases = []testCase{
	{name: "BornFindsOneOfMany", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		m := e.newMarker(a)
		for range 6 {
			a.fill("/q", "n-", 50)
			m.put("/q/n-")
		}
		for i := range m.commits {
			e.wantEqual(m.namesBorn(b, i), m.namesAnswered(i), fmt.Sprintf("born in commit %d", i))
		}
	}},
	{name: "BornFindsABatchInOrder", run: func(e *env) {
		p := e.openPeer()
		p.fill("/q", "n-", 150)
		m := e.newMarker(p)
		m.put(slices.Repeat([]string{"/q/n-"}, 300)...)
		p.fill("/q", "n-", 150)
		e.wantEqual(m.namesBorn(p, 0), m.namesAnswered(0), "born")
		l := p.list("/q", coord.ListOptions{Born: m.revisions[0], Values: true})
		for i, n := range l.Nodes {
			if string(n.Value) != fmt.Sprint(i) {
				e.Fatalf("the %d. has the value %s", i, n.Value)
			}
		}
	}},
	{name: "BornFindsALargeBatch", run: func(e *env) {
		p := e.openPeer()
		m := e.newMarker(p)
		p.fill("/q", "n-", 500)
		m.put(slices.Repeat([]string{"/q/n-"}, p.Limits().Creates-1)...)
		p.fill("/q", "n-", 500)
		e.wantEqual(m.namesBorn(p, 0), m.namesAnswered(0), "born")
	}},
	{name: "BornFindsWhatIsInThatDirectoryOnly", run: func(e *env) {
		p := e.openPeer()
		m := e.newMarker(p)
		m.put("/q/n-", "/r/n-", "/q/deeper/n-", "/q/n-")
		m.put("/r/n-")
		for dir, want := range map[string]int{"/q": 2, "/r": 1, "/q/deeper": 1, "/": 0, "/no/such": 0} {
			e.wantEqual(len(p.list(dir, coord.ListOptions{Born: m.revisions[0]}).Nodes), want, "nodes in "+dir)
		}
	}},
	{name: "BornLeavesOutWhatIsGone", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		m := e.newMarker(a)
		a.fill("/q", "n-", 100)
		m.put(slices.Repeat([]string{"/q/n-"}, 6)...)
		a.fill("/q", "n-", 100)
		for _, i := range []int{0, 3, 5} {
			r := m.commits[0][i+1]
			b.commitOne(coord.Delete(r.Path, r.Fence))
		}
		left := strings.Fields(m.namesAnswered(0))
		e.wantEqual(m.namesBorn(a, 0), strings.Join([]string{left[1], left[2], left[4]}, " "), "born")
		for _, i := range []int{1, 2, 4} {
			r := m.commits[0][i+1]
			b.commitOne(coord.Delete(r.Path, r.Fence))
		}
		e.wantEqual(m.namesBorn(a, 0), "", "born, when all are gone")
		e.wantEqual(len(a.list("/q", coord.ListOptions{Born: m.revisions[0], Values: true}).Nodes), 0, "nodes")
	}},
	{name: "BornFindsWhatIsWrittenSince", run: func(e *env) {
		// A put finds its entries also after another client has claimed and released them.
		a, b := e.openPeer(), e.openPeer()
		m := e.newMarker(a)
		m.put("/q/n-", "/q/n-")
		first := m.commits[0][1]
		f := first.Fence
		for range 3 {
			f = b.commitOne(coord.Touch(first.Path, []byte("0"), f)).Fence
		}
		last := b.commitOne(coord.Set(first.Path, []byte("new"), f))
		e.wantEqual(m.namesBorn(a, 0), m.namesAnswered(0), "born")
		e.wantEqual(len(a.list("/q", coord.ListOptions{Born: last.Revision}).Nodes), 0, "nodes of the commit that wrote it last")
		l := a.list("/q", coord.ListOptions{Born: m.revisions[0], Values: true})
		for _, n := range l.Nodes {
			if want := a.get(n.Path); !reflect.DeepEqual(n, want) {
				e.Errorf("listed %+v, got %+v", n, want)
			}
		}
	}},
	{name: "BornFindsAmongForeignNodes", run: func(e *env) {
		// Neither names without a number nor names with an invented number hide a node.
		p := e.openPeer()
		for i := range 300 {
			p.commitOne(coord.Create(fmt.Sprintf("/q/foreign%d", i), nil))
			if i%3 == 0 {
				p.commitOne(coord.Create(fmt.Sprintf("/q/n-%010d", 7919*i), nil))
			}
		}
		m := e.newMarker(p)
		p.fill("/q", "n-", 200)
		m.put("/q/n-", "/q/m-")
		p.fill("/q", "l-", 200)
		for i := range 300 {
			p.commitOne(coord.Create(fmt.Sprintf("/q/stranger-%010d", 104729*i), nil))
		}
		for _, name := range []string{"0", "-", "--2147483648", "n--2147483648", "n-99999999999", "n-+000000001"} {
			p.commitOne(coord.Create("/q/"+name, nil))
		}
		got := strings.Fields(m.namesBorn(p, 0))
		want := strings.Fields(m.namesAnswered(0))
		slices.Sort(want)
		e.wantEqual(fmt.Sprint(got), fmt.Sprint(want), "born")
	}},
	{name: "BornIsFresh", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		m := e.newMarker(a)
		for i := range 30 {
			m.put("/q/n-")
			e.wantEqual(m.namesBorn(b, i), m.namesAnswered(i), fmt.Sprintf("born in commit %d", i))
		}
	}},
	{name: "BornIsNotListedInPages", run: func(e *env) {
		p := e.openPeer()
		for _, o := range []coord.ListOptions{{Born: 1, Limit: 1}, {Born: 1, After: "a"}, {Born: -1}, {Limit: -1}} {
			_, err := p.List(e.ctx, "/q", o)
			e.wantError(err, coord.ErrInvalid, fmt.Sprintf("%+v", o))
		}
	}},
}

// marker makes commits that all write one node. What a commit created can be found by
// the revision at which it wrote that node.
type marker struct {
	*env
	peer      *peer
	fence     coord.Fence
	commits   [][]coord.Result
	revisions []int64
}

func (e *env) newMarker(p *peer) *marker {
	e.Helper()
	return &marker{env: e, peer: p, fence: p.commitOne(coord.Create("/marker/m", nil)).Fence}
}

// put creates a sequential node for each prefix, in one commit.
func (m *marker) put(prefixes ...string) {
	m.Helper()
	ops := []coord.Op{coord.Set("/marker/m", fmt.Append(nil, len(m.commits)), m.fence)}
	for i, prefix := range prefixes {
		ops = append(ops, coord.CreateSequential(prefix, fmt.Append(nil, i)))
	}
	r := m.peer.commit(ops...)
	m.fence = r[0].Fence
	m.commits = append(m.commits, r)
	m.revisions = append(m.revisions, m.peer.get("/marker/m").Revision)
}

// namesAnswered returns the names that the i-th put was told that it created.
func (m *marker) namesAnswered(i int) string {
	var l coord.List
	for _, r := range m.commits[i][1:] {
		l.Nodes = append(l.Nodes, coord.Node{Path: r.Path})
	}
	return joinNames(l)
}

// namesBorn returns the names of the i-th put that p finds.
func (m *marker) namesBorn(p *peer, i int) string {
	m.Helper()
	return joinNames(p.list("/q", coord.ListOptions{Born: m.revisions[i]}))
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
