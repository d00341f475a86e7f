package zkq_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testqueue"
)

// queueWithoutAnswers returns a queue and its client. Once hold was called, the client gets no answers from its next
// update on.
func queueWithoutAnswers(env *testqueue.Env) (q *zkq.LockingQueue, cl *coordtest.Coordinator, hold func()) {
	cl = env.Client()
	c := testqueue.NewCounter(cl)
	return env.QueueOn(c), cl, func() {
		c.Before(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.HasPrefix(path, "set /jobs/entries/") {
				c.Before(nil)
				cl.HoldReplies()
			}
		})
	}
}

// An update is a checkpoint: the next holder goes on from there, and it counts as nothing.
func TestAnUpdateIsWhatTheNextHolderSees(t *testing.T) {
	for way, finish := range map[string]func(*testqueue.Env, *zkq.Held){
		"release": func(env *testqueue.Env, h *zkq.Held) { env.Release(h) },
		"fail":    func(env *testqueue.Env, h *zkq.Held) { env.Fail(h, "no") },
		"aside":   func(env *testqueue.Env, h *zkq.Held) { env.Release(h, zkq.After(time.Second)) },
	} {
		t.Run(way, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, _ := env.Queue(zkq.MaxDeliveries(20))
				name := env.Put(q, "0", zkq.WithTTL(time.Hour), zkq.WithUnique("k"))
				for i := range 10 {
					h := env.Take(q)
					if string(h.Value) != fmt.Sprint(2*i) || h.Deliveries != i+1 || h.Name != name {
						t.Fatalf("%q, delivery %d", h.Value, h.Deliveries)
					}
					env.Update(h, fmt.Sprint(2*i+1))
					env.Update(h, fmt.Sprint(2*i+2))
					if e, err := q.Peek(env.Ctx, name); err != nil || string(e.Value) != fmt.Sprint(2*i+2) || e.Deliveries != i+1 || e.Expires.IsZero() {
						t.Fatalf("%+v, %v", e, err)
					}
					finish(env, h)
					env.WantErr(h.Update(env.Ctx, nil), zkq.ErrAlreadyDone)
				}
				env.WantRefused(q, "k", name)
				h := env.Take(q)
				env.Update(h, "")
				env.Bury(h, "")
				if e := env.DeadEntry(q); len(e.Value) > 0 && string(e.Value[len(e.Value)-1]) != "}" || e.Deliveries != 11 {
					t.Errorf("%+v", e)
				}
				env.WantNothingLeft(q)
			})
		})
	}
}

func TestLostRepliesOfUpdatesAreResolved(t *testing.T) {
	for name, lose := range testqueue.Losses {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				env.Put(q, "a")
				for i := range 5 {
					h := env.Take(q)
					lose(c)
					env.Update(h, fmt.Sprint("v", i))
					lose(c)
					env.Update(h, fmt.Sprint("w", i))
					if h.Deliveries != i+1 {
						t.Errorf("delivery %d", h.Deliveries)
					}
					lose(c)
					env.Release(h)
				}
				h := env.Take(q)
				if string(h.Value) != "w4" {
					t.Errorf("%q", h.Value)
				}
				env.Consume(h)
				env.WantNothingLeft(q)
			})
		})
	}
}

// Whatever became of an update that got no answer, the finish that follows is made.
func TestAFinishAfterAnUnansweredUpdateIsMade(t *testing.T) {
	for act, finish := range map[string]func(*testqueue.Env, *zkq.Held) error{
		"consume": func(env *testqueue.Env, h *zkq.Held) error { return h.Consume(env.Ctx) },
		"bury":    func(env *testqueue.Env, h *zkq.Held) error { return h.Bury(env.Ctx, "") },
		"update":  func(env *testqueue.Env, h *zkq.Held) error { env.Update(h, "again"); return h.Consume(env.Ctx) },
		"release": func(env *testqueue.Env, h *zkq.Held) error {
			env.Release(h)
			return env.Take(env.QueueOn(env.Client())).Consume(env.Ctx)
		},
	} {
		t.Run(act, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c, hold := queueWithoutAnswers(env)
				env.Put(q, "a")
				h := env.Take(q)
				hold()
				ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
				defer cancel()
				env.WantErr(h.Update(ctx, []byte("b")), zkq.ErrUnknown)
				c.Heal()
				env.WantErr(finish(env, h), nil)
				env.WantNothingLeft(q)
			})
		})
	}
}

// delayed is a coordinator whose next update of an entry is unknown to its caller, and is
// applied when the caller has read how often the entry was written.
type delayed struct {
	coord.Coordinator
	session *delayedSession
}

type delayedSession struct {
	coord.Session

	mu   sync.Mutex // the handle's mover reads, too
	late []coord.Op
}

func (c *delayed) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	if err == nil && c.session == nil {
		c.session = &delayedSession{Session: s}
	}
	return c.session, err
}

func (s *delayedSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	s.mu.Lock()
	isUpdate := s.late == nil && ops[0].Kind == coord.KindSet && strings.HasPrefix(ops[0].Path, "/jobs/entries/")
	if isUpdate {
		s.late = ops
	}
	s.mu.Unlock()
	if isUpdate {
		return nil, coord.ErrUnknown
	}
	return s.Session.Commit(ctx, ops...)
}

func (s *delayedSession) Get(ctx context.Context, path string) (coord.Node, error) {
	n, err := s.Session.Get(ctx, path)
	if !strings.HasPrefix(path, "/jobs/attempts/") {
		return n, err
	}
	s.mu.Lock()
	ops := s.late
	if ops != nil {
		s.late = []coord.Op{} // once
	}
	s.mu.Unlock()
	if len(ops) > 0 {
		if _, err := s.Session.Commit(ctx, ops...); err != nil {
			return n, err
		}
	}
	return n, err
}

func TestAnUpdateThatIsAppliedLateIsNotTakenForALoss(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q := env.QueueOn(&delayed{Coordinator: env.Client()})
		env.Put(q, "a")
		h := env.Take(q)
		env.Update(h, "b")
		if e, err := q.Peek(env.Ctx, h.Name); err != nil || string(e.Value) != "b" || e.Deliveries != 1 {
			t.Errorf("%+v, %v", e, err)
		}
		env.Consume(h)
		env.WantNothingLeft(q)
	})
}

// Nobody writes to what another holds.
func TestAnUpdateIsFenced(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c, hold := queueWithoutAnswers(env)
		other, _ := env.Queue()
		env.Put(q, "a")
		h := env.Take(q)
		if err := other.BreakLock(env.Ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		now := env.Take(other)
		env.WantErr(h.Update(env.Ctx, []byte("b")), zkq.ErrLockLost)
		env.WantErr(h.Consume(env.Ctx), zkq.ErrLockLost)
		env.Update(now, "c")

		// In doubt, and broken meanwhile: what another wrote is not taken for ours.
		env.Release(now)
		h = env.Take(q)
		hold()
		ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
		defer cancel()
		env.WantErr(h.Update(ctx, []byte("mine")), zkq.ErrUnknown)
		if err := other.BreakLock(env.Ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		now = env.Take(other)
		env.Update(now, "theirs")
		c.Heal()
		env.WantErr(h.Consume(env.Ctx), zkq.ErrLockLost)
		if e, err := q.Peek(env.Ctx, h.Name); err != nil || string(e.Value) != "theirs" {
			t.Errorf("%+v, %v", e, err)
		}
		env.Consume(now)
	})
}

func TestUpdatesThatCannotBeChangeNothing(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "a")
		h := env.Take(q)
		env.WantErr(h.Update(env.Ctx, make([]byte, zkq.MaxValue+1)), zkq.ErrTooLarge)
		largest := bytes.Repeat([]byte("x"), zkq.MaxValue)
		env.WantErr(h.Update(env.Ctx, largest), nil)
		env.Release(h)
		h = env.Take(q)
		if !bytes.Equal(h.Value, largest) {
			t.Errorf("%d bytes", len(h.Value))
		}
		s := env.Session(c)
		n := env.Get(s, "/jobs/entries/"+h.Name)
		env.Commit(s, coord.Delete(n.Path, n.Fence))
		env.WantErr(h.Update(env.Ctx, nil), zkq.ErrLockLost)
		env.WantErr((&zkq.Held{}).Update(env.Ctx, nil), zkq.ErrNotHeld)
	})
}
