package simulation

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
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
	name, file string // the file's path begins in the module's directory
	old, new   string // a piece of the file, and what replaces it

	// The simulation kills it, most likely with these seeds. They keep their meaning until the queue's requests change.
	seeds string

	// Or a test kills it: one of the file's package, or the only one of this name in the module.
	test string
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

// testPackage returns the directory of the package whose tests kill the mutant, as a path from the module's directory.
func (m mutant) testPackage() (string, error) {
	if m.test == "" {
		return "internal/simulation", nil
	}
	dirs, err := testDirs()
	own := filepath.Dir(m.file)
	switch in := dirs[m.test]; {
	case err != nil:
		return "", err
	case slices.Contains(in, own):
		return own, nil
	case len(in) == 1:
		return in[0], nil
	default:
		return "", fmt.Errorf("want the test %s once, and find it in %q", m.test, in)
	}
}

// testDirs returns the directories that have a test of each name.
var testDirs = sync.OnceValues(func() (map[string][]string, error) {
	dirs := make(map[string][]string)
	declaration := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		for _, found := range declaration.FindAllSubmatch(text, -1) {
			dirs[string(found[1])] = append(dirs[string(found[1])], dir)
		}
		return err
	})
	return dirs, err
})

// TestMutantsAreWhatTheySay compares the table with the code in every run of the tests. make mutants builds the mutants
// and sees that they are killed.
func TestMutantsAreWhatTheySay(t *testing.T) {
	for _, m := range mutants {
		if n := strings.Count(m.source(t), m.old); n != 1 {
			t.Errorf("%s: %s contains this text %d times, want once: %s", m.name, m.file, n, m.old)
		}
		if !strings.Contains(m.new, "mutated()") {
			t.Errorf("%s: the new text does not call mutated()", m.name)
		}
		if _, err := m.testPackage(); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
	if len(mutants) < 30 {
		t.Errorf("%d mutants", len(mutants))
	}
}

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
	in, err := m.testPackage()
	if err != nil {
		t.Fatal(err)
	}
	pkg := regexp.MustCompile(`(?m)^package (\w+)`).FindStringSubmatch(source)[1]
	dir := t.TempDir()
	real, err := filepath.Abs(filepath.Join(root, m.file))
	if err != nil {
		t.Fatal(err)
	}
	replace := make(map[string]string)
	for path, text := range map[string]string{
		real: strings.Replace(source, m.old, m.new, 1),
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
	build := exec.Command("go", "test", "-c", "-vet=off", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "./"+in)
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
		run.Dir = filepath.Join(root, in)
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
