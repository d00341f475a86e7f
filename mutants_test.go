package zkq_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zkq/zkq/internal/testshare"
)

var (
	mutantsFlag = flag.Bool("mutants", false, "build the mutants and have them killed: make mutants")
	mutantsSums = flag.String("mutants.sums", "", "a file for the line that sums up")
)

// mutant is the production code with one thing wrong. Its text calls mutated()
// where it is wrong, so that one which is never reached is not taken for killed.
type mutant struct {
	name, file  string
	is, becomes string

	seeds string // that are known to kill it, most likely: they mean what they mean until the queue's requests change
	test  string // of the file's package: kills it instead of the simulation
}

// freshSeeds are tried where the known ones do not kill.
const freshSeeds = "2000"

// TestMutantsAreWhatTheySay holds the table to the code in every run of the tests;
// that they are killed is seen by make mutants.
func TestMutantsAreWhatTheySay(t *testing.T) {
	for _, m := range mutants {
		source, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(source), m.is); n != 1 {
			t.Errorf("%s: %s holds this %d times: %s", m.name, m.file, n, m.is)
		}
		if !strings.Contains(m.becomes, "mutated()") {
			t.Errorf("%s does not say when it is reached", m.name)
		}
	}
	if len(mutants) < 30 {
		t.Errorf("%d mutants", len(mutants))
	}
}

// TestMutantsAreKilled builds each mutant beside the code, and has it found.
func TestMutantsAreKilled(t *testing.T) {
	if !*mutantsFlag {
		return
	}
	var killed atomic.Int32
	share := testshare.Of(t, mutants)
	t.Run("all", func(t *testing.T) {
		for _, m := range share {
			t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
				t.Parallel()
				if how := m.kill(t); how != "" {
					killed.Add(1)
					t.Log(how)
				}
			})
		}
	})
	sums := fmt.Sprintf("%d of %d mutants killed", killed.Load(), len(share))
	t.Log(sums)
	if *mutantsSums != "" {
		if err := os.WriteFile(*mutantsSums, []byte(sums+"\n"), 0o600); err != nil {
			t.Error(err)
		}
	}
}

// reached is linked into every mutant.
const reached = `package %s

import (
	"os"
	"sync"
)

var mutated = sync.OnceFunc(func() { os.Stderr.WriteString("\nthe mutant was reached\n") })
`

// noticed is what a run of the simulation prints that notices something, and
// failed what a test does.
var (
	noticed = regexp.MustCompile(`seed \d+: .*|panic: .*`)
	failed  = regexp.MustCompile(`--- FAIL: Test.*|panic: .*`)
)

// kill says what noticed the mutant.
func (m mutant) kill(t *testing.T) string {
	source, err := os.ReadFile(m.file)
	if err != nil {
		t.Fatal(err)
	}
	pkg := regexp.MustCompile(`(?m)^package (\w+)`).FindStringSubmatch(string(source))[1]
	dir := t.TempDir()
	real, err := filepath.Abs(m.file)
	if err != nil {
		t.Fatal(err)
	}
	replace := make(map[string]string)
	for path, text := range map[string]string{
		real: strings.Replace(string(source), m.is, m.becomes, 1),
		filepath.Join(filepath.Dir(real), "mutated.go"): fmt.Sprintf(reached, pkg),
	} {
		replace[path] = filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(replace[path], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	in := "."
	if m.test != "" {
		in = "./" + filepath.Dir(m.file)
	}
	binary := filepath.Join(dir, "mutant")
	build := exec.Command("go", "test", "-c", "-vet=off", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, in)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("does not compile: %s", out)
	}
	how := noticed
	simulation := []string{"-test.run=^TestSimulation$", "-sim.shrink=false"}
	var runs [][]string
	if m.seeds != "" {
		runs = append(runs, append(simulation, "-sim.seed="+m.seeds))
	}
	runs = append(runs, append(simulation, "-sim.first=900001", "-sim.seeds="+freshSeeds))
	if m.test != "" {
		how, runs = failed, [][]string{{"-test.run=^" + m.test + "$"}}
	}
	wasReached := false
	for _, args := range runs {
		out, err := exec.Command(binary, append(args, "-test.timeout=300s")...).CombinedOutput()
		wasReached = wasReached || strings.Contains(string(out), "the mutant was reached")
		line := how.FindString(string(out))
		switch {
		case err == nil, line == "", strings.Contains(line, "test timed out"):
			continue
		case !wasReached:
			t.Errorf("failed without being reached: %s", line)
			return ""
		}
		return line
	}
	t.Errorf("alive; it was reached: %v", wasReached)
	return ""
}
