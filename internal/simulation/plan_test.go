package simulation

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest/sim"
)

// simPlan is what a seed draws, without the parts that were left out.
type simPlan struct {
	seed  uint64
	twist uint64 // another order of the same things

	plain   bool // Queue, and not LockingQueue
	strict  bool
	admin   bool // an operator breaks locks and removes entries by hand
	deaths  deadPlan
	workers workerPlan
	log     *simLog
	pipe    *simPipe
	head    headPlan

	deliveries int   // after which an entry is dead; 0: never
	bulk       int   // so many entries share a commit of a purge and the like
	counter    int32 // the first number of the queue, near the last that ZooKeeper has; 0: its first

	rates   sim.Rates
	aim     simAim
	spared  map[int]bool // faults that do not happen
	last    int          // faults from this one on do not happen either
	timeout time.Duration
	faulty  time.Duration // until everything is calm

	processes []simMember
}

// simMember is a process of the plan. It may crash once and go on in a new process.
type simMember struct {
	index        int
	takers, puts int
	crash        time.Duration // 0: none
}

// simAim selects the commits that faults are aimed at.
type simAim struct{ finishes, releases, claims, puts bool }

func (a simAim) hits(ops []coord.Op) bool {
	for _, op := range ops {
		lane := strings.HasPrefix(op.Path, "/zkq/producers/")
		switch {
		case strings.HasPrefix(op.Path, simLogDir):
			return a.puts
		case op.Kind == coord.KindCreate && strings.Contains(op.Path, "/delayed/"):
			return a.puts
		case op.Kind == coord.KindDelete && !lane:
			return a.finishes
		case op.Kind == coord.KindCheck:
			return a.releases
		case op.Kind == coord.KindTouch:
			return a.claims
		case op.Kind == coord.KindSequential, lane && len(ops) == 1: // that is a resolve's, or a new lane
			return a.puts
		}
	}
	return false
}

func newSimPlan(seed uint64) *simPlan {
	rng := rand.New(rand.NewPCG(seed, 7))
	one := func(of int) bool { return rng.IntN(of) == 0 }
	p := &simPlan{seed: seed, rates: sim.Swarm(seed), last: 1 << 30, spared: make(map[int]bool)}
	p.plain = one(6)
	p.strict = one(8)
	p.admin = one(3) && !p.plain
	if one(3) {
		p.deliveries = 1 + rng.IntN(4)
	}
	p.aim = simAim{finishes: true, releases: one(2), claims: one(3), puts: one(3)}
	p.timeout = time.Duration(2+rng.IntN(5)) * time.Second
	p.faulty = time.Duration(10+rng.IntN(20)) * time.Second
	for i := range 1 + rng.IntN(4) {
		m := simMember{index: i, takers: 1 + rng.IntN(3), puts: 1 + rng.IntN(8)}
		if one(4) {
			m.crash = time.Duration(1+rng.IntN(10)) * time.Second
		}
		p.processes = append(p.processes, m)
	}
	p.log = newSimLog(seed)
	p.log.on = p.log.on && !p.plain
	p.pipe = newSimPipe(seed)
	if rng := rand.New(rand.NewPCG(seed, 16)); rng.IntN(12) == 0 {
		p.counter = coord.LastNumber - int32(rng.IntN(30))
	}
	p.bulk = []int{1, 2, 3, 60}[rand.New(rand.NewPCG(seed, 22)).IntN(4)]
	if !p.plain {
		p.deaths, p.head = newDeadPlan(seed), newHeadPlan(seed)
		p.workers = newWorkerPlan(seed)
		p.addFleet()
	}
	return p
}

// simulator returns the service of the plan.
func (p *simPlan) simulator() *sim.Simulator {
	simulator := sim.New(p.seed^p.twist*0x9e3779b97f4a7c15, p.rates)
	simulator.Timeout, simulator.Aim = p.timeout, p.aim.hits
	simulator.Spare = func(n int) bool { return n >= p.last || p.spared[n] }
	if dir := "/jobs/entries"; p.counter > 0 {
		if p.plain {
			dir = "/jobs"
		}
		simulator.Store().SetCounter(dir, p.counter)
	}
	return simulator
}

// without returns the plan of a seed without the parts: see leftOut. The report of a failing seed prints the parts that
// it does not need.
func (p *simPlan) without(parts []string) (*simPlan, error) {
	for _, part := range parts {
		if err := p.leaveOut(part); err != nil {
			return nil, fmt.Errorf("leave %q out: %w", part, err)
		}
	}
	return p, nil
}

func (p *simPlan) leaveOut(part string) error {
	what, arg, _ := strings.Cut(part, "=")
	if what == "rate" {
		f := reflect.ValueOf(&p.rates).Elem().FieldByName(arg)
		if !f.IsValid() {
			return fmt.Errorf("there is no such rate")
		}
		f.SetZero()
		return nil
	}
	if p.pipe.leaveOut(what) {
		return nil
	}
	switch what {
	case "admin":
		p.admin = false
		return nil
	case "requeue":
		p.deaths.requeue = false
		return nil
	case "batch":
		p.deaths.batch = 1
		return nil
	case "log":
		p.log.on = false
		return nil
	case "crews":
		p.workers.on = false
		return nil
	case "exchange":
		p.head.exchange = false
		return nil
	case "registered":
		p.head.registered = false
		return nil
	case "counter":
		p.counter = 0
		return nil
	case "written":
		p.head.updates = false
		return nil
	case "polled":
		p.head.polls = false
		return nil
	case "purges":
		p.head.purges = false
		return nil
	}
	n, err := strconv.ParseUint(arg, 10, 32)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(p.processes, func(m simMember) bool { return m.index == int(n) })
	switch {
	case what == "twist":
		p.twist = n
	case what == "fault":
		p.spared[int(n)] = true
	case what == "faults":
		p.last = int(n)
	case i < 0:
		return fmt.Errorf("there is no process %d", n)
	case what == "process":
		p.processes = slices.Delete(p.processes, i, i+1)
	case what == "taker":
		p.processes[i].takers--
	case what == "put":
		p.processes[i].puts--
	case what == "crash":
		p.processes[i].crash = 0
	default:
		return fmt.Errorf("nothing is called so")
	}
	return nil
}

// parts returns what could be left out of the plan, the largest first. faults is the number of faults that were drawn.
func (p *simPlan) parts(faults int) (parts []string) {
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	for _, m := range p.processes {
		if len(p.processes) > 1 {
			add("process=%d", m.index)
		}
	}
	if p.admin {
		add("admin")
	}
	if p.deaths.requeue {
		add("requeue")
	}
	if p.deaths.batch > 1 {
		add("batch")
	}
	if p.workers.on {
		add("crews")
	}
	if p.log.on {
		add("log")
	}
	for _, part := range p.pipe.parts() {
		add("%s", part)
	}
	if p.head.exchange {
		add("exchange")
	}
	if p.head.registered {
		add("registered")
	}
	if p.counter > 0 {
		add("counter")
	}
	if p.head.updates {
		add("written")
	}
	if p.head.polls {
		add("polled")
	}
	if p.head.purges {
		add("purges")
	}
	rates := reflect.ValueOf(p.rates)
	for i := range rates.NumField() {
		if !rates.Field(i).IsZero() {
			add("rate=%s", rates.Type().Field(i).Name)
		}
	}
	faults = min(faults, p.last)
	for cut := faults / 2; cut > 0; cut /= 2 {
		add("faults=%d", faults-cut)
	}
	if faults > 0 && faults <= 40 {
		for n := range faults {
			if !p.spared[n] {
				add("fault=%d", n)
			}
		}
	}
	for _, m := range p.processes {
		if m.crash > 0 {
			add("crash=%d", m.index)
		}
		if m.takers > 0 {
			add("taker=%d", m.index)
		}
		if m.puts > 0 {
			add("put=%d", m.index)
		}
	}
	return parts
}

// shrinkTime limits the time that is spent on one failure.
const shrinkTime = 20 * time.Second

// shrink leaves parts out of a failing schedule as long as it fails in the same way.
func shrink(t *testing.T, seed uint64, failed *simResult) (parts []string, smallest *simResult) {
	smallest = failed
	end := time.Now().Add(shrinkTime)
	try := func(more ...string) bool {
		now := append(slices.Clone(parts), more...)
		plan, err := newSimPlan(seed).without(now)
		if err != nil || time.Now().After(end) {
			return false
		}
		r := simulate(t, plan)
		if len(r.violations) == 0 || r.violations[0].kind != failed.violations[0].kind {
			return false
		}
		parts, smallest = now, r
		return true
	}
	for more := true; more; {
		more = false
		plan, err := newSimPlan(seed).without(parts)
		if err != nil {
			return parts, smallest
		}
		for _, part := range plan.parts(smallest.faults) {
			for twist := range 6 {
				if twist == 0 && try(part) || twist > 0 && try(part, fmt.Sprint("twist=", twist)) {
					more = true
					break
				}
			}
			if more {
				break
			}
		}
	}
	return tidy(parts), smallest
}

// tidy drops parts that later ones of the same kind replace.
func tidy(parts []string) []string {
	var left []string
	for i, part := range parts {
		what, _, _ := strings.Cut(part, "=")
		replaced := slices.ContainsFunc(parts[i+1:], func(o string) bool {
			return (what == "twist" || what == "faults") && strings.HasPrefix(o, what+"=")
		})
		if !replaced {
			left = append(left, part)
		}
	}
	return left
}
