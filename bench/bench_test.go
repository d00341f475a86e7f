package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// syncVariable makes the test binary a server that syncs a file and ends.
const syncVariable = "ZKQ_BENCH_TEST_SYNC"

func TestMain(m *testing.M) {
	slowRole()
	role()
	if name := os.Getenv(syncVariable); name != "" {
		os.Exit(syncs(name))
	}
	os.Exit(m.Run())
}

const testSyncs = 20

func syncs(name string) int {
	f, err := os.Create(name)
	if err != nil {
		return 1
	}
	for range testSyncs {
		if f.Sync() != nil {
			return 1
		}
	}
	return 0
}

func TestASlowDiskDelaysEverySyncAndCountsIt(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	counted := filepath.Join(dir, "counted")
	const delay = 5 * time.Millisecond
	cmd := exec.Command(self, counted, delay.String(), self)
	cmd.Env = append(os.Environ(), slowVariable+"=supervisor", syncVariable+"="+filepath.Join(dir, "file"))
	begun := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if took := time.Since(begun); took < testSyncs*delay {
		t.Errorf("%d syncs took %v", testSyncs, took)
	}
	// The last is counted once it was let go on, when its process may have ended.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		n := (&process{syncs: counted}).synced()
		if n == testSyncs || n == testSyncs-1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d syncs were counted, want %d", n, testSyncs)
		}
	}
}

func TestARowIsShortWhenItMissesItsTargetOrIsMissing(t *testing.T) {
	measured := func(r *row, values ...float64) *row {
		r.set(values, "")
		return r
	}
	missing := func(r *row) *row {
		r.Why = "redis: not on this machine"
		return r
	}
	for _, c := range []struct {
		row   *row
		begin string
		met   int
		of    int
	}{
		{measured(atLeast("a", 2, " ×", "x"), 1.9, 3, 1), "short: a ", 0, 1},
		{measured(atLeast("a", 2, " ×", "x"), 2, 3, 1), "ok:    a ", 1, 1},
		{measured(atMost("a", 0.1, "", "x"), 0.11), "short: a ", 0, 1},
		{measured(atMost("a", 0.1, "", "x"), 0), "ok:    a ", 1, 1},
		{measured(shown("a", "/s", "x"), 7), "shown: a ", 0, 0},
		{missing(shown("a", "/s", "x")), "short: a ", 0, 1},
		{missing(atLeast("a", 2, " ×", "x")), "short: a ", 0, 1},
		{atLeast("a", 2, " ×", "x"), "short: a ", 0, 1},
	} {
		var out bytes.Buffer
		p := report{text: &out}
		p.add(c.row)
		if !strings.HasPrefix(out.String(), c.begin) || p.met != c.met || p.target != c.of {
			t.Errorf("%q, %d of %d; want %q, %d of %d", &out, p.met, p.target, c.begin, c.met, c.of)
		}
		if got := p.end(); got != (c.met == c.of) {
			t.Errorf("%q ends with %v", &out, got)
		}
	}
}

func TestARatioIsTheMedianOfTheRounds(t *testing.T) {
	ours, theirs := &contender{name: "we", rates: []float64{100, 50, 300}}, &contender{name: "they", rates: []float64{50, 100, 100}}
	r := atLeast("a", 1, " ×", "x")
	r.over(ours, theirs)
	if r.Value != 2 || r.Lowest != 0.5 || r.Top != 3 {
		t.Errorf("%v [%v, %v], want 2 [0.5, 3]", r.Value, r.Lowest, r.Top)
	}
	r = atLeast("a", 1, " ×", "x")
	r.over(theirs, ours)
	if !strings.Contains(r.String(), "we is the faster") {
		t.Errorf("%s does not say who is the faster", r)
	}
	r = atLeast("a", 1, " ×", "x")
	r.overBest(ours, &contender{name: "slow", rates: []float64{1, 1, 1}}, theirs)
	if !strings.Contains(r.Note, "they 100/s") {
		t.Errorf("the better one was not chosen: %s", r)
	}
}

func TestRowsHaveNamesOfTheirOwnAndDocumentedTargets(t *testing.T) {
	doc, err := os.ReadFile("../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, quick := range []bool{false, true} {
		seen := map[string]bool{}
		b := &bench{quick: quick}
		for _, g := range b.groups() {
			for _, r := range g.rows {
				if seen[r.Name] {
					t.Errorf("two rows are called %s", r.Name)
				}
				seen[r.Name] = true
				if r.Bound != 0 && !bytes.Contains(doc, []byte("`"+r.Name+"`")) {
					t.Errorf("%s is not in docs/performance.md", r.Name)
				}
				if strings.Contains(r.Says, "short") {
					t.Errorf("%s says %q", r.Name, r.Says)
				}
			}
		}
	}
}

// twice hands every value out twice.
type twice struct{ values chan []byte }

func (p *twice) put(_ context.Context, _ int, value []byte) error {
	p.values <- value
	return nil
}

func (p *twice) work(ctx context.Context, see func([]byte)) error {
	for {
		select {
		case v := <-p.values:
			see(v)
			see(v)
		case <-ctx.Done():
			return nil
		}
	}
}

func (*twice) close() {}

func TestASystemThatHandsAValueOutTwiceIsNotMeasured(t *testing.T) {
	b := &bench{rounds: 1, cell: 100 * time.Millisecond}
	c := b.flow("twice", func(context.Context) (pipe, error) { return &twice{make(chan []byte)}, nil })
	b.compare(t.Context(), c)
	if c.err == nil || !strings.Contains(c.err.Error(), "came twice") {
		t.Errorf("%v", c.err)
	}
	r := atLeast("a", 1, " ×", "x")
	r.over(&contender{name: "we", rates: []float64{1}}, c)
	if r.Met || !strings.Contains(r.String(), "came twice") {
		t.Error(r)
	}
}

func TestAMissingServerIsNamedWithItsPackage(t *testing.T) {
	b := &bench{dir: t.TempDir()}
	t.Setenv("PATH", t.TempDir())
	_, err := b.redis(t.Context(), false)
	if !errors.Is(err, errMissing) || !strings.Contains(err.Error(), "redis-server") {
		t.Error(err)
	}
}
