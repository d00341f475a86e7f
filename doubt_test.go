package zkq_test

// Outcomes that nobody can know, and what must not be said of them.

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/zkq/zkq"
)

// inDoubt makes an attempt at a finish that has no answer; what the service does
// with it is up to lose.
func (b *bench) inDoubt(lose func(), act func(context.Context) error) {
	b.Helper()
	lose()
	ctx, cancel := context.WithTimeout(b.ctx, time.Millisecond)
	defer cancel()
	b.want(act(ctx), zkq.ErrUnknown)
}

// acts are the ways to finish.
var acts = map[string]func(context.Context, *zkq.Held) error{
	"consume": func(ctx context.Context, h *zkq.Held) error { return h.Consume(ctx) },
	"release": func(ctx context.Context, h *zkq.Held) error { return h.Release(ctx) },
	"fail":    func(ctx context.Context, h *zkq.Held) error { return h.Fail(ctx, "no") },
	"bury":    func(ctx context.Context, h *zkq.Held) error { return h.Bury(ctx, "no") },
}

// Two finishes of one handle are in doubt, and the first was applied: the second
// must not be said to be.
func TestAFinishIsNotTakenForAnotherOfItsHandle(t *testing.T) {
	for first, doFirst := range acts {
		for second, doSecond := range acts {
			if first == second {
				continue
			}
			t.Run(first+" and "+second, func(t *testing.T) {
				virtual(t, func(t *testing.T, b *bench) {
					q, c := b.queue()
					b.put(q, "a")
					h := b.take(q)
					b.inDoubt(func() { c.DropReply() }, func(ctx context.Context) error { return doFirst(ctx, h) })
					c.DropRequest()
					if err := doSecond(b.ctx, h); err == nil {
						t.Errorf("%s was said to be applied", second)
					}
					if err := doSecond(b.ctx, h); err == nil {
						t.Errorf("%s was said to be applied when asked again", second)
					}
				})
			})
		}
	}
}

// A consume in doubt was not applied if the entry stands there without a lock.
func TestAFinishInDoubtIsNotAlreadyDoneWhenTheLockWasBroken(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		name := b.put(q, "a")
		for first, second := range map[string]string{"consume": "release", "bury": "consume"} {
			h := b.take(q)
			b.inDoubt(func() { c.DropRequest() }, func(ctx context.Context) error { return acts[first](ctx, h) })
			if err := q.BreakLock(b.ctx, name); err != nil {
				t.Fatal(err)
			}
			if err := acts[second](b.ctx, h); errors.Is(err, zkq.ErrAlreadyDone) || err == nil {
				t.Errorf("%s after %s: %v", second, first, err)
			}
		}
	})
}

// A trace of an earlier hold says nothing of this one.
func TestALockThatWasBrokenBeforeIsNotThisOnes(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		name := b.put(q, "a")
		for _, act := range []string{"fail", "consume"} {
			b.take(q)
			if err := q.BreakLock(b.ctx, name); err != nil {
				t.Fatal(err)
			}
			h := b.take(q)
			c.DropReply()
			if err := acts[act](b.ctx, h); err != nil {
				t.Errorf("%s: %v", act, err)
			}
		}
	})
}
