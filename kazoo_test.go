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
)

// kazoo #175: a get that times out leaves two watches behind.
func TestKazoo01TimedOutTakesLeaveNoWatches(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c)
		most := 0
		for range 200 {
			ctx, cancel := context.WithTimeout(b.ctx, time.Millisecond)
			_, err := q.Take(ctx)
			cancel()
			b.want(err, context.DeadlineExceeded)
			most = max(most, c.watches())
		}
		if most > 3 { // one of what is there, of what falls due, and of news
			t.Errorf("up to %d watches at once", most)
		}
		q.Close()
		synctest.Wait()
		if n := c.watches(); n != 0 {
			t.Errorf("%d watches after Close", n)
		}
	})
}

// A waiting get never wakes after its connection was dropped.
func TestKazoo02WaiterWakesAfterALostConnection(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		other, _ := b.queue()
		got := make(chan time.Time, 1)
		go func() {
			if _, err := q.Take(b.ctx); err != nil {
				t.Errorf("Take: %v", err)
			}
			got <- time.Now()
		}()
		synctest.Wait()
		c.Cut()
		time.Sleep(time.Second)
		b.put(other, "put while the waiter was away")
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
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c)
		other, oc := b.queue()
		s := b.session(oc)
		vanish := true
		c.hook(func(_ coord.Session, act, path string) {
			if act == "read" && vanish && strings.HasPrefix(path, "/jobs/entries/") {
				vanish = false
				n := b.get(s, path)
				b.commit(s, coord.Delete(path, n.Fence))
			}
		})
		got := make(chan string, 1)
		go func() {
			h, err := q.Take(b.ctx)
			if err != nil {
				t.Errorf("Take: %v", err)
				close(got)
				return
			}
			got <- string(h.Value)
		}()
		synctest.Wait()
		b.put(other, "vanishes")
		synctest.Wait()
		b.put(other, "stays")
		if v := <-got; v != "stays" || vanish {
			t.Fatalf("took %q, vanished: %v", v, !vanish)
		}
	})
}

// What a transaction answered is ignored: consume says True with the entry gone,
// a put of several into a place that refuses them stores nothing and says so to
// nobody.
func TestKazoo04RefusedTransactionsAreErrors(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		cl := b.client()
		q := b.on(cl)
		name := b.put(q, "a")
		h := b.take(q)
		s := b.session(cl)
		b.commit(s, coord.Delete("/jobs/entries/"+name, b.get(s, "/jobs/entries/"+name).Fence))
		b.want(h.Consume(b.ctx), zkq.ErrLockLost)

		cl.Refuse(coord.ErrForbidden)
		names, err := q.PutAll(b.ctx, [][]byte{{1}, {2}})
		if !errors.Is(err, coord.ErrForbidden) || names != nil {
			t.Fatalf("PutAll = %q, %v", names, err)
		}
	})
}

// consume checks the lock, then removes by path: in between another may have
// taken the entry, which is then removed under its hands.
func TestKazoo05StaleConsumeRemovesNobodyElsesEntry(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		cl := b.client()
		c := newCounting(cl)
		q := b.on(c)
		other, _ := b.queue()
		name := b.put(other, "a")
		h := b.take(q)
		var second *zkq.Held
		c.hook(func(_ coord.Session, act, _ string) {
			if act == "commit" && second == nil { // as late as it gets
				if err := other.BreakLock(b.ctx, name); err != nil {
					t.Errorf("BreakLock: %v", err)
				}
				second = b.take(other)
			}
		})
		b.want(h.Consume(b.ctx), zkq.ErrLockLost)
		b.consume(second)
	})
}

// holds_lock, consume and release raise when the lock is gone.
func TestKazoo06AGoneLockIsAnAnswerNotAFailure(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		admin, _ := b.queue()
		for _, finish := range []func(*zkq.Held) error{
			func(h *zkq.Held) error { return h.Consume(b.ctx) },
			func(h *zkq.Held) error { return h.Release(b.ctx) },
		} {
			name := b.put(q, "a")
			h := b.take(q)
			if err := admin.BreakLock(b.ctx, name); err != nil {
				t.Fatal(err)
			}
			if holds, err := h.HoldsLock(b.ctx); holds || err != nil {
				t.Fatalf("HoldsLock = %v, %v", holds, err)
			}
			b.want(finish(h), zkq.ErrLockLost)
			if err := admin.Remove(b.ctx, name, false); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// After a loss get returns the entry that was lost, for ever.
func TestKazoo07GetForgetsALostEntry(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		other, _ := b.queue()
		b.put(q, "lost")
		if _, err := q.Get(b.ctx); err != nil {
			t.Fatal(err)
		}
		c.Cut()
		time.Sleep(10 * time.Second)
		b.consume(b.take(other))
		b.put(other, "next")
		c.Heal()
		if v, err := q.Get(b.ctx); string(v) != "next" || err != nil {
			t.Fatalf("Get = %q, %v", v, err)
		}
		// The same when only the lock went.
		if err := other.BreakLock(b.ctx, b.entries(other)[0].Name); err != nil {
			t.Fatal(err)
		}
		b.consume(b.take(other))
		b.put(other, "third")
		if v, err := q.Get(b.ctx); string(v) != "third" || err != nil {
			t.Fatalf("Get = %q, %v", v, err)
		}
	})
}

// A put whose reply was lost is made again, and stands twice.
func TestKazoo08LostReplyNeverPutsTwice(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		b.session(c)
		for i := range 10 {
			c.DropReply()
			b.put(q, fmt.Sprint(i))
		}
		if n, err := q.Len(b.ctx); n != 10 || err != nil {
			t.Fatalf("Len = %d, %v; 10 were put", n, err)
		}
	})
}

// A claim whose reply was lost looks like somebody else's lock: the entry stays
// locked by a live session that does not know it.
func TestKazoo09LostReplyOfAClaimIsFoundToBeOurs(t *testing.T) {
	for _, fault := range []string{"reply", "request", "reply then cut"} {
		t.Run(fault, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				b.put(q, "a")
				switch fault {
				case "reply":
					c.DropReply()
				case "request":
					c.DropRequest()
				default:
					c.DropReply()
					c.DropReply()
				}
				h := b.take(q)
				if string(h.Value) != "a" || h.Deliveries != 1 || h.Token == 0 {
					t.Fatalf("took %+v", h)
				}
				b.consume(h)
			})
		})
	}
}

// One put makes every waiter list the whole queue, several times.
func TestKazoo10OnePutDoesNotMakeEveryWaiterList(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c)
		other, _ := b.queue()
		got := make(chan *zkq.Held, 16)
		for range 16 {
			go func() {
				if h, err := q.Take(b.ctx); err == nil {
					got <- h
				}
			}()
		}
		synctest.Wait()
		c.reset()
		b.put(other, "a")
		b.consume(<-got)
		synctest.Wait()
		if n := c.of(); n > 10 {
			t.Fatalf("one entry cost 16 waiters %d requests: %v", n, c.requests)
		}
	})
}

// The cost of a take grows with the backlog.
func TestKazoo11CostOfATakeDoesNotGrowWithTheBacklog(t *testing.T) {
	cost := func(backlog int) (requests, nodes int) {
		virtual(t, func(t *testing.T, b *bench) {
			c := newCounting(b.client())
			q := b.on(c)
			for range backlog / 100 {
				if _, err := q.PutAll(b.ctx, make([][]byte, 100)); err != nil {
					t.Fatal(err)
				}
			}
			b.consume(b.take(q))
			synctest.Wait()
			c.reset()
			for range 50 {
				b.consume(b.take(q))
			}
			requests, nodes = c.of(), c.nodes
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
			virtual(t, func(t *testing.T, b *bench) {
				c := b.client()
				q := zkq.NewQueue(c, "simple")
				defer q.Close()
				b.put(q, "a")
				b.put(q, "b")
				if fault == "reply" {
					c.DropReply()
				} else {
					c.DropRequest()
				}
				e, err := q.TryGet(b.ctx)
				if string(e.Value) != "a" || err != nil && !errors.Is(err, zkq.ErrUnknown) {
					t.Fatalf("TryGet = %q, %v", e.Value, err)
				}
				if fault == "request" && err != nil {
					t.Fatalf("it was never removed, and now is, by this call alone: %v", err)
				}
				if e, err := q.TryGet(b.ctx); string(e.Value) != "b" || err != nil {
					t.Fatalf("next TryGet = %q, %v", e.Value, err)
				}
			})
		})
	}
}

// Queue keeps its listing: a more urgent entry put later is served later.
func TestKazoo13LaterButMoreUrgentIsTakenFirst(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := b.client()
		simple := zkq.NewQueue(c, "simple")
		defer simple.Close()
		locking, _ := b.queue()
		for _, q := range []interface {
			Put(context.Context, []byte, ...zkq.PutOption) (string, error)
		}{simple, locking} {
			b.put(q, "500", zkq.WithPriority(500))
			b.put(q, "500", zkq.WithPriority(500))
		}
		first, err := simple.Get(b.ctx)
		if err != nil || string(first.Value) != "500" {
			t.Fatalf("Get = %q, %v", first.Value, err)
		}
		b.consume(b.take(locking))
		b.put(simple, "1", zkq.WithPriority(1))
		b.put(locking, "1", zkq.WithPriority(1))
		if e, err := simple.Get(b.ctx); string(e.Value) != "1" || err != nil {
			t.Fatalf("Get = %q, %v", e.Value, err)
		}
		if h := b.take(locking); string(h.Value) != "1" {
			t.Fatalf("took %q", h.Value)
		}
	})
}

func TestOtherLayoutIsRefused(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := b.client()
		locking, simple := zkq.NewLockingQueue(c, "l"), zkq.NewQueue(c, "p")
		defer locking.Close()
		defer simple.Close()
		b.put(locking, "a")
		b.put(simple, "a")
		wrongPlain, wrongLocking := zkq.NewQueue(c, "l"), zkq.NewLockingQueue(c, "p")
		defer wrongPlain.Close()
		defer wrongLocking.Close()
		_, err := wrongPlain.Put(b.ctx, nil)
		b.want(err, zkq.ErrLayout)
		_, err = wrongPlain.Get(b.ctx)
		b.want(err, zkq.ErrLayout)
		_, err = wrongLocking.Put(b.ctx, nil)
		b.want(err, zkq.ErrLayout)
		_, err = wrongLocking.TryTake(b.ctx)
		b.want(err, zkq.ErrLayout)
		if !strings.Contains(err.Error(), "/p") || !strings.Contains(err.Error(), "plain") {
			t.Errorf("%q names neither queue nor layout", err)
		}
	})
}
