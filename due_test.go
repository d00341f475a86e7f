package zkq_test

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

func TestAnEntryPutAsideIsBackInItsPlaceWhenItIsDue(t *testing.T) {
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

func TestAFailureCanBePutAside(t *testing.T) {
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

// Its locks and its session are gone, what it put aside stays.
func TestWhatIsPutAsideStaysWhenItsProcessDies(t *testing.T) {
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
		// Nobody was there when it fell due, and nobody waits.
		h, err := other.TryTake(env.Ctx)
		if err != nil || h.Name != name {
			t.Fatal(h, err)
		}
		env.Consume(h)
		env.WantDelayed(oc)
	})
}

// A take that looked just before, and finds nothing left to make ready just after.
func TestWhatTheMoverMakesReadyIsNotEmpty(t *testing.T) {
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

func TestWhatIsDueIsMovedInTheNextSession(t *testing.T) {
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

func TestLostRepliesOfReleasesForLaterPutAsideOnce(t *testing.T) {
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

// A second, other finish does not undo the first, and says that it did nothing.
func TestAFinishAfterAnUnansweredReleaseForLaterChangesNothing(t *testing.T) {
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

// The index goes with what it stands for, whoever removes that.
func TestTheIndexGoesWithTheEntry(t *testing.T) {
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

// What others left in the index is in nobody's way, and what points to nothing is swept.
func TestForeignNodesInTheIndexAreInNobodysWay(t *testing.T) {
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

// Where nothing is delayed, that it could be costs a watch and a listing for each handle,
// and no request for an entry.
func TestWhatIsNotDelayedCostsNothing(t *testing.T) {
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
			t.Errorf("%d requests for what is not there", lists)
		}
	})
}

// One process falls due with another: nobody moves an entry twice, or not at all.
func TestWhatIsDueIsMovedByWhoeverIsThere(t *testing.T) {
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
