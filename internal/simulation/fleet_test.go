package simulation

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/coord/coordtest/sim"
	"github.com/zkq/zkq/internal/testhook"
	"github.com/zkq/zkq/internal/testqueue"
	"github.com/zkq/zkq/internal/testrace"
)

var fleetSeeds = flag.Uint64("sim.fleets", 0, "fleets to simulate, from -sim.first on; 0: 400, or 60 under the race detector")

// TestFleetsWakeInTime runs fleets of up to twelve processes, of which a few watch an idle queue and the others sleep.
// Entries come one by one and in bursts, and processes die, are cut off, stand still and lose their sessions, those that
// watch before all. No entry may be available for longer than R13 says while a process waits.
func TestFleetsWakeInTime(t *testing.T) {
	seeds := *fleetSeeds
	if seeds == 0 {
		seeds = 400
		if testrace.Enabled {
			seeds = 60
		}
	}
	var mu sync.Mutex
	next, total := uint64(0), make(map[string]int)
	t.Run("lanes", func(t *testing.T) {
		for lane := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(lane), func(t *testing.T) {
				t.Parallel()
				for {
					mu.Lock()
					seed := *simFirst + next
					next++
					mu.Unlock()
					if seed >= *simFirst+seeds || t.Failed() {
						return
					}
					counts := runFleet(t, seed)
					mu.Lock()
					for what, n := range counts {
						total[what] += n
					}
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("%d fleets, %v", seeds, total)
	for _, what := range []string{"on duty", "off duty", "call", "cut", "stands still", "expired", "crash", "watcher harmed", "burst"} {
		if total[what] == 0 && seeds >= 60 && !t.Failed() {
			t.Errorf("no fleet had a %q", what)
		}
	}
}

// simFleet is a fleet and what the service has seen of it.
type simFleet struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	sim     *sim.Simulator
	start   time.Time
	timeout time.Duration
	calm    time.Duration // within which an available entry is to be taken

	mu        sync.Mutex
	counts    map[string]int
	available map[string]time.Time // entry: since when
	onDuty    map[string]string    // node of a watcher: its client
	idle      map[string]int       // process: callers that wait
	outUntil  map[string]time.Time // process: harmed until then
	roused    time.Time            // since when there is always a process that waits, and was not harmed
	excused   time.Time            // until then the last harm may keep entries waiting
	bad       string
}

// runFleet simulates one fleet, and returns how often things happened.
func runFleet(t *testing.T, seed uint64) map[string]int {
	rng := rand.New(rand.NewPCG(seed, 23))
	f := &simFleet{
		t: t, seed: seed, rng: rng, timeout: time.Duration(2+rng.IntN(4)) * time.Second, calm: 1100 * time.Millisecond,
		counts: make(map[string]int), available: make(map[string]time.Time), onDuty: make(map[string]string),
		idle: make(map[string]int), outUntil: make(map[string]time.Time),
	}
	trace := ""
	inSeed(seed, func() {
		synctest.Test(t, func(t *testing.T) {
			rates := sim.Rates{Longest: 400 * time.Millisecond}
			if rng.IntN(3) == 0 {
				rates.Delay, rates.SlowReply = .2*rng.Float64(), .2*rng.Float64()
				f.calm += time.Second // each request may take a while
			}
			if rng.IntN(4) == 0 {
				rates.Lag = .3 * rng.Float64()
				f.calm += time.Second // and each of the signals of a hand-over
			}
			f.sim, f.start = sim.New(seed, rates), time.Now()
			f.sim.Timeout = f.timeout
			f.sim.Store().Observe(f.applied)
			f.sim.Run(func() { f.run(t.Context()) })
			trace = f.sim.Trace()
		})
	})
	if f.bad != "" {
		t.Errorf("seed %d: %s\n%s", seed, f.bad, trace)
	}
	return f.counts
}

// applied follows which entries are available, and which members are on duty.
func (f *simFleet) applied(a coordtest.Applied) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.Expired {
		f.counts["expired"]++
	}
	locked := make(map[string]bool)
	unlocked := make(map[string]bool)
	for i, op := range a.Ops {
		at := op.Path
		if a.Results != nil {
			at = a.Results[i].Path
		}
		dir, name := path.Split(at)
		deleted := op.Kind == coord.KindDelete
		switch dir {
		case "/jobs/watchers/":
			switch {
			case name == "call" && !deleted:
				f.counts["call"]++
			case name == "call":
			case deleted:
				delete(f.onDuty, name)
				f.counts["off duty"]++
			default:
				f.onDuty[name] = a.Client
				f.counts["on duty"]++
			}
		case simTaken:
			locked[name], unlocked[name] = !deleted, deleted
		case simEntries:
			if deleted {
				unlocked[name] = false
				f.taken(name)
			} else if op.Kind == coord.KindSequential {
				f.available[name] = time.Now()
			}
		}
	}
	for name, is := range locked {
		if is {
			f.taken(name)
		}
	}
	for name, is := range unlocked {
		if is && !locked[name] && f.exists(a, name) {
			f.available[name] = time.Now()
		}
	}
}

// exists reports whether an entry was not removed by the commit that removed its lock.
func (f *simFleet) exists(a coordtest.Applied, name string) bool {
	for _, op := range a.Ops {
		if op.Kind == coord.KindDelete && op.Path == simEntries+name {
			return false
		}
	}
	return true
}

// taken judges how long an entry was available.
func (f *simFleet) taken(name string) {
	since, ok := f.available[name]
	if !ok {
		return
	}
	delete(f.available, name)
	f.counts["taken"]++
	f.judge(name, since)
}

// judge requires that no entry stays available while a process waits.
func (f *simFleet) judge(name string, since time.Time) {
	now := time.Now()
	if since.Before(f.roused) {
		since = f.roused
	}
	if since.Before(f.excused) {
		since = f.excused
	}
	if f.roused.IsZero() || now.Sub(since) <= f.calm {
		return
	}
	if f.bad == "" {
		f.bad = fmt.Sprintf("%v: %s was available for %v while a process waited", now.Sub(f.start), name, now.Sub(since))
	}
}

// wait counts callers of a process that wait.
func (f *simFleet) wait(process string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle[process] += n
	f.noteIdleLocked()
}

// noteIdleLocked keeps roused up to date.
func (f *simFleet) noteIdleLocked() {
	now, some := time.Now(), false
	for process, n := range f.idle {
		some = some || n > 0 && !now.Before(f.outUntil[process])
	}
	switch {
	case !some:
		if !f.roused.IsZero() {
			for name, since := range f.available {
				f.judge(name, since)
			}
		}
		f.roused = time.Time{}
	case f.roused.IsZero():
		f.roused = now
	}
}

// run has a fleet work on entries while its processes are harmed, and then until all is done.
func (f *simFleet) run(ctx context.Context) {
	size := 2 + f.rng.IntN(11)
	most := 1 + f.rng.IntN(3)
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range size {
		p := &fleetProcess{f: f, name: fmt.Sprintf("p%02d", i), watchers: most, workers: 1 + f.rng.IntN(3), rng: rand.New(rand.NewPCG(f.seed, uint64(100+i)))}
		wg.Go(func() { p.live(ctx) })
		time.Sleep(time.Duration(1+f.rng.IntN(300)) * time.Millisecond)
	}
	wg.Go(func() { f.harm(ctx, size) })
	f.feed(ctx)
	for range 60 {
		time.Sleep(time.Second)
		f.mu.Lock()
		left := len(f.available)
		for name, since := range f.available {
			f.judge(name, since)
		}
		done := left == 0 || f.bad != ""
		f.mu.Unlock()
		if done {
			break
		}
	}
	stop()
	wg.Wait()
}

// feed puts entries, one by one and in bursts, with pauses in which the fleet comes to rest.
func (f *simFleet) feed(ctx context.Context) {
	rng := rand.New(rand.NewPCG(f.seed, 31))
	c := f.sim.Open("feeder")
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs", zkq.Producer(fmt.Sprintf("%016x", 1)), testqueue.Settings(testhook.Settings{Woke: sim.AwaitTurn}))
	defer q.Close()
	ctx = sim.WithActor(ctx, "feeder")
	for range 12 + rng.IntN(20) {
		n := 1
		if rng.IntN(8) == 0 {
			n = 1 + rng.IntN(60)
			f.mu.Lock()
			f.counts["burst"]++
			f.mu.Unlock()
		}
		values := make([][]byte, n)
		for i := range values {
			values[i] = []byte(strings.Repeat("x", i))
		}
		q.PutAll(ctx, values)
		pause := time.Duration(rng.IntN(600)) * time.Millisecond
		if rng.IntN(4) == 0 {
			pause += time.Duration(rng.IntN(5000)) * time.Millisecond
		}
		time.Sleep(pause)
	}
}

// harm harms a process now and then: one on duty in most cases. It leaves time for the fleet to recover.
func (f *simFleet) harm(ctx context.Context, size int) {
	rng := rand.New(rand.NewPCG(f.seed, 37))
	for range rng.IntN(5) {
		simSleep(ctx, time.Duration(500+rng.IntN(7000))*time.Millisecond)
		if ctx.Err() != nil {
			return
		}
		victims := []string{fmt.Sprintf("p%02d", rng.IntN(size))}
		f.mu.Lock()
		if rng.IntN(4) > 0 {
			victims = nil
			for _, name := range sortedValues(f.onDuty) {
				if len(victims) == 0 || rng.IntN(2) == 0 {
					victims = append(victims, name)
					f.counts["watcher harmed"]++
				}
			}
		}
		kind, d := rng.IntN(4), time.Duration(100+rng.IntN(9000))*time.Millisecond
		for _, victim := range victims {
			f.counts[[]string{"cut", "stands still", "expire", "crash"}[kind]]++
			f.outUntil[victim] = time.Now().Add(d)
			if kind == 3 {
				f.outUntil[victim] = time.Now().Add(time.Second)
			}
		}
		// What a watcher held or watched is free with its session, a tick and a second later.
		f.excused = time.Now().Add(f.timeout + time.Second)
		f.noteIdleLocked()
		f.mu.Unlock()
		for _, victim := range victims {
			switch kind {
			case 0:
				f.sim.CutOff(victim, d)
			case 1:
				f.sim.StandStill(victim, d)
			case 2:
				f.sim.Expire(victim)
			case 3:
				f.sim.Crash(victim)
			}
			time.Sleep(time.Microsecond)
		}
		simSleep(ctx, f.timeout+2*time.Second)
		f.mu.Lock()
		f.noteIdleLocked()
		f.mu.Unlock()
	}
}

// sortedValues returns the values of a map in the order of its keys.
func sortedValues(of map[string]string) (values []string) {
	for _, key := range slices.Sorted(maps.Keys(of)) {
		values = append(values, of[key])
	}
	return values
}

// fleetProcess is a process of a fleet. It begins again when it has crashed.
type fleetProcess struct {
	f        *simFleet
	name     string
	watchers int
	workers  int
	lives    int
	rng      *rand.Rand
}

// live runs the process until ctx ends.
func (p *fleetProcess) live(ctx context.Context) {
	for ctx.Err() == nil {
		p.lives++
		c := p.f.sim.Open(p.name)
		id := fmt.Sprintf("%016x%016x", p.rng.Uint64(), p.lives)
		q := zkq.NewLockingQueue(c, "jobs", zkq.Holder(id), zkq.Producer(id[16:]), testqueue.Settings(testhook.Settings{Woke: sim.AwaitTurn, Watchers: p.watchers}))
		var wg sync.WaitGroup
		for n := range p.workers {
			rng := rand.New(rand.NewPCG(p.rng.Uint64(), uint64(n)))
			wg.Go(func() { p.work(ctx, q, n, rng) })
			time.Sleep(time.Duration(1+n) * time.Microsecond)
		}
		wg.Wait()
		q.Close()
		c.Close()
		p.f.mu.Lock()
		p.f.idle[p.name] = 0
		p.f.mu.Unlock()
		simSleep(ctx, 500*time.Millisecond)
	}
}

// work takes and finishes entries until the client is closed or ctx ends.
func (p *fleetProcess) work(ctx context.Context, q *zkq.LockingQueue, n int, rng *rand.Rand) {
	ctx = sim.WithActor(ctx, fmt.Sprint(p.name, "worker", n))
	q.Register(ctx)
	for ctx.Err() == nil {
		simTurn(n)
		waiting, cancel := ctx, context.CancelFunc(func() {})
		if rng.IntN(8) == 0 {
			waiting, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(4000))*time.Millisecond)
		}
		p.f.wait(p.name, 1)
		h, err := q.Take(waiting)
		p.f.wait(p.name, -1)
		cancel()
		if errors.Is(err, coord.ErrClosed) || errors.Is(err, zkq.ErrClosed) {
			return
		}
		if err != nil {
			simSleep(ctx, time.Duration(1+rng.IntN(20))*time.Millisecond)
			continue
		}
		d := time.Duration(rng.IntN(80)) * time.Millisecond
		if rng.IntN(3) == 0 {
			d = time.Duration(rng.IntN(2500)) * time.Millisecond
		}
		simSleep(ctx, d)
		if rng.IntN(12) == 0 {
			h.Release(ctx)
		} else {
			h.Consume(ctx)
		}
	}
}
