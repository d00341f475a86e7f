package services_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq"
)

// TestATakeBehindExpiredEntries takes what stands behind 1,000 entries that expired, and behind
// 200 delayed ones.
func TestATakeBehindExpiredEntries(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		q := p.locking(p.client(), "behind")
		if _, err := q.PutAll(p.ctx, make([][]byte, 1000), zkq.WithTTL(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := q.PutAll(p.ctx, make([][]byte, 200), zkq.WithDelay(time.Millisecond), zkq.WithTTL(2*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		p.put(q, "late", zkq.WithDelay(5*time.Millisecond))
		p.put(q, "living")
		time.Sleep(10 * time.Millisecond)
		for _, want := range []string{"living", "late"} {
			start := time.Now()
			h, err := q.TryTake(p.ctx)
			if err != nil || string(h.Value) != want {
				t.Fatalf("%v, %v; want %s", h, err, want)
			}
			t.Logf("%s after %v", want, time.Since(start))
			if err := h.Consume(p.ctx); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := q.Len(p.ctx); err != nil || n != 0 {
			t.Errorf("%d entries are left, %v", n, err)
		}
	})
}

// TestAStreamGoesInOrderThroughABoundedQueue puts a thousand entries through a queue of three.
func TestAStreamGoesInOrderThroughABoundedQueue(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		const all, bound = 1000, 3
		q, consumer := p.locking(p.client(), "stream"), p.locking(p.client(), "stream")
		if err := q.Create(p.ctx, zkq.QueueConfig{MaxEntries: bound}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range all {
				h, err := consumer.Take(p.ctx)
				if err != nil || string(h.Value) != fmt.Sprint(i) {
					t.Errorf("took %v, %v; want %d", h, err, i)
					return
				}
				if n, err := consumer.Len(p.ctx); err != nil || n > bound {
					t.Errorf("%d entries stand, %v", n, err)
				}
				if err := h.Consume(p.ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
		var values [][]byte
		for i := range all {
			values = append(values, fmt.Append(nil, i))
		}
		for len(values) > 0 {
			names, err := q.PutSome(p.ctx, values, zkq.WithWait(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			values = values[len(names):]
		}
		wg.Wait()
	})
}
