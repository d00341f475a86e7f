package zkqueue_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/zkqueue"
)

// plain returns a client of go-zookeeper's, to look at nodes without the driver.
func plain(t testing.TB) *zk.Conn {
	t.Helper()
	c, events, err := zk.Connect(servers.Single(t).Addresses(), 30*time.Second, zk.WithLogger(nolog{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		for range events {
		}
	})
	return c
}

type nolog struct{}

func (nolog) Printf(string, ...any) {}

func TestCommitLeavesNodesAsKazooDoes(t *testing.T) {
	root := chroot(t)
	s := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}))
	const lock = "0123456789abcdef0123456789abcdef"
	rs := commit(t, s, coord.CreateSequential("/q/entries/entry-100-", []byte("job")), coord.CreateSequential("/q/entries/entry-005-", nil))
	if rs[0].Path != "/q/entries/entry-100-0000000000" || rs[1].Path != "/q/entries/entry-005-0000000001" {
		t.Fatalf("entries are %q and %q", rs[0].Path, rs[1].Path)
	}
	commit(t, s, coord.CreateEphemeral("/q/taken/entry-100-0000000000", []byte(lock)))
	commit(t, s, coord.CreateSequential("/simple/entry-100-", []byte("job")))

	z := plain(t)
	for _, want := range []struct {
		path      string
		value     string
		version   int32
		ephemeral bool
	}{
		{"/q", "", 0, false},
		{"/q/entries", "", 0, false},
		{"/q/taken", "", 0, false},
		{"/q/entries/entry-100-0000000000", "job", 0, false},
		{"/q/entries/entry-005-0000000001", "", 0, false},
		{"/q/taken/entry-100-0000000000", lock, 1, true},
		{"/simple/entry-100-0000000000", "job", 0, false},
		{"/zkq/format", "1", 0, false},
	} {
		value, stat, err := z.Get(root + want.path)
		if err != nil {
			t.Errorf("%s: %v", want.path, err)
			continue
		}
		if value == nil || string(value) != want.value {
			t.Errorf("%s holds %#v, want %q and not nil", want.path, value, want.value)
		}
		if stat.Version != want.version || (stat.EphemeralOwner != 0) != want.ephemeral {
			t.Errorf("%s stands at version %d, owner %x; want %d, ephemeral %v", want.path, stat.Version, stat.EphemeralOwner, want.version, want.ephemeral)
		}
		acl, _, err := z.GetACL(root + want.path)
		if err != nil || len(acl) != 1 || acl[0] != (zk.ACL{Perms: 31, Scheme: "world", ID: "anyone"}) {
			t.Errorf("%s has ACL %v, %v; want world:anyone:31", want.path, acl, err)
		}
	}
}

func TestNodesOfOthersReadAsTheyAre(t *testing.T) {
	root := chroot(t)
	s := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}))
	commit(t, s, coord.CreateSequential("/q/taken/x-", nil))
	z := plain(t)
	if _, err := z.Create(root+"/q/taken/lock", nil, zk.FlagEphemeral, zk.WorldACL(31)); err != nil {
		t.Fatal(err)
	}
	n, err := s.Get(within(t, patience), "/q/taken/lock")
	if err != nil {
		t.Fatal(err)
	}
	if n.Value == nil || len(n.Value) != 0 || n.Fence != 0 || n.Changes != 0 || n.Owner == "" || n.Owner == s.ID() {
		t.Errorf("a kazoo lock reads as %+v", n)
	}
	// A lock of ours has version 1, so a delete of it cannot remove kazoo's lock.
	if _, err := s.Commit(within(t, patience), coord.Delete("/q/taken/lock", 1)); !errors.Is(err, coord.ErrVersion) {
		t.Errorf("delete of a kazoo lock at fence 1: %v, want ErrVersion", err)
	}
}

func TestEphemeralStandsAtOneWithoutChanges(t *testing.T) {
	s := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)}))
	rs := commit(t, s, coord.CreateEphemeral("/q/taken/a", []byte("x")))
	n, err := s.Get(within(t, patience), "/q/taken/a")
	if err != nil {
		t.Fatal(err)
	}
	if n.Fence != 1 || rs[0].Fence != 1 || n.Changes != 0 || n.Owner != s.ID() || rs[0].Revision == 0 || n.Revision != rs[0].Revision {
		t.Errorf("node %+v, result %+v", n, rs[0])
	}
}

func TestNoFenceMeansAnyVersion(t *testing.T) {
	s := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)}))
	commit(t, s, coord.Create("/q/a", nil))
	for _, at := range []coord.Fence{-1, -2, 1 << 32, 1<<32 - 1} {
		for _, op := range []coord.Op{coord.Delete("/q/a", at), coord.Set("/q/a", nil, at), coord.Check("/q/a", at)} {
			if _, err := s.Commit(within(t, patience), op); !errors.Is(err, coord.ErrVersion) {
				t.Errorf("%v at fence %d: %v, want ErrVersion", op.Kind, at, err)
			}
		}
		if _, err := s.Commit(within(t, patience), coord.Delete("/q/none", at)); !errors.Is(err, coord.ErrNotExist) {
			t.Errorf("delete of nothing at fence %d: %v, want ErrNotExist", at, err)
		}
	}
}

func TestTooLargeIsRefusedHereAndTheConnectionLives(t *testing.T) {
	link := singleLink(t)
	s := session(t, open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: chroot(t)}))
	dials := link.Dials()
	for name, ops := range map[string][]coord.Op{
		"a value of 1 MiB":  {coord.Create("/q/a", make([]byte, 1<<20))},
		"two of half a MiB": {coord.Create("/q/a", make([]byte, 1<<19)), coord.Create("/q/b", make([]byte, 1<<19))},
		"paths twice":       {coord.Create("/q/v", make([]byte, 1<<20-4096)), coord.CreateEphemeral("/q/"+strings.Repeat("x", 2000), make([]byte, 1800))},
	} {
		_, err := s.Commit(within(t, patience), ops...)
		var limit *coord.LimitError
		if !errors.Is(err, coord.ErrTooLarge) || !errors.As(err, &limit) || limit.Size <= limit.Limit {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
	}
	if names := names(t, s, "/q", coord.ListOptions{Fresh: true}); len(names) != 0 {
		t.Errorf("something was created: %q", names)
	}
	// The largest goes through, and comes back.
	value := bytes.Repeat([]byte("x"), s.Limits().ValueBytes)
	commit(t, s, coord.Create("/q/a", value))
	if n, err := s.Get(within(t, patience), "/q/a"); err != nil || !bytes.Equal(n.Value, value) {
		t.Errorf("the largest value came back with %d bytes, %v", len(n.Value), err)
	}
	if n := link.Dials(); n != dials {
		t.Errorf("%d connections were made meanwhile", n-dials)
	}
}

// TestFrameSizeIsExact fills a request to the last byte that ZooKeeper accepts. If the
// driver counted too little, the server would close the connection.
func TestFrameSizeIsExact(t *testing.T) {
	link := singleLink(t)
	s := session(t, open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: chroot(t)}))
	commit(t, s, coord.Create("/q/set", nil), coord.Create("/q/touch", nil), coord.Create("/q/delete", nil), coord.Create("/q/check", nil),
		coord.CreateEphemeral("/q/replace", nil))
	dials := link.Dials()
	long := strings.Repeat("p", 3000)
	ops := func(fill int) []coord.Op {
		return []coord.Op{
			coord.CreateEphemeral("/q/"+long, []byte("x")), coord.CreateSequential("/q/s-", []byte("x")), coord.Set("/q/set", []byte("x"), 0),
			coord.Touch("/q/touch", nil, 0), coord.Delete("/q/delete", 0), coord.Check("/q/check", 0), coord.Replace("/q/replace", []byte("x"), 1),
			coord.Create("/q/fill", make([]byte, fill)),
		}
	}
	_, err := s.Commit(within(t, patience), ops(1_044_000)...)
	var limit *coord.LimitError
	if !errors.As(err, &limit) || limit.Size <= limit.Limit {
		t.Fatalf("want a LimitError, got %v", err)
	}
	most := 1_044_000 - (limit.Size - limit.Limit)
	if _, err := s.Commit(within(t, patience), ops(most+1)...); !errors.Is(err, coord.ErrTooLarge) {
		t.Errorf("one byte more: %v, want ErrTooLarge", err)
	}
	commit(t, s, ops(most)...)
	if n := link.Dials(); n != dials {
		t.Errorf("%d connections were made meanwhile", n-dials)
	}
}
