package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testhook"
	"github.com/zkq/zkq/internal/testqueue"
)

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

// A waiting taker is handed what does not expire, and nothing else.
func TestWaitersPassOverWhatExpires(t *testing.T) {
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

func TestWaitEmptyDoesNotWaitForWhatHasExpired(t *testing.T) {
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

// The dead do not expire, and one that is requeued does not either.
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

// An answer that is lost hands out nothing that has expired, and leaves nothing.
func TestLostRepliesOfClaimsOfWhatExpiredLeaveNothing(t *testing.T) {
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

// behindSpent are the ways to take what stands behind spent entries.
var behindSpent = map[string]func(env *testqueue.Env, q *zkq.LockingQueue) (*zkq.Held, error){
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

// However many spent entries stand at the head, a take clears them away without a pause and
// in a few commits, and hands out what stands behind them.
func TestATakeClearsAwaySpentEntriesWithoutAPause(t *testing.T) {
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
		for how, take := range behindSpent {
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

// A few handles clear away the same spent entries at a time, some of their answers are lost,
// and each gets one of those that live.
func TestSeveralClearAwayTheSameSpentEntries(t *testing.T) {
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

// Behind delayed puts that expired before anybody looked stands one that is due: the first
// call returns it.
func TestDelayedPutsThatExpiredAreNotTakenForNothing(t *testing.T) {
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

// A take without waiting that makes a delayed put ready, and loses the answer to that, does
// not say that its own outcome is unknown.
func TestTheMoversLostAnswerIsNotTheTakes(t *testing.T) {
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

// The same, where no answer comes in time.
func TestATakeWhoseMoverHearsNothingHoldsNothing(t *testing.T) {
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

// A key that an expired entry stands for is free: a put removes that and goes on.
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

// One that is put aside holds its key until it expires, and one that is held as long as it is.
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

// Peek knows an expired entry as little as Entries and Stat do.
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

// A put that waits for room gets it when something expires, whatever state that is in.
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
				// What expires while it is held makes room when it is given back.
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

// WaitEmpty hears of the first time to live of a queue, set while it waits.
func TestWaitEmptyHearsOfTheFirstTimeToLive(t *testing.T) {
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

// An entry that expired while it was held is not waited for once it is given back.
func TestWaitEmptySeesWhatExpiredWhileItWasHeld(t *testing.T) {
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
