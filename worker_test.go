package zkq_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testqueue"
)

// Both types are a Logger without an adapter.
var (
	_ zkq.Logger = (*slog.Logger)(nil)
	_ zkq.Logger = hclog.Logger(nil)
)

// runningWorker is a worker that runs, and what it reported.
type runningWorker struct {
	*testqueue.Env
	worker *zkq.Worker
	stop   context.CancelFunc
	done   chan error
	logged *journal

	mu      sync.Mutex
	handled []zkq.Handled
}

// journal is a logger that keeps its lines.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(level, message string, args []any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintln(append([]any{level, message}, args...)...))
}

func (j *journal) Debug(m string, args ...any) { j.add("debug", m, args) }
func (j *journal) Info(m string, args ...any)  { j.add("info", m, args) }
func (j *journal) Warn(m string, args ...any)  { j.add("warn", m, args) }
func (j *journal) Error(m string, args ...any) { j.add("error", m, args) }

func (j *journal) has(words ...string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(j.lines, func(line string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
	})
}

// startWorker starts a worker. It sets what is nil in w.
func startWorker(env *testqueue.Env, w *zkq.Worker) *runningWorker {
	env.Helper()
	k := &runningWorker{Env: env, worker: w, done: make(chan error, 1), logged: &journal{}}
	if w.Queue == nil {
		w.Queue, _ = env.Queue()
	}
	if w.Logger == nil {
		w.Logger = k.logged
	}
	if w.Backoff == nil {
		w.Backoff = func(n int) time.Duration { return time.Duration(n) * time.Second }
	}
	report := w.Report
	w.Report = func(h zkq.Handled) {
		k.mu.Lock()
		k.handled = append(k.handled, h)
		k.mu.Unlock()
		if report != nil {
			report(h)
		}
	}
	var ctx context.Context
	ctx, k.stop = context.WithCancel(env.Ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		k.done <- w.Run(ctx)
	}()
	env.Cleanup(func() {
		k.stop()
		<-ended
	})
	return k
}

// stopAndWait ends the worker and returns what Run did, and how long that took.
func (k *runningWorker) stopAndWait() (time.Duration, error) {
	k.Helper()
	start := time.Now()
	k.stop()
	err := <-k.done
	return time.Since(start), err
}

func (k *runningWorker) stopCleanly() {
	k.Helper()
	if _, err := k.stopAndWait(); err != nil {
		k.Fatalf("Run: %v", err)
	}
}

func (k *runningWorker) endings() []zkq.Ending {
	k.mu.Lock()
	defer k.mu.Unlock()
	var es []zkq.Ending
	for _, h := range k.handled {
		es = append(es, h.Ending)
	}
	return es
}

func (k *runningWorker) wantEndings(want ...zkq.Ending) {
	k.Helper()
	if got := k.endings(); !slices.Equal(got, want) {
		k.Fatalf("endings %v, want %v", got, want)
	}
}

func TestWorkerRemovesWhatItsHandlerHasDone(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		for i := range 5 {
			env.Put(q, fmt.Sprint(i))
		}
		var got []string
		k := startWorker(env, &zkq.Worker{Queue: q, Handler: zkq.HandlerFunc(func(ctx context.Context, h *zkq.Held) error {
			if zkq.HeldFrom(ctx) != h {
				t.Error("HeldFrom is not the entry in hand")
			}
			got = append(got, string(h.Value))
			return nil
		})})
		time.Sleep(10 * time.Second)
		k.stopCleanly()
		if fmt.Sprint(got) != "[0 1 2 3 4]" {
			t.Errorf("worked on %v", got)
		}
		env.WantEmpty(q)
		k.wantEndings(slices.Repeat([]zkq.Ending{zkq.EndingDone}, 5)...)
	})
}

func TestWorkerRunsUpToItsConcurrency(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		for i := range 12 {
			env.Put(q, fmt.Sprint(i))
		}
		var mu sync.Mutex
		running, most := 0, 0
		k := startWorker(env, &zkq.Worker{Queue: q, Concurrency: 4, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			return nil
		})})
		time.Sleep(5 * time.Second)
		k.stopCleanly()
		if most != 4 {
			t.Errorf("%d at once, want 4", most)
		}
		if n, err := q.Len(env.Ctx); n != 0 || err != nil {
			t.Errorf("%d are left, %v", n, err)
		}
	})
}

func TestFailingEntryRestsAndIsDeadAfterItsFailures(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "bad")
		env.Put(q, "good")
		var at []time.Duration
		start := time.Now()
		k := startWorker(env, &zkq.Worker{Queue: q, MaxFailures: 3, Handler: zkq.HandlerFunc(func(_ context.Context, h *zkq.Held) error {
			if string(h.Value) == "good" {
				return nil
			}
			at = append(at, time.Since(start).Round(100*time.Millisecond))
			return fmt.Errorf("failure %d", h.Failures+1)
		})})
		time.Sleep(time.Minute)
		k.stopCleanly()
		if fmt.Sprint(at) != "[0s 1s 3s]" { // one second after the first, two after the second
			t.Errorf("tried at %v", at)
		}
		k.wantEndings(zkq.EndingFailed, zkq.EndingDone, zkq.EndingFailed, zkq.EndingDead)
		es := env.Entries(q)
		if len(es) != 1 || es[0].State != zkq.StateDead || es[0].Failures != 3 || es[0].Reason != "failure 3" {
			t.Errorf("left are %+v", es)
		}
		if !k.logged.has("warn", "failed", "failure 1") || !k.logged.has("error", "dead", "failure 3") {
			t.Errorf("logged %q", k.logged.lines)
		}
	})
}

func TestSkippedEntryIsDeadAtOnce(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "x")
		cause := errors.New("no such customer")
		k := startWorker(env, &zkq.Worker{Queue: q, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
			return fmt.Errorf("order: %w", zkq.Skip(cause))
		})})
		time.Sleep(time.Second)
		k.stopCleanly()
		k.wantEndings(zkq.EndingDead)
		if es := env.Entries(q); len(es) != 1 || es[0].State != zkq.StateDead || es[0].Reason != "order: no such customer" {
			t.Errorf("left are %+v", es)
		}
		if !errors.Is(k.handled[0].Err, cause) {
			t.Errorf("reported %v", k.handled[0].Err)
		}
	})
}

func TestSnoozedEntryComesBackInItsTimeAndNothingIsCounted(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue(zkq.MaxDeliveries(2))
		env.Put(q, "x")
		var at []time.Duration
		start := time.Now()
		k := startWorker(env, &zkq.Worker{Queue: q, MaxFailures: 1, Handler: zkq.HandlerFunc(func(_ context.Context, h *zkq.Held) error {
			at = append(at, time.Since(start).Round(100*time.Millisecond))
			if h.Failures != 0 {
				t.Errorf("%d failures", h.Failures)
			}
			if len(at) < 5 {
				return zkq.Snooze(10 * time.Second)
			}
			return nil
		})})
		time.Sleep(time.Minute)
		k.stopCleanly()
		if fmt.Sprint(at) != "[0s 10s 20s 30s 40s]" {
			t.Errorf("tried at %v", at)
		}
		env.WantEmpty(q)
	})
}

func TestARestingEntryIsForNoOtherWorkerEither(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		for _, value := range []string{"fail", "snooze", "for ever"} {
			env.Put(q, value)
		}
		k := startWorker(env, &zkq.Worker{Queue: q, Backoff: func(int) time.Duration { return time.Hour }, Handler: zkq.HandlerFunc(func(_ context.Context, h *zkq.Held) error {
			switch string(h.Value) {
			case "snooze":
				return zkq.Snooze(time.Minute)
			case "for ever":
				return zkq.Snooze(1<<63 - 1)
			}
			return errors.New("no")
		})})
		time.Sleep(time.Second)
		k.stopCleanly() // and others find them put aside still
		k.wantEndings(zkq.EndingFailed, zkq.EndingSnoozed, zkq.EndingSnoozed)
		other, _ := env.Queue()
		env.WantEmpty(other)
		time.Sleep(time.Minute)
		if h := env.Take(other); string(h.Value) != "snooze" {
			t.Errorf("took %q", h.Value)
		}
		time.Sleep(time.Hour)
		if h := env.Take(other); string(h.Value) != "fail" || h.Failures != 1 {
			t.Errorf("took %q", h.Value)
		}
		if st, err := other.Stat(env.Ctx); err != nil || st.Delayed != 1 {
			t.Errorf("left are %+v, %v", st, err)
		}
	})
}

func TestPanicIsAFailureWithItsPlace(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "x")
		env.Put(q, "goexit")
		k := startWorker(env, &zkq.Worker{Queue: q, MaxFailures: 1, Handler: zkq.HandlerFunc(func(_ context.Context, h *zkq.Held) error {
			if string(h.Value) == "goexit" {
				runtime.Goexit()
			}
			panicDeep()
			return nil
		})})
		time.Sleep(time.Second)
		k.stopCleanly()
		k.wantEndings(zkq.EndingDead, zkq.EndingDead)
		p := new(zkq.PanicError)
		if !errors.As(k.handled[0].Err, &p) || p.Value != "deep" || !strings.HasPrefix(p.Stack, "github.com/zkq/zkq_test.panicDeep worker_test.go:") {
			t.Errorf("reported %v", k.handled[0].Err)
		}
		es := env.Entries(q)
		if len(es) != 2 || !strings.HasPrefix(es[0].Reason, "panic: deep\ngithub.com/zkq/zkq_test.panicDeep worker_test.go:") || len(es[0].Reason) > 1024 ||
			es[1].Reason != "handler ended its goroutine" {
			t.Errorf("left are %+v", es)
		}
		if !k.logged.has("error", "panicDeep") {
			t.Errorf("logged %q", k.logged.lines)
		}
	})
}

func panicDeep() { panic("deep") }

type fieldError struct{ field string }

func (e *fieldError) Error() string { return e.field }

func TestErrorThatPanicsIsAFailure(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "x")
		k := startWorker(env, &zkq.Worker{Queue: q, MaxFailures: 1, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
			var err *fieldError
			return err
		})})
		time.Sleep(time.Second)
		k.stopCleanly()
		k.wantEndings(zkq.EndingDead)
		if p := new(zkq.PanicError); !errors.As(k.handled[0].Err, &p) {
			t.Errorf("reported %v", k.handled[0].Err)
		}
	})
}

func TestTimeoutIsAFailureAndEndsTheContextWithItsCause(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "x")
		var cause error
		k := startWorker(env, &zkq.Worker{Queue: q, MaxFailures: 1, Timeout: 5 * time.Second, Handler: zkq.HandlerFunc(func(ctx context.Context, _ *zkq.Held) error {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return ctx.Err()
		})})
		time.Sleep(time.Minute)
		k.stopCleanly()
		k.wantEndings(zkq.EndingDead)
		if !errors.Is(cause, zkq.ErrTimeout) || !errors.Is(k.handled[0].Err, zkq.ErrTimeout) || k.handled[0].Took != 5*time.Second {
			t.Errorf("cause %v, reported %+v", cause, k.handled[0])
		}
		if es := env.Entries(q); !strings.Contains(es[0].Reason, "timed out after 5s") {
			t.Errorf("reason %q", es[0].Reason)
		}
	})
}

func TestHandlerThatIgnoresItsTimeoutLosesTheEntryAndKeepsItsSlot(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "x")
		var starts atomic.Int32
		k := startWorker(env, &zkq.Worker{Queue: q, Timeout: 5 * time.Second, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
			starts.Add(1)
			time.Sleep(time.Minute)
			return nil
		})})
		time.Sleep(20 * time.Second)
		other, _ := env.Queue()
		h := env.Take(other) // the worker's own place is busy still
		if h.Failures != 1 || starts.Load() != 1 {
			t.Errorf("%d failures, %d starts", h.Failures, starts.Load())
		}
		env.Consume(h)
		time.Sleep(time.Minute)
		k.stopCleanly()
		k.wantEndings(zkq.EndingFailed)
		if !errors.Is(k.handled[0].Err, zkq.ErrStuck) {
			t.Errorf("reported %v", k.handled[0].Err)
		}
	})
}

func TestStoppingWorkerLetsItsHandlersFinish(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "first")
		env.Put(q, "second")
		k := startWorker(env, &zkq.Worker{Queue: q, Grace: 20 * time.Second, Handler: zkq.HandlerFunc(func(ctx context.Context, _ *zkq.Held) error {
			time.Sleep(10 * time.Second)
			return ctx.Err()
		})})
		time.Sleep(2 * time.Second)
		took, err := k.stopAndWait()
		if err != nil || took.Round(time.Second) != 8*time.Second {
			t.Errorf("Run: %v after %v", err, took)
		}
		k.wantEndings(zkq.EndingDone)
		if n, _ := q.Len(env.Ctx); n != 1 {
			t.Errorf("%d left, want the second", n)
		}
	})
}

func TestEntryIsReleasedUncountedWhenTheGraceIsOver(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue(zkq.MaxDeliveries(1))
		env.Put(q, "x")
		var cause error
		k := startWorker(env, &zkq.Worker{Queue: q, MaxFailures: 1, Grace: 5 * time.Second, Handler: zkq.HandlerFunc(func(ctx context.Context, _ *zkq.Held) error {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return errors.New("interrupted")
		})})
		time.Sleep(2 * time.Second)
		took, err := k.stopAndWait()
		if err != nil || took != 5*time.Second || !errors.Is(cause, zkq.ErrShutdown) {
			t.Errorf("Run: %v after %v, cause %v", err, took, cause)
		}
		k.wantEndings(zkq.EndingReleased)
		other, _ := env.Queue(zkq.MaxDeliveries(1))
		if h := env.Take(other); h.Failures != 0 || h.Deliveries != 2 {
			t.Errorf("%d failures, delivery %d", h.Failures, h.Deliveries)
		}
	})
}

func TestHandlerThatStopsWithItsProgramHasNotFailed(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "x")
		program, stop := context.WithCancel(env.Ctx)
		k := startWorker(env, &zkq.Worker{Queue: q, MaxFailures: 1, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
			<-program.Done() // and not its own
			return fmt.Errorf("asked: %w", program.Err())
		})})
		time.Sleep(time.Second)
		k.stop()
		stop()
		k.stopCleanly()
		k.wantEndings(zkq.EndingReleased)
	})
}

func TestStuckHandlerIsLeftBehindAndItsEntryGivenBack(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "x")
		k := startWorker(env, &zkq.Worker{Queue: q, Grace: 5 * time.Second, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
			time.Sleep(time.Minute)
			return nil
		})})
		time.Sleep(time.Second)
		took, err := k.stopAndWait()
		if !errors.Is(err, zkq.ErrStuck) || took > 7*time.Second {
			t.Errorf("Run: %v after %v", err, took)
		}
		k.wantEndings(zkq.EndingReleased)
		if h := env.Take(q); h.Failures != 0 {
			t.Errorf("%d failures", h.Failures)
		}
		time.Sleep(time.Minute)
	})
}

func TestRunReturnsThoughTheServiceDoesNotAnswer(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "x")
		k := startWorker(env, &zkq.Worker{Queue: q, Grace: time.Second, Handler: zkq.HandlerFunc(func(ctx context.Context, _ *zkq.Held) error {
			c.HoldReplies()
			return nil
		})})
		time.Sleep(time.Second)
		took, err := k.stopAndWait()
		if err != nil || took > 3*time.Second {
			t.Errorf("Run: %v after %v", err, took)
		}
		k.wantEndings(zkq.EndingUnknown)
		c.Heal()
	})
}

// The process and its session live on after Run returned.
func TestAnUnansweredFinishIsRepeatedInTheBackground(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		for _, result := range []error{nil, errors.New("no")} {
			q, c := env.Queue()
			env.Put(q, "x")
			k := startWorker(env, &zkq.Worker{Queue: q, Grace: time.Second, Backoff: func(int) time.Duration { return 0 }, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
				env.Store.Stop()
				return result
			})})
			time.Sleep(500 * time.Millisecond)
			if _, err := k.stopAndWait(); err != nil {
				t.Errorf("Run: %v", err)
			}
			k.wantEndings(zkq.EndingUnknown)
			env.Store.Start()
			time.Sleep(3 * time.Second)
			s := env.Session(c)
			if left := env.Children(s, "/jobs/taken"); len(left) > 0 {
				t.Errorf("%v: locked are %v", result, left)
			}
			if left := env.Children(s, "/jobs/entries"); (len(left) == 1) != (result != nil) {
				t.Errorf("%v: left are %v", result, left)
			}
		}
	})
}

func TestLostLockEndsTheContextOfTheHandler(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "x")
		var causes []error
		k := startWorker(env, &zkq.Worker{Queue: q, MaxFailures: 1, Handler: zkq.HandlerFunc(func(ctx context.Context, h *zkq.Held) error {
			if h.Deliveries > 1 {
				return nil
			}
			c.Expire()
			<-ctx.Done()
			causes = append(causes, context.Cause(ctx))
			return ctx.Err()
		})})
		time.Sleep(time.Minute)
		k.stopCleanly()
		k.wantEndings(zkq.EndingLost, zkq.EndingDone)
		if len(causes) != 1 || !errors.Is(causes[0], zkq.ErrLockLost) {
			t.Errorf("causes %v", causes)
		}
	})
}

func TestEntryThatItsHandlerFinishedIsDone(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "x")
		k := startWorker(env, &zkq.Worker{Queue: q, Handler: zkq.HandlerFunc(func(ctx context.Context, h *zkq.Held) error {
			if err := h.Consume(ctx); err != nil {
				return err
			}
			return errors.New("after that")
		})})
		time.Sleep(time.Second)
		k.stopCleanly()
		k.wantEndings(zkq.EndingDone)
		if n, _ := q.Len(env.Ctx); n != 0 {
			t.Errorf("%d left", n)
		}
	})
}

func TestCrashOfAWorkerIsNoFailure(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "x")
		k := startWorker(env, &zkq.Worker{Queue: q, Grace: -1, Handler: zkq.HandlerFunc(func(ctx context.Context, _ *zkq.Held) error {
			c.Crash()
			<-ctx.Done()
			return ctx.Err()
		})})
		synctest.Wait()
		other := startWorker(env, &zkq.Worker{MaxFailures: 1, Handler: zkq.HandlerFunc(func(_ context.Context, h *zkq.Held) error {
			if h.Failures != 0 || h.Deliveries != 2 {
				t.Errorf("%d failures, delivery %d", h.Failures, h.Deliveries)
			}
			return nil
		})})
		time.Sleep(time.Minute)
		other.stopCleanly()
		other.wantEndings(zkq.EndingDone)
		if err := <-k.done; !errors.Is(err, coord.ErrClosed) {
			t.Errorf("Run after the crash: %v", err)
		}
	})
}

func TestWorkerOutlivesAnOutage(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		k := startWorker(env, &zkq.Worker{Queue: q, Concurrency: 3, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error { return nil })})
		time.Sleep(time.Second)
		env.Store.Stop()
		time.Sleep(12 * time.Minute)
		env.Store.Start()
		other, _ := env.Queue()
		for i := range 5 {
			env.Put(other, fmt.Sprint(i))
		}
		time.Sleep(10 * time.Second)
		if n, err := other.Len(env.Ctx); n != 0 || err != nil {
			t.Errorf("%d left, %v", n, err)
		}
		k.stopCleanly()
	})
}

func TestWorkerOfAClosedQueueEnds(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		k := startWorker(env, &zkq.Worker{Queue: q, Concurrency: 2, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error { return nil })})
		time.Sleep(time.Second)
		q.Close()
		if err := <-k.done; !errors.Is(err, zkq.ErrClosed) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestAnInvalidWorkerIsRefused(t *testing.T) {
	c := coordtest.NewStore().Open(coordtest.Options{})
	defer c.Close()
	q, h := zkq.NewLockingQueue(c, "jobs"), zkq.HandlerFunc(func(context.Context, *zkq.Held) error { return nil })
	for _, w := range []*zkq.Worker{
		{},
		{Queue: q},
		{Handler: h},
		{Queue: q, Handler: h, Concurrency: -1},
		{Queue: q, Handler: h, MaxFailures: -1},
		{Queue: q, Handler: h, Timeout: -1},
		{Queue: zkq.NewLockingQueue(c, "a//b"), Handler: h},
	} {
		if err := w.Run(t.Context()); !errors.Is(err, zkq.ErrInvalid) && !errors.Is(err, zkq.ErrInvalidName) {
			t.Errorf("%+v: %v", w, err)
		}
	}
	var none context.Context
	if err := (&zkq.Worker{Queue: q, Handler: h}).Run(none); !errors.Is(err, zkq.ErrInvalid) {
		t.Errorf("nil context: %v", err)
	}
}

func TestMiddlewareIsCalledFromTheOutside(t *testing.T) {
	var order []string
	named := func(name string) zkq.Middleware {
		return func(h zkq.Handler) zkq.Handler {
			return zkq.HandlerFunc(func(ctx context.Context, held *zkq.Held) error {
				order = append(order, name)
				return h.Handle(ctx, held)
			})
		}
	}
	h := zkq.Wrap(zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
		order = append(order, "handler")
		return nil
	}), named("a"), named("b"))
	if err := h.Handle(t.Context(), nil); err != nil || fmt.Sprint(order) != "[a b handler]" {
		t.Errorf("%v, %v", order, err)
	}
}

func TestBackoffDoublesUpToItsLongest(t *testing.T) {
	f := zkq.Backoff(time.Second, 10*time.Second)
	for n, most := range map[int]time.Duration{-1: 1, 0: 1, 1: 1, 2: 2, 3: 4, 4: 8, 5: 10, 1000000: 10} {
		most *= time.Second
		seen := make(map[time.Duration]bool)
		for range 100 {
			d := f(n)
			if d > most || d < most/2 {
				t.Errorf("failure %d: %v, want %v to %v", n, d, most/2, most)
			}
			seen[d] = true
		}
		if len(seen) < 2 {
			t.Errorf("failure %d: always the same", n)
		}
	}
	if d := zkq.Backoff(time.Second, 0)(3); d != 0 {
		t.Errorf("up to nothing: %v", d)
	}
	if d := zkq.Backoff(0, time.Second)(1000000); d != 0 {
		t.Errorf("from nothing: %v", d)
	}
}

func TestWorkersShareAQueueAndEachEntryIsDoneOnce(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		const n = 60
		for i := range n {
			env.Put(q, fmt.Sprint(i))
		}
		var mu sync.Mutex
		done := make(map[string]int)
		var crews []*runningWorker
		for range 3 {
			crews = append(crews, startWorker(env, &zkq.Worker{Concurrency: 3, Handler: zkq.HandlerFunc(func(_ context.Context, h *zkq.Held) error {
				mu.Lock()
				defer mu.Unlock()
				done[string(h.Value)]++
				return nil
			})}))
		}
		time.Sleep(time.Minute)
		for _, k := range crews {
			k.stopCleanly()
		}
		for i := range n {
			if done[fmt.Sprint(i)] != 1 {
				t.Errorf("%d was worked on %d times", i, done[fmt.Sprint(i)])
			}
		}
	})
}

// hangingHandler is a handler that does not return for entries called "hangs" until the test ends.
type hangingHandler struct {
	free chan struct{}
	good atomic.Int32
	hung atomic.Int32
}

func newHangingHandler(env *testqueue.Env) *hangingHandler {
	h := &hangingHandler{free: make(chan struct{})}
	env.Cleanup(func() { close(h.free) })
	return h
}

func (s *hangingHandler) Handle(_ context.Context, h *zkq.Held) error {
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
		s := newHangingHandler(env)
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
		if _, err := k.stopAndWait(); !errors.Is(err, zkq.ErrStuck) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestRunEndsWhenAllItsSlotsHaveBeenStuckForAMinute(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "hangs")
		env.Put(q, "hangs")
		k := startWorker(env, &zkq.Worker{Queue: q, Concurrency: 2, Timeout: time.Second, Handler: newHangingHandler(env)})
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
		s := newHangingHandler(env)
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
		k.stopCleanly()
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
			k.stopCleanly()
			k.wantEndings(zkq.EndingFailed)
			e, err := q.Peek(env.Ctx, name)
			if days := time.Until(e.Due).Hours() / 24; err != nil || days < 29 || days > 30 {
				t.Errorf("rests for %.1f days, %v", days, err)
			}
		})
	}
}

// panickingLogger is a logger that panics.
type panickingLogger struct{}

func (panickingLogger) Debug(string, ...any) { panic("debug") }
func (panickingLogger) Info(string, ...any)  { panic("info") }
func (panickingLogger) Warn(string, ...any)  { panic("warn") }
func (panickingLogger) Error(string, ...any) { panic("error") }

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
		"Logger":  {&zkq.Worker{Logger: panickingLogger{}}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				c.worker.Queue, _ = env.Queue()
				c.worker.Handler = handler
				env.Put(c.worker.Queue, "x")
				k := startWorker(env, c.worker)
				time.Sleep(5 * time.Minute)
				k.stopCleanly()
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

// panickingError is an error whose methods panic.
type panickingError struct{}

func (panickingError) Error() string { return "awkward" }
func (panickingError) As(any) bool   { panic("As") }
func (panickingError) Is(error) bool { panic("Is") }

func TestHandlersErrorThatPanicsIsAFailure(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "x")
		k := startWorker(env, &zkq.Worker{Queue: q, MaxFailures: 2, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error { return panickingError{} })})
		time.Sleep(time.Minute)
		k.stopCleanly()
		k.wantEndings(zkq.EndingFailed, zkq.EndingDead)
	})
}

// refusingClient is a coordinator that returns an error instead of a session while one is set.
type refusingClient struct {
	coord.Coordinator
	err atomic.Pointer[error]
}

func (c *refusingClient) Session(ctx context.Context) (coord.Session, error) {
	if err := c.err.Load(); err != nil {
		return nil, *err
	}
	return c.Coordinator.Session(ctx)
}

func (c *refusingClient) setError(err error) { c.err.Store(&err) }
func (c *refusingClient) clearError()        { c.err.Store(nil) }

func TestAWorkerOutlivesATransientRefusal(t *testing.T) {
	for _, refusal := range []error{coord.ErrTLS, coord.ErrAuth, coord.ErrForbidden, coord.ErrFormat, coord.ErrInvalid, coord.ErrBusy, coord.ErrUnreachable} {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			cl := env.Client()
			c := &refusingClient{Coordinator: cl}
			q := env.QueueOn(c)
			k := startWorker(env, &zkq.Worker{Queue: q, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error { return nil })})
			env.Put(q, "first")
			time.Sleep(time.Hour) // waiting, without a refusal
			for range 3 {
				c.setError(refusal)
				cl.Expire()
				time.Sleep(4 * time.Second) // a session lasts six
				c.clearError()
				time.Sleep(time.Minute)
			}
			other, _ := env.Queue()
			env.Put(other, "second")
			time.Sleep(time.Minute)
			k.wantEndings(zkq.EndingDone, zkq.EndingDone)

			c.setError(refusal)
			cl.Expire()
			passes := errors.Is(refusal, coord.ErrBusy) || errors.Is(refusal, coord.ErrUnreachable)
			if time.Sleep(time.Hour); passes {
				c.clearError()
				env.Put(other, "third")
				time.Sleep(time.Minute)
				k.wantEndings(zkq.EndingDone, zkq.EndingDone, zkq.EndingDone)
				k.stopCleanly()
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

func TestAWorkerThatIsRefusedFromTheStartEndsAtOnce(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := &refusingClient{Coordinator: env.Client()}
		c.setError(coord.ErrAuth)
		k := startWorker(env, &zkq.Worker{Queue: env.QueueOn(c), Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error { return nil })})
		start := time.Now()
		if err := <-k.done; !errors.Is(err, coord.ErrAuth) || time.Since(start) > time.Second {
			t.Errorf("Run: %v after %v", err, time.Since(start))
		}
	})
}

type mail struct {
	To   string
	Urgs int `json:"n"`
}

func TestTypedValuesArriveAsTheyWerePut(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		mails := zkq.Typed[mail]{Queue: q}
		if _, err := mails.Put(env.Ctx, mail{"a", 1}); err != nil {
			t.Fatal(err)
		}
		if names, err := mails.PutAll(env.Ctx, []mail{{"b", 2}, {"c", 3}}, zkq.WithPriority(5)); err != nil || len(names) != 2 {
			t.Fatal(names, err)
		}
		if es := env.Values(q); fmt.Sprint(es) != `[{"To":"b","n":2} {"To":"c","n":3} {"To":"a","n":1}]` {
			t.Errorf("the entries hold %v", es)
		}
		var got []mail
		k := startWorker(env, &zkq.Worker{Queue: q, Handler: zkq.JSON(func(ctx context.Context, m mail) error {
			if zkq.HeldFrom(ctx) == nil {
				t.Error("the entry cannot be had")
			}
			got = append(got, m)
			return nil
		})})
		time.Sleep(time.Second)
		k.stopCleanly()
		if fmt.Sprint(got) != "[{b 2} {c 3} {a 1}]" {
			t.Errorf("got %v", got)
		}
	})
}

func TestAnUndecodableValueIsDeadWithAReason(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		for _, value := range []string{"", "no", `{"To":1}`, `{"To":"a"} and more`} {
			env.Put(q, value)
		}
		k := startWorker(env, &zkq.Worker{Queue: q, Handler: zkq.JSON(func(_ context.Context, m mail) error {
			t.Errorf("decoded %v", m)
			return nil
		})})
		time.Sleep(time.Second)
		k.stopCleanly()
		es := env.Entries(q)
		if len(es) != 4 {
			t.Errorf("%d are left", len(es))
		}
		for _, e := range es {
			if e.State != zkq.StateDead || !strings.HasPrefix(e.Reason, "decode zkq_test.mail: ") {
				t.Errorf("left is %+v", e)
			}
		}
	})
}

func TestAnUnencodableValueIsNotPut(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		functions := zkq.Typed[any]{Queue: q}
		_, err := functions.Put(env.Ctx, func() {})
		env.WantErr(err, zkq.ErrInvalid)
		_, err = functions.PutAll(env.Ctx, []any{1, func() {}})
		env.WantErr(err, zkq.ErrInvalid)
		if !strings.Contains(err.Error(), "value 1") || errors.Is(err, zkq.ErrUnknown) {
			t.Errorf("error %v", err)
		}
		env.WantEmpty(q)
	})
}

// encoding/json replaces bytes that are not UTF-8 by U+FFFD without an error.
func TestInvalidTextIsRefusedAtPut(t *testing.T) {
	const wrong = "caf\xe9"
	type inner struct {
		Text string             `json:"text,omitempty"`
		Map  map[string][]any   `json:"map,omitempty"`
		Ptr  *string            `json:"ptr,omitempty"`
		Skip string             `json:"-"`
		Raw  json.RawMessage    `json:"raw,omitempty"`
		Data []byte             `json:"data,omitempty"`
		Own  map[string]ownText `json:"own,omitempty"`
	}
	text := wrong
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		strs, structs, keys := zkq.Typed[string]{Queue: q}, zkq.Typed[[]inner]{Queue: q}, zkq.Typed[map[string]int]{Queue: q}
		refused := func(err error) {
			t.Helper()
			if env.WantErr(err, zkq.ErrInvalid); !strings.Contains(err.Error(), "is not UTF-8") {
				t.Errorf("error %v", err)
			}
		}
		_, err := strs.Put(env.Ctx, wrong)
		refused(err)
		_, err = strs.PutAll(env.Ctx, []string{"fine", wrong})
		refused(err)
		_, err = keys.Put(env.Ctx, map[string]int{wrong: 1})
		refused(err)
		for _, v := range []inner{{Text: wrong}, {Map: map[string][]any{"a": {1, wrong}}}, {Map: map[string][]any{wrong: nil}}, {Ptr: &text}} {
			_, err = structs.Put(env.Ctx, []inner{{}, v})
			refused(err)
		}
		env.WantEmpty(q)
		for _, v := range []inner{
			{Text: "caf\u00e9 \ufffd \\ufffd"}, {Skip: wrong}, {Raw: json.RawMessage(`"\ufffd"`)}, {Data: []byte(wrong)}, {Own: map[string]ownText{"a": wrong}},
		} {
			if _, err = structs.Put(env.Ctx, []inner{v}); err != nil {
				t.Errorf("%+v: %v", v, err)
			}
			h := env.Take(q)
			if got, err := structs.Decode(h); err != nil || got[0].Text != v.Text {
				t.Errorf("%+v came out as %+v, %v", v, got, err)
			}
			env.Consume(h)
		}
	})
}

// ownText has a text encoding of its own.
type ownText string

func (o ownText) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%x", string(o)), nil }

func TestAValueThatNoWorkerCouldDecodeIsRefusedAtPut(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		_, err := zkq.Typed[fmt.Stringer]{Queue: q}.Put(env.Ctx, time.Second)
		env.WantErr(err, zkq.ErrInvalid)
		env.WantEmpty(q)
	})
}
