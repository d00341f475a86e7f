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
)

func (b *bench) workers(q *zkq.LockingQueue) []zkq.WorkerInfo {
	b.Helper()
	ws, err := q.Workers(b.ctx)
	if err != nil {
		b.Fatalf("Workers: %v", err)
	}
	return ws
}

func (b *bench) register(q *zkq.LockingQueue) {
	b.Helper()
	if err := q.Register(b.ctx); err != nil {
		b.Fatalf("Register: %v", err)
	}
}

const alice, bob = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

func TestARegisteredHandleIsAmongTheWorkersWithWhatItHolds(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue(zkq.Holder(alice))
		other, _ := b.queue(zkq.Holder(bob))
		if ws := b.workers(q); len(ws) != 0 {
			t.Fatalf("of a queue nobody wrote to: %+v", ws)
		}
		for range 3 {
			b.put(q, "v")
		}
		before := time.Now()
		b.register(q)
		time.Sleep(time.Second)
		b.register(q)
		b.take(q)
		b.take(q)
		b.take(other) // which never registered
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		ws := b.workers(other)
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
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue(zkq.Holder(alice))
		killed, c := b.queue(zkq.Holder(bob))
		watcher, _ := b.queue()
		b.register(q)
		b.register(killed)
		if ws := b.workers(watcher); len(ws) != 2 || ws[0].Holder != alice || ws[1].Holder != bob {
			t.Fatalf("workers: %+v", ws)
		}
		q.Close()
		c.Close()
		if ws := b.workers(watcher); len(ws) != 0 {
			t.Fatalf("workers that are gone: %+v", ws)
		}
	})
}

func TestAWorkerRegistersAgainInItsNextSession(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue(zkq.Holder(alice))
		watcher, _ := b.queue()
		b.register(q)
		c.Expire()
		synctest.Wait()
		if ws := b.workers(watcher); len(ws) != 0 {
			t.Fatalf("workers of an expired session: %+v", ws)
		}
		b.put(q, "v")
		b.take(q)
		if ws := b.workers(watcher); len(ws) != 1 || ws[0].Holder != alice || ws[0].Entries != 1 || ws[0].PID == 0 {
			t.Fatalf("workers: %+v", ws)
		}
	})
}

// An old session of the handle that the service has not given up yet.
func TestAWorkersNodeOfAnEarlierSessionIsReplaced(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		old := b.session(b.client())
		b.commit(old, coord.CreateEphemeral("/jobs/workers/"+alice, []byte(`{"host":"old","pid":1}`)))
		q, c := b.queue(zkq.Holder(alice))
		b.register(q)
		n := b.get(b.session(c), "/jobs/workers/"+alice)
		if n.Owner != b.session(c).ID() || strings.Contains(string(n.Value), `"old"`) {
			t.Fatalf("the node is %s of %s", n.Value, n.Owner)
		}
	})
}

func TestRegisteringAgainCostsNothing(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c)
		b.register(q)
		c.reset()
		b.register(q)
		if n := c.of(); n != 0 {
			t.Fatalf("%d requests: %v", n, c.requests)
		}
	})
}

func TestOnlyThoseWhoStayRegister(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		b.put(q, "a")
		b.put(q, "b")
		h, err := q.TryTake(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		b.consume(h)
		if nodes := b.children(b.session(c), "/jobs/workers"); len(nodes) != 0 {
			t.Fatalf("a take registered %q", nodes)
		}
		for h, err := range q.All(b.ctx) {
			if err != nil {
				t.Fatal(err)
			}
			b.consume(h)
			break
		}
		if nodes := b.children(b.session(c), "/jobs/workers"); len(nodes) != 1 {
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
	virtual(t, func(t *testing.T, b *bench) {
		q := b.on(forbidding{b.client()})
		b.register(q)
		b.put(q, "v")
		b.consume(b.take(q))
	})
}

func TestStrangersAmongTheWorkersArePassedOver(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		b.commit(b.session(c), coord.Create("/jobs/workers/"+alice, []byte(`{"host":"h","pid":1}`)))
		b.commit(b.session(c), coord.CreateEphemeral("/jobs/workers/"+bob, nil))
		b.commit(b.session(c), coord.CreateEphemeral("/jobs/workers/x", []byte(`[1`)))
		if ws := b.workers(q); len(ws) != 0 {
			t.Fatalf("workers: %+v", ws)
		}
	})
}

func TestAQueueWithNothingButWorkersIsFound(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		b.register(q)
		queues, err := zkq.Queues(b.ctx, c)
		if err != nil || len(queues) != 1 || queues[0] != "/jobs" {
			t.Fatalf("Queues = %q, %v", queues, err)
		}
	})
}

func TestWorkersOfAClosedHandleAreRefused(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		q.Close()
		if _, err := q.Workers(b.ctx); !errors.Is(err, zkq.ErrClosed) {
			t.Errorf("Workers: %v", err)
		}
		b.want(q.Register(b.ctx), zkq.ErrClosed)
	})
}
