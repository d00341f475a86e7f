package zkqueue_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testzk"
	"github.com/zkq/zkq/zkqueue"
)

func TestWatchSignalsAfterEachChange(t *testing.T) {
	t.Parallel()
	root := chroot(t)
	cfg := zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}
	s, other := session(t, open(t, cfg)), session(t, open(t, cfg))
	ch, err := s.Watch(within(t, 20*time.Second), "/q/entries") // not there yet
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		path := fmt.Sprintf("/q/entries/%02d", n)
		commit(t, other, coord.Create(path, nil))
		signalled(t, ch, 5*time.Second, "creation")
		eventually(t, time.Second, "a listing after the signal has the change", func() bool {
			got := names(t, s, "/q/entries", coord.ListOptions{})
			return len(got) == 1
		})
		commit(t, other, coord.Delete(path, 0))
		signalled(t, ch, 5*time.Second, "deletion")
	}
}

// TestWatchMissesNothing has writers that never pause and a reader that only lists
// after signals: it must end with what is there.
func TestWatchMissesNothing(t *testing.T) {
	t.Parallel()
	root, link := chroot(t), threeWays(t)
	s := session(t, open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: root}))
	other := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}))
	ctx, cancel := context.WithCancel(within(t, 60*time.Second))
	ch, err := s.Watch(ctx, "/q/entries")
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 4, 250
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				path := fmt.Sprintf("/q/entries/%d-%03d", w, n)
				if _, err := other.Commit(ctx, coord.Create(path, nil)); err != nil {
					t.Error(err)
					return
				}
				if w == 0 && n%50 == 25 {
					link.Kill()
				}
			}
		})
	}
	seen := 0
	for seen < writers*each {
		select {
		case <-ch:
		case <-time.After(5 * time.Second):
			t.Fatalf("no signal for 5 s after %d of %d entries", seen, writers*each)
		}
		seen = len(names(t, s, "/q/entries", coord.ListOptions{}))
	}
	wg.Wait()
	cancel()
}

func TestWatchSignalsAfterReconnectAndAtTheEnd(t *testing.T) {
	t.Parallel()
	root, link := chroot(t), threeWays(t)
	c := open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: root})
	s := session(t, c)
	other := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}))
	commit(t, s, coord.Create("/q/entries/a", nil))
	ch, err := s.Watch(within(t, 20*time.Second), "/q/entries", "/q/taken")
	if err != nil {
		t.Fatal(err)
	}
	link.Cut()
	commit(t, other, coord.Create("/q/entries/b", nil))
	select {
	case <-ch:
		t.Error("a signal over a cut link")
	case <-time.After(50 * time.Millisecond):
	}
	link.Heal()
	signalled(t, ch, 5*time.Second, "reconnected")
	if got := names(t, s, "/q/entries", coord.ListOptions{}); len(got) != 2 {
		t.Errorf("after the signal the listing is %q", got)
	}
	for len(ch) > 0 {
		<-ch
	}
	c.Close()
	signalled(t, ch, time.Second, "closed")
}

func TestListingIsKeptUntilItChanges(t *testing.T) {
	t.Parallel()
	root, link := chroot(t), singleLink(t)
	s := session(t, open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: root}))
	commit(t, s, coord.Create("/q/entries/a", nil))
	first, err := s.List(within(t, 5*time.Second), "/q/entries", coord.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	link.HoldRequests() // what is kept needs no service
	for range 100 {
		l, err := s.List(within(t, 5*time.Second), "/q/entries", coord.ListOptions{})
		if err != nil || l.Stamp != first.Stamp || len(l.Nodes) != 1 {
			t.Fatalf("the kept listing: %+v, %v", l, err)
		}
	}
	link.Heal()
	for n := range 200 { // own changes are always seen
		path := fmt.Sprintf("/q/entries/b%03d", n)
		commit(t, s, coord.Create(path, nil))
		if got := names(t, s, "/q/entries", coord.ListOptions{}); len(got) != n+2 {
			t.Fatalf("after the creation of %s the listing has %d names, want %d", path, len(got), n+2)
		}
	}
}

func TestStampChangesWithMembershipOnly(t *testing.T) {
	t.Parallel()
	s := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)}))
	commit(t, s, coord.Create("/q/entries/a", nil))
	stamp := func() uint64 {
		l, err := s.List(within(t, 5*time.Second), "/q/entries", coord.ListOptions{Fresh: true})
		if err != nil || l.Stamp == 0 {
			t.Fatalf("stamp %d, %v", l.Stamp, err)
		}
		return l.Stamp
	}
	first := stamp()
	commit(t, s, coord.Set("/q/entries/a", []byte("x"), 0))
	if stamp() != first {
		t.Error("a write to a child changed the stamp")
	}
	commit(t, s, coord.Delete("/q/entries/a", 1))
	commit(t, s, coord.Create("/q/entries/a", nil))
	if stamp() == first {
		t.Error("delete and create again left the stamp as it was")
	}
}

func TestValuesLeaveOutDirectories(t *testing.T) {
	t.Parallel()
	s := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)}))
	for n := range 200 {
		commit(t, s, coord.Create(fmt.Sprintf("/q/%03d", n), []byte(strconv.Itoa(n))))
	}
	commit(t, s, coord.Create("/q/050dir/x", nil))
	l, err := s.List(within(t, 5*time.Second), "/q", coord.ListOptions{Values: true, After: "049", Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Nodes) != 100 || l.Nodes[0].Path != "/q/050" || l.Nodes[1].Path != "/q/051" || string(l.Nodes[99].Value) != "149" || !l.More || l.Stamp != 0 {
		t.Errorf("%d nodes from %s to %s, more %v, stamp %d", len(l.Nodes), l.Nodes[0].Path, l.Nodes[len(l.Nodes)-1].Path, l.More, l.Stamp)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestCancelledWatchesLeaveNothing(t *testing.T) {
	// Alone: it counts what all sessions have at the server.
	c, err := testzk.Start(1)
	if err != nil {
		servers.Single(t) // says what is missing
		t.Fatal(err)
	}
	defer c.Stop()
	root := chroot(t)
	s := session(t, open(t, zkqueue.Config{Servers: c.Addresses(), Chroot: root}))
	other := session(t, open(t, zkqueue.Config{Servers: c.Addresses(), Chroot: root}))
	commit(t, s, coord.Create("/q/entries/a", nil))
	rounds := func(n int) {
		for i := range n {
			ctx, cancel := context.WithCancel(context.Background())
			if _, err := s.Watch(ctx, "/q/entries", "/q/taken"); err != nil {
				t.Fatal(err)
			}
			if _, err := s.List(ctx, "/q/entries", coord.ListOptions{Fresh: i%10 == 0}); err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				path := fmt.Sprintf("/q/entries/b%d", i)
				commit(t, other, coord.Create(path, nil))
				commit(t, other, coord.Delete(path, 0))
			}
			cancel()
		}
	}
	rounds(1000)
	before := heap()
	goroutines := runtime.NumGoroutine()
	rounds(20_000)
	switch n, err := testzk.Watches(c.Addresses()[0]); {
	case err != nil:
		t.Error(err)
	case n < 1 || n > 4: // none would mean that this counts the wrong ones
		t.Errorf("the server has %d watches", n)
	}
	eventually(t, 5*time.Second, "goroutines are as many as before", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	if after := heap(); after > before+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
}

func TestWatchOfManyMembersSparesTheServer(t *testing.T) {
	t.Parallel()
	root := chroot(t)
	cfg := zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}
	s, other := session(t, open(t, cfg)), session(t, open(t, cfg))
	const members = 20_000
	for n := 0; n < members; n += 4000 {
		var ops []coord.Op
		for range 4000 {
			ops = append(ops, coord.CreateSequential("/q/entries/entry-100-", nil))
		}
		commit(t, other, ops...)
	}
	ch, err := s.Watch(within(t, 30*time.Second), "/q/entries")
	if err != nil {
		t.Fatal(err)
	}
	signals, n := 0, 0
	for begun := time.Now(); time.Since(begun) < time.Second; n++ {
		commit(t, other, coord.CreateSequential("/q/entries/entry-100-", nil))
		select {
		case <-ch:
			signals++
		default:
		}
	}
	if signals < 1 || signals > 12 {
		t.Errorf("%d signals, and so listings, for %d changes in a second; want about ten", signals, n)
	}
	eventually(t, 5*time.Second, "the last change is seen", func() bool {
		select {
		case <-ch:
		default:
		}
		return len(names(t, s, "/q/entries", coord.ListOptions{})) == members+n
	})
}

func TestWatchOfALostSessionIsRefused(t *testing.T) {
	t.Parallel()
	c := open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)})
	s := session(t, c)
	c.Close()
	if _, err := s.Watch(within(t, time.Second), "/q"); !errors.Is(err, coord.ErrClosed) || strings.Count(err.Error(), "watch") != 1 {
		t.Errorf("watch after Close: %v", err)
	}
}
