package zkq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

func TestEntriesComeOutInOrderOfPriorityAndPut(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		for i, p := range []int{101, 0, 0, 10} {
			b.put(q, fmt.Sprint(p, "#", i), zkq.WithPriority(p))
		}
		var got []string
		for range 4 {
			h := b.take(q)
			got = append(got, string(h.Value))
			b.consume(h)
		}
		if want := []string{"0#1", "0#2", "10#3", "101#0"}; !slices.Equal(got, want) {
			t.Fatalf("took %q, want %q", got, want)
		}
		b.empty(q)
	})
}

func TestValuesOfAnyBytesComeBackUnchanged(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		for _, v := range [][]byte{
			nil,
			{},
			all, []byte("\x00zkq\x01"), []byte("\x00zkq\x01\x02{}body"), []byte("\x00zkq\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
			bytes.Repeat([]byte{0}, zkq.MaxValue-200),
		} {
			if _, err := q.Put(b.ctx, v); err != nil {
				t.Fatalf("Put of %d bytes: %v", len(v), err)
			}
			h := b.take(q)
			if !bytes.Equal(h.Value, v) || h.Value == nil {
				t.Fatalf("put %.20q, took %.20q", v, h.Value)
			}
			b.consume(h)
		}
	})
}

func TestPlainBytesAreStoredPlain(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		name := b.put(q, "hello")
		if n := b.get(b.session(c), "/jobs/entries/"+name); string(n.Value) != "hello" {
			t.Fatalf("the node holds %q", n.Value)
		}
	})
}

func TestPutAllIsAllOrNone(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		names, err := q.PutAll(b.ctx, [][]byte{[]byte("a"), []byte("b"), []byte("c")}, zkq.WithPriority(5))
		if err != nil || len(names) != 3 || !slices.IsSorted(names) {
			t.Fatalf("PutAll = %q, %v", names, err)
		}
		_, err = q.PutAll(b.ctx, [][]byte{[]byte("d"), make([]byte, zkq.MaxValue+1)})
		b.want(err, zkq.ErrTooLarge)
		if names, err := q.PutAll(b.ctx, nil); err != nil || len(names) != 0 {
			t.Fatalf("PutAll of nothing = %q, %v", names, err)
		}
		_, err = q.PutAll(b.ctx, slices.Repeat([][]byte{{}}, 4097))
		b.want(err, zkq.ErrTooLarge)
		if n, err := q.Len(b.ctx); n != 3 || err != nil {
			t.Fatalf("Len = %d, %v; want the 3 of the first", n, err)
		}
	})
}

func TestHandleIsUsedUpByConsumeAndRelease(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c)
		b.put(q, "a")
		b.put(q, "b")
		consumed, released := b.take(q), b.take(q)
		b.consume(consumed)
		if err := released.Release(b.ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.reset()
		for _, h := range []*zkq.Held{consumed, released} {
			b.want(h.Consume(b.ctx), zkq.ErrAlreadyDone)
			b.want(h.Release(b.ctx), zkq.ErrAlreadyDone)
			if holds, err := h.HoldsLock(b.ctx); holds || err != nil {
				t.Errorf("HoldsLock = %v, %v after the end", holds, err)
			}
		}
		if n := c.of(); n != 0 {
			t.Errorf("%d requests were sent", n)
		}
		var zero zkq.Held
		b.want(zero.Consume(b.ctx), zkq.ErrNotHeld)
		b.want(zero.Release(b.ctx), zkq.ErrNotHeld)
	})
}

func TestReleasedEntryKeepsItsPlace(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		first := b.put(q, "a")
		b.put(q, "b")
		h := b.take(q)
		if err := h.Release(b.ctx); err != nil {
			t.Fatal(err)
		}
		again := b.take(q)
		if again.Name != first || again.Deliveries != 2 {
			t.Fatalf("took %s, delivery %d; want %s, delivery 2", again.Name, again.Deliveries, first)
		}
		if again.Token <= h.Token {
			t.Fatalf("token %d after %d: does not grow", again.Token, h.Token)
		}
	})
}

func TestDeadHoldersEntryComesBack(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		worker, c := b.queue()
		other, _ := b.queue()
		b.put(other, "a")
		b.take(worker)
		b.empty(other)
		start := time.Now()
		c.Crash()
		h := b.take(other)
		if took := time.Since(start); string(h.Value) != "a" || h.Deliveries != 2 || took > 7*time.Second {
			t.Fatalf("took %q, delivery %d, after %v", h.Value, h.Deliveries, took)
		}
	})
}

func TestWaiterWakesOnPutAndOnRelease(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		other, _ := b.queue()
		for _, wake := range []func(){
			func() { b.put(other, "new") },
			func() {
				h := b.take(other)
				go func() {
					time.Sleep(time.Second)
					h.Release(b.ctx)
				}()
			},
		} {
			wake()
			start := time.Now()
			h := b.take(q)
			if took := time.Since(start); took > 2*time.Second {
				t.Fatalf("woke after %v", took)
			}
			if err := h.Release(b.ctx); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestManyWaitersEachGetOneOfManyPuts(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		const n = 16
		q, _ := b.queue()
		other, _ := b.queue()
		got := make(chan string, n)
		for range n {
			go func() {
				h, err := q.Take(b.ctx)
				if err != nil {
					t.Errorf("Take: %v", err)
					return
				}
				if err := h.Consume(b.ctx); err != nil {
					t.Errorf("Consume: %v", err)
				}
				got <- string(h.Value)
			}()
		}
		synctest.Wait()
		seen := map[string]bool{}
		for i := range n {
			b.put(other, fmt.Sprint(i))
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
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		ctx, cancel := context.WithTimeout(b.ctx, 2*time.Second)
		defer cancel()
		start := time.Now()
		_, err := q.Take(ctx)
		b.want(err, context.DeadlineExceeded)
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("returned after %v", d)
		}
		cancelled, cancelNow := context.WithCancel(b.ctx)
		cancelNow()
		_, err = q.Take(cancelled)
		b.want(err, context.Canceled)
		_, err = q.Put(cancelled, nil)
		b.want(err, context.Canceled)
	})
}

// A claim whose answer comes after its caller gave up would hide the entry from
// everybody for as long as the process lives.
func TestCancelledTakeLeavesNoHiddenClaim(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		cl := b.client()
		c := newCounting(cl)
		q := b.on(c)
		other, _ := b.queue()
		b.put(other, "a")
		held := false
		c.hook(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.HasPrefix(path, "touch") && !held {
				held = true
				cl.HoldReplies()
			}
		})
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		_, err := q.Take(ctx)
		b.want(err, context.DeadlineExceeded)
		if !held {
			t.Fatal("no claim was made")
		}
		b.empty(other) // it was applied
		cl.Heal()
		if h := b.take(other); string(h.Value) != "a" {
			t.Fatalf("took %q", h.Value)
		}
		if s := b.session(cl); s.ID() == "" {
			t.Fatal("no session")
		}
	})
}

func TestConsumeAfterLostSessionIsLockLost(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		other, _ := b.queue()
		b.put(other, "a")
		h := b.take(q)
		ctx, cancel := h.Context(b.ctx)
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
		second := b.take(other)
		c.Heal()
		b.want(h.Consume(b.ctx), zkq.ErrLockLost)
		b.want(h.Release(b.ctx), zkq.ErrLockLost)
		if holds, err := h.HoldsLock(b.ctx); holds || err != nil {
			t.Fatalf("HoldsLock = %v, %v", holds, err)
		}
		b.consume(second)
	})
}

// The data fence, with the session fence out of play: the session lives, the
// lock was removed from outside, somebody else claimed the entry.
func TestStaleHolderWithLiveSessionRemovesNothing(t *testing.T) {
	for _, finish := range []string{"consume", "release"} {
		t.Run(finish, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				stale, _ := b.queue()
				q, c := b.queue()
				name := b.put(q, "a")
				old := b.take(stale)
				if err := q.BreakLock(b.ctx, name); err != nil {
					t.Fatal(err)
				}
				now := b.take(q)
				var err error
				if finish == "consume" {
					err = old.Consume(b.ctx)
				} else {
					err = old.Release(b.ctx)
				}
				b.want(err, zkq.ErrLockLost)
				s := b.session(c)
				b.get(s, "/jobs/entries/"+name)
				if l := b.get(s, "/jobs/taken/"+name); l.Owner != s.ID() {
					t.Fatalf("the lock is %s's now", l.Owner)
				}
				b.consume(now)
			})
		})
	}
}

func TestBrokenLockEndsTheHoldersContext(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		admin, _ := b.queue()
		name := b.put(q, "a")
		h := b.take(q)
		ctx, cancel := h.Context(b.ctx)
		defer cancel()
		time.Sleep(3 * time.Second)
		if ctx.Err() != nil {
			t.Fatalf("ended early: %v", context.Cause(ctx))
		}
		if err := admin.BreakLock(b.ctx, name); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		<-ctx.Done()
		if d := time.Since(start); d > 1500*time.Millisecond || !errors.Is(context.Cause(ctx), zkq.ErrLockLost) {
			t.Fatalf("ended after %v for %v", d, context.Cause(ctx))
		}
		b.want(h.Consume(b.ctx), zkq.ErrLockLost)
	})
}

func TestFinishedWorkIsNotLostWork(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		b.put(q, "a")
		b.put(q, "b")
		first, second := b.take(q), b.take(q)
		ctx, cancel := first.Context(b.ctx)
		defer cancel()
		_, cancelSecond := second.Context(b.ctx)
		defer cancelSecond()
		b.consume(first)
		b.consume(second)
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
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				b.put(q, "a")
				h := b.take(q)
				fault(c)
				if err := h.Release(b.ctx); err != nil {
					t.Fatalf("Release: %v", err)
				}
				h = b.take(q)
				fault(c)
				if err := h.Consume(b.ctx); err != nil {
					t.Fatalf("Consume: %v", err)
				}
				if n, err := q.Len(b.ctx); n != 0 || err != nil {
					t.Fatalf("Len = %d, %v", n, err)
				}
				if locks := b.children(b.session(c), "/jobs/taken"); len(locks) != 0 {
					t.Fatalf("locks left: %q", locks)
				}
			})
		})
	}
}

func TestLeftAloneIsForOthersAtOnce(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		other, _ := b.queue()
		b.put(q, "a")
		h := b.take(q)
		if err := h.Release(b.ctx, zkq.LeaveAlone(5*time.Second)); err != nil {
			t.Fatal(err)
		}
		if q.LeftAlone() != 1 {
			t.Fatalf("LeftAlone = %d", q.LeftAlone())
		}
		b.empty(q)
		h = b.take(other)
		if err := h.Release(b.ctx); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		b.take(q)
		if d := time.Since(start); d != 5*time.Second {
			t.Fatalf("taken again after %v", d)
		}
		if q.LeftAlone() != 0 {
			t.Fatalf("LeftAlone = %d", q.LeftAlone())
		}
	})
}

func TestManyLeftAloneDoNotKeepTheRestWaiting(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		for i := range 200 {
			b.put(q, fmt.Sprint(i))
		}
		for range 150 {
			if err := b.take(q).Release(b.ctx, zkq.LeaveAlone(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		if h := b.take(q); string(h.Value) != "150" {
			t.Fatalf("took %q", h.Value)
		}
	})
}

func TestTakeGoesOnInANewSession(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		other, _ := b.queue()
		got := make(chan *zkq.Held, 1)
		go func() {
			h, err := q.Take(b.ctx)
			if err != nil {
				t.Errorf("Take: %v", err)
			}
			got <- h
		}()
		synctest.Wait()
		c.Cut()
		time.Sleep(20 * time.Second)
		b.put(other, "a")
		c.Heal()
		h := <-got
		b.consume(h)
	})
}

func TestCloseEndsWaitersAndReleasesWhatGetHolds(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		other, _ := b.queue()
		b.put(other, "a")
		if _, err := q.Get(b.ctx); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := q.Take(b.ctx)
			ended <- err
		}()
		synctest.Wait()
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		b.want(<-ended, zkq.ErrClosed)
		if h := b.take(other); string(h.Value) != "a" {
			t.Fatalf("took %q", h.Value)
		}
		_, err := q.Put(b.ctx, nil)
		b.want(err, zkq.ErrClosed)
		if err := q.Close(); err != nil {
			t.Fatalf("second Close: %v", err)
		}
	})
}

func TestKazoosFourWords(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		b.want(q.Consume(b.ctx), zkq.ErrNotHeld)
		b.want(q.Release(b.ctx), zkq.ErrNotHeld)
		b.put(q, "a")
		for range 2 {
			if v, err := q.Get(b.ctx); string(v) != "a" || err != nil {
				t.Fatalf("Get = %q, %v", v, err)
			}
		}
		if n, err := q.Len(b.ctx); n != 1 || err != nil {
			t.Fatalf("Len = %d, %v: held ones count", n, err)
		}
		if holds, err := q.HoldsLock(b.ctx); !holds || err != nil {
			t.Fatalf("HoldsLock = %v, %v", holds, err)
		}
		if err := q.Release(b.ctx); err != nil {
			t.Fatal(err)
		}
		if holds, err := q.HoldsLock(b.ctx); holds || err != nil {
			t.Fatalf("HoldsLock = %v, %v after Release", holds, err)
		}
		if _, err := q.Get(b.ctx); err != nil {
			t.Fatal(err)
		}
		if err := q.Consume(b.ctx); err != nil {
			t.Fatal(err)
		}
		if n, err := q.Len(b.ctx); n != 0 || err != nil {
			t.Fatalf("Len = %d, %v", n, err)
		}
	})
}

func TestAllYieldsUntilItsContextEnds(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		for i := range 3 {
			b.put(q, fmt.Sprint(i))
		}
		ctx, cancel := context.WithCancel(b.ctx)
		defer cancel()
		n := 0
		for h, err := range q.All(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			b.consume(h)
			if n++; n == 3 {
				cancel()
			}
		}
		if n != 3 {
			t.Fatalf("yielded %d", n)
		}
	})
}

func TestTakeNTakesThoseThatAreThere(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		for i := range 5 {
			b.put(q, fmt.Sprint(i))
		}
		three, err := q.TakeN(b.ctx, 3)
		if err != nil || len(three) != 3 || string(three[2].Value) != "2" {
			t.Fatalf("TakeN(3) = %v, %v", three, err)
		}
		two, err := q.TryTakeN(b.ctx, 3)
		if err != nil || len(two) != 2 {
			t.Fatalf("TryTakeN(3) = %v, %v", two, err)
		}
		b.empty(q)
	})
}

func TestForeignNodesAreSkippedAndReportedOnce(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		var warned []string
		q, c := b.queue(zkq.Warn(func(m string) { warned = append(warned, m) }))
		s := b.session(c)
		for _, name := range []string{"garbage", "entry-abc", "entry-100-", "entry-100--2147483648", "entry-000-x"} {
			b.commit(s, coord.Create("/jobs/entries/"+name, []byte("foreign")))
		}
		b.commit(s, coord.Create("/jobs/taken/entry-100-9999999999", nil)) // a lock without an entry
		b.put(q, "good")
		name := b.put(q, "locked by a stranger")
		b.commit(s, coord.Create("/jobs/taken/"+name, []byte("mine")))
		for range 3 {
			h := b.take(q)
			if string(h.Value) != "good" {
				t.Fatalf("took %q", h.Value)
			}
			if err := h.Release(b.ctx); err != nil {
				t.Fatal(err)
			}
		}
		if len(warned) != 5 {
			t.Fatalf("warned %d times: %q", len(warned), warned)
		}
		for range 2 { // it reads the locks, and so names the two that are none
			if st, err := q.Stat(b.ctx); err != nil || st.Ready != 1 || st.Held != 1 {
				t.Fatalf("Stat = %+v, %v", st, err)
			}
		}
		if len(warned) != 7 || !strings.Contains(warned[5]+warned[6], "/jobs/taken/"+name+" ") {
			t.Fatalf("warned %d times: %q", len(warned), warned)
		}
	})
}

// TestTakersThatStartTogetherAskOnce counts what sixteen takes of a new handle ask for
// of the queue itself: not the same sixteen times.
func TestTakersThatStartTogetherAskOnce(t *testing.T) {
	const takers = 16
	virtual(t, func(t *testing.T, b *bench) {
		producer, cl := b.queue()
		for range takers {
			b.put(producer, "v")
		}
		cl.HoldReplies() // all come before the first answer
		c := newCounting(cl)
		var asked atomic.Int32
		c.hook(func(_ coord.Session, _, path string) {
			if path == "/jobs" || path == "/jobs/config" {
				asked.Add(1)
			}
		})
		q := b.on(c)
		var all sync.WaitGroup
		for range takers {
			all.Go(func() { b.take(q) })
		}
		synctest.Wait()
		cl.Heal()
		all.Wait()
		// Its layout, its configuration, and that again by who watches for changes of it.
		if n := asked.Load(); n > 3 {
			t.Errorf("%d requests for %d takes that came together", n, takers)
		}
	})
}

// TestAnEntryWhoseLockWasBrokenIsTakenAtOnce has the handle that claimed the entry take again: the entry stands before
// the others, and the handle was told that the lock is broken.
func TestAnEntryWhoseLockWasBrokenIsTakenAtOnce(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := b.client()
		q, admin := b.on(c), b.on(c)
		for _, value := range []string{"a", "b", "c"} {
			b.put(q, value)
		}
		for range 5 {
			for _, by := range []*zkq.LockingQueue{q, admin} {
				h := b.take(q)
				if err := by.BreakLock(b.ctx, h.Name); err != nil {
					t.Fatal(err)
				}
				again := b.take(q)
				if string(again.Value) != "a" {
					t.Errorf("after the lock of a was broken, %s was taken", again.Value)
				}
				b.want(h.Consume(b.ctx), zkq.ErrLockLost)
				b.release(again)
			}
		}
	})
}

// kazoo's get(timeout=0), as it is ported word for word, and by the method made for it.
func TestGetThatHasNoTimeLooksOnce(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		plain := zkq.NewQueue(b.client(), "plain")
		defer plain.Close()
		none, cancel := context.WithTimeout(b.ctx, 0)
		defer cancel()
		if _, err := q.Get(none); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Get of an empty queue: %v", err)
		}
		if _, err := q.TryGet(b.ctx); !errors.Is(err, zkq.ErrEmpty) {
			t.Errorf("TryGet of an empty queue: %v", err)
		}
		if _, err := plain.Get(none); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Get of an empty simple queue: %v", err)
		}
		b.put(q, "a")
		b.put(q, "b")
		b.put(plain, "c")
		for range 2 { // the same until it is finished
			if v, err := q.Get(none); string(v) != "a" || err != nil {
				t.Errorf("Get = %q, %v", v, err)
			}
			if v, err := q.TryGet(b.ctx); string(v) != "a" || err != nil {
				t.Errorf("TryGet = %q, %v", v, err)
			}
		}
		b.want(q.Consume(b.ctx), nil)
		if v, err := q.TryGet(b.ctx); string(v) != "b" || err != nil {
			t.Errorf("TryGet = %q, %v", v, err)
		}
		if e, err := plain.Get(none); string(e.Value) != "c" || err != nil {
			t.Errorf("Get = %q, %v", e.Value, err)
		}
		b.want(q.Release(b.ctx), nil)

		gone, leave := context.WithCancel(b.ctx)
		leave()
		for _, f := range []func(context.Context) ([]byte, error){q.Get, q.TryGet} {
			if _, err := f(gone); !errors.Is(err, context.Canceled) {
				t.Errorf("with a cancelled context: %v", err)
			}
		}
	})
}

func TestGetThatHasNoTimeEndsThoughTheServiceDoesNotAnswer(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		b.put(q, "a")
		c.HoldRequests()
		none, cancel := context.WithTimeout(b.ctx, 0)
		defer cancel()
		start := time.Now()
		if _, err := q.Get(none); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 6*time.Second {
			t.Errorf("Get: %v after %v", err, time.Since(start))
		}
		c.Heal()
	})
}
