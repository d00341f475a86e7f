package tree

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/zkq/zkq"

// TestTheTreeKeepsItsMeasures holds the tree to limits of size. To see the figures: go test ./internal/tree -run Measures -v.
// A change that needs a higher limit changes it here, and says why.
func TestTheTreeKeepsItsMeasures(t *testing.T) {
	production := parseProduction(t)
	root := checkRoot(t, production["."])

	names := namesInRoot(t)
	methods, files := sizesOfTypes(production)
	rootMethods, rootFiles := sizesOfTypes(map[string][]sourceFile{".": production["."]})
	rootWidest, mostRootMethods := largest(rootMethods)
	rootScattered, mostRootFiles := largest(rootFiles)
	widest, mostMethods := largest(methods)
	scattered, mostFiles := largest(files)
	longest, mostPaths := largest(complexities(production))
	importers := importersOfRoot(production)
	pairs := root.mutualFiles()
	mutexes := root.mutexes("LockingQueue")
	retries := retryLoops(production)
	for _, m := range []struct {
		what     string
		n, limit int
		details  []string
	}{
		{"names in the root directory", len(names), 70, names},
		{"production files in the root", len(production["."]), 32, nil},
		{"methods of one type in the root", mostRootMethods, 45, rootWidest},
		{"files with methods of one type in the root", mostRootFiles, 6, rootScattered},
		{"methods of one type", mostMethods, 73, widest},
		{"files with methods of one type", mostFiles, 10, scattered},
		{"paths through one function", mostPaths, 25, longest},
		{"packages of internal that import the root", len(importers), 0, importers},
		{"pairs of root files that use each other", len(pairs), 8, pairs},
		{"mutexes in a LockingQueue", len(mutexes), 8, mutexes},
		{"retry loops written by hand", len(retries), 0, retries},
	} {
		t.Logf("%d %s, at most %d: %s", m.n, m.what, m.limit, strings.Join(m.details, ", "))
		if m.n > m.limit {
			t.Errorf("%d %s, want at most %d", m.n, m.what, m.limit)
		}
	}
	const least = 22
	share := commentShare(t, production["."])
	t.Logf("%.1f %% of the lines in the root hold a comment, at least %d", share, least)
	if share < least {
		t.Errorf("%.1f %% of the lines in the root hold a comment, want at least %d", share, least)
	}
}

// sourceFile is a parsed file with its path from the module's directory.
type sourceFile struct {
	path string
	*ast.File
}

var fileSet = token.NewFileSet()

// parseProduction parses the module's files by directory, without tests and what only tests use.
func parseProduction(t *testing.T) map[string][]sourceFile {
	t.Helper()
	files := make(map[string][]sourceFile)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != ".":
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if err == nil || d.Name() == "testdata" || d.Name() == "integration" || strings.HasPrefix(path, filepath.Join("internal", "test")) || strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"):
			f, err := parser.ParseFile(fileSet, path, nil, parser.ParseComments|parser.SkipObjectResolution)
			files[filepath.Dir(path)] = append(files[filepath.Dir(path)], sourceFile{path, f})
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// namesInRoot returns the names in the module's directory that git tracks.
func namesInRoot(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("git", "ls-files").Output()
	if err != nil {
		t.Logf("names in the root directory: git ls-files: %v", err)
		return nil
	}
	names := make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		if _, err := os.Stat(strings.TrimSpace(line)); err == nil {
			name, _, _ := strings.Cut(strings.TrimSpace(line), "/")
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// sizesOfTypes counts the methods that each type declares, and the files they are in.
func sizesOfTypes(production map[string][]sourceFile) (methods, files map[string]int) {
	methods, files = make(map[string]int), make(map[string]int)
	for dir, list := range production {
		for _, f := range list {
			here := make(map[string]bool)
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil {
					name := path.Join(dir, receiver(fn))
					methods[name]++
					here[name] = true
				}
			}
			for name := range here {
				files[name]++
			}
		}
	}
	return methods, files
}

// receiver returns the name of the type that a method is declared for.
func receiver(fn *ast.FuncDecl) string {
	of := fn.Recv.List[0].Type
	for {
		switch t := of.(type) {
		case *ast.StarExpr:
			of = t.X
		case *ast.IndexExpr:
			of = t.X
		case *ast.IndexListExpr:
			of = t.X
		case *ast.Ident:
			return t.Name
		default:
			return "?"
		}
	}
}

// complexities returns the cyclomatic complexity of each function: the number of independent paths through it.
func complexities(production map[string][]sourceFile) map[string]int {
	all := make(map[string]int)
	for _, list := range production {
		for _, f := range list {
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				n := 1
				ast.Inspect(fn, func(node ast.Node) bool {
					switch node := node.(type) {
					case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
						n++
					case *ast.CaseClause:
						if node.List != nil {
							n++
						}
					case *ast.CommClause:
						if node.Comm != nil {
							n++
						}
					case *ast.BinaryExpr:
						if node.Op == token.LAND || node.Op == token.LOR {
							n++
						}
					}
					return true
				})
				all[f.path+" "+fn.Name.Name] = n
			}
		}
	}
	return all
}

// retryLoops returns the loops that pause between attempts themselves. Package internal/retry has such loops, and operations
// leave that to Backoff.Do and Backoff.Repeat.
func retryLoops(production map[string][]sourceFile) (loops []string) {
	for dir, list := range production {
		if dir == filepath.Join("internal", "retry") {
			continue
		}
		for _, f := range list {
			ast.Inspect(f.File, func(node ast.Node) bool {
				_, isFor := node.(*ast.ForStmt)
				_, isRange := node.(*ast.RangeStmt)
				if (isFor || isRange) && pauses(node) {
					loops = append(loops, fmt.Sprint(f.path, ":", fileSet.Position(node.Pos()).Line))
				}
				return true
			})
		}
	}
	slices.Sort(loops)
	return loops
}

// pauses reports whether the loop itself, and no function literal in it, calls the method Wait of a Backoff, which has three
// arguments, or makes a Backoff and keeps it as its variable.
func pauses(loop ast.Node) bool {
	found := false
	var init ast.Stmt
	if f, ok := loop.(*ast.ForStmt); ok {
		init = f.Init
	}
	ast.Inspect(loop, func(node ast.Node) bool {
		if _, ok := node.(*ast.FuncLit); ok {
			return false
		}
		if call, ok := node.(*ast.CallExpr); ok && len(call.Args) == 3 {
			method, ok := call.Fun.(*ast.SelectorExpr)
			found = found || ok && method.Sel.Name == "Wait"
		}
		if variable, ok := node.(*ast.AssignStmt); ok && variable == init {
			for _, value := range variable.Rhs {
				found = found || strings.Contains(strings.ToLower(types.ExprString(value)), "backoff")
			}
		}
		return true
	})
	return found
}

func TestRetryLoopsWrittenByHandAreFound(t *testing.T) {
	const source = `package p

func f() {
	for backoff := h.Backoff("put"); ; {
		if !again(err, backoff) {
			return
		}
	}
	for {
		if err := b.Wait(ctx, nil, err); err != nil {
			return
		}
	}
	for i := range 3 {
		b.Do(ctx, nil, func() { other.Wait(ctx, nil, nil) })
	}
	for range 3 {
		b.Wait(ctx, nil, nil)
	}
	for {
		group.Wait()
		b.Do(ctx, nil, func() { other.Wait(ctx, nil, nil) })
	}
	b.Wait(ctx, nil, nil)
}
`
	f, err := parser.ParseFile(fileSet, "p.go", source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	got := retryLoops(map[string][]sourceFile{"p": {{"p.go", f}}, "internal/retry": {{"retry.go", f}}})
	if want := []string{"p.go:17", "p.go:4", "p.go:9"}; !slices.Equal(got, want) {
		t.Errorf("retry loops at %q, want %q", got, want)
	}
}

// importersOfRoot returns the packages of internal that import the root.
func importersOfRoot(production map[string][]sourceFile) (dirs []string) {
	for dir, list := range production {
		if !strings.HasPrefix(dir, "internal/") {
			continue
		}
		for _, f := range list {
			for _, i := range f.Imports {
				if p, _ := strconv.Unquote(i.Path.Value); p == module {
					dirs = append(dirs, dir)
				}
			}
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// commentShare returns the percentage of the files' lines that hold a comment.
func commentShare(t *testing.T, files []sourceFile) float64 {
	t.Helper()
	comments, lines := 0, 0
	for _, f := range files {
		with := make(map[int]bool)
		for _, group := range f.Comments {
			for line := fileSet.Position(group.Pos()).Line; line <= fileSet.Position(group.End()).Line; line++ {
				with[line] = true
			}
		}
		comments += len(with)
		lines += fileSet.File(f.Pos()).LineCount()
	}
	return 100 * float64(comments) / float64(lines)
}

// checkedPackage is a package with its types.
type checkedPackage struct {
	*types.Package
	info *types.Info
}

// checkRoot checks the types of the root package, with the export data of what it imports.
func checkRoot(t *testing.T, files []sourceFile) checkedPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Export", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	exported := make(map[string]string)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ ImportPath, Export string }
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exported[p.ImportPath] = p.Export
	}
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(exported[path]) }
	info := &types.Info{Defs: make(map[*ast.Ident]types.Object), Uses: make(map[*ast.Ident]types.Object)}
	config := types.Config{Importer: importer.ForCompiler(fileSet, "gc", lookup)}
	var syntax []*ast.File
	for _, f := range files {
		syntax = append(syntax, f.File)
	}
	pkg, err := config.Check(module, fileSet, syntax, info)
	if err != nil {
		t.Fatal(err)
	}
	return checkedPackage{pkg, info}
}

// mutualFiles returns the pairs of files each of which uses a type, function, method, variable or constant that the other
// declares.
func (p checkedPackage) mutualFiles() (pairs []string) {
	uses := make(map[[2]string]bool)
	for id, o := range p.info.Uses {
		if o.Pkg() != p.Package || !o.Pos().IsValid() {
			continue
		}
		switch o := o.(type) {
		case *types.Func:
		case *types.Var:
			if o.IsField() || o.Parent() != p.Scope() {
				continue
			}
		default:
			if o.Parent() != p.Scope() {
				continue
			}
		}
		uses[[2]string{fileSet.File(id.Pos()).Name(), fileSet.File(o.Pos()).Name()}] = true
	}
	for use := range uses {
		if use[0] < use[1] && uses[[2]string{use[1], use[0]}] {
			pairs = append(pairs, use[0]+" and "+use[1])
		}
	}
	slices.Sort(pairs)
	return pairs
}

// mutexes returns the paths of the mutexes that a value of the type holds, directly or through pointers. What several fields
// point to counts once.
func (p checkedPackage) mutexes(typeName string) (paths []string) {
	seen := make(map[types.Type]bool)
	var visit func(path string, t types.Type)
	visit = func(path string, t types.Type) {
		switch name := types.TypeString(t, nil); name {
		case "sync.Mutex", "sync.RWMutex":
			paths = append(paths, path)
			return
		}
		switch u := t.Underlying().(type) {
		case *types.Pointer:
			if !seen[u.Elem()] {
				seen[u.Elem()] = true
				visit(path, u.Elem())
			}
		case *types.Struct:
			named, ok := t.(*types.Named)
			if ok && named.Obj().Pkg() != nil && !strings.HasPrefix(named.Obj().Pkg().Path(), module) {
				return
			}
			for f := range u.Fields() {
				visit(path+"."+f.Name(), f.Type())
			}
		}
	}
	t := p.Scope().Lookup(typeName).Type()
	seen[t] = true
	visit(typeName, t)
	return paths
}

// largest returns the largest value, and the keys of the five largest ones.
func largest(of map[string]int) (keys []string, most int) {
	keys = slices.SortedFunc(maps.Keys(of), func(a, b string) int { return cmp.Or(cmp.Compare(of[b], of[a]), strings.Compare(a, b)) })
	most = of[keys[0]]
	keys = keys[:min(5, len(keys))]
	for i, k := range keys {
		keys[i] = fmt.Sprint(k, " ", of[k])
	}
	return keys, most
}
