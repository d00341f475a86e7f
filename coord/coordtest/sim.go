package coordtest

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq/coord"
)

// Sim is a [Store] whose every step is drawn from a seed. Whatever a client sends
// is kept until the simulator picks it, and it picks one thing at a time: serve a
// request, deliver a reply or a signal, lose one, cut a client off, end a
// session. Between two steps every goroutine has come to rest, so ordinary code
// runs the same way for the same seed, provided that it draws nothing from
// elsewhere (map order, random numbers, select among several that are ready).
//
// It works inside testing/synctest only: make it, open its clients and call
// [Sim.Run] in one bubble.
//
//	synctest.Test(t, func(t *testing.T) {
//		sim := coordtest.NewSim(seed, coordtest.Swarm(seed))
//		a, b := sim.Open("a"), sim.Open("b")
//		sim.Run(func() {
//			// ... goroutines that use a and b; then
//			sim.Calm()
//			// ... everybody must get on; close a and b
//		})
//		if wrong {
//			t.Errorf("seed %d\n%s", seed, sim.Trace())
//		}
//	})
//
// What one client sends arrives in the order of sending, but for a commit whose
// answer was lost: with [Rates.Late] it may be applied after that, while its
// session stands. What clients send arrives in any order. Commits that a client's
// goroutines make at the same time travel together when the simulator so picks; what
// happens to such a batch happens to each of its commits.
type Sim struct {
	// Timeout is that of sessions opened from now on; 0: 10s.
	Timeout time.Duration

	// Aim picks commits for [Rates.Aimed]. nil picks none.
	Aim func(ops []coord.Op) bool

	// Spare picks faults that do not happen though they were drawn; they are
	// counted from 0. nil picks none. It makes a long story shorter.
	Spare func(fault int) bool

	store   *Store
	rng     *rand.Rand
	rates   Rates
	faults  int // drawn so far
	clients []*simClient
	late    []*request
	downTo  time.Time // the service is stopped until then
	start   time.Time
	pick    []choice // of this step; kept for its memory
	trace   trace
}

// simClient is what the simulator knows of a client.
type simClient struct {
	*Coordinator
	cutTo    time.Time
	pausedTo time.Time
}

// Rates are the chances of faults. The zero value has none: only the order of
// things is drawn.
type Rates struct {
	// Of each commit that arrives: lost on its way, applied and its answer lost,
	// its answer lost and it applied later, refused for now ([coord.ErrBusy]).
	DropRequest, DropReply, Late, Busy float64

	// Of each request: it waits a while on its way, or its answer does.
	Delay, SlowReply float64

	// Of each step: a client loses its connection, a session ends at the service,
	// the service stops for a while, a client's process stands still for a while:
	// nothing reaches it, it says nothing new, and its clock has jumped when it
	// goes on.
	Cut, Expire, Stop, Pause float64

	// Of each commit that [Sim.Aim] picks: its client is cut off as it arrives.
	Aimed float64

	// The longest cut, delay, stop and pause; 0: a session timeout and a half.
	Longest time.Duration

	// Of each signal: it comes up to 300 ms after the change, and so does what
	// listings of what was seen ([coord.ListOptions].Seen) show.
	Lag float64
}

// Swarm draws rates from a seed, so that no two seeds look for the same. A fault
// that is rare in one is frequent or absent in another.
func Swarm(seed uint64) Rates {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	draw := func(most float64) float64 {
		switch rng.IntN(3) {
		case 0:
			return 0
		case 1:
			return most * rng.Float64() / 10
		}
		return most * rng.Float64()
	}
	return Rates{
		DropRequest: draw(.1), DropReply: draw(.15), Late: draw(.1), Busy: draw(.1),
		Delay: draw(.3), SlowReply: draw(.4),
		Cut: draw(.03), Expire: draw(.01), Stop: draw(.002),
		Aimed:   draw(.2),
		Longest: []time.Duration{0, time.Second, 30 * time.Second}[rng.IntN(3)],
		Pause:   draw(.02),
		Lag:     draw(.4),
	}
}

// NewSim returns a simulator with an empty service, which counts as ZooKeeper does
// with most seeds, and as etcd with others.
func NewSim(seed uint64, rates Rates) *Sim {
	s := NewStore()
	s.st.etcd = rand.New(rand.NewPCG(seed, 0xe7cd)).IntN(3) == 0
	s.simulated, s.wake = true, make(chan struct{}, 1)
	rng := rand.New(rand.NewPCG(seed, 0))
	s.draw = func() bool { return rng.IntN(2) == 0 }
	return &Sim{store: s, rates: rates, start: time.Now(), trace: newTrace(), rng: rng}
}

// Store returns the service, for [Store.Observe] and [Store.SetCounter].
func (s *Sim) Store() *Store { return s.store }

// Open returns a new client: another process. A name may be opened again when its
// last client has crashed or was closed. Clients that are opened by several
// goroutines at once need an order of their own.
func (s *Sim) Open(name string) coord.Coordinator {
	c := s.store.Open(Options{Name: name, Timeout: s.Timeout})
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.clients = append(s.clients, &simClient{Coordinator: c})
	return c
}

// Crash kills the process of the client that was opened by that name: see
// [Coordinator.Crash].
func (s *Sim) Crash(name string) {
	s.store.mu.Lock()
	var c *Coordinator
	for _, o := range s.clients {
		if o.name == name && !o.closed {
			c = o.Coordinator
		}
	}
	s.note(step{client: name, act: "crash"})
	s.store.mu.Unlock()
	if c != nil {
		c.Crash()
	}
}

// Calm ends all faults and all that is left of them, but for commits that are
// still to be applied late: from now on everybody must get on.
func (s *Sim) Calm() {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.rates = Rates{}
	s.note(step{act: "calm"})
	if s.store.down {
		s.downTo = time.Now()
	}
	for _, c := range s.clients {
		if c.cut && !c.closed {
			c.cutTo = time.Now()
		}
		if c.paused {
			c.pausedTo = time.Now()
		}
		for _, q := range c.queue {
			q.until = time.Time{}
		}
	}
	s.store.nudge()
}

// stalled is how long nothing may be due before Run calls it a deadlock.
const stalled = 24 * time.Hour

// Run calls f and moves the service on until f returns. A panic of f's is f's
// own; Run panics when nothing happens for a day of virtual time.
func (s *Sim) Run(f func()) {
	done := make(chan struct{})
	var returned atomic.Bool
	go func() {
		defer close(done)
		defer returned.Store(true)
		f()
	}()
	for {
		synctest.Wait()
		ended := returned.Load()
		idle, until := s.step()
		s.store.wakeInTurn()
		if ended && idle { // those who wait in vain have been told
			return
		}
		if !idle {
			// Each step has an instant of its own, so that timers which are set in
			// answer to different steps do not fire together.
			time.Sleep(time.Duration(1 + s.rng.IntN(100_000)))
			continue
		}
		wait := stalled
		if !until.IsZero() {
			wait = time.Until(until)
		}
		timer := time.NewTimer(wait)
		select {
		case <-done:
		case <-s.store.wake:
		case <-timer.C:
			if until.IsZero() {
				panic(fmt.Sprintf("coordtest: nothing happened for a day\n%s", s.Trace()))
			}
		}
		timer.Stop()
	}
}

// wakeLater lets Run call wake when this step is done. A commit's signals and its
// answer wake several goroutines of one client: each comes to rest before the next is
// woken, for which of them is first must not depend on the scheduler.
func (s *Store) wakeLater(wake func()) { s.wakes = append(s.wakes, wake) }

func (s *Store) wakeInTurn() {
	s.mu.Lock()
	wakes := s.wakes
	s.wakes = nil
	s.mu.Unlock()
	for _, wake := range wakes {
		synctest.Wait()
		time.Sleep(time.Nanosecond) // an instant of its own, as each step has
		wake()
	}
}

// Hash identifies all steps so far: the same seed and the same code give the
// same.
func (s *Sim) Hash() uint64 {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return s.trace.hash
}

// Faults is the number of faults drawn so far.
func (s *Sim) Faults() int {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return s.faults
}

// Steps is the number of steps so far.
func (s *Sim) Steps() int {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return s.trace.steps
}

// Trace tells the last steps, one to a line, for a failure's report.
func (s *Sim) Trace() string {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return s.trace.String()
}

func (s *Sim) note(st step) {
	st.at = time.Since(s.start)
	s.trace.add(st)
}
