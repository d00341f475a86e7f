package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest/sim"
	"github.com/zkq/zkq/internal/testhook"
	"github.com/zkq/zkq/internal/testqueue"
)

// simPipe is the part of a plan about a pipeline, and the history of that pipeline. Feeders put into a queue with
// delays, times to live, unique keys and a bound. Workers forward the entries to a second queue and finish them there.
type simPipe struct {
	on                   bool
	feeders, workers     int // workers of each queue
	feeds                int // puts of each feeder
	delays, ttls, passes bool
	keys                 int // unique ones; 0: none
	config               zkq.QueueConfig
	steward              bool // an operator changes the bound
	hands                int  // goroutines that put with the handle of each feeder, at the same time
	operators            operatorPlan

	s *simulation

	mu    sync.Mutex
	first pipeQueue
	then  pipeQueue
	puts  map[string]*simFeed // by value
	lives map[string]int      // values: nodes that stand for them, in both queues
	holds []*simPiped
	left  int // feeders that are not done
	tries int // forwards
}

// simPiped is an entry of the pipeline that was handed out, as its holder saw it.
type simPiped struct {
	pool         *pipeQueue
	name, value  string
	k            int
	notBefore    time.Time // of what is put aside
	act, outcome string
}

// newSimPipe uses a random source of its own, so that the rest of the plan does not depend on it.
func newSimPipe(seed uint64) *simPipe {
	rng := rand.New(rand.NewPCG(seed, 13))
	one := func(of int) bool { return rng.IntN(of) == 0 }
	l := &simPipe{
		on: one(4), feeders: 1 + rng.IntN(2), workers: 1 + rng.IntN(2), feeds: 1 + rng.IntN(8),
		delays: !one(3), ttls: one(3), passes: !one(3), puts: make(map[string]*simFeed), lives: make(map[string]int),
	}
	if one(2) {
		l.keys = 1 + rng.IntN(3)
	}
	if one(2) {
		l.config = zkq.QueueConfig{MaxEntries: 1 + rng.IntN(4), Approximate: one(4)}
		l.steward = one(3)
	}
	l.hands = 1
	if rng := rand.New(rand.NewPCG(seed, 17)); l.config.MaxEntries > 0 && rng.IntN(3) > 0 {
		l.hands += 1 + rng.IntN(4)
	}
	l.operators = newOperatorPlan(seed)
	l.operators.prepare(l)
	l.first, l.then = newPipeQueue(l, "/mail/"), newPipeQueue(l, "/sent/")
	return l
}

// parts returns what could be left out.
func (l *simPipe) parts() (parts []string) {
	for _, p := range []struct {
		what string
		on   bool
	}{{"pipe", true}, {"delays", l.delays}, {"ttls", l.ttls}, {"keys", l.keys > 0}, {"bound", l.config.MaxEntries > 0}, {"steward", l.steward}, {"hands", l.hands > 1}, {"passes", l.passes}} {
		if l.on && p.on {
			parts = append(parts, p.what)
		}
	}
	if l.on {
		parts = append(parts, l.operators.parts()...)
	}
	return parts
}

func (l *simPipe) leaveOut(what string) bool {
	switch what {
	case "pipe":
		l.on = false
	case "delays":
		l.delays = false
	case "ttls":
		l.ttls = false
	case "keys":
		l.keys = 0
	case "bound":
		l.config, l.steward = zkq.QueueConfig{}, false
	case "steward":
		l.steward = false
	case "hands":
		l.hands = 1
	case "passes":
		l.passes = false
	default:
		return l.operators.leaveOut(what)
	}
	return true
}

// run is the pipeline's workload, beside that of the queue.
func (l *simPipe) run(ctx, faulty context.Context, wg *sync.WaitGroup) {
	l.left = l.feeders
	if l.operators.on && l.operators.bulk > 0 {
		l.left++
	}
	n := 0
	start := func(name string, f func(a *simActor)) {
		a := &simActor{l: l, n: n, name: name, faulty: faulty, rng: rand.New(rand.NewPCG(l.s.plan.seed, 300+uint64(n)))}
		n++
		l.s.spawn(wg, func() {
			a.ctx = sim.WithActor(ctx, name)
			f(a)
		})
		time.Sleep(time.Millisecond)
	}
	for i := range l.feeders {
		start(fmt.Sprint("feeder", i), (*simActor).feed)
	}
	if l.steward {
		start("steward", (*simActor).rebound)
	}
	l.operators.start(start)
	for i := range l.workers {
		start(fmt.Sprint("piper", i), func(a *simActor) { a.work(&l.first, &l.then) })
		if l.passes {
			start(fmt.Sprint("drain", i), func(a *simActor) { a.work(&l.then, nil) })
		}
	}
}

// simActor is a process of the pipeline, with a client of its own.
type simActor struct {
	l           *simPipe
	n           int
	name        string
	ctx, faulty context.Context
	rng         *rand.Rand
	lives       int

	c coord.Coordinator
}

func (a *simActor) one(of int) bool { return a.rng.IntN(of) == 0 }

// sleep sleeps for a random time below most.
func (a *simActor) sleep(most time.Duration) {
	simSleep(a.ctx, time.Duration(a.rng.Int64N(int64(most)/1e6))*time.Millisecond+time.Duration(1+a.n))
}

// trying returns the context of a call. While there are faults, it sometimes ends early.
func (a *simActor) trying() (context.Context, context.CancelFunc) {
	if a.faulty.Err() == nil && a.one(4) {
		return context.WithTimeout(a.ctx, time.Duration(a.rng.IntN(3000))*time.Millisecond+time.Duration(1+a.n))
	}
	return a.ctx, func() {}
}

func (a *simActor) open() {
	a.c = a.l.s.open(a.name, a.l.first.queue(), a.l.then.queue())
	a.lives++
}

// queue returns a handle. The queue's configuration exists before its first entry.
func (a *simActor) queue(p *pipeQueue) *zkq.LockingQueue {
	id := uint64(a.lives)<<32 | uint64(0xf00+16*a.n)
	if p == &a.l.then {
		id++
	}
	q := zkq.NewLockingQueue(a.c, p.queue(), zkq.Holder(fmt.Sprintf("%032x", id)), zkq.Producer(fmt.Sprintf("%016x", id)),
		testqueue.Settings(testhook.Settings{Woke: sim.AwaitTurn, Window: a.l.s.plan.head.window, DuePage: a.l.operators.page, Bulk: a.l.s.plan.bulk}))
	for a.l.config.MaxEntries > 0 && a.ctx.Err() == nil {
		if err := q.Create(a.ctx, a.l.config); err == nil || errors.Is(err, zkq.ErrConfig) {
			break
		}
		a.sleep(200 * time.Millisecond)
	}
	return q
}

// rebound replaces the bounds of the queue.
func (a *simActor) rebound() {
	a.open()
	defer a.c.Close()
	q := a.queue(&a.l.first)
	defer q.Close()
	for a.faulty.Err() == nil {
		a.sleep(8 * time.Second)
		c := a.l.config
		c.MaxEntries = 1 + a.rng.IntN(4)
		ctx, cancel := a.trying()
		if q.Configure(ctx, c) == nil {
			a.l.s.count("piped configure")
		}
		cancel()
	}
}

// work takes from one queue and forwards to the next, or finishes entries of the last queue. Another process replaces
// its process now and then.
func (a *simActor) work(from, to *pipeQueue) {
	if from == &a.l.first {
		a.awaitWork()
	}
	for a.ctx.Err() == nil && !a.leaves() {
		a.open()
		q := a.queue(from)
		var next *zkq.LockingQueue
		if to != nil && a.l.passes {
			next = a.queue(to)
		}
		if a.l.s.plan.head.registered {
			q.Register(a.ctx)
		}
		leaves := a.l.s.now() + time.Duration(1+a.rng.IntN(20))*time.Second
		for a.ctx.Err() == nil && !a.leaves() && (a.faulty.Err() != nil || a.l.s.now() < leaves) {
			simTurn(50 + a.n)
			a.take(from, q, to, next)
		}
		q.Close()
		if next != nil {
			next.Close()
		}
		a.c.Close()
		simSleep(a.ctx, 50*time.Millisecond)
	}
}

// leaves reports whether a worker stops taking.
func (a *simActor) leaves() bool {
	return a.l.operators.on && a.l.operators.abandoned && a.faulty.Err() != nil
}

// take takes an entry and decides how to finish it.
func (a *simActor) take(from *pipeQueue, q *zkq.LockingQueue, to *pipeQueue, next *zkq.LockingQueue) {
	ctx, cancel := a.trying()
	if o := a.l.operators; o.on && o.abandoned {
		cancel()
		ctx, cancel = context.WithCancel(a.ctx)
		stop := context.AfterFunc(a.faulty, cancel)
		defer stop()
	}
	call := a.l.s.now()
	var h *zkq.Held
	var err error
	if o := a.l.operators; o.on && o.polls && from == &a.l.first || a.one(4) {
		h, err = q.TryTake(ctx)
		a.l.s.prompt("TryTake", call)
	} else {
		h, err = q.Take(ctx)
	}
	cancel()
	if err != nil {
		if errors.Is(err, zkq.ErrEmpty) {
			a.l.empty(from, call)
		}
		a.sleep(500 * time.Millisecond)
		return
	}
	hold := a.l.handedOut(from, h)
	d := 300 * time.Millisecond
	if a.faulty.Err() == nil && a.one(6) {
		d = 5 * time.Second
	}
	a.sleep(d)
	if o := a.l.operators; o.on && o.updates && a.one(3) {
		a.update(hold, h)
	}
	for {
		finish := a.choose(hold, h, to, next)
		if !a.finish(hold, finish) {
			break
		}
		a.sleep(300 * time.Millisecond)
	}
	a.l.s.count(strings.TrimSuffix("piped "+hold.act+" "+hold.outcome, " "))
}

// update writes progress into an entry.
func (a *simActor) update(hold *simPiped, h *zkq.Held) {
	ctx, cancel := a.trying()
	err := h.Update(ctx, append(h.Value, '~'))
	cancel()
	switch {
	case err == nil:
		a.l.s.count("updated")
	case errors.Is(err, zkq.ErrUnknown):
		a.l.s.count("update unknown")
	}
	a.sleep(300 * time.Millisecond)
}

// choose draws how to finish an entry.
func (a *simActor) choose(hold *simPiped, h *zkq.Held, to *pipeQueue, next *zkq.LockingQueue) func(context.Context) error {
	hold.act, hold.notBefore = "consume", time.Time{}
	if next != nil {
		hold.act = "forward"
	}
	if a.faulty.Err() == nil && a.one(3) {
		hold.act = []string{"release", "fail", "aside", "aside", "bury", "consume"}[a.rng.IntN(6)]
	}
	switch hold.act {
	case "release":
		return func(ctx context.Context) error { return h.Release(ctx) }
	case "fail":
		return func(ctx context.Context) error { return h.Fail(ctx, "simulated") }
	case "bury":
		return func(ctx context.Context) error { return h.Bury(ctx, "simulated") }
	case "aside":
		d := time.Duration(1+a.rng.IntN(5000)) * time.Millisecond
		a.l.noteDelay(hold, time.Now().Add(d))
		if a.one(2) {
			return func(ctx context.Context) error { return h.Fail(ctx, "simulated", zkq.After(d)) }
		}
		return func(ctx context.Context) error { return h.Release(ctx, zkq.After(d)) }
	case "forward":
		return a.forward(hold, h, to, next)
	}
	return h.Consume
}

// forward puts a result into the next queue, in some cases with a delay or a unique key.
func (a *simActor) forward(hold *simPiped, h *zkq.Held, to *pipeQueue, next *zkq.LockingQueue) func(context.Context) error {
	f := &simFeed{pool: to, values: []string{a.l.forwardedValue(hold.value)}}
	if a.l.keys > 0 && a.one(3) {
		f.key = fmt.Sprint("key", a.rng.IntN(a.l.keys))
		f.opts = append(f.opts, zkq.WithUnique(f.key))
	}
	var d time.Duration
	if a.l.delays && a.one(4) {
		d = time.Duration(1+a.rng.IntN(2000)) * time.Millisecond
		f.opts = append(f.opts, zkq.WithDelay(d))
	}
	first := true
	return func(ctx context.Context) error {
		if d > 0 && first {
			f.notBefore = time.Now().Add(d)
		}
		if first {
			first = false
			a.l.notePut(f)
		}
		call := a.l.s.now()
		err := h.Forward(ctx, zkq.Target{Queue: next, Value: []byte(f.values[0]), Options: f.opts})
		if err != nil && !errors.Is(err, zkq.ErrUnknown) {
			a.l.mu.Lock()
			defer a.l.mu.Unlock()
			a.l.refused(f, call, err)
		}
		return err
	}
}

// finish finishes an entry, and repeats that while the outcome is unknown. It reports whether nothing was changed, so
// that the entry is still held.
func (a *simActor) finish(hold *simPiped, finish func(context.Context) error) (again bool) {
	ctx, cancel := a.trying()
	err := finish(ctx)
	cancel()
	for tries := 0; (tries < 20 || errors.Is(err, zkq.ErrFull) || errors.Is(err, zkq.ErrExists)) && errors.Is(err, zkq.ErrUnknown) && !errors.Is(err, coord.ErrClosed) && a.ctx.Err() == nil; tries++ {
		a.sleep(200 * time.Millisecond)
		err = finish(a.ctx)
		if errors.Is(err, zkq.ErrAlreadyDone) {
			break
		}
	}
	switch {
	case err == nil:
		hold.outcome = "ok"
	case errors.Is(err, zkq.ErrUnknown), errors.Is(err, zkq.ErrAlreadyDone):
		hold.outcome = "unknown"
	case errors.Is(err, zkq.ErrLockLost):
		hold.outcome = "lost"
	default:
		hold.outcome = "failed"
		return a.ctx.Err() == nil && !errors.Is(err, coord.ErrClosed)
	}
	return false
}
