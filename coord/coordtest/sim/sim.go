package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/coord/coordtest/internal/memory"
)

// Simulator is a [coordtest.Store] whose every step is drawn from a seed. Whatever a
// client sends is kept until the simulator picks it, and it picks one thing at a time:
// serve a request, deliver a reply or a signal, lose one, cut a client off, end a
// session. Between two steps every goroutine has come to rest, so ordinary code runs
// the same way for the same seed, provided that nothing else is random in it: map
// order, random numbers, a select among several channels that are ready.
//
// It works inside testing/synctest only: make it, open its clients and call
// [Simulator.Run] in one bubble.
//
//	synctest.Test(t, func(t *testing.T) {
//		simulator := sim.New(seed, sim.Swarm(seed))
//		a, b := simulator.Open("a"), simulator.Open("b")
//		simulator.Run(func() {
//			// ... goroutines that use a and b; then
//			simulator.Calm()
//			// ... every goroutine must get on; close a and b
//		})
//		if wrong {
//			t.Errorf("seed %d\n%s", seed, simulator.Trace())
//		}
//	})
//
// What one client sends arrives in the order of sending, but for a commit whose
// answer was lost: with [Rates].Late it may be applied after that, while its session
// stands. What several clients send arrives in any order. Commits that a client's
// goroutines make at the same time may travel together; a fault of such a batch happens
// to each of its commits.
type Simulator struct {
	// Timeout is that of sessions opened from now on; 0: 10s.
	Timeout time.Duration

	// Aim picks commits for [Rates].Aimed. nil picks none.
	Aim func(ops []coord.Op) bool

	// Spare picks faults that do not happen though they were drawn; they are
	// counted from 0. nil picks none. It shortens a failing run to the faults that
	// matter.
	Spare func(fault int) bool

	service      *memory.Service
	rng          *rand.Rand
	rates        Rates
	faultsDrawn  int
	clients      []*simClient
	lateRequests []*memory.Request // lost by their clients, to be applied later
	stoppedUntil time.Time         // of a stopped service
	start        time.Time
	choices      []choice // of this step; kept for its memory
	trace        trace
}

// simClient is a client and what the simulator drew for it.
type simClient struct {
	*memory.Client
	cutUntil    time.Time
	pausedUntil time.Time
}

// New returns a simulator with an empty service. With one seed of three the service
// counts as etcd does, with the others as ZooKeeper does.
func New(seed uint64, rates Rates) *Simulator {
	etcd := rand.New(rand.NewPCG(seed, 0xe7cd)).IntN(3) == 0
	rng := rand.New(rand.NewPCG(seed, 0))
	service := memory.NewStepped(etcd, func() bool { return rng.IntN(2) == 0 })
	return &Simulator{service: service, rates: rates, start: time.Now(), trace: newTrace(), rng: rng}
}

// Store returns the service, for [coordtest.Store.Observe], SetCounter, Backup and
// Restore.
func (s *Simulator) Store() *coordtest.Store { return coordtest.StoreOf(s.service) }

// Open returns a new client: another process. A name may be opened again when its
// last client has crashed or was closed. Goroutines must not open clients at the same
// time, for the seed does not decide which of them is first.
func (s *Simulator) Open(name string) coord.Coordinator {
	c := s.service.Open(name, s.Timeout, coord.Limits{})
	s.service.Lock()
	defer s.service.Unlock()
	s.clients = append(s.clients, &simClient{Client: c})
	return c
}

// Crash kills the process of the client that was opened by that name: see
// [coordtest.Coordinator.Crash].
func (s *Simulator) Crash(name string) {
	s.service.Lock()
	var crashed *memory.Client
	for _, c := range s.clients {
		if c.Name() == name && !c.IsClosedLocked() {
			crashed = c.Client
		}
	}
	s.recordLocked(event{client: name, act: "crash"})
	s.service.Unlock()
	if crashed != nil {
		crashed.Crash()
	}
}

// Calm ends all faults and their effects: from now on every client must get on. Only
// commits that are still to be applied late remain.
func (s *Simulator) Calm() {
	s.service.Lock()
	defer s.service.Unlock()
	s.rates = Rates{}
	s.recordLocked(event{act: "calm"})
	if s.service.IsStoppedLocked() {
		s.stoppedUntil = time.Now()
	}
	for _, c := range s.clients {
		if c.IsCutLocked() && !c.IsClosedLocked() {
			c.cutUntil = time.Now()
		}
		if c.IsPausedLocked() {
			c.pausedUntil = time.Now()
		}
		for _, q := range c.RequestsLocked() {
			q.NotBefore = time.Time{}
		}
	}
	s.service.AnnounceWork()
}

// deadlockAfter is how long nothing may be due before Run calls it a deadlock.
const deadlockAfter = 24 * time.Hour

// Run calls f in a goroutine and takes steps until f has returned and nothing is left
// to do. Run panics when nothing happens for a day of virtual time.
func (s *Simulator) Run(f func()) {
	done := make(chan struct{})
	var hasReturned atomic.Bool
	go func() {
		defer close(done)
		defer hasReturned.Store(true)
		f()
	}()
	for {
		synctest.Wait()
		hasEnded := hasReturned.Load()
		isIdle, until := s.takeStep()
		s.wakeInTurn()
		if hasEnded && isIdle { // calls that wait in vain have been ended by steps
			return
		}
		if !isIdle {
			// Each step has an instant of its own, so that timers which are set in
			// answer to different steps do not fire together.
			time.Sleep(time.Duration(1 + s.rng.IntN(100_000)))
			continue
		}
		wait := deadlockAfter
		if !until.IsZero() {
			wait = time.Until(until)
		}
		timer := time.NewTimer(wait)
		select {
		case <-done:
		case <-s.service.Work():
		case <-timer.C:
			if until.IsZero() {
				panic(fmt.Sprintf("sim: nothing happened for a day\n%s", s.Trace()))
			}
		}
		timer.Stop()
	}
}

// wakeInTurn wakes the goroutines that a step answered. Each comes to rest before the
// next is woken.
func (s *Simulator) wakeInTurn() {
	for _, wake := range s.service.TakeWakeups() {
		synctest.Wait()
		time.Sleep(1 * time.Nanosecond) // an instant of its own, as each step has
		wake()
	}
}

// WithActor names the goroutine that makes requests with the context. A [Simulator]
// orders requests that goroutines of one client send at the same time by that name, so
// that two of them that send the same get their answers in the order of the seed.
func WithActor(ctx context.Context, actor string) context.Context {
	return memory.WithActor(ctx, actor)
}

// AwaitTurn gives goroutines that were woken at one instant, for example by the end of
// their session, instants of their own. It sleeps for less than two milliseconds; how
// long follows from the name that [WithActor] gave. Which of them goes on first is then
// the same each time. Clients of a [Simulator] call it wherever they wait for a session;
// code under test calls it where its goroutines wait for each other.
func AwaitTurn(ctx context.Context) { memory.AwaitTurn(ctx) }

// Hash identifies all steps so far: the same seed and the same code give the same hash.
func (s *Simulator) Hash() uint64 {
	s.service.Lock()
	defer s.service.Unlock()
	return s.trace.hash
}

// Faults returns the number of faults drawn so far.
func (s *Simulator) Faults() int {
	s.service.Lock()
	defer s.service.Unlock()
	return s.faultsDrawn
}

// Steps returns the number of steps so far.
func (s *Simulator) Steps() int {
	s.service.Lock()
	defer s.service.Unlock()
	return s.trace.steps
}

// Trace returns the last steps, one to a line, for the report of a failure.
func (s *Simulator) Trace() string {
	s.service.Lock()
	defer s.service.Unlock()
	return s.trace.String()
}

func (s *Simulator) recordLocked(e event) {
	e.at = time.Since(s.start)
	s.trace.add(e)
}
