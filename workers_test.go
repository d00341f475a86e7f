package zkq_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testqueue"
)

const alice, bob = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

func TestARegisteredHandleIsAmongTheWorkersWithWhatItHolds(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue(zkq.Holder(alice))
		other, _ := env.Queue(zkq.Holder(bob))
		if ws := env.Workers(q); len(ws) != 0 {
			t.Fatalf("of a queue nobody wrote to: %+v", ws)
		}
		for range 3 {
			env.Put(q, "v")
		}
		before := time.Now()
		env.Register(q)
		time.Sleep(time.Second)
		env.Register(q)
		env.Take(q)
		env.Take(q)
		env.Take(other) // which never registered
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		ws := env.Workers(other)
		if len(ws) != 2 {
			t.Fatalf("workers: %+v", ws)
		}
		if want := (zkq.WorkerInfo{Holder: alice, Host: host, PID: os.Getpid(), Started: before.UTC(), Entries: 2}); ws[0].Holder != want.Holder ||
			ws[0].Host != want.Host || ws[0].PID != want.PID || !ws[0].Started.Equal(before) || ws[0].Entries != 2 {
			t.Errorf("the first is %+v, want %+v", ws[0], want)
		}
		if want := (zkq.WorkerInfo{Holder: bob, Entries: 1}); ws[1] != want {
			t.Errorf("the second is %+v, want %+v", ws[1], want)
		}
	})
}

func TestAWorkerIsGoneWhenItsHandleIsClosedOrItsSessionEnds(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue(zkq.Holder(alice))
		killed, c := env.Queue(zkq.Holder(bob))
		watcher, _ := env.Queue()
		env.Register(q)
		env.Register(killed)
		if ws := env.Workers(watcher); len(ws) != 2 || ws[0].Holder != alice || ws[1].Holder != bob {
			t.Fatalf("workers: %+v", ws)
		}
		q.Close()
		c.Close()
		if ws := env.Workers(watcher); len(ws) != 0 {
			t.Fatalf("workers that are gone: %+v", ws)
		}
	})
}

func TestAWorkerRegistersAgainInItsNextSession(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue(zkq.Holder(alice))
		watcher, _ := env.Queue()
		env.Register(q)
		c.Expire()
		synctest.Wait()
		if ws := env.Workers(watcher); len(ws) != 0 {
			t.Fatalf("workers of an expired session: %+v", ws)
		}
		env.Put(q, "v")
		env.Take(q)
		if ws := env.Workers(watcher); len(ws) != 1 || ws[0].Holder != alice || ws[0].Entries != 1 || ws[0].PID == 0 {
			t.Fatalf("workers: %+v", ws)
		}
	})
}

// An old session of the handle that the service has not given up yet.
func TestAWorkersNodeOfAnEarlierSessionIsReplaced(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		old := env.Session(env.Client())
		env.Commit(old, coord.CreateEphemeral("/jobs/workers/"+alice, []byte(`{"host":"old","pid":1}`)))
		q, c := env.Queue(zkq.Holder(alice))
		env.Register(q)
		n := env.Get(env.Session(c), "/jobs/workers/"+alice)
		if n.Owner != env.Session(c).ID() || strings.Contains(string(n.Value), `"old"`) {
			t.Fatalf("the node is %s of %s", n.Value, n.Owner)
		}
	})
}

func TestRegisteringAgainCostsNothing(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		env.Register(q)
		c.Reset()
		env.Register(q)
		if n := c.Count(); n != 0 {
			t.Fatalf("%d requests: %v", n, c.Requests)
		}
	})
}

func TestOnlyThoseWhoStayRegister(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "a")
		env.Put(q, "b")
		h, err := q.TryTake(env.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		env.Consume(h)
		if nodes := env.Children(env.Session(c), "/jobs/workers"); len(nodes) != 0 {
			t.Fatalf("a take registered %q", nodes)
		}
		for h, err := range q.All(env.Ctx) {
			if err != nil {
				t.Fatal(err)
			}
			env.Consume(h)
			break
		}
		if nodes := env.Children(env.Session(c), "/jobs/workers"); len(nodes) != 1 {
			t.Fatalf("All registered %q", nodes)
		}
	})
}

// forbidding refuses whatever is created among the workers.
type forbidding struct{ coord.Coordinator }

type forbiddingSession struct{ coord.Session }

func (c forbidding) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	return forbiddingSession{s}, err
}

func (s forbiddingSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	if strings.HasPrefix(ops[0].Path, "/jobs/workers/") {
		return nil, coord.ErrForbidden
	}
	return s.Session.Commit(ctx, ops...)
}

func TestWorkGoesOnWhereRegisteringIsForbidden(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q := env.QueueOn(forbidding{env.Client()})
		env.Register(q)
		env.Put(q, "v")
		env.Consume(env.Take(q))
	})
}

func TestStrangersAmongTheWorkersArePassedOver(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Commit(env.Session(c), coord.Create("/jobs/workers/"+alice, []byte(`{"host":"h","pid":1}`)))
		env.Commit(env.Session(c), coord.CreateEphemeral("/jobs/workers/"+bob, nil))
		env.Commit(env.Session(c), coord.CreateEphemeral("/jobs/workers/x", []byte(`[1`)))
		if ws := env.Workers(q); len(ws) != 0 {
			t.Fatalf("workers: %+v", ws)
		}
	})
}

func TestAQueueWithNothingButWorkersIsFound(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Register(q)
		queues, err := zkq.Queues(env.Ctx, c)
		if err != nil || len(queues) != 1 || queues[0] != "/jobs" {
			t.Fatalf("Queues = %q, %v", queues, err)
		}
	})
}

func TestWorkersOfAClosedHandleAreRefused(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		q.Close()
		if _, err := q.Workers(env.Ctx); !errors.Is(err, zkq.ErrClosed) {
			t.Errorf("Workers: %v", err)
		}
		env.WantErr(q.Register(env.Ctx), zkq.ErrClosed)
	})
}
