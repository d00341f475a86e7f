package zkqueue_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
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
	ch, err := s.Watch(within(t, patience), "/q/entries") // not there yet
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		path := fmt.Sprintf("/q/entries/%02d", n)
		commit(t, other, coord.Create(path, nil))
		signalled(t, ch, "creation")
		eventually(t, patience, "a listing after the signal has the change", func() bool {
			got := names(t, s, "/q/entries", coord.ListOptions{})
			return len(got) == 1
		})
		commit(t, other, coord.Delete(path, 0))
		signalled(t, ch, "deletion")
	}
}

// TestWatchMissesNothing has writers that never pause and a reader that lists only after
// signals: at the end it must have seen what exists.
func TestWatchMissesNothing(t *testing.T) {
	t.Parallel()
	root, link := chroot(t), threeWays(t)
	s := session(t, open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: root}))
	other := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}))
	ctx, cancel := context.WithCancel(within(t, patience))
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
		case <-time.After(patience):
			t.Fatalf("no signal for %v after %d of %d entries", patience, seen, writers*each)
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
	ch, err := s.Watch(within(t, patience), "/q/entries", "/q/taken")
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
	signalled(t, ch, "reconnected")
	if got := names(t, s, "/q/entries", coord.ListOptions{}); len(got) != 2 {
		t.Errorf("after the signal the listing is %q", got)
	}
	for len(ch) > 0 {
		<-ch
	}
	c.Close()
	signalled(t, ch, "closed")
}

func TestListingIsKeptUntilItChanges(t *testing.T) {
	t.Parallel()
	root, link := chroot(t), singleLink(t)
	s := session(t, open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: root}))
	commit(t, s, coord.Create("/q/entries/a", nil))
	first, err := s.List(within(t, patience), "/q/entries", coord.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	link.HoldRequests() // what is kept needs no service
	for range 100 {
		l, err := s.List(within(t, patience), "/q/entries", coord.ListOptions{})
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
		l, err := s.List(within(t, patience), "/q/entries", coord.ListOptions{Fresh: true})
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
	l, err := s.List(within(t, patience), "/q", coord.ListOptions{Values: true, After: "049", Limit: 100})
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
	if _, err := s.Watch(within(t, patience), "/q/entries"); err != nil { // it stands while they are counted
		t.Fatal(err)
	}
	switch n, err := testzk.Watches(c.Addresses()[0]); {
	case err != nil:
		t.Error(err)
	case n < 1 || n > 4: // none would mean that this counts the wrong ones
		t.Errorf("the server has %d watches", n)
	}
	eventually(t, patience, "goroutines are as many as before", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	if after := heap(); after > before+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
}

// An old server's watches fire once and tell no names: each signal costs a listing.
func TestWatchOfManyMembersSparesAnOldServer(t *testing.T) {
	t.Parallel()
	root := chroot(t)
	cfg := zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}
	s, other := session(t, open(t, old(cfg))), session(t, open(t, cfg))
	const members = 20_000
	for n := 0; n < members; n += 4000 {
		var ops []coord.Op
		for range 4000 {
			ops = append(ops, coord.CreateSequential("/q/entries/entry-100-", nil))
		}
		commit(t, other, ops...)
	}
	ch, err := s.Watch(within(t, patience), "/q/entries")
	if err != nil {
		t.Fatal(err)
	}
	signals, n, begun := 0, 0, time.Now()
	for ; time.Since(begun) < time.Second || signals == 0 && time.Since(begun) < patience; n++ {
		commit(t, other, coord.CreateSequential("/q/entries/entry-100-", nil))
		select {
		case <-ch:
			signals++
		default:
		}
	}
	if took := time.Since(begun); signals < 1 || float64(signals) > 12*took.Seconds() {
		t.Errorf("%d signals, and so listings, for %d changes in %v; want about ten a second", signals, n, took)
	}
	eventually(t, patience, "the last change is seen", func() bool {
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
	if _, err := s.Watch(within(t, patience), "/q"); !errors.Is(err, coord.ErrClosed) || strings.Count(err.Error(), "watch") != 1 {
		t.Errorf("watch after Close: %v", err)
	}
}

// TestAWatchedDirectoryIsListedOnce lists after each of many changes, its own and those of
// others. It asks the server for the children once.
func TestAWatchedDirectoryIsListedOnce(t *testing.T) {
	t.Parallel()
	cfg := zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)}
	counted, requests := count(cfg)
	s, other := session(t, open(t, counted)), session(t, open(t, cfg))
	ch, err := s.Watch(within(t, patience), "/q/entries")
	if err != nil {
		t.Fatal(err)
	}
	before := requests.of(opGetChildren)
	for n := range 200 {
		commit(t, other, coord.Create(fmt.Sprintf("/q/entries/a%03d", n), nil))
		for want := 2*n + 1; len(names(t, s, "/q/entries", coord.ListOptions{Seen: true})) < want; {
			signalled(t, ch, "creation by another")
		}
		commit(t, s, coord.Create(fmt.Sprintf("/q/entries/b%03d", n), nil))
		if got := names(t, s, "/q/entries", coord.ListOptions{}); len(got) != 2*n+2 {
			t.Fatalf("after %d creations %d names", 2*n+2, len(got))
		}
		if n%20 == 0 {
			if got := names(t, s, "/q/entries", coord.ListOptions{Fresh: true}); len(got) != 2*n+2 {
				t.Fatalf("after %d creations %d names, fresh", 2*n+2, len(got))
			}
		}
	}
	if listings := requests.of(opGetChildren) - before; listings != 0 || before > 1 {
		t.Errorf("the directory was listed %d times and another %d times", before, listings)
	}
	if n := requests.of(opAddWatch); n != 1 {
		t.Errorf("%d watches were asked for", n)
	}
}

// TestAFollowedListingIsWhatTheServerHas has three sessions create, delete and create again
// the same few names, while connections are killed and watches come and go.
func TestAFollowedListingIsWhatTheServerHas(t *testing.T) {
	for name, variant := range map[string]func(zkqueue.Config) zkqueue.Config{
		"followed": func(cfg zkqueue.Config) zkqueue.Config { return cfg }, "listed": old,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, link := chroot(t), threeWays(t)
			cfg := zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}
			s := session(t, open(t, variant(zkqueue.Config{Servers: link.Addresses(), Chroot: root})))
			sessions := []coord.Session{s, session(t, open(t, cfg)), session(t, open(t, cfg))}
			z := plain(t)
			ctx := within(t, patience)
			watching, unwatch := context.WithCancel(ctx)
			t.Cleanup(unwatch)
			for round := range 40 {
				ch, err := s.Watch(watching, "/q/entries")
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				for i, other := range sessions {
					wg.Go(func() {
						for n := range 40 {
							path := fmt.Sprintf("/q/entries/%d-%d", i, (n*7+round)%13)
							_, err := other.Commit(ctx, coord.Create(path, nil))
							if errors.Is(err, coord.ErrExist) {
								_, err = other.Commit(ctx, coord.Delete(path, 0))
							}
							if err != nil && !errors.Is(err, coord.ErrUnknown) && !errors.Is(err, coord.ErrNotExist) {
								t.Error(err)
							}
							if i == 0 && n == 20 && round%4 == 1 {
								link.Kill()
							}
						}
					})
				}
				wg.Wait()
				want, _, err := z.Children(root + "/q/entries")
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(want)
				if got := names(t, s, "/q/entries", coord.ListOptions{Fresh: true}); !slices.Equal(got, want) {
					t.Fatalf("round %d: fresh %q, want %q", round, got, want)
				}
				for !slices.Equal(names(t, s, "/q/entries", coord.ListOptions{Seen: true}), want) {
					signalled(t, ch, "the last change")
				}
				if round%4 == 3 {
					unwatch()
					watching, unwatch = context.WithCancel(ctx)
					t.Cleanup(unwatch)
				}
			}
		})
	}
}

// TestAnUnwatchedDirectoryIsFollowedNoLonger compares the server's own count of watches.
func TestAnUnwatchedDirectoryIsFollowedNoLonger(t *testing.T) {
	c, err := testzk.Start(1)
	if err != nil {
		servers.Single(t) // says what is missing
		t.Fatal(err)
	}
	defer c.Stop()
	s := session(t, open(t, zkqueue.Config{Servers: c.Addresses(), Chroot: chroot(t)}))
	watches := func() int {
		n, err := testzk.Watches(c.Addresses()[0])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for n := range 3 {
		ctx, cancel := context.WithCancel(within(t, patience))
		ch, err := s.Watch(ctx, "/q/entries")
		if err != nil {
			t.Fatal(err)
		}
		if watches() == 0 {
			t.Fatal("the server counts no watch of a directory that is watched")
		}
		path := fmt.Sprintf("/q/entries/%d", n)
		commit(t, s, coord.Create(path, nil))
		signalled(t, ch, "creation")
		cancel()
		eventually(t, patience, "the server forgets the watch", func() bool { return watches() == 0 })
		// What is listed from now on is heard of in the other way.
		commit(t, s, coord.Create(path+"x", nil))
		if got := names(t, s, "/q/entries", coord.ListOptions{}); len(got) != 2*n+2 {
			t.Errorf("without a watch the listing is %q", got)
		}
	}
}
