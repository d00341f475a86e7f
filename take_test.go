package zkq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testqueue"
)

func TestEntriesComeOutInOrderOfPriorityAndPut(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		for i, p := range []int{101, 0, 0, 10} {
			env.Put(q, fmt.Sprint(p, "#", i), zkq.WithPriority(p))
		}
		var got []string
		for range 4 {
			h := env.Take(q)
			got = append(got, string(h.Value))
			env.Consume(h)
		}
		if want := []string{"0#1", "0#2", "10#3", "101#0"}; !slices.Equal(got, want) {
			t.Fatalf("took %q, want %q", got, want)
		}
		env.WantEmpty(q)
	})
}

func TestValuesOfAnyBytesComeBackUnchanged(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		for _, v := range [][]byte{
			nil,
			{},
			all, []byte("\x00zkq\x01"), []byte("\x00zkq\x01\x02{}body"), []byte("\x00zkq\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
			bytes.Repeat([]byte{0}, zkq.MaxValue-200),
		} {
			if _, err := q.Put(env.Ctx, v); err != nil {
				t.Fatalf("Put of %d bytes: %v", len(v), err)
			}
			h := env.Take(q)
			if !bytes.Equal(h.Value, v) || h.Value == nil {
				t.Fatalf("put %.20q, took %.20q", v, h.Value)
			}
			env.Consume(h)
		}
	})
}

func TestPlainBytesAreStoredPlain(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		name := env.Put(q, "hello")
		if n := env.Get(env.Session(c), "/jobs/entries/"+name); string(n.Value) != "hello" {
			t.Fatalf("the node holds %q", n.Value)
		}
	})
}

func TestPutAllIsAllOrNone(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		names, err := q.PutAll(env.Ctx, [][]byte{[]byte("a"), []byte("b"), []byte("c")}, zkq.WithPriority(5))
		if err != nil || len(names) != 3 || !slices.IsSorted(names) {
			t.Fatalf("PutAll = %q, %v", names, err)
		}
		_, err = q.PutAll(env.Ctx, [][]byte{[]byte("d"), make([]byte, zkq.MaxValue+1)})
		env.WantErr(err, zkq.ErrTooLarge)
		if names, err := q.PutAll(env.Ctx, nil); err != nil || len(names) != 0 {
			t.Fatalf("PutAll of nothing = %q, %v", names, err)
		}
		_, err = q.PutAll(env.Ctx, slices.Repeat([][]byte{{}}, 4097))
		env.WantErr(err, zkq.ErrTooLarge)
		if n, err := q.Len(env.Ctx); n != 3 || err != nil {
			t.Fatalf("Len = %d, %v; want the 3 of the first", n, err)
		}
	})
}

func TestHandleIsUsedUpByConsumeAndRelease(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		env.Put(q, "a")
		env.Put(q, "b")
		consumed, released := env.Take(q), env.Take(q)
		env.Consume(consumed)
		if err := released.Release(env.Ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.Reset()
		for _, h := range []*zkq.Held{consumed, released} {
			env.WantErr(h.Consume(env.Ctx), zkq.ErrAlreadyDone)
			env.WantErr(h.Release(env.Ctx), zkq.ErrAlreadyDone)
			if holds, err := h.HoldsLock(env.Ctx); holds || err != nil {
				t.Errorf("HoldsLock = %v, %v after the end", holds, err)
			}
		}
		if n := c.Count(); n != 0 {
			t.Errorf("%d requests were sent", n)
		}
		var zero zkq.Held
		env.WantErr(zero.Consume(env.Ctx), zkq.ErrNotHeld)
		env.WantErr(zero.Release(env.Ctx), zkq.ErrNotHeld)
	})
}

func TestReleasedEntryKeepsItsPlace(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		first := env.Put(q, "a")
		env.Put(q, "b")
		h := env.Take(q)
		if err := h.Release(env.Ctx); err != nil {
			t.Fatal(err)
		}
		again := env.Take(q)
		if again.Name != first || again.Deliveries != 2 {
			t.Fatalf("took %s, delivery %d; want %s, delivery 2", again.Name, again.Deliveries, first)
		}
		if again.Token <= h.Token {
			t.Fatalf("token %d after %d: does not grow", again.Token, h.Token)
		}
	})
}

func TestDeadHoldersEntryComesBack(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		worker, c := env.Queue()
		other, _ := env.Queue()
		env.Put(other, "a")
		env.Take(worker)
		env.WantEmpty(other)
		start := time.Now()
		c.Crash()
		h := env.Take(other)
		if took := time.Since(start); string(h.Value) != "a" || h.Deliveries != 2 || took > 7*time.Second {
			t.Fatalf("took %q, delivery %d, after %v", h.Value, h.Deliveries, took)
		}
	})
}

func TestWaiterWakesOnPutAndOnRelease(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		other, _ := env.Queue()
		for _, wake := range []func(){
			func() { env.Put(other, "new") },
			func() {
				h := env.Take(other)
				go func() {
					time.Sleep(time.Second)
					h.Release(env.Ctx)
				}()
			},
		} {
			wake()
			start := time.Now()
			h := env.Take(q)
			if took := time.Since(start); took > 2*time.Second {
				t.Fatalf("woke after %v", took)
			}
			if err := h.Release(env.Ctx); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestManyWaitersEachGetOneOfManyPuts(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const n = 16
		q, _ := env.Queue()
		other, _ := env.Queue()
		got := make(chan string, n)
		for range n {
			go func() {
				h, err := q.Take(env.Ctx)
				if err != nil {
					t.Errorf("Take: %v", err)
					return
				}
				if err := h.Consume(env.Ctx); err != nil {
					t.Errorf("Consume: %v", err)
				}
				got <- string(h.Value)
			}()
		}
		synctest.Wait()
		seen := map[string]bool{}
		for i := range n {
			env.Put(other, fmt.Sprint(i))
		}
		for range n {
			seen[<-got] = true
		}
		if len(seen) != n {
			t.Fatalf("%d different values, want %d", len(seen), n)
		}
	})
}

func TestTakeEndsWithItsContext(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		ctx, cancel := context.WithTimeout(env.Ctx, 2*time.Second)
		defer cancel()
		start := time.Now()
		_, err := q.Take(ctx)
		env.WantErr(err, context.DeadlineExceeded)
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("returned after %v", d)
		}
		cancelled, cancelNow := context.WithCancel(env.Ctx)
		cancelNow()
		_, err = q.Take(cancelled)
		env.WantErr(err, context.Canceled)
		_, err = q.Put(cancelled, nil)
		env.WantErr(err, context.Canceled)
	})
}

// A claim whose answer comes after its caller gave up would hide the entry from every client until the process ends.
func TestCancelledTakeLeavesNoHiddenClaim(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		cl := env.Client()
		c := testqueue.NewCounter(cl)
		q := env.QueueOn(c)
		other, _ := env.Queue()
		env.Put(other, "a")
		held := false
		c.Before(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.HasPrefix(path, "touch") && !held {
				held = true
				cl.HoldReplies()
			}
		})
		ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
		defer cancel()
		_, err := q.Take(ctx)
		env.WantErr(err, context.DeadlineExceeded)
		if !held {
			t.Fatal("no claim was made")
		}
		env.WantEmpty(other) // it was applied
		cl.Heal()
		if h := env.Take(other); string(h.Value) != "a" {
			t.Fatalf("took %q", h.Value)
		}
		if s := env.Session(cl); s.ID() == "" {
			t.Fatal("no session")
		}
	})
}

func TestConsumeAfterLostSessionIsLockLost(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		other, _ := env.Queue()
		env.Put(other, "a")
		h := env.Take(q)
		ctx, cancel := h.Context(env.Ctx)
		defer cancel()
		c.Cut()
		start := time.Now()
		<-ctx.Done()
		if cause := context.Cause(ctx); !errors.Is(cause, zkq.ErrLockLost) {
			t.Fatalf("context ended for %v", cause)
		}
		if d := time.Since(start); d >= 6*time.Second {
			t.Fatalf("the holder heard of it after %v, too late", d)
		}
		second := env.Take(other)
		c.Heal()
		env.WantErr(h.Consume(env.Ctx), zkq.ErrLockLost)
		env.WantErr(h.Release(env.Ctx), zkq.ErrLockLost)
		if holds, err := h.HoldsLock(env.Ctx); holds || err != nil {
			t.Fatalf("HoldsLock = %v, %v", holds, err)
		}
		env.Consume(second)
	})
}

// The data fence without the session fence: the session lives, an operator removed the lock, and another client claimed
// the entry.
func TestStaleHolderWithLiveSessionRemovesNothing(t *testing.T) {
	for _, finish := range []string{"consume", "release"} {
		t.Run(finish, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				stale, _ := env.Queue()
				q, c := env.Queue()
				name := env.Put(q, "a")
				old := env.Take(stale)
				if err := q.BreakLock(env.Ctx, name); err != nil {
					t.Fatal(err)
				}
				now := env.Take(q)
				var err error
				if finish == "consume" {
					err = old.Consume(env.Ctx)
				} else {
					err = old.Release(env.Ctx)
				}
				env.WantErr(err, zkq.ErrLockLost)
				s := env.Session(c)
				env.Get(s, "/jobs/entries/"+name)
				if l := env.Get(s, "/jobs/taken/"+name); l.Owner != s.ID() {
					t.Fatalf("the lock is %s's now", l.Owner)
				}
				env.Consume(now)
			})
		})
	}
}

func TestBrokenLockEndsTheHoldersContext(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		admin, _ := env.Queue()
		name := env.Put(q, "a")
		h := env.Take(q)
		ctx, cancel := h.Context(env.Ctx)
		defer cancel()
		time.Sleep(3 * time.Second)
		if ctx.Err() != nil {
			t.Fatalf("ended early: %v", context.Cause(ctx))
		}
		if err := admin.BreakLock(env.Ctx, name); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		<-ctx.Done()
		if d := time.Since(start); d > 1500*time.Millisecond || !errors.Is(context.Cause(ctx), zkq.ErrLockLost) {
			t.Fatalf("ended after %v for %v", d, context.Cause(ctx))
		}
		env.WantErr(h.Consume(env.Ctx), zkq.ErrLockLost)
	})
}

func TestFinishedWorkIsNotLostWork(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "a")
		env.Put(q, "b")
		first, second := env.Take(q), env.Take(q)
		ctx, cancel := first.Context(env.Ctx)
		defer cancel()
		_, cancelSecond := second.Context(env.Ctx)
		defer cancelSecond()
		env.Consume(first)
		env.Consume(second)
		time.Sleep(5 * time.Second)
		if ctx.Err() != nil {
			t.Fatalf("the context of consumed work ended for %v", context.Cause(ctx))
		}
	})
}

func TestLostRepliesOfFinishesAreResolved(t *testing.T) {
	for name, fault := range map[string]func(c interface {
		DropReply()
		DropRequest()
	}){
		"applied": func(c interface {
			DropReply()
			DropRequest()
		},
		) {
			c.DropReply()
		},
		"not applied": func(c interface {
			DropReply()
			DropRequest()
		},
		) {
			c.DropRequest()
		},
		"both": func(c interface {
			DropReply()
			DropRequest()
		},
		) {
			c.DropRequest()
			c.DropReply()
		},
	} {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				env.Put(q, "a")
				h := env.Take(q)
				fault(c)
				if err := h.Release(env.Ctx); err != nil {
					t.Fatalf("Release: %v", err)
				}
				h = env.Take(q)
				fault(c)
				if err := h.Consume(env.Ctx); err != nil {
					t.Fatalf("Consume: %v", err)
				}
				if n, err := q.Len(env.Ctx); n != 0 || err != nil {
					t.Fatalf("Len = %d, %v", n, err)
				}
				if locks := env.Children(env.Session(c), "/jobs/taken"); len(locks) != 0 {
					t.Fatalf("locks left: %q", locks)
				}
			})
		})
	}
}

func TestAnEntryLeftAloneIsForOthersAtOnce(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		other, _ := env.Queue()
		env.Put(q, "a")
		h := env.Take(q)
		if err := h.Release(env.Ctx, zkq.LeaveAlone(5*time.Second)); err != nil {
			t.Fatal(err)
		}
		if q.LeftAlone() != 1 {
			t.Fatalf("LeftAlone = %d", q.LeftAlone())
		}
		env.WantEmpty(q)
		h = env.Take(other)
		if err := h.Release(env.Ctx); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		env.Take(q)
		if d := time.Since(start); d != 5*time.Second {
			t.Fatalf("taken again after %v", d)
		}
		if q.LeftAlone() != 0 {
			t.Fatalf("LeftAlone = %d", q.LeftAlone())
		}
	})
}

func TestManyLeftAloneDoNotKeepTheRestWaiting(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		for i := range 200 {
			env.Put(q, fmt.Sprint(i))
		}
		for range 150 {
			if err := env.Take(q).Release(env.Ctx, zkq.LeaveAlone(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		if h := env.Take(q); string(h.Value) != "150" {
			t.Fatalf("took %q", h.Value)
		}
	})
}

func TestTakeGoesOnInANewSession(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		other, _ := env.Queue()
		got := make(chan *zkq.Held, 1)
		go func() {
			h, err := q.Take(env.Ctx)
			if err != nil {
				t.Errorf("Take: %v", err)
			}
			got <- h
		}()
		synctest.Wait()
		c.Cut()
		time.Sleep(20 * time.Second)
		env.Put(other, "a")
		c.Heal()
		h := <-got
		env.Consume(h)
	})
}

func TestCloseEndsWaitersAndReleasesWhatGetHolds(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		other, _ := env.Queue()
		env.Put(other, "a")
		if _, err := q.Get(env.Ctx); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := q.Take(env.Ctx)
			ended <- err
		}()
		synctest.Wait()
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		env.WantErr(<-ended, zkq.ErrClosed)
		if h := env.Take(other); string(h.Value) != "a" {
			t.Fatalf("took %q", h.Value)
		}
		_, err := q.Put(env.Ctx, nil)
		env.WantErr(err, zkq.ErrClosed)
		if err := q.Close(); err != nil {
			t.Fatalf("second Close: %v", err)
		}
	})
}

func TestKazoosFourWords(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.WantErr(q.Consume(env.Ctx), zkq.ErrNotHeld)
		env.WantErr(q.Release(env.Ctx), zkq.ErrNotHeld)
		env.Put(q, "a")
		for range 2 {
			if v, err := q.Get(env.Ctx); string(v) != "a" || err != nil {
				t.Fatalf("Get = %q, %v", v, err)
			}
		}
		if n, err := q.Len(env.Ctx); n != 1 || err != nil {
			t.Fatalf("Len = %d, %v: held ones count", n, err)
		}
		if holds, err := q.HoldsLock(env.Ctx); !holds || err != nil {
			t.Fatalf("HoldsLock = %v, %v", holds, err)
		}
		if err := q.Release(env.Ctx); err != nil {
			t.Fatal(err)
		}
		if holds, err := q.HoldsLock(env.Ctx); holds || err != nil {
			t.Fatalf("HoldsLock = %v, %v after Release", holds, err)
		}
		if _, err := q.Get(env.Ctx); err != nil {
			t.Fatal(err)
		}
		if err := q.Consume(env.Ctx); err != nil {
			t.Fatal(err)
		}
		if n, err := q.Len(env.Ctx); n != 0 || err != nil {
			t.Fatalf("Len = %d, %v", n, err)
		}
	})
}

func TestAllYieldsUntilItsContextEnds(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		for i := range 3 {
			env.Put(q, fmt.Sprint(i))
		}
		ctx, cancel := context.WithCancel(env.Ctx)
		defer cancel()
		n := 0
		for h, err := range q.All(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			env.Consume(h)
			if n++; n == 3 {
				cancel()
			}
		}
		if n != 3 {
			t.Fatalf("yielded %d", n)
		}
	})
}

func TestTakeNTakesTheReadyEntries(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		for i := range 5 {
			env.Put(q, fmt.Sprint(i))
		}
		three, err := q.TakeN(env.Ctx, 3)
		if err != nil || len(three) != 3 || string(three[2].Value) != "2" {
			t.Fatalf("TakeN(3) = %v, %v", three, err)
		}
		two, err := q.TryTakeN(env.Ctx, 3)
		if err != nil || len(two) != 2 {
			t.Fatalf("TryTakeN(3) = %v, %v", two, err)
		}
		env.WantEmpty(q)
	})
}

func TestForeignNodesAreSkippedAndReportedOnce(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		var warned []string
		q, c := env.Queue(zkq.Warn(func(m string) { warned = append(warned, m) }))
		s := env.Session(c)
		for _, name := range []string{"garbage", "entry-abc", "entry-100-", "entry-100--2147483648", "entry-000-x"} {
			env.Commit(s, coord.Create("/jobs/entries/"+name, []byte("foreign")))
		}
		env.Commit(s, coord.Create("/jobs/taken/entry-100-9999999999", nil)) // a lock without an entry
		env.Put(q, "good")
		name := env.Put(q, "locked by a stranger")
		env.Commit(s, coord.Create("/jobs/taken/"+name, []byte("mine")))
		for range 3 {
			h := env.Take(q)
			if string(h.Value) != "good" {
				t.Fatalf("took %q", h.Value)
			}
			if err := h.Release(env.Ctx); err != nil {
				t.Fatal(err)
			}
		}
		if len(warned) != 5 {
			t.Fatalf("warned %d times: %q", len(warned), warned)
		}
		for range 2 { // it reads the locks, and so names the two that are none
			if st, err := q.Stat(env.Ctx); err != nil || st.Ready != 1 || st.Held != 1 {
				t.Fatalf("Stat = %+v, %v", st, err)
			}
		}
		if len(warned) != 7 || !strings.Contains(warned[5]+warned[6], "/jobs/taken/"+name+" ") {
			t.Fatalf("warned %d times: %q", len(warned), warned)
		}
	})
}

// TestTakersThatStartTogetherAskOnce counts the requests about the queue itself that sixteen takes of a new handle make
// together.
func TestTakersThatStartTogetherAskOnce(t *testing.T) {
	const takers = 16
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		producer, cl := env.Queue()
		for range takers {
			env.Put(producer, "v")
		}
		cl.HoldReplies() // all come before the first answer
		c := testqueue.NewCounter(cl)
		var asked atomic.Int32
		c.Before(func(_ coord.Session, _, path string) {
			if path == "/jobs" || path == "/jobs/config" {
				asked.Add(1)
			}
		})
		q := env.QueueOn(c)
		var all sync.WaitGroup
		for range takers {
			all.Go(func() { env.Take(q) })
		}
		synctest.Wait()
		cl.Heal()
		all.Wait()
		// Its layout, its configuration, and the configuration again by the goroutine that watches for changes.
		if n := asked.Load(); n > 3 {
			t.Errorf("%d requests for %d takes that came together", n, takers)
		}
	})
}

// TestAnEntryWhoseLockWasBrokenIsTakenAtOnce takes again with the handle that claimed the entry. The entry stands
// before the others, and the handle was told that the lock is broken.
func TestAnEntryWhoseLockWasBrokenIsTakenAtOnce(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := env.Client()
		q, admin := env.QueueOn(c), env.QueueOn(c)
		for _, value := range []string{"a", "b", "c"} {
			env.Put(q, value)
		}
		for range 5 {
			for _, by := range []*zkq.LockingQueue{q, admin} {
				h := env.Take(q)
				if err := by.BreakLock(env.Ctx, h.Name); err != nil {
					t.Fatal(err)
				}
				again := env.Take(q)
				if string(again.Value) != "a" {
					t.Errorf("after the lock of a was broken, %s was taken", again.Value)
				}
				env.WantErr(h.Consume(env.Ctx), zkq.ErrLockLost)
				env.Release(again)
			}
		}
	})
}

// kazoo's get(timeout=0), as it is ported word for word, and by the method made for it.
func TestGetThatHasNoTimeLooksOnce(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		plain := zkq.NewQueue(env.Client(), "plain")
		defer plain.Close()
		none, cancel := context.WithTimeout(env.Ctx, 0)
		defer cancel()
		if _, err := q.Get(none); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Get of an empty queue: %v", err)
		}
		if _, err := q.TryGet(env.Ctx); !errors.Is(err, zkq.ErrEmpty) {
			t.Errorf("TryGet of an empty queue: %v", err)
		}
		if _, err := plain.Get(none); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Get of an empty simple queue: %v", err)
		}
		env.Put(q, "a")
		env.Put(q, "b")
		env.Put(plain, "c")
		for range 2 { // the same until it is finished
			if v, err := q.Get(none); string(v) != "a" || err != nil {
				t.Errorf("Get = %q, %v", v, err)
			}
			if v, err := q.TryGet(env.Ctx); string(v) != "a" || err != nil {
				t.Errorf("TryGet = %q, %v", v, err)
			}
		}
		env.WantErr(q.Consume(env.Ctx), nil)
		if v, err := q.TryGet(env.Ctx); string(v) != "b" || err != nil {
			t.Errorf("TryGet = %q, %v", v, err)
		}
		if e, err := plain.Get(none); string(e.Value) != "c" || err != nil {
			t.Errorf("Get = %q, %v", e.Value, err)
		}
		env.WantErr(q.Release(env.Ctx), nil)

		gone, leave := context.WithCancel(env.Ctx)
		leave()
		for _, f := range []func(context.Context) ([]byte, error){q.Get, q.TryGet} {
			if _, err := f(gone); !errors.Is(err, context.Canceled) {
				t.Errorf("with a cancelled context: %v", err)
			}
		}
	})
}

func TestGetThatHasNoTimeEndsThoughTheServiceDoesNotAnswer(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "a")
		c.HoldRequests()
		none, cancel := context.WithTimeout(env.Ctx, 0)
		defer cancel()
		start := time.Now()
		if _, err := q.Get(none); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 6*time.Second {
			t.Errorf("Get: %v after %v", err, time.Since(start))
		}
		c.Heal()
	})
}

// TestStrictTakesAnEntryWhoseSignalHasNotArrived makes the taker's server lag, so that no signal tells the taker of the
// more urgent entry. Without Strict the take returns the entry that it knows.
func TestStrictTakesAnEntryWhoseSignalHasNotArrived(t *testing.T) {
	for _, c := range []struct {
		want string
		opts []zkq.Option
	}{
		{"urgent", []zkq.Option{zkq.Strict()}},
		{"known", nil},
	} {
		t.Run(c.want, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				producer, _ := env.Queue()
				taker, at := env.Queue(c.opts...)
				for range 2 {
					env.Put(producer, "known")
				}
				env.Consume(env.Take(taker)) // it has a view of the queue now
				synctest.Wait()              // its mover has looked: a fresh look would end the lag
				at.Lag()
				env.Put(producer, "urgent", zkq.WithPriority(1))
				if h := env.Take(taker); string(h.Value) != c.want {
					t.Errorf("took %q, want %q", h.Value, c.want)
				}
				at.CatchUp()
			})
		})
	}
}

// A claim of several entries does not pass over one that was released since the last listing.
func TestStrictTakesAnEntryReleasedSinceItWasRead(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue(zkq.Strict())
		other, _ := env.Queue()
		for _, value := range []string{"1", "2", "3", "4", "5"} {
			env.Put(other, value)
		}
		env.Take(q)
		env.Take(q) // it reads the next ones, too
		env.Release(env.Take(other))
		held, err := q.TakeN(env.Ctx, 2)
		if err != nil || len(held) == 0 || string(held[0].Value) != "3" {
			t.Errorf("took %v, %v", held, err)
		}
	})
}

// The garbage collector does not follow virtual time, so the test calls it.
func TestADroppedHeldIsReportedOnce(t *testing.T) {
	ctx := context.Background()
	c := coordtest.NewStore().Open(coordtest.Options{})
	defer c.Close()
	var mu sync.Mutex
	var warnings []string
	q := zkq.NewLockingQueue(c, "jobs", zkq.Warn(func(message string) {
		mu.Lock()
		defer mu.Unlock()
		warnings = append(warnings, message)
	}))
	defer q.Close()
	var names []string
	for range 4 {
		name, err := q.Put(ctx, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	take := func() *zkq.Held {
		h, err := q.Take(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	func() {
		take() // and forgotten
		if err := take().Consume(ctx); err != nil {
			t.Error(err)
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if err := take().Release(ended); err == nil { // it was tried
			t.Error("a release was made whose caller had gone")
		}
	}()
	kept := take()
	deadline := time.Now().Add(time.Minute)
	for said := 0; said == 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		runtime.GC()
		mu.Lock()
		said = len(warnings)
		mu.Unlock()
	}
	for range 5 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(warnings) != 1 || !strings.Contains(warnings[0], "/jobs/entries/"+names[0]) {
		t.Errorf("warnings %q, want one of %s", warnings, names[0])
	}
	if err := kept.Consume(ctx); err != nil {
		t.Error(err)
	}
}
