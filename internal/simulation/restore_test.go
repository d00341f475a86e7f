package simulation

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest/sim"
	"github.com/zkq/zkq/internal/testhook"
	"github.com/zkq/zkq/internal/testqueue"
)

var (
	restoreSeeds = flag.Uint64("restore.seeds", 150, "simulated restores of the service")
	restoreFirst = flag.Uint64("restore.first", 1, "the first seed of them")
)

// TestProcessesGoOnAfterARestore puts the simulated service back to a backup while processes take, poll, exchange, wait
// and put. After that the service assigns the same revisions, fences and numbers again, and removed entries are back.
// The test requires liveness only: every entry that is there is taken and finished, and every put is made.
func TestProcessesGoOnAfterARestore(t *testing.T) {
	for seed := *restoreFirst; seed < *restoreFirst+*restoreSeeds; seed++ {
		var r *simRestore
		synctest.Test(t, func(t *testing.T) {
			r = newSimRestore(seed)
			r.sim.Run(func() { r.run(t.Context()) })
		})
		if len(r.wrong) > 0 {
			t.Fatalf("seed %d: %v\n%s", seed, r.wrong, r.sim.Trace())
		}
	}
}

// simRestore is one schedule with a restore.
type simRestore struct {
	seed uint64
	sim  *sim.Simulator
	rng  *rand.Rand

	mu    sync.Mutex
	wrong []string
}

func newSimRestore(seed uint64) *simRestore {
	rates := sim.Swarm(seed)
	rates.Late = 0 // a commit from before the restore is not applied after it
	return &simRestore{seed: seed, sim: sim.New(seed, rates), rng: rand.New(rand.NewPCG(seed, 21))}
}

func (r *simRestore) violation(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
}

func (r *simRestore) run(ctx context.Context) {
	var wg sync.WaitGroup
	working, stop := context.WithCancel(ctx)
	defer stop()
	faulty, calm := context.WithCancel(ctx)
	waited := make(chan struct{})
	for n := range 1 + r.rng.IntN(3) {
		r.process(working, faulty, n, &wg)
	}
	wg.Go(func() {
		defer close(waited)
		<-faulty.Done()
		r.waits(working)
	})
	time.Sleep(time.Duration(1+r.rng.IntN(5000)) * time.Millisecond)
	backup := r.sim.Store().Backup()
	time.Sleep(time.Duration(1+r.rng.IntN(5000)) * time.Millisecond)
	r.sim.Calm()
	r.sim.Store().Restore(backup)
	calm()
	select {
	case <-waited:
	case <-time.After(90 * time.Second):
		r.violation("after 90 calm seconds the queue is not empty")
	}
	stop()
	wg.Wait()
}

// process takes and puts with one handle. Its last puts begin after the restore.
func (r *simRestore) process(ctx, faulty context.Context, n int, wg *sync.WaitGroup) {
	c := r.sim.Open(fmt.Sprint("p", n))
	q := zkq.NewLockingQueue(c, "jobs", testqueue.Settings(testhook.Settings{Woke: sim.AwaitTurn, DuePage: 1 + r.rng.IntN(4), Bulk: 2}))
	var mine sync.WaitGroup
	start := func(name string, f func(ctx context.Context, rng *rand.Rand)) {
		rng := rand.New(rand.NewPCG(r.seed, r.rng.Uint64()))
		mine.Go(func() { f(sim.WithActor(ctx, name), rng) })
	}
	for i := range 1 + r.rng.IntN(2) {
		take := []func(context.Context, *zkq.LockingQueue, *rand.Rand){r.takes, r.polls, r.exchanges, r.works}[r.rng.IntN(4)]
		start(fmt.Sprint("taker", i), func(ctx context.Context, rng *rand.Rand) { take(ctx, q, rng) })
	}
	start("producer", func(ctx context.Context, rng *rand.Rand) { r.puts(ctx, faulty, q, rng) })
	wg.Go(func() {
		mine.Wait()
		q.Close()
		c.Close()
	})
}

// waits returns when the queue was empty at some time after the restore.
func (r *simRestore) waits(ctx context.Context) {
	time.Sleep(10 * time.Second) // the last puts have been made
	c := r.sim.Open("waiter")
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()
	if err := q.WaitEmpty(ctx); err != nil && ctx.Err() == nil {
		r.violation("a wait for the queue to be empty: %v", err)
	}
}

// puts puts before the restore, and three times after it.
func (r *simRestore) puts(ctx, faulty context.Context, q *zkq.LockingQueue, rng *rand.Rand) {
	for after := 0; after < 3 && ctx.Err() == nil; {
		var opts []zkq.PutOption
		switch rng.IntN(4) {
		case 0:
			opts = append(opts, zkq.WithDelay(time.Duration(1+rng.IntN(3000))*time.Millisecond))
		case 1:
			opts = append(opts, zkq.WithTTL(time.Duration(1+rng.IntN(3000))*time.Millisecond))
		}
		calm := faulty.Err() != nil
		putting, cancel := context.WithTimeout(ctx, 8*time.Second)
		_, err := q.Put(putting, []byte("value"), opts...)
		cancel()
		switch {
		case !calm || errors.Is(err, zkq.ErrUnknown): // it was sent before the restore was told
		case err != nil:
			r.violation("a put after the restore: %v", err)
			return
		default:
			after++
		}
		simSleep(ctx, time.Duration(1+rng.IntN(600))*time.Millisecond)
	}
}

// finishes consumes what is held, unless the lock was lost, and repeats that while the outcome is unknown.
func (r *simRestore) finishes(ctx context.Context, h *zkq.Held) {
	for ctx.Err() == nil {
		finishing, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := h.Consume(finishing)
		cancel()
		if err == nil || errors.Is(err, zkq.ErrLockLost) || errors.Is(err, zkq.ErrAlreadyDone) || errors.Is(err, zkq.ErrUnknown) {
			return
		}
		simSleep(ctx, 100*time.Millisecond)
	}
}

// failed records an error with which no take may end.
func (r *simRestore) failed(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil && errors.Is(err, zkq.ErrInvalid) {
		r.violation("%s ended with %v", what, err)
	}
}

func (r *simRestore) takes(ctx context.Context, q *zkq.LockingQueue, rng *rand.Rand) {
	for ctx.Err() == nil {
		h, err := q.Take(ctx)
		r.failed(ctx, "a take", err)
		if err == nil {
			simSleep(ctx, time.Duration(rng.IntN(500))*time.Millisecond)
			r.finishes(ctx, h)
		}
	}
}

func (r *simRestore) polls(ctx context.Context, q *zkq.LockingQueue, rng *rand.Rand) {
	for ctx.Err() == nil {
		h, err := q.TryTake(ctx)
		r.failed(ctx, "a poll", err)
		simSleep(ctx, time.Duration(1+rng.IntN(500))*time.Millisecond)
		if err == nil {
			r.finishes(ctx, h)
		}
	}
}

func (r *simRestore) exchanges(ctx context.Context, q *zkq.LockingQueue, rng *rand.Rand) {
	for ctx.Err() == nil {
		held, err := q.TakeN(ctx, 2)
		r.failed(ctx, "a take of two", err)
		for len(held) > 0 && ctx.Err() == nil {
			simSleep(ctx, time.Duration(rng.IntN(500))*time.Millisecond)
			next, err := q.Exchange(ctx, held, 2)
			r.failed(ctx, "an exchange", err)
			for _, e := range testqueue.FinishErrors(err) {
				r.finishes(ctx, e.Held)
			}
			held = next
		}
	}
}

func (r *simRestore) works(ctx context.Context, q *zkq.LockingQueue, rng *rand.Rand) {
	w := &zkq.Worker{Queue: q, Grace: time.Second, Handler: zkq.HandlerFunc(func(ctx context.Context, _ *zkq.Held) error {
		simSleep(ctx, time.Duration(rng.IntN(500))*time.Millisecond)
		return nil
	})}
	if err := w.Run(ctx); err != nil && !errors.Is(err, coord.ErrClosed) && ctx.Err() == nil {
		r.violation("a worker ended with %v", err)
	}
}
