package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testqueue"
)

// noting is a handler that notes the values it is called with.
type noting struct {
	mu     sync.Mutex
	values []string
	work   time.Duration
}

func (n *noting) Handle(_ context.Context, h *zkq.Held) error {
	n.mu.Lock()
	n.values = append(n.values, string(h.Value))
	n.mu.Unlock()
	time.Sleep(n.work)
	return nil
}

func (n *noting) all() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.values, " ")
}

// ends waits for a run to end by itself.
func (k *runningWorker) ends(within time.Duration) error {
	k.Helper()
	select {
	case err := <-k.done:
		return err
	case <-time.After(within):
		k.Fatalf("Run goes on after %v", within)
		return nil
	}
}

func TestFinishesOfAWorkerShareACommitWithTheNextClaims(t *testing.T) {
	for _, work := range []time.Duration{0, 10 * time.Millisecond} {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			const entries, places = 320, 16
			slow := &slowly{Coordinator: env.Client(), by: 100 * time.Millisecond}
			c := testqueue.NewCounter(slow)
			q := env.QueueOn(c)
			for i := range entries {
				env.Put(q, fmt.Sprint(i))
			}
			slow.on.Store(true)
			c.Reset()
			h := &noting{work: work}
			k := startWorker(env, &zkq.Worker{Queue: q, Concurrency: places, Handler: h, Drain: true})
			if err := k.ends(time.Minute); err != nil {
				t.Errorf("Run: %v", err)
			}
			if n := len(k.endings()); n != entries {
				t.Errorf("%d entries were handled, want %d", n, entries)
			}
			// While a commit takes its 100 ms, four are under way at most. A handler that ends then
			// waits for one of them, and is in the next. So each of 20 rounds takes 210 ms at most, and
			// all of them 170 commits, in whatever order the handlers go on. Each entry alone makes 320.
			if n := c.Count("commit"); n > 200 {
				t.Errorf("%d commits for %d entries whose handlers take %v", n, entries, work)
			}
		})
	}
}

func TestWorkerReadsAheadAndGivesBackWhatItDidNotBegin(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue(zkq.MaxDeliveries(1))
		for i := range 6 {
			env.Put(q, fmt.Sprint(i))
		}
		h := &noting{work: time.Minute}
		k := startWorker(env, &zkq.Worker{Queue: q, ReadAhead: 3, Handler: h, Grace: time.Hour})
		time.Sleep(30 * time.Second)
		if st, err := q.Stat(env.Ctx); err != nil || st.Held != 4 || st.Ready != 2 {
			t.Errorf("%+v, %v: want 4 held", st, err)
		}
		time.Sleep(time.Minute)
		if got := h.all(); got != "0 1" {
			t.Errorf("handled %q", got)
		}
		k.stopCleanly()
		if st, err := q.Stat(env.Ctx); err != nil || st.Held != 0 || st.Ready != 4 {
			t.Errorf("%+v, %v: want 4 ready", st, err)
		}
		k.wantEndings(zkq.EndingDone, zkq.EndingReleased, zkq.EndingReleased, zkq.EndingReleased, zkq.EndingDone)
		// The deliveries do not count.
		if got := env.Take(q); string(got.Value) != "2" || got.Failures != 0 {
			t.Errorf("took %q with %d failures", got.Value, got.Failures)
		}
	})
}

// The lock of an entry that was read ahead is lost before its turn comes.
func TestNoHandlerIsCalledForAnEntryWhoseLockWasLost(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		other, _ := env.Queue()
		for i := range 3 {
			env.Put(q, fmt.Sprint(i))
		}
		h := &noting{work: 10 * time.Second}
		k := startWorker(env, &zkq.Worker{Queue: q, ReadAhead: 2, Handler: h})
		time.Sleep(time.Second)
		entries := env.Entries(q)
		if err := other.BreakLock(env.Ctx, entries[1].Name); err != nil {
			t.Fatal(err)
		}
		taken := env.Take(other)
		time.Sleep(time.Minute)
		if got := h.all(); string(taken.Value) != "1" || got != "0 2" {
			t.Errorf("the other took %q, and handled were %q", taken.Value, got)
		}
		k.stopCleanly()
		k.wantEndings(zkq.EndingDone, zkq.EndingLost, zkq.EndingDone)
	})
}

func TestWorkerDrainsTheQueueAndEnds(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		for i := range 5 {
			env.Put(q, fmt.Sprint(i))
		}
		other, _ := env.Queue()
		held := env.Take(other) // it does not wait for what others hold
		failed := false
		k := startWorker(env, &zkq.Worker{Queue: q, Concurrency: 2, Drain: true, Handler: zkq.HandlerFunc(func(_ context.Context, h *zkq.Held) error {
			if string(h.Value) == "3" && !failed {
				failed = true
				return errors.New("not at first")
			}
			return nil
		})})
		start := time.Now()
		if err := k.ends(time.Minute); err != nil {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(start); took < time.Second || took > 5*time.Second {
			t.Errorf("it took %v, and an entry that failed rests for a second", took)
		}
		if st, err := q.Stat(env.Ctx); err != nil || st.Total() != 1 {
			t.Errorf("%+v, %v", st, err)
		}
		env.Consume(held)
		empty := startWorker(env, &zkq.Worker{Queue: q, Drain: true, Handler: &noting{}})
		if err := empty.ends(time.Second); err != nil {
			t.Errorf("Run of an empty queue: %v", err)
		}
	})
}

func TestDrainOfAPausedQueueEndsWithErrPaused(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "x")
		if err := q.Pause(env.Ctx); err != nil {
			t.Fatal(err)
		}
		k := startWorker(env, &zkq.Worker{Queue: q, Drain: true, Handler: &noting{}})
		if err := k.ends(10 * time.Second); !errors.Is(err, zkq.ErrPaused) {
			t.Errorf("Run: %v", err)
		}
	})
}

// A drain waits for an entry that rests. It goes on after a short outage. In one that outlasts its
// session, it cannot ask whether entries are left.
func TestALongOutageEndsADrain(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "fails")
		k := startWorker(env, &zkq.Worker{
			Queue: q, Drain: true, Backoff: func(int) time.Duration { return time.Hour },
			Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error { return errors.New("no") }),
		})
		time.Sleep(time.Minute)
		env.Store.Stop()
		time.Sleep(time.Second)
		env.Store.Start()
		time.Sleep(time.Minute)
		if len(k.done) > 0 {
			t.Fatalf("a short outage ended it: %v", <-k.done)
		}
		env.Store.Stop()
		if err := k.ends(5 * time.Minute); !errors.Is(err, coord.ErrUnreachable) {
			t.Errorf("Run: %v", err)
		}
		env.Store.Start()
		if st, err := q.Stat(env.Ctx); err != nil || st.Delayed != 1 {
			t.Errorf("%+v, %v", st, err)
		}
	})
}

func TestWorkerTakesNoMoreThanItsLimit(t *testing.T) {
	for _, places := range []int{1, 3, 20} {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			q, _ := env.Queue()
			for i := range 12 {
				env.Put(q, fmt.Sprint(i))
			}
			h := &noting{work: time.Second}
			k := startWorker(env, &zkq.Worker{Queue: q, Concurrency: places, ReadAhead: 2, Limit: 7, Handler: h, Grace: -1})
			if err := k.ends(time.Minute); err != nil {
				t.Errorf("Run: %v", err)
			}
			if n := len(k.endings()); n != 7 || slices.ContainsFunc(k.endings(), func(e zkq.Ending) bool { return e != zkq.EndingDone }) {
				t.Errorf("%d places: endings %v", places, k.endings())
			}
			if n, err := q.Len(env.Ctx); n != 5 || err != nil {
				t.Errorf("%d places: %d left, %v", places, n, err)
			}
		})
	}
}

func TestIdleWorkerEnds(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		h := &noting{work: 10 * time.Second}
		k := startWorker(env, &zkq.Worker{Queue: q, Idle: 5 * time.Second, Handler: h})
		start := time.Now()
		for i := range 3 {
			time.Sleep(4 * time.Second)
			env.Put(q, fmt.Sprint(i))
		}
		if err := k.ends(time.Minute); err != nil {
			t.Errorf("Run: %v", err)
		}
		// The handlers run from 4 s to 34 s.
		if took := time.Since(start).Round(time.Second); took != 39*time.Second || h.all() != "0 1 2" {
			t.Errorf("it ended after %v, and handled %q", took, h.all())
		}
	})
}

// Stop is no end of the time for handlers: their grace begins with the end of the context.
func TestStoppedWorkerTakesNothingAndWaitsForItsHandlers(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "x")
		env.Put(q, "y")
		stop := make(chan struct{})
		h := &noting{work: time.Hour}
		k := startWorker(env, &zkq.Worker{Queue: q, Stop: stop, Grace: time.Second, Handler: h})
		time.Sleep(time.Second)
		close(stop)
		if err := k.ends(2 * time.Hour); err != nil {
			t.Errorf("Run: %v", err)
		}
		k.wantEndings(zkq.EndingDone)
		env.Put(q, "z")
		again := startWorker(env, &zkq.Worker{Queue: q, Stop: stop, Handler: h})
		if err := again.ends(time.Second); err != nil {
			t.Errorf("Run that was stopped before: %v", err)
		}
		again.wantEndings()

		stop = make(chan struct{})
		k = startWorker(env, &zkq.Worker{Queue: q, Stop: stop, Grace: time.Second, Handler: zkq.HandlerFunc(func(ctx context.Context, _ *zkq.Held) error {
			<-ctx.Done()
			return ctx.Err()
		})})
		time.Sleep(time.Second)
		close(stop)
		time.Sleep(time.Hour)
		took, err := k.stopAndWait()
		if err != nil || took != time.Second {
			t.Errorf("Run: %v after %v", err, took)
		}
		k.wantEndings(zkq.EndingReleased)
	})
}

func TestStoppedWorkerDoesNotWaitForStuckHandlersForEver(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "hangs")
		stop := make(chan struct{})
		k := startWorker(env, &zkq.Worker{Queue: q, Concurrency: 4, Stop: stop, Timeout: time.Second, Handler: newHangingHandler(env)})
		time.Sleep(1500 * time.Millisecond)
		close(stop)
		if err := k.ends(2 * time.Minute); !errors.Is(err, zkq.ErrStuck) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestHandlerHasAsLongAsStuckAfterSays(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "x")
		h := zkq.HandlerFunc(func(ctx context.Context, _ *zkq.Held) error {
			<-ctx.Done()
			time.Sleep(9 * time.Second)
			return ctx.Err()
		})
		k := startWorker(env, &zkq.Worker{Queue: q, Timeout: time.Second, StuckAfter: 10 * time.Second, Limit: 1, Handler: h})
		if err := k.ends(time.Minute); err != nil {
			t.Errorf("Run: %v", err)
		}
		k.wantEndings(zkq.EndingFailed)
		if k.logged.has("error", "stuck") {
			t.Errorf("logged %q", k.logged.lines)
		}
		// At the end of the grace it has no longer than ever.
		time.Sleep(10 * time.Second)
		k = startWorker(env, &zkq.Worker{Queue: q, Grace: -1, StuckAfter: 10 * time.Second, Handler: h})
		time.Sleep(time.Second)
		if took, err := k.stopAndWait(); !errors.Is(err, zkq.ErrStuck) || took > 2*time.Second {
			t.Errorf("Run: %v after %v", err, took)
		}
		k.wantEndings(zkq.EndingReleased)
		time.Sleep(20 * time.Second)
	})
}

func TestHandlerReleasesItsEntry(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue(zkq.MaxDeliveries(1))
		env.Put(q, "x")
		var calls atomic.Int32
		k := startWorker(env, &zkq.Worker{Queue: q, MaxFailures: 1, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
			if calls.Add(1) == 1 {
				return fmt.Errorf("somebody else: %w", zkq.Release(zkq.LeaveAlone(time.Minute)))
			}
			return nil
		})})
		time.Sleep(time.Second)
		other, _ := env.Queue()
		h := env.Take(other) // at once
		if h.Failures != 0 || h.Deliveries != 2 {
			t.Errorf("%d failures, delivery %d", h.Failures, h.Deliveries)
		}
		if err := h.Release(env.Ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		k.wantEndings(zkq.EndingReleased)
		time.Sleep(time.Minute)
		k.stopCleanly()
		k.wantEndings(zkq.EndingReleased, zkq.EndingDone)
	})
}

// noRemovals is a coordinator that allows no removal.
type noRemovals struct{ coord.Coordinator }

type noRemovalsSession struct{ coord.Session }

func (f noRemovals) Session(ctx context.Context) (coord.Session, error) {
	s, err := f.Coordinator.Session(ctx)
	return noRemovalsSession{s}, err
}

func (s noRemovalsSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	if slices.ContainsFunc(ops, func(op coord.Op) bool { return op.Kind == coord.KindDelete }) {
		return nil, coord.ErrForbidden
	}
	return s.Session.Commit(ctx, ops...)
}

// A worker that may not finish what it takes would hold its entries for ever.
func TestWorkerThatMayNotFinishEnds(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		other, _ := env.Queue()
		env.Put(other, "x")
		q := env.QueueOn(noRemovals{env.Client()})
		k := startWorker(env, &zkq.Worker{Queue: q, Handler: &noting{}})
		if err := k.ends(time.Minute); !errors.Is(err, coord.ErrForbidden) {
			t.Errorf("Run: %v", err)
		}
		k.wantEndings(zkq.EndingUnknown)
		if !k.logged.has("warn", "the finish is refused") {
			t.Errorf("logged %q", k.logged.lines)
		}
	})
}

// A slow service: what 16 places do must not wait for one commit after the other. The handlers
// end in 16 different milliseconds. The first to end begins an exchange, which is under way for
// 100 ms, and each four that follow begin another.
func TestExchangesOfAWorkerOverlap(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := &slowly{Coordinator: env.Client(), by: 100 * time.Millisecond}
		q := env.QueueOn(c)
		for i := range 32 {
			env.Put(q, fmt.Sprint(i))
		}
		c.on.Store(true)
		var begun atomic.Int32
		k := startWorker(env, &zkq.Worker{Queue: q, Concurrency: 16, Limit: 32, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
			time.Sleep(time.Duration(begun.Add(1)) * time.Millisecond)
			return nil
		})})
		for begun.Load() < 16 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(50 * time.Millisecond)
		if n := c.underWay.Load(); n != 4 {
			t.Errorf("%d commits are under way at once, want 4", n)
		}
		if err := k.ends(time.Minute); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// slowly is a coordinator whose commits take some time. It counts those that are under way.
type slowly struct {
	coord.Coordinator
	by       time.Duration
	on       atomic.Bool
	underWay atomic.Int32
}

type slowlySession struct {
	coord.Session
	c *slowly
}

func (c *slowly) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	return slowlySession{s, c}, err
}

func (s slowlySession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	if s.c.on.Load() {
		s.c.underWay.Add(1)
		defer s.c.underWay.Add(-1)
		time.Sleep(s.c.by)
	}
	return s.Session.Commit(ctx, ops...)
}

// A worker that waits sends nothing. An entry costs a claim and a removal, and not a look of
// each of the 16 places.
func TestWaitingWorkerSendsNothing(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q, other := env.QueueOn(c), zkq.NewLockingQueue(env.Store.Open(coordtest.Options{}), "jobs")
		k := startWorker(env, &zkq.Worker{Queue: q, Concurrency: 16, Handler: &noting{}})
		env.Put(other, "first")
		time.Sleep(time.Minute)
		synctest.Wait()
		c.Reset()
		time.Sleep(time.Minute)
		if n := c.Count("commit") + c.Count("list") + c.Count("read") + c.Count("get"); n != 0 {
			t.Errorf("%d requests while nothing came", n)
		}
		env.Put(other, "second")
		time.Sleep(time.Second)
		// The put, the claim and the removal signal four changes of the entries and the locks, and a
		// claimed entry is looked at again after 100 ms. Each of these five makes the queue's one view
		// list the entries, the locks and the workers once at most. The handler's context costs one
		// listing of the locks. 16 looks would be 48 listings.
		if commits, lists := c.Count("commit"), c.Count("list"); commits > 2 || lists > 16 {
			t.Errorf("%d commits and %d listings for an entry", commits, lists)
		}
		k.stopCleanly()
		other.Close()
	})
}
