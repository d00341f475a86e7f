package coordtest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// The tests that the package comment recommends for every handler. Copy them to begin with.

// worker runs a handler on the queue "mail" until the returned function is called.
func worker(t *testing.T, c coord.Coordinator, handle zkq.HandlerFunc) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	q := zkq.NewLockingQueue(c, "mail")
	done := make(chan error, 1)
	go func() { done <- (&zkq.Worker{Queue: q, Handler: handle}).Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, coord.ErrClosed) {
			t.Errorf("Run: %v", err)
		}
		q.Close()
		c.Close()
	}
}

func putMail(t *testing.T, c coord.Coordinator, values ...string) {
	t.Helper()
	q := zkq.NewLockingQueue(c, "mail")
	defer q.Close()
	for _, value := range values {
		if _, err := q.Put(t.Context(), []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGuideExpireASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := coordtest.NewStore()
		c := store.Open(coordtest.Options{})
		putMail(t, c, "hello")
		var causes []error
		stop := worker(t, c, func(ctx context.Context, h *zkq.Held) error {
			if h.Deliveries > 1 {
				return nil
			}
			c.Expire()
			<-ctx.Done() // a handler must watch its context
			causes = append(causes, context.Cause(ctx))
			return ctx.Err()
		})
		time.Sleep(time.Minute)
		stop()
		if len(causes) != 1 || !errors.Is(causes[0], zkq.ErrLockLost) {
			t.Errorf("the handler's context ended for %v", causes)
		}
	})
}

func TestGuideCutAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := coordtest.NewStore()
		mine, others := store.Open(coordtest.Options{}), store.Open(coordtest.Options{})
		putMail(t, mine, "hello")
		var sent []string
		slow := func(name string, d time.Duration) zkq.HandlerFunc {
			return func(ctx context.Context, h *zkq.Held) error {
				select {
				case <-time.After(d):
					sent = append(sent, name)
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
		}
		stopMine := worker(t, mine, slow("mine", time.Minute))
		time.Sleep(time.Second)
		mine.Cut() // for longer than its session lasts
		stopOthers := worker(t, others, slow("others", time.Second))
		time.Sleep(30 * time.Second)
		mine.Heal()
		time.Sleep(2 * time.Minute)
		stopMine()
		stopOthers()
		if len(sent) != 1 || sent[0] != "others" {
			t.Errorf("sent by %v", sent)
		}
	})
}

func TestGuideCrashAProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := coordtest.NewStore()
		mine, others := store.Open(coordtest.Options{}), store.Open(coordtest.Options{})
		defer others.Close()
		putMail(t, others, "hello")
		stop := worker(t, mine, func(ctx context.Context, _ *zkq.Held) error {
			mine.Crash()
			<-ctx.Done()
			return ctx.Err()
		})
		q := zkq.NewLockingQueue(others, "mail")
		defer q.Close()
		time.Sleep(time.Second)
		start := time.Now()
		h, err := q.Take(t.Context())
		if err != nil || h.Deliveries != 2 || h.Failures != 0 || time.Since(start) > 11*time.Second {
			t.Errorf("took %+v, %v after %v", h, err, time.Since(start))
		}
		stop()
	})
}

func TestGuideLetTimePass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := coordtest.NewStore().Open(coordtest.Options{})
		putMail(t, c, "hello")
		start := time.Now()
		var at []time.Duration
		stop := worker(t, c, func(context.Context, *zkq.Held) error {
			if at = append(at, time.Since(start).Round(time.Minute)); len(at) < 3 {
				return zkq.Snooze(24 * time.Hour)
			}
			return nil
		})
		time.Sleep(72 * time.Hour) // takes no time
		stop()
		if len(at) != 3 || at[2] != 48*time.Hour {
			t.Errorf("handled at %v", at)
		}
	})
}
