package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testqueue"
)

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

// An entry that is forwarded to its own queue, which is full with it, is no more than that.
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

// Three stages, whose workers die in the middle of everything: each input is one output.
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

// A job that recurs: its key stands all the time, and only the standing entry has it.
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
