package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// TestSimulationOfTheSimpleQueue does for Queue what TestSimulation does for
// LockingQueue: each acknowledged put is handed out at most once without a doubt,
// and never lost without one.
func TestSimulationOfTheSimpleQueue(t *testing.T) {
	seeds := uint64(1500)
	if raceDetector {
		seeds = 100
	}
	counts := make(map[string]int)
	for seed := uint64(1); seed <= seeds; seed++ {
		bad, trace := simulatePlain(t, seed, counts)
		if len(bad) > 0 {
			t.Fatalf("seed %d: %s\n%s", seed, strings.Join(bad, "\n"), trace)
		}
	}
	t.Logf("%d schedules, 0 violations; %v", seeds, counts)
	for _, what := range []string{"put ok", "got", "get unknown", "get failed"} {
		if counts[what] == 0 {
			t.Errorf("no schedule had a %q", what)
		}
	}
}

func simulatePlain(t *testing.T, seed uint64, counts map[string]int) (bad []string, trace string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sim := coordtest.NewSim(seed, coordtest.Swarm(seed))
		sim.Timeout = 4 * time.Second
		sim.Aim = func(ops []coord.Op) bool { return ops[0].Kind == coord.KindDelete }
		rng := rand.New(rand.NewPCG(seed, 3))
		var mu sync.Mutex
		present, puts, sure, doubtful := map[string]bool{}, map[string]bool{}, map[string]int{}, map[string]int{}
		removed := map[string]int{}
		sim.Store().Observe(func(a coordtest.Applied) {
			for i, op := range a.Ops {
				if op.Kind == coord.KindSequential {
					present[strings.TrimPrefix(a.Results[i].Path, "/simple/")] = true
				}
				if name, ok := strings.CutPrefix(op.Path, "/simple/entry-"); ok && op.Kind == coord.KindDelete {
					removed["entry-"+name]++
					delete(present, "entry-"+name)
				}
			}
		})
		sim.Run(func() {
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for p := range 1 + rng.IntN(3) {
				c := sim.Open(fmt.Sprint("p", p))
				q := zkq.NewQueue(c, "simple")
				for g := range 2 {
					rng := rand.New(rand.NewPCG(rng.Uint64(), 1))
					actor := coordtest.As(ctx, fmt.Sprint("getter", g))
					wg.Go(func() {
						for ctx.Err() == nil {
							e, err := q.Get(actor)
							mu.Lock()
							switch {
							case err == nil:
								sure[e.Name]++
								counts["got"]++
							case errors.Is(err, zkq.ErrUnknown):
								doubtful[e.Name]++
								counts["get unknown"]++
							default:
								counts["get failed"]++
							}
							mu.Unlock()
							sleep(ctx, time.Duration(1+rng.IntN(400))*time.Millisecond)
						}
					})
					time.Sleep(time.Microsecond)
				}
				rng := rand.New(rand.NewPCG(rng.Uint64(), 2))
				actor := coordtest.As(ctx, "putter")
				wg.Go(func() {
					for range 8 {
						name, err := q.Put(actor, []byte("x"), zkq.WithPriority(100+rng.IntN(2)))
						if err == nil {
							mu.Lock()
							puts[name] = true
							counts["put ok"]++
							mu.Unlock()
						}
						sleep(ctx, time.Duration(rng.IntN(1500))*time.Millisecond)
					}
				})
				defer func() { q.Close(); c.Close() }()
				time.Sleep(time.Millisecond)
			}
			time.Sleep(20 * time.Second)
			sim.Calm()
			time.Sleep(40 * time.Second)
			stop()
			wg.Wait()
		})
		say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
		if len(present) > 0 {
			say("left after 40 calm seconds: %v", present)
		}
		for name, n := range removed {
			switch {
			case n > 1:
				say("%s was removed %d times", name, n)
			case sure[name] > 1:
				say("%s was handed out %d times without a doubt", name, sure[name])
			case sure[name]+doubtful[name] == 0:
				say("%s was removed and handed to nobody", name)
			}
		}
		for name := range puts {
			if removed[name] != 1 {
				say("%s was put and never handed out", name)
			}
		}
		trace = sim.Trace()
	})
	return bad, trace
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
