package coordtest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, c *coordtest.Coordinator) coord.Session {
	t.Helper()
	s, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s coord.Session, ops ...coord.Op) []coord.Result {
	t.Helper()
	r, err := s.Commit(t.Context(), ops...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCutClientGivesUpBeforeTheServiceDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := coordtest.NewStore()
		a, b := store.Open(coordtest.Options{Timeout: 6 * time.Second}), store.Open(coordtest.Options{})
		sa, sb := open(t, a), open(t, b)
		put(t, sa, coord.CreateEphemeral("/q/lock", nil))
		start := time.Now()
		a.Cut()
		<-sa.Done()
		if got := time.Since(start); got != 5*time.Second {
			t.Errorf("Done after %v", got)
		}
		if _, err := sb.Get(t.Context(), "/q/lock"); err != nil {
			t.Errorf("the lock ended with its holder's clock: %v", err)
		}
		signal, err := sb.Watch(t.Context(), "/q")
		if err != nil {
			t.Fatal(err)
		}
		<-signal
		if got := time.Since(start); got != 6*time.Second {
			t.Errorf("lock gone after %v", got)
		}
		if _, err := sa.Commit(t.Context(), coord.Create("/q/x", nil)); !errors.Is(err, coord.ErrSessionLost) {
			t.Errorf("commit after the session: %v", err)
		}
		a.Heal()
		if s := open(t, a); s.ID() == sa.ID() {
			t.Error("a new session has the old one's ID")
		}
	})
}

func TestHealInTimeKeepsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := coordtest.NewStore().Open(coordtest.Options{Timeout: 6 * time.Second})
		s := open(t, c)
		for range 3 {
			c.Cut()
			time.Sleep(4 * time.Second)
			c.Heal()
		}
		time.Sleep(time.Minute)
		put(t, s, coord.Create("/a", nil))
	})
}

func TestHeldRequestIsAppliedWhenItsCallerHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := coordtest.NewStore().Open(coordtest.Options{})
		s := open(t, c)
		c.HoldRequests()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		value := []byte("mine")
		_, err := s.Commit(ctx, coord.Create("/a", value))
		copy(value, "gone")
		if !errors.Is(err, coord.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("held commit: %v", err)
		}
		c.Heal()
		if n, err := s.Get(t.Context(), "/a"); err != nil || string(n.Value) != "mine" {
			t.Errorf("after the heal: %q, %v", n.Value, err)
		}
	})
}

func TestHeldReplyIsDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := coordtest.NewStore().Open(coordtest.Options{})
		s := open(t, c)
		c.HoldReplies()
		time.AfterFunc(time.Second, c.Heal)
		put(t, s, coord.Create("/a", nil))
	})
}

func TestFaultsOfCommits(t *testing.T) {
	c := coordtest.NewStore().Open(coordtest.Options{})
	s := open(t, c)
	c.DropReply()
	c.DropRequest()
	c.Refuse(coord.ErrBusy)
	for i, want := range []error{coord.ErrUnknown, coord.ErrUnknown, coord.ErrBusy, nil} {
		_, err := s.Commit(t.Context(), coord.CreateSequential("/q/", nil))
		if !errors.Is(err, want) {
			t.Errorf("commit %d: %v, want %v", i, err, want)
		}
	}
	l, err := s.List(t.Context(), "/q", coord.ListOptions{})
	if err != nil || len(l.Nodes) != 2 {
		t.Errorf("%v, %v: want the first and the last", l, err)
	}
}

func TestLagHidesOthersChangesUntilTheirSignal(t *testing.T) {
	store := coordtest.NewStore()
	a, b := store.Open(coordtest.Options{}), store.Open(coordtest.Options{})
	sa, sb := open(t, a), open(t, b)
	put(t, sb, coord.Create("/q/0", nil), coord.Create("/q/1", nil))
	signal, err := sa.Watch(t.Context(), "/q")
	if err != nil {
		t.Fatal(err)
	}
	list := func(o coord.ListOptions) (names string) {
		l, err := sa.List(t.Context(), "/q", o)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range l.Nodes {
			names += n.Path[len("/q/"):]
		}
		return names
	}
	before, err := sa.List(t.Context(), "/q", coord.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a.Lag()
	put(t, sb, coord.Create("/q/2", nil), coord.Delete("/q/0", 0))
	if got := list(coord.ListOptions{}); got != "01" {
		t.Errorf("behind: %q", got)
	}
	if l, _ := sa.List(t.Context(), "/q", coord.ListOptions{}); l.Stamp != before.Stamp {
		t.Error("the same listing has another stamp")
	}
	select {
	case <-signal:
		t.Error("signal before its change")
	default:
	}
	a.CatchUp()
	<-signal
	if got := list(coord.ListOptions{}); got != "12" {
		t.Errorf("after the signal: %q", got)
	}
	a.Lag()
	put(t, sb, coord.Create("/q/3", nil))
	if got := list(coord.ListOptions{Fresh: true}); got != "123" {
		t.Errorf("fresh: %q", got)
	}
	put(t, sb, coord.Create("/q/4", nil))
	put(t, sa, coord.Create("/q/5", nil))
	if got := list(coord.ListOptions{}); got != "12345" {
		t.Errorf("after its own commit: %q", got)
	}
}

func TestRestartBeginsTimeoutsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := coordtest.NewStore()
		a, b := store.Open(coordtest.Options{}), store.Open(coordtest.Options{})
		sa, sb := open(t, a), open(t, b)
		put(t, sa, coord.CreateEphemeral("/lock", nil))
		a.Cut()
		time.Sleep(9 * time.Second)
		store.Stop()
		time.Sleep(5 * time.Second)
		store.Start()
		time.Sleep(9 * time.Second)
		if _, err := sb.Get(t.Context(), "/lock"); err != nil {
			t.Errorf("9s after the start: %v", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := sb.Get(t.Context(), "/lock"); !errors.Is(err, coord.ErrNotExist) {
			t.Errorf("11s after the start: %v", err)
		}
	})
}

func TestCrashedClientIsMissedAfterItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := coordtest.NewStore()
		a, b := store.Open(coordtest.Options{Name: "a"}), store.Open(coordtest.Options{})
		sa, sb := open(t, a), open(t, b)
		put(t, sa, coord.CreateEphemeral("/lock", nil))
		a.Crash()
		if _, err := sa.Get(t.Context(), "/lock"); !errors.Is(err, coord.ErrClosed) {
			t.Errorf("call of a crashed client: %v", err)
		}
		time.Sleep(9 * time.Second)
		if _, err := sb.Get(t.Context(), "/lock"); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Second)
		if _, err := sb.Get(t.Context(), "/lock"); !errors.Is(err, coord.ErrNotExist) {
			t.Error(err)
		}
	})
}

func TestTouchNeedsTheStandingValue(t *testing.T) {
	s := open(t, coordtest.NewStore().Open(coordtest.Options{}))
	put(t, s, coord.Create("/a", []byte("v")))
	if _, err := s.Commit(t.Context(), coord.Touch("/a", nil, 0)); !errors.Is(err, coord.ErrInvalid) {
		t.Errorf("touch with another value: %v", err)
	}
	if r := put(t, s, coord.Touch("/a", []byte("v"), 0)); r[0].Fence != 1 {
		t.Errorf("%+v", r)
	}
}

func TestObserveSeesExpiryAsDeletes(t *testing.T) {
	store := coordtest.NewStore()
	var seen []coordtest.Applied
	c := store.Open(coordtest.Options{})
	s := open(t, c)
	put(t, s, coord.CreateEphemeral("/b", nil), coord.CreateEphemeral("/a", nil))
	store.Observe(func(a coordtest.Applied) { seen = append(seen, a) })
	if !c.Expire() {
		t.Fatal("no session to expire")
	}
	if len(seen) != 1 || !seen[0].Expired || seen[0].Session != s.ID() || len(seen[0].Ops) != 2 || seen[0].Ops[0].Path != "/a" {
		t.Errorf("%+v", seen)
	}
	<-s.Done()
}

// TestLateSignalsKeepSeenListingsBehind: with LagBy, listings with Seen are behind by exactly that
// time, also for the client's own changes. Other listings and other clients are not behind.
func TestLateSignalsKeepSeenListingsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := coordtest.NewStore()
		a, b := store.Open(coordtest.Options{}), store.Open(coordtest.Options{})
		defer a.Close()
		defer b.Close()
		sa, sb := open(t, a), open(t, b)
		signal, err := sa.Watch(t.Context(), "/q")
		if err != nil {
			t.Fatal(err)
		}
		count := func(s coord.Session, o coord.ListOptions) int {
			t.Helper()
			l, err := s.List(t.Context(), "/q", o)
			if err != nil {
				t.Fatal(err)
			}
			return len(l.Nodes)
		}
		const late = 300 * time.Millisecond
		a.LagBy(late)
		for i, s := range []coord.Session{sa, sb, sa} {
			start := time.Now()
			put(t, s, coord.Create("/q/"+string(rune('a'+i)), nil))
			time.Sleep(late - time.Millisecond)
			if n := count(sa, coord.ListOptions{Seen: true}); n != i {
				t.Errorf("%d nodes seen before the signal, want %d", n, i)
			}
			if n := count(sa, coord.ListOptions{Fresh: true}); n != i+1 {
				t.Errorf("%d nodes there, want %d", n, i+1)
			}
			<-signal
			if d := time.Since(start); d != late {
				t.Errorf("signal after %v", d)
			}
			if n := count(sa, coord.ListOptions{Seen: true}); n != i+1 {
				t.Errorf("%d nodes seen after the signal, want %d", n, i+1)
			}
		}
		put(t, sb, coord.Create("/q/z", nil))
		a.CatchUp()
		<-signal
		if n := count(sa, coord.ListOptions{Seen: true}); n != 4 {
			t.Errorf("%d nodes seen in the end, want 4", n)
		}
	})
}

// TestRestoreGoesBack: after a restore the service holds the nodes of the backup, counts on from
// them, and has ended every session.
func TestRestoreGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := coordtest.NewEtcdStore()
		a := store.Open(coordtest.Options{})
		defer a.Close()
		before := open(t, a)
		put(t, before, coord.Create("/q/a", []byte("kept")))
		put(t, before, coord.CreateEphemeral("/q/mine", nil))
		backup := store.Backup()
		first := put(t, before, coord.Create("/q/b", []byte("lost")))
		store.Restore(backup)
		<-before.Done()
		if _, err := before.Get(t.Context(), "/q/a"); !errors.Is(err, coord.ErrSessionLost) {
			t.Errorf("a read in the old session: %v", err)
		}
		s := open(t, a)
		l, err := s.List(t.Context(), "/q", coord.ListOptions{Values: true, Fresh: true})
		if err != nil || len(l.Nodes) != 1 || string(l.Nodes[0].Value) != "kept" {
			t.Errorf("%v, %v", l.Nodes, err)
		}
		if again := put(t, s, coord.Create("/q/b", nil)); again[0].Fence > first[0].Fence {
			t.Errorf("a node has the fence %d, and had %d before the restore", again[0].Fence, first[0].Fence)
		}
	})
}
