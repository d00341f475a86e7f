package hostile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testqueue"
)

func TestBrokenLockIsNoticedThoughAnotherTookTheEntry(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		holder, _ := env.Queue()
		other, _ := env.Queue()
		env.Put(other, "a")
		env.Put(other, "b")
		h := env.Take(holder)
		working, done := h.Context(env.Ctx)
		defer done()
		time.Sleep(3 * time.Second)
		env.Take(other) // a change: the keeper looks, and pauses
		time.Sleep(500 * time.Millisecond)
		if err := other.BreakLock(env.Ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		if again := env.Take(other); again.Name != h.Name {
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
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "a")
		first := env.Take(q)
		working, done := first.Context(env.Ctx)
		defer done()
		if err := q.BreakLock(env.Ctx, first.Name); err != nil {
			t.Fatal(err)
		}
		second := env.Take(q)
		if holds, err := first.HoldsLock(env.Ctx); holds || err != nil {
			t.Errorf("the first HoldsLock = %v, %v", holds, err)
		}
		if holds, err := second.HoldsLock(env.Ctx); !holds || err != nil {
			t.Errorf("the second HoldsLock = %v, %v", holds, err)
		}
		if !errors.Is(context.Cause(working), zkq.ErrLockLost) {
			t.Errorf("the first one's context: %v", context.Cause(working))
		}
		env.WantErr(first.Consume(env.Ctx), zkq.ErrLockLost)
		env.Consume(second)
	})
}

// A finish without an answer must not take another client's removal for its own.
func TestUnansweredConsumeOfABrokenEntryIsUnknown(t *testing.T) {
	for name, takeAway := range map[string]func(env *testqueue.Env, q *zkq.LockingQueue, name string){
		"release --force, and another consumed it": func(env *testqueue.Env, q *zkq.LockingQueue, name string) {
			if err := q.BreakLock(env.Ctx, name); err != nil {
				env.Fatal(err)
			}
			env.Consume(env.Take(q))
		},
		"rm --force": func(env *testqueue.Env, q *zkq.LockingQueue, name string) {
			if err := q.Remove(env.Ctx, name, true); err != nil {
				env.Fatal(err)
			}
		},
		"purge": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) {
			if n, err := q.Purge(env.Ctx, zkq.StateHeld); n != 1 || err != nil {
				env.Fatal(n, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				other, _ := env.Queue()
				env.Put(q, "a")
				h := env.Take(q)
				c.DropRequest()
				got := make(chan error, 1)
				go func() { got <- h.Consume(env.Ctx) }()
				time.Sleep(time.Millisecond) // the first attempt is lost; the second comes after 10
				takeAway(env, other, h.Name)
				if err := <-got; err == nil {
					t.Fatal("a consume that removed nothing was ok")
				}
			})
		})
	}
}

func TestTracesOfBrokenLocksAreRemovedAfterADay(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		name := env.Put(q, "a")
		for range 3 {
			env.Take(q)
			if err := q.BreakLock(env.Ctx, name); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Hour)
		}
		if left := env.Children(env.Session(c), "/jobs/broken"); len(left) != 2 {
			t.Fatalf("traces left: %q", left)
		}
	})
}

func TestClosedHandleLeavesNoHiddenClaim(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		other, _ := env.Queue()
		env.Put(other, "a")
		s := env.Session(c)
		ctx, cancel := context.WithCancel(env.Ctx)
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
		env.WantErr(<-took, context.Canceled)
		time.Sleep(10 * time.Millisecond)
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		c.Heal()
		env.Take(other)
		if s.ID() != env.Session(c).ID() {
			t.Fatal("the session was lost, and with it the lock: this shows nothing")
		}
	})
}

func TestCloseDoesNotWaitForTheService(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		ended := make(chan error, 1)
		go func() {
			_, err := q.Take(env.Ctx)
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
		env.WantErr(<-ended, zkq.ErrClosed)

		other, oc := env.Queue()
		env.Put(other, "a")
		oc.HoldReplies()
		go func() {
			_, err := other.Get(env.Ctx)
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
		env.WantErr(<-ended, zkq.ErrClosed)
	})
}

func TestErrEmptyIsNotReturnedForAnEntryLeftAloneMeanwhile(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		for _, v := range []string{"x", "y", "z"} {
			env.Put(q, v)
		}
		h := env.Take(q)
		released := false
		c.Before(func(_ coord.Session, act, path string) {
			if act == "list" && path == "/jobs/taken" && !released {
				released = true
				if err := h.Release(env.Ctx, zkq.LeaveAlone(time.Minute)); err != nil {
					t.Error(err)
				}
			}
		})
		if h, err := q.TryTake(env.Ctx); err != nil || string(h.Value) != "y" {
			t.Fatalf("TryTake = %v, %v", h, err)
		}
	})
}

// kazoo's claim only creates the lock, and may come between two reads of a removal.
func TestRemoveDoesNotTakeAnEntryFromAKazooWorker(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		name := env.Put(q, "x")
		kazoo := env.Session(env.Client())
		claimed := false
		c.Before(func(_ coord.Session, act, path string) {
			if act == "commit" && !claimed && !strings.HasPrefix(path, "create sequential") {
				claimed = true
				env.Commit(kazoo, coord.CreateEphemeral("/jobs/taken/"+name, []byte("00000000000000000000000000000000")))
			}
		})
		env.WantErr(q.Remove(env.Ctx, name, false), zkq.ErrHeld)
		if !claimed {
			t.Fatal("the claim did not come in between")
		}
		if n, err := q.Len(env.Ctx); n != 1 || err != nil {
			t.Fatalf("Len = %d, %v", n, err)
		}
	})
}

func TestBusyServiceIsWaitedOut(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "a")
		for range 3 {
			c.Refuse(coord.ErrBusy)
		}
		h := env.Take(q)
		for range 3 {
			c.Refuse(coord.ErrBusy)
		}
		env.Consume(h)
	})
}

// The answer to a claim was lost while the same process still held an earlier lock on the entry. Releasing that lock
// moves no fence, so the claim may still be applied.
func TestClaimAppliedAfterAnEarlierReleaseIsUndone(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		second, c := env.Queue()
		env.Put(q, "a")
		h := env.Take(q)
		// The second process claims by an old listing, and the request is delayed.
		c.Lag()
		c.HoldRequests()
		ctx, cancel := context.WithTimeout(env.Ctx, 100*time.Millisecond)
		defer cancel()
		_, err := second.Take(ctx)
		env.WantErr(err, context.DeadlineExceeded)
		if err := h.Release(env.Ctx); err != nil {
			t.Fatal(err)
		}
		c.CatchUp()
		c.Heal()
		env.Consume(env.Take(q))
	})
}

// A take that follows one whose claim is in doubt must not get a later entry, or the order of first claims would be
// wrong.
func TestClaimInDoubtIsNotPassedOver(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "first")
		env.Put(q, "second")
		env.Consume(env.Take(q)) // a session, and the view is there
		env.Put(q, "third")
		for range 3 {
			c.DropRequest()
		}
		ctx, cancel := context.WithTimeout(env.Ctx, 2*time.Millisecond)
		defer cancel()
		_, err := q.Take(ctx) // the claim and its second attempt are lost, and no caller waits
		env.WantErr(err, context.DeadlineExceeded)
		if h := env.Take(q); string(h.Value) != "second" {
			t.Errorf("took %q while the claim of %q was in doubt", h.Value, "second")
		}
	})
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "first")
		env.Put(q, "second")
		c.DropRequest()
		for range 6 {
			c.Refuse(coord.ErrBusy)
		}
		if h := env.Take(q); string(h.Value) != "first" {
			t.Errorf("took %q while the claim of %q was in doubt", h.Value, "first")
		}
	})
}

// A claim in doubt met the lock of another client, and is repeated with growing delays. When that lock is released, the
// takes of the handle notice it as soon as others do.
func TestEntryGivenBackUnderAClaimInDoubtIsNotPassedOver(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		cl := env.Client()
		c := testqueue.NewCounter(cl)
		q := env.QueueOn(c)
		other, _ := env.Queue()
		env.Put(q, "first")
		var theirs *zkq.Held
		c.Before(func(_ coord.Session, act, path string) {
			if act == "read" && strings.HasPrefix(path, "/jobs/entries/") && theirs == nil {
				theirs = env.Take(other)
				cl.DropReply()
			}
		})
		ctx, cancel := context.WithTimeout(env.Ctx, 10*time.Second)
		defer cancel()
		_, err := q.Take(ctx)
		env.WantErr(err, context.DeadlineExceeded)
		if theirs == nil {
			t.Fatal("no other take was faster")
		}
		env.Put(other, "second")
		env.Release(theirs)
		began := time.Now()
		held, err := q.TryTakeN(env.Ctx, 2)
		if took := time.Since(began); err != nil || string(held[0].Value) != "first" || took > 100*time.Millisecond {
			t.Fatalf("took %+v, %v, after %v", held[0], err, took)
		}
	})
}

// A take reads at most one page of foreign nodes, wherever they sort.
func TestForeignNodesCostNoRequests(t *testing.T) {
	const takes, many = 50, 10_000
	cost := func(t *testing.T, form string) (requests, nodes int) {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			c := testqueue.NewCounter(env.Client())
			q := env.QueueOn(c)
			s := env.Session(c)
			for n := 0; form != "" && n < many; n += 500 {
				var ops []coord.Op
				for i := range 500 {
					ops = append(ops, coord.Create(fmt.Sprintf("/jobs/entries/"+form, n+i), nil))
				}
				env.Commit(s, ops...)
			}
			env.Put(q, "first")
			env.Consume(env.Take(q))
			c.Reset()
			for range takes {
				env.Put(q, "x")
				env.Consume(env.Take(q))
			}
			requests, nodes = c.Count(), c.Nodes
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

// An entry was available at every instant of the call, but no entry was free in both listings.
func TestErrEmptyIsNotReturnedWhenAReleaseFellBetweenTheListings(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		other, _ := env.Queue()
		env.Put(other, "a")
		held := env.Take(other)
		env.Put(other, "urgent", zkq.WithPriority(1))
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		once := false
		c.Before(func(_ coord.Session, act, path string) {
			if act != "list" || path != "/jobs/entries" || once {
				return
			}
			once = true
			if err := held.Release(env.Ctx); err != nil {
				t.Error(err)
			}
			env.Consume(env.Take(other))
		})
		h, err := q.TryTake(env.Ctx)
		if err != nil || string(h.Value) != "a" {
			t.Errorf("TryTake: %v", err)
		}
	})
}

func TestCancelledClaimIsUndoneHoweverBusyTheService(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		other, _ := env.Queue()
		env.Put(q, "a")
		c.DropReply()
		for range 4 {
			c.Refuse(coord.ErrBusy)
		}
		ctx, cancel := context.WithTimeout(env.Ctx, 2*time.Millisecond)
		defer cancel()
		_, err := q.Take(ctx)
		env.WantErr(err, context.DeadlineExceeded)
		env.Consume(env.Take(other))
	})
}
