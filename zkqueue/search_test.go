package zkqueue_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/zkqueue"
)

// frames counts the requests of a client: go-zookeeper writes each with one Write.
type frames struct{ sent atomic.Int64 }

type countedConn struct {
	net.Conn
	sent *atomic.Int64
}

func (c countedConn) Write(b []byte) (int, error) {
	c.sent.Add(1)
	return c.Conn.Write(b)
}

func (f *frames) dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return countedConn{c, &f.sent}, nil
}

func TestFindingCreatedNodesCostsFewReads(t *testing.T) {
	root, f := chroot(t), new(frames)
	s := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root, Dial: f.dial, SessionTimeout: 20 * time.Second}))
	m := commit(t, s, coord.Create("/m", nil))[0]
	type made struct {
		revision int64
		paths    []string
	}
	const batches, batch = 25, 4000
	var all []made
	put := func(n int) {
		ops := slices.Repeat([]coord.Op{coord.CreateSequential("/q/entries/entry-100-", nil)}, n)
		r := commit(t, s, append([]coord.Op{coord.Set("/m", nil, m.Fence)}, ops...)...)
		m = r[0]
		one := made{revision: m.Revision}
		for _, r := range r[1:] {
			one.paths = append(one.paths, r.Path[len("/q/entries/"):])
		}
		all = append(all, one)
	}
	for range batches {
		put(batch)
		put(1)
	}
	entries := batches * (batch + 1)
	for _, i := range []int{0, 1, 24, 25, 48, 49} {
		one := all[i]
		before := f.sent.Load()
		if got := names(t, s, "/q/entries", coord.ListOptions{Born: one.revision}); !slices.Equal(got, one.paths) {
			t.Fatalf("commit %d created %v, found %v", i, one.paths, got)
		}
		most := int64(300)
		if len(one.paths) > 1 {
			most += int64(len(one.paths)) + 2*int64(entries)/64
		}
		if n := f.sent.Load() - before; n > most {
			t.Errorf("%d requests to find %d of %d, want at most %d", n, len(one.paths), entries, most)
		}
	}
}

// A tool that copies queues creates nodes with the names of others' sequences, in
// any order.
func TestCreatedNodesAreFoundAmongCopiedNames(t *testing.T) {
	root := chroot(t)
	s := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}))
	m := commit(t, s, coord.Create("/m", nil))[0]
	var copied []coord.Op
	for i := range 1000 {
		copied = append(copied, coord.Create(fmt.Sprintf("/q/entry-100-%010d", 1200+i), nil))
	}
	put := func() int64 {
		for range 300 {
			commit(t, s, coord.CreateSequential("/q/entry-100-", nil))
		}
		r := commit(t, s, coord.Set("/m", nil, m.Fence), coord.CreateSequential("/q/entry-000-", nil), coord.CreateSequential("/q/entry-999-", nil))
		m = r[0]
		return m.Revision
	}
	before := put()
	commit(t, s, copied...)
	slices.Reverse(copied)
	for i := range copied {
		copied[i].Path = fmt.Sprintf("/q/entry-100-%010d", 4000+i)
	}
	commit(t, s, copied...)
	after := put()
	for _, revision := range []int64{before, after} {
		if got := names(t, s, "/q", coord.ListOptions{Born: revision}); len(got) != 2 {
			t.Errorf("found %v", got)
		}
	}
}
