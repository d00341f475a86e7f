package zkq_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/priority"
)

var (
	simSeeds = flag.Int("sim.seeds", 0, "schedules to simulate; 0: 6,000, or 300 under the race detector")
	simFirst = flag.Uint64("sim.first", 1, "the first seed")
)

// TestSimulation runs the production queue, unchanged, on a service whose every
// step is drawn from a seed, with lost requests and replies, cuts, stops, expired
// sessions and crashed processes, and checks what it promises. To see one again:
//
//	go test -run TestSimulation -sim.first SEED -sim.seeds 1 -v .
func TestSimulation(t *testing.T) {
	seeds := *simSeeds
	if seeds == 0 {
		seeds = 6000
		if raceDetector {
			seeds = 300
		}
	}
	const lanes = 2
	var mu sync.Mutex
	total := make(map[string]int)
	done := 0
	for lane := range lanes {
		t.Run(fmt.Sprint("lane", lane), func(t *testing.T) {
			t.Parallel()
			for i := lane; i < seeds; i += lanes {
				seed := *simFirst + uint64(i)
				r := simulate(t, seed)
				if len(r.violations) > 0 {
					t.Fatalf("seed %d: %s\n%s", seed, strings.Join(r.violations, "\n"), r.trace)
				}
				if seed%100 == 0 {
					if again := simulate(t, seed); again.hash != r.hash {
						t.Fatalf("seed %d ran in two ways: %x and %x", seed, r.hash, again.hash)
					}
				}
				mu.Lock()
				done++
				for what, n := range r.counts {
					total[what] += n
				}
				mu.Unlock()
			}
		})
	}
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		t.Logf("%d schedules, 0 violations; %v", done, total)
		// A simulation that meets no trouble shows nothing.
		for _, what := range []string{"put ok", "consume ok", "consume lost", "consume unknown", "release ok", "take cancelled", "redelivered", "crash", "expired", "broken", "removed by hand"} {
			if seeds >= 300 && total[what] == 0 {
				t.Errorf("no schedule had a %q", what)
			}
		}
	})
}

// simulation is one schedule and what was seen of it, on both sides.
type simulation struct {
	sim *coordtest.Sim
	rng *rand.Rand // of the workload; the service has its own

	mu     sync.Mutex
	counts map[string]int
	bad    []string

	puts  []*simPut
	holds []*simHold

	// What the service applied.
	state   sync.Mutex
	present map[string]bool   // entries
	values  map[string]int    // of entries, how often created
	locks   map[string]string // entry: session
	removed map[string]removal
	claimed []string         // names in the order of first claims
	fences  map[string]int64 // entry: claims so far
	broken  map[string]bool  // entries that were taken from a holder by hand
}

type simPut struct {
	priority  int
	call, ret time.Time
	name      string // "" unless ok
	value     string
	unknown   bool
}

type simHold struct {
	name        string
	deliveries  int
	token       int64
	from, until time.Time // until the holder was told, or asked to finish
	outcome     string
}

type removal struct {
	fence   coord.Fence
	session string
	byHand  bool
}

type simResult struct {
	violations []string
	counts     map[string]int
	hash       uint64
	trace      string
}

func simulate(t *testing.T, seed uint64) (result simResult) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		rates := coordtest.Swarm(seed)
		s := &simulation{
			sim: coordtest.NewSim(seed, rates), rng: rand.New(rand.NewPCG(seed, 7)),
			counts: make(map[string]int), present: make(map[string]bool), values: make(map[string]int), locks: make(map[string]string),
			removed: make(map[string]removal), fences: make(map[string]int64), broken: make(map[string]bool),
		}
		s.sim.Timeout = time.Duration(2+s.rng.IntN(5)) * time.Second
		s.sim.Aim = func(ops []coord.Op) bool { return ops[0].Kind == coord.KindDelete || ops[0].Kind == coord.KindCheck }
		s.sim.Store().Observe(s.applied)
		s.sim.Run(func() { s.run(t.Context()) })
		s.check(rates)
		result = simResult{violations: s.bad, counts: s.counts, hash: s.sim.Hash(), trace: s.sim.Trace()}
	})
	return result
}

func (s *simulation) violation(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad = append(s.bad, fmt.Sprintf(format, args...))
}

func (s *simulation) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

const simEntries, simTaken = "/jobs/entries/", "/jobs/taken/"

// applied follows the service's state and checks each transition of it.
func (s *simulation) applied(a coordtest.Applied) {
	if a.Expired {
		s.count("expired")
	}
	s.state.Lock()
	defer s.state.Unlock()
	touched := make(map[string]bool)
	unlocked := make(map[string]bool)
	byHand := false
	for _, op := range a.Ops {
		byHand = byHand || op.Kind == coord.KindCreate && strings.HasPrefix(op.Path, "/jobs/broken/")
		if name, ok := strings.CutPrefix(op.Path, simEntries); ok && op.Kind == coord.KindTouch {
			touched[name] = true
		}
		if name, ok := strings.CutPrefix(op.Path, simTaken); ok && op.Kind == coord.KindDelete {
			unlocked[name] = true
		}
	}
	for i, op := range a.Ops {
		if op.Kind == coord.KindSequential {
			op.Path = a.Results[i].Path
		}
		if name, ok := strings.CutPrefix(op.Path, simEntries); ok {
			switch op.Kind {
			case coord.KindSequential:
				s.present[name] = true
				if s.values[string(op.Value)]++; s.values[string(op.Value)] > 1 {
					s.violation("%q was put once and is there twice", op.Value)
				}
			case coord.KindTouch:
				if s.fences[name]++; s.fences[name] == 1 {
					s.claimed = append(s.claimed, name)
				}
			case coord.KindDelete:
				s.broken[name] = s.broken[name] || byHand
				if s.locks[name] != a.Session && !byHand || !unlocked[name] {
					s.violation("%s was removed by %s while %q held it", name, a.Session, s.locks[name])
				}
				delete(s.present, name)
				s.removed[name] = removal{op.Fence, a.Session, byHand}
			}
		}
		if name, ok := strings.CutPrefix(op.Path, simTaken); ok {
			switch op.Kind {
			case coord.KindEphemeral:
				if !touched[name] {
					s.violation("%s was locked without moving its fence", name)
				}
				s.locks[name] = a.Session
			case coord.KindDelete:
				s.broken[name] = s.broken[name] || byHand
				if s.locks[name] != a.Session && !byHand {
					s.violation("%s removed the lock of %s on %s", a.Session, s.locks[name], name)
				}
				delete(s.locks, name)
			}
		}
	}
	for name := range s.locks {
		if !s.present[name] {
			s.violation("a lock without an entry: %s", name)
		}
	}
}

// run is the workload: processes with producers and workers, for a while with
// faults, then without until everything is done.
func (s *simulation) run(ctx context.Context) {
	var wg sync.WaitGroup
	faulty, calm := context.WithCancel(ctx)
	drained, stop := context.WithCancel(ctx)
	defer stop()
	processes := 1 + s.rng.IntN(4)
	left := make(chan struct{}, 64) // producers that are not done
	for i := range processes {
		p := &simProcess{s: s, name: fmt.Sprint("p", i), rng: rand.New(rand.NewPCG(s.rng.Uint64(), 1))}
		p.takers = 1 + s.rng.IntN(3)
		p.puts = 1 + s.rng.IntN(8)
		p.crashes = s.rng.IntN(4) == 0
		left <- struct{}{}
		wg.Go(func() {
			p.live(faulty, drained, func() { <-left })
		})
		time.Sleep(time.Millisecond) // an order of their own
	}
	if rng := rand.New(rand.NewPCG(s.rng.Uint64(), 5)); s.rng.IntN(3) == 0 {
		wg.Go(func() { s.administer(faulty, rng) })
	}
	time.Sleep(time.Duration(10+s.rng.IntN(20)) * time.Second)
	calm()
	s.sim.Calm()
	deadline := time.Now().Add(90 * time.Second)
	for time.Now().Before(deadline) {
		time.Sleep(time.Second)
		if len(left) == 0 && s.empty() {
			break
		}
	}
	if len(left) > 0 || !s.empty() {
		s.violation("after 90 calm seconds %d producers are not done and these entries are left: %v, locks: %v", len(left), s.present, s.locks)
	}
	time.Sleep(time.Second)
	stop()
	wg.Wait()
}

// administer takes entries from their holders by hand.
func (s *simulation) administer(ctx context.Context, rng *rand.Rand) {
	c := s.sim.Open("admin")
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs", zkq.Holder(fmt.Sprintf("%032x", 1)))
	defer q.Close()
	ctx = coordtest.As(ctx, "admin")
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(1+rng.IntN(2500)) * time.Millisecond):
		}
		s.state.Lock()
		held := slices.Sorted(maps.Keys(s.locks))
		s.state.Unlock()
		if len(held) == 0 {
			continue
		}
		name, act := held[rng.IntN(len(held))], "broken"
		var err error
		if rng.IntN(3) == 0 {
			act, err = "removed by hand", q.Remove(ctx, name, true)
		} else {
			err = q.BreakLock(ctx, name)
		}
		if err == nil {
			s.count(act)
		}
	}
}

func (s *simulation) empty() bool {
	s.state.Lock()
	defer s.state.Unlock()
	return len(s.present) == 0 && len(s.locks) == 0
}

// simProcess is a process with one queue handle, several takers and a producer.
type simProcess struct {
	s            *simulation
	name         string
	rng          *rand.Rand
	takers, puts int
	crashes      bool
	lives        int
}

// live runs the process until everything is drained, through a crash perhaps.
func (p *simProcess) live(faulty, drained context.Context, produced func()) {
	once := sync.OnceFunc(produced)
	for drained.Err() == nil {
		p.lives++
		c := p.s.sim.Open(p.name)
		q := zkq.NewLockingQueue(c, "jobs", zkq.Holder(fmt.Sprintf("%032x", uint64(p.lives)<<32|uint64(p.name[1]))))
		life, die := context.WithCancel(drained)
		var wg sync.WaitGroup
		for i := range p.takers {
			rng := rand.New(rand.NewPCG(p.rng.Uint64(), uint64(i)))
			wg.Go(func() { p.take(life, faulty, q, i, rng) })
			p.order()
		}
		rng := rand.New(rand.NewPCG(p.rng.Uint64(), 99))
		wg.Go(func() {
			if p.produce(life, q, rng) {
				once()
			}
		})
		if p.crashes && p.lives == 1 {
			p.sleep(faulty, time.Duration(1+p.rng.IntN(10))*time.Second)
			p.s.count("crash")
			p.s.sim.Crash(p.name)
			die()
		}
		wg.Wait()
		die()
		q.Close()
		c.Close()
	}
}

// order spaces the starts of goroutines, so that their order is the seed's.
func (p *simProcess) order() { time.Sleep(time.Duration(1+len(p.name)) * time.Microsecond) }

func (p *simProcess) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// produce puts what the process has to put, each value once, and says whether it
// got through.
func (p *simProcess) produce(ctx context.Context, q *zkq.LockingQueue, rng *rand.Rand) bool {
	ctx = coordtest.As(ctx, "producer")
	for p.puts > 0 && ctx.Err() == nil {
		put := &simPut{priority: 100 + rng.IntN(3), call: time.Now(), value: fmt.Sprint(p.name, "#", p.puts)}
		name, err := q.Put(ctx, []byte(put.value), zkq.WithPriority(put.priority))
		put.ret = time.Now()
		switch {
		case err == nil:
			put.name = name
			p.s.count("put ok")
		case errors.Is(err, zkq.ErrUnknown):
			put.unknown = true
			p.s.count("put unknown")
		default:
			p.s.count("put failed")
		}
		p.s.mu.Lock()
		p.s.puts = append(p.s.puts, put)
		p.s.mu.Unlock()
		if err == nil || put.unknown {
			p.puts--
		}
		if errors.Is(err, coord.ErrClosed) {
			return false
		}
		p.sleep(ctx, time.Duration(rng.IntN(1500))*time.Millisecond)
	}
	return p.puts == 0
}

// take works through entries, as workers of all kinds do.
func (p *simProcess) take(ctx, faulty context.Context, q *zkq.LockingQueue, n int, rng *rand.Rand) {
	ctx = coordtest.As(ctx, fmt.Sprint("taker", n))
	for ctx.Err() == nil {
		waiting, cancel := ctx, context.CancelFunc(func() {})
		if rng.IntN(3) == 0 {
			waiting, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(3000))*time.Millisecond)
		}
		var h *zkq.Held
		var err error
		if rng.IntN(4) == 0 {
			h, err = q.TryTake(waiting)
		} else {
			h, err = q.Take(waiting)
		}
		ended := waiting.Err() != nil
		cancel()
		if err != nil {
			if errors.Is(err, coord.ErrClosed) || errors.Is(err, zkq.ErrClosed) {
				return
			}
			if ended {
				p.s.count("take cancelled")
			}
			p.sleep(ctx, time.Duration(1+rng.IntN(500))*time.Millisecond)
			continue
		}
		p.work(ctx, faulty, h, rng)
	}
}

func (p *simProcess) work(ctx, faulty context.Context, h *zkq.Held, rng *rand.Rand) {
	hold := &simHold{name: h.Name, deliveries: h.Deliveries, token: h.Token, from: time.Now()}
	p.s.mu.Lock()
	p.s.holds = append(p.s.holds, hold)
	p.s.mu.Unlock()
	if h.Deliveries > 1 {
		p.s.count("redelivered")
	}
	working, cancel := h.Context(ctx)
	defer cancel()
	d := time.Duration(rng.IntN(300)) * time.Millisecond
	if faulty.Err() == nil && rng.IntN(5) == 0 {
		d = time.Duration(rng.IntN(9000)) * time.Millisecond
	}
	p.sleep(working, d)
	hold.until = time.Now()
	act, finish := "consume", h.Consume
	if faulty.Err() == nil && rng.IntN(5) == 0 {
		act, finish = "release", func(ctx context.Context) error { return h.Release(ctx) }
	}
	finishing, cancelFinish := ctx, context.CancelFunc(func() {})
	if faulty.Err() == nil && rng.IntN(6) == 0 {
		finishing, cancelFinish = context.WithTimeout(ctx, time.Duration(rng.IntN(3000))*time.Millisecond)
	}
	defer cancelFinish()
	var err error
	for {
		err = finish(finishing)
		if err == nil || errors.Is(err, zkq.ErrLockLost) || errors.Is(err, zkq.ErrUnknown) || errors.Is(err, coord.ErrClosed) || ctx.Err() != nil {
			break
		}
		// Nothing was changed: a worker that forgets about the entry now would
		// keep it locked for as long as it lives.
		finishing = ctx
		p.sleep(ctx, 100*time.Millisecond)
	}
	outcome := "failed"
	switch {
	case err == nil:
		outcome = "ok"
	case errors.Is(err, zkq.ErrUnknown):
		outcome = "unknown"
	case errors.Is(err, zkq.ErrLockLost):
		outcome = "lost"
	}
	hold.outcome = act + " " + outcome
	p.s.count(hold.outcome)
	// Asking again settles it as long as the session lives, unless the entry was
	// taken away by hand.
	for tries := 0; tries < 20 && errors.Is(err, zkq.ErrUnknown) && !errors.Is(err, coord.ErrClosed) && ctx.Err() == nil && working.Err() == nil; tries++ {
		p.sleep(ctx, 100*time.Millisecond)
		if err = finish(ctx); err == nil {
			hold.outcome = act + " ok"
		}
	}
}

// check looks at the whole history.
func (s *simulation) check(rates coordtest.Rates) {
	s.counts["entries"] += len(s.removed)
	byName := make(map[string]*simPut)
	for _, p := range s.puts {
		if p.name == "" {
			continue
		}
		if byName[p.name] != nil {
			s.violation("two puts got the name %s", p.name)
		}
		byName[p.name] = p
		if !s.present[p.name] && s.removed[p.name] == (removal{}) {
			s.violation("%s (%s) was put and is neither there nor was it removed", p.name, p.value)
		}
	}
	oks := make(map[string]int)
	lastToken := make(map[string]map[int]int64)
	for _, h := range s.holds {
		r, gone := s.removed[h.name]
		mine := gone && int(r.fence) == h.deliveries && !r.byHand
		switch h.outcome {
		case "consume ok":
			if oks[h.name]++; oks[h.name] > 1 {
				s.violation("%s was consumed twice", h.name)
			}
			if !mine {
				s.violation("consume of %s (delivery %d) was ok and did not remove it (%v, %v)", h.name, h.deliveries, r, gone)
			}
		case "consume lost", "consume failed", "release ok", "release lost", "release unknown", "release failed":
			if mine {
				s.violation("%s of %s (delivery %d) removed it", h.outcome, h.name, h.deliveries)
			}
		}
		if lastToken[h.name] == nil {
			lastToken[h.name] = make(map[int]int64)
		}
		if old := lastToken[h.name][h.deliveries]; old != 0 {
			s.violation("%s has two deliveries number %d", h.name, h.deliveries)
		}
		lastToken[h.name][h.deliveries] = h.token
	}
	for name, tokens := range lastToken {
		var last int64
		for d := 1; d <= int(s.fences[name]); d++ {
			if token, ok := tokens[d]; ok {
				if token <= last {
					s.violation("%s: delivery %d has token %d after %d", name, d, token, last)
				}
				last = token
			}
		}
	}
	s.checkOrder(byName)
	if rates.Expire == 0 {
		s.checkExclusion()
	}
}

// checkOrder: a put that returned before another of its priority began has the
// smaller name, and its first claim comes first.
func (s *simulation) checkOrder(byName map[string]*simPut) {
	first := make(map[string]int)
	for i, name := range s.claimed {
		first[name] = i + 1
	}
	for a, pa := range byName {
		for b, pb := range byName {
			if pa.priority != pb.priority || !pa.ret.Before(pb.call) {
				continue
			}
			if na, _ := priority.Parse(a); a > b || na.Priority != pa.priority {
				s.violation("%s was put before %s", a, b)
			}
			if first[b] != 0 && (first[a] == 0 || first[a] > first[b]) {
				s.violation("%s was put before %s and claimed after it", a, b)
			}
		}
	}
}

// checkExclusion: nobody thinks that he holds an entry while another does.
func (s *simulation) checkExclusion() {
	byName := make(map[string][]*simHold)
	for _, h := range s.holds {
		byName[h.name] = append(byName[h.name], h)
	}
	for name, holds := range byName {
		if s.broken[name] {
			continue
		}
		slices.SortFunc(holds, func(a, b *simHold) int { return a.deliveries - b.deliveries })
		for i := 1; i < len(holds); i++ {
			if before := holds[i-1]; holds[i].from.Before(before.until) {
				s.violation("%s: delivery %d from %v, while delivery %d worked until %v", name,
					holds[i].deliveries, holds[i].from, before.deliveries, before.until)
			}
		}
	}
}
