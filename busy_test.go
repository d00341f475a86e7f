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
	"github.com/zkq/zkq/internal/testqueue"
)

// errFullService is what a service without space answers.
var errFullService = fmt.Errorf("no space on the third disk: %w", coord.ErrBusy)

// fullService is a coordinator that refuses commits for lack of space.
type fullService struct {
	coord.Coordinator
	full     atomic.Bool // refuses each commit
	putsOnly bool        // refuses only those that create entries or lanes

	mu   sync.Mutex
	last *fullSession
}

type fullSession struct {
	coord.Session
	c *fullService
}

func (c *fullService) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil || c.last.Session != s {
		c.last = &fullSession{s, c}
	}
	return c.last, nil
}

func (s *fullSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	put := slices.ContainsFunc(ops, func(op coord.Op) bool { return strings.HasPrefix(op.Path, "/zkq/producers/") })
	if s.c.full.Load() && (put || !s.c.putsOnly) {
		return nil, errFullService
	}
	return s.Session.Commit(ctx, ops...)
}

// warnings are the lines that a journal has at level warn.
func (j *journal) warnings() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(j.lines), func(line string) bool { return !strings.HasPrefix(line, "warn ") })
}

// wantWarnings checks how the warnings begin, and nothing else.
func wantWarnings(env *testqueue.Env, j *journal, begin ...string) {
	env.Helper()
	got := j.warnings()
	if len(got) != len(begin) {
		env.Fatalf("warnings %q, want those that begin with %q", got, begin)
	}
	for i, line := range got {
		if !strings.HasPrefix(line, "warn "+begin[i]) {
			env.Fatalf("warnings %q, want those that begin with %q", got, begin)
		}
	}
}

func TestAPutToAFullServiceNamesTheCauseAndTheEndOfItsTime(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := &fullService{Coordinator: env.Client()}
		q := env.QueueOn(c)
		for _, first := range []bool{true, false} { // without a lane, and with one
			c.full.Store(true)
			ctx, cancel := context.WithTimeout(env.Ctx, 3*time.Second)
			_, err := q.Put(ctx, []byte("x"))
			cancel()
			for _, want := range []error{context.DeadlineExceeded, coord.ErrBusy, errFullService} {
				env.WantErr(err, want)
			}
			if errors.Is(err, zkq.ErrUnknown) || !strings.Contains(err.Error(), "/jobs") {
				t.Errorf("without a lane %v: %v", first, err)
			}
			c.full.Store(false)
			env.Put(q, "x")
		}
	})
}

func TestEachCallToAFullServiceNamesTheCauseAndTheEndOfItsTime(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := &fullService{Coordinator: env.Client()}
		q := env.QueueOn(c)
		env.Put(q, "held")
		h := env.Take(q)
		env.Put(q, "ready")
		bounded := zkq.QueueConfig{MaxEntries: 10}
		c.full.Store(true)
		for name, call := range map[string]func(context.Context) error{
			"take":    func(ctx context.Context) error { _, err := q.Take(ctx); return err },
			"consume": func(ctx context.Context) error { return h.Consume(ctx) },
			"update":  func(ctx context.Context) error { return h.Update(ctx, []byte("new")) },
			"pause":   q.Pause,
			"create":  func(ctx context.Context) error { return q.Create(ctx, bounded) },
			"token":   func(ctx context.Context) error { _, err := q.NewToken(ctx); return err },
		} {
			ctx, cancel := context.WithTimeout(env.Ctx, 3*time.Second)
			err := call(ctx)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errFullService) {
				t.Errorf("%s: %v", name, err)
			}
		}
		c.full.Store(false)
		env.Consume(h)
	})
}

func TestAPutThatWaitsForAFullServiceIsLoggedOnceAndItsEndToo(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c, j := &fullService{Coordinator: env.Client()}, &journal{}
		q := env.QueueOn(c, zkq.LogTo(j))
		env.Put(q, "before")
		c.full.Store(true)
		var puts sync.WaitGroup
		defer puts.Wait()
		defer c.full.Store(false)
		for range 5 {
			puts.Go(func() { env.Put(q, "waits") })
		}
		time.Sleep(900 * time.Millisecond)
		wantWarnings(env, j)
		time.Sleep(time.Minute)
		wantWarnings(env, j, "put waits: ")
		if !j.has("/jobs", "third disk") {
			t.Errorf("%q names no queue or no cause", j.warnings())
		}
		c.full.Store(false)
		puts.Wait()
		wantWarnings(env, j, "put waits: ", "put goes on: ")
	})
}

// A refusal that is over before a second is over is not worth a line.
func TestAShortRefusalIsNotLogged(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c, j := &fullService{Coordinator: env.Client()}, &journal{}
		q := env.QueueOn(c, zkq.LogTo(j))
		for range 3 {
			c.full.Store(true)
			time.AfterFunc(500*time.Millisecond, func() { c.full.Store(false) })
			env.Put(q, "x")
			env.Consume(env.Take(q))
			time.Sleep(time.Minute)
		}
		wantWarnings(env, j)
	})
}

// The caller gives up each put, so that none waits when there is space again.
func TestTheEndOfAWaitIsLoggedByTheNextCallOfItsKind(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c, j := &fullService{Coordinator: env.Client(), putsOnly: true}, &journal{}
		q := env.QueueOn(c, zkq.LogTo(j))
		env.Put(q, "a")
		c.full.Store(true)
		for range 3 {
			ctx, cancel := context.WithTimeout(env.Ctx, 3*time.Second)
			_, err := q.Put(ctx, []byte("x"))
			cancel()
			env.WantErr(err, coord.ErrBusy)
		}
		env.Consume(env.Take(q)) // takes are served, which says nothing of puts
		wantWarnings(env, j, "put waits: ")
		c.full.Store(false)
		env.Put(q, "b")
		wantWarnings(env, j, "put waits: ", "put goes on: ")
		env.Put(q, "c")
		wantWarnings(env, j, "put waits: ", "put goes on: ")
	})
}

func TestAWorkersLoggerHearsThatTheServiceIsFull(t *testing.T) {
	for _, both := range []bool{false, true} {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			c, own := &fullService{Coordinator: env.Client()}, &journal{}
			var opts []zkq.Option
			if both {
				opts = append(opts, zkq.LogTo(own))
			}
			q := env.QueueOn(c, opts...)
			env.Put(q, "a")
			env.Put(q, "b")
			k := startWorker(env, &zkq.Worker{Queue: q, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
				c.full.Store(true) // while it is held
				return nil
			})})
			hears := k.logged
			if both {
				hears = own
			}
			synctest.Wait()
			time.Sleep(5 * time.Second)
			if len(hears.warnings()) != 1 || !hears.has("waits: ", "/jobs", "third disk") {
				t.Errorf("warnings %q", hears.warnings())
			}
			c.full.Store(false)
			time.Sleep(5 * time.Second)
			if !hears.has("goes on: ", "/jobs") {
				t.Errorf("warnings %q", hears.warnings())
			}
			if both && len(k.logged.warnings()) > 0 {
				t.Errorf("the worker's Logger, too: %q", k.logged.warnings())
			}
			c.full.Store(false)
			k.stop()
		})
	}
}
