//go:build faults

package faults

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq/internal/testfleet"
	"github.com/zkq/zkq/internal/testshare"
)

// ownerFaults happen to the client that runs the embedded store for all.
var ownerFaults = []struct {
	name string
	do   func(*testfleet.Trial, *testfleet.Process)
}{
	{"the store's owner is killed", func(t *testfleet.Trial, owner *testfleet.Process) {
		owner.Kill()
		time.Sleep(time.Second)
		t.Launch(t, owner)
		t.IgnoreBefore(owner)
	}},
	{"the store's owner stands still for 2 s", func(t *testfleet.Trial, owner *testfleet.Process) {
		owner.Stop(t)
		time.Sleep(2 * time.Second)
		owner.Continue(t)
		t.IgnoreBefore(t.Clients...) // no client can write meanwhile, and zkq says so
	}},
	{"the store's owner leaves", func(t *testfleet.Trial, owner *testfleet.Process) {
		owner.Leave(t)
		t.Launch(t, owner)
		t.IgnoreBefore(owner)
	}},
}

// surviveOwners lets the faults of owners happen to a fleet on one embedded store.
func surviveOwners(t *testing.T) testfleet.Sum {
	dir, err := os.MkdirTemp("", "zkq") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	store := filepath.Join(dir, "s")
	f := testfleet.New(t, testfleet.Config{
		Place: testfleet.Place{Service: testfleet.Embedded, Addresses: []string{store}, Session: 5 * time.Second},
		Bound: 5 * time.Second,
	})
	owner := func(t testing.TB) (owner *testfleet.Process) {
		eventually(t, patience, "a client runs the store", func() bool {
			text, _ := os.ReadFile(filepath.Join(store, "lock"))
			pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
			for _, p := range f.Clients {
				if p.PID() == pid {
					owner = p
				}
			}
			return owner != nil
		})
		return owner
	}
	var all []testfleet.Fault
	for _, one := range ownerFaults {
		all = append(all, testfleet.Fault{Name: one.name, Do: func(t *testfleet.Trial) { one.do(t, owner(t)) }})
	}
	sum := f.RunFaults(t, testshare.Of(t, all), func(testing.TB) {})
	if !t.Failed() {
		f.End(t)
	}
	return sum
}
