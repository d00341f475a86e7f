package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest/sim"
)

// workerPlan is the part of a plan about workers. If it is on, every second taker is a zkq.Worker that is stopped and
// started again while it works.
type workerPlan struct {
	on          bool
	maxFailures int
	timeout     time.Duration
}

// newWorkerPlan uses a random source of its own, so that the rest of the plan does not depend on it.
func newWorkerPlan(seed uint64) workerPlan {
	rng := rand.New(rand.NewPCG(seed, 11))
	c := workerPlan{on: rng.IntN(3) == 0, maxFailures: rng.IntN(4)}
	if rng.IntN(2) == 0 {
		c.timeout = 1500*time.Millisecond + 7
	}
	return c
}

// runWorker runs a worker again and again. Each run ends after some seconds.
func (p *simProcess) runWorker(ctx, faulty context.Context, q *zkq.LockingQueue, n int, rng *rand.Rand) {
	ctx = sim.WithActor(ctx, fmt.Sprint("taker", n))
	k := &simWorker{p: p, client: fmt.Sprint(p.name, " taker", n), n: n, faulty: faulty, rng: rng}
	w := &zkq.Worker{
		Queue: q, Handler: zkq.HandlerFunc(k.handle), Report: k.report,
		MaxFailures: p.s.plan.workers.maxFailures, Timeout: p.s.plan.workers.timeout,
		Backoff: func(int) time.Duration { return 0 },
	}
	for ctx.Err() == nil {
		simTurn(n)
		shift, cancel := ctx, context.CancelFunc(func() {})
		if faulty.Err() == nil {
			shift, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(8000))*time.Millisecond+time.Duration(31*(1+n)))
		}
		w.Grace = time.Duration(1+rng.IntN(3000))*time.Millisecond + time.Duration(17*(1+n))
		k.run, k.last = shift, p.s.now()
		err := w.Run(shift)
		cancel()
		p.s.count("shift")
		if err != nil {
			if !errors.Is(err, coord.ErrClosed) && !errors.Is(err, zkq.ErrClosed) {
				p.s.violation("a worker ended with %v", err)
			}
			return
		}
	}
}

// simWorker is a worker as its handler sees it. It works on one entry at a time.
type simWorker struct {
	p      *simProcess
	client string
	n      int
	faulty context.Context
	rng    *rand.Rand

	run  context.Context
	last time.Duration // it was not working on anything since then, and may have taken the next
	hold *simHold      // of the entry in hand
}

func (k *simWorker) begin(h *zkq.Held) *simHold {
	s := k.p.s
	hold := &simHold{client: k.client, name: h.Name, deliveries: s.world.delivery(h), token: h.Token, call: k.last, from: s.now(), fresh: s.plan.strict}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = append(s.holds, hold)
	return hold
}

// handle works for a while and then finishes the entry in one of the ways that a handler can. It records what must
// follow from that.
func (k *simWorker) handle(ctx context.Context, h *zkq.Held) (err error) {
	s := k.p.s
	hold := k.begin(h)
	k.hold = hold
	context.AfterFunc(ctx, func() { s.noteEnd(hold) })
	if h.Deliveries > 1 {
		s.count("redelivered")
	}
	calm := k.faulty.Err() != nil
	d := time.Duration(k.rng.IntN(300)) * time.Millisecond
	if !calm && k.rng.IntN(4) == 0 {
		d = time.Duration(k.rng.IntN(6000)) * time.Millisecond
	}
	simSleep(ctx, d+time.Duration(k.n))
	time.Sleep(time.Duration(1+k.n) * 64) // those whom one thing woke go on one by one
	defer s.noteEnd(hold)
	defer func() { k.last = s.now() }()
	cause := context.Cause(ctx)
	counted := "fail"
	if most := s.plan.workers.maxFailures; most > 0 && h.Failures+1 >= most {
		counted = "bury"
	}
	choice := 0
	if !calm && k.rng.IntN(3) == 0 {
		choice = 1 + k.rng.IntN(5)
	}
	switch {
	case choice == 1:
		err, hold.act = zkq.Skip(errors.New("simulated")), "bury"
	case choice == 2:
		err, hold.act = fmt.Errorf("later: %w", zkq.Snooze(0)), "release"
	case choice == 3:
		err, hold.act = errors.New("simulated"), counted
	case choice == 4 && cause == nil && k.run.Err() == nil:
		hold.act = counted
		panic("simulated")
	case cause != nil:
		err, hold.act = ctx.Err(), counted
	default:
		hold.act = "consume"
	}
	switch {
	case err == nil:
	case errors.Is(cause, zkq.ErrLockLost):
		hold.act = "release"
	case choice > 2 || choice == 0:
		if errors.Is(cause, zkq.ErrShutdown) || k.run.Err() != nil && errors.Is(err, context.Canceled) {
			hold.act = "release"
			s.count("shift ended work")
		} else if errors.Is(cause, zkq.ErrTimeout) {
			s.count("work timed out")
		}
	}
	return err
}

// report records how the entry ended for the worker.
func (k *simWorker) report(h zkq.Handled) {
	s := k.p.s
	if k.hold == nil { // it was claimed as the shift ended, and not handled
		k.hold = k.begin(h.Held)
		k.hold.act, k.hold.until = "release", k.last // and it has been given back by now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	acts := map[zkq.Ending]string{
		zkq.EndingDone: "consume", zkq.EndingFailed: "fail", zkq.EndingDead: "bury", zkq.EndingSnoozed: "release", zkq.EndingReleased: "release",
	}
	switch act := acts[h.Ending]; {
	case h.Ending == zkq.EndingLost:
		k.hold.outcome = "lost"
	case h.Ending == zkq.EndingUnknown:
		k.hold.outcome = "unknown"
	case act == k.hold.act:
		k.hold.outcome = "ok"
	default:
		s.bad = append(s.bad, violation{"a worker did something else", fmt.Sprintf("a worker did something else to %s (delivery %d) than %s: %s, %v",
			k.hold.name, k.hold.deliveries, k.hold.act, h.Ending, h.Err)})
	}
	s.counts["crew "+k.hold.act+" "+k.hold.outcome]++
	k.hold.ret = s.now()
	k.hold = nil
}
