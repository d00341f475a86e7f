package sim_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/coord/coordtest/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// toy is the result of a run of a small queue, in which workers claim entries, hold them a
// while and delete them at their fences.
type toy struct {
	hash     uint64
	steps    int
	elapsed  time.Duration
	finished map[string]int // deletes of an entry
	acked    map[string]bool
	left     int
	log      []coordtest.Applied
	trace    string
}

func runToy(t *testing.T, seed uint64, rates sim.Rates, workers, puts int, finish finisher) (r toy) {
	synctest.Test(t, func(t *testing.T) {
		simulator := sim.New(seed, rates)
		simulator.Timeout = 4 * time.Second
		simulator.Aim = func(ops []coord.Op) bool { return ops[0].Kind == coord.KindDelete }
		r.finished, r.acked = map[string]int{}, map[string]bool{}
		simulator.Store().Observe(func(a coordtest.Applied) {
			r.log = append(r.log, a)
			for _, op := range a.Ops {
				if op.Kind == coord.KindDelete && strings.HasPrefix(op.Path, "/q/entries/") {
					r.finished[op.Path]++
				}
			}
		})
		clients := make([]coord.Coordinator, workers)
		for i := range clients {
			clients[i] = simulator.Open(fmt.Sprintf("w%d", i))
		}
		start := time.Now()
		simulator.Run(func() {
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			acked := make([]map[string]bool, workers)
			for i, c := range clients {
				acked[i] = map[string]bool{}
				wg.Go(func() { work(ctx, c, puts, acked[i], finish) })
			}
			time.Sleep(20 * time.Second)
			simulator.Calm()
			time.Sleep(20 * time.Second)
			cancel()
			wg.Wait()
			last := simulator.Open("last")
			s, err := last.Session(t.Context())
			if err != nil {
				t.Errorf("session: %v", err)
				return
			}
			if r.left, err = s.Count(t.Context(), "/q/entries"); err != nil {
				t.Errorf("count: %v", err)
			}
			for _, c := range append(clients, last) {
				if err := c.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}
			for _, a := range acked {
				for path := range a {
					r.acked[path] = true
				}
			}
		})
		r.hash, r.steps, r.elapsed, r.trace = simulator.Hash(), simulator.Steps(), time.Since(start), simulator.Trace()
	})
	return r
}

// work puts and takes until ctx ends. When a session ends it goes on with the next.
func work(ctx context.Context, c coord.Coordinator, puts int, acked map[string]bool, finish finisher) {
	for ctx.Err() == nil {
		s, err := c.Session(ctx)
		if err != nil {
			sleep(ctx, time.Second)
			continue
		}
		for ; puts > 0; puts-- {
			r, err := s.Commit(ctx, coord.CreateSequential("/q/entries/e-", nil))
			if err != nil {
				break
			}
			acked[r[0].Path] = true
		}
		var wg sync.WaitGroup
		for i := range 3 { // several goroutines of one client send at the same time
			wg.Go(func() { s.Count(ctx, fmt.Sprintf("/q/%d", i)) })
		}
		wg.Wait()
		take(ctx, c, s, finish)
	}
}

func take(ctx context.Context, c coord.Coordinator, s coord.Session, finish finisher) {
	watch, stop := context.WithCancel(ctx)
	defer stop()
	signal, err := s.Watch(watch, "/q/entries", "/q/taken")
	if err != nil {
		return
	}
	for ctx.Err() == nil {
		l, err := s.List(ctx, "/q/entries", coord.ListOptions{Values: true})
		if err != nil {
			return
		}
		for _, n := range l.Nodes {
			lock := "/q/taken/" + n.Path[len("/q/entries/"):]
			hold := 50 * time.Millisecond
			if n.Path[len(n.Path)-1]%4 == 0 {
				hold = 3 * time.Second
			}
			r, err := s.Commit(ctx, coord.Touch(n.Path, n.Value, n.Fence), coord.CreateEphemeral(lock, nil))
			if err == nil {
				sleep(ctx, hold)
				err = finish(ctx, c, r[0], r[1])
			}
			if errors.Is(err, coord.ErrSessionLost) || errors.Is(err, coord.ErrUnknown) {
				return
			}
		}
		select {
		case <-signal:
		case <-ctx.Done():
		}
	}
}

// finisher deletes an entry and its lock. It may run in a later session than the claim.
type finisher func(ctx context.Context, c coord.Coordinator, entry, lock coord.Result) error

func fenced(ctx context.Context, c coord.Coordinator, entry, lock coord.Result) error {
	s, err := c.Session(ctx)
	if err != nil {
		return err
	}
	_, err = s.Commit(ctx, coord.Delete(entry.Path, entry.Fence), coord.Delete(lock.Path, lock.Fence))
	return err
}

// unfenced deletes the nodes whatever their fences are, as kazoo does.
func unfenced(ctx context.Context, c coord.Coordinator, entry, lock coord.Result) error {
	s, err := c.Session(ctx)
	if err != nil {
		return err
	}
	e, err := s.Get(ctx, entry.Path)
	if err != nil {
		return err
	}
	l, err := s.Get(ctx, lock.Path)
	if err != nil {
		return err
	}
	return fenced(ctx, c, coord.Result{Path: e.Path, Fence: e.Fence}, coord.Result{Path: l.Path, Fence: l.Fence})
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func TestSimIsDeterministic(t *testing.T) {
	hashes := map[uint64]uint64{}
	for seed := range uint64(150) {
		a := runToy(t, seed, sim.Swarm(seed), 3, 3, fenced)
		b := runToy(t, seed, sim.Swarm(seed), 3, 3, fenced)
		if a.hash != b.hash {
			x, y := strings.Split(a.trace, "\n"), strings.Split(b.trace, "\n")
			for i := range min(len(x), len(y)) {
				if x[i] != y[i] {
					t.Logf("first:\n%s\nsecond:\n%s", strings.Join(x[max(0, i-5):i+1], "\n"), strings.Join(y[max(0, i-5):i+1], "\n"))
					break
				}
			}
			t.Fatalf("seed %d: %d and %d steps, and they differ", seed, a.steps, b.steps)
		}
		if other, ok := hashes[a.hash]; ok {
			t.Errorf("seeds %d and %d are the same", seed, other)
		}
		hashes[a.hash] = seed
	}
}

// happens are steps that some schedules must have. Without them the test checks less.
var happens = []string{
	"late", "dropped", "send", "reply dropped", "reply slow", "delayed", "heal", "session ends",
	"told of its end", "give up", "service starts", "signal",
}

func TestSimKeepsTheContract(t *testing.T) {
	seen := map[string]bool{}
	start, steps := time.Now(), 0
	for seed := range uint64(400) {
		r := runToy(t, seed, sim.Swarm(seed), 3, 3, fenced)
		for path, n := range r.finished {
			if n != 1 {
				t.Errorf("seed %d: %s was deleted %d times\n%s", seed, path, n, r.trace)
			}
		}
		for path := range r.acked {
			if r.finished[path] == 0 && r.left == 0 {
				t.Errorf("seed %d: %s was put and is nowhere\n%s", seed, path, r.trace)
			}
		}
		for _, wrong := range replay(r.log) {
			t.Errorf("seed %d: %s\n%s", seed, wrong, r.trace)
		}
		steps += r.steps
		for _, what := range happens {
			if strings.Contains(r.trace, what) {
				seen[what] = true
			}
		}
	}
	t.Logf("%.0f schedules/s, %d steps each", 400/time.Since(start).Seconds(), steps/400)
	for _, what := range happens {
		if !seen[what] {
			t.Errorf("no schedule had a step %q among its last", what)
		}
	}
}

// replay follows the service's own log and returns what is wrong with it: a commit of a session
// that is over, or the deletion of another session's lock.
func replay(log []coordtest.Applied) (wrong []string) {
	held, over := map[string]string{}, map[string]bool{}
	last := int64(0)
	for _, a := range log {
		if a.Revision < last {
			wrong = append(wrong, fmt.Sprintf("revision %d after %d", a.Revision, last))
		}
		last = a.Revision
		if over[a.Session] {
			wrong = append(wrong, fmt.Sprintf("a commit of session %s after its end", a.Session))
		}
		over[a.Session] = a.Expired
		for _, op := range a.Ops {
			switch holder := held[op.Path]; op.Kind {
			case coord.KindEphemeral:
				if holder != "" {
					wrong = append(wrong, fmt.Sprintf("%s has two holders", op.Path))
				}
				held[op.Path] = a.Session
			case coord.KindDelete:
				if holder != "" && holder != a.Session {
					wrong = append(wrong, fmt.Sprintf("%s of session %s was deleted by %s", op.Path, holder, a.Session))
				}
				delete(held, op.Path)
			}
		}
	}
	return wrong
}

// A finish without fences goes wrong only when its session ends and another worker takes the
// entry in between. The simulator must find such a schedule.
func TestSimFindsTheFinishWithoutFences(t *testing.T) {
	const seeds = 3000
	for seed := range uint64(seeds) {
		if wrong := replay(runToy(t, seed, sim.Swarm(seed), 3, 3, unfenced).log); len(wrong) > 0 {
			t.Logf("seed %d: %s", seed, wrong[0])
			return
		}
	}
	t.Errorf("%d schedules, and none found it", seeds)
}

func TestSimFinishesWithoutFaults(t *testing.T) {
	for seed := range uint64(20) {
		if r := runToy(t, seed, sim.Rates{}, 4, 5, fenced); r.left != 0 || len(r.finished) != 20 {
			t.Errorf("seed %d: %d left, %d finished\n%s", seed, r.left, len(r.finished), r.trace)
		}
	}
}

func TestSimTellsAClientOfItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		simulator := sim.New(1, sim.Rates{})
		c := simulator.Open("a")
		simulator.Run(func() {
			s, err := c.Session(t.Context())
			if err != nil {
				t.Errorf("session: %v", err)
				return
			}
			signal, err := s.Watch(t.Context(), "/q")
			if err != nil {
				t.Errorf("watch: %v", err)
			}
			simulator.Store().Expire(s.ID())
			<-s.Done() // without a call
			<-signal
			if next, err := c.Session(t.Context()); err != nil || next.ID() == s.ID() {
				t.Errorf("session after the end: %v", err)
			}
			c.Close()
		})
	})
}

func TestSimCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		simulator := sim.New(1, sim.Rates{})
		a, b := simulator.Open("a"), simulator.Open("b")
		simulator.Run(func() {
			sa, _ := a.Session(t.Context())
			sb, _ := b.Session(t.Context())
			if _, err := sa.Commit(t.Context(), coord.CreateEphemeral("/lock", nil)); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			signal, err := sb.Watch(t.Context(), "/")
			if err != nil {
				t.Fatal(err)
			}
			simulator.Crash("a")
			if _, err := sa.Get(t.Context(), "/lock"); !errors.Is(err, coord.ErrClosed) {
				t.Errorf("get of a crashed client: %v", err)
			}
			<-signal
			if d := time.Since(start); d < 10*time.Second || d > 11*time.Second {
				t.Errorf("the lock went after %v", d)
			}
			again := simulator.Open("a")
			if s, err := again.Session(t.Context()); err != nil || s.ID() == sa.ID() {
				t.Errorf("session after the crash: %v", err)
			}
			again.Close()
			b.Close()
		})
	})
}
