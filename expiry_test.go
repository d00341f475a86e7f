package zkq_test

import (
	"errors"
	"testing"
	"time"

	"github.com/zkq/zkq"
)

// left demands that nothing of the queue's is left but the nodes that stay.
func (b *bench) left(q *zkq.LockingQueue, dirs ...string) {
	b.Helper()
	c := b.client()
	for _, dir := range append(dirs, "entries", "taken", "attempts", "delayed", "unique") {
		if left := b.children(b.session(c), "/jobs/"+dir); len(left) > 0 {
			b.Errorf("left: %q", left)
		}
	}
}

func TestAnExpiredEntryIsNeverHandedOut(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		other, _ := b.queue()
		gone := b.put(q, "gone", zkq.WithTTL(10*time.Second), zkq.WithPriority(1))
		held := b.put(q, "held", zkq.WithTTL(10*time.Second))
		aside := b.put(q, "aside", zkq.WithTTL(20*time.Second))
		late := b.put(q, "late", zkq.WithTTL(time.Minute), zkq.WithDelay(time.Hour))
		stays := b.put(q, "stays", zkq.WithTTL(time.Hour), zkq.WithPriority(200))
		h := b.take(q)
		if h.Name != gone || string(h.Value) != "gone" {
			t.Fatal(h)
		}
		keeps := b.take(q)
		b.release(b.take(q), zkq.After(30*time.Second))
		b.release(h)
		time.Sleep(10 * time.Second)
		if e, err := other.Peek(b.ctx, ""); err != nil || e.Name != stays || e.Expires.IsZero() {
			t.Errorf("the next is %+v, %v", e, err)
		}
		seen := make(map[string]zkq.State)
		for _, e := range b.entries(other) {
			seen[e.Name] = e.State
		}
		if len(seen) != 4 || seen[held] != zkq.StateHeld || seen[aside] != zkq.StateDelayed || seen[late] != zkq.StateDelayed || seen[stays] != zkq.StateReady {
			t.Errorf("%v", seen)
		}
		if st, err := other.Stat(b.ctx); err != nil || st.Ready != 1 || st.Held != 1 || st.Delayed != 2 {
			t.Errorf("%+v, %v", st, err)
		}
		got := b.take(other)
		if got.Name != stays {
			t.Errorf("took %s, %q", got.Name, got.Value)
		}
		b.consume(got)
		b.consume(keeps)
		b.empty(other)
		time.Sleep(2 * time.Hour)
		b.empty(other)
		b.left(q)
	})
}

// A waiting taker is handed what does not expire, and nothing else.
func TestWaitersPassOverWhatExpires(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		other, _ := b.queue()
		h := b.take3(q, "first")
		for range 200 {
			b.put(q, "gone", zkq.WithTTL(time.Second))
		}
		time.Sleep(2 * time.Second)
		b.put(q, "last")
		b.consume(h)
		if h := b.take(other); string(h.Value) != "last" {
			t.Errorf("took %q", h.Value)
		} else {
			b.consume(h)
		}
		b.left(q)
	})
}

func TestWaitEmptyDoesNotWaitForWhatHasExpired(t *testing.T) {
	for what, opts := range map[string][]zkq.PutOption{
		"ready": {}, "delayed": {zkq.WithDelay(time.Hour)},
	} {
		t.Run(what, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, _ := b.queue()
				b.put(q, "a", append(opts, zkq.WithTTL(time.Minute))...)
				start := time.Now()
				if err := q.WaitEmpty(b.ctx); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(start); d < 59*time.Second || d > 61*time.Second {
					t.Errorf("it waited for %v", d)
				}
				if _, err := q.Peek(b.ctx, ""); !errors.Is(err, zkq.ErrEmpty) {
					t.Error(err)
				}
			})
		})
	}
}

// The dead do not expire, and one that is requeued does not either.
func TestARequeuedEntryDoesNotExpire(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		b.put(q, "a", zkq.WithTTL(time.Minute), zkq.WithUnique("k"))
		b.bury(b.take(q), "no")
		time.Sleep(time.Hour)
		e := b.dead(q)
		if string(e.Value) == "" {
			t.Fatal(e)
		}
		if _, err := q.Requeue(b.ctx, e.Name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		b.put(q, "b", zkq.WithUnique("k"))
		if h := b.take(q); string(h.Value) != "a" {
			t.Errorf("took %q", h.Value)
		} else {
			b.consume(h)
		}
		b.consume(b.take(q))
		b.left(q)
	})
}

// An answer that is lost hands out nothing that has expired, and leaves nothing.
func TestLostRepliesOfClaimsOfWhatExpiredLeaveNothing(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				b.put(q, "a", zkq.WithTTL(time.Second), zkq.WithUnique("k"))
				time.Sleep(2 * time.Second)
				lose(c)
				b.empty(q)
				time.Sleep(time.Minute)
				b.empty(q)
				b.left(q)
			})
		})
	}
}
