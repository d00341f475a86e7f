package zkqueue_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testproxy"
	"github.com/zkq/zkq/zkqueue"
)

// TestManyNodesAreReadWithFewRequests reads nodes of every kind in both ways: many with one
// request, and one by one as from an old server.
func TestManyNodesAreReadWithFewRequests(t *testing.T) {
	t.Parallel()
	cfg := zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)}
	counted, requests := count(cfg)
	s, single := session(t, open(t, counted)), session(t, open(t, old(cfg)))
	var paths []string
	for n := range 100 {
		path := fmt.Sprintf("/q/n%02d", n)
		paths = append(paths, path)
		switch n % 4 {
		case 0:
			commit(t, s, coord.Create(path, make([]byte, 7*n)))
		case 1:
			commit(t, s, coord.CreateEphemeral(path, []byte("mine")))
		case 2:
			commit(t, s, coord.Create(path, []byte("old")))
			commit(t, s, coord.Set(path, []byte("new"), 0))
		}
	}
	for _, s := range []coord.Session{s, single} { // what its server knows, it knows by its watches
		if _, err := s.Watch(within(t, patience), "/q"); err != nil {
			t.Fatal(err)
		}
	}
	before, onesBefore := requests.of(opMultiRead), requests.of(opGetData)
	got, err := s.Read(within(t, patience), paths...)
	if err != nil {
		t.Fatal(err)
	}
	want, err := single.Read(within(t, patience), paths...)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read together: %v\none by one: %v", got, want)
	}
	if got[3].Path != "" || got[5].Owner != s.ID() || string(got[6].Value) != "new" || len(got[8].Value) != 56 {
		t.Errorf("read: %v", got[:9])
	}
	if n, ones := requests.of(opMultiRead)-before, requests.of(opGetData)-onesBefore; n != 4 || ones != 0 {
		t.Errorf("100 nodes took %d requests and %d for one each, want 4 and 0", n, ones)
	}
	l, err := s.List(within(t, patience), "/q", coord.ListOptions{Values: true})
	if err != nil {
		t.Fatal(err)
	}
	want = slices.DeleteFunc(want, func(n coord.Node) bool { return n.Path == "" })
	if !reflect.DeepEqual(l.Nodes, want) {
		t.Errorf("listed: %v\nwant %v", l.Nodes, want)
	}
}

// TestOneNodeThatMayNotBeReadHidesNoOther reads and lists such a node with others, in both
// ways.
func TestOneNodeThatMayNotBeReadHidesNoOther(t *testing.T) {
	t.Parallel()
	for _, variant := range []func(zkqueue.Config) zkqueue.Config{old, func(c zkqueue.Config) zkqueue.Config { return c }} {
		cfg := variant(zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)})
		s := session(t, open(t, cfg))
		commit(t, s, coord.Create("/q/a", nil), coord.Create("/q/b", nil))
		if _, err := plain(t).Create(cfg.Chroot+"/q/secret", nil, 0, zk.DigestACL(zk.PermAll, "u", "p")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Watch(within(t, patience), "/q"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(within(t, patience), "/q/secret"); !errors.Is(err, coord.ErrForbidden) {
			t.Errorf("get: %v, want %v", err, coord.ErrForbidden)
		}
		nodes, err := s.Read(within(t, patience), "/q/a", "/q/secret", "/q/none", "/q/b")
		if err != nil || len(nodes) != 4 || nodes[0].Unreadable || nodes[2].Path != "" || nodes[3].Path != "/q/b" {
			t.Fatalf("read: %+v, %v", nodes, err)
		}
		if n := nodes[1]; n.Path != "/q/secret" || !n.Unreadable || len(n.Value) != 0 || n.Created.IsZero() || n.Owner != "" {
			t.Errorf("%+v is the one that may not be read", n)
		}
		l, err := s.List(within(t, patience), "/q", coord.ListOptions{Values: true, Fresh: true})
		if err != nil || len(l.Nodes) != 3 || !l.Nodes[2].Unreadable || l.Nodes[0].Unreadable {
			t.Errorf("list: %+v, %v", l.Nodes, err)
		}
		if nodes, err := s.Read(within(t, patience), "/q/a", "/q/b"); err != nil || nodes[1].Path != "/q/b" {
			t.Errorf("read after a refusal: %v, %v", nodes, err)
		}
	}
}

// TestAServerWithoutMultiReadIsMetLater has a session connect to a newer server first and
// then to an older one, or to one that closes the connection over such a request.
func TestAServerWithoutMultiReadIsMetLater(t *testing.T) {
	t.Parallel()
	for _, code := range []int32{-6, -101, -112, 77} {
		cfg := zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)}
		s := session(t, open(t, refusing(cfg, opMultiRead, code)))
		commit(t, s, coord.Create("/q/a", []byte("1")), coord.Create("/q/b", []byte("2")))
		if _, err := s.Watch(within(t, patience), "/q"); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			nodes, err := s.Read(within(t, patience), "/q/a", "/q/none", "/q/b")
			if err != nil || string(nodes[0].Value) != "1" || nodes[1].Path != "" || string(nodes[2].Value) != "2" {
				t.Fatalf("read, where the answer is %d: %v, %v", code, nodes, err)
			}
		}
	}
}

// TestAReadOutlivesItsConnections cuts connections in the middle of large answers.
func TestAReadOutlivesItsConnections(t *testing.T) {
	t.Parallel()
	link := singleLink(t)
	s := session(t, open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: chroot(t)}))
	var paths []string
	for n := range 64 {
		path := fmt.Sprintf("/q/n%02d", n)
		paths = append(paths, path)
		commit(t, s, coord.Create(path, make([]byte, 100_000+n)))
	}
	if _, err := s.Watch(within(t, patience), "/q"); err != nil {
		t.Fatal(err)
	}
	for _, bytes := range []int{30, 100_000, 3_000_000, 3_300_000, 6_000_000} {
		dials := link.Dials()
		link.CutAfter(testproxy.Replies, bytes)
		var nodes []coord.Node
		read := make(chan error, 1)
		go func() {
			var err error
			nodes, err = s.Read(within(t, patience), paths...)
			read <- err
		}()
		eventually(t, patience, "the connection is cut, and another made", func() bool { return link.Dials() > dials })
		link.Heal()
		if err := <-read; err != nil {
			t.Fatalf("cut after %d bytes: %v", bytes, err)
		}
		for i, n := range nodes {
			if n.Path != paths[i] || len(n.Value) != 100_000+i {
				t.Fatalf("cut after %d bytes: node %d is %s of %d bytes", bytes, i, n.Path, len(n.Value))
			}
		}
	}
}

// TestABarrierOutlivesItsConnection loses the answer to a barrier, which is an empty
// commit, and to the commits merged with it.
func TestABarrierOutlivesItsConnection(t *testing.T) {
	t.Parallel()
	link := singleLink(t)
	s := session(t, open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: chroot(t)}))
	commit(t, s, coord.Create("/q/a", []byte("1")))
	link.LoseAnswers(2, nil)
	for range 3 {
		if n, err := s.Get(within(t, patience), "/q/a"); err != nil || string(n.Value) != "1" {
			t.Errorf("get: %v, %v", n, err)
		}
	}
	if n := link.AnswersLost(); n != 2 {
		t.Errorf("%d answers were lost, not 2", n)
	}
}
