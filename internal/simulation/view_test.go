package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testqueue"
	"github.com/zkq/zkq/priority"
)

// headPlan is the part of a plan about how entries are chosen.
type headPlan struct {
	exchange   bool // workers finish and take in one commit
	registered bool // processes share out the head of the queue
	window     int  // so much of it
	updates    bool // workers write into entries how far they have come
	polls      bool // the first process only polls
	purges     bool // the operator who breaks locks also purges
}

// newHeadPlan uses random sources of its own, so that the rest of the plan does not depend on them.
func newHeadPlan(seed uint64) headPlan {
	rng := rand.New(rand.NewPCG(seed, 10))
	v := headPlan{exchange: rng.IntN(2) == 0, registered: rng.IntN(2) == 0, window: []int{1, 2, 4, 64}[rng.IntN(4)]}
	rng = rand.New(rand.NewPCG(seed, 15))
	v.updates, v.polls, v.purges = rng.IntN(3) == 0, rng.IntN(4) == 0, rng.IntN(3) == 0
	return v
}

// mostOvertaking returns how many later entries may be claimed before an earlier one. In one process, claims in flight
// together may be applied in any order. Processes that share out the head of the queue add a window, and each of them
// may be at the head twice. The window is four entries for each that a process wants or holds, times the processes.
func (p *simPlan) mostOvertaking() int {
	most, largest, sharing := 0, 0, 0
	for _, m := range p.processes {
		most += m.takers * max(p.deaths.batch, 1)
		largest = max(largest, m.takers*max(p.deaths.batch, 1))
		sharing++
		if m.crash > 0 {
			sharing++
		}
	}
	if p.strict {
		return 0
	}
	if (p.head.registered || p.head.exchange || p.workers.on) && sharing > 1 { // an Exchange and a Worker register too
		return max(p.head.window, 4*2*largest*sharing) + 2*sharing + most
	}
	return most
}

// checkOrder requires that a put which returned before another of its priority began has the smaller name, if it is
// still there when that one is made. Only so many entries that were put after it may be claimed before it.
func (s *simulation) checkOrder() {
	first := make(map[string]int)
	for i, name := range s.world.claimed {
		first[name] = i + 1
	}
	most := s.plan.mostOvertaking()
	for _, pa := range s.puts {
		overtaken := 0
		for _, pb := range s.puts {
			if pa.names == nil || pb.names == nil || pa.priority != pb.priority || pa.ret >= pb.call {
				continue
			}
			a, b := pa.names[len(pa.names)-1], pb.names[0]
			if na, _ := priority.Parse(a); a > b && !s.world.outlived(a, b) || na.Priority != pa.priority {
				s.violation("%s was put before %s", a, b)
			}
			if first[b] != 0 && (first[a] == 0 || first[a] > first[b]) {
				if overtaken++; overtaken > most {
					s.violation("%s was put before %s and claimed after it, as after %d others: %d may be", a, b, overtaken-1, most)
				}
			}
		}
	}
}

// swap works on the entries that were taken, and exchanges them for the next in one commit each time.
func (p *simProcess) swap(ctx, faulty context.Context, q *zkq.LockingQueue, n int, held []*zkq.Held, holds []*simHold, rng *rand.Rand) {
	working, done := p.working(ctx, held, holds)
	for len(held) > 0 {
		for _, h := range held {
			if h.Deliveries > 1 {
				p.s.count("redelivered")
			}
		}
		d := time.Duration(rng.IntN(300)) * time.Millisecond
		if faulty.Err() == nil && rng.IntN(5) == 0 {
			d = time.Duration(rng.IntN(9000)) * time.Millisecond
		}
		simSleep(working[0], d)
		p.update(ctx, n, held[0], rng)
		for _, h := range holds {
			p.s.noteEnd(h)
			h.act = "consume"
		}
		time.Sleep(time.Duration(1 + n))
		swapping, cancelSwap := ctx, context.CancelFunc(func() {})
		if faulty.Err() == nil && rng.IntN(6) == 0 {
			swapping, cancelSwap = context.WithTimeout(ctx, time.Duration(rng.IntN(3000))*time.Millisecond)
		}
		call, want := p.s.now(), p.s.plan.deaths.batch
		if rng.IntN(8) == 0 {
			want = 0
		}
		next, err := q.Exchange(swapping, held, want)
		cancelSwap()
		done()
		if errors.Is(err, zkq.ErrInvalid) {
			p.s.violation("an exchange ended with %v", err)
		}
		p.s.count(fmt.Sprintf("exchange of %d for %d", min(len(held), 2), min(len(next), 2)))
		p.s.checkTakenTogether(next)
		nextHolds := p.holds(next, &simHold{client: holds[0].client, call: call})
		working, done = p.working(ctx, next, nextHolds) // before anything else takes time
		failed := make(map[*zkq.Held]error)
		for _, e := range testqueue.FinishErrors(err) {
			failed[e.Held] = e.Err
		}
		for i, h := range held {
			p.settleConsume(ctx, h, holds[i], failed[h])
		}
		held, holds = next, nextHolds
	}
	done()
}

// working returns a context for each entry, and records when each of them ends.
func (p *simProcess) working(ctx context.Context, held []*zkq.Held, holds []*simHold) (working []context.Context, done func()) {
	var cancels []context.CancelFunc
	for i, h := range held {
		one, cancel := h.Context(ctx)
		hold := holds[i]
		context.AfterFunc(one, func() { p.s.noteEnd(hold) }) // while its holder works on another, perhaps
		working, cancels = append(working, one), append(cancels, cancel)
	}
	return working, func() {
		for _, cancel := range cancels {
			cancel()
		}
	}
}

// update writes progress into an entry now and then.
func (p *simProcess) update(ctx context.Context, n int, h *zkq.Held, rng *rand.Rand) {
	if !p.s.plan.head.updates || rng.IntN(3) > 0 {
		return
	}
	updating, cancel := context.WithTimeout(ctx, time.Duration(1+rng.IntN(4000))*time.Millisecond)
	err := h.Update(updating, append(h.Value, '~'))
	cancel()
	time.Sleep(time.Duration(1 + n))
	switch {
	case err == nil:
		p.s.count("update ok")
	case errors.Is(err, zkq.ErrUnknown):
		p.s.count("update unknown")
	}
}

// settleConsume records the outcome of a consume, and repeats the call while that is unknown.
func (p *simProcess) settleConsume(ctx context.Context, h *zkq.Held, hold *simHold, err error) {
	for err != nil && !errors.Is(err, zkq.ErrLockLost) && !errors.Is(err, zkq.ErrUnknown) && !errors.Is(err, coord.ErrClosed) && ctx.Err() == nil {
		simSleep(ctx, 100*time.Millisecond) // nothing was changed
		err = h.Consume(ctx)
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
	p.s.count("exchange " + hold.outcome)
	for tries := 0; tries < 20 && errors.Is(err, zkq.ErrUnknown) && !errors.Is(err, coord.ErrClosed) && ctx.Err() == nil; tries++ {
		simSleep(ctx, 100*time.Millisecond)
		if err = h.Consume(ctx); err == nil {
			hold.outcome = "ok"
		}
		if errors.Is(err, zkq.ErrLockLost) || errors.Is(err, zkq.ErrAlreadyDone) {
			break
		}
	}
	hold.ret = p.s.now()
}

// holds records entries as they are handed out.
func (p *simProcess) holds(held []*zkq.Held, hold *simHold) []*simHold {
	var holds []*simHold
	for i, h := range held {
		one := *hold
		one.name, one.deliveries, one.token, one.from, one.fresh = h.Name, p.s.world.delivery(h), h.Token, p.s.now(), hold.fresh && i == 0
		holds = append(holds, &one)
	}
	p.s.mu.Lock()
	p.s.holds = append(p.s.holds, holds...)
	p.s.mu.Unlock()
	return holds
}
