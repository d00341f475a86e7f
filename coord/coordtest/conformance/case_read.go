package conformance

import (
	"fmt"
	"reflect"

	"github.com/zkq/zkq/coord"
)

var readCases = []example{
	{name: "ReadIsInTheOrderOfThePaths", run: func(e *env) {
		p := e.open()
		p.commit(coord.Create("/q/a", []byte("A")), coord.Create("/q/b", []byte{}), coord.CreateEphemeral("/q/c", []byte("C")))
		paths := []string{"/q/c", "/q/none", "/q/a", "/none", "/q/b", "/q/a"}
		nodes := p.read(paths...)
		for i, path := range paths {
			if i == 1 || i == 3 {
				e.equal(nodes[i].Path, "", "path of what is not there")
				continue
			}
			if want := p.get(path); !reflect.DeepEqual(nodes[i], want) {
				e.Errorf("read %+v, got %+v", nodes[i], want)
			}
		}
	}},
	{name: "ReadOfNothing", run: func(e *env) {
		p := e.open()
		e.equal(len(p.read()), 0, "nodes")
	}},
	{name: "ReadOfInvalidPaths", run: func(e *env) {
		p := e.open()
		for _, path := range []string{"", "/", "q", "/q/", "/q//a", "/q/../a", "/q/\x00"} {
			_, err := p.Read(e.ctx, "/q/a", path)
			e.is(err, coord.ErrInvalid, fmt.Sprintf("read %q", path))
		}
	}},
	{name: "ReadOfADirectoryFindsNoNode", run: func(e *env) {
		p := e.open()
		p.do(coord.Create("/q/dir/a", []byte("v")))
		n := p.read("/q/dir", "/q/dir/a")
		e.equal(len(n[0].Value), 0, "value of a directory")
		e.equal(string(n[1].Value), "v", "value below it")
	}},
	{name: "ReadSeesOwnCommits", run: func(e *env) {
		p, other := e.open(), e.open()
		f := p.do(coord.Create("/q/a", []byte("0"))).Fence
		for i := 1; i <= 30; i++ {
			if i%3 == 0 { // another's commits in between
				other.do(coord.Create(fmt.Sprint("/q/other", i), nil))
			}
			value := fmt.Sprint(i)
			f = p.do(coord.Set("/q/a", []byte(value), f)).Fence
			n := p.read("/q/a")[0]
			e.equal(string(n.Value), value, "value")
			e.equal(n.Fence, f, "fence")
			e.equal(n.Changes, int64(i), "changes")
		}
		p.do(coord.Delete("/q/a", f))
		e.equal(p.read("/q/a")[0].Path, "", "path after the delete")
	}},
	{name: "ReadSeesWhatASignalAnnounced", run: func(e *env) {
		a, b := e.open(), e.open()
		signal := a.watch("/q/new")
		f := b.do(coord.Create("/q/value", []byte("0"))).Fence
		for i := 1; i <= 20; i++ {
			value, name := fmt.Sprint(i), fmt.Sprintf("%02d", i)
			f = b.commit(coord.Set("/q/value", []byte(value), f), coord.Create("/q/new/"+name, []byte(value)))[0].Fence
			a.awaits(signal, name+" is seen", func() bool { return a.sees("/q/new", name) })
			n := a.read("/q/value", "/q/new/"+name)
			e.equal(string(n[0].Value), value, "value set in the commit that was signalled")
			e.equal(string(n[1].Value), value, "value created in it")
		}
	}},
	{name: "ReadOfManyPaths", run: func(e *env) {
		p := e.open()
		var paths []string
		for i := range 300 {
			paths = append(paths, fmt.Sprintf("/q/%03d", i))
		}
		for i := 0; i < len(paths); i += 50 {
			var ops []coord.Op
			for _, path := range paths[i : i+50] {
				ops = append(ops, coord.Create(path, []byte(path)))
			}
			p.commit(ops...)
		}
		p.do(coord.Delete("/q/150", p.get("/q/150").Fence))
		for i, n := range p.read(paths...) {
			if i == 150 {
				e.equal(n.Path, "", "path of what was deleted")
				continue
			}
			e.equal(n.Path, paths[i], "path")
			e.equal(string(n.Value), paths[i], "value")
		}
	}},
	{name: "ReadOfLargeValues", run: func(e *env) {
		p := e.open()
		var paths []string
		for i := range 6 {
			path := fmt.Sprint("/q/", i)
			p.do(coord.Create(path, make([]byte, 700<<10+i)))
			paths = append(paths, path)
		}
		for i, n := range p.read(paths...) {
			e.equal(len(n.Value), 700<<10+i, "bytes of "+paths[i])
		}
	}},
	{name: "ReadAfterACut", needs: []string{"Cut"}, run: func(e *env) {
		a, b := e.open(), e.open()
		f := a.do(coord.Create("/q/a", []byte("before"))).Fence
		signal := a.watch("/q")
		a.cut()
		e.noticed()
		b.commit(coord.Set("/q/a", []byte("after"), f), coord.Create("/q/b", nil))
		read := async(func() error { _, err := a.Read(e.ctx, "/q/a"); return err })
		a.heal()
		if err := e.within(a.overdue(), read, "a read that began while cut"); err != nil {
			e.Errorf("read: %v", err)
		}
		a.awaits(signal, "b is seen", func() bool { return a.sees("/q", "b") })
		e.equal(string(a.read("/q/a")[0].Value), "after", "value")
	}},
	{name: "ReadOfASessionThatIsOver", needs: []string{"Expire"}, run: func(e *env) {
		p := e.open()
		p.do(coord.Create("/q/a", nil))
		old := p.Session
		p.expire()
		<-old.Done()
		_, err := old.Read(e.ctx, "/q/a")
		e.is(err, coord.ErrSessionLost, "read")
	}},
}

func (p *peer) read(paths ...string) []coord.Node {
	p.Helper()
	nodes, err := p.Read(p.ctx, paths...)
	if err != nil {
		p.Fatalf("read %v: %v", paths, err)
	}
	if len(nodes) != len(paths) {
		p.Fatalf("%d nodes for %d paths", len(nodes), len(paths))
	}
	return nodes
}
