package tree

import (
	"os/exec"
	"strings"
	"testing"
)

// deps returns the packages that the given packages link, including themselves.
func deps(t *testing.T, packages ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}"}, packages...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Fields(string(out))
}

func TestQueueNeedsNothingButTheStandardLibrary(t *testing.T) {
	const module = "github.com/zkq/zkq"
	allowed := map[string]bool{module: true, module + "/coord": true, module + "/lock": true, module + "/priority": true, module + "/retained": true}
	list := deps(t, ".", "./coord", "./lock", "./priority", "./retained")
	if len(list) < len(allowed) {
		t.Fatalf("go list names only %q", list)
	}
	for _, p := range list {
		// A package under internal could link another module only if the list named that module's packages.
		if !allowed[p] && !strings.HasPrefix(p, module+"/internal/") {
			t.Errorf("links %s", p)
		}
	}
}

func TestOnlyTheEmbeddedStoreLinksTheEtcdServer(t *testing.T) {
	links := func(packages ...string) bool {
		for _, p := range deps(t, packages...) {
			if strings.HasPrefix(p, "go.etcd.io/etcd/server/") {
				return true
			}
		}
		return false
	}
	if links(".", "./etcdqueue", "./zkqueue", "./coord/coordtest") {
		t.Error("a program of zkq and its drivers links the etcd server")
	}
	for _, p := range deps(t, "./etcdqueue/embedded", "./zkqueue", "./coord/coordtest", "./cmd/zkq") {
		if strings.HasPrefix(p, "github.com/fxamacker/") || strings.HasPrefix(p, "github.com/hashicorp/go-msgpack/") {
			t.Errorf("a program that did not ask for it links %s", p)
		}
	}
	if !links("./etcdqueue/embedded") {
		t.Error("the embedded store links no etcd server: this test looks in the wrong place")
	}
}
