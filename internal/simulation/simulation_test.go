package simulation

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq/internal/testrace"
)

var (
	simSeeds   = flag.Uint64("sim.seeds", 0, "schedules to simulate; 0: 3,000, or 600 under the race detector")
	simFirst   = flag.Uint64("sim.first", 1, "the first seed")
	simSeed    = flag.String("sim.seed", "", "simulate these seeds only, separated by commas, and print the last steps of a single one")
	simWithout = flag.String("sim.without", "", "what to leave out of a single seed, as a failure prints it")
	simMost    = flag.Int("sim.most", 1, "violations after which to stop")
	simShrink  = flag.Bool("sim.shrink", true, "look for the smallest schedule that fails in the same way")
	simTwice   = flag.Uint64("sim.twice", 100, "run each seed that this divides twice, and compare")
	simSums    = flag.String("sim.sums", "", "a file for the line that sums up; progress goes to stderr then")
)

// TestSimulation runs the production queues, unchanged, on a service whose every step is drawn from a seed: requests
// and replies are lost, clients are cut off, stopped and paused, sessions expire and processes crash. It checks what
// the queues promise. See doc.go for how to run one seed.
func TestSimulation(t *testing.T) {
	// A schedule allocates megabytes that live shortly. The garbage collector took half of the time.
	defer debug.SetGCPercent(debug.SetGCPercent(1600))
	run := &simRun{first: *simFirst, seeds: *simSeeds, total: make(map[string]int), start: time.Now()}
	if run.seeds == 0 {
		run.seeds = 3000
		if testrace.Enabled {
			run.seeds = 600
		}
	}
	for _, s := range strings.FieldsFunc(*simSeed, func(r rune) bool { return r == ',' }) {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("-sim.seed: %v", err)
		}
		run.list = append(run.list, seed)
		run.seeds = uint64(len(run.list))
	}
	t.Run("lanes", func(t *testing.T) {
		for lane := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(lane), func(t *testing.T) {
				t.Parallel()
				for run.one(t) {
				}
			})
		}
	})
	run.sumUp(t)
}

// simRun is shared by the lanes of a run.
type simRun struct {
	first, seeds uint64
	list         []uint64 // instead of a range
	start        time.Time

	mu         sync.Mutex
	begun      uint64
	done       uint64
	twice      int
	violations int
	total      map[string]int
	told       time.Time
}

// next returns the next seed to run.
func (r *simRun) next() (seed uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if *simSums != "" && time.Since(r.told) > 10*time.Second {
		r.told = time.Now()
		fmt.Fprintf(os.Stderr, "%d of %d schedules, %d violations, %.0f a second\n",
			r.done, r.seeds, r.violations, float64(r.done)/time.Since(r.start).Seconds())
	}
	if r.begun == r.seeds || r.violations >= *simMost {
		return 0, false
	}
	r.begun++
	if r.list != nil {
		return r.list[r.begun-1], true
	}
	return r.first + r.begun - 1, true
}

// one simulates the next seed, if there is one.
func (r *simRun) one(t *testing.T) bool {
	seed, ok := r.next()
	if !ok {
		return false
	}
	var parts []string
	if *simWithout != "" {
		parts = strings.Split(*simWithout, ",")
	}
	plan, err := newSimPlan(seed).without(parts)
	if err != nil {
		t.Fatalf("-sim.without: %v", err)
	}
	res := simulate(t, plan)
	again := seed%*simTwice == 0
	if again && len(res.violations) == 0 {
		if difference := r.differs(t, seed, parts, res); difference != "" {
			res.violations = append(res.violations, violation{"never ran the same way twice", "never ran the same way twice:" + difference})
		}
	}
	r.mu.Lock()
	r.done++
	if again {
		r.twice++
	}
	for what, n := range res.counts {
		r.total[what] += n
	}
	if len(res.violations) > 0 {
		r.violations++
	}
	nth := r.violations
	r.mu.Unlock()
	switch {
	case len(res.violations) > 0:
		t.Errorf("seed %d: %s", seed, res.report(nth <= 3))
		if nth <= 3 && *simShrink && parts == nil {
			left, smallest := shrink(t, seed, res)
			t.Logf("the smallest that fails so: -sim.seed %d -sim.without %s\n%s", seed, strings.Join(left, ","), smallest.report(true))
		}
	case len(r.list) == 1:
		t.Logf("seed %d: no violation\n%s", seed, res.trace())
	}
	return true
}

// differs runs a seed until two of its runs are the same, and returns the first difference if none are. Where a crash
// wakes several goroutines at one instant, the scheduler picks the first, so one seed in a thousand has two or three
// ways to run on a busy machine. Code that depends on something else, such as the order of a map, has a new way each
// time.
func (r *simRun) differs(t *testing.T, seed uint64, parts []string, res *simResult) string {
	ran := map[uint64]bool{res.hash: true}
	difference := ""
	for range 4 {
		plan, _ := newSimPlan(seed).without(parts)
		o := simulate(t, plan)
		if ran[o.hash] {
			if difference != "" {
				r.mu.Lock()
				r.total["ran in several ways"]++
				r.mu.Unlock()
			}
			return ""
		}
		ran[o.hash] = true
		difference = firstDifference(res.trace(), o.trace())
	}
	return difference
}

// sumUp prints the totals, and requires that each kind of event happened.
func (r *simRun) sumUp(t *testing.T) {
	sums := fmt.Sprintf("%d schedules, %d violations", r.done, r.violations)
	t.Logf("%s; %d of them run twice; %v", sums, r.twice, r.total)
	if *simSums != "" {
		if err := os.WriteFile(*simSums, []byte(sums+"\n"), 0o600); err != nil {
			t.Error(err)
		}
	}
	if r.violations > 0 || r.seeds < 300 {
		return
	}
	// A simulation without trouble proves nothing.
	for _, what := range []string{
		"put ok", "put unknown", "batch ok", "consume ok", "consume lost", "consume unknown", "release ok", "take cancelled", "empty", "len",
		"redelivered", "crash", "expired", "broken", "removed by hand", "got", "get unknown", "get failed",
		"put resolved ok", "put resolved void", "put again ok", "get resolved ok", "get resolved void", "fail ok", "bury ok", "window",
		"fail unknown", "bury unknown", "worn out", "requeue ok", "taken together",
		"crew consume ok", "crew consume lost", "crew fail ok", "crew bury ok", "crew release ok", "shift ended work", "work timed out",
		"append ok", "append unknown", "label ok", "label moved", "label unknown", "commits together",
		"feed ok", "feed of a key", "piped due", "piped aside ok", "piped expired", "piped expired unclaimed", "piped exists", "piped full", "piped empty",
		"piped configure", "piped forward ok", "piped consume ok", "piped bury ok",
		"bulk feed", "peeked", "peeked at nothing", "removed", "purged ready", "purged delayed", "waited", "updated", "update ok", "purged",
	} {
		if r.total[what] == 0 {
			t.Errorf("no schedule had a %q", what)
		}
	}
}

// firstDifference returns where two traces part.
func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			after := func(of []string) string { return strings.Join(of[i:min(len(of), i+5)], "\n") }
			return fmt.Sprintf("\n%s\nand then\n%s\nor\n%s", strings.Join(x[max(0, i-30):i], "\n"), after(x), after(y))
		}
	}
	return " before the last steps"
}
