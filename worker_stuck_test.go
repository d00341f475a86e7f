package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testqueue"
)

// hanging is a handler that does not return for entries called "hangs" until the test ends.
type hanging struct {
	free chan struct{}
	good atomic.Int32
	hung atomic.Int32
}

func newHanging(env *testqueue.Env) *hanging {
	h := &hanging{free: make(chan struct{})}
	env.Cleanup(func() { close(h.free) })
	return h
}

func (s *hanging) Handle(_ context.Context, h *zkq.Held) error {
	if string(h.Value) == "hangs" {
		s.hung.Add(1)
		<-s.free
	} else {
		s.good.Add(1)
	}
	return nil
}

func TestEntryThatGetsItsHandlerStuckIsDeadAndTheOthersGoOn(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "hangs", zkq.WithPriority(1))
		s := newHanging(env)
		k := startWorker(env, &zkq.Worker{Queue: q, Concurrency: 4, Timeout: 200 * time.Millisecond, Grace: -1, Handler: s})
		time.Sleep(30 * time.Second)
		for i := range 10 {
			env.Put(q, fmt.Sprint(i))
		}
		time.Sleep(5 * time.Minute)
		if s.good.Load() != 10 || s.hung.Load() != 3 {
			t.Errorf("%d entries were handled, and the handler got stuck %d times", s.good.Load(), s.hung.Load())
		}
		st, err := q.Stat(env.Ctx)
		if err != nil || st.Dead != 1 || st.Total() != 1 {
			t.Errorf("%+v, %v", st, err)
		}
		for _, line := range []string{"1 of 4 places are stuck", "2 of 4 places are stuck", "3 of 4 places are stuck"} {
			if !k.logged.has("error", line) {
				t.Errorf("no Error line says %q", line)
			}
		}
		if _, err := k.wait(); !errors.Is(err, zkq.ErrStuck) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestRunEndsWhenAllItsPlacesHaveBeenStuckForAMinute(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "hangs")
		env.Put(q, "hangs")
		k := startWorker(env, &zkq.Worker{Queue: q, Concurrency: 2, Timeout: time.Second, Handler: newHanging(env)})
		start := time.Now()
		err := <-k.done
		if took := time.Since(start); !errors.Is(err, zkq.ErrStuck) || took < time.Minute || took > 70*time.Second {
			t.Errorf("Run: %v after %v", err, took)
		}
		time.Sleep(5 * time.Second)
		if st, err := q.Stat(env.Ctx); err != nil || st.Ready != 2 {
			t.Errorf("%+v, %v: want both given back", st, err)
		}
	})
}

func TestStuckDeliveriesCountOverTheWorkersThatHadThem(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		s := newHanging(env)
		other, _ := env.Queue()
		env.Put(other, "hangs")
		for i := range 3 {
			q, _ := env.Queue()
			k := startWorker(env, &zkq.Worker{Queue: q, Timeout: time.Second, Handler: s})
			if err := <-k.done; !errors.Is(err, zkq.ErrStuck) {
				t.Fatalf("Run: %v", err)
			}
			st, err := other.Stat(env.Ctx)
			if err != nil || (st.Dead == 1) != (i == 2) {
				t.Fatalf("after %d runs: %+v, %v", i+1, st, err)
			}
		}
	})
}

func TestHandlerThatIsLateButReturnsEndsNoRun(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "late")
		k := startWorker(env, &zkq.Worker{Queue: q, Timeout: time.Second, Handler: zkq.HandlerFunc(func(_ context.Context, h *zkq.Held) error {
			if h.Deliveries < 3 {
				time.Sleep(45 * time.Second)
			}
			return nil
		})})
		time.Sleep(10 * time.Minute)
		k.quit()
		k.wantEndings(zkq.EndingFailed, zkq.EndingFailed, zkq.EndingDone)
		if !k.logged.has("info", "a stuck handler returned: 0 of 1 places are stuck") {
			t.Errorf("logged %q", k.logged.lines)
		}
	})
}

func TestNegativeBackoffIsTheLongest(t *testing.T) {
	for _, rest := range []time.Duration{-1, math.MinInt64, math.MaxInt64} {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			q, _ := env.Queue()
			name := env.Put(q, "fails")
			k := startWorker(env, &zkq.Worker{Queue: q, Backoff: func(int) time.Duration { return rest }, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
				return errors.New("no")
			})})
			time.Sleep(time.Hour)
			k.quit()
			k.wantEndings(zkq.EndingFailed)
			e, err := q.Peek(env.Ctx, name)
			if days := time.Until(e.Due).Hours() / 24; err != nil || days < 29 || days > 30 {
				t.Errorf("rests for %.1f days, %v", days, err)
			}
		})
	}
}

// loud is a logger that panics.
type loud struct{}

func (loud) Debug(string, ...any) { panic("debug") }
func (loud) Info(string, ...any)  { panic("info") }
func (loud) Warn(string, ...any)  { panic("warn") }
func (loud) Error(string, ...any) { panic("error") }

func TestPanicsOfCallbacksEndNothing(t *testing.T) {
	handler := zkq.HandlerFunc(func(_ context.Context, h *zkq.Held) error {
		if h.Failures < 3 {
			return errors.New("no")
		}
		return nil
	})
	for what, c := range map[string]struct {
		worker *zkq.Worker
		says   string
	}{
		"Backoff": {&zkq.Worker{Backoff: func(n int) time.Duration { return []time.Duration{1}[n-1] }}, "Backoff panicked"},
		"Report":  {&zkq.Worker{Report: func(zkq.Handled) { panic("no") }}, "Report panicked"},
		"Logger":  {&zkq.Worker{Logger: loud{}}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				c.worker.Queue, _ = env.Queue()
				c.worker.Handler = handler
				env.Put(c.worker.Queue, "x")
				k := startWorker(env, c.worker)
				time.Sleep(5 * time.Minute)
				k.quit()
				k.wantEndings(zkq.EndingFailed, zkq.EndingFailed, zkq.EndingFailed, zkq.EndingDone)
				if c.says != "" && !k.logged.has("error", c.says) {
					t.Errorf("logged %q", k.logged.lines)
				}
			})
		})
	}
}

func TestPanicOfTheWarnFunctionEndsNothing(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue(zkq.Warn(func(string) { panic("no") }))
		env.Commit(env.Session(c), coord.Create("/jobs/entries/foreign", nil), coord.Create("/jobs/delayed/foreign", nil))
		env.Put(q, "x")
		env.Consume(env.Take(q))
		time.Sleep(5 * time.Second)
	})
}

// awkward is an error whose methods panic.
type awkward struct{}

func (awkward) Error() string { return "awkward" }
func (awkward) As(any) bool   { panic("As") }
func (awkward) Is(error) bool { panic("Is") }

func TestHandlersErrorThatPanicsIsAFailure(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "x")
		k := startWorker(env, &zkq.Worker{Queue: q, MaxFailures: 2, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error { return awkward{} })})
		time.Sleep(time.Minute)
		k.quit()
		k.wantEndings(zkq.EndingFailed, zkq.EndingDead)
	})
}

// refusing is a coordinator that gives no session while it is told what to say instead.
type refusing struct {
	coord.Coordinator
	err atomic.Pointer[error]
}

func (c *refusing) Session(ctx context.Context) (coord.Session, error) {
	if err := c.err.Load(); err != nil {
		return nil, *err
	}
	return c.Coordinator.Session(ctx)
}

func (c *refusing) say(err error) { c.err.Store(&err) }
func (c *refusing) stop()         { c.err.Store(nil) }

func TestWorkerThatWasLetInOutlivesARefusalThatPasses(t *testing.T) {
	for _, refusal := range []error{coord.ErrTLS, coord.ErrAuth, coord.ErrForbidden, coord.ErrFormat, coord.ErrInvalid, coord.ErrBusy, coord.ErrUnreachable} {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			cl := env.Client()
			c := &refusing{Coordinator: cl}
			q := env.QueueOn(c)
			k := startWorker(env, &zkq.Worker{Queue: q, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error { return nil })})
			env.Put(q, "first")
			time.Sleep(time.Hour) // waiting, without a refusal
			for range 3 {
				c.say(refusal)
				cl.Expire()
				time.Sleep(4 * time.Second) // a session lasts six
				c.stop()
				time.Sleep(time.Minute)
			}
			other, _ := env.Queue()
			env.Put(other, "second")
			time.Sleep(time.Minute)
			k.wantEndings(zkq.EndingDone, zkq.EndingDone)

			c.say(refusal)
			cl.Expire()
			passes := errors.Is(refusal, coord.ErrBusy) || errors.Is(refusal, coord.ErrUnreachable)
			if time.Sleep(time.Hour); passes {
				c.stop()
				env.Put(other, "third")
				time.Sleep(time.Minute)
				k.wantEndings(zkq.EndingDone, zkq.EndingDone, zkq.EndingDone)
				k.quit()
				return
			}
			select {
			case err := <-k.done:
				if !errors.Is(err, refusal) {
					t.Errorf("Run: %v, refused with %v", err, refusal)
				}
			default:
				t.Errorf("Run goes on though it was refused with %v for an hour", refusal)
			}
		})
	}
}

func TestWorkerThatWasNeverLetInEndsAtOnce(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := &refusing{Coordinator: env.Client()}
		c.say(coord.ErrAuth)
		k := startWorker(env, &zkq.Worker{Queue: env.QueueOn(c), Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error { return nil })})
		start := time.Now()
		if err := <-k.done; !errors.Is(err, coord.ErrAuth) || time.Since(start) > time.Second {
			t.Errorf("Run: %v after %v", err, time.Since(start))
		}
	})
}
