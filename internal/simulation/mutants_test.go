package simulation

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

// root is the module's directory, as a test of this package sees it.
const root = "../.."

// mutant is the production code with one defect. Its text calls mutated() where the defect is, so that a mutant which
// no test reaches does not count as killed.
type mutant struct {
	name, file  string // the file's path begins in the module's directory
	is, becomes string // a piece of the file, and what replaces it

	// The simulation kills it, most likely with these seeds. They keep their meaning until the queue's requests change.
	seeds string

	// Or a test kills it: one of the file's package, or of another package ("." or "./internal/simulation").
	test, testIn string
}

// freshSeeds says how many other seeds are tried if the known ones do not kill a mutant.
const freshSeeds = "2000"

// source returns the text of the mutant's file as it is.
func (m mutant) source(t *testing.T) string {
	text, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// testPackage returns the package whose tests kill the mutant, as a path from the module's directory.
func (m mutant) testPackage() string {
	switch {
	case m.test == "":
		return "./internal/simulation"
	case m.testIn != "":
		return m.testIn
	}
	return "./" + filepath.Dir(m.file)
}

// TestMutantsAreWhatTheySay compares the table with the code in every run of the tests. make mutants builds the mutants
// and sees that they are killed.
func TestMutantsAreWhatTheySay(t *testing.T) {
	testsOf := make(map[string]map[string]bool)
	for _, m := range mutants {
		if n := strings.Count(m.source(t), m.is); n != 1 {
			t.Errorf("%s: %s contains this text %d times, want once: %s", m.name, m.file, n, m.is)
		}
		if !strings.Contains(m.becomes, "mutated()") {
			t.Errorf("%s: the new text does not call mutated()", m.name)
		}
		dir := m.testPackage()
		if testsOf[dir] == nil {
			testsOf[dir] = testsIn(t, dir)
		}
		if m.test != "" && !testsOf[dir][m.test] {
			t.Errorf("%s: there is no test %s in %s", m.name, m.test, dir)
		}
	}
	if len(mutants) < 30 {
		t.Errorf("%d mutants", len(mutants))
	}
}

// testsIn returns the names of the tests in a package's directory.
func testsIn(t *testing.T, dir string) map[string]bool {
	files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range testFunction.FindAllSubmatch(text, -1) {
			names[string(found[1])] = true
		}
	}
	return names
}

var testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// TestMutantsAreKilled builds each mutant beside the code, and runs what should notice it.
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

// reached is the text of a file that every mutant links.
const reached = `package %s

import (
	"os"
	"sync"
)

var mutated = sync.OnceFunc(func() { os.Stderr.WriteString("\nthe mutant was reached\n") })
`

// A run of the simulation that notices a defect prints noticed, and a test that does prints failed.
var (
	noticed = regexp.MustCompile(`seed \d+: .*|panic: .*`)
	failed  = regexp.MustCompile(`--- FAIL: Test.*|panic: .*`)
)

// kill builds and runs the mutant, and returns the line by which the simulation or its test noticed it.
func (m mutant) kill(t *testing.T) string {
	source := m.source(t)
	pkg := regexp.MustCompile(`(?m)^package (\w+)`).FindStringSubmatch(source)[1]
	dir := t.TempDir()
	real, err := filepath.Abs(filepath.Join(root, m.file))
	if err != nil {
		t.Fatal(err)
	}
	replace := make(map[string]string)
	for path, text := range map[string]string{
		real: strings.Replace(source, m.is, m.becomes, 1),
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
	binary := filepath.Join(dir, "mutant")
	build := exec.Command("go", "test", "-c", "-vet=off", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, m.testPackage())
	build.Dir = root
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
		run := exec.Command(binary, append(args, "-test.timeout=300s")...)
		run.Dir = filepath.Join(root, m.testPackage())
		out, err := run.CombinedOutput()
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
