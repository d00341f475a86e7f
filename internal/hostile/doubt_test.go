package hostile

// Outcomes that are unknown, and what must not be reported about them.

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testqueue"
)

// finishInDoubt makes an attempt at a finish that gets no answer. lose decides whether the service applies it.
func finishInDoubt(env *testqueue.Env, lose func(), act func(context.Context) error) {
	env.Helper()
	lose()
	ctx, cancel := context.WithTimeout(env.Ctx, time.Millisecond)
	defer cancel()
	env.WantErr(act(ctx), zkq.ErrUnknown)
}

// finishes are the ways to finish an entry.
var finishes = map[string]func(context.Context, *zkq.Held) error{
	"consume": func(ctx context.Context, h *zkq.Held) error { return h.Consume(ctx) },
	"release": func(ctx context.Context, h *zkq.Held) error { return h.Release(ctx) },
	"fail":    func(ctx context.Context, h *zkq.Held) error { return h.Fail(ctx, "no") },
	"bury":    func(ctx context.Context, h *zkq.Held) error { return h.Bury(ctx, "no") },
}

// Two finishes of one handle are in doubt, and the first was applied. The second must not be reported as applied.
func TestAFinishIsNotTakenForAnotherOfItsHandle(t *testing.T) {
	for first, doFirst := range finishes {
		for second, doSecond := range finishes {
			if first == second {
				continue
			}
			t.Run(first+" and "+second, func(t *testing.T) {
				testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
					q, c := env.Queue()
					env.Put(q, "a")
					h := env.Take(q)
					finishInDoubt(env, func() { c.DropReply() }, func(ctx context.Context) error { return doFirst(ctx, h) })
					c.DropRequest()
					if err := doSecond(env.Ctx, h); err == nil {
						t.Errorf("%s was said to be applied", second)
					}
					if err := doSecond(env.Ctx, h); err == nil {
						t.Errorf("%s was said to be applied when asked again", second)
					}
				})
			})
		}
	}
}

// A consume in doubt was not applied if the entry stands there without a lock.
func TestAFinishInDoubtIsNotAlreadyDoneWhenTheLockWasBroken(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		name := env.Put(q, "a")
		for first, second := range map[string]string{"consume": "release", "bury": "consume"} {
			h := env.Take(q)
			finishInDoubt(env, func() { c.DropRequest() }, func(ctx context.Context) error { return finishes[first](ctx, h) })
			if err := q.BreakLock(env.Ctx, name); err != nil {
				t.Fatal(err)
			}
			if err := finishes[second](env.Ctx, h); errors.Is(err, zkq.ErrAlreadyDone) || err == nil {
				t.Errorf("%s after %s: %v", second, first, err)
			}
		}
	})
}

// operatorTakings are the ways in which an operator takes an entry from its holder.
var operatorTakings = map[string]func(env *testqueue.Env, q *zkq.LockingQueue, name string){
	"release --force": func(env *testqueue.Env, q *zkq.LockingQueue, name string) {
		env.WantErr(q.BreakLock(env.Ctx, name), nil)
	},
	"rm --force": func(env *testqueue.Env, q *zkq.LockingQueue, name string) {
		env.WantErr(q.Remove(env.Ctx, name, true), nil)
	},
	"purge": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) {
		if n, err := q.Purge(env.Ctx, zkq.StateHeld); n != 1 || err != nil {
			env.Fatal(n, err)
		}
	},
}

// If an operator took the entry while the answer to a finish was missing, neither that finish nor another of the handle
// reports success. A repeated call reports that the lock is lost.
func TestAFinishInDoubtIsNotReportedAsAppliedWhenAnOperatorTookTheEntry(t *testing.T) {
	for taking, takeAway := range operatorTakings {
		for first, doFirst := range finishes {
			for second, doSecond := range finishes {
				t.Run(taking+", "+first+", "+second, func(t *testing.T) {
					testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
						q, c := env.Queue()
						other, _ := env.Queue()
						env.Put(q, "a")
						h := env.Take(q)
						finishInDoubt(env, func() { c.DropRequest() }, func(ctx context.Context) error { return doFirst(ctx, h) })
						takeAway(env, other, h.Name)
						err := doSecond(env.Ctx, h)
						if !errors.Is(err, zkq.ErrUnknown) && !errors.Is(err, zkq.ErrLockLost) {
							t.Errorf("%s: %v", second, err)
						}
						env.WantErr(doSecond(env.Ctx, h), zkq.ErrLockLost)
						if taking == "release --force" {
							env.Consume(env.Take(q))
						}
						env.WantEmpty(q)
					})
				})
			}
		}
	}
}

// The trace of an earlier broken lock must not be taken for one of this lock.
func TestAnEarlierBrokenLockIsNotTakenForThisOne(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		name := env.Put(q, "a")
		for _, act := range []string{"fail", "consume"} {
			env.Take(q)
			if err := q.BreakLock(env.Ctx, name); err != nil {
				t.Fatal(err)
			}
			h := env.Take(q)
			c.DropReply()
			if err := finishes[act](env.Ctx, h); err != nil {
				t.Errorf("%s: %v", act, err)
			}
		}
	})
}

// lowerLimits is a coordinator whose sessions report lower limits than they have.
type lowerLimits struct {
	coord.Coordinator
	bytes int

	mu   sync.Mutex
	last *lowerLimitsSession
}

type lowerLimitsSession struct {
	coord.Session
	bytes int
}

func (c *lowerLimits) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil || c.last.Session != s {
		c.last = &lowerLimitsSession{s, c.bytes}
	}
	return c.last, nil
}

func (s *lowerLimitsSession) Limits() coord.Limits {
	l := s.Session.Limits()
	l.ValueBytes = s.bytes
	return l
}

// The claim of an entry that is too large to rewrite moves no fence. Only the lock shows whether it was applied.
func TestLostRepliesOfClaimsOfTooLargeEntriesAreResolved(t *testing.T) {
	for name, lose := range testqueue.Losses {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				putter, _ := env.Queue()
				env.Put(putter, strings.Repeat("x", 2000))
				cl := env.Client()
				q := env.QueueOn(&lowerLimits{Coordinator: cl, bytes: 1000})
				lose(cl)
				h := env.Take(q)
				lose(cl)
				env.Release(h)
				lose(cl)
				env.Consume(env.Take(q))
			})
		})
	}
}

// The second take uses a listing that is older than the first take's claim.
func TestAHoldOfATooLargeEntryIsNotTakenForANewClaim(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		putter, _ := env.Queue()
		env.Put(putter, strings.Repeat("x", 2000))
		cl := env.Client()
		c := testqueue.NewCounter(cl)
		q := env.QueueOn(&lowerLimits{Coordinator: c, bytes: 1000})
		again := make(chan error, 1)
		c.Before(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.Contains(path, "/jobs/entries/") {
				c.Before(nil)
				cl.Pass()
				cl.DropRequest()
				go func() {
					ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
					defer cancel()
					_, err := q.Take(ctx)
					again <- err
				}()
				time.Sleep(time.Millisecond) // it waits for its turn
			}
		})
		h, err := q.TryTake(env.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		env.WantErr(<-again, context.DeadlineExceeded)
		env.Consume(h)
	})
}

// A removal that is cancelled between its claim and its end leaves the entry to others. It does not stay locked while
// the session lives.
func TestCancelledRemovalHoldsNothing(t *testing.T) {
	for way, remove := range map[string]func(ctx context.Context, q *zkq.LockingQueue, name string) error{
		"rm": func(ctx context.Context, q *zkq.LockingQueue, name string) error { return q.Remove(ctx, name, false) },
		"purge": func(ctx context.Context, q *zkq.LockingQueue, _ string) error {
			_, err := q.Purge(ctx, zkq.StateReady)
			return err
		},
	} {
		t.Run(way, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				c := testqueue.NewCounter(env.Client())
				q := env.QueueOn(c)
				other, _ := env.Queue()
				name := env.Put(other, "a")
				ctx, cancel := context.WithCancel(env.Ctx)
				c.Before(func(_ coord.Session, act, path string) {
					if act == "commit" && strings.HasPrefix(path, "delete /jobs/entries/") {
						cancel()
					}
				})
				if err := remove(ctx, q, name); err == nil {
					t.Fatal("it was not cancelled: this shows nothing")
				}
				env.Consume(env.Take(other))
			})
		})
	}
}

// The answer was lost, and then the session. The call must not report its own effect as something that it found.
func TestTheOutcomeOfARemovalIsKnownInTheNextSession(t *testing.T) {
	for way, act := range map[string]func(env *testqueue.Env, q *zkq.LockingQueue, name string) error{
		"rm --force": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error { return q.Remove(env.Ctx, name, true) },
		"release":    func(env *testqueue.Env, q *zkq.LockingQueue, name string) error { return q.BreakLock(env.Ctx, name) },
		"purge": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error {
			n, err := q.Purge(env.Ctx, zkq.StateHeld)
			if err == nil && n != 1 {
				env.Errorf("purged %d", n)
			}
			return err
		},
		"rm of a dead one": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error {
			env.Bury(env.Take(q), "")
			env.Put(q, "another")
			return q.Remove(env.Ctx, env.DeadEntry(q).Name, false)
		},
	} {
		t.Run(way, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				cl := env.Client()
				c := testqueue.NewCounter(cl)
				q := env.QueueOn(c)
				other, _ := env.Queue()
				name := env.Put(q, "a")
				if way != "rm of a dead one" {
					env.Take(other)
				}
				lost := false
				c.Before(func(_ coord.Session, a, path string) {
					removal := strings.HasPrefix(path, "delete /jobs/entries/"+name) || strings.HasPrefix(path, "check /jobs/entries/"+name) || strings.HasPrefix(path, "delete /jobs/dead/")
					switch {
					case a == "commit" && removal && way != "rm of a dead one" || a == "commit" && strings.HasPrefix(path, "delete /jobs/dead/"):
						if !lost {
							lost = true
							cl.DropReply()
						}
					case a == "get" && lost:
						c.Before(nil)
						cl.Expire()
					}
				})
				if err := act(env, q, name); err != nil && !errors.Is(err, zkq.ErrUnknown) || !lost {
					t.Fatalf("%v, lost: %v", err, lost)
				}
			})
		})
	}
}

// The lock was broken although the answer was lost. The lock of the next holder is not broken.
func TestLostReplyOfABreakBreaksNoOtherLock(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		other, _ := env.Queue()
		name := env.Put(q, "a")
		env.Take(other)
		c.DropReply()
		got := make(chan error, 1)
		go func() { got <- q.BreakLock(env.Ctx, name) }()
		time.Sleep(time.Millisecond)
		next := env.Take(other)
		env.WantErr(<-got, nil)
		env.Consume(next)
	})
}

func TestATakeMayAskForMoreEntriesThanThereAre(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		for range 6 {
			env.Put(q, "a")
		}
		env.Take(q)
		held, err := q.TakeN(env.Ctx, math.MaxInt)
		if err != nil || len(held) != 5 {
			t.Fatalf("TakeN = %d, %v", len(held), err)
		}
		for _, h := range held {
			env.Consume(h)
		}
		env.Put(q, "a")
		if held, err = q.TryTakeN(env.Ctx, math.MaxInt); err != nil || len(held) != 1 {
			t.Fatalf("TryTakeN = %d, %v", len(held), err)
		}
	})
}

// A take neither reads nor claims more than fits into the commit.
func TestATakeOfVeryManyReadsNoMoreThanItTakes(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		const entries = 1000
		for range entries {
			env.Put(q, "a")
		}
		held, err := q.TakeN(env.Ctx, math.MaxInt)
		if err != nil || len(held) < 10 || c.Values > 2*len(held) {
			t.Errorf("took %d, %v, and read %d", len(held), err, c.Values)
		}
	})
}

// The handler's context ends even if another goroutine's finish was the first to learn of the lost lock.
func TestAFinishThatMeetsALostLockEndsTheWork(t *testing.T) {
	for what, act := range finishes {
		t.Run(what, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, _ := env.Queue()
				other, _ := env.Queue()
				env.Put(q, "a")
				h := env.Take(q)
				working, done := h.Context(env.Ctx)
				defer done()
				if err := other.BreakLock(env.Ctx, h.Name); err != nil {
					t.Fatal(err)
				}
				env.Take(other)
				env.WantErr(act(env.Ctx, h), zkq.ErrLockLost)
				time.Sleep(2 * time.Second)
				env.WantErr(context.Cause(working), zkq.ErrLockLost)
			})
		})
	}
}

// Foreign nodes among the dead entries are not counted.
func TestForeignNodesAmongTheDeadAreNotCounted(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		var warned []string
		q, c := env.Queue(zkq.Warn(func(m string) { warned = append(warned, m) }))
		env.Put(q, "a")
		env.Bury(env.Take(q), "no")
		env.Commit(env.Session(c), coord.Create("/jobs/dead/garbage", nil))
		for range 2 {
			if st, err := q.Stat(env.Ctx); err != nil || st.Dead != 1 {
				t.Errorf("Stat = %+v, %v", st, err)
			}
		}
		if n, err := q.Purge(env.Ctx, zkq.StateDead); n != 1 || err != nil {
			t.Errorf("Purge = %d, %v", n, err)
		}
		if st, err := q.Stat(env.Ctx); err != nil || st.Dead != 0 || len(warned) != 1 {
			t.Errorf("Stat = %+v, %v, warned: %q", st, err, warned)
		}
	})
}

// The move of an entry to the dead is in doubt because its lock was broken. The take goes on to the next entry.
func TestATakeGoesOnAfterAMoveOfUnknownOutcome(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		cl := env.Client()
		c := testqueue.NewCounter(cl)
		q := env.QueueOn(c, zkq.MaxDeliveries(1))
		other, _ := env.Queue()
		name := env.Put(other, "poison")
		env.Fail(env.Take(other), "no")
		env.Put(other, "next")
		c.Before(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.HasPrefix(path, "delete /jobs/entries/") {
				c.Before(nil)
				cl.DropRequest()
				if err := other.BreakLock(env.Ctx, name); err != nil {
					t.Error(err)
				}
				env.Consume(env.Take(other))
			}
		})
		if h := env.Take(q); string(h.Value) != "next" {
			t.Errorf("took %q", h.Value)
		}
	})
}

// While one take's claim is in flight, another take skips the entry. When the claim turns out to be lost, the entry is
// already free, so no change of the queue will wake the other take.
func TestALostClaimWakesTheTakesThatSkippedItsEntry(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		other, _ := env.Queue()
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		env.Put(other, "a")
		ctx, stop := context.WithCancel(env.Ctx)
		defer stop()
		took := make(chan *zkq.Held)
		take := func() {
			if h, err := q.Take(ctx); err == nil {
				took <- h
			}
		}
		c.Before(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.Contains(path, "/jobs/entries/") {
				c.Before(nil)
				go take()
				synctest.Wait() // it waits for entries
				if h := env.Take(other); h != nil {
					env.Release(h)
				}
				synctest.Wait()
			}
		})
		go take()
		select {
		case h := <-took:
			env.Consume(h)
		case <-time.After(time.Minute):
			t.Error("the entry is free, and neither of two takes has it")
		}
	})
}

// TestAQueueWhoseNumbersAreUsedUpSaysSo puts in every possible way. No put may hang, spin or use a name twice, and
// entries that are there can be worked on.
func TestAQueueWhoseNumbersAreUsedUpSaysSo(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		warned := make(map[string]bool)
		other := env.QueueOn(c, zkq.Warn(func(s string) { warned[s] = true }))
		for _, v := range []string{"dead", "held"} {
			env.Put(q, v)
		}
		if err := env.Take(q).Bury(env.Ctx, "for the test"); err != nil {
			t.Fatal(err)
		}
		held := env.Take(q)
		if _, err := q.Put(env.Ctx, []byte("late"), zkq.WithDelay(time.Second)); err != nil {
			t.Fatal(err)
		}
		env.Store.SetCounter(q.Name()+"/entries", coord.LastNumber)
		last, err := other.Put(env.Ctx, []byte("last"))
		if err != nil || last != "entry-100-2147483646" {
			t.Fatalf("%s, %v", last, err)
		}
		if _, err := other.Stat(env.Ctx); err != nil || len(warned) != 1 {
			t.Errorf("stat warned of %v, %v", warned, err)
		}
		ctx, cancel := context.WithTimeout(env.Ctx, 30*time.Second)
		defer cancel()
		begun := time.Now()
		puts := map[string]func() error{
			"put": func() error { _, err := q.Put(ctx, nil); return err },
			"put all": func() error {
				_, err := q.PutAll(ctx, make([][]byte, 3))
				return err
			},
			"unique":  func() error { _, err := q.Put(ctx, nil, zkq.WithUnique("k")); return err },
			"forward": func() error { return held.Forward(ctx, zkq.Target{Queue: q, Value: []byte("next")}) },
			"requeue": func() error {
				for e, err := range q.Entries(ctx, zkq.StateDead) {
					if err == nil {
						_, err = q.Requeue(ctx, e.Name)
					}
					return err
				}
				return errors.New("nothing is dead")
			},
		}
		for name, put := range puts {
			if err := put(); !errors.Is(err, zkq.ErrExhausted) {
				t.Errorf("%s: %v, want ErrExhausted", name, err)
			}
		}
		if d := time.Since(begun); d > time.Second {
			t.Errorf("the refusals took %v", d)
		}
		env.Consume(held)
		h := env.Take(q)
		if string(h.Value) != "last" {
			t.Errorf("%q", h.Value)
		}
		env.Consume(h)
		if _, err := q.Put(ctx, nil); !errors.Is(err, zkq.ErrExhausted) {
			t.Errorf("put into the empty queue: %v, want ErrExhausted", err)
		}
		time.Sleep(10 * time.Second)
		if st, err := q.Stat(ctx); err != nil || st.Delayed != 1 {
			t.Errorf("a due put without a free number is not kept: %+v, %v", st, err)
		}
	})
}
