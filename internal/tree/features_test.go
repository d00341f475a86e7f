package tree

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// features are the numbers of the features that most users of a queue need.
const features = `F01 F02 F03 F04 F05 F06 F07 F10 F11 F12 F13 F14 F15 F16 F17 F18 F20 F21 F22 F25 F26 F27 F28 F29 F30 F31 F32 F34
F40 F41 F42 F43 F45 F46 F50 F51 F52 F53 F54 F55 F56 F57 F70 F71 F72 F73 F75 F76 F80 F81 F82 F83 F86 F87 F90 F91 F93
F100 F101 F102 F103 F104 F105 F110 F111 F112 F113`

// declared returns the names in the Go code outside tests: Name, Type.Member, package.Name.
func declared(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	for _, dir := range []string{".", "coord", "coord/coordtest", "coord/coordtest/conformance", "retained", "zkqueue", "etcdqueue", "etcdqueue/embedded", "codec/msgpack", "codec/cbor"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			of := ""
			if dir != "." {
				of = f.Name.Name + "."
			}
			for _, d := range f.Decls {
				declare(d, func(name string) { names[of+name] = true })
			}
		}
	}
	for name := range names { // both queues have the methods of base's
		if member, ok := strings.CutPrefix(name, "base."); ok {
			for _, owner := range []string{"Queue.", "LockingQueue."} {
				names[owner+member] = true
			}
		}
	}
	return names
}

func declare(d ast.Decl, add func(name string)) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		name := d.Name.Name
		if d.Recv != nil {
			of := d.Recv.List[0].Type
			if star, ok := of.(*ast.StarExpr); ok {
				of = star.X
			}
			if generic, ok := of.(*ast.IndexExpr); ok {
				of = generic.X
			}
			name = of.(*ast.Ident).Name + "." + name
		}
		add(name)
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					add(name.Name)
				}
			case *ast.TypeSpec:
				add(spec.Name.Name)
				if st, ok := spec.Type.(*ast.StructType); ok {
					for _, field := range st.Fields.List {
						for _, name := range field.Names {
							add(spec.Name.Name + "." + name.Name)
						}
					}
				}
			}
		}
	}
}

// found returns what the pattern's groups match in the files for which of returns true.
func found(t *testing.T, pattern string, of func(path string) bool) map[string]bool {
	t.Helper()
	p, names := regexp.MustCompile(pattern), make(map[string]bool)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !of(path) {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range p.FindAllSubmatch(text, -1) {
			for _, group := range m[1:] {
				names[string(group)] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestEveryFeatureNamesWhatExists reads the tables in docs/features.md. The Go names, the commands and the tests in
// them must exist.
func TestEveryFeatureNamesWhatExists(t *testing.T) {
	tests := found(t, `(?m)^func (Test\w+)\(|\{name: "(\w+)"`, func(p string) bool {
		return strings.HasSuffix(p, "_test.go") || filepath.Dir(p) == filepath.Join("coord", "coordtest", "conformance")
	})
	command := func(p string) bool { return filepath.Dir(p) == filepath.Join("cmd", "zkq") }
	flags, verbs, code := found(t, `Flag\("([a-z-]+)"`, command), found(t, `name:\s+"([a-z]+)"`, command), declared(t)
	b, err := os.ReadFile(filepath.Join("docs", "features.md"))
	if err != nil {
		t.Fatal(err)
	}
	there, not, _ := strings.Cut(string(b), "## Not there")
	named := func(pattern, cell string) (names []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(cell, -1) {
			names = append(names, m[1])
		}
		return names
	}
	told := make(map[string]bool)
	for line := range strings.Lines(there) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 8 || !strings.HasPrefix(cells[1], " F") {
			continue
		}
		ids := named(`(F\d+)`, cells[1])
		id := strings.Join(ids, ", ")
		for _, id := range ids {
			if told[id] {
				t.Errorf("%s is listed twice", id)
			}
			told[id] = true
		}
		for _, name := range named("`([^`]+)`", cells[4]) {
			if !code[name] {
				t.Errorf("%s: there is no %s in Go", id, name)
			}
		}
		for _, flag := range named(`--([a-z-]+)`, cells[5]) {
			if !flags[flag] {
				t.Errorf("%s: the command has no flag --%s", id, flag)
			}
		}
		for _, verb := range named("zkq ([a-z]+)", cells[5]) {
			if !verbs[verb] {
				t.Errorf("%s: there is no zkq %s", id, verb)
			}
		}
		proofs := named("`([^`]+)`", cells[6])
		if len(proofs) == 0 {
			t.Errorf("%s names no test", id)
		}
		for _, name := range proofs {
			if _, err := os.Stat(filepath.Join("cmd", "zkq", "testdata", "script", name)); strings.HasSuffix(name, ".txtar") && err != nil ||
				!strings.HasSuffix(name, ".txtar") && !tests[name] {
				t.Errorf("%s is held up by %s, which does not exist", id, name)
			}
		}
	}
	for line := range strings.Lines(not) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 6 {
			continue
		}
		for _, id := range named(`(F\d+)`, cells[1]) {
			if told[id] {
				t.Errorf("%s is there, and is not there", id)
			}
			if told[id] = true; len(strings.TrimSpace(cells[4])) < 8 {
				t.Errorf("%s is not there, and nobody says why", id)
			}
		}
	}
	for _, id := range strings.Fields(features) {
		if !told[id] {
			t.Errorf("of %s nothing is said", id)
		}
	}
}

// Tests that the documents name as proofs must exist.
func TestTheDocumentsNameTestsThatExist(t *testing.T) {
	there := found(t, `(?m)^func ((?:Test|Fuzz)\w+)\(`, func(p string) bool { return strings.HasSuffix(p, "_test.go") })
	named := found(t, "`((?:Test|Fuzz)[A-Za-z0-9]+)`", func(p string) bool { return filepath.Dir(p) == "docs" || p == "README.md" })
	for name := range named {
		if !there[name] {
			t.Errorf("the documents name %s, which is not there", name)
		}
	}
	if len(named) == 0 {
		t.Error("no test is named")
	}
}

// TestTheDocumentsAreIndexed checks that docs/README.md names each page. TestLinksBetweenDocumentsResolve checks the links.
func TestTheDocumentsAreIndexed(t *testing.T) {
	index, err := os.ReadFile(filepath.Join("docs", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join("docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if name := filepath.Base(page); name != "README.md" && !strings.Contains(string(index), "("+name+")") {
			t.Errorf("docs/README.md does not name %s", name)
		}
	}
}
