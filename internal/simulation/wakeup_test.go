package simulation

import (
	"math/rand/v2"
	"path"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// addFleet makes a plan in sixteen one of a fleet: up to twelve processes that share out the head of the queue.
func (p *simPlan) addFleet() {
	rng := rand.New(rand.NewPCG(p.seed, 23))
	if rng.IntN(16) > 0 {
		return
	}
	p.head.registered = true
	for i := len(p.processes); i < 5+rng.IntN(8); i++ {
		m := simMember{index: i, takers: 1 + rng.IntN(2), puts: 1 + rng.IntN(12)}
		if rng.IntN(6) == 0 {
			m.crash = time.Duration(1+rng.IntN(10)) * time.Second
		}
		p.processes = append(p.processes, m)
	}
}

// simFree is an interval in which an entry was ready.
type simFree struct {
	name     string
	from, to time.Duration
}

// simWait is a take that waited for an entry.
type simWait struct {
	client   string
	from, to time.Duration
}

// noteWait notes a take that has waited for long.
func (s *simulation) noteWait(h *simHold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); now > h.call+wakeUp {
		s.waits = append(s.waits, simWait{h.client, h.call, now})
	}
}

// freeIntervals are the intervals in which entries were ready, from their put or from the end of their holder's session
// until their next claim. An entry that its holder gave back does not count: the holder leaves it to others for a while.
type freeIntervals struct {
	since map[string]time.Duration
	ended []simFree
}

// applied follows which entries are ready. isFree says which are so after the commit.
func (f *freeIntervals) applied(now time.Duration, a coordtest.Applied, isFree func(name string) bool) {
	for i, op := range a.Ops {
		at := op.Path
		if op.Kind == coord.KindSequential {
			at = a.Results[i].Path
		}
		if !strings.HasPrefix(at, simEntries) && !strings.HasPrefix(at, simTaken) {
			continue
		}
		name := path.Base(at)
		from, wasFree := f.since[name]
		switch {
		case wasFree && !isFree(name):
			f.ended = append(f.ended, simFree{name, from, now})
			delete(f.since, name)
		case !wasFree && isFree(name) && (op.Kind == coord.KindSequential || a.Expired):
			f.since[name] = now
		}
	}
}

// wakeUp is how long an entry may be ready while a take waits: a second, and the time of a few requests.
const wakeUp = 1500 * time.Millisecond

// checkWakeUps requires that no take waits for longer beside an entry that is ready (R13). It looks at the time in which
// nothing is cut off any more, and all sessions that were lost have been replaced.
func (s *simulation) checkWakeUps() {
	calm := time.Duration(s.calmAt.Load()) + s.plan.timeout + 2*time.Second
	for _, w := range s.waits {
		for _, f := range s.world.free.ended {
			if from := max(w.from, f.from, calm); min(w.to, f.to) > from+wakeUp {
				s.violation("%s waited from %v to %v, and %s was ready from %v to %v", w.client, w.from, w.to, f.name, f.from, f.to)
			}
		}
	}
}
