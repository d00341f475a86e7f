package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/coord/coordtest/sim"
	"github.com/zkq/zkq/internal/testhook"
	"github.com/zkq/zkq/internal/testqueue"
)

// simulation is one schedule, with what the service applied and what each caller saw.
type simulation struct {
	plan  *simPlan
	sim   *sim.Simulator
	rng   *rand.Rand // of the workload; the service has its own
	world simWorld   // what the service applied
	start time.Time

	calmAt atomic.Int64 // the nanosecond since the start from which there are no faults; 0 while there are faults

	mu     sync.Mutex
	counts map[string]int
	bad    []violation
	puts   []*simPut
	holds  []*simHold
	waits  []simWait
	gets   []*simGet

	requeues []*simRequeue
}

// violation is something that must not happen. Two violations of one kind count as the same failure.
type violation struct{ kind, what string }

// simHold is an entry that was handed out, as its holder saw it.
type simHold struct {
	client     string
	name       string
	deliveries int
	token      int64
	fresh      bool          // the claim followed a fresh look
	call, from time.Duration // of the take
	until      time.Duration // the holder was told, or asked to finish
	ret        time.Duration // of the last finish
	act        string
	outcome    string // of act; "" while it is under way
}

// simGet is what a get of the simple queue handed out.
type simGet struct {
	name    string
	token   zkq.Token
	outcome string // ok, unknown, or void: it was resolved, and this get removed nothing
}

type simResult struct {
	violations []violation
	counts     map[string]int
	hash       uint64
	faults     int
	trace      func() string
}

func (r *simResult) report(trace bool) string {
	var b strings.Builder
	for i, v := range r.violations {
		if i == 10 {
			fmt.Fprintf(&b, "and %d more", len(r.violations)-i)
			break
		}
		b.WriteString(v.what)
		b.WriteByte('\n')
	}
	if trace {
		b.WriteString(r.trace())
	}
	return b.String()
}

// simulate runs a plan. A panic is a violation, too.
func simulate(t *testing.T, plan *simPlan) (r *simResult) {
	s := &simulation{plan: plan, counts: make(map[string]int), rng: rand.New(rand.NewPCG(plan.seed, 8))}
	s.world = newSimWorld(s)
	plan.log.s, plan.pipe.s = s, s
	r = &simResult{counts: s.counts, trace: func() string { return "" }}
	defer func() {
		if p := recover(); p != nil { // the bubble's, about goroutines that are left
			s.violation("the simulation broke: %.2000v", p)
		}
		r.violations = s.bad
	}()
	inSeed(plan.seed, func() {
		synctest.Test(t, func(t *testing.T) {
			defer s.recovered() // a schedule in which nothing happens any more
			s.sim, s.start = plan.simulator(), time.Now()
			r.trace = s.sim.Trace
			s.sim.Store().Observe(func(a coordtest.Applied) {
				if !plan.pipe.applied(a) {
					s.world.applied(a)
				}
				plan.log.applied(a)
			})
			s.sim.Run(func() { s.run(t.Context()) })
			r.hash, r.faults = s.sim.Hash(), s.sim.Faults()
		})
	})
	s.check()
	return r
}

// inSeed runs f so that a panic in a goroutine which f starts names the seed. No caller can recover such a panic, but
// the runtime prints the labels of the goroutine.
func inSeed(seed uint64, f func()) {
	printLabels()
	pprof.Do(context.Background(), pprof.Labels("seed", fmt.Sprint(seed)), func(context.Context) { f() })
}

var printLabels = sync.OnceFunc(func() {
	os.Setenv("GODEBUG", strings.TrimPrefix(os.Getenv("GODEBUG")+",tracebacklabels=1", ","))
})

func (s *simulation) now() time.Duration { return time.Since(s.start) }

func (s *simulation) violation(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad = append(s.bad, violation{format, fmt.Sprintf(format, args...)})
}

func (s *simulation) recovered() {
	if p := recover(); p != nil {
		s.violation("panic: %.500v", p)
	}
}

func (s *simulation) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

// spawn runs f in a goroutine. A panic in it is a violation.
func (s *simulation) spawn(wg *sync.WaitGroup, f func()) {
	wg.Go(func() {
		defer s.recovered()
		f()
	})
}

// run is the workload: processes with producers and workers, first with faults, then without them until everything is
// done.
func (s *simulation) run(ctx context.Context) {
	var wg sync.WaitGroup
	faulty, calm := context.WithCancel(ctx)
	drained, stop := context.WithCancel(ctx)
	defer stop()
	left := make(chan struct{}, 64) // producers that are not done
	for _, m := range s.plan.processes {
		p := &simProcess{s: s, simMember: m, name: fmt.Sprint("p", m.index), doubts: make(map[int]*simGet), rng: rand.New(rand.NewPCG(s.plan.seed, 100+uint64(m.index)))}
		left <- struct{}{}
		s.spawn(&wg, func() {
			p.live(faulty, drained, func() { <-left })
		})
		time.Sleep(time.Millisecond) // an order of their own
	}
	if s.plan.admin {
		s.spawn(&wg, func() { s.breakLocks(faulty, rand.New(rand.NewPCG(s.plan.seed, 5))) })
		time.Sleep(time.Millisecond)
	}
	if s.plan.deaths.requeue {
		for n := range 2 {
			s.spawn(&wg, func() { s.requeueDead(faulty, n) })
			time.Sleep(time.Millisecond)
		}
	}
	if s.plan.log.on {
		s.plan.log.run(drained, faulty, &wg)
	}
	if s.plan.pipe.on {
		s.plan.pipe.run(drained, faulty, &wg)
	}
	time.Sleep(s.plan.faulty)
	s.calmAt.Store(int64(s.now()))
	calm()
	s.sim.Calm()
	deadline := time.Now().Add(90 * time.Second)
	for time.Now().Before(deadline) {
		time.Sleep(time.Second)
		if len(left) == 0 && s.world.empty() && s.plan.log.unread() == "" && s.plan.pipe.unfinished() == "" {
			break
		}
	}
	if len(left) > 0 {
		s.violation("after 90 calm seconds %d producers are not done", len(left))
	}
	if what := s.plan.log.unread(); what != "" {
		s.violation("after 90 calm seconds %s", what)
	}
	if what := s.plan.pipe.unfinished(); s.plan.pipe.on && what != "" {
		s.violation("after 90 calm seconds %s", what)
	}
	if there, locks := s.world.left(); len(there)+len(locks) > 0 {
		s.violation("after 90 calm seconds these entries are left: %v, locks: %v", there, locks)
	}
	time.Sleep(time.Second)
	stop()
	wg.Wait()
}

// breakLocks breaks locks of holders, as an operator.
func (s *simulation) breakLocks(ctx context.Context, rng *rand.Rand) {
	c := s.open("admin", "jobs")
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs", zkq.Holder(fmt.Sprintf("%032x", 1)), testqueue.Settings(testhook.Settings{Bulk: s.plan.bulk}))
	defer q.Close()
	ctx = sim.WithActor(ctx, "admin")
	for ctx.Err() == nil {
		simSleep(ctx, time.Duration(1+rng.IntN(2500))*time.Millisecond)
		if s.plan.head.purges && rng.IntN(12) == 0 {
			if n, err := q.Purge(ctx, zkq.StateReady); err == nil && n > 0 {
				s.count("purged")
			}
			continue
		}
		_, held := s.world.left()
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

// simProcess is a process with one queue handle, several takers and a producer.
type simProcess struct {
	simMember
	s     *simulation
	name  string
	rng   *rand.Rand
	lives int

	batch   int             // puts so far
	pending *simPut         // in doubt
	doubts  map[int]*simGet // in doubt, of each getter
}

// live runs the process until everything is done. It may crash once.
func (p *simProcess) live(faulty, drained context.Context, produced func()) {
	once := sync.OnceFunc(produced)
	for drained.Err() == nil {
		p.lives++
		c := p.s.open(p.name, "jobs")
		id := uint64(p.lives)<<32 | uint64('0'+p.index)
		opts := []zkq.Option{zkq.Holder(fmt.Sprintf("%032x", id)), zkq.Producer(fmt.Sprintf("%016x", id))}
		if p.s.plan.strict {
			opts = append(opts, zkq.Strict())
		}
		if n := p.s.plan.deliveries; n > 0 {
			opts = append(opts, zkq.MaxDeliveries(n))
		}
		var q putter
		var work func(context.Context, context.Context, int, *rand.Rand)
		if p.s.plan.plain {
			simple := zkq.NewQueue(c, "jobs", append(opts, testqueue.Settings(testhook.Settings{Woke: sim.AwaitTurn, Bulk: p.s.plan.bulk}))...)
			q, work = simple, func(ctx, _ context.Context, n int, rng *rand.Rand) { p.get(ctx, c, simple, n, rng) }
		} else {
			locking := zkq.NewLockingQueue(c, "jobs", append(opts, testqueue.Settings(testhook.Settings{Woke: sim.AwaitTurn, Window: p.s.plan.head.window, Bulk: p.s.plan.bulk}))...)
			q, work = locking, func(ctx, faulty context.Context, n int, rng *rand.Rand) {
				if p.s.plan.workers.on && n%2 == 0 && !p.polls() {
					p.runWorker(ctx, faulty, locking, n, rng)
				} else {
					p.take(ctx, faulty, locking, n, rng)
				}
			}
		}
		life, die := context.WithCancel(drained)
		var wg sync.WaitGroup
		for i := range p.takers {
			rng := rand.New(rand.NewPCG(p.rng.Uint64(), uint64(i)))
			p.s.spawn(&wg, func() { work(life, faulty, i, rng) })
			p.order()
		}
		rng := rand.New(rand.NewPCG(p.rng.Uint64(), 99))
		p.s.spawn(&wg, func() {
			if p.produce(life, c, q, rng) {
				once()
			}
		})
		if p.crash > 0 && p.lives == 1 {
			simSleep(faulty, p.crash)
			p.s.count("crash")
			p.s.sim.Crash(p.name)
			time.Sleep(3331) // everybody hears of that before it is over, and nothing else takes so long
			die()
		} else {
			wg.Go(func() { <-life.Done() }) // also without clients that take
		}
		wg.Wait()
		die()
		q.Close()
		c.Close()
	}
}

// order spaces the starts of goroutines, so that the seed decides their order.
func (p *simProcess) order() { time.Sleep(time.Duration(1+p.index) * time.Microsecond) }

// len compares Len with the number of entries during the call.
func (s *simulation) len(ctx context.Context, q putter) {
	call := s.now()
	n, err := q.Len(ctx)
	if err != nil {
		return
	}
	s.count("len")
	if least, most := s.world.entriesBetween(call, s.now()); n < least || n > most {
		s.violation("Len said %d when there were %d to %d entries", n, least, most)
	}
}

// empty compares ErrEmpty with the entries during the call.
func (s *simulation) empty(call time.Duration) {
	s.count("empty")
	if n := s.world.availableBetween(call, s.now()); n > 0 {
		s.violation("empty was said from %v, and %d entries or more were available all the time", call, n)
	}
}

// get takes from a simple queue. It resolves a get of unknown outcome before the next.
func (p *simProcess) get(ctx context.Context, c coord.Coordinator, q *zkq.Queue, n int, rng *rand.Rand) {
	ctx = sim.WithActor(ctx, fmt.Sprint("getter", n))
	for ctx.Err() == nil {
		simTurn(n)
		p.s.mu.Lock()
		doubt := p.doubts[n]
		p.s.mu.Unlock()
		if doubt != nil {
			applied, ok := p.resolve(ctx, c, doubt.token)
			if !ok {
				if p.s.closed(ctx, c) {
					return
				}
				continue
			}
			p.s.mu.Lock()
			if doubt.outcome = "void"; applied {
				doubt.outcome = "ok"
			}
			p.s.counts["get resolved "+doubt.outcome]++
			p.doubts[n] = nil
			p.s.mu.Unlock()
		}
		var e zkq.Entry
		var err error
		waiting, cancel := ctx, context.CancelFunc(func() {})
		if rng.IntN(3) == 0 {
			waiting, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(3000))*time.Millisecond)
		}
		call := p.s.now()
		if rng.IntN(4) == 0 {
			e, err = q.TryGet(waiting)
		} else {
			e, err = q.Get(waiting)
		}
		cancel()
		unknown := (*zkq.UnknownError)(nil)
		p.s.mu.Lock()
		switch {
		case err == nil:
			p.s.gets = append(p.s.gets, &simGet{name: e.Name, outcome: "ok"})
			p.s.counts["got"]++
		case errors.As(err, &unknown):
			p.doubts[n] = &simGet{name: e.Name, token: unknown.Token, outcome: "unknown"}
			p.s.gets = append(p.s.gets, p.doubts[n])
			p.s.counts["get unknown"]++
		default:
			p.s.counts["get failed"]++
		}
		p.s.mu.Unlock()
		if errors.Is(err, zkq.ErrEmpty) {
			p.s.empty(call)
		}
		if errors.Is(err, coord.ErrClosed) || errors.Is(err, zkq.ErrClosed) {
			return
		}
		simSleep(ctx, time.Duration(1+rng.IntN(400))*time.Millisecond)
	}
}

// closed reports whether a client has ended for good.
func (s *simulation) closed(ctx context.Context, c coord.Coordinator) bool {
	_, err := c.Session(ctx)
	return errors.Is(err, coord.ErrClosed)
}

// take works through entries in all the ways that workers do.
func (p *simProcess) take(ctx, faulty context.Context, q *zkq.LockingQueue, n int, rng *rand.Rand) {
	actor := fmt.Sprint("taker", n)
	ctx = sim.WithActor(ctx, actor)
	if p.s.plan.head.registered {
		q.Register(ctx)
	}
	for ctx.Err() == nil {
		simTurn(n)
		waiting, cancel := ctx, context.CancelFunc(func() {})
		if rng.IntN(3) == 0 {
			waiting, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(3000))*time.Millisecond)
		}
		hold := &simHold{client: p.name + " " + actor, call: p.s.now(), fresh: p.s.plan.strict}
		var held []*zkq.Held
		var err error
		polls := p.polls()
		if rng.IntN(4) == 0 || polls {
			hold.fresh = true
			held, err = q.TryTakeN(waiting, p.s.plan.deaths.batch)
			p.s.prompt("TryTakeN", hold.call)
		} else {
			held, err = q.TakeN(waiting, p.s.plan.deaths.batch)
			p.s.noteWait(hold)
		}
		ended := waiting.Err() != nil
		cancel()
		if err != nil {
			if errors.Is(err, zkq.ErrEmpty) {
				p.s.empty(hold.call)
			}
			if errors.Is(err, zkq.ErrInvalid) {
				p.s.violation("a take ended with %v", err)
			}
			if errors.Is(err, coord.ErrClosed) || errors.Is(err, zkq.ErrClosed) {
				return
			}
			if ended {
				p.s.count("take cancelled")
			}
			simSleep(ctx, time.Duration(1+rng.IntN(500))*time.Millisecond)
			continue
		}
		p.s.checkTakenTogether(held)
		holds := p.holds(held, hold)
		if p.s.plan.head.exchange && rng.IntN(4) > 0 && !polls {
			p.swap(ctx, faulty, q, n, held, holds, rng)
			continue
		}
		working, done := p.working(ctx, held, holds)
		for i, h := range held {
			p.work(ctx, faulty, working[i], n, h, holds[i], rng)
		}
		done()
	}
}

// polls reports whether the process never waits for an entry.
func (p *simProcess) polls() bool { return p.s.plan.head.polls && p.index == 0 }

// noteEnd records that the holder now knows it has lost the entry, or that it asks to finish it.
func (s *simulation) noteEnd(h *simHold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.until == 0 {
		h.until = s.now()
	}
}

func (p *simProcess) work(ctx, faulty, working context.Context, n int, h *zkq.Held, hold *simHold, rng *rand.Rand) {
	if h.Deliveries > 1 {
		p.s.count("redelivered")
	}
	d := time.Duration(rng.IntN(300)) * time.Millisecond
	if faulty.Err() == nil && rng.IntN(5) == 0 {
		d = time.Duration(rng.IntN(9000)) * time.Millisecond
	}
	simSleep(working, d)
	p.update(ctx, n, h, rng)
	p.s.noteEnd(hold)
	time.Sleep(time.Duration(1 + n)) // as simTurn, but so that the two add up to no other's
	act, finish := "consume", h.Consume
	if faulty.Err() == nil && rng.IntN(3) == 0 {
		switch rng.IntN(6) {
		case 0:
			act, finish = "bury", func(ctx context.Context) error { return h.Bury(ctx, "simulated") }
		case 1, 2:
			act, finish = "fail", func(ctx context.Context) error { return h.Fail(ctx, "simulated") }
		default:
			act, finish = "release", func(ctx context.Context) error { return h.Release(ctx) }
		}
	}
	hold.act = act
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
		// Nothing was changed. A worker that forgot the entry now would keep it locked until its session ends.
		finishing = ctx
		simSleep(ctx, 100*time.Millisecond)
	}
	hold.outcome = "failed"
	switch {
	case err == nil:
		hold.outcome = "ok"
	case errors.Is(err, zkq.ErrUnknown):
		hold.outcome = "unknown"
	case errors.Is(err, zkq.ErrLockLost):
		hold.outcome = "lost"
	}
	p.s.count(act + " " + hold.outcome)
	if errors.Is(err, zkq.ErrUnknown) {
		time.Sleep(time.Duration(1 + n)) // if the session ended, so has working by then: nothing else decides which is first
	}
	// Repeating the call settles it while the session lives, unless an operator took the entry.
	for tries := 0; tries < 20 && errors.Is(err, zkq.ErrUnknown) && !errors.Is(err, coord.ErrClosed) && ctx.Err() == nil && working.Err() == nil; tries++ {
		simSleep(ctx, 100*time.Millisecond)
		if err = finish(ctx); err == nil {
			hold.outcome = "ok"
		}
	}
	hold.ret = p.s.now()
}

// simTurn gives goroutines of a process that one event woke, such as the end of their session, instants of their own.
func simTurn(n int) { time.Sleep(time.Duration(1+n) * 16) }

func simSleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
