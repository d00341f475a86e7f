package zkqueue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testzk"
	"github.com/zkq/zkq/zkqueue"
)

// threeWays returns a link with three addresses. With a single address go-zookeeper drops
// its queue on the way to a new session, which would hide what these tests look for.
func threeWays(t testing.TB) *testzk.Link {
	t.Helper()
	a := servers.Single(t).Addresses()
	return testzk.NewLink(t, a[0], a[0], a[0])
}

func TestSessionFenceAlone(t *testing.T) {
	t.Parallel()
	root, link := chroot(t), threeWays(t)
	c := open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: root, SessionTimeout: 6 * time.Second})
	s := session(t, c)
	other := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}))
	commit(t, s, coord.CreateEphemeral("/q/taken/mine", nil))
	// The directories must exist, or ZooKeeper would refuse the commits for another reason.
	commit(t, other, coord.Create("/q/entries/x", nil), coord.Create("/q/locks/x", nil))
	commit(t, other, coord.Delete("/q/entries/x", 0))

	// Commits without any version, made before, during and after the expiry.
	var wg sync.WaitGroup
	var mu sync.Mutex
	var outcomes []error
	put := func(n int) {
		wg.Go(func() {
			_, err := s.Commit(within(t, patience), coord.Create(fmt.Sprintf("/q/entries/%03d", n), nil), coord.CreateEphemeral(fmt.Sprintf("/q/locks/%03d", n), nil))
			mu.Lock()
			outcomes = append(outcomes, err)
			mu.Unlock()
		})
	}
	link.HoldRequests()
	n := 0
	for ; n < 60; n++ { // more than go-zookeeper's queue holds
		put(n)
	}
	link.Cut()
	for ; n < 100; n++ {
		put(n)
	}
	eventually(t, patience, "the service ends the session", func() bool {
		return len(names(t, other, "/q/taken", coord.ListOptions{Fresh: true})) == 0
	})
	for ; n < 120; n++ {
		put(n)
	}
	link.Heal()
	for ; n < 140; n++ {
		put(n)
	}
	wg.Wait()
	for _, err := range outcomes {
		if !errors.Is(err, coord.ErrSessionLost) && !errors.Is(err, coord.ErrUnknown) {
			t.Errorf("a commit of the lost session ended with %v", err)
		}
		if errors.Is(err, coord.ErrSessionLost) && errors.Is(err, coord.ErrUnknown) {
			t.Errorf("both certain and not: %v", err)
		}
	}
	if s2 := session(t, c); s2.ID() == s.ID() {
		t.Error("the new session has the old one's ID")
	}
	// A connection that was not refused would be back within half a second.
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if len(names(t, other, "/q/entries", coord.ListOptions{Fresh: true})) > 0 {
			break
		}
	}
	if got := names(t, other, "/q/entries", coord.ListOptions{Fresh: true}); len(got) != 0 {
		t.Errorf("%d commits of the lost session were applied: %q", len(got), got)
	}
}

func TestDataFenceAlone(t *testing.T) {
	t.Parallel()
	root := chroot(t)
	cfg := zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}
	x, y := session(t, open(t, cfg)), session(t, open(t, cfg))
	entry := commit(t, x, coord.CreateSequential("/q/entries/entry-100-", []byte("job")))[0].Path
	lock := "/q/taken/entry-100-0000000000"
	mine := commit(t, x, coord.Touch(entry, []byte("job"), 0), coord.CreateEphemeral(lock, []byte("x")))

	// Both sessions live; the lock is removed from outside and y claims the entry.
	commit(t, y, coord.Delete(lock, mine[1].Fence))
	theirs := commit(t, y, coord.Touch(entry, []byte("job"), mine[0].Fence), coord.CreateEphemeral(lock, []byte("y")))

	_, err := x.Commit(within(t, patience), coord.Delete(entry, mine[0].Fence), coord.Delete(lock, mine[1].Fence))
	var r *coord.Refusal
	if !errors.As(err, &r) || r.Index != 0 || r.Err != coord.ErrVersion {
		t.Fatalf("a stale finish ended with %v, want a refusal of op 0 by ErrVersion", err)
	}
	commit(t, y, coord.Delete(entry, theirs[0].Fence), coord.Delete(lock, theirs[1].Fence))
}

func TestQueuedCallsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	link := threeWays(t)
	s := session(t, open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: chroot(t)}))
	commit(t, s, coord.Create("/q/a", nil))
	for _, fault := range []struct {
		name   string
		begin  func()
		unsure bool
	}{
		{"requests held", link.HoldRequests, true},
		{"replies held", link.HoldReplies, true},
		{"cut", link.Cut, false},
	} {
		dials := link.Dials()
		fault.begin()
		if fault.name == "cut" {
			eventually(t, patience, "the driver has seen it", func() bool { return link.Dials() > dials })
		}
		for name, call := range map[string]func(context.Context) error{
			"get": func(ctx context.Context) error { _, err := s.Get(ctx, "/q/a"); return err },
			"list": func(ctx context.Context) error {
				_, err := s.List(ctx, "/q", coord.ListOptions{Fresh: true})
				return err
			},
			"count": func(ctx context.Context) error { _, err := s.Count(ctx, "/q"); return err },
			"watch": func(ctx context.Context) error { _, err := s.Watch(ctx, "/q/new-"+fault.name[:3]); return err },
			"commit": func(ctx context.Context) error {
				_, err := s.Commit(ctx, coord.Create("/q/b/"+fault.name[:3], nil))
				return err
			},
		} {
			unsure := fault.unsure && name == "commit"
			for limit := 30 * time.Millisecond; ; limit *= 2 {
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				begun := time.Now()
				err := call(ctx)
				cancel()
				if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took > patience/2 {
					t.Errorf("%s, %s: %v after %v", fault.name, name, err, took)
				}
				if errors.Is(err, coord.ErrUnknown) == unsure {
					break
				}
				if !unsure || limit > patience/8 { // a busy machine may not have sent a commit in time
					t.Errorf("%s, %s within %v: %v", fault.name, name, limit, err)
					break
				}
			}
		}
		link.Heal()
		if _, err := s.Get(within(t, patience), "/q/a"); err != nil {
			t.Fatalf("after %s: %v", fault.name, err)
		}
	}
}

func TestAppliedCommitWithoutAnswerIsUnknown(t *testing.T) {
	t.Parallel()
	root, link := chroot(t), threeWays(t)
	s := session(t, open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: root}))
	commit(t, s, coord.Create("/q/a", nil))
	link.HoldReplies()
	done := make(chan error, 1)
	go func() {
		_, err := s.Commit(within(t, patience), coord.Create("/q/b", nil))
		done <- err
	}()
	z := plain(t)
	eventually(t, patience, "the commit is applied", func() bool {
		there, _, err := z.Exists(root + "/q/b")
		return there && err == nil
	})
	link.Kill()
	link.Heal()
	if err := <-done; !errors.Is(err, coord.ErrUnknown) {
		t.Fatalf("the commit ended with %v, want ErrUnknown", err)
	}
	if _, err := s.Get(within(t, patience), "/q/b"); err != nil {
		t.Errorf("it was applied, but the same session reads %v", err)
	}
}

func TestHolderHearsOfTheEndBeforeOthers(t *testing.T) {
	t.Parallel()
	const timeout = 9 * time.Second
	root, link := chroot(t), threeWays(t)
	s := session(t, open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: root, SessionTimeout: timeout}))
	other := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}))
	commit(t, s, coord.CreateEphemeral("/q/taken/mine", nil))
	for _, hold := range []func(){link.HoldReplies} {
		hold()
		begun := time.Now()
		gone := make(chan time.Time, 1)
		go func() {
			for {
				l, err := other.List(context.Background(), "/q/taken", coord.ListOptions{Fresh: true})
				if err != nil || len(l.Nodes) == 0 {
					gone <- time.Now()
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		}()
		<-s.Done()
		told := time.Now()
		select {
		case at := <-gone:
			t.Errorf("the node was gone %v before its holder was told", told.Sub(at))
		default:
		}
		if d := told.Sub(begun); d > timeout {
			t.Errorf("told after %v of silence; the session timeout is %v", d, timeout)
		}
		if _, err := s.Get(within(t, patience), "/q/taken/mine"); !errors.Is(err, coord.ErrSessionLost) {
			t.Errorf("get after the end: %v", err)
		}
		link.Heal()
		<-gone
	}
}

// TestReconnectsWithinTheSession kills connections to a single address. go-zookeeper alone would
// sleep for a second before each dial, so one reconnection in less time shows that it does not.
func TestReconnectsWithinTheSession(t *testing.T) {
	t.Parallel()
	link := singleLink(t)
	s := session(t, open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: chroot(t)}))
	commit(t, s, coord.CreateEphemeral("/q/taken/a", nil))
	var waits []time.Duration
	for range 10 {
		link.Kill()
		begun := time.Now()
		if _, err := s.Get(within(t, patience), "/q/taken/a"); err != nil {
			t.Fatal(err)
		}
		waits = append(waits, time.Since(begun))
	}
	if slices.Min(waits) >= time.Second {
		t.Errorf("reads waited %v for a new connection", waits)
	}
}

func TestCloseEndsEphemeralsAtOnceAndTwice(t *testing.T) {
	t.Parallel()
	root := chroot(t)
	c := open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root})
	s := session(t, c)
	other := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}))
	commit(t, s, coord.CreateEphemeral("/q/taken/a", nil))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, other, "/q/taken", coord.ListOptions{Fresh: true}); len(got) != 0 {
		t.Errorf("after Close there is still %q", got)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(within(t, patience), "/q/taken/a"); !errors.Is(err, coord.ErrClosed) {
		t.Errorf("get after Close: %v", err)
	}
	if _, err := c.Session(within(t, patience)); !errors.Is(err, coord.ErrClosed) {
		t.Errorf("session after Close: %v", err)
	}
}

func TestCloseGivesUpInTwoSeconds(t *testing.T) {
	t.Parallel()
	const timeout, most = 40 * time.Second, 20 * time.Second // of the session; for Close on a busy machine
	for name, fault := range map[string]func(*testzk.Link){"cut": (*testzk.Link).Cut, "held": (*testzk.Link).HoldRequests} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			link := threeWays(t)
			c := open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: chroot(t), SessionTimeout: timeout})
			s := session(t, c)
			fault(link)
			var wg sync.WaitGroup
			for n := range 100 {
				wg.Go(func() {
					s.Commit(within(t, patience), coord.Create(fmt.Sprintf("/q/%d", n), make([]byte, 200<<10)))
				})
			}
			time.Sleep(50 * time.Millisecond)
			begun := time.Now()
			c.Close()
			if d := time.Since(begun); d > most {
				t.Errorf("Close took %v", d)
			}
			wg.Wait()
		})
	}
}
