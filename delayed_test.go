package zkq_test

import (
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
	"github.com/zkq/zkq/internal/testhook"
	"github.com/zkq/zkq/internal/testqueue"
)

func TestADelayedReleaseReturnsTheEntryToItsPlace(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		first := env.Put(q, "first")
		env.Put(q, "second")
		third := env.Put(q, "third")
		start := time.Now()
		h := env.Take(q)
		env.Release(h, zkq.After(10*time.Second))
		env.WantDelayed(c, first)
		if st := env.State(q, first); st != zkq.StateDelayed || q.LeftAlone() != 1 {
			t.Fatalf("it is %s, and %d are left alone", st, q.LeftAlone())
		}
		env.Consume(env.Take(q))
		env.Release(env.Take(q), zkq.After(20*time.Second)) // third
		env.WantEmpty(q)
		other, _ := env.Queue()
		if h = env.Take(other); h.Name != first || h.Deliveries != 2 || h.Failures != 0 {
			t.Errorf("took %s, delivery %d", h.Name, h.Deliveries)
		}
		if d := time.Since(start); d < 10*time.Second || d > 11*time.Second {
			t.Errorf("it was back after %v", d)
		}
		env.Consume(h)
		if h = env.Take(q); h.Name != third || q.LeftAlone() != 0 {
			t.Errorf("took %s, %d are left alone", h.Name, q.LeftAlone())
		}
		if d := time.Since(start); d < 20*time.Second || d > 21*time.Second {
			t.Errorf("the next was back after %v", d)
		}
		env.Consume(h)
		env.WantDelayed(c)
	})
}

func TestAFailedEntryCanBeDelayed(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue(zkq.MaxDeliveries(3))
		name := env.Put(q, "a")
		for i := range 3 {
			h := env.Take(q)
			if h.Failures != i {
				t.Fatalf("%d failures, want %d", h.Failures, i)
			}
			env.Fail(h, fmt.Sprint("no ", i), zkq.After(time.Minute))
			env.WantErr(h.Consume(env.Ctx), zkq.ErrAlreadyDone)
			env.WantDelayed(c, name)
			if e := env.Entries(q)[0]; e.State != zkq.StateDelayed || e.Failures != i+1 || e.Reason != fmt.Sprint("no ", i) {
				t.Fatalf("%+v", e)
			}
			synctest.Wait()
			time.Sleep(time.Minute + time.Second)
		}
		env.WantEmpty(q)
		if e := env.DeadEntry(q); e.Failures != 3 {
			t.Errorf("%+v", e)
		}
		env.WantDelayed(c)
	})
}

// The process loses its locks and its session. Its delayed entries stay.
func TestADelayedEntryOutlivesItsProcess(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		name := env.Put(q, "a")
		env.Release(env.Take(q), zkq.After(time.Hour))
		c.Crash()
		other, oc := env.Queue()
		time.Sleep(30 * time.Minute)
		env.WantEmpty(other)
		env.WantDelayed(oc, name)
		time.Sleep(30*time.Minute + time.Second)
		// No process was there when it became due, and none waits.
		h, err := other.TryTake(env.Ctx)
		if err != nil || h.Name != name {
			t.Fatal(h, err)
		}
		env.Consume(h)
		env.WantDelayed(oc)
	})
}

// The take lists the entries before the mover's commit, and looks for due entries after it.
func TestATryTakeFindsTheEntryThatTheMoverMakesReady(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		env.Put(q, "a", zkq.WithDelay(time.Minute))
		env.WantEmpty(q)
		env.WantEmpty(q) // and from here on the handle has a mover
		looked, taken := make(chan struct{}), make(chan error, 1)
		c.Before(func(_ coord.Session, act, _ string) {
			if act != "commit" { // the mover's
				return
			}
			c.Before(func(_ coord.Session, act, path string) {
				if act == "list" && path == "/jobs/delayed" {
					c.Before(nil)
					close(looked)
					time.Sleep(time.Second)
				}
			})
			go func() {
				_, err := q.TryTake(env.Ctx)
				taken <- err
			}()
			<-looked
		})
		if err := <-taken; err != nil {
			t.Error(err)
		}
	})
}

func TestDueEntriesAreMovedInTheNextSession(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		putter, _ := env.Queue()
		name := env.Put(q, "a")
		env.Release(env.Take(q), zkq.After(time.Minute))
		got := make(chan *zkq.Held, 1)
		go func() {
			h, _ := q.Take(env.Ctx)
			got <- h
		}()
		synctest.Wait()
		for range 3 {
			c.Cut()
			time.Sleep(15 * time.Second)
			c.Heal()
			time.Sleep(time.Second)
		}
		env.Put(putter, "not me", zkq.WithPriority(1))
		if h := <-got; h == nil || string(h.Value) != "not me" {
			t.Fatal(h)
		}
		start := time.Now()
		if h := env.Take(q); h.Name != name || time.Since(start) > 13*time.Second {
			t.Fatalf("took %s after %v", h.Name, time.Since(start))
		}
	})
}

func TestLostRepliesOfDelayedReleasesDelayOnce(t *testing.T) {
	for name, lose := range testqueue.Losses {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				entry := env.Put(q, "a")
				for i := range 3 {
					h := env.Take(q)
					lose(c)
					env.Fail(h, "no", zkq.After(5*time.Second))
					env.WantDelayed(c, entry)
					h = env.Take(q)
					if h.Failures != i+1 {
						t.Fatalf("%d failures", h.Failures)
					}
					lose(c)
					env.Release(h, zkq.After(5*time.Second))
					env.WantDelayed(c, entry)
				}
				env.Consume(env.Take(q))
				env.WantDelayed(c)
			})
		})
	}
}

// A second finish of another kind does not undo the first, and reports that it did nothing.
func TestAFinishAfterAnUnansweredDelayedReleaseChangesNothing(t *testing.T) {
	for act, finish := range map[string]func(context.Context, *zkq.Held) error{
		"consume":           func(ctx context.Context, h *zkq.Held) error { return h.Consume(ctx) },
		"bury":              func(ctx context.Context, h *zkq.Held) error { return h.Bury(ctx, "") },
		"release":           func(ctx context.Context, h *zkq.Held) error { return h.Release(ctx) },
		"release for later": func(ctx context.Context, h *zkq.Held) error { return h.Release(ctx, zkq.After(time.Hour)) },
		"fail for later":    func(ctx context.Context, h *zkq.Held) error { return h.Fail(ctx, "", zkq.After(time.Hour)) },
	} {
		t.Run(act, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				name := env.Put(q, "a")
				h := env.Take(q)
				c.HoldReplies()
				ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
				defer cancel()
				env.WantErr(h.Release(ctx, zkq.After(time.Minute)), zkq.ErrUnknown)
				c.Heal()
				if err := finish(env.Ctx, h); err == nil && act != "release for later" {
					t.Errorf("%s after a release for later: no error", act)
				}
				env.WantDelayed(c, name)
				if st, err := q.Stat(env.Ctx); err != nil || st.Delayed != 1 || st.Dead != 0 {
					t.Errorf("%+v, %v", st, err)
				}
			})
		})
	}
}

// The index node is removed with its entry, whichever process removes that.
func TestTheIndexNodeIsRemovedWithItsEntry(t *testing.T) {
	for way, remove := range map[string]func(env *testqueue.Env, q *zkq.LockingQueue, name string) error{
		"rm": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error {
			return q.Remove(env.Ctx, name, false)
		},
		"purge": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error {
			return env.Purge(q, zkq.StateDelayed, 1)
		},
		"purge of others": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error {
			for _, st := range []zkq.State{zkq.StateReady, zkq.StateHeld, zkq.StateDead} {
				if err := env.Purge(q, st, 0); err != nil {
					return err
				}
			}
			return q.Remove(env.Ctx, name, true)
		},
	} {
		t.Run(way, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				name := env.Put(q, "a")
				env.Fail(env.Take(q), "no", zkq.After(time.Minute))
				if err := remove(env, q, name); err != nil {
					t.Fatal(err)
				}
				for _, dir := range []string{"entries", "taken", "attempts", "delayed"} {
					if left := env.Children(env.Session(c), "/jobs/"+dir); len(left) > 0 {
						t.Errorf("left: %q", left)
					}
				}
				env.WantErr(q.BreakLock(env.Ctx, name), zkq.ErrNoEntry)
			})
		})
	}
}

// Foreign nodes in the index do no harm. Index nodes without an entry are swept.
func TestForeignNodesInTheIndexAreSkipped(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		var warned []string
		q, c := env.Queue(zkq.Warn(func(m string) { warned = append(warned, m) }))
		name, stale := env.Put(q, "a"), env.Put(q, "b")
		s := env.Session(c)
		foreign := []string{"0", "0000000000000-entry-1", "0000000000000", "zzz"}
		for i := range 100 {
			foreign = append(foreign, fmt.Sprintf("0000000000000-x%d", i))
		}
		for _, f := range foreign {
			env.Commit(s, coord.Create("/jobs/delayed/"+f, nil))
		}
		env.Commit(s, coord.Create("/jobs/delayed/0000000000001-"+stale, nil))
		env.Release(env.Take(q), zkq.After(time.Minute))
		env.Consume(env.Take(q))
		if h := env.TakeWithin(q, 2*time.Minute); h.Name != name {
			t.Fatal(h)
		}
		time.Sleep(2 * time.Minute)
		if left := env.Children(s, "/jobs/delayed"); len(left) != len(foreign) {
			t.Errorf("%d left of %d: %q", len(left), len(foreign), left)
		}
		if len(warned) < 100 {
			t.Errorf("%d warnings: %q", len(warned), warned)
		}
	})
}

func TestDelaysBeyondTheCalendarAreRefused(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "a")
		h := env.Take(q)
		env.WantErr(h.Release(env.Ctx, zkq.After(1<<63-1)), zkq.ErrInvalid)
		env.WantErr(h.Fail(env.Ctx, "", zkq.After(1<<63-1)), zkq.ErrInvalid)
		env.Fail(h, "", zkq.After(0))
		env.WantDelayed(c)
		env.Release(env.Take(q), zkq.After(-time.Hour))
		env.Consume(env.Take(q))
		env.WantErr((&zkq.Held{}).Release(env.Ctx, zkq.After(time.Hour)), zkq.ErrNotHeld)
	})
}

// While nothing is delayed, each handle costs a watch and a listing, and entries cost no request more.
func TestDelaysCostEntriesWithoutOneNoRequest(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		env.Put(q, "a")
		env.Consume(env.Take(q))
		time.Sleep(time.Minute)
		lists := 0
		c.Before(func(_ coord.Session, act, path string) {
			if strings.Contains(path, "delayed") {
				lists++
			}
		})
		for range 50 {
			env.Put(q, "a")
			env.Consume(env.Take(q))
			time.Sleep(time.Minute)
		}
		if lists > 0 {
			t.Errorf("%d requests about delayed entries, and there are none", lists)
		}
	})
}

// Two processes become due to move entries at the same time. Each entry is moved once.
func TestAnyTakingProcessMovesDueEntries(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		putter, c := env.Queue()
		const n = 200
		for i := range n {
			env.Put(putter, fmt.Sprint(i))
		}
		for range n {
			env.Release(env.Take(putter), zkq.After(10*time.Second))
		}
		start := time.Now()
		done := make(chan string, n)
		for range 4 {
			q, _ := env.Queue()
			go func() {
				for h, err := range q.All(env.Ctx) {
					if err != nil {
						return
					}
					if h.Consume(env.Ctx) == nil {
						done <- h.Name
					}
				}
			}()
		}
		seen := make(map[string]bool)
		for range n {
			seen[<-done] = true
		}
		if d := time.Since(start); len(seen) != n || d < 9*time.Second || d > 12*time.Second {
			t.Errorf("%d entries after %v", len(seen), d)
		}
		time.Sleep(time.Second)
		env.WantDelayed(c)
		if st, err := putter.Stat(env.Ctx); err != nil || st.Total() != 0 {
			t.Errorf("%+v, %v", st, err)
		}
		if _, err := putter.TryTake(env.Ctx); !errors.Is(err, zkq.ErrEmpty) {
			t.Error(err)
		}
	})
}

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

// A delayed put becomes one entry, whichever answers are lost.
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

// A put that any process repeats with the same token is the same put, even if the first call asked for another delay.
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

// WaitEmpty waits for delayed entries, and does not overlook the entry that one becomes meanwhile.
func TestWaitEmptyWaitsForDelayedEntries(t *testing.T) {
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

func TestAQueueWithOnlyADelayedPutIsFound(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "a", zkq.WithDelay(time.Hour))
		if names, err := zkq.Queues(env.Ctx, c); err != nil || fmt.Sprint(names) != "[/jobs]" {
			t.Errorf("%v, %v", names, err)
		}
	})
}

func TestInvalidDelaysAreRefused(t *testing.T) {
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

// The process that moves a delayed put dies during the move. The put is one entry, or still delayed.
func TestAnotherProcessMovesTheDelayedPutOfAMoverThatDied(t *testing.T) {
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

func TestAnExpiredEntryIsNeverHandedOut(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		other, _ := env.Queue()
		gone := env.Put(q, "gone", zkq.WithTTL(10*time.Second), zkq.WithPriority(1))
		held := env.Put(q, "held", zkq.WithTTL(10*time.Second))
		aside := env.Put(q, "aside", zkq.WithTTL(20*time.Second))
		late := env.Put(q, "late", zkq.WithTTL(time.Minute), zkq.WithDelay(time.Hour))
		stays := env.Put(q, "stays", zkq.WithTTL(time.Hour), zkq.WithPriority(200))
		h := env.Take(q)
		if h.Name != gone || string(h.Value) != "gone" {
			t.Fatal(h)
		}
		keeps := env.Take(q)
		env.Release(env.Take(q), zkq.After(30*time.Second))
		env.Release(h)
		time.Sleep(10 * time.Second)
		if e, err := other.Peek(env.Ctx, ""); err != nil || e.Name != stays || e.Expires.IsZero() {
			t.Errorf("the next is %+v, %v", e, err)
		}
		seen := make(map[string]zkq.State)
		for _, e := range env.Entries(other) {
			seen[e.Name] = e.State
		}
		if len(seen) != 4 || seen[held] != zkq.StateHeld || seen[aside] != zkq.StateDelayed || seen[late] != zkq.StateDelayed || seen[stays] != zkq.StateReady {
			t.Errorf("%v", seen)
		}
		if st, err := other.Stat(env.Ctx); err != nil || st.Ready != 1 || st.Held != 1 || st.Delayed != 2 {
			t.Errorf("%+v, %v", st, err)
		}
		got := env.Take(other)
		if got.Name != stays {
			t.Errorf("took %s, %q", got.Name, got.Value)
		}
		env.Consume(got)
		env.Consume(keeps)
		env.WantEmpty(other)
		time.Sleep(2 * time.Hour)
		env.WantEmpty(other)
		env.WantNothingLeft(q)
	})
}

// A waiting take is handed the entries that have not expired, and no others.
func TestWaitingTakesSkipEntriesThatExpire(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		other, _ := env.Queue()
		h := env.PutAndTake(q, "first")
		for range 200 {
			env.Put(q, "gone", zkq.WithTTL(time.Second))
		}
		time.Sleep(2 * time.Second)
		env.Put(q, "last")
		env.Consume(h)
		if h := env.Take(other); string(h.Value) != "last" {
			t.Errorf("took %q", h.Value)
		} else {
			env.Consume(h)
		}
		env.WantNothingLeft(q)
	})
}

func TestWaitEmptyDoesNotWaitForExpiredEntries(t *testing.T) {
	for what, opts := range map[string][]zkq.PutOption{
		"ready": {}, "delayed": {zkq.WithDelay(time.Hour)},
	} {
		t.Run(what, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, _ := env.Queue()
				env.Put(q, "a", append(opts, zkq.WithTTL(time.Minute))...)
				start := time.Now()
				if err := q.WaitEmpty(env.Ctx); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(start); d < 59*time.Second || d > 61*time.Second {
					t.Errorf("it waited for %v", d)
				}
				if _, err := q.Peek(env.Ctx, ""); !errors.Is(err, zkq.ErrEmpty) {
					t.Error(err)
				}
			})
		})
	}
}

// Dead entries do not expire, nor do those that are requeued.
func TestARequeuedEntryDoesNotExpire(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "a", zkq.WithTTL(time.Minute), zkq.WithUnique("k"))
		env.Bury(env.Take(q), "no")
		time.Sleep(time.Hour)
		e := env.DeadEntry(q)
		if string(e.Value) == "" {
			t.Fatal(e)
		}
		if _, err := q.Requeue(env.Ctx, e.Name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		env.Put(q, "b", zkq.WithUnique("k"))
		if h := env.Take(q); string(h.Value) != "a" {
			t.Errorf("took %q", h.Value)
		} else {
			env.Consume(h)
		}
		env.Consume(env.Take(q))
		env.WantNothingLeft(q)
	})
}

// Lost answers to claims hand out no expired entry, and leave no lock.
func TestLostRepliesOfClaimsOfExpiredEntriesLeaveNothing(t *testing.T) {
	for name, lose := range testqueue.Losses {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				env.Put(q, "a", zkq.WithTTL(time.Second), zkq.WithUnique("k"))
				time.Sleep(2 * time.Second)
				lose(c)
				env.WantEmpty(q)
				time.Sleep(time.Minute)
				env.WantEmpty(q)
				env.WantNothingLeft(q)
			})
		})
	}
}

// takesBehindSpentEntries are the ways to take an entry that stands behind spent ones: expired, or delivered too often.
var takesBehindSpentEntries = map[string]func(env *testqueue.Env, q *zkq.LockingQueue) (*zkq.Held, error){
	"TryTake": func(env *testqueue.Env, q *zkq.LockingQueue) (*zkq.Held, error) { return q.TryTake(env.Ctx) },
	"Take":    func(env *testqueue.Env, q *zkq.LockingQueue) (*zkq.Held, error) { return env.Take(q), nil },
	"TryTakeN": func(env *testqueue.Env, q *zkq.LockingQueue) (*zkq.Held, error) {
		held, err := q.TryTakeN(env.Ctx, 8)
		if err != nil {
			return nil, err
		}
		return held[0], nil
	},
	"TakeN": func(env *testqueue.Env, q *zkq.LockingQueue) (*zkq.Held, error) {
		held, err := q.TakeN(env.Ctx, 8)
		if err != nil {
			return nil, err
		}
		return held[0], nil
	},
	"Exchange": func(env *testqueue.Env, q *zkq.LockingQueue) (*zkq.Held, error) {
		first := env.Put(q, "first", zkq.WithPriority(0))
		held, err := q.Exchange(env.Ctx, nil, 1)
		if err != nil || len(held) != 1 || held[0].Name != first {
			env.Fatalf("%v, %v; want %s", held, err, first)
		}
		if held, err = q.Exchange(env.Ctx, held, 1); err != nil || len(held) != 1 {
			env.Fatalf("exchanged for %v, %v", held, err)
		}
		return held[0], nil
	},
	"Worker": func(env *testqueue.Env, q *zkq.LockingQueue) (h *zkq.Held, err error) {
		ctx, cancel := context.WithCancel(env.Ctx)
		defer cancel()
		w := &zkq.Worker{Queue: q, Handler: zkq.HandlerFunc(func(_ context.Context, got *zkq.Held) error {
			h = got
			cancel()
			return nil
		})}
		return h, w.Run(ctx)
	},
}

// A take removes any number of spent entries at the head in a few commits and without backing off, and returns the
// entry behind them.
func TestATakeRemovesSpentEntriesWithoutBackingOff(t *testing.T) {
	const many = 1000
	spend := map[string]func(env *testqueue.Env) *zkq.LockingQueue{
		"expired": func(env *testqueue.Env) *zkq.LockingQueue {
			q, _ := env.Queue()
			if _, err := q.PutAll(env.Ctx, make([][]byte, many), zkq.WithTTL(time.Second)); err != nil {
				env.Fatal(err)
			}
			return q
		},
		"delivered too often": func(env *testqueue.Env) *zkq.LockingQueue {
			q, _ := env.Queue()
			if _, err := q.PutAll(env.Ctx, make([][]byte, many)); err != nil {
				env.Fatal(err)
			}
			// Workers that take some and crash.
			for range many / 50 {
				crash, c := env.Queue()
				for range 50 {
					if _, err := crash.TakeN(env.Ctx, 1); err != nil {
						env.Fatal(err)
					}
				}
				c.Crash()
			}
			return q
		},
	}
	for what, spend := range spend {
		for how, take := range takesBehindSpentEntries {
			t.Run(what+"/"+how, func(t *testing.T) {
				testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
					putter := spend(env)
					time.Sleep(20 * time.Second)
					env.Put(putter, "living")
					c := testqueue.NewCounter(env.Client())
					q := env.QueueOn(c, zkq.MaxDeliveries(1))
					start := time.Now()
					h, err := take(env, q)
					if err != nil {
						t.Fatal(err)
					}
					if string(h.Value) != "living" {
						t.Errorf("took %q", h.Value)
					}
					if d := time.Since(start); d > 200*time.Millisecond {
						t.Errorf("it took %v", d)
					}
					if n := c.Count("commit"); n > 100 {
						t.Errorf("%d commits for %d entries", n, many)
					}
					if how != "Worker" {
						env.Consume(h)
					}
					if what != "expired" {
						if st, err := q.Stat(env.Ctx); err != nil || st.Dead != many {
							t.Errorf("%+v, %v", st, err)
						}
					}
					env.WantNothingLeft(putter)
				})
			})
		}
	}
}

// Several handles remove the same spent entries at the same time. Some of their answers are lost. Each gets one of the
// others.
func TestConcurrentTakesRemoveTheSameSpentEntries(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		putter, _ := env.Queue()
		for i := range 300 {
			env.Put(putter, "", zkq.WithTTL(time.Second), zkq.WithUnique(fmt.Sprint(i)))
		}
		time.Sleep(2 * time.Second)
		const takers = 8
		for i := range takers {
			env.Put(putter, fmt.Sprint(i))
		}
		got := make(chan string, takers)
		for i := range takers {
			q, c := env.Queue()
			go func() {
				if i%3 == 0 {
					c.DropReply()
				}
				h, err := q.TryTake(env.Ctx)
				if err != nil {
					t.Errorf("taker %d: %v", i, err)
					got <- ""
					return
				}
				got <- string(h.Value)
				env.Consume(h)
			}()
		}
		seen := make(map[string]bool)
		for range takers {
			seen[<-got] = true
		}
		if len(seen) != takers {
			t.Errorf("they took %v", seen)
		}
		time.Sleep(time.Minute)
		env.WantNothingLeft(putter)
	})
}

// A due entry stands behind delayed puts that expired before they were moved. The first call returns it.
func TestATakeFindsTheDuePutBehindExpiredOnes(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue(testqueue.Settings(testhook.Settings{DuePage: 5}))
		for range 200 {
			env.Put(q, "gone", zkq.WithDelay(time.Second), zkq.WithTTL(2*time.Second))
		}
		env.Put(q, "living", zkq.WithDelay(3*time.Second))
		time.Sleep(5 * time.Second)
		start := time.Now()
		h, err := q.TryTake(env.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 200*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		env.Consume(h)
		env.WantEmpty(q)
		env.WantNothingLeft(q)
	})
}

// A TryTake that makes a delayed put ready, and loses that answer, does not report an unknown outcome.
func TestALostAnswerToAMoveDoesNotFailTheTake(t *testing.T) {
	for name, lose := range testqueue.Losses {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				env.Put(q, "a", zkq.WithDelay(time.Second))
				time.Sleep(2 * time.Second)
				lose(c)
				h, err := q.TryTake(env.Ctx)
				if err != nil {
					t.Fatal(err)
				}
				env.Consume(h)
				env.WantEmpty(q)
			})
		})
	}
}

// The same, if no answer comes in time.
func TestATakeWhoseMoveGetsNoAnswerHoldsNothing(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := env.Client()
		counts := testqueue.NewCounter(c)
		q := env.QueueOn(counts)
		env.Put(q, "a", zkq.WithDelay(time.Second))
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithTimeout(env.Ctx, 2*time.Second)
		defer cancel()
		counts.Before(func(_ coord.Session, act, path string) {
			if act == "commit" {
				counts.Before(nil)
				c.HoldReplies()
			}
		})
		_, err := q.TryTake(ctx)
		if err == nil || errors.Is(err, zkq.ErrUnknown) || errors.Is(err, zkq.ErrEmpty) {
			t.Errorf("error %v", err)
		}
		c.Heal()
		env.Consume(env.Take(q))
	})
}

// The key of an expired entry is free: a put removes that entry and goes on.
func TestAnExpiredEntryHoldsNoKey(t *testing.T) {
	for what, opts := range map[string][]zkq.PutOption{
		"ready": {}, "delayed": {zkq.WithDelay(time.Hour)},
	} {
		t.Run(what, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				env.Put(q, "old", append(opts, zkq.WithTTL(time.Second), zkq.WithUnique("k"))...)
				_, err := q.Put(env.Ctx, []byte("new"), zkq.WithUnique("k"))
				env.WantErr(err, zkq.ErrExists)
				time.Sleep(2 * time.Second)
				c.DropReply()
				env.Put(q, "new", zkq.WithUnique("k"))
				h := env.Take(q)
				if string(h.Value) != "new" {
					t.Errorf("took %q", h.Value)
				}
				env.WantErr(h.Forward(env.Ctx, zkq.Target{Queue: q, Value: []byte("next"), Options: []zkq.PutOption{zkq.WithTTL(time.Second), zkq.WithUnique("other")}}), nil)
				time.Sleep(2 * time.Second)
				env.Put(q, "again", zkq.WithUnique("other"))
				env.Consume(env.Take(q))
				env.WantEmpty(q)
				env.WantNothingLeft(q)
			})
		})
	}
}

// A delayed entry keeps its key until it expires. A held entry keeps its key while it is held.
func TestAHeldEntryHoldsItsKeyThoughItExpired(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "held", zkq.WithTTL(time.Second), zkq.WithUnique("k"))
		h := env.Take(q)
		time.Sleep(2 * time.Second)
		_, err := q.Put(env.Ctx, []byte("new"), zkq.WithUnique("k"))
		env.WantErr(err, zkq.ErrExists)
		if e, err := q.Peek(env.Ctx, h.Name); err != nil || e.State != zkq.StateHeld {
			t.Errorf("%+v, %v", e, err)
		}
		env.Release(h, zkq.After(time.Hour))
		env.Put(q, "new", zkq.WithUnique("k"))
		env.Consume(env.Take(q))
		env.WantNothingLeft(q)
	})
}

// Peek does not show an expired entry, and neither do Entries and Stat.
func TestPeekKnowsNoExpiredEntry(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		other, _ := env.Queue()
		env.WantErr(other.WaitEmpty(env.Ctx), nil) // and has read the configuration
		ready := env.Put(q, "a", zkq.WithTTL(time.Second))
		late := env.Put(q, "b", zkq.WithTTL(time.Second), zkq.WithDelay(time.Hour))
		for _, name := range []string{ready, late} {
			if _, err := other.Peek(env.Ctx, name); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(2 * time.Second)
		for _, name := range []string{ready, late} {
			_, err := other.Peek(env.Ctx, name)
			env.WantErr(err, zkq.ErrNoEntry)
		}
		_, err := other.Peek(env.Ctx, "")
		env.WantErr(err, zkq.ErrEmpty)
		if st, err := other.Stat(env.Ctx); err != nil || st.Total() != 0 {
			t.Errorf("%+v, %v", st, err)
		}
	})
}

// A put that waits for room gets it when an entry expires, whatever its state.
func TestAPutThatWaitsGetsTheRoomOfWhatExpires(t *testing.T) {
	for what, exact := range map[string]bool{"exact": true, "approximate": false} {
		t.Run(what, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				const many = 300
				q, _ := env.Queue()
				env.Create(q, zkq.QueueConfig{MaxEntries: many + 3, Approximate: !exact})
				held := env.Put(q, "held", zkq.WithTTL(time.Second))
				h := env.Take(q)
				env.Put(q, "aside", zkq.WithTTL(10*time.Second))
				env.Release(env.Take(q), zkq.After(time.Hour))
				env.Put(q, "late", zkq.WithTTL(10*time.Second), zkq.WithDelay(time.Hour))
				if _, err := q.PutAll(env.Ctx, make([][]byte, many), zkq.WithTTL(10*time.Second)); err != nil {
					t.Fatal(err)
				}
				other, c := env.Queue()
				_, err := other.Put(env.Ctx, nil)
				env.WantErr(err, zkq.ErrFull)
				start := time.Now()
				c.DropReply()
				env.Put(other, "new", zkq.WithWait(time.Minute))
				if d := time.Since(start); d < 9*time.Second || d > 11*time.Second {
					t.Errorf("it waited for %v", d)
				}
				if n, err := q.Len(env.Ctx); err != nil || n != 2 {
					t.Errorf("%d entries, %v; want %s and the new one", n, err, held)
				}
				// An entry that expires while it is held makes room when it is released.
				if _, err := q.PutAll(env.Ctx, make([][]byte, many+1)); err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(5*time.Second, func() { env.Release(h) })
				start = time.Now()
				env.Put(other, "last", zkq.WithWait(time.Minute))
				if d := time.Since(start); d < 5*time.Second || d > 7*time.Second {
					t.Errorf("it waited for %v", d)
				}
			})
		})
	}
}

// WaitEmpty notices the first time to live of a queue if it is set during the call.
func TestWaitEmptyNoticesTheFirstTimeToLive(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		other, _ := env.Queue()
		env.Put(q, "a")
		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- other.WaitEmpty(env.Ctx) }()
		time.Sleep(time.Second)
		env.Put(q, "b", zkq.WithTTL(6*time.Second))
		env.Consume(env.Take(q))
		env.WantErr(<-done, nil)
		if d := time.Since(start); d < 6*time.Second || d > 9*time.Second {
			t.Errorf("it waited for %v", d)
		}
	})
}

// WaitEmpty does not wait for an entry that expired while it was held and was then released.
func TestWaitEmptyNoticesAnExpiryDuringAHold(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		other, _ := env.Queue()
		env.Put(q, "a", zkq.WithTTL(time.Second))
		h := env.Take(q)
		start := time.Now()
		time.AfterFunc(10*time.Second, func() { env.Release(h) })
		env.WantErr(other.WaitEmpty(env.Ctx), nil)
		if d := time.Since(start); d < 10*time.Second || d > 12*time.Second {
			t.Errorf("it waited for %v", d)
		}
	})
}
