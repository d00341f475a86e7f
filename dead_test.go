package zkq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// losses are the ways in which an answer gets lost.
var losses = map[string]func(*coordtest.Coordinator){
	"applied":     func(c *coordtest.Coordinator) { c.DropReply() },
	"not applied": func(c *coordtest.Coordinator) { c.DropRequest() },
	"both":        func(c *coordtest.Coordinator) { c.DropRequest(); c.DropReply() },
	"twice":       func(c *coordtest.Coordinator) { c.DropReply(); c.DropReply() },
}

// moves demands that an entry comes to the dead, and leaves them, in the commit in
// which it leaves the entries of the queue "jobs", or comes to them.
func (b *bench) moves() {
	b.store.Observe(func(a coordtest.Applied) {
		var died, left, rose, came int
		for _, op := range a.Ops {
			entry := strings.HasPrefix(op.Path, "/jobs/entries/")
			dead := strings.HasPrefix(op.Path, "/jobs/dead/")
			switch {
			case dead && op.Kind == coord.KindCreate:
				died++
			case entry && op.Kind == coord.KindDelete:
				left++
			case dead && op.Kind == coord.KindDelete:
				rose++
			case entry && op.Kind == coord.KindSequential:
				came++
			}
		}
		if died > left || rose != came {
			b.Errorf("of dead and living %d and %d came, %d and %d left: %v", died, came, rose, left, a.Ops)
		}
	})
}

// dead is the only dead entry.
func (b *bench) dead(q *zkq.LockingQueue) zkq.Entry {
	b.Helper()
	var dead []zkq.Entry
	for e, err := range q.Entries(b.ctx, zkq.StateDead) {
		if err != nil {
			b.Fatal(err)
		}
		dead = append(dead, e)
	}
	if len(dead) != 1 {
		b.Fatalf("%d dead entries: %+v", len(dead), dead)
	}
	if st, err := q.Stat(b.ctx); err != nil || st.Dead != 1 {
		b.Fatalf("Stat = %+v, %v", st, err)
	}
	e, err := q.Peek(b.ctx, dead[0].Name)
	if err != nil || e.State != zkq.StateDead || e.Reason != dead[0].Reason {
		b.Fatalf("Peek = %+v, %v", e, err)
	}
	return e
}

func (b *bench) bury(h *zkq.Held, reason string) {
	b.Helper()
	if err := h.Bury(b.ctx, reason); err != nil {
		b.Fatalf("Bury: %v", err)
	}
}

func TestAnEntryDeliveredTooOftenDies(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue(zkq.MaxDeliveries(3))
		name := b.put(q, "poison", zkq.WithPriority(7))
		b.moves()
		for range 5 {
			b.release(b.take(q)) // nobody's fault
		}
		b.fail(b.take(q), "first")
		b.take(q)
		if err := q.BreakLock(b.ctx, name); err != nil {
			t.Fatal(err)
		}
		b.release(b.take(q))
		b.fail(b.take(q), "last")
		b.empty(q)
		e := b.dead(q)
		want := "handed out 3 times and never finished; the last failure: last"
		if !strings.HasSuffix(e.Name, "-"+name) || string(e.Value) != "poison" || e.Priority != 7 || e.Deliveries != 9 || e.Failures != 2 || e.Reason != want {
			t.Errorf("%+v", e)
		}
		s := b.session(c)
		for _, dir := range []string{"/jobs/entries", "/jobs/taken", "/jobs/attempts"} {
			if left := b.children(s, dir); len(left) != 0 {
				t.Errorf("left: %q", left)
			}
		}
	})
}

func TestWithoutACeilingNothingDies(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		for _, n := range []int{0, -1} {
			q, _ := b.queue(zkq.MaxDeliveries(n))
			b.put(q, "a")
			for range 50 {
				b.fail(b.take(q), "no")
			}
			b.consume(b.take(q))
		}
	})
}

// One entry kills each process that works on it; its neighbours are not harmed.
func TestAnEntryThatKillsItsWorkersDiesAndTheOthersFlow(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		putter, _ := b.queue()
		const n = 40
		for i := range n {
			v := fmt.Sprint(i)
			if i == 5 {
				v = "poison"
			}
			b.put(putter, v)
		}
		b.moves()
		done := make(map[string]int)
		lives, kills := 0, 0
		for len(done) < n-1 || kills < 3 {
			lives++
			q, c := b.queue(zkq.MaxDeliveries(3))
			for alive := true; alive; {
				held, err := q.TryTakeN(b.ctx, 8)
				if errors.Is(err, zkq.ErrEmpty) {
					time.Sleep(time.Second)
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				for _, h := range held {
					if string(h.Value) == "poison" {
						kills++
						c.Crash()
						alive = false
						break
					}
					b.consume(h)
					done[string(h.Value)] = h.Deliveries
				}
			}
		}
		time.Sleep(10 * time.Second)
		last, _ := b.queue(zkq.MaxDeliveries(3))
		b.empty(last)
		if e := b.dead(putter); string(e.Value) != "poison" || e.Deliveries != 3 || e.Failures != 0 || kills != 3 {
			t.Errorf("after %d kills and %d lives: %+v", kills, lives, e)
		}
		for v, deliveries := range done {
			if deliveries > 2 { // once beside the poison, before anybody knew it
				t.Errorf("%s was delivered %d times", v, deliveries)
			}
		}
	})
}

func TestMoverThatDiesLeavesTheEntryToTheNext(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		cl := b.client()
		c := newCounting(cl)
		q := b.on(c, zkq.MaxDeliveries(1))
		next, _ := b.queue(zkq.MaxDeliveries(1))
		b.put(next, "a")
		b.fail(b.take(next), "no")
		b.moves()
		crashed := false
		c.hook(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.HasPrefix(path, "delete /jobs/entries/") && !crashed {
				crashed = true
				cl.Crash()
			}
		})
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		if h, err := q.Take(ctx); err == nil || !crashed {
			t.Fatalf("took %v, crashed: %v", h, crashed)
		}
		b.empty(next) // held by the dead
		time.Sleep(10 * time.Second)
		b.empty(next)
		if e := b.dead(next); string(e.Value) != "a" || e.Failures != 1 {
			t.Errorf("%+v", e)
		}
	})
}

func TestTakeCancelledWhileItMovesAnEntryHoldsNothing(t *testing.T) {
	for _, reach := range []string{"the request", "the answer"} {
		t.Run(reach+" hangs", func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				cl := b.client()
				c := newCounting(cl)
				q := b.on(c, zkq.MaxDeliveries(1))
				next, _ := b.queue(zkq.MaxDeliveries(1))
				b.put(next, "a")
				b.fail(b.take(next), "no")
				b.moves()
				c.hook(func(_ coord.Session, act, path string) {
					if act == "commit" && strings.HasPrefix(path, "delete /jobs/entries/") {
						c.hook(nil)
						if reach == "the request" {
							cl.HoldRequests()
						} else {
							cl.HoldReplies()
						}
					}
				})
				ctx, cancel := context.WithTimeout(b.ctx, time.Second)
				defer cancel()
				_, err := q.Take(ctx)
				b.want(err, context.DeadlineExceeded)
				cl.Heal()
				time.Sleep(2 * time.Second)
				b.empty(next)
				b.dead(next)
				b.empty(q)
			})
		})
	}
}

func TestLostRepliesOfMovesAreResolved(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue(zkq.MaxDeliveries(2))
				b.put(q, "a")
				b.moves()
				h := b.take(q)
				lose(c)
				b.bury(h, "no good")
				if e := b.dead(q); e.Reason != "no good" || e.Failures != 1 || e.Deliveries != 1 {
					t.Fatalf("%+v", e)
				}
				b.want(h.Bury(b.ctx, ""), zkq.ErrAlreadyDone)
				b.want(h.Fail(b.ctx, ""), zkq.ErrAlreadyDone)
				if _, err := q.Requeue(b.ctx, b.dead(q).Name); err != nil {
					t.Fatal(err)
				}
				b.fail(b.take(q), "1")
				b.fail(b.take(q), "2")
				c.Pass() // the claim
				lose(c)
				b.empty(q)
				if e := b.dead(q); e.Failures != 2 || e.Deliveries != 2 {
					t.Fatalf("%+v", e)
				}
			})
		})
	}
}

func TestUnansweredBuryOfABrokenEntryIsUnknown(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		other, _ := b.queue()
		b.put(q, "a")
		h := b.take(q)
		c.DropRequest()
		got := make(chan error, 1)
		go func() { got <- h.Bury(b.ctx, "no") }()
		time.Sleep(time.Millisecond)
		if err := other.BreakLock(b.ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		b.consume(b.take(other))
		b.want(<-got, zkq.ErrUnknown)
		if dead := b.children(b.session(c), "/jobs/dead"); len(dead) != 0 {
			t.Fatalf("consumed and dead: %q", dead)
		}
	})
}

func TestStaleHolderBuriesAndFailsNothing(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		stale, _ := b.queue()
		q, c := b.queue()
		name := b.put(q, "a")
		old, older := b.take(stale), (*zkq.Held)(nil)
		if err := q.BreakLock(b.ctx, name); err != nil {
			t.Fatal(err)
		}
		older, old = old, b.take(stale)
		if err := q.BreakLock(b.ctx, name); err != nil {
			t.Fatal(err)
		}
		now := b.take(q)
		b.want(older.Bury(b.ctx, "no"), zkq.ErrLockLost)
		b.want(old.Fail(b.ctx, "no"), zkq.ErrLockLost)
		if got := b.attempts(c, name); got != "" {
			t.Errorf("attempts: %s", got)
		}
		b.consume(now)
	})
}

func TestDeadEntriesKeepTheirBytes(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		for _, v := range [][]byte{
			{},
			[]byte("plain"),
			[]byte("\x00zkq\x01"),
			[]byte("\x00zkq\x01\x02{}inner"),
			[]byte("\x00zkq\x01\x10{\"failures\":7}  body"),
			bytes.Repeat([]byte{0xa5}, zkq.MaxValue),
			append([]byte("\x00zkq\x01"), make([]byte, zkq.MaxValue-5)...),
		} {
			name, err := q.Put(b.ctx, v, zkq.WithPriority(5))
			if err != nil {
				t.Fatal(err)
			}
			s := b.session(c)
			raw := b.get(s, "/jobs/entries/"+name).Value
			b.fail(b.take(q), "once")
			h := b.take(q)
			clear(h.Value) // it is the holder's
			b.bury(h, strings.Repeat("\x00", 5000))
			e := b.dead(q)
			if !bytes.Equal(e.Value, raw) && !bytes.Equal(e.Value, v) || e.Failures != 2 || e.Deliveries != 2 || !strings.HasPrefix(e.Reason, "\x00") {
				t.Fatalf("%.20q died as %.20q, %d failures, reason of %d bytes", v, e.Value, e.Failures, len(e.Reason))
			}
			if dead := b.get(s, "/jobs/dead/"+e.Name).Value; !bytes.HasSuffix(dead, raw) || bytes.Equal(dead, raw) {
				t.Fatalf("%.20q is kept as %.20q", raw, dead)
			}
			again, err := q.Requeue(b.ctx, e.Name)
			if err != nil || again <= name {
				t.Fatalf("Requeue of %s = %s, %v", name, again, err)
			}
			if back := b.get(s, "/jobs/entries/"+again).Value; !bytes.Equal(back, raw) {
				t.Fatalf("%.20q came back as %.20q", raw, back)
			}
			h = b.take(q)
			if !bytes.Equal(h.Value, v) || h.Priority != 5 || h.Deliveries != 1 || h.Failures != 0 {
				t.Fatalf("took %.20q, delivery %d", h.Value, h.Deliveries)
			}
			b.consume(h)
		}
	})
}

// Whatever can be put, in a queue of however long a name, can die.
func TestTheLargestValueOfTheLongestNameCanDie(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		name := strings.Repeat("/"+strings.Repeat("x", 127), 8)
		if len(name) != zkq.MaxName {
			t.Fatal(len(name))
		}
		q := zkq.NewLockingQueue(b.client(), name, zkq.MaxDeliveries(1))
		defer q.Close()
		_, err := q.Put(b.ctx, make([]byte, zkq.MaxValue))
		var limit *coord.LimitError
		if !errors.As(err, &limit) {
			t.Fatalf("Put: %v", err)
		}
		if _, err = q.Put(b.ctx, make([]byte, limit.Limit)); err != nil {
			t.Fatalf("Put of %d bytes: %v", limit.Limit, err)
		}
		b.fail(b.take(q), "no")
		b.empty(q)
		if e := b.dead(q); e.Size != limit.Limit || e.Deliveries != 1 {
			t.Errorf("%d bytes, deliveries %d, reason %q", e.Size, e.Deliveries, e.Reason)
		}
	})
}

// kazoo puts what zkq would not.
func TestAnEntryTooLargeToDieIsHandedOutAndNamed(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		var warned []string
		q, c := b.queue(zkq.MaxDeliveries(1), zkq.Warn(func(m string) { warned = append(warned, m) }))
		s := b.session(c)
		value := make([]byte, s.Limits().ValueBytes)
		b.commit(s, coord.CreateSequential("/jobs/entries/entry-100-", value))
		for i := range 3 {
			h := b.take(q)
			if h.Deliveries != i+1 || h.Failures != i {
				t.Fatalf("delivery %d, failures %d", h.Deliveries, h.Failures)
			}
			b.want(h.Bury(b.ctx, "no"), zkq.ErrTooLarge)
			b.fail(h, "no")
		}
		if len(warned) != 1 || !strings.Contains(warned[0], "too large") {
			t.Errorf("%q", warned)
		}
		b.consume(b.take(q))
		if left := b.children(s, "/jobs/attempts"); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
	})
}

func TestRequeueMakesOneEntryWhateverAnswersAreLost(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				entry := b.put(q, "a")
				b.bury(b.take(q), "no")
				b.moves()
				lose(c)
				again, err := q.Requeue(b.ctx, entry)
				if name == "not applied" && err != nil || err != nil && !errors.Is(err, zkq.ErrUnknown) {
					t.Fatalf("Requeue = %s, %v", again, err)
				}
				_, err = q.Requeue(b.ctx, entry)
				b.want(err, zkq.ErrNoEntry)
				h := b.take(q)
				if string(h.Value) != "a" || h.Name <= entry {
					t.Fatalf("took %s", h.Name)
				}
				b.empty(q)
				if st, err := q.Stat(b.ctx); err != nil || st.Total() != 1 {
					t.Fatalf("%+v, %v", st, err)
				}
			})
		})
	}
}

func TestManyRequeueOneDeadEntryOnce(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		b.put(q, "a")
		b.bury(b.take(q), "no")
		name := b.dead(q).Name
		b.moves()
		got := make(chan error, 8)
		for range 8 {
			other, _ := b.queue()
			go func() {
				_, err := other.Requeue(b.ctx, name)
				got <- err
			}()
		}
		synctest.Wait()
		ok := 0
		for range 8 {
			if err := <-got; err == nil {
				ok++
			} else {
				b.want(err, zkq.ErrNoEntry)
			}
		}
		if n, err := q.Len(b.ctx); ok != 1 || n != 1 || err != nil {
			t.Fatalf("%d said yes, and %d are there, %v", ok, n, err)
		}
	})
}

func TestDeadEntriesAreRemovedByNameAndByPurge(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		for _, v := range []string{"a", "b", "c"} {
			b.put(q, v)
			b.bury(b.take(q), "no")
			time.Sleep(time.Second)
		}
		s := b.session(c)
		foreign := []string{"/jobs/dead/0", "/jobs/dead/1234567890123", "/jobs/dead/123456789012x-entry-100-0000000000", "/jobs/dead/zzz"}
		for _, name := range foreign {
			b.commit(s, coord.Create(name, []byte("foreign")))
		}
		var dead []string
		for e, err := range q.Entries(b.ctx) {
			if err != nil {
				t.Fatal(err)
			}
			dead = append(dead, e.Name)
		}
		if len(dead) != 3 || !slices.IsSorted(dead) {
			t.Fatalf("%q", dead)
		}
		if err := q.Remove(b.ctx, dead[1], false); err != nil {
			t.Fatal(err)
		}
		b.want(q.Remove(b.ctx, dead[1], true), zkq.ErrNoEntry)
		_, err := q.Peek(b.ctx, dead[1])
		b.want(err, zkq.ErrNoEntry)
		_, err = q.Requeue(b.ctx, dead[1])
		b.want(err, zkq.ErrNoEntry)
		_, err = q.Requeue(b.ctx, "x")
		b.want(err, zkq.ErrInvalidName)
		if n, err := q.Purge(b.ctx, zkq.StateDead); n != 2 || err != nil {
			t.Fatalf("Purge = %d, %v", n, err)
		}
		if left := b.children(s, "/jobs/dead"); !slices.Equal(left, foreign) {
			t.Fatalf("left: %q", left)
		}
	})
}

func TestAForeignDeadNodeIsRequeuedAsItIs(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		name := "/jobs/dead/1234567890123-entry-042-0000000007"
		b.commit(b.session(c), coord.Create(name, []byte("no envelope")))
		if e := b.dead(q); string(e.Value) != "no envelope" || e.Priority != 42 || e.Reason != "" {
			t.Fatalf("%+v", e)
		}
		if _, err := q.Requeue(b.ctx, "entry-042-0000000007"); err != nil {
			t.Fatal(err)
		}
		if h := b.take(q); string(h.Value) != "no envelope" || h.Priority != 42 {
			t.Fatalf("took %q", h.Value)
		}
	})
}
