package services_test

import (
	"context"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord/coordtest"
)

// TestTakeSeesWhatItsProcessWasTold has a process change which entry is the first, and take at once: whatever was
// acknowledged to the process before, through any of its handles, the take counts with.
func TestTakeSeesWhatItsProcessWasTold(t *testing.T) {
	const rounds = 200 / scale
	test := func(t *testing.T, p *place) {
		c := p.client()
		q, other := p.locking(c, "jobs"), p.locking(c, "jobs")
		for range 5 {
			p.put(q, "x")
		}
		take := func() *zkq.Held {
			t.Helper()
			ctx, cancel := context.WithTimeout(p.ctx, 3*time.Minute)
			defer cancel()
			h, err := q.Take(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		// Each act returns the name of the entry that the next take has to return. That is consumed if it is urgent,
		// and given back otherwise.
		acts := []struct {
			name string
			do   func(h *zkq.Held) string
		}{
			{"release", func(h *zkq.Held) string {
				must(h.Release(p.ctx))
				return h.Name
			}},
			{"fail", func(h *zkq.Held) string {
				must(h.Fail(p.ctx, "no"))
				return h.Name
			}},
			{"break the lock", func(h *zkq.Held) string {
				must(q.BreakLock(p.ctx, h.Name))
				return h.Name
			}},
			{"break the lock by another handle", func(h *zkq.Held) string {
				must(other.BreakLock(p.ctx, h.Name))
				return h.Name
			}},
			{"put", func(h *zkq.Held) string {
				return p.put(q, "urgent", zkq.WithPriority(1))
			}},
			{"put by another handle", func(h *zkq.Held) string {
				return p.put(other, "urgent", zkq.WithPriority(1))
			}},
			{"requeue", func(h *zkq.Held) string {
				p.put(q, "urgent", zkq.WithPriority(1))
				dead := take()
				must(dead.Bury(p.ctx, "no"))
				name, err := q.Requeue(p.ctx, dead.Name)
				must(err)
				return name
			}},
		}
		for _, act := range acts {
			t.Run(act.name, func(t *testing.T) {
				surprises := 0
				for range rounds {
					h := take()
					want := act.do(h)
					got := take()
					if got.Name != want {
						surprises++
					}
					if got.Priority == 1 {
						must(got.Consume(p.ctx))
					} else {
						must(got.Release(p.ctx))
					}
					if holds, err := h.HoldsLock(p.ctx); err == nil && holds {
						must(h.Release(p.ctx))
					}
				}
				if surprises > 0 {
					t.Errorf("%d of %d takes returned another entry than the first", surprises, rounds)
				}
			})
		}
	}
	t.Run("memory", func(t *testing.T) {
		p := newPlace(t, "memory")
		p.store = coordtest.NewEtcdStore()
		test(t, p)
	})
	onEach(t, test)
}
