package zkq_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testqueue"
)

func TestNothingIsHandedOutWhilePaused(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		admin, c := env.Queue()
		waiting, _ := env.Queue()
		trying, _ := env.Queue()
		held := env.PutAndTake(admin, "held")
		got := make(chan *zkq.Held)
		go func() {
			for h, err := range waiting.All(env.Ctx) {
				if err != nil {
					return
				}
				got <- h
			}
		}()
		synctest.Wait()
		for range 3 {
			c.DropReply()
			env.Pause(admin)
			env.Pause(admin)
			synctest.Wait()
			env.Put(admin, "a")
			env.Put(admin, "b", zkq.WithDelay(time.Second))
			time.Sleep(time.Minute)
			_, err := trying.TryTake(env.Ctx)
			env.WantErr(err, zkq.ErrPaused)
			env.WantErr(err, zkq.ErrEmpty)
			ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
			_, err = trying.Take(ctx)
			cancel()
			env.WantErr(err, context.DeadlineExceeded)
			fresh, _ := env.Queue()
			_, err = fresh.TryTake(env.Ctx)
			env.WantErr(err, zkq.ErrPaused)
			select {
			case h := <-got:
				t.Fatalf("%s was handed out", h.Name)
			default:
			}
			if st, err := admin.Stat(env.Ctx); err != nil || st.Held != 1 || st.Ready != 2 {
				t.Errorf("%+v, %v", st, err)
			}
			if c, err := fresh.Config(env.Ctx); err != nil || !c.Paused {
				t.Errorf("%+v, %v", c, err)
			}
			start := time.Now()
			env.Resume(fresh)
			for range 2 {
				env.Consume(<-got)
			}
			if d := time.Since(start); d > time.Second {
				t.Errorf("taken %v after the pause", d)
			}
		}
		env.Consume(held)
		env.WantNothingLeft(admin)
	})
}

// Whoever begins to wait while the queue is paused hears of its end, too.
func TestWhoBeginsToWaitInAPauseHearsOfItsEnd(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		admin, _ := env.Queue()
		env.Pause(admin)
		env.Put(admin, "a")
		q, _ := env.Queue()
		got := make(chan []*zkq.Held, 1)
		go func() {
			if held, err := q.TakeN(env.Ctx, 2); err == nil {
				got <- held
			}
		}()
		time.Sleep(time.Hour)
		env.Put(admin, "b")
		env.Resume(admin)
		start := time.Now()
		if held := <-got; len(held) != 2 || time.Since(start) > time.Second {
			t.Errorf("%d entries after %v", len(held), time.Since(start))
		}
	})
}

// A pause that comes while the session is lost is heard of in the next.
func TestAPauseIsHeardInTheNextSession(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		admin, _ := env.Queue()
		q, c := env.Queue()
		got := make(chan *zkq.Held, 1)
		go func() {
			if h, err := q.Take(env.Ctx); err == nil {
				got <- h
			}
		}()
		synctest.Wait()
		c.Cut()
		time.Sleep(time.Second)
		env.Pause(admin)
		env.Put(admin, "a")
		time.Sleep(20 * time.Second)
		c.Heal()
		time.Sleep(time.Minute)
		if len(got) > 0 {
			t.Fatal("it was handed out")
		}
		env.Resume(admin)
		env.Consume(<-got)
	})
}

// Close ends those who wait for a pause to end.
func TestCloseEndsWhoWaitsForAPauseToEnd(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Pause(q)
		done := make(chan error, 1)
		go func() {
			_, err := q.Take(env.Ctx)
			done <- err
		}()
		synctest.Wait()
		q.Close()
		env.WantErr(<-done, zkq.ErrClosed)
	})
}

// What a handle heard when it put is no reason to hand out what was paused since.
func TestAHandleThatOnlyPutSoFarTakesNothingThatIsPaused(t *testing.T) {
	takes := map[string]func(*zkq.LockingQueue, context.Context) ([]*zkq.Held, error){
		"Take":       func(q *zkq.LockingQueue, ctx context.Context) ([]*zkq.Held, error) { return q.TakeN(ctx, 1) },
		"TryTake":    func(q *zkq.LockingQueue, ctx context.Context) ([]*zkq.Held, error) { return q.TryTakeN(ctx, 1) },
		"Exchange":   func(q *zkq.LockingQueue, ctx context.Context) ([]*zkq.Held, error) { return q.Exchange(ctx, nil, 1) },
		"TryTake ×2": func(q *zkq.LockingQueue, ctx context.Context) ([]*zkq.Held, error) { return q.TryTakeN(ctx, 1) },
	}
	for how, take := range takes {
		t.Run(how, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, _ := env.Queue()
				admin, _ := env.Queue()
				if how == "TryTake ×2" {
					env.WantEmpty(q)
				}
				env.Put(q, "a")
				env.Pause(admin)
				ctx, cancel := context.WithTimeout(env.Ctx, 3*time.Second)
				defer cancel()
				if held, err := take(q, ctx); len(held) > 0 {
					t.Errorf("took %q, %v", values(held), err)
				}
			})
		})
	}
}

// late hands an answer to a read of the configuration to its caller later.
type late struct {
	coord.Coordinator

	mu      sync.Mutex
	session *lateSession  // one for each session of the service, as a driver has it
	hold    chan struct{} // for the next read; closed when its answer is to come
}

func (c *late) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil || c.session.Session != s {
		c.session = &lateSession{s, c}
	}
	return c.session, nil
}

func (c *late) holdNext(hold chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold = hold
}

func (c *late) held(path string) (hold chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if path == "/jobs/config" {
		hold, c.hold = c.hold, nil
	}
	return hold
}

type lateSession struct {
	coord.Session
	c *late
}

func (s *lateSession) Get(ctx context.Context, path string) (coord.Node, error) {
	n, err := s.Session.Get(ctx, path)
	if hold := s.c.held(path); hold != nil {
		<-hold
	}
	return n, err
}

func TestAnOldAnswerDoesNotEndAPause(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := &late{Coordinator: env.Client()}
		q := env.QueueOn(c)
		admin, _ := env.Queue()
		got := make(chan *zkq.Held)
		go func() {
			h, _ := q.Take(env.Ctx)
			got <- h
		}()
		synctest.Wait()
		time.Sleep(time.Second)
		hold := make(chan struct{})
		c.holdNext(hold)
		go q.Config(env.Ctx) // reads that nothing is paused
		synctest.Wait()
		env.Pause(admin)
		time.Sleep(time.Second)
		close(hold)
		synctest.Wait()
		env.Put(admin, "a")
		time.Sleep(time.Minute)
		select {
		case <-got:
			t.Error("it was handed out")
		default:
			env.Resume(admin)
			<-got
		}
	})
}

func TestAPauseIsKnownOrSaidToBeUnknown(t *testing.T) {
	for _, outage := range []time.Duration{20 * time.Second, time.Hour} { // the session ends in both
		t.Run(outage.String(), func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				client := env.Client()
				c := testqueue.NewCounter(client)
				q := env.QueueOn(c)
				if _, err := q.Config(env.Ctx); err != nil {
					t.Fatal(err)
				}
				c.Before(func(_ coord.Session, act, path string) {
					if act == "commit" && strings.HasSuffix(path, "/jobs/config") {
						c.Before(nil)
						client.HoldReplies()
						time.AfterFunc(outage, client.Heal)
					}
				})
				ctx, cancel := context.WithTimeout(env.Ctx, time.Minute)
				defer cancel()
				err := q.Pause(ctx)
				other, _ := env.Queue()
				if c, err := other.Config(env.Ctx); err != nil || !c.Paused {
					t.Fatalf("%+v, %v", c, err)
				}
				if outage > time.Minute {
					env.WantErr(err, zkq.ErrUnknown)
				} else if err != nil {
					t.Error(err)
				}
				client.Heal()
			})
		})
	}
}

// Each take that waits is not told apart: the handle tells once that it waits, and once
// that it goes on.
func TestHandleTellsOfAPause(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		var j journal
		q, _ := env.Queue(zkq.LogTo(&j), zkq.MaxDeliveries(1))
		admin, _ := env.Queue()
		env.Pause(admin)
		got := make(chan *zkq.Held, 2)
		for range 2 {
			go func() {
				h, err := q.Take(env.Ctx)
				if err != nil {
					t.Error(err)
				}
				got <- h
			}()
		}
		synctest.Wait()
		env.Put(admin, "a")
		env.Put(admin, "b")
		env.Resume(admin)
		worn := <-got
		env.Consume(<-got)
		if err := worn.Fail(env.Ctx, "no"); err != nil {
			t.Fatal(err)
		}
		env.WantEmpty(q)
		told := strings.Join(j.lines, "")
		for _, want := range []string{"warn queue is paused", "info queue is resumed", "error entry is dead"} {
			if strings.Count(told, want) != 1 {
				t.Errorf("it told %q, and not once %q", told, want)
			}
		}
	})
}
