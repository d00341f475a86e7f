package zkq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testqueue"
)

// checkMovesOfTheDead fails the test if an entry becomes dead, or ready again, in more than one commit: each commit that
// creates a dead entry deletes the entry it was, and the other way round.
func checkMovesOfTheDead(env *testqueue.Env) {
	env.Store.Observe(func(a coordtest.Applied) {
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
			env.Errorf("%d dead and %d ready entries were created, %d and %d removed: %v", died, came, rose, left, a.Ops)
		}
	})
}

func TestAnEntryDeliveredTooOftenDies(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue(zkq.MaxDeliveries(3))
		name := env.Put(q, "poison", zkq.WithPriority(7))
		checkMovesOfTheDead(env)
		for range 5 {
			env.Release(env.Take(q)) // counts as no failure
		}
		env.Fail(env.Take(q), "first")
		env.Take(q)
		if err := q.BreakLock(env.Ctx, name); err != nil {
			t.Fatal(err)
		}
		env.Release(env.Take(q))
		env.Fail(env.Take(q), "last")
		env.WantEmpty(q)
		e := env.DeadEntry(q)
		want := "handed out 3 times and never finished; the last failure: last"
		if !strings.HasSuffix(e.Name, "-"+name) || string(e.Value) != "poison" || e.Priority != 7 || e.Deliveries != 9 || e.Failures != 2 || e.Reason != want {
			t.Errorf("%+v", e)
		}
		s := env.Session(c)
		for _, dir := range []string{"/jobs/entries", "/jobs/taken", "/jobs/attempts"} {
			if left := env.Children(s, dir); len(left) != 0 {
				t.Errorf("left: %q", left)
			}
		}
	})
}

func TestWithoutACeilingNothingDies(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		for _, n := range []int{0, -1} {
			q, _ := env.Queue(zkq.MaxDeliveries(n))
			env.Put(q, "a")
			for range 50 {
				env.Fail(env.Take(q), "no")
			}
			env.Consume(env.Take(q))
		}
	})
}

// One entry crashes each process that works on it. Its neighbours are not harmed.
func TestAnEntryThatCrashesItsWorkersDiesAndOthersAreHandedOut(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		putter, _ := env.Queue()
		const n = 40
		for i := range n {
			v := fmt.Sprint(i)
			if i == 5 {
				v = "poison"
			}
			env.Put(putter, v)
		}
		checkMovesOfTheDead(env)
		done := make(map[string]int)
		lives, kills := 0, 0
		for len(done) < n-1 || kills < 3 {
			lives++
			q, c := env.Queue(zkq.MaxDeliveries(3))
			for alive := true; alive; {
				held, err := q.TryTakeN(env.Ctx, 8)
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
					env.Consume(h)
					done[string(h.Value)] = h.Deliveries
				}
			}
		}
		time.Sleep(10 * time.Second)
		last, _ := env.Queue(zkq.MaxDeliveries(3))
		env.WantEmpty(last)
		if e := env.DeadEntry(putter); string(e.Value) != "poison" || e.Deliveries != 3 || e.Failures != 0 || kills != 3 {
			t.Errorf("after %d kills and %d lives: %+v", kills, lives, e)
		}
		for v, deliveries := range done {
			if deliveries > 2 { // once in a batch with the poison, before any worker knew it
				t.Errorf("%s was delivered %d times", v, deliveries)
			}
		}
	})
}

func TestAnotherProcessMovesTheEntryOfAMoverThatDied(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		cl := env.Client()
		c := testqueue.NewCounter(cl)
		q := env.QueueOn(c, zkq.MaxDeliveries(1))
		next, _ := env.Queue(zkq.MaxDeliveries(1))
		env.Put(next, "a")
		env.Fail(env.Take(next), "no")
		checkMovesOfTheDead(env)
		crashed := false
		c.Before(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.HasPrefix(path, "delete /jobs/entries/") && !crashed {
				crashed = true
				cl.Crash()
			}
		})
		ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
		defer cancel()
		if h, err := q.Take(ctx); err == nil || !crashed {
			t.Fatalf("took %v, crashed: %v", h, crashed)
		}
		env.WantEmpty(next) // held by the dead
		time.Sleep(10 * time.Second)
		env.WantEmpty(next)
		if e := env.DeadEntry(next); string(e.Value) != "a" || e.Failures != 1 {
			t.Errorf("%+v", e)
		}
	})
}

func TestTakeCancelledWhileItMovesAnEntryHoldsNothing(t *testing.T) {
	for _, reach := range []string{"the request", "the answer"} {
		t.Run(reach+" hangs", func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				cl := env.Client()
				c := testqueue.NewCounter(cl)
				q := env.QueueOn(c, zkq.MaxDeliveries(1))
				next, _ := env.Queue(zkq.MaxDeliveries(1))
				env.Put(next, "a")
				env.Fail(env.Take(next), "no")
				checkMovesOfTheDead(env)
				c.Before(func(_ coord.Session, act, path string) {
					if act == "commit" && strings.HasPrefix(path, "delete /jobs/entries/") {
						c.Before(nil)
						if reach == "the request" {
							cl.HoldRequests()
						} else {
							cl.HoldReplies()
						}
					}
				})
				ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
				defer cancel()
				_, err := q.Take(ctx)
				env.WantErr(err, context.DeadlineExceeded)
				cl.Heal()
				time.Sleep(2 * time.Second)
				env.WantEmpty(next)
				env.DeadEntry(next)
				env.WantEmpty(q)
			})
		})
	}
}

func TestLostRepliesOfMovesAreResolved(t *testing.T) {
	for name, lose := range testqueue.Losses {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue(zkq.MaxDeliveries(2))
				env.Put(q, "a")
				checkMovesOfTheDead(env)
				h := env.Take(q)
				lose(c)
				env.Bury(h, "no good")
				if e := env.DeadEntry(q); e.Reason != "no good" || e.Failures != 1 || e.Deliveries != 1 {
					t.Fatalf("%+v", e)
				}
				env.WantErr(h.Bury(env.Ctx, ""), zkq.ErrAlreadyDone)
				env.WantErr(h.Fail(env.Ctx, ""), zkq.ErrAlreadyDone)
				if _, err := q.Requeue(env.Ctx, env.DeadEntry(q).Name); err != nil {
					t.Fatal(err)
				}
				env.Fail(env.Take(q), "1")
				env.Fail(env.Take(q), "2")
				c.Pass() // the claim
				lose(c)
				env.WantEmpty(q)
				if e := env.DeadEntry(q); e.Failures != 2 || e.Deliveries != 2 {
					t.Fatalf("%+v", e)
				}
			})
		})
	}
}

func TestUnansweredBuryOfABrokenEntryIsUnknown(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		other, _ := env.Queue()
		env.Put(q, "a")
		h := env.Take(q)
		c.DropRequest()
		got := make(chan error, 1)
		go func() { got <- h.Bury(env.Ctx, "no") }()
		time.Sleep(time.Millisecond)
		if err := other.BreakLock(env.Ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		env.Consume(env.Take(other))
		env.WantErr(<-got, zkq.ErrUnknown)
		if dead := env.Children(env.Session(c), "/jobs/dead"); len(dead) != 0 {
			t.Fatalf("consumed and dead: %q", dead)
		}
	})
}

func TestStaleHolderBuriesAndFailsNothing(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		stale, _ := env.Queue()
		q, c := env.Queue()
		name := env.Put(q, "a")
		old, older := env.Take(stale), (*zkq.Held)(nil)
		if err := q.BreakLock(env.Ctx, name); err != nil {
			t.Fatal(err)
		}
		older, old = old, env.Take(stale)
		if err := q.BreakLock(env.Ctx, name); err != nil {
			t.Fatal(err)
		}
		now := env.Take(q)
		env.WantErr(older.Bury(env.Ctx, "no"), zkq.ErrLockLost)
		env.WantErr(old.Fail(env.Ctx, "no"), zkq.ErrLockLost)
		if got := env.History(c, name); got != "" {
			t.Errorf("attempts: %s", got)
		}
		env.Consume(now)
	})
}

func TestDeadEntriesKeepTheirBytes(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		for _, v := range [][]byte{
			{},
			[]byte("plain"),
			[]byte("\x00zkq\x01"),
			[]byte("\x00zkq\x01\x02{}inner"),
			[]byte("\x00zkq\x01\x10{\"failures\":7}  body"),
			bytes.Repeat([]byte{0xa5}, zkq.MaxValue),
			append([]byte("\x00zkq\x01"), make([]byte, zkq.MaxValue-5)...),
		} {
			name, err := q.Put(env.Ctx, v, zkq.WithPriority(5))
			if err != nil {
				t.Fatal(err)
			}
			s := env.Session(c)
			raw := env.Get(s, "/jobs/entries/"+name).Value
			env.Fail(env.Take(q), "once")
			h := env.Take(q)
			clear(h.Value) // it is the holder's
			env.Bury(h, strings.Repeat("\x00", 5000))
			e := env.DeadEntry(q)
			if !bytes.Equal(e.Value, raw) && !bytes.Equal(e.Value, v) || e.Failures != 2 || e.Deliveries != 2 || !strings.HasPrefix(e.Reason, "\x00") {
				t.Fatalf("%.20q died as %.20q, %d failures, reason of %d bytes", v, e.Value, e.Failures, len(e.Reason))
			}
			if dead := env.Get(s, "/jobs/dead/"+e.Name).Value; !bytes.HasSuffix(dead, raw) || bytes.Equal(dead, raw) {
				t.Fatalf("%.20q is kept as %.20q", raw, dead)
			}
			again, err := q.Requeue(env.Ctx, e.Name)
			if err != nil || again <= name {
				t.Fatalf("Requeue of %s = %s, %v", name, again, err)
			}
			if back := env.Get(s, "/jobs/entries/"+again).Value; !bytes.Equal(back, raw) {
				t.Fatalf("%.20q came back as %.20q", raw, back)
			}
			h = env.Take(q)
			if !bytes.Equal(h.Value, v) || h.Priority != 5 || h.Deliveries != 1 || h.Failures != 0 {
				t.Fatalf("took %.20q, delivery %d", h.Value, h.Deliveries)
			}
			env.Consume(h)
		}
	})
}

// Every entry that can be put can become dead, however long the queue's name is.
func TestTheLargestValueOfTheLongestNameCanDie(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		name := strings.Repeat("/"+strings.Repeat("x", 127), 8)
		if len(name) != zkq.MaxName {
			t.Fatal(len(name))
		}
		q := zkq.NewLockingQueue(env.Client(), name, zkq.MaxDeliveries(1))
		defer q.Close()
		_, err := q.Put(env.Ctx, make([]byte, zkq.MaxValue))
		var limit *coord.LimitError
		if !errors.As(err, &limit) {
			t.Fatalf("Put: %v", err)
		}
		if _, err = q.Put(env.Ctx, make([]byte, limit.Limit)); err != nil {
			t.Fatalf("Put of %d bytes: %v", limit.Limit, err)
		}
		env.Fail(env.Take(q), "no")
		env.WantEmpty(q)
		if e := env.DeadEntry(q); e.Size != limit.Limit || e.Deliveries != 1 {
			t.Errorf("%d bytes, deliveries %d, reason %q", e.Size, e.Deliveries, e.Reason)
		}
	})
}

// kazoo puts larger values than zkq does.
func TestAnEntryTooLargeToDieIsHandedOutAndReported(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		var warned []string
		q, c := env.Queue(zkq.MaxDeliveries(1), zkq.Warn(func(m string) { warned = append(warned, m) }))
		s := env.Session(c)
		value := make([]byte, s.Limits().ValueBytes)
		env.Commit(s, coord.CreateSequential("/jobs/entries/entry-100-", value))
		for i := range 3 {
			h := env.Take(q)
			if h.Deliveries != i+1 || h.Failures != i {
				t.Fatalf("delivery %d, failures %d", h.Deliveries, h.Failures)
			}
			env.WantErr(h.Bury(env.Ctx, "no"), zkq.ErrTooLarge)
			env.Fail(h, "no")
		}
		if len(warned) != 1 || !strings.Contains(warned[0], "too large") {
			t.Errorf("%q", warned)
		}
		env.Consume(env.Take(q))
		if left := env.Children(s, "/jobs/attempts"); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
	})
}

func TestRequeueMakesOneEntryWhateverAnswersAreLost(t *testing.T) {
	for name, lose := range testqueue.Losses {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				entry := env.Put(q, "a")
				env.Bury(env.Take(q), "no")
				checkMovesOfTheDead(env)
				lose(c)
				again, err := q.Requeue(env.Ctx, entry)
				if name == "not applied" && err != nil || err != nil && !errors.Is(err, zkq.ErrUnknown) {
					t.Fatalf("Requeue = %s, %v", again, err)
				}
				_, err = q.Requeue(env.Ctx, entry)
				env.WantErr(err, zkq.ErrNoEntry)
				h := env.Take(q)
				if string(h.Value) != "a" || h.Name <= entry {
					t.Fatalf("took %s", h.Name)
				}
				env.WantEmpty(q)
				if st, err := q.Stat(env.Ctx); err != nil || st.Total() != 1 {
					t.Fatalf("%+v, %v", st, err)
				}
			})
		})
	}
}

func TestConcurrentRequeuesMakeOneEntry(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "a")
		env.Bury(env.Take(q), "no")
		name := env.DeadEntry(q).Name
		checkMovesOfTheDead(env)
		got := make(chan error, 8)
		for range 8 {
			other, _ := env.Queue()
			go func() {
				_, err := other.Requeue(env.Ctx, name)
				got <- err
			}()
		}
		synctest.Wait()
		ok := 0
		for range 8 {
			if err := <-got; err == nil {
				ok++
			} else {
				env.WantErr(err, zkq.ErrNoEntry)
			}
		}
		if n, err := q.Len(env.Ctx); ok != 1 || n != 1 || err != nil {
			t.Fatalf("%d said yes, and %d are there, %v", ok, n, err)
		}
	})
}

func TestDeadEntriesAreRemovedByNameAndByPurge(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		for _, v := range []string{"a", "b", "c"} {
			env.Put(q, v)
			env.Bury(env.Take(q), "no")
			time.Sleep(time.Second)
		}
		s := env.Session(c)
		foreign := []string{"/jobs/dead/0", "/jobs/dead/1234567890123", "/jobs/dead/123456789012x-entry-100-0000000000", "/jobs/dead/zzz"}
		for _, name := range foreign {
			env.Commit(s, coord.Create(name, []byte("foreign")))
		}
		var dead []string
		for e, err := range q.Entries(env.Ctx) {
			if err != nil {
				t.Fatal(err)
			}
			dead = append(dead, e.Name)
		}
		if len(dead) != 3 || !slices.IsSorted(dead) {
			t.Fatalf("%q", dead)
		}
		if err := q.Remove(env.Ctx, dead[1], false); err != nil {
			t.Fatal(err)
		}
		env.WantErr(q.Remove(env.Ctx, dead[1], true), zkq.ErrNoEntry)
		_, err := q.Peek(env.Ctx, dead[1])
		env.WantErr(err, zkq.ErrNoEntry)
		_, err = q.Requeue(env.Ctx, dead[1])
		env.WantErr(err, zkq.ErrNoEntry)
		_, err = q.Requeue(env.Ctx, "x")
		env.WantErr(err, zkq.ErrInvalidName)
		if n, err := q.Purge(env.Ctx, zkq.StateDead); n != 2 || err != nil {
			t.Fatalf("Purge = %d, %v", n, err)
		}
		if left := env.Children(s, "/jobs/dead"); !slices.Equal(left, foreign) {
			t.Fatalf("left: %q", left)
		}
	})
}

func TestAForeignDeadNodeIsRequeuedAsItIs(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		name := "/jobs/dead/1234567890123-entry-042-0000000007"
		env.Commit(env.Session(c), coord.Create(name, []byte("no envelope")))
		if e := env.DeadEntry(q); string(e.Value) != "no envelope" || e.Priority != 42 || e.Reason != "" {
			t.Fatalf("%+v", e)
		}
		if _, err := q.Requeue(env.Ctx, "entry-042-0000000007"); err != nil {
			t.Fatal(err)
		}
		if h := env.Take(q); string(h.Value) != "no envelope" || h.Priority != 42 {
			t.Fatalf("took %q", h.Value)
		}
	})
}

func TestPurgeCountsOnlyWhatItRemoved(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		other, _ := env.Queue()
		for range 2 {
			env.Put(q, "stays until the purge")
		}
		last := env.Put(q, "goes before the purge comes to it")
		remove := sync.OnceFunc(func() {
			if err := other.Remove(env.Ctx, last, false); err != nil {
				t.Error(err)
			}
		})
		c.Before(func(_ coord.Session, act, _ string) {
			if act == "commit" {
				remove()
			}
		})
		if n, err := q.Purge(env.Ctx, zkq.StateReady); n != 2 || err != nil {
			t.Errorf("Purge = %d, %v; another process removed one of the 3 entries meanwhile", n, err)
		}
		env.WantEmpty(q)
	})
}
