package conformance

import (
	"fmt"
	"reflect"

	"github.com/zkq/zkq/coord"
)

var readCases = []testCase{
	{name: "ReadIsInTheOrderOfThePaths", run: func(e *env) {
		p := e.openPeer()
		p.commit(coord.Create("/q/a", []byte("A")), coord.Create("/q/b", []byte{}), coord.CreateEphemeral("/q/c", []byte("C")))
		paths := []string{"/q/c", "/q/none", "/q/a", "/none", "/q/b", "/q/a"}
		nodes := p.read(paths...)
		for i, path := range paths {
			if i == 1 || i == 3 {
				e.wantEqual(nodes[i].Path, "", "path of what is not there")
				continue
			}
			if want := p.get(path); !reflect.DeepEqual(nodes[i], want) {
				e.Errorf("read %+v, got %+v", nodes[i], want)
			}
		}
	}},
	{name: "ReadOfNothing", run: func(e *env) {
		p := e.openPeer()
		e.wantEqual(len(p.read()), 0, "nodes")
	}},
	{name: "ReadOfInvalidPaths", run: func(e *env) {
		p := e.openPeer()
		for _, path := range []string{"", "/", "q", "/q/", "/q//a", "/q/../a", "/q/\x00"} {
			_, err := p.Read(e.ctx, "/q/a", path)
			e.wantError(err, coord.ErrInvalid, fmt.Sprintf("read %q", path))
		}
	}},
	{name: "ReadOfADirectoryFindsNoNode", run: func(e *env) {
		p := e.openPeer()
		p.commitOne(coord.Create("/q/dir/a", []byte("v")))
		n := p.read("/q/dir", "/q/dir/a")
		e.wantEqual(len(n[0].Value), 0, "value of a directory")
		e.wantEqual(string(n[1].Value), "v", "value below it")
	}},
	{name: "ReadSeesOwnCommits", run: func(e *env) {
		p, other := e.openPeer(), e.openPeer()
		f := p.commitOne(coord.Create("/q/a", []byte("0"))).Fence
		for i := 1; i <= 30; i++ {
			if i%3 == 0 { // commits of another client in between
				other.commitOne(coord.Create(fmt.Sprint("/q/other", i), nil))
			}
			value := fmt.Sprint(i)
			f = p.commitOne(coord.Set("/q/a", []byte(value), f)).Fence
			n := p.read("/q/a")[0]
			e.wantEqual(string(n.Value), value, "value")
			e.wantEqual(n.Fence, f, "fence")
			e.wantEqual(n.Changes, int64(i), "changes")
		}
		p.commitOne(coord.Delete("/q/a", f))
		e.wantEqual(p.read("/q/a")[0].Path, "", "path after the delete")
	}},
	{name: "ReadSeesWhatASignalAnnounced", run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		signal := a.watch("/q/new")
		f := b.commitOne(coord.Create("/q/value", []byte("0"))).Fence
		for i := 1; i <= 20; i++ {
			value, name := fmt.Sprint(i), fmt.Sprintf("%02d", i)
			f = b.commit(coord.Set("/q/value", []byte(value), f), coord.Create("/q/new/"+name, []byte(value)))[0].Fence
			a.awaitSignals(signal, name+" is seen", func() bool { return a.hasSeen("/q/new", name) })
			n := a.read("/q/value", "/q/new/"+name)
			e.wantEqual(string(n[0].Value), value, "value set in the commit that was signalled")
			e.wantEqual(string(n[1].Value), value, "value created in it")
		}
	}},
	{name: "ReadOfManyPaths", run: func(e *env) {
		p := e.openPeer()
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
		p.commitOne(coord.Delete("/q/150", p.get("/q/150").Fence))
		for i, n := range p.read(paths...) {
			if i == 150 {
				e.wantEqual(n.Path, "", "path of what was deleted")
				continue
			}
			e.wantEqual(n.Path, paths[i], "path")
			e.wantEqual(string(n.Value), paths[i], "value")
		}
	}},
	{name: "ReadOfLargeValues", run: func(e *env) {
		p := e.openPeer()
		var paths []string
		for i := range 6 {
			path := fmt.Sprint("/q/", i)
			p.commitOne(coord.Create(path, make([]byte, 700<<10+i)))
			paths = append(paths, path)
		}
		for i, n := range p.read(paths...) {
			e.wantEqual(len(n.Value), 700<<10+i, "bytes of "+paths[i])
		}
	}},
	{name: "ReadAfterACut", hooks: []string{"Cut"}, run: func(e *env) {
		a, b := e.openPeer(), e.openPeer()
		f := a.commitOne(coord.Create("/q/a", []byte("before"))).Fence
		signal := a.watch("/q")
		a.cut()
		e.waitForDisconnect()
		b.commit(coord.Set("/q/a", []byte("after"), f), coord.Create("/q/b", nil))
		read := runAsync(func() error { _, err := a.Read(e.ctx, "/q/a"); return err })
		a.heal()
		if err := e.awaitOutcome(a.expiryLimit(), read, "a read that began while cut"); err != nil {
			e.Errorf("read: %v", err)
		}
		a.awaitSignals(signal, "b is seen", func() bool { return a.hasSeen("/q", "b") })
		e.wantEqual(string(a.read("/q/a")[0].Value), "after", "value")
	}},
	{name: "ReadOfASessionThatIsOver", hooks: []string{"Expire"}, run: func(e *env) {
		p := e.openPeer()
		p.commitOne(coord.Create("/q/a", nil))
		old := p.Session
		p.expire()
		<-old.Done()
		_, err := old.Read(e.ctx, "/q/a")
		e.wantError(err, coord.ErrSessionLost, "read")
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
