package zkq_test

// What a hostile reader found, each a test that failed on the code he read.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

func TestBrokenLockIsNoticedThoughAnotherTookTheEntry(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		holder, _ := b.queue()
		other, _ := b.queue()
		b.put(other, "a")
		b.put(other, "b")
		h := b.take(holder)
		working, done := h.Context(b.ctx)
		defer done()
		time.Sleep(3 * time.Second)
		b.take(other) // a change: the keeper looks, and pauses
		time.Sleep(500 * time.Millisecond)
		if err := other.BreakLock(b.ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		if again := b.take(other); again.Name != h.Name {
			t.Fatalf("took %s", again.Name)
		}
		start := time.Now()
		<-working.Done()
		if d := time.Since(start); d > 1500*time.Millisecond {
			t.Fatalf("noticed after %v", d)
		}
	})
}

func TestHandleTakenOverInItsOwnProcessHoldsNothing(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		b.put(q, "a")
		first := b.take(q)
		working, done := first.Context(b.ctx)
		defer done()
		if err := q.BreakLock(b.ctx, first.Name); err != nil {
			t.Fatal(err)
		}
		second := b.take(q)
		if holds, err := first.HoldsLock(b.ctx); holds || err != nil {
			t.Errorf("the first HoldsLock = %v, %v", holds, err)
		}
		if holds, err := second.HoldsLock(b.ctx); !holds || err != nil {
			t.Errorf("the second HoldsLock = %v, %v", holds, err)
		}
		if !errors.Is(context.Cause(working), zkq.ErrLockLost) {
			t.Errorf("the first one's context: %v", context.Cause(working))
		}
		b.want(first.Consume(b.ctx), zkq.ErrLockLost)
		b.consume(second)
	})
}

// A finish without an answer must not take another's for its own.
func TestUnansweredConsumeOfABrokenEntryIsUnknown(t *testing.T) {
	for name, takeAway := range map[string]func(b *bench, q *zkq.LockingQueue, name string){
		"release --force, and another consumed it": func(b *bench, q *zkq.LockingQueue, name string) {
			if err := q.BreakLock(b.ctx, name); err != nil {
				b.Fatal(err)
			}
			b.consume(b.take(q))
		},
		"rm --force": func(b *bench, q *zkq.LockingQueue, name string) {
			if err := q.Remove(b.ctx, name, true); err != nil {
				b.Fatal(err)
			}
		},
		"purge": func(b *bench, q *zkq.LockingQueue, _ string) {
			if n, err := q.Purge(b.ctx, zkq.StateHeld); n != 1 || err != nil {
				b.Fatal(n, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				other, _ := b.queue()
				b.put(q, "a")
				h := b.take(q)
				c.DropRequest()
				got := make(chan error, 1)
				go func() { got <- h.Consume(b.ctx) }()
				time.Sleep(time.Millisecond) // the first attempt is lost; the second comes after 10
				takeAway(b, other, h.Name)
				if err := <-got; err == nil {
					t.Fatal("a consume that removed nothing was ok")
				}
			})
		})
	}
}

func TestTracesOfBrokenLocksGoAfterADay(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		name := b.put(q, "a")
		for range 3 {
			b.take(q)
			if err := q.BreakLock(b.ctx, name); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Hour)
		}
		if left := b.children(b.session(c), "/jobs/broken"); len(left) != 2 {
			t.Fatalf("traces left: %q", left)
		}
	})
}

func TestClosedHandleLeavesNoHiddenClaim(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		other, _ := b.queue()
		b.put(other, "a")
		s := b.session(c)
		ctx, cancel := context.WithCancel(b.ctx)
		c.DropReply() // the claim is applied, its answer lost, and that of the second attempt
		c.DropReply()
		took := make(chan error, 1)
		go func() {
			_, err := q.TryTake(ctx)
			took <- err
		}()
		time.Sleep(2 * time.Millisecond)
		c.Cut()
		cancel()
		b.want(<-took, context.Canceled)
		time.Sleep(10 * time.Millisecond)
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		c.Heal()
		b.take(other)
		if s.ID() != b.session(c).ID() {
			t.Fatal("the session was lost, and with it the lock: this shows nothing")
		}
	})
}

func TestCloseDoesNotWaitForTheService(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		ended := make(chan error, 1)
		go func() {
			_, err := q.Take(b.ctx)
			ended <- err
		}()
		time.Sleep(time.Second)
		c.Cut()
		time.Sleep(30 * time.Second) // the take waits for a new session
		start := time.Now()
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("Close took %v", d)
		}
		b.want(<-ended, zkq.ErrClosed)

		other, oc := b.queue()
		b.put(other, "a")
		oc.HoldReplies()
		go func() {
			_, err := other.Get(b.ctx)
			ended <- err
		}()
		time.Sleep(100 * time.Millisecond)
		start = time.Now()
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("Close took %v", d)
		}
		b.want(<-ended, zkq.ErrClosed)
	})
}

func TestEmptyIsNotSaidForWhatBecameLeftAloneMeanwhile(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c)
		for _, v := range []string{"x", "y", "z"} {
			b.put(q, v)
		}
		h := b.take(q)
		released := false
		c.hook(func(_ coord.Session, act, path string) {
			if act == "list" && path == "/jobs/taken" && !released {
				released = true
				if err := h.Release(b.ctx, zkq.LeaveAlone(time.Minute)); err != nil {
					t.Error(err)
				}
			}
		})
		if h, err := q.TryTake(b.ctx); err != nil || string(h.Value) != "y" {
			t.Fatalf("TryTake = %v, %v", h, err)
		}
	})
}

// kazoo's claim is the lock alone, and may come between two reads of a removal.
func TestRemoveDoesNotTakeAnEntryFromAKazooWorker(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c)
		name := b.put(q, "x")
		kazoo := b.session(b.client())
		claimed := false
		c.hook(func(_ coord.Session, act, path string) {
			if act == "commit" && !claimed && !strings.HasPrefix(path, "create sequential") {
				claimed = true
				b.commit(kazoo, coord.CreateEphemeral("/jobs/taken/"+name, []byte("00000000000000000000000000000000")))
			}
		})
		b.want(q.Remove(b.ctx, name, false), zkq.ErrHeld)
		if !claimed {
			t.Fatal("the claim did not come in between")
		}
		if n, err := q.Len(b.ctx); n != 1 || err != nil {
			t.Fatalf("Len = %d, %v", n, err)
		}
	})
}

func TestBusyServiceIsWaitedOut(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		b.put(q, "a")
		for range 3 {
			c.Refuse(coord.ErrBusy)
		}
		h := b.take(q)
		for range 3 {
			c.Refuse(coord.ErrBusy)
		}
		b.consume(h)
	})
}

// The handle of a claim whose answer was lost while an earlier hold of the same
// process stood: giving that back moves no fence, and the claim may still apply.
func TestClaimAppliedAfterAnEarlierReleaseIsUndone(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		second, c := b.queue()
		b.put(q, "a")
		h := b.take(q)
		// The second process claims by an old listing; the request hangs on its way.
		c.Lag()
		c.HoldRequests()
		ctx, cancel := context.WithTimeout(b.ctx, 100*time.Millisecond)
		defer cancel()
		_, err := second.Take(ctx)
		b.want(err, context.DeadlineExceeded)
		if err := h.Release(b.ctx); err != nil {
			t.Fatal(err)
		}
		c.CatchUp()
		c.Heal()
		b.consume(b.take(q))
	})
}

// A take that comes after one whose claim is in doubt must not get a later entry:
// the first claims of the two would be out of order.
func TestClaimInDoubtIsNotPassedOver(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		b.put(q, "first")
		b.put(q, "second")
		b.consume(b.take(q)) // a session, and the view is there
		b.put(q, "third")
		for range 3 {
			c.DropRequest()
		}
		ctx, cancel := context.WithTimeout(b.ctx, 2*time.Millisecond)
		defer cancel()
		_, err := q.Take(ctx) // the claim and its second attempt are lost, and nobody waits
		b.want(err, context.DeadlineExceeded)
		if h := b.take(q); string(h.Value) != "second" {
			t.Errorf("took %q while the claim of %q was in doubt", h.Value, "second")
		}
	})
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		b.put(q, "first")
		b.put(q, "second")
		c.DropRequest()
		for range 6 {
			c.Refuse(coord.ErrBusy)
		}
		if h := b.take(q); string(h.Value) != "first" {
			t.Errorf("took %q while the claim of %q was in doubt", h.Value, "first")
		}
	})
}

// A claim in doubt met another's lock, and is tried again ever less often. When that
// lock is given back, the takes of its handle know as soon as any other's.
func TestEntryGivenBackUnderAClaimInDoubtIsNotPassedOver(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		cl := b.client()
		c := newCounting(cl)
		q := b.on(c)
		other, _ := b.queue()
		b.put(q, "first")
		var theirs *zkq.Held
		c.hook(func(_ coord.Session, act, path string) {
			if act == "read" && strings.HasPrefix(path, "/jobs/entries/") && theirs == nil {
				theirs = b.take(other)
				cl.DropReply()
			}
		})
		ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
		defer cancel()
		_, err := q.Take(ctx)
		b.want(err, context.DeadlineExceeded)
		if theirs == nil {
			t.Fatal("nobody was faster")
		}
		b.put(other, "second")
		b.release(theirs)
		began := time.Now()
		held, err := q.TryTakeN(b.ctx, 2)
		if took := time.Since(began); err != nil || string(held[0].Value) != "first" || took > 100*time.Millisecond {
			t.Fatalf("took %+v, %v, after %v", held[0], err, took)
		}
	})
}

// Wherever they sort: a take reads a page of them at most.
func TestForeignNodesCostNoRequests(t *testing.T) {
	const takes, many = 50, 10_000
	cost := func(t *testing.T, form string) (requests, nodes int) {
		virtual(t, func(t *testing.T, b *bench) {
			c := newCounting(b.client())
			q := b.on(c)
			s := b.session(c)
			for n := 0; form != "" && n < many; n += 500 {
				var ops []coord.Op
				for i := range 500 {
					ops = append(ops, coord.Create(fmt.Sprintf("/jobs/entries/"+form, n+i), nil))
				}
				b.commit(s, ops...)
			}
			b.put(q, "first")
			b.consume(b.take(q))
			c.reset()
			for range takes {
				b.put(q, "x")
				b.consume(b.take(q))
			}
			requests, nodes = c.of(), c.nodes
		})
		return requests, nodes
	}
	requests, nodes := cost(t, "")
	for _, form := range []string{"aaa%06d", "zzz%06d", "entry-000-x%06d", "entry-999-x%06d", "entry-10x%06d"} {
		r, n := cost(t, form)
		lists := r // no more than all of them
		if r > requests+requests/10+takes*2 || n > nodes+2*64*lists {
			t.Errorf("%d nodes %q: %d requests that read %d nodes, without them %d and %d", many, form, r, n, requests, nodes)
		}
	}
}

// At every instant of the call an entry was available, though never one that both
// listings showed.
func TestEmptyIsNotSaidWhenAReleaseFellBetweenTheListings(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		other, _ := b.queue()
		b.put(other, "a")
		held := b.take(other)
		b.put(other, "urgent", zkq.WithPriority(1))
		c := newCounting(b.client())
		q := b.on(c)
		once := false
		c.hook(func(_ coord.Session, act, path string) {
			if act != "list" || path != "/jobs/entries" || once {
				return
			}
			once = true
			if err := held.Release(b.ctx); err != nil {
				t.Error(err)
			}
			b.consume(b.take(other))
		})
		h, err := q.TryTake(b.ctx)
		if err != nil || string(h.Value) != "a" {
			t.Errorf("TryTake: %v", err)
		}
	})
}

func TestCancelledClaimIsUndoneHoweverBusyTheService(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		other, _ := b.queue()
		b.put(q, "a")
		c.DropReply()
		for range 4 {
			c.Refuse(coord.ErrBusy)
		}
		ctx, cancel := context.WithTimeout(b.ctx, 2*time.Millisecond)
		defer cancel()
		_, err := q.Take(ctx)
		b.want(err, context.DeadlineExceeded)
		b.consume(b.take(other))
	})
}
