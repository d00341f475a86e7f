package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/coord/coordtest/sim"
	"github.com/zkq/zkq/internal/testhook"
	"github.com/zkq/zkq/internal/testqueue"
)

// deadPlan is the part of a plan about dead entries and about takes of several entries.
type deadPlan struct {
	requeue bool // an operator makes dead entries ready again
	batch   int  // entries that a worker takes at once
}

// newDeadPlan uses a random source of its own, so that the rest of the plan does not depend on it.
func newDeadPlan(seed uint64) deadPlan {
	rng := rand.New(rand.NewPCG(seed, 9))
	d := deadPlan{requeue: rng.IntN(3) > 0, batch: 1}
	if rng.IntN(3) == 0 {
		d.batch = 2 + rng.IntN(2)
	}
	return d
}

// checkTakenTogether requires that an entry which came back is taken alone.
func (s *simulation) checkTakenTogether(held []*zkq.Held) {
	if len(held) < 2 {
		return
	}
	s.count("taken together")
	for _, h := range held {
		if h.Deliveries > 1 {
			s.violation("%s came back (delivery %d) and was taken with %d others", h.Name, h.Deliveries, len(held)-1)
		}
	}
}

// simClaim is the k-th claim of an entry.
type simClaim struct {
	name string
	k    int
}

// deadState is what the service applied to dead entries and to histories of entries.
type deadState struct {
	s         *simulation
	values    map[string]string   // of entries
	texts     map[simClaim]string // of entries as they were claimed
	histories map[string]history  // of entries
	dead      map[string]string   // dead entry: its value among the living
	requeued  map[string]string   // dead entry that was requeued: its new name
	exhausted map[simClaim]bool   // the entry had reached the ceiling before
	failed    map[simClaim]bool   // the claim was counted as a failure
	died      map[simClaim]bool
}

type history struct {
	Failures, Forgiven, Updates int
	Reason                      string
}

const simDead, historyDir = "/jobs/dead/", "/jobs/attempts/"

func newDeadState(s *simulation) deadState {
	return deadState{
		s: s, values: make(map[string]string), texts: make(map[simClaim]string), histories: make(map[string]history), dead: make(map[string]string), requeued: make(map[string]string),
		exhausted: make(map[simClaim]bool), failed: make(map[simClaim]bool), died: make(map[simClaim]bool),
	}
}

// applied follows a commit. claims are the claims before it. It reports whether the commit made a dead entry ready
// again.
func (g *deadState) applied(a coordtest.Applied, claims map[string]int) (rose bool) {
	ops := make(map[string]coord.Op)
	var died, risen []string
	byHand := false
	for i, op := range a.Ops {
		if op.Kind == coord.KindSequential {
			g.values[strings.TrimPrefix(a.Results[i].Path, simEntries)] = string(op.Value)
			continue
		}
		ops[op.Path] = op
		byHand = byHand || strings.HasPrefix(op.Path, "/jobs/broken/")
		if name, ok := strings.CutPrefix(op.Path, simDead); ok && op.Kind == coord.KindDelete {
			risen = append(risen, name)
		} else if ok {
			died = append(died, name)
		}
	}
	for _, name := range died {
		g.checkBurial(name, ops, claims)
	}
	for _, name := range risen {
		g.checkRequeue(name, a)
	}
	for path, op := range ops {
		if name, ok := strings.CutPrefix(path, simEntries); ok {
			g.checkHistory(name, op.Kind, ops, claims, byHand)
		}
		if name, ok := strings.CutPrefix(path, historyDir); ok && ops[simEntries+name].Kind == 0 {
			g.s.violation("the history of %s was written without the entry: %v", name, a.Ops)
		}
	}
	return len(risen) > 0
}

// checkBurial requires that an entry becomes dead with its value and counts, in the commit that removes it from the
// queue.
func (g *deadState) checkBurial(dead string, ops map[string]coord.Op, claims map[string]int) {
	_, name, _ := strings.Cut(dead, "-")
	if ops[simEntries+name].Kind != coord.KindDelete || ops[simTaken+name].Kind != coord.KindDelete {
		g.s.violation("%s is dead, and the commit did not remove its entry", name)
	}
	value := string(ops[simDead+dead].Value)
	text, body, _ := strings.Cut(value, "}")
	_, text, _ = strings.Cut(text, "{")
	var h struct{ Failures, Deliveries int }
	if err := json.Unmarshal([]byte("{"+text+"}"), &h); err != nil || body != g.values[name] {
		g.s.violation("%q died as %q: %v", g.values[name], value, err)
	}
	this := simClaim{name, claims[name]}
	counted := 1 // by a holder, or not by a claim that only moved it to the dead
	if g.exhausted[this] {
		counted = 0
		g.s.count("worn out")
	}
	if h.Deliveries != claims[name]-1+counted || h.Failures != g.histories[name].Failures+counted {
		g.s.violation("%s died after %d claims and %+v as %+v", name, claims[name], g.histories[name], h)
	}
	g.dead[dead], g.died[this] = body, true
}

// checkRequeue requires that a dead entry is made ready once, with its value.
func (g *deadState) checkRequeue(dead string, a coordtest.Applied) {
	for i, op := range a.Ops {
		if i == 0 || op.Kind != coord.KindSequential || a.Ops[i-1].Path != simDead+dead {
			continue
		}
		if value, ok := g.dead[dead]; !ok || value != string(op.Value) || g.requeued[dead] != "" {
			g.s.violation("%s, which was %q (%v), came back as %q", dead, value, ok, op.Value)
		}
		g.requeued[dead] = strings.TrimPrefix(a.Results[i].Path, simEntries)
		delete(g.dead, dead)
		g.s.count("requeued")
		return
	}
	g.s.violation("%s was removed from the dead entries, and no entry was created", dead)
}

// checkHistory requires that the history of an entry changes by one when the entry is given back, and is removed with
// the entry.
func (g *deadState) checkHistory(name string, entry coord.Kind, ops map[string]coord.Op, claims map[string]int, byHand bool) {
	before, had := g.histories[name]
	note, noted := ops[historyDir+name]
	switch {
	case entry == coord.KindTouch:
		next := simClaim{name, claims[name] + 1}
		if c := g.s.plan.deliveries; c > 0 && claims[name]+before.Updates-before.Forgiven >= c {
			g.exhausted[next] = true
		}
		g.texts[next] = g.values[name]
	case entry == coord.KindSet:
		var now history
		value := string(ops[simEntries+name].Value)
		if err := json.Unmarshal(note.Value, &now); !noted || err != nil || now != (history{before.Failures, before.Forgiven + 1, before.Updates + 1, before.Reason}) {
			g.s.violation("%s was updated with the history %+v, and now has %s", name, before, note.Value)
		}
		if valueBeforeUpdates(value) != valueBeforeUpdates(g.values[name]) {
			g.s.violation("%q became %q by an update", g.values[name], value)
		}
		g.histories[name], g.values[name] = now, value
		return
	case entry == coord.KindDelete:
		if noted != had || noted && note.Kind != coord.KindDelete {
			g.s.violation("%s was removed, and its history is left", name)
		}
		delete(g.histories, name)
		return
	case entry == coord.KindCheck && ops[simTaken+name].Kind == coord.KindDelete && !byHand:
		var now history
		if err := json.Unmarshal(note.Value, &now); !noted || err != nil || now.Failures+now.Forgiven != before.Failures+before.Forgiven+1 {
			g.s.violation("%s was given back with the history %+v, and now has %s", name, before, note.Value)
		}
		if now.Failures > before.Failures {
			g.failed[simClaim{name, claims[name]}] = true
		}
		g.histories[name] = now
		return
	}
	if noted {
		g.s.violation("the history of %s was written although the entry was not given back", name)
	}
}

// requeueDead makes dead entries ready again. Two clients do this at a time, and may choose the same entry.
func (s *simulation) requeueDead(ctx context.Context, n int) {
	client := fmt.Sprint("undertaker", n)
	c := s.open(client, "jobs")
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs", zkq.Holder(fmt.Sprintf("%032x", 2+n)), zkq.Producer(fmt.Sprintf("%016x", 2+n)), testqueue.Settings(testhook.Settings{Bulk: s.plan.bulk}))
	defer q.Close()
	ctx = sim.WithActor(ctx, client)
	rng, many := rand.New(rand.NewPCG(s.plan.seed, 10+uint64(n))), rand.New(rand.NewPCG(s.plan.seed, 23+uint64(n)))
	for ctx.Err() == nil {
		simSleep(ctx, time.Duration(1+rng.IntN(2000))*time.Millisecond)
		var dead []string
		for e, err := range q.Entries(ctx, zkq.StateDead) {
			if err == nil {
				dead = append(dead, e.Name)
			}
		}
		if len(dead) == 0 {
			continue
		}
		r := &simRequeue{dead: dead[rng.IntN(len(dead))]}
		trying, cancel := ctx, context.CancelFunc(func() {})
		if rng.IntN(3) == 0 {
			trying, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(2000))*time.Millisecond)
		}
		if many.IntN(2) == 0 {
			s.requeueAll(trying, q, dead, many)
			cancel()
			continue
		}
		var err error
		r.name, err = q.Requeue(trying, r.dead)
		cancel()
		s.noteRequeue(r, err)
	}
}

// requeueAll requeues all dead entries, or some of dead by the names that they have or had.
func (s *simulation) requeueAll(ctx context.Context, q *zkq.LockingQueue, dead []string, rng *rand.Rand) {
	var names []string
	was := make(map[string]string) // the dead entry of each name
	for _, name := range dead {
		if was[name] = name; rng.IntN(3) == 0 {
			_, name, _ = strings.Cut(name, "-")
			was[name] = dead[len(names)]
		}
		names = append(names, name)
	}
	if rng.IntN(2) == 0 {
		names = nil
	}
	for r, err := range q.RequeueAll(ctx, names...) {
		if len(names) > 0 && r.Was != "" && was[r.Was] == "" {
			s.violation("%q was requeued, and is none of %q", r.Was, names)
		}
		if err == nil {
			s.count("requeued with others")
		}
		dead := r.Was
		if known := was[dead]; known != "" {
			dead = known
		}
		s.noteRequeue(&simRequeue{dead: dead, name: r.Name}, err)
	}
}

// noteRequeue notes what a requeue told its caller.
func (s *simulation) noteRequeue(r *simRequeue, err error) {
	r.ok, r.unknown = err == nil, errors.Is(err, zkq.ErrUnknown)
	s.mu.Lock()
	s.requeues = append(s.requeues, r)
	s.mu.Unlock()
	if r.ok {
		s.count("requeue ok")
	}
}

// simRequeue is a requeue as its caller saw it.
type simRequeue struct {
	dead, name  string
	ok, unknown bool
}

// checkDeadEntries requires that no entry was handed out after it had reached the limit of deliveries, that no other
// entry died, and that callers were told the truth about it.
func (s *simulation) checkDeadEntries() {
	g := &s.world.deadState
	held := make(map[simClaim]*simHold)
	for _, h := range s.holds {
		this := simClaim{h.name, h.deliveries}
		held[this] = h
		if g.exhausted[this] {
			s.violation("%s was handed out (delivery %d) when it had reached the ceiling", h.name, h.deliveries)
		}
		switch said := h.act + " " + h.outcome; {
		case said == "fail ok" && !g.failed[this]:
			s.violation("a failure of %s (delivery %d) was not counted", h.name, h.deliveries)
		case said == "bury ok" && !g.died[this]:
			s.violation("%s (delivery %d) was buried, and is not dead", h.name, h.deliveries)
		case h.act != "fail" && g.failed[this]:
			s.violation("a %s of %s (delivery %d) is a failure", h.act, h.name, h.deliveries)
		case h.act != "bury" && g.died[this]:
			s.violation("%s (delivery %d) died of a %s", h.name, h.deliveries, h.act)
		}
	}
	for this := range g.died {
		if held[this] == nil && !g.exhausted[this] {
			s.violation("%s (delivery %d) died, and no caller buried it", this.name, this.k)
		}
	}
	oks, doubts := make(map[string]int), make(map[string]int)
	for _, r := range s.requeues {
		switch name := g.requeued[r.dead]; {
		case r.ok:
			if oks[r.dead]++; name == "" || oks[r.dead] > 1 || r.name != "" && r.name != name {
				s.violation("%s was requeued as %q by the caller and as %q by the service; callers were told so %d times", r.dead, r.name, name, oks[r.dead])
			}
		case r.unknown:
			doubts[r.dead]++
		}
	}
	for dead := range g.requeued {
		if oks[dead]+doubts[dead] == 0 {
			s.violation("%s was requeued, and no caller did that", dead)
		}
	}
}
