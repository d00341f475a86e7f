package lock_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/lock"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const dir = "/q/taken"

// client returns a client with a session.
func client(t *testing.T, store *coordtest.Store) (*coordtest.Coordinator, coord.Session) {
	t.Helper()
	c := store.Open(coordtest.Options{Timeout: 6 * time.Second})
	t.Cleanup(func() { c.Close() })
	s, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func acquire(t *testing.T, s coord.Session, name string, h lock.Holder) *lock.Lock {
	t.Helper()
	rs, err := s.Commit(t.Context(), lock.AcquireOp(dir, name, h))
	if err != nil {
		t.Fatal(err)
	}
	return lock.Acquired(s, rs[0], h)
}

func TestHolderIsThirtyTwoLowercaseHexDigits(t *testing.T) {
	a, b := lock.NewHolder(), lock.NewHolder()
	if a == b || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(string(a)) {
		t.Fatalf("holders %q and %q", a, b)
	}
}

func TestTakenLockKeepsOthersOutUntilGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := coordtest.NewStore()
		_, mine := client(t, store)
		_, other := client(t, store)
		l := acquire(t, mine, "x", lock.NewHolder())
		if _, err := other.Commit(t.Context(), lock.AcquireOp(dir, "x", lock.NewHolder())); !errors.Is(err, coord.ErrExist) {
			t.Fatalf("a second attempt to acquire it: %v", err)
		}
		if holds, err := l.Holds(t.Context()); !holds || err != nil {
			t.Fatalf("Holds = %v, %v", holds, err)
		}
		if _, err := mine.Commit(t.Context(), l.ReleaseOp()); err != nil {
			t.Fatal(err)
		}
		if holds, err := l.Holds(t.Context()); holds || err != nil {
			t.Fatalf("Holds = %v, %v after it was given back", holds, err)
		}
		acquire(t, other, "x", lock.NewHolder())
	})
}

func TestAdoptTakesOnlyWhatIsOnesOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := coordtest.NewStore()
		_, mine := client(t, store)
		_, other := client(t, store)
		h := lock.NewHolder()
		acquire(t, mine, "x", h)
		for _, c := range []struct {
			s    coord.Session
			name string
			h    lock.Holder
			want bool
		}{{mine, "x", h, true}, {mine, "y", h, false}, {mine, "x", lock.NewHolder(), false}, {other, "x", h, false}} {
			l, err := lock.Adopt(t.Context(), c.s, dir, c.name, c.h)
			if (l != nil) != c.want || err != nil {
				t.Errorf("Adopt(%s) = %v, %v; want one: %v", c.name, l, err, c.want)
			}
		}
	})
}

func TestReadTellsTheKindsApart(t *testing.T) {
	for _, c := range []struct {
		node coord.Node
		want lock.State
	}{
		{coord.Node{Owner: "1", Value: []byte("abc")}, lock.State{Kind: lock.Held, Holder: "abc"}},
		{coord.Node{Owner: "1", Value: []byte(`{"zkq":1,"due_ms":5}`)}, lock.State{Kind: lock.Held, Holder: `{"zkq":1,"due_ms":5}`}},
		{coord.Node{Value: []byte(`{"zkq":1,"due_ms":1500}`)}, lock.State{Kind: lock.Resting, Due: time.UnixMilli(1500)}},
		{coord.Node{Value: []byte(`{"zkq":2,"due_ms":1500}`)}, lock.State{Kind: lock.Foreign, Holder: `{"zkq":2,"due_ms":1500}`}},
		{coord.Node{Value: []byte("abc")}, lock.State{Kind: lock.Foreign, Holder: "abc"}},
		{coord.Node{}, lock.State{Kind: lock.Foreign}},
	} {
		if got := lock.Read(c.node); got != c.want {
			t.Errorf("Read(%+v) = %+v, want %+v", c.node, got, c.want)
		}
	}
}

// keep takes a lock and returns a context that ends with it.
func keep(t *testing.T, k *lock.Keeper, s coord.Session, name string) (*lock.Lock, context.Context) {
	t.Helper()
	l := acquire(t, s, name, lock.NewHolder())
	ctx, cancel := k.Context(t.Context(), l)
	t.Cleanup(cancel)
	return l, ctx
}

func TestKeeperNoticesARemovedLockWithinASecondOrSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := coordtest.NewStore()
		_, s := client(t, store)
		_, admin := client(t, store)
		k := lock.NewKeeper(dir)
		defer k.Close()
		_, lost := keep(t, k, s, "lost")
		_, kept := keep(t, k, s, "kept")
		time.Sleep(5 * time.Second)
		n, err := admin.Get(t.Context(), dir+"/lost")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := admin.Commit(t.Context(), coord.Delete(n.Path, n.Fence)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		<-lost.Done()
		if d := time.Since(start); d > 1100*time.Millisecond || !errors.Is(context.Cause(lost), lock.ErrLost) {
			t.Errorf("ended after %v for %v", d, context.Cause(lost))
		}
		time.Sleep(5 * time.Second)
		if kept.Err() != nil {
			t.Errorf("the other lock's context ended for %v", context.Cause(kept))
		}
	})
}

func TestKeeperNoticesTheEndOfASessionAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := client(t, coordtest.NewStore())
		k := lock.NewKeeper(dir)
		defer k.Close()
		_, ctx := keep(t, k, s, "x")
		synctest.Wait()
		start := time.Now()
		c.Expire()
		<-ctx.Done()
		if d := time.Since(start); d != 0 || !errors.Is(context.Cause(ctx), lock.ErrLost) {
			t.Fatalf("ended after %v for %v", d, context.Cause(ctx))
		}
		// A lock of a session that is over is lost from the start.
		late, cancel := k.Context(t.Context(), lock.Acquired(s, coord.Result{Path: dir + "/y"}, ""))
		defer cancel()
		if !errors.Is(context.Cause(late), lock.ErrLost) {
			t.Fatalf("a late context: %v", context.Cause(late))
		}
	})
}

func TestKeeperDoesNotTakeAFinishForALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := client(t, coordtest.NewStore())
		k := lock.NewKeeper(dir)
		defer k.Close()
		l, ctx := keep(t, k, s, "x")
		l.SetReleasing(true)
		if _, err := s.Commit(t.Context(), l.ReleaseOp()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if ctx.Err() != nil {
			t.Fatalf("ended for %v", context.Cause(ctx))
		}
	})
}

func TestClosedKeeperKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := client(t, coordtest.NewStore())
		k := lock.NewKeeper(dir)
		l, ctx := keep(t, k, s, "x")
		k.Close()
		k.Close()
		if !errors.Is(context.Cause(ctx), lock.ErrLost) {
			t.Fatalf("after Close: %v", context.Cause(ctx))
		}
		ctx, cancel := k.Context(t.Context(), l)
		defer cancel()
		if !errors.Is(context.Cause(ctx), lock.ErrLost) {
			t.Fatalf("begun after Close: %v", context.Cause(ctx))
		}
	})
}

// A lock is acquired and released by ops of commits. A keeper reports its loss.
func ExampleKeeper() {
	ctx := context.Background()
	c := coordtest.NewStore().Open(coordtest.Options{})
	defer c.Close()
	s, _ := c.Session(ctx)

	me := lock.NewHolder()
	rs, _ := s.Commit(ctx, lock.AcquireOp("/q/taken", "entry-100-0000000000", me))
	l := lock.Acquired(s, rs[0], me)
	k := lock.NewKeeper("/q/taken")
	defer k.Close()
	working, cancel := k.Context(ctx, l)
	defer cancel()

	c.Expire() // the service gives the session up
	<-working.Done()
	fmt.Println(context.Cause(working))
	// Output:
	// lock lost
}
