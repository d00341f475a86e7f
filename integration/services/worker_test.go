package services_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq"
)

// TestWorkersTakeTurnsUntilAllIsDoneOrDead: workers come and go while they work, and one that is stopped spends no
// attempt of an entry.
func TestWorkersTakeTurnsUntilAllIsDoneOrDead(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		const entries = 60
		c := p.client()
		q := p.locking(c, "jobs")
		for i := range entries {
			p.put(q, fmt.Sprint(i))
		}
		var mu sync.Mutex
		done, failures := make(map[string]int), make(map[string]int)
		handler := zkq.HandlerFunc(func(ctx context.Context, h *zkq.Held) error {
			value := string(h.Value)
			mu.Lock()
			first := failures[value] == 0
			if value[len(value)-1] == '3' && first {
				failures[value]++
			}
			mu.Unlock()
			switch {
			case h.Failures > 1:
				t.Errorf("%s has %d failures", value, h.Failures)
			case value[len(value)-1] == '3' && first:
				panic("once")
			case value[len(value)-1] == '7':
				return zkq.Skip(errors.New("seven"))
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
			mu.Lock()
			done[value]++
			mu.Unlock()
			return nil
		})
		deadline := time.Now().Add(2 * time.Minute)
		for shift := 0; ; shift++ {
			st, err := q.Stat(p.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if st.Ready+st.Held+st.Delayed == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("left are %+v", st)
			}
			ctx, cancel := context.WithTimeout(p.ctx, 400*time.Millisecond)
			var shifts sync.WaitGroup
			for range 2 {
				mine := p.client()
				shifts.Go(func() {
					defer mine.Close()
					mq := zkq.NewLockingQueue(mine, "jobs")
					defer mq.Close()
					w := &zkq.Worker{
						Queue: mq, Handler: handler, Concurrency: 2, MaxFailures: 2, Grace: time.Millisecond,
						Backoff: func(int) time.Duration { return 50 * time.Millisecond },
					}
					if err := w.Run(ctx); err != nil {
						t.Errorf("Run: %v", err)
					}
				})
			}
			shifts.Wait()
			cancel()
		}
		st, err := q.Stat(p.ctx)
		if err != nil || st.Dead != entries/10 || len(done) != entries-entries/10 {
			t.Errorf("%d are done, %+v are left, %v", len(done), st, err)
		}
		for value, n := range done {
			if n != 1 {
				t.Errorf("%s was done %d times", value, n)
			}
		}
	})
}
