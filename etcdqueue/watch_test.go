package etcdqueue_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
)

// signalled waits for a signal.
func signalled(ch <-chan struct{}) bool { return signalledWithin(ch, patience) }

func signalledWithin(ch <-chan struct{}, most time.Duration) bool {
	select {
	case <-ch:
		return true
	case <-time.After(most):
		return false
	}
}

// quiet waits until no more signals come.
func quiet(ch <-chan struct{}) {
	for signalledWithin(ch, 100*time.Millisecond) {
	}
}

// watchers returns how many watches the server has.
func watchers(t testing.TB, cluster *testetcd.Cluster) int {
	t.Helper()
	n, err := testetcd.Watches(cluster.Endpoints()[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCancelledWatchesLeaveNothing(t *testing.T) {
	cluster := testetcd.StartFor(t, 1, testetcd.Options{})
	s := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix()}))
	standing, err := s.Watch(within(t, patience), "/standing")
	if err != nil {
		t.Fatal(err)
	}
	goroutines, kept := runtime.NumGoroutine(), watchers(t, cluster)
	if kept != 1 {
		t.Fatalf("the server keeps %d watches for one directory", kept)
	}
	for i := range 1000 {
		ctx, cancel := context.WithCancel(t.Context())
		if i%5 == 0 {
			cancel() // some are too late to begin
		}
		if _, err := s.Watch(ctx, "/q/a", "/q/b", "/standing"); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		cancel()
	}
	eventually(t, patience, "goroutines and watches are as before", func() bool {
		return runtime.NumGoroutine() <= goroutines+2 && watchers(t, cluster) == kept
	})
	quiet(standing)
	commit(t, s, coord.Create("/standing/a", nil))
	if !signalled(standing) {
		t.Error("the standing watch went with the others")
	}
}

func TestManyWatchersAreOneWatch(t *testing.T) {
	cluster := testetcd.StartFor(t, 1, testetcd.Options{})
	s := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix()}))
	var all []<-chan struct{}
	for range 50 {
		ch, err := s.Watch(within(t, patience), "/q/entries", "/q/taken")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ch)
	}
	if n := watchers(t, cluster); n != 2 {
		t.Errorf("the server keeps %d watches for two directories", n)
	}
	for _, ch := range all {
		quiet(ch)
		break
	}
	commit(t, s, coord.Create("/q/taken/a", nil))
	for i, ch := range all {
		if !signalled(ch) {
			t.Fatalf("watcher %d was not told", i)
		}
	}
}

func TestOnlyComingAndGoingSignals(t *testing.T) {
	s := alone(t)
	ch, err := s.Watch(within(t, patience), "/q")
	if err != nil {
		t.Fatal(err)
	}
	told := func(what string, op coord.Op) coord.Fence {
		t.Helper()
		quiet(ch)
		f := commit(t, s, op)[0].Fence
		if !signalled(ch) {
			t.Errorf("no signal: %s", what)
		}
		return f
	}
	// untold makes changes until one has no signal: on a busy machine that of an earlier change may
	// come late.
	untold := func(what string, change func(n int)) {
		t.Helper()
		for n := range 10 {
			quiet(ch)
			if change(n); !signalledWithin(ch, 150*time.Millisecond) {
				return
			}
		}
		t.Errorf("a signal after each: %s", what)
	}
	f := told("create", coord.Create("/q/a", nil))
	untold("set", func(int) { f = commit(t, s, coord.Set("/q/a", nil, f))[0].Fence })
	untold("touch", func(int) { f = commit(t, s, coord.Touch("/q/a", nil, f))[0].Fence })
	untold("a neighbour", func(n int) {
		commit(t, s, coord.Create(fmt.Sprint("/q0", n), nil), coord.Create(fmt.Sprint("/qq/a", n), nil))
	})
	told("delete", coord.Delete("/q/a", f))
	f = told("the first node below", coord.Create("/q/dir/a", nil))
	untold("the second node below", func(n int) { commit(t, s, coord.Create(fmt.Sprint("/q/dir/b", n), nil)) })
	untold("a change below", func(int) { f = commit(t, s, coord.Set("/q/dir/a", nil, f))[0].Fence })
}

// TestWatchSurvivesCompaction cuts a client off while changes are made and compacted: there
// must be a signal although no event can report them.
func TestWatchSurvivesCompaction(t *testing.T) {
	cluster, at := single.get(t), prefix()
	link := testetcd.NewLink(t, cluster.Endpoints()...)
	s := session(t, open(t, etcdqueue.Config{Endpoints: link.Addresses(), Prefix: at}))
	other := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: at}))
	ch, err := s.Watch(within(t, patience), "/q")
	if err != nil {
		t.Fatal(err)
	}
	commit(t, other, coord.Create("/q/before", nil))
	if !signalled(ch) {
		t.Fatal("no signal")
	}
	link.Cut()
	r := commit(t, other, coord.Create("/q/during", nil), coord.Create("/q/x", nil))
	commit(t, other, coord.Delete("/q/x", r[1].Fence))
	admin := cluster.Client(t)
	if _, err := admin.Compact(within(t, patience), int64(r[0].Fence)+1, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	quiet(ch)
	link.Heal()
	if !signalled(ch) {
		t.Error("no signal after the compaction")
	}
	eventually(t, patience, "the watch stands again", func() bool {
		quiet(ch)
		commit(t, other, coord.CreateSequential("/q/after-", nil))
		return signalledWithin(ch, time.Second)
	})
}

// TestWatchesBeginAnewWhenTheServiceIsRestored restores the service to an older state while
// it gets no requests. The session ends although that state contains it; in the next
// session the watch and its cache follow the older state.
func TestWatchesBeginAnewWhenTheServiceIsRestored(t *testing.T) {
	cluster := testetcd.StartFor(t, 1, testetcd.Options{})
	member := cluster.Members[0]
	config := etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix(), SessionTimeout: time.Minute}
	c, writer := open(t, config), open(t, config)
	s := session(t, c)
	watchCached(t, s, "/q")
	commit(t, session(t, writer), coord.Create("/q/a", nil))
	member.Terminate()
	restore, err := member.Backup()
	if err != nil {
		t.Fatal(err)
	}
	restart := func() {
		t.Helper()
		if err := cluster.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	restart()
	ops := make([]coord.Op, 0, 30)
	for i := range cap(ops) {
		ops = append(ops, coord.Create(fmt.Sprintf("/q/later-%d", i), nil))
	}
	for _, op := range ops {
		commit(t, session(t, writer), op)
	}
	eventually(t, patience, "what is later is seen", func() bool {
		return len(listed(t, s, "/q", coord.ListOptions{Seen: true})) == 1+len(ops)
	})

	member.Terminate()
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	restart()

	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Fatal("the session of a state that is no more goes on")
	}
	s = session(t, c)
	ch, err := s.Watch(within(t, patience), "/q")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := listed(t, s, "/q", coord.ListOptions{Seen: true}); !slices.Equal(got, []string{"a"}) {
			t.Fatalf("seen after the restore: %q", got)
		}
	}
	quiet(ch)
	eventually(t, patience, "another client writes again", func() bool {
		s, err := writer.Session(within(t, patience))
		if err == nil {
			_, err = s.Commit(within(t, patience), coord.Create("/q/b", nil))
		}
		return err == nil || errors.Is(err, coord.ErrExist)
	})
	if !signalled(ch) {
		t.Fatal("no signal of a change after the restore")
	}
	if got := listed(t, s, "/q", coord.ListOptions{Seen: true}); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("seen after the change: %q", got)
	}
}
