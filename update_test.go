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
)

func (b *bench) update(h *zkq.Held, value string) {
	b.Helper()
	if err := h.Update(b.ctx, []byte(value)); err != nil {
		b.Fatalf("Update: %v", err)
	}
}

// deaf is a queue, and its client, that hears no answers from its next update on, once
// hold was called.
func (b *bench) deaf() (q *zkq.LockingQueue, cl *coordtest.Coordinator, hold func()) {
	cl = b.client()
	c := newCounting(cl)
	return b.on(c), cl, func() {
		c.hook(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.HasPrefix(path, "set /jobs/entries/") {
				c.hook(nil)
				cl.HoldReplies()
			}
		})
	}
}

// An update is a checkpoint: the next holder goes on from there, and it counts as nothing.
func TestAnUpdateIsWhatTheNextHolderSees(t *testing.T) {
	for way, finish := range map[string]func(*bench, *zkq.Held){
		"release": func(b *bench, h *zkq.Held) { b.release(h) },
		"fail":    func(b *bench, h *zkq.Held) { b.fail(h, "no") },
		"aside":   func(b *bench, h *zkq.Held) { b.release(h, zkq.After(time.Second)) },
	} {
		t.Run(way, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, _ := b.queue(zkq.MaxDeliveries(20))
				name := b.put(q, "0", zkq.WithTTL(time.Hour), zkq.WithUnique("k"))
				for i := range 10 {
					h := b.take(q)
					if string(h.Value) != fmt.Sprint(2*i) || h.Deliveries != i+1 || h.Name != name {
						t.Fatalf("%q, delivery %d", h.Value, h.Deliveries)
					}
					b.update(h, fmt.Sprint(2*i+1))
					b.update(h, fmt.Sprint(2*i+2))
					if e, err := q.Peek(b.ctx, name); err != nil || string(e.Value) != fmt.Sprint(2*i+2) || e.Deliveries != i+1 || e.Expires.IsZero() {
						t.Fatalf("%+v, %v", e, err)
					}
					finish(b, h)
					b.want(h.Update(b.ctx, nil), zkq.ErrAlreadyDone)
				}
				b.refusedBy(q, "k", name)
				h := b.take(q)
				b.update(h, "")
				b.bury(h, "")
				if e := b.dead(q); len(e.Value) > 0 && string(e.Value[len(e.Value)-1]) != "}" || e.Deliveries != 11 {
					t.Errorf("%+v", e)
				}
				b.left(q)
			})
		})
	}
}

func TestLostRepliesOfUpdatesAreResolved(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				b.put(q, "a")
				for i := range 5 {
					h := b.take(q)
					lose(c)
					b.update(h, fmt.Sprint("v", i))
					lose(c)
					b.update(h, fmt.Sprint("w", i))
					if h.Deliveries != i+1 {
						t.Errorf("delivery %d", h.Deliveries)
					}
					lose(c)
					b.release(h)
				}
				h := b.take(q)
				if string(h.Value) != "w4" {
					t.Errorf("%q", h.Value)
				}
				b.consume(h)
				b.left(q)
			})
		})
	}
}

// Whatever became of an update that got no answer, the finish that follows is made.
func TestAFinishAfterAnUnansweredUpdateIsMade(t *testing.T) {
	for act, finish := range map[string]func(*bench, *zkq.Held) error{
		"consume": func(b *bench, h *zkq.Held) error { return h.Consume(b.ctx) },
		"bury":    func(b *bench, h *zkq.Held) error { return h.Bury(b.ctx, "") },
		"update":  func(b *bench, h *zkq.Held) error { b.update(h, "again"); return h.Consume(b.ctx) },
		"release": func(b *bench, h *zkq.Held) error { b.release(h); return b.take(b.on(b.client())).Consume(b.ctx) },
	} {
		t.Run(act, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c, hold := b.deaf()
				b.put(q, "a")
				h := b.take(q)
				hold()
				ctx, cancel := context.WithTimeout(b.ctx, time.Second)
				defer cancel()
				b.want(h.Update(ctx, []byte("b")), zkq.ErrUnknown)
				c.Heal()
				b.want(finish(b, h), nil)
				b.left(q)
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
	virtual(t, func(t *testing.T, b *bench) {
		q := b.on(&delayed{Coordinator: b.client()})
		b.put(q, "a")
		h := b.take(q)
		b.update(h, "b")
		if e, err := q.Peek(b.ctx, h.Name); err != nil || string(e.Value) != "b" || e.Deliveries != 1 {
			t.Errorf("%+v, %v", e, err)
		}
		b.consume(h)
		b.left(q)
	})
}

// Nobody writes to what another holds.
func TestAnUpdateIsFenced(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c, hold := b.deaf()
		other, _ := b.queue()
		b.put(q, "a")
		h := b.take(q)
		if err := other.BreakLock(b.ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		now := b.take(other)
		b.want(h.Update(b.ctx, []byte("b")), zkq.ErrLockLost)
		b.want(h.Consume(b.ctx), zkq.ErrLockLost)
		b.update(now, "c")

		// In doubt, and broken meanwhile: what another wrote is not taken for ours.
		b.release(now)
		h = b.take(q)
		hold()
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		b.want(h.Update(ctx, []byte("mine")), zkq.ErrUnknown)
		if err := other.BreakLock(b.ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		now = b.take(other)
		b.update(now, "theirs")
		c.Heal()
		b.want(h.Consume(b.ctx), zkq.ErrLockLost)
		if e, err := q.Peek(b.ctx, h.Name); err != nil || string(e.Value) != "theirs" {
			t.Errorf("%+v, %v", e, err)
		}
		b.consume(now)
	})
}

func TestUpdatesThatCannotBeChangeNothing(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		b.put(q, "a")
		h := b.take(q)
		b.want(h.Update(b.ctx, make([]byte, zkq.MaxValue+1)), zkq.ErrTooLarge)
		largest := bytes.Repeat([]byte("x"), zkq.MaxValue)
		b.want(h.Update(b.ctx, largest), nil)
		b.release(h)
		h = b.take(q)
		if !bytes.Equal(h.Value, largest) {
			t.Errorf("%d bytes", len(h.Value))
		}
		s := b.session(c)
		n := b.get(s, "/jobs/entries/"+h.Name)
		b.commit(s, coord.Delete(n.Path, n.Fence))
		b.want(h.Update(b.ctx, nil), zkq.ErrLockLost)
		b.want((&zkq.Held{}).Update(b.ctx, nil), zkq.ErrNotHeld)
	})
}
