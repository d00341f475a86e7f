package zkq_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutants are the production code with one thing wrong each. The simulation must
// notice every one of them, or it shows nothing.
var mutants = []struct {
	name, file, is, becomes string
}{
	{
		"finish without the entry's fence", "held.go",
		`	beside, err := f.beside(ctx)
`,
		`	if n, err := h.lock.Session().Get(ctx, h.entry); err == nil {
		f.entry.Fence = n.Fence
	}
	beside, err := f.beside(ctx)
`,
	},
	{
		"claim that moves no fence", "claim.go",
		`a.ops = []coord.Op{coord.Touch(n.Path, n.Value, n.Fence), `,
		`a.ops = []coord.Op{coord.Check(n.Path, n.Fence), `,
	},
	{
		"no wake-up after a release", "view.go",
		`dirs = append(dirs, v.place.taken)`,
		`_ = v.place.taken`,
	},
	{
		"watch after listing", "view.go",
		`	if err != nil || s == v.session {
		return err
	}`,
		`	if err != nil || s == v.session {
		return err
	}
	if l, err := v.place.available(ctx, s, headWindow, false); err == nil {
		defer func() { v.ready, v.whole, v.listed = l.names, l.whole, v.session == s }()
	}`,
	},
	{
		"lost reply of a claim taken for a refusal", "claim.go",
		`		h, err = q.resolveClaim(ctx, a)
	}
	if err == nil {`,
		`		h, err = nil, errGone
	}
	if err == nil {`,
	},
	{
		"put made again in another lane after a lost reply", "lanes.go",
		`			doubt = true
		case refusedOp(err) > 0:`,
		`			return applied{}, errLaneGone
		case refusedOp(err) > 0:`,
	},
	{
		"lost reply of a finish taken for success", "held.go",
		`			h.unknown = f.act
`,
		`			return end(stateDone, nil)
`,
	},
	{
		"release that leaves its lock", "held.go",
		`	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, h.lock.GiveBack()}, beside...)...)
`,
		`	ops := []coord.Op{f.entry, h.lock.GiveBack()}
	if f.act == "release" {
		ops, beside = ops[:1], nil
	}
	_, err = h.lock.Session().Commit(ctx, append(ops, beside...)...)
`,
	},
	{
		"cancelled claim that nobody undoes", "claim.go",
		`		q.undoClaim(a, h)
`,
		`		_ = h
`,
	},
	{
		"failed claim forgotten by the view", "view.go",
		`				v.listed = false // it is still there, and no signal will say so
`,
		`				_ = name
`,
	},
}

// TestMutantsAreCaught builds each mutant beside the code, and has the simulation
// find it.
func TestMutantsAreCaught(t *testing.T) {
	if raceDetector {
		return // it is about the checks, and runs without
	}
	caught := 0
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			source, err := os.ReadFile(m.file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(string(source), m.is) != 1 {
				t.Fatalf("%s does not hold this once: %s", m.file, m.is)
			}
			dir := t.TempDir()
			mutated := strings.Replace(string(source), m.is, m.becomes, 1)
			file := filepath.Join(dir, m.file)
			overlay := filepath.Join(dir, "overlay.json")
			here, err := filepath.Abs(m.file)
			if err != nil {
				t.Fatal(err)
			}
			replace, err := json.Marshal(map[string]map[string]string{"Replace": {here: file}})
			if err != nil {
				t.Fatal(err)
			}
			for path, data := range map[string][]byte{file: []byte(mutated), overlay: replace} {
				if err := os.WriteFile(path, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("go", "test", "-vet=off", "-count=1", "-timeout=100s", "-overlay="+overlay,
				"-run=^TestSimulation$", "-sim.first=900001", "-sim.seeds=4000", ".")
			out, err := cmd.CombinedOutput()
			switch {
			case strings.Contains(string(out), "[build failed]"):
				t.Fatalf("the mutant does not compile:\n%s", out)
			case err == nil:
				t.Fatalf("4,000 schedules did not notice")
			case !strings.Contains(string(out), "seed 90"):
				t.Fatalf("it failed, but not the simulation's checks:\n%.2000s", out)
			}
			caught++
			line, _, _ := strings.Cut(string(out)[strings.Index(string(out), "seed 90"):], "\n")
			t.Log(line)
		})
	}
	t.Logf("%d of %d mutants killed", caught, len(mutants))
}
