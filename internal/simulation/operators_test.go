package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/zkq/zkq"
)

// operatorPlan is the part of a plan about other users of the pipeline's first queue: entries that expire before they
// are taken, programs that only poll, and operators who peek, remove, purge and wait for the queue to be empty.
type operatorPlan struct {
	on        bool
	bulk      int           // entries that are put at the beginning; 0: none
	idle      time.Duration // until the first worker comes; 0: none waits
	calm      bool          // the first worker comes when there are no faults any more
	polls     bool          // the workers of the first queue only poll
	abandoned bool          // all workers leave when there are no faults any more; every entry expires
	updates   bool          // workers write their progress into entries
	page      int           // so much of the delayed index is read at once; 0: as much as ever
	acts      []string      // of operators
}

// newOperatorPlan uses a random source of its own, so that the rest of the plan does not depend on it.
func newOperatorPlan(seed uint64) operatorPlan {
	rng := rand.New(rand.NewPCG(seed, 14))
	one := func(of int) bool { return rng.IntN(of) == 0 }
	o := operatorPlan{on: one(2), page: []int{1, 2, 4, 64}[rng.IntN(4)], polls: one(2), updates: one(2), abandoned: one(4)}
	if one(2) {
		o.bulk = 20 + rng.IntN(41)
	}
	if one(2) {
		o.idle = time.Duration(2+rng.IntN(7)) * time.Second
	}
	o.calm = one(2)
	for _, act := range []string{"peek", "remove", "purge", "wait"} {
		if one(2) {
			o.acts = append(o.acts, act)
		}
	}
	return o
}

// parts returns what could be left out.
func (o *operatorPlan) parts() (parts []string) {
	add := func(on bool, part string) {
		if on {
			parts = append(parts, part)
		}
	}
	add(o.on, "operators")
	add(o.on && o.bulk > 0, "bulk")
	add(o.on && (o.idle > 0 || o.calm), "idle")
	add(o.on && o.polls, "polls")
	add(o.on && o.abandoned, "abandoned")
	add(o.on && o.updates, "updates")
	for _, act := range o.acts {
		add(o.on, act)
	}
	return parts
}

func (o *operatorPlan) leaveOut(what string) bool {
	switch what {
	case "operators":
		*o = operatorPlan{}
	case "bulk":
		o.bulk = 0
	case "idle":
		o.idle, o.calm = 0, false
	case "polls":
		o.polls = false
	case "abandoned":
		o.abandoned = false
	case "updates":
		o.updates = false
	default:
		i := slices.Index(o.acts, what)
		if i < 0 {
			return false
		}
		o.acts = slices.Delete(o.acts, i, i+1)
	}
	return true
}

// prepare changes a pipeline so that it fits the plan.
func (o *operatorPlan) prepare(l *simPipe) {
	if !o.on {
		return
	}
	if o.bulk > 0 {
		l.config, l.steward, l.keys = zkq.QueueConfig{}, false, 0
	}
	if o.abandoned {
		l.ttls, l.passes = true, false
	}
}

// start starts the operators.
func (o *operatorPlan) start(start func(name string, f func(*simActor))) {
	if !o.on {
		return
	}
	if o.bulk > 0 {
		start("bulk", (*simActor).feedMany)
	}
	for _, act := range o.acts {
		start("operator "+act, func(a *simActor) { a.operate(act) })
	}
	if o.abandoned {
		start("operator broom", (*simActor).removeExpired)
	}
}

// feedMany puts many entries. Most of them expire soon.
func (a *simActor) feedMany() {
	l := a.l
	a.open()
	defer a.c.Close()
	q := a.queue(&l.first)
	defer q.Close()
	for n := 0; n < l.operators.bulk && a.ctx.Err() == nil; {
		simTurn(50 + a.n)
		f := &simFeed{pool: &l.first}
		for i := range min(1+a.rng.IntN(20), l.operators.bulk-n) {
			f.values = append(f.values, fmt.Sprint(a.name, "#", n, ":", i, ":", a.rng.IntN(1e6)))
		}
		if l.operators.abandoned || !a.one(6) {
			f.ttl = time.Duration(1+a.rng.IntN(4000)) * time.Millisecond
			f.opts = append(f.opts, zkq.WithTTL(f.ttl))
		}
		if a.one(2) {
			d := time.Duration(1+a.rng.IntN(6000)) * time.Millisecond
			f.notBefore, f.opts = time.Now().Add(d), append(f.opts, zkq.WithDelay(d))
		}
		f.opts = append(f.opts, zkq.WithPriority(100+a.rng.IntN(2)))
		a.put(q, f)
		for f.outcome == "unknown" && a.ctx.Err() == nil {
			a.settle(q, f)
		}
		if f.outcome == "ok" {
			n += len(f.values)
			l.s.count("bulk feed")
		}
		a.sleep(200 * time.Millisecond)
	}
	if a.ctx.Err() == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.left--
	}
}

// awaitWork returns when a worker of the first queue is to begin.
func (a *simActor) awaitWork() {
	o := a.l.operators
	if !o.on {
		return
	}
	if o.calm && !o.abandoned {
		simSleep(a.faulty, time.Hour)
		simTurn(50 + a.n) // the end of the faults wakes all workers at one instant
	}
	simSleep(a.ctx, o.idle)
}

// operator reports whether a client may remove an entry that it does not hold.
func operator(client string) bool { return strings.HasPrefix(client, "operator") }

// operate repeats one operation on the first queue.
func (a *simActor) operate(act string) {
	a.open()
	defer a.c.Close()
	q := a.queue(&a.l.first)
	defer q.Close()
	for a.ctx.Err() == nil {
		simTurn(50 + a.n)
		switch act {
		case "peek":
			a.peek(q)
		case "remove":
			a.remove(q)
		case "purge":
			a.purge(q)
		case "wait":
			a.wait(q)
		}
		a.sleep(map[string]time.Duration{"peek": 1500, "remove": 4000, "purge": 15000, "wait": 800}[act] * time.Millisecond)
	}
}

// removeExpired removes expired entries, once all workers have left.
func (a *simActor) removeExpired() {
	a.open()
	defer a.c.Close()
	q := a.queue(&a.l.first)
	defer q.Close()
	simSleep(a.faulty, time.Hour)
	var dead time.Duration // when no entry was first seen to live; removals move deadSince on
	for a.ctx.Err() == nil {
		a.sleep(time.Second)
		a.l.mu.Lock()
		since, living := a.l.first.deadSince()
		left := a.l.left
		a.l.mu.Unlock()
		switch {
		case left > 0 || living:
			dead = 0
		case dead == 0:
			dead = since
		}
		if dead > 0 && a.l.s.now() > dead+2*promptWait {
			q.Purge(a.ctx, zkq.StateReady)
			q.Purge(a.ctx, zkq.StateDelayed)
		}
	}
}

// peek looks at the next entry, or at one by its name.
func (a *simActor) peek(q *zkq.LockingQueue) {
	l := a.l
	l.mu.Lock()
	name := ""
	if n := len(l.first.lives); n > 0 && a.one(2) {
		name = l.first.lives[max(0, n-1-a.rng.IntN(20))].name
	}
	l.mu.Unlock()
	ctx, cancel := a.trying()
	call := l.s.now()
	e, err := q.Peek(ctx, name)
	cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.s.count("peeked")
		if n := l.first.find(e.Name, call); n == nil || n.value != valueBeforeUpdates(string(e.Value)) || len(n.text) < len(e.Value) {
			l.s.violation("peek said from %v that %s holds %q, and it did not", call, e.Name, e.Value)
		}
	case errors.Is(err, zkq.ErrEmpty):
		l.s.count("peeked at nothing")
		for _, n := range l.first.nodes {
			if _, locked := l.first.locks[n.name]; n.due.IsZero() && n.ready < call && !locked && !n.expired() {
				l.s.violation("peek said from %v that nothing is there, and %s was ready since %v", call, n.name, n.ready)
			}
		}
	case errors.Is(err, zkq.ErrNoEntry):
		if n := l.first.nodes[name]; n != nil && n.from < call && !n.expired() {
			l.s.violation("peek said from %v that %s is not there, and it was since %v", call, name, n.from)
		}
	}
}

// remove removes an entry by its name, sometimes from its holder.
func (a *simActor) remove(q *zkq.LockingQueue) {
	l := a.l
	l.mu.Lock()
	var names []string
	for name := range l.first.nodes {
		names = append(names, name)
	}
	l.mu.Unlock()
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	name, force := names[a.rng.IntN(len(names))], a.one(3)
	ctx, cancel := a.trying()
	call := l.s.now()
	err := q.Remove(ctx, name, force)
	cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.first.nodes[name]
	switch {
	case err == nil:
		l.s.count("removed")
		if n != nil {
			l.s.violation("%s was removed from %v, and is there", name, call)
		}
	case errors.Is(err, zkq.ErrNoEntry):
		if n != nil && n.from < call {
			l.s.violation("remove said from %v that %s is not there, and it is", call, name)
		}
	case errors.Is(err, zkq.ErrHeld) && force:
		l.s.violation("%s was to be removed from its holder: %v", name, err)
	}
}

// purge removes the entries of one state.
func (a *simActor) purge(q *zkq.LockingQueue) {
	l := a.l
	state := []zkq.State{zkq.StateReady, zkq.StateReady, zkq.StateDelayed, zkq.StateHeld}[a.rng.IntN(4)]
	ctx, cancel := a.trying()
	defer cancel()
	l.mu.Lock()
	before := l.first.removed[a.name]
	l.mu.Unlock()
	call := l.s.now()
	n, err := q.Purge(ctx, state)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		return
	}
	l.s.count("purged " + string(state))
	if removed := l.first.removed[a.name] - before; n != removed && l.s.calmSince(call) {
		l.s.violation("a purge from %v removed %d, and said %d", call, removed, n)
	}
	for _, n := range l.first.nodes {
		if _, locked := l.first.locks[n.name]; state == zkq.StateReady && n.due.IsZero() && n.ready < call && !locked {
			l.s.violation("a purge from %v left %s, which was ready since %v", call, n.name, n.ready)
		}
	}
}

// promptWait is how long after the last entry is gone a wait may last, if there are no faults.
const promptWait = 2 * time.Second

// wait waits for the queue to be empty.
func (a *simActor) wait(q *zkq.LockingQueue) {
	l := a.l
	call := l.s.now()
	err := q.WaitEmpty(a.ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.s.count("waited")
		if !l.first.emptyDuring(call, l.s.now()) {
			l.s.violation("a wait from %v ended, and there was an entry all the time", call)
		}
	}
	if errors.Is(err, context.Canceled) || err == nil {
		since, living := l.first.deadSince()
		calm := time.Duration(l.s.calmAt.Load())
		if since = max(since, call, calm+promptWait); !living && calm > 0 && l.s.now() > since+promptWait {
			l.s.violation("a wait from %v went on until now, and there was nothing since %v", call, since)
		}
	}
}

// expired reports whether the entry's time to live is over, held or not.
func (n *simNode) expired() bool { return !n.expires.IsZero() && !time.Now().Before(n.expires) }

// find returns the node of that name, if it was there at some time after call.
func (p *pipeQueue) find(name string, call time.Duration) *simNode {
	for _, n := range slices.Backward(p.lives) {
		if n.name == name && (!n.gone || n.to >= call) {
			return n
		}
	}
	return nil
}

// ends returns when an entry was removed or expires, or never if neither is known.
func (n *simNode) ends(start time.Time) time.Duration {
	end := never
	if !n.expires.IsZero() {
		end = n.expires.Sub(start)
	}
	if n.gone {
		end = min(end, n.to)
	}
	return end
}

// emptyDuring reports whether there was an instant without an entry.
func (p *pipeQueue) emptyDuring(from, to time.Duration) bool {
	start := p.l.s.start
	instants := []time.Duration{from}
	for _, n := range p.lives {
		if end := n.ends(start); end > from && end <= to {
			instants = append(instants, end)
		}
	}
	return slices.ContainsFunc(instants, func(at time.Duration) bool {
		return !slices.ContainsFunc(p.lives, func(n *simNode) bool { return n.from <= at && at < n.ends(start) })
	})
}

// deadSince returns since when there is no entry. living reports that there is one.
func (p *pipeQueue) deadSince() (since time.Duration, living bool) {
	now := p.l.s.now()
	for _, n := range p.lives {
		end := n.to
		if !n.gone {
			if end = n.ends(p.l.s.start); n.ready != never {
				end = max(end, n.ready) // of what was given back, or delayed, later at most
			} else {
				end = never
			}
		}
		if end > now {
			return 0, true
		}
		since = max(since, end)
	}
	return since, false
}

// prompt requires that a call which does not wait for entries returns at once if there are no faults.
func (s *simulation) prompt(what string, call time.Duration) {
	if took := s.now() - call; took > 100*time.Millisecond && s.calmSince(call) {
		s.violation("%s from %v took %v", what, call, took)
	}
}

// calmSince reports whether there are no faults since before an instant.
func (s *simulation) calmSince(at time.Duration) bool {
	calm := time.Duration(s.calmAt.Load())
	return calm > 0 && at > calm+time.Second
}
