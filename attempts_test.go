package zkq_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testqueue"
)

func TestFailuresAreCountedAndShown(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		other, _ := env.Queue()
		name := env.Put(q, "a")
		env.Put(q, "never taken")
		for i := range 3 {
			h := env.Take(q)
			if h.Name != name || h.Failures != i || h.Deliveries != 2*i+1 {
				t.Fatalf("took %s, delivery %d, failures %d", h.Name, h.Deliveries, h.Failures)
			}
			env.Fail(h, fmt.Sprint("no ", i))
			env.Release(env.Take(other))
		}
		for _, look := range []func() (zkq.Entry, error){
			func() (zkq.Entry, error) { return env.Entries(q)[0], nil },
			func() (zkq.Entry, error) { return q.Peek(env.Ctx, "") },
			func() (zkq.Entry, error) { return q.Peek(env.Ctx, name) },
		} {
			e, err := look()
			if err != nil || e.Name != name || e.Failures != 3 || e.Deliveries != 6 || e.Reason != "no 2" {
				t.Errorf("%+v, %v", e, err)
			}
		}
	})
}

func TestAFirstDeliveryCostsNoRequestMore(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c, zkq.MaxDeliveries(1))
		env.Put(q, "a")
		env.Put(q, "b")
		h := env.Take(q)
		synctest.Wait()
		c.Reset()
		env.Consume(h)
		env.Release(env.Take(q))
		if commits, reads := c.Count("commit"), c.Count("read")+c.Count("get"); commits != 3 || reads > 1 {
			t.Errorf("consume, take and release: %d commits and %d reads", commits, reads)
		}
	})
}

// What an entry leaves beside it goes with it, whoever removes it.
func TestAttemptsGoWithTheEntry(t *testing.T) {
	for way, remove := range map[string]func(env *testqueue.Env, q *zkq.LockingQueue, name string) error{
		"consume": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error { return env.Take(q).Consume(env.Ctx) },
		"bury":    func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error { return env.Take(q).Bury(env.Ctx, "") },
		"rm": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error {
			return q.Remove(env.Ctx, name, false)
		},
		"rm --force": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error {
			env.Take(q)
			return q.Remove(env.Ctx, name, true)
		},
		"purge": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error {
			_, err := q.Purge(env.Ctx, zkq.StateReady)
			return err
		},
		"purge --state held": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error {
			env.Take(q)
			_, err := q.Purge(env.Ctx, zkq.StateHeld)
			return err
		},
	} {
		t.Run(way, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				name := env.Put(q, "a")
				env.Fail(env.Take(q), "no")
				if env.History(c, name) == "" {
					t.Fatal("no attempts: this shows nothing")
				}
				// Not by the sweep that follows a purge.
				alone := true
				env.Store.Observe(func(a coordtest.Applied) {
					alone = alone && !(len(a.Ops) == 1 && strings.Contains(a.Ops[0].Path, "/attempts/"))
				})
				if err := remove(env, q, name); err != nil {
					t.Fatal(err)
				}
				s := env.Session(c)
				if left := env.Children(s, "/jobs/attempts"); len(left) > 0 || !alone {
					t.Errorf("left: %q, removed in the same commit: %v", left, alone)
				}
				if left := env.Children(s, "/jobs/entries"); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			})
		})
	}
}

// kazoo's consume knows nothing of attempts.
func TestAttemptsWithoutAnEntryAreSwept(t *testing.T) {
	for way, sweep := range map[string]func(env *testqueue.Env, q *zkq.LockingQueue){
		"by purge": func(env *testqueue.Env, q *zkq.LockingQueue) {
			if _, err := q.Purge(env.Ctx, zkq.StateDelayed); err != nil {
				env.Fatal(err)
			}
		},
		"within the hour by who gives back": func(env *testqueue.Env, q *zkq.LockingQueue) {
			time.Sleep(time.Hour)
			env.Release(env.Take(q))
			time.Sleep(time.Second)
		},
	} {
		t.Run(way, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				gone := env.Put(q, "kazoo's")
				stays := env.Put(q, "stays")
				env.Fail(env.Take(q), "no")
				n := env.Get(env.Session(c), "/jobs/entries/"+gone)
				env.Commit(env.Session(c), coord.Delete(n.Path, n.Fence))
				env.Fail(env.Take(q), "no")
				sweep(env, q)
				if left := env.Children(env.Session(c), "/jobs/attempts"); len(left) != 1 || left[0] != "/jobs/attempts/"+stays {
					t.Fatalf("left: %q", left)
				}
				env.Consume(env.Take(q))
			})
		})
	}
}

func TestAttemptsThatSomebodySpoiltAreInNobodysWay(t *testing.T) {
	for what, value := range map[string]string{"no JSON": "\xff", "negative": `{"failures":-5,"forgiven":-7}`, "a list": "[]", "nothing": "", "null": "null"} {
		t.Run(what, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue(zkq.MaxDeliveries(3))
				name := env.Put(q, "a")
				env.Fail(env.Take(q), "no")
				s, at := env.Session(c), "/jobs/attempts/"+name
				env.Commit(s, coord.Set(at, []byte(value), env.Get(s, at).Fence))
				h := env.Take(q)
				if h.Failures != 0 {
					t.Errorf("failures %d", h.Failures)
				}
				// And under the holder's hands.
				env.Commit(s, coord.Set(at, []byte(value), env.Get(s, at).Fence))
				env.Fail(h, "no")
				h = env.Take(q)
				env.Commit(s, coord.Delete(at, env.Get(s, at).Fence))
				env.Release(h)
				h = env.Take(q)
				env.Commit(s, coord.Delete(at, env.Get(s, at).Fence))
				env.Consume(h)
				env.Put(q, "b")
				h = env.Take(q)
				env.Commit(s, coord.Create("/jobs/attempts/"+h.Name, nil))
				env.Fail(h, "no")
				if h = env.Take(q); h.Failures != 1 {
					t.Errorf("failures %d", h.Failures)
				}
			})
		})
	}
}

func TestReasonsAreCutToWholeCharacters(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "a")
		for reason, want := range map[string]string{
			strings.Repeat("ü", 10000):       strings.Repeat("ü", 512),
			"x" + strings.Repeat("ü", 10000): "x" + strings.Repeat("ü", 511),
			"\xff":                           "\uFFFD",
			"":                               "",
			"one\ntwo\x00<b>\u2028":          "one\ntwo\x00<b>\u2028",
			strings.Repeat("\x00", 2000) + "not kept": strings.Repeat("\x00", 1024),
		} {
			env.Fail(env.Take(q), reason)
			if e := env.Entries(q)[0]; e.Reason != want {
				t.Errorf("%.20q became %.20q, of %d bytes", reason, e.Reason, len(e.Reason))
			}
		}
	})
}

func TestLostRepliesOfFailuresCountOnce(t *testing.T) {
	for name, lose := range testqueue.Losses {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				env.Put(q, "a")
				for i := range 4 {
					h := env.Take(q)
					if h.Failures != i {
						t.Fatalf("failures %d, want %d", h.Failures, i)
					}
					lose(c)
					env.Fail(h, "no")
				}
				h := env.Take(q)
				lose(c)
				env.Release(h)
				if got := env.History(c, h.Name); got != `{"failures":4,"forgiven":1,"reason":"no"}` {
					t.Fatal(got)
				}
			})
		})
	}
}

// A failure that nobody can know to be counted is not said to be.
func TestUnansweredFailureOfABrokenEntryIsUnknown(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		other, _ := env.Queue()
		env.Put(q, "a")
		h := env.Take(q)
		c.DropRequest()
		got := make(chan error, 1)
		go func() { got <- h.Fail(env.Ctx, "no") }()
		time.Sleep(time.Millisecond) // the first attempt is lost; the second comes after 5
		if err := other.BreakLock(env.Ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		env.WantErr(<-got, zkq.ErrUnknown)
		env.WantErr(env.Take(other).Fail(env.Ctx, "no"), nil)
	})
}

// The claim was answered, what became of the entry before was not.
func TestTakeCancelledBeforeItKnowsTheAttemptsHoldsNothing(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		cl := env.Client()
		c := testqueue.NewCounter(cl)
		q := env.QueueOn(c, zkq.MaxDeliveries(3))
		other, oc := env.Queue()
		name := env.Put(other, "a")
		env.Fail(env.Take(other), "no")
		held := false
		c.Before(func(_ coord.Session, act, path string) {
			if act == "get" && strings.HasPrefix(path, "/jobs/attempts/") && !held {
				held = true
				cl.HoldReplies()
			}
		})
		ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
		defer cancel()
		_, err := q.Take(ctx)
		env.WantErr(err, context.DeadlineExceeded)
		if !held {
			t.Fatal("attempts were not read")
		}
		env.WantEmpty(other)
		cl.Heal()
		if h := env.Take(other); h.Failures != 1 || h.Deliveries != 3 {
			t.Fatalf("failures %d, deliveries %d", h.Failures, h.Deliveries)
		}
		if got := env.History(oc, name); got != `{"failures":1,"forgiven":1,"reason":"no"}` {
			t.Fatal(got)
		}
	})
}

// What was forgiven after the claim does not count for it: the lock was broken in
// between.
func TestAnEntryAtItsCeilingIsNotHandedOutByWhatALaterHolderWasForgiven(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c, zkq.MaxDeliveries(1))
		other, _ := env.Queue()
		name := env.Put(other, "a")
		env.Fail(env.Take(other), "no")
		broken := false
		c.Before(func(_ coord.Session, act, path string) {
			if act == "get" && path == "/jobs/attempts/"+name && !broken {
				broken = true
				if err := other.BreakLock(env.Ctx, name); err != nil {
					t.Error(err)
				}
				env.Release(env.Take(other))
			}
		})
		ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
		defer cancel()
		h, err := q.Take(ctx)
		if env.WantErr(err, context.DeadlineExceeded); h != nil || !broken {
			t.Fatalf("took %+v; the lock was broken: %v", h, broken)
		}
		if e := env.DeadEntry(other); e.Deliveries != 3 || e.Failures != 1 {
			t.Errorf("it died as %+v", e)
		}
	})
}

// Who writes there and holds nothing keeps nobody from the entry.
func TestAttemptsWrittenByAnotherDuringATakeDoNotStopIt(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c, zkq.MaxDeliveries(3))
		other, oc := env.Queue()
		name := env.Put(other, "a")
		env.Fail(env.Take(other), "no")
		written := false
		c.Before(func(_ coord.Session, act, path string) {
			if act == "get" && path == "/jobs/attempts/"+name && !written {
				written = true
				s := env.Session(oc)
				env.Commit(s, coord.Set(path, []byte(`{"failures":2}`), env.Get(s, path).Fence))
			}
		})
		h := env.Take(q)
		if !written || h.Failures != 2 {
			t.Fatalf("written: %v, failures %d", written, h.Failures)
		}
		env.Consume(h)
	})
}

func TestAnEntryThatCameBackIsTakenAlone(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		names := func(held []*zkq.Held, err error) string {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, h := range held {
				all = append(all, string(h.Value))
			}
			return strings.Join(all, "")
		}
		for _, v := range "abcdef" {
			env.Put(q, string(v))
		}
		all, err := q.TakeN(env.Ctx, 6)
		if err != nil {
			t.Fatal(err)
		}
		env.Fail(all[0], "no") // a
		env.Release(all[3])    // d
		env.Consume(all[1])    // b
		env.Put(q, "g")        // never taken
		env.Put(q, "h")        // never taken
		for _, want := range []string{"a", "d", "gh"} {
			if got := names(q.TryTakeN(env.Ctx, 5)); got != want {
				t.Errorf("TryTakeN took %q, want %q", got, want)
			}
		}
		env.Put(q, "i", zkq.WithPriority(1))
		env.Fail(all[2], "no") // c, behind i
		env.Put(q, "j")
		for _, want := range []string{"i", "c", "j"} {
			if got := names(q.TakeN(env.Ctx, 5)); got != want {
				t.Errorf("TakeN took %q, want %q", got, want)
			}
		}
	})
}

func TestTakeNTakesAllInOneCommit(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		for range 10 {
			env.Put(q, "x")
		}
		c.Reset()
		held, err := q.TakeN(env.Ctx, 8)
		if err != nil || len(held) != 8 {
			t.Fatalf("TakeN = %v, %v", held, err)
		}
		if commits, reads := c.Count("commit"), c.Count("read"); commits != 1 || reads != 1 {
			t.Errorf("%d commits and %d reads", commits, reads)
		}
		for _, h := range held {
			env.Consume(h)
		}
	})
}
