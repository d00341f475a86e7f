package zkq_test

// The defects of kazoo's queues, one test each: every one of them fails on the
// algorithm of kazoo 2.8 and holds on ours. The numbers are those of
// docs/decisions.md.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testqueue"
)

// kazoo #175: a get that times out leaves two watches behind.
func TestKazoo01TimedOutTakesLeaveNoWatches(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		most := 0
		for range 200 {
			ctx, cancel := context.WithTimeout(env.Ctx, time.Millisecond)
			_, err := q.Take(ctx)
			cancel()
			env.WantErr(err, context.DeadlineExceeded)
			most = max(most, c.Watches())
		}
		if most > 3 { // one of what is there, of what falls due, and of news
			t.Errorf("up to %d watches at once", most)
		}
		q.Close()
		synctest.Wait()
		if n := c.Watches(); n != 0 {
			t.Errorf("%d watches after Close", n)
		}
	})
}

// A waiting get never wakes after its connection was dropped.
func TestKazoo02WaiterWakesAfterALostConnection(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		other, _ := env.Queue()
		got := make(chan time.Time, 1)
		go func() {
			if _, err := q.Take(env.Ctx); err != nil {
				t.Errorf("Take: %v", err)
			}
			got <- time.Now()
		}()
		synctest.Wait()
		c.Cut()
		time.Sleep(time.Second)
		env.Put(other, "put while the waiter was away")
		time.Sleep(time.Second)
		c.Heal()
		healed := time.Now()
		if d := (<-got).Sub(healed); d > time.Second {
			t.Fatalf("woke %v after the connection was back", d)
		}
	})
}

// An exception in the code that a watch runs is swallowed, and the waiter sleeps
// for ever.
func TestKazoo03WaiterSurvivesAnEntryThatVanishesAsItWakes(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		other, oc := env.Queue()
		s := env.Session(oc)
		vanish := true
		c.Before(func(_ coord.Session, act, path string) {
			if act == "read" && vanish && strings.HasPrefix(path, "/jobs/entries/") {
				vanish = false
				n := env.Get(s, path)
				env.Commit(s, coord.Delete(path, n.Fence))
			}
		})
		got := make(chan string, 1)
		go func() {
			h, err := q.Take(env.Ctx)
			if err != nil {
				t.Errorf("Take: %v", err)
				close(got)
				return
			}
			got <- string(h.Value)
		}()
		synctest.Wait()
		env.Put(other, "vanishes")
		synctest.Wait()
		env.Put(other, "stays")
		if v := <-got; v != "stays" || vanish {
			t.Fatalf("took %q, vanished: %v", v, !vanish)
		}
	})
}

// What a transaction answered is ignored: consume says True with the entry gone,
// a put of several into a place that refuses them stores nothing and says so to
// nobody.
func TestKazoo04RefusedTransactionsAreErrors(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		cl := env.Client()
		q := env.QueueOn(cl)
		name := env.Put(q, "a")
		h := env.Take(q)
		s := env.Session(cl)
		env.Commit(s, coord.Delete("/jobs/entries/"+name, env.Get(s, "/jobs/entries/"+name).Fence))
		env.WantErr(h.Consume(env.Ctx), zkq.ErrLockLost)

		cl.Refuse(coord.ErrForbidden)
		names, err := q.PutAll(env.Ctx, [][]byte{{1}, {2}})
		if !errors.Is(err, coord.ErrForbidden) || names != nil {
			t.Fatalf("PutAll = %q, %v", names, err)
		}
	})
}

// consume checks the lock, then removes by path: in between another may have
// taken the entry, which is then removed under its hands.
func TestKazoo05StaleConsumeRemovesNobodyElsesEntry(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		cl := env.Client()
		c := testqueue.NewCounter(cl)
		q := env.QueueOn(c)
		other, _ := env.Queue()
		name := env.Put(other, "a")
		h := env.Take(q)
		var second *zkq.Held
		c.Before(func(_ coord.Session, act, _ string) {
			if act == "commit" && second == nil { // as late as it gets
				if err := other.BreakLock(env.Ctx, name); err != nil {
					t.Errorf("BreakLock: %v", err)
				}
				second = env.Take(other)
			}
		})
		env.WantErr(h.Consume(env.Ctx), zkq.ErrLockLost)
		env.Consume(second)
	})
}

// holds_lock, consume and release raise when the lock is gone.
func TestKazoo06AGoneLockIsAnAnswerNotAFailure(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		admin, _ := env.Queue()
		for _, finish := range []func(*zkq.Held) error{
			func(h *zkq.Held) error { return h.Consume(env.Ctx) },
			func(h *zkq.Held) error { return h.Release(env.Ctx) },
		} {
			name := env.Put(q, "a")
			h := env.Take(q)
			if err := admin.BreakLock(env.Ctx, name); err != nil {
				t.Fatal(err)
			}
			if holds, err := h.HoldsLock(env.Ctx); holds || err != nil {
				t.Fatalf("HoldsLock = %v, %v", holds, err)
			}
			env.WantErr(finish(h), zkq.ErrLockLost)
			if err := admin.Remove(env.Ctx, name, false); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// After a loss get returns the entry that was lost, for ever.
func TestKazoo07GetForgetsALostEntry(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		other, _ := env.Queue()
		env.Put(q, "lost")
		if _, err := q.Get(env.Ctx); err != nil {
			t.Fatal(err)
		}
		c.Cut()
		time.Sleep(10 * time.Second)
		env.Consume(env.Take(other))
		env.Put(other, "next")
		c.Heal()
		if v, err := q.Get(env.Ctx); string(v) != "next" || err != nil {
			t.Fatalf("Get = %q, %v", v, err)
		}
		// The same when only the lock went.
		if err := other.BreakLock(env.Ctx, env.Entries(other)[0].Name); err != nil {
			t.Fatal(err)
		}
		env.Consume(env.Take(other))
		env.Put(other, "third")
		if v, err := q.Get(env.Ctx); string(v) != "third" || err != nil {
			t.Fatalf("Get = %q, %v", v, err)
		}
	})
}

// A put whose reply was lost is made again, and stands twice.
func TestKazoo08LostReplyNeverPutsTwice(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Session(c)
		for i := range 10 {
			c.DropReply()
			env.Put(q, fmt.Sprint(i))
		}
		if n, err := q.Len(env.Ctx); n != 10 || err != nil {
			t.Fatalf("Len = %d, %v; 10 were put", n, err)
		}
	})
}

// A claim whose reply was lost looks like somebody else's lock: the entry stays
// locked by a live session that does not know it.
func TestKazoo09LostReplyOfAClaimIsFoundToBeOurs(t *testing.T) {
	for _, fault := range []string{"reply", "request", "reply then cut"} {
		t.Run(fault, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				env.Put(q, "a")
				switch fault {
				case "reply":
					c.DropReply()
				case "request":
					c.DropRequest()
				default:
					c.DropReply()
					c.DropReply()
				}
				h := env.Take(q)
				if string(h.Value) != "a" || h.Deliveries != 1 || h.Token == 0 {
					t.Fatalf("took %+v", h)
				}
				env.Consume(h)
			})
		})
	}
}

// One put makes every waiter list the whole queue, several times.
func TestKazoo10OnePutDoesNotMakeEveryWaiterList(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		other, _ := env.Queue()
		got := make(chan *zkq.Held, 16)
		for range 16 {
			go func() {
				if h, err := q.Take(env.Ctx); err == nil {
					got <- h
				}
			}()
		}
		synctest.Wait()
		c.Reset()
		env.Put(other, "a")
		env.Consume(<-got)
		synctest.Wait()
		if n := c.Count(); n > 10 {
			t.Fatalf("one entry cost 16 waiters %d requests: %v", n, c.Requests)
		}
	})
}

// The cost of a take grows with the backlog.
func TestKazoo11CostOfATakeDoesNotGrowWithTheBacklog(t *testing.T) {
	cost := func(backlog int) (requests, nodes int) {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			c := testqueue.NewCounter(env.Client())
			q := env.QueueOn(c)
			for range backlog / 100 {
				if _, err := q.PutAll(env.Ctx, make([][]byte, 100)); err != nil {
					t.Fatal(err)
				}
			}
			env.Consume(env.Take(q))
			synctest.Wait()
			c.Reset()
			for range 50 {
				env.Consume(env.Take(q))
			}
			requests, nodes = c.Count(), c.Nodes
		})
		return requests, nodes
	}
	requests, nodes := cost(300)
	moreRequests, moreNodes := cost(10_000)
	if requests != moreRequests || nodes != moreNodes {
		t.Fatalf("50 takes: %d requests, %d nodes listed at a backlog of 300; %d and %d at 10,000",
			requests, nodes, moreRequests, moreNodes)
	}
}

// Queue.get removes an entry, the reply is lost, and get takes the next one.
func TestKazoo12LostReplyOfAGetLosesNoValue(t *testing.T) {
	for _, fault := range []string{"reply", "request"} {
		t.Run(fault, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				c := env.Client()
				q := zkq.NewQueue(c, "simple")
				defer q.Close()
				env.Put(q, "a")
				env.Put(q, "b")
				if fault == "reply" {
					c.DropReply()
				} else {
					c.DropRequest()
				}
				e, err := q.TryGet(env.Ctx)
				if string(e.Value) != "a" || err != nil && !errors.Is(err, zkq.ErrUnknown) {
					t.Fatalf("TryGet = %q, %v", e.Value, err)
				}
				if fault == "request" && err != nil {
					t.Fatalf("it was never removed, and now is, by this call alone: %v", err)
				}
				if e, err := q.TryGet(env.Ctx); string(e.Value) != "b" || err != nil {
					t.Fatalf("next TryGet = %q, %v", e.Value, err)
				}
			})
		})
	}
}

// Queue keeps its listing: a more urgent entry put later is served later.
func TestKazoo13LaterButMoreUrgentIsTakenFirst(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := env.Client()
		simple := zkq.NewQueue(c, "simple")
		defer simple.Close()
		locking, _ := env.Queue()
		for _, q := range []interface {
			Put(context.Context, []byte, ...zkq.PutOption) (string, error)
		}{simple, locking} {
			env.Put(q, "500", zkq.WithPriority(500))
			env.Put(q, "500", zkq.WithPriority(500))
		}
		first, err := simple.Get(env.Ctx)
		if err != nil || string(first.Value) != "500" {
			t.Fatalf("Get = %q, %v", first.Value, err)
		}
		env.Consume(env.Take(locking))
		env.Put(simple, "1", zkq.WithPriority(1))
		env.Put(locking, "1", zkq.WithPriority(1))
		if e, err := simple.Get(env.Ctx); string(e.Value) != "1" || err != nil {
			t.Fatalf("Get = %q, %v", e.Value, err)
		}
		if h := env.Take(locking); string(h.Value) != "1" {
			t.Fatalf("took %q", h.Value)
		}
	})
}

func TestOtherLayoutIsRefused(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := env.Client()
		locking, simple := zkq.NewLockingQueue(c, "l"), zkq.NewQueue(c, "p")
		defer locking.Close()
		defer simple.Close()
		env.Put(locking, "a")
		env.Put(simple, "a")
		wrongPlain, wrongLocking := zkq.NewQueue(c, "l"), zkq.NewLockingQueue(c, "p")
		defer wrongPlain.Close()
		defer wrongLocking.Close()
		_, err := wrongPlain.Put(env.Ctx, nil)
		env.WantErr(err, zkq.ErrLayout)
		_, err = wrongPlain.Get(env.Ctx)
		env.WantErr(err, zkq.ErrLayout)
		_, err = wrongLocking.Put(env.Ctx, nil)
		env.WantErr(err, zkq.ErrLayout)
		_, err = wrongLocking.TryTake(env.Ctx)
		env.WantErr(err, zkq.ErrLayout)
		if !strings.Contains(err.Error(), "/p") || !strings.Contains(err.Error(), "plain") {
			t.Errorf("%q names neither queue nor layout", err)
		}
	})
}
