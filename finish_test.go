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

// The history is removed with the entry, whichever way the entry is removed.
func TestTheHistoryIsRemovedWithItsEntry(t *testing.T) {
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
				// The sweep that follows a purge must not be what removes it.
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

// kazoo's consume does not remove histories.
func TestAHistoryWithoutAnEntryIsSwept(t *testing.T) {
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

func TestACorruptHistoryIsIgnored(t *testing.T) {
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
				// The same while the entry is held.
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

// A failure whose count is unknown is not reported as counted.
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

// The claim was answered, the read of the history was not.
func TestATakeCancelledBeforeItReadTheHistoryHoldsNothing(t *testing.T) {
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

// A release after the claim does not lower the count at that claim. The lock was broken in between.
func TestALaterHoldersReleaseDoesNotLowerTheCountOfDeliveries(t *testing.T) {
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

// A client that writes a history without holding the entry does not keep others from the entry.
func TestAHistoryWrittenByAnotherDuringATakeDoesNotStopIt(t *testing.T) {
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

// queueWithoutAnswers returns a queue and its client. Once hold was called, the client gets no answers from its next
// update on.
func queueWithoutAnswers(env *testqueue.Env) (q *zkq.LockingQueue, cl *coordtest.Coordinator, hold func()) {
	cl = env.Client()
	c := testqueue.NewCounter(cl)
	return env.QueueOn(c), cl, func() {
		c.Before(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.HasPrefix(path, "set /jobs/entries/") {
				c.Before(nil)
				cl.HoldReplies()
			}
		})
	}
}

// An update is a checkpoint: the next holder sees the new value, and the update counts as neither a failure nor a
// delivery.
func TestAnUpdateIsWhatTheNextHolderSees(t *testing.T) {
	for way, finish := range map[string]func(*testqueue.Env, *zkq.Held){
		"release": func(env *testqueue.Env, h *zkq.Held) { env.Release(h) },
		"fail":    func(env *testqueue.Env, h *zkq.Held) { env.Fail(h, "no") },
		"aside":   func(env *testqueue.Env, h *zkq.Held) { env.Release(h, zkq.After(time.Second)) },
	} {
		t.Run(way, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, _ := env.Queue(zkq.MaxDeliveries(20))
				name := env.Put(q, "0", zkq.WithTTL(time.Hour), zkq.WithUnique("k"))
				for i := range 10 {
					h := env.Take(q)
					if string(h.Value) != fmt.Sprint(2*i) || h.Deliveries != i+1 || h.Name != name {
						t.Fatalf("%q, delivery %d", h.Value, h.Deliveries)
					}
					env.Update(h, fmt.Sprint(2*i+1))
					env.Update(h, fmt.Sprint(2*i+2))
					if e, err := q.Peek(env.Ctx, name); err != nil || string(e.Value) != fmt.Sprint(2*i+2) || e.Deliveries != i+1 || e.Expires.IsZero() {
						t.Fatalf("%+v, %v", e, err)
					}
					finish(env, h)
					env.WantErr(h.Update(env.Ctx, nil), zkq.ErrAlreadyDone)
				}
				env.WantRefused(q, "k", name)
				h := env.Take(q)
				env.Update(h, "")
				env.Bury(h, "")
				if e := env.DeadEntry(q); len(e.Value) > 0 && string(e.Value[len(e.Value)-1]) != "}" || e.Deliveries != 11 {
					t.Errorf("%+v", e)
				}
				env.WantNothingLeft(q)
			})
		})
	}
}

func TestLostRepliesOfUpdatesAreResolved(t *testing.T) {
	for name, lose := range testqueue.Losses {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				env.Put(q, "a")
				for i := range 5 {
					h := env.Take(q)
					lose(c)
					env.Update(h, fmt.Sprint("v", i))
					lose(c)
					env.Update(h, fmt.Sprint("w", i))
					if h.Deliveries != i+1 {
						t.Errorf("delivery %d", h.Deliveries)
					}
					lose(c)
					env.Release(h)
				}
				h := env.Take(q)
				if string(h.Value) != "w4" {
					t.Errorf("%q", h.Value)
				}
				env.Consume(h)
				env.WantNothingLeft(q)
			})
		})
	}
}

// A finish that follows an unanswered update is made, whether or not the update was applied.
func TestAFinishAfterAnUnansweredUpdateIsMade(t *testing.T) {
	for act, finish := range map[string]func(*testqueue.Env, *zkq.Held) error{
		"consume": func(env *testqueue.Env, h *zkq.Held) error { return h.Consume(env.Ctx) },
		"bury":    func(env *testqueue.Env, h *zkq.Held) error { return h.Bury(env.Ctx, "") },
		"update":  func(env *testqueue.Env, h *zkq.Held) error { env.Update(h, "again"); return h.Consume(env.Ctx) },
		"release": func(env *testqueue.Env, h *zkq.Held) error {
			env.Release(h)
			return env.Take(env.QueueOn(env.Client())).Consume(env.Ctx)
		},
	} {
		t.Run(act, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c, hold := queueWithoutAnswers(env)
				env.Put(q, "a")
				h := env.Take(q)
				hold()
				ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
				defer cancel()
				env.WantErr(h.Update(ctx, []byte("b")), zkq.ErrUnknown)
				c.Heal()
				env.WantErr(finish(env, h), nil)
				env.WantNothingLeft(q)
			})
		})
	}
}

// lateUpdates is a coordinator whose next update of an entry has an unknown outcome. It is applied when the caller has read
// how often the entry was written.
type lateUpdates struct {
	coord.Coordinator
	session *lateUpdatesSession
}

type lateUpdatesSession struct {
	coord.Session

	mu   sync.Mutex // the handle's mover reads, too
	late []coord.Op
}

func (c *lateUpdates) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	if err == nil && c.session == nil {
		c.session = &lateUpdatesSession{Session: s}
	}
	return c.session, err
}

func (s *lateUpdatesSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	s.mu.Lock()
	isUpdate := s.late == nil && ops[0].Kind == coord.KindSet && strings.HasPrefix(ops[0].Path, "/jobs/entries/")
	if isUpdate {
		s.late = ops
	}
	s.mu.Unlock()
	if isUpdate {
		return nil, coord.ErrUnknown
	}
	return s.Session.Commit(ctx, ops...)
}

func (s *lateUpdatesSession) Get(ctx context.Context, path string) (coord.Node, error) {
	n, err := s.Session.Get(ctx, path)
	if !strings.HasPrefix(path, "/jobs/attempts/") {
		return n, err
	}
	s.mu.Lock()
	ops := s.late
	if ops != nil {
		s.late = []coord.Op{} // once
	}
	s.mu.Unlock()
	if len(ops) > 0 {
		if _, err := s.Session.Commit(ctx, ops...); err != nil {
			return n, err
		}
	}
	return n, err
}

func TestAnUpdateThatIsAppliedLateIsNotTakenForALoss(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q := env.QueueOn(&lateUpdates{Coordinator: env.Client()})
		env.Put(q, "a")
		h := env.Take(q)
		env.Update(h, "b")
		if e, err := q.Peek(env.Ctx, h.Name); err != nil || string(e.Value) != "b" || e.Deliveries != 1 {
			t.Errorf("%+v, %v", e, err)
		}
		env.Consume(h)
		env.WantNothingLeft(q)
	})
}

// Only the holder can update an entry.
func TestAnUpdateIsFenced(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c, hold := queueWithoutAnswers(env)
		other, _ := env.Queue()
		env.Put(q, "a")
		h := env.Take(q)
		if err := other.BreakLock(env.Ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		now := env.Take(other)
		env.WantErr(h.Update(env.Ctx, []byte("b")), zkq.ErrLockLost)
		env.WantErr(h.Consume(env.Ctx), zkq.ErrLockLost)
		env.Update(now, "c")

		// The update is in doubt and the lock was broken. The write of another holder is not taken for this one.
		env.Release(now)
		h = env.Take(q)
		hold()
		ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
		defer cancel()
		env.WantErr(h.Update(ctx, []byte("mine")), zkq.ErrUnknown)
		if err := other.BreakLock(env.Ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		now = env.Take(other)
		env.Update(now, "theirs")
		c.Heal()
		env.WantErr(h.Consume(env.Ctx), zkq.ErrLockLost)
		if e, err := q.Peek(env.Ctx, h.Name); err != nil || string(e.Value) != "theirs" {
			t.Errorf("%+v, %v", e, err)
		}
		env.Consume(now)
	})
}

func TestInvalidUpdatesChangeNothing(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "a")
		h := env.Take(q)
		env.WantErr(h.Update(env.Ctx, make([]byte, zkq.MaxValue+1)), zkq.ErrTooLarge)
		largest := bytes.Repeat([]byte("x"), zkq.MaxValue)
		env.WantErr(h.Update(env.Ctx, largest), nil)
		env.Release(h)
		h = env.Take(q)
		if !bytes.Equal(h.Value, largest) {
			t.Errorf("%d bytes", len(h.Value))
		}
		s := env.Session(c)
		n := env.Get(s, "/jobs/entries/"+h.Name)
		env.Commit(s, coord.Delete(n.Path, n.Fence))
		env.WantErr(h.Update(env.Ctx, nil), zkq.ErrLockLost)
		env.WantErr((&zkq.Held{}).Update(env.Ctx, nil), zkq.ErrNotHeld)
	})
}

// queueNamed returns a handle to the queue of this name.
func queueNamed(env *testqueue.Env, c coord.Coordinator, name string) *zkq.LockingQueue {
	q := zkq.NewLockingQueue(c, name)
	env.Cleanup(func() { q.Close() })
	return q
}

func TestForwardMovesTheWorkOnInOneCommit(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		next, other := queueNamed(env, c, "next"), queueNamed(env, c, "other")
		env.Put(q, "a", zkq.WithUnique("k"))
		env.Fail(env.Take(q), "no")
		h := env.Take(q)
		commits := 0
		env.Store.Observe(func(a coordtest.Applied) {
			if len(a.Ops) > 0 {
				commits++
			}
		})
		err := h.Forward(env.Ctx,
			zkq.Target{Queue: next, Value: []byte("b"), Options: []zkq.PutOption{zkq.WithPriority(3), zkq.WithUnique("k")}},
			zkq.Target{Queue: other, Value: []byte("c"), Options: []zkq.PutOption{zkq.WithDelay(time.Minute)}},
			zkq.Target{Queue: q, Value: []byte("d")})
		if err != nil || commits != 1 {
			t.Fatalf("%v, %d commits", err, commits)
		}
		env.WantErr(h.Consume(env.Ctx), zkq.ErrAlreadyDone)
		for want, from := range map[string]*zkq.LockingQueue{"b": next, "d": q} {
			h := env.Take(from)
			if string(h.Value) != want || h.Deliveries != 1 {
				t.Errorf("took %q, delivery %d", h.Value, h.Deliveries)
			}
			env.Consume(h)
		}
		if h := env.TakeWithin(other, 2*time.Minute); string(h.Value) != "c" {
			t.Errorf("took %q", h.Value)
		}
		env.WantNothingLeft(q)
	})
}

func TestAForwardThatIsRefusedLeavesTheEntryHeld(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		full, next := queueNamed(env, c, "full"), queueNamed(env, c, "next")
		far := queueNamed(env, env.Client(), "far")
		env.Create(full, zkq.QueueConfig{MaxEntries: 3})
		env.Put(full, "1")
		env.Put(full, "2")
		standing := env.Put(next, "3", zkq.WithUnique("k"))
		env.Put(q, "a")
		h := env.Take(q)
		var exists *zkq.ExistsError
		for want, targets := range map[error][]zkq.Target{
			zkq.ErrFull:     {{Queue: next}, {Queue: full}, {Queue: full}},
			zkq.ErrExists:   {{Queue: full}, {Queue: next, Options: []zkq.PutOption{zkq.WithUnique("k")}}},
			zkq.ErrInvalid:  {{Queue: next}, {Queue: far}},
			zkq.ErrTooLarge: {{Queue: next}, {Queue: full, Value: make([]byte, zkq.MaxValue+1)}},
			coord.ErrInvalid: {
				{Queue: next, Options: []zkq.PutOption{zkq.WithUnique("x")}},
				{Queue: next, Options: []zkq.PutOption{zkq.WithUnique("x")}},
			},
			zkq.ErrInvalidPriority: {{Queue: next, Options: []zkq.PutOption{zkq.WithPriority(1000)}}},
		} {
			err := h.Forward(env.Ctx, targets...)
			if env.WantErr(err, want); errors.Is(want, zkq.ErrExists) && (!errors.As(err, &exists) || exists.Name != standing) {
				t.Error(err)
			}
			if _, err := zkq.PutTo(env.Ctx, targets...); !errors.Is(err, want) {
				t.Errorf("put: %v, want %v", err, want)
			}
			if holds, err := h.HoldsLock(env.Ctx); err != nil || !holds {
				t.Fatal(holds, err)
			}
		}
		for _, target := range []zkq.Target{{}, {Queue: next, Options: []zkq.PutOption{zkq.WithWait(time.Hour)}}, {Queue: next, Options: []zkq.PutOption{zkq.WithNote([]byte("n"))}}} {
			env.WantErr(h.Forward(env.Ctx, target), zkq.ErrInvalid)
		}
		for q, want := range map[*zkq.LockingQueue]int{next: 1, full: 2} {
			if st, err := q.Stat(env.Ctx); err != nil || st.Total() != want {
				t.Errorf("%+v, %v", st, err)
			}
		}
		env.WantErr(h.Forward(env.Ctx, zkq.Target{Queue: full}), nil)
		env.WantErr((&zkq.Held{}).Forward(env.Ctx), zkq.ErrNotHeld)
	})
}

// An entry that is forwarded to its own full queue takes the place of itself.
func TestAFullQueueForwardsToItself(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Create(q, zkq.QueueConfig{MaxEntries: 1})
		env.Put(q, "a")
		env.WantErr(env.Take(q).Forward(env.Ctx, zkq.Target{Queue: q, Value: []byte("b")}), nil)
		h := env.Take(q)
		env.WantErr(h.Forward(env.Ctx, zkq.Target{Queue: q}, zkq.Target{Queue: q}), zkq.ErrTooLarge)
		env.Consume(h)
	})
}

func TestLostRepliesOfForwardsPutOnce(t *testing.T) {
	for name, lose := range testqueue.Losses {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				next := queueNamed(env, c, "next")
				env.Create(next, zkq.QueueConfig{MaxEntries: 1})
				for range 3 {
					env.Put(q, "a", zkq.WithUnique("k"))
					h := env.Take(q)
					lose(c)
					if err := h.Forward(env.Ctx, zkq.Target{Queue: next, Value: []byte("b"), Options: []zkq.PutOption{zkq.WithUnique("k")}}); err != nil {
						t.Fatal(err)
					}
					env.WantNothingLeft(q)
					env.Consume(env.Take(next))
					env.WantEmpty(next)
				}
			})
		})
	}
}

// A worker that lost its lock forwards nothing.
func TestAForwardIsFenced(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		other, _ := env.Queue()
		next := queueNamed(env, c, "next")
		env.Put(q, "a")
		h := env.Take(q)
		if err := other.BreakLock(env.Ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		now := env.Take(other)
		env.WantErr(h.Forward(env.Ctx, zkq.Target{Queue: next}), zkq.ErrLockLost)
		env.WantEmpty(next)
		env.Consume(now)
	})
}

// A pipeline of three stages, whose workers die at any point: each input becomes one output.
func TestAPipelineWhoseWorkersDieLosesAndDoublesNothing(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const n = 60
		names := []string{"one", "two", "three", "out"}
		putter := queueNamed(env, env.Client(), names[0])
		for i := range n {
			env.Put(putter, fmt.Sprint(i))
		}
		ctx, cancel := context.WithCancel(env.Ctx)
		var wg sync.WaitGroup
		for stage := range 3 {
			for w := range 2 {
				wg.Go(func() {
					for life := 0; ctx.Err() == nil; life++ {
						c := env.Client()
						from, to := zkq.NewLockingQueue(c, names[stage]), zkq.NewLockingQueue(c, names[stage+1])
						lived, die := context.WithTimeout(ctx, time.Duration(3+2*stage+w)*time.Second)
						for lived.Err() == nil {
							h, err := from.Take(lived)
							if err != nil {
								continue
							}
							time.Sleep(time.Duration(100+70*w) * time.Millisecond)
							if life%3 == 0 {
								c.DropReply()
							}
							h.Forward(lived, zkq.Target{Queue: to, Value: append(h.Value, fmt.Sprint(">", stage)...)})
						}
						die()
						c.Crash()
						from.Close()
						to.Close()
					}
				})
			}
		}
		out := queueNamed(env, env.Client(), names[3])
		var got []string
		for len(got) < n {
			h := env.TakeWithin(out, 10*time.Minute)
			got = append(got, string(h.Value))
			env.Consume(h)
		}
		cancel()
		wg.Wait()
		env.WantEmpty(out)
		slices.Sort(got)
		if got = slices.Compact(got); len(got) != n || !strings.HasSuffix(got[0], ">0>1>2") {
			t.Errorf("%d outputs of %d: %q", len(got), n, got)
		}
	})
}

func TestPutToIsAllOrNone(t *testing.T) {
	for name, lose := range testqueue.Losses {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				two, three := queueNamed(env, c, "two"), queueNamed(env, c, "three")
				env.Put(q, "a lane")
				lose(c)
				names, err := zkq.PutTo(env.Ctx,
					zkq.Target{Queue: two, Value: []byte("x")},
					zkq.Target{Queue: three, Value: []byte("y"), Options: []zkq.PutOption{zkq.WithDelay(time.Hour)}},
					zkq.Target{Queue: two, Value: []byte("z"), Options: []zkq.PutOption{zkq.WithPriority(1)}})
				if err != nil || len(names) != 3 {
					t.Fatal(names, err)
				}
				for i, q := range []*zkq.LockingQueue{two, three, two} {
					if e, err := q.Peek(env.Ctx, names[i]); err != nil || string(e.Value) != []string{"x", "y", "z"}[i] {
						t.Errorf("%s: %+v, %v", names[i], e, err)
					}
				}
			})
		})
	}
}

func TestAForwardAfterALostSessionDoesNotWait(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		next := queueNamed(env, c, "next")
		env.Put(q, "a")
		h := env.Take(q)
		work, stop := h.Context(env.Ctx)
		defer stop()
		c.Cut()
		<-work.Done()
		ctx, cancel := context.WithTimeout(env.Ctx, time.Minute)
		defer cancel()
		start := time.Now()
		env.WantErr(h.Forward(ctx, zkq.Target{Queue: next, Value: []byte("b")}), zkq.ErrLockLost)
		if d := time.Since(start); d > 100*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		c.Heal()
		env.WantEmpty(next)
	})
}

// A recurring job: its key is taken all the time, and one entry has it.
func TestAForwardHandsItsUniqueKeyOn(t *testing.T) {
	for what, opts := range map[string][]zkq.PutOption{"ready": {zkq.WithUnique("k")}, "delayed": {zkq.WithUnique("k"), zkq.WithDelay(time.Minute)}} {
		for _, lost := range []string{"", "request", "reply"} {
			t.Run(what+" "+lost, func(t *testing.T) {
				testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
					q, c := env.Queue()
					other, _ := env.Queue()
					env.Put(q, "0", opts...)
					for i := range 5 {
						h := env.TakeWithin(q, 2*time.Minute)
						if string(h.Value) != fmt.Sprint(i) {
							t.Fatalf("took %q", h.Value)
						}
						env.WantRefused(other, "k", h.Name)
						switch lost {
						case "request":
							c.DropRequest()
						case "reply":
							c.DropReply()
						}
						env.WantErr(h.Forward(env.Ctx, zkq.Target{Queue: q, Value: []byte(fmt.Sprint(i + 1)), Options: opts}), nil)
						if es := env.Entries(q); len(es) != 1 {
							t.Fatalf("%d entries stand", len(es))
						} else {
							env.WantRefused(other, "k", es[0].Name)
						}
					}
					env.Consume(env.TakeWithin(q, 2*time.Minute))
					env.Put(other, "anew", zkq.WithUnique("k"))
					env.Consume(env.Take(other))
					env.WantNothingLeft(q)
				})
			})
		}
	}
}
