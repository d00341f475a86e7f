package zkq_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testqueue"
)

func TestADelayedPutIsHandedOutWhenItIsDueAndNotBefore(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		start := time.Now()
		late := env.Put(q, "late", zkq.WithDelay(20*time.Second), zkq.WithPriority(7))
		names, err := q.PutAll(env.Ctx, [][]byte{[]byte("1"), []byte("2"), []byte("3")}, zkq.WithDelay(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		env.Put(q, "now")
		var seen []string
		for _, e := range env.Entries(q) {
			seen = append(seen, fmt.Sprint(e.Name, " ", e.State, " ", e.Priority, " ", e.Size))
			if e.State == zkq.StateDelayed && (e.Due.Before(start.Add(10*time.Second)) || e.Created.IsZero()) {
				t.Errorf("%+v", e)
			}
		}
		if len(seen) != 5 || seen[1] != names[0]+" delayed 100 1" || seen[4] != late+" delayed 7 4" {
			t.Errorf("%q of %q and %s", seen, names, late)
		}
		if e, err := q.Peek(env.Ctx, late); err != nil || string(e.Value) != "late" || e.State != zkq.StateDelayed {
			t.Errorf("%+v, %v", e, err)
		}
		if st, err := q.Stat(env.Ctx); err != nil || st.Delayed != 4 || st.Ready != 1 || st.Total() != 5 {
			t.Errorf("%+v, %v", st, err)
		}
		env.Consume(env.Take(q)) // now
		env.WantEmpty(q)
		for i, want := range []string{"1", "2", "3", "late"} {
			h := env.Take(q)
			if string(h.Value) != want || h.Deliveries != 1 {
				t.Errorf("took %q, delivery %d, want %q", h.Value, h.Deliveries, want)
			}
			due := start.Add(10 * time.Second)
			if i == 3 {
				if due = start.Add(20 * time.Second); h.Priority != 7 {
					t.Errorf("priority %d", h.Priority)
				}
			}
			if now := time.Now(); now.Before(due) || now.After(due.Add(2*time.Second)) {
				t.Errorf("%q was taken %v after it was due", h.Value, now.Sub(due))
			}
			env.Consume(h)
		}
		env.WantDelayed(c)
	})
}

// Whatever answers are lost, a delayed put is one, and becomes one entry.
func TestLostRepliesOfDelayedPutsPutOnce(t *testing.T) {
	for name, lose := range testqueue.Losses {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				other, _ := env.Queue()
				var names []string
				for i := range 3 {
					lose(c)
					names = append(names, env.Put(q, fmt.Sprint(i), zkq.WithDelay(time.Second)))
				}
				for i, name := range names {
					if e, err := other.Peek(env.Ctx, name); err != nil || string(e.Value) != fmt.Sprint(i) {
						t.Fatalf("%s: %+v, %v", name, e, err)
					}
				}
				time.Sleep(2 * time.Second)
				lose(c)
				var got []string
				for range 3 {
					h := env.Take(q)
					got = append(got, string(h.Value))
					env.Consume(h)
				}
				if slices.Sort(got); fmt.Sprint(got) != "[0 1 2]" {
					t.Error(got)
				}
				env.WantEmpty(q)
				env.WantEmpty(other)
			})
		})
	}
}

// Made again with its token, by whoever, it is the same put, also when the first call was
// for another time.
func TestADelayedPutIsMadeOnceWithItsToken(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		other, _ := env.Queue()
		token, err := q.NewToken(env.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		put := func(q *zkq.LockingQueue) string {
			return env.Put(q, "a", zkq.WithDelay(time.Minute), zkq.WithToken(token))
		}
		name := put(q)
		time.Sleep(10 * time.Second)
		if again := put(other); again != name {
			t.Errorf("put again is %s, and was %s", again, name)
		}
		if st, err := q.Stat(env.Ctx); err != nil || st.Delayed != 1 || st.Total() != 1 {
			t.Errorf("%+v, %v", st, err)
		}
		env.Consume(env.TakeWithin(q, 2*time.Minute))
		if again := put(other); again != "" {
			t.Errorf("put again is %s, and was taken", again)
		}
		env.WantEmpty(q)
	})
}

func TestDelayedPutsAreRemovedAndPurged(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		var names []string
		for i := range 50 {
			names = append(names, env.Put(q, fmt.Sprint(i), zkq.WithDelay(time.Hour)))
		}
		env.Release(env.PutAndTake(q, "aside"), zkq.After(time.Hour))
		c.DropReply()
		if err := q.Remove(env.Ctx, names[0], false); err != nil {
			t.Fatal(err)
		}
		env.WantErr(q.Remove(env.Ctx, names[0], true), zkq.ErrNoEntry)
		_, err := q.Peek(env.Ctx, names[0])
		env.WantErr(err, zkq.ErrNoEntry)
		env.WantErr(env.Purge(q, zkq.StateReady, 0), nil)
		env.WantErr(env.Purge(q, zkq.StateDelayed, 50), nil)
		if st, err := q.Stat(env.Ctx); err != nil || st.Total() != 0 {
			t.Errorf("%+v, %v", st, err)
		}
		env.WantDelayed(c)
	})
}

// What is delayed is waited for, and what becomes an entry meanwhile is not overlooked.
func TestWaitEmptyWaitsForWhatIsDelayed(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		other, _ := env.Queue()
		env.Put(q, "a", zkq.WithDelay(10*time.Second))
		start := time.Now()
		done := make(chan time.Duration, 1)
		go func() {
			if other.WaitEmpty(env.Ctx) == nil {
				done <- time.Since(start)
			}
		}()
		h := env.Take(q)
		time.Sleep(5 * time.Second)
		env.Consume(h)
		if d := <-done; d < 15*time.Second || d > 17*time.Second {
			t.Errorf("it waited for %v", d)
		}
	})
}

func TestADelayedPutMakesAQueueKnown(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "a", zkq.WithDelay(time.Hour))
		if names, err := zkq.Queues(env.Ctx, c); err != nil || fmt.Sprint(names) != "[/jobs]" {
			t.Errorf("%v, %v", names, err)
		}
	})
}

func TestDelaysThatCannotBeAreRefused(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		_, err := q.Put(env.Ctx, nil, zkq.WithDelay(1<<63-1))
		env.WantErr(err, zkq.ErrInvalid)
		env.Put(q, "a", zkq.WithDelay(-time.Hour))
		env.Consume(env.Take(q))
		env.Put(q, strings.Repeat("x", zkq.MaxValue), zkq.WithDelay(time.Second))
		env.Consume(env.Take(q))
		plain := zkq.NewQueue(c, "plain")
		defer plain.Close()
		_, err = plain.Put(env.Ctx, nil, zkq.WithDelay(time.Second))
		env.WantErr(err, zkq.ErrInvalid)
	})
}

// Who moves a delayed put dies in the middle of it: it is one entry, or still delayed.
func TestMoverThatDiesLeavesTheDelayedPutToTheNext(t *testing.T) {
	for _, lost := range []string{"request", "reply"} {
		t.Run(lost, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				putter, _ := env.Queue()
				env.Put(putter, "a", zkq.WithDelay(time.Minute))
				q, c := env.Queue()
				ctx, cancel := context.WithCancel(env.Ctx)
				gone := make(chan error, 1)
				go func() {
					_, err := q.Take(ctx)
					gone <- err
				}()
				synctest.Wait()
				moved := 0
				env.Store.Observe(func(a coordtest.Applied) {
					for _, op := range a.Ops {
						if strings.HasPrefix(op.Path, "/jobs/entries/") && op.Value != nil && string(op.Value) == "a" && strings.HasSuffix(op.Path, "entry-100-") {
							moved++
						}
					}
				})
				if lost == "reply" {
					c.DropReply()
				} else {
					c.DropRequest()
				}
				time.Sleep(time.Minute + 2*time.Millisecond)
				c.Crash()
				cancel()
				<-gone
				other, _ := env.Queue()
				h := env.Take(other)
				env.Consume(h)
				env.WantEmpty(other)
				if moved != 1 {
					t.Errorf("it became an entry %d times", moved)
				}
			})
		})
	}
}

func TestTheNewestDeadAreKept(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		for i := range 10 {
			env.Bury(env.PutAndTake(q, fmt.Sprint(i)), fmt.Sprint("reason ", i))
			time.Sleep(time.Second)
		}
		_, err := q.PurgeDead(env.Ctx, -1)
		env.WantErr(err, zkq.ErrInvalid)
		for _, keep := range []int{20, 3, 3, 1, 0} {
			before := len(env.Entries(q))
			n, err := q.PurgeDead(env.Ctx, keep)
			left := env.Entries(q)
			if err != nil || n != max(before-keep, 0) || len(left) != min(before, keep) {
				t.Fatalf("keeping %d of %d: removed %d, left %d, %v", keep, before, n, len(left), err)
			}
			if len(left) > 0 && left[len(left)-1].Reason != "reason 9" {
				t.Errorf("%+v", left)
			}
		}
	})
}
