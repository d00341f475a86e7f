package tree

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/retained"
)

type methodSet struct {
	of   reflect.Type // a pointer, where there may be one
	have string
}

// methods lists the methods of each exported type, so that a method which appears by embedding is noticed.
var methods = map[string]methodSet{
	"Codec":       {reflect.TypeFor[zkq.Codec](), "Marshal Unmarshal"},
	"ConfigError": {reflect.TypeFor[*zkq.ConfigError](), "Error Is"},
	"Ending":      {reflect.TypeFor[*zkq.Ending](), ""},
	"Entry":       {reflect.TypeFor[*zkq.Entry](), ""},
	"ExistsError": {reflect.TypeFor[*zkq.ExistsError](), "Error Is"},
	"FinishError": {reflect.TypeFor[*zkq.FinishError](), "Error Unwrap"},
	"Handled":     {reflect.TypeFor[*zkq.Handled](), ""},
	"Handler":     {reflect.TypeFor[zkq.Handler](), "Handle"},
	"HandlerFunc": {reflect.TypeFor[zkq.HandlerFunc](), "Handle"},
	"Held":        {reflect.TypeFor[*zkq.Held](), "Bury Consume Context Fail Forward HoldsLock Release Update"},
	"Layout":      {reflect.TypeFor[zkq.Layout](), ""},
	"LockingQueue": {reflect.TypeFor[*zkq.LockingQueue](), "All BreakLock Close Config Configure Consume Create Entries EntriesWithValues Exchange FindNames Get HoldsLock LeftAlone Len Name NewToken Pause Peek " +
		"Purge PurgeDead PurgeInSteps Put PutAll PutSome Register Release Remove RemoveAll Requeue RequeueAll Resume Stat Take TakeN TryGet TryTake TryTakeN WaitEmpty Workers"},
	"Logger":        {reflect.TypeFor[zkq.Logger](), "Debug Error Info Warn"},
	"Middleware":    {reflect.TypeFor[zkq.Middleware](), ""},
	"Option":        {reflect.TypeFor[zkq.Option](), ""},
	"Outcome":       {reflect.TypeFor[*zkq.Outcome](), ""},
	"PanicError":    {reflect.TypeFor[*zkq.PanicError](), "Error"},
	"PutOption":     {reflect.TypeFor[zkq.PutOption](), ""},
	"Queue":         {reflect.TypeFor[*zkq.Queue](), "Close Entries EntriesWithValues FindNames Get Len Name NewToken Peek Purge PurgeInSteps Put PutAll PutSome Remove RemoveAll Stat TryGet WaitEmpty"},
	"QueueConfig":   {reflect.TypeFor[*zkq.QueueConfig](), "String"},
	"Requeued":      {reflect.TypeFor[*zkq.Requeued](), ""},
	"ReleaseOption": {reflect.TypeFor[zkq.ReleaseOption](), ""},
	"Stat":          {reflect.TypeFor[*zkq.Stat](), "Total"},
	"State":         {reflect.TypeFor[*zkq.State](), ""},
	"Target":        {reflect.TypeFor[*zkq.Target](), ""},
	"Token":         {reflect.TypeFor[*zkq.Token](), ""},
	"Typed":         {reflect.TypeFor[*zkq.Typed[int]](), "Decode Handler Put PutAll"},
	"UnknownError":  {reflect.TypeFor[*zkq.UnknownError](), "Error Unwrap"},
	"Worker":        {reflect.TypeFor[*zkq.Worker](), "Run"},
	"WorkerInfo":    {reflect.TypeFor[*zkq.WorkerInfo](), ""},
}

// retainedMethods is methods for package retained.
var retainedMethods = map[string]methodSet{
	"Batch":     {reflect.TypeFor[*retained.Batch](), "Commit"},
	"Config":    {reflect.TypeFor[*retained.Config](), ""},
	"Entry":     {reflect.TypeFor[*retained.Entry](), ""},
	"Label":     {reflect.TypeFor[*retained.Label](), "Next Read TryRead"},
	"LabelInfo": {reflect.TypeFor[*retained.LabelInfo](), ""},
	"Log":       {reflect.TypeFor[*retained.Log](), "Append Close Label Labels Len Name RemoveLabel Trim Truncate"},
	"Start":     {reflect.TypeFor[*retained.Start](), ""},
}

func TestPublicTypesHaveTheirOwnMethodsAndNoOthers(t *testing.T) {
	checkMethods(t, ".", methods)
	checkMethods(t, "retained", retainedMethods)
}

func checkMethods(t *testing.T, dir string, methods map[string]methodSet) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok && spec.Name.IsExported() {
				if _, listed := methods[spec.Name.Name]; !listed {
					t.Errorf("%s is not listed here", spec.Name.Name)
				}
			}
			_, body := n.(*ast.FuncDecl)
			return !body
		})
	}
	for name, m := range methods {
		var have []string
		for i := range m.of.NumMethod() {
			have = append(have, m.of.Method(i).Name)
		}
		if slices.Sort(have); strings.Join(have, " ") != m.have {
			t.Errorf("%s has the methods\n%s\nwant\n%s", name, strings.Join(have, " "), m.have)
		}
	}
}
