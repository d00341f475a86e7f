// Package testneed is how a test says that this machine lacks what it needs.
//
// Such a test must not vanish quietly. Under CI=true it fails; elsewhere it is skipped, and `make test` prints at its end
// what was not run, with the command that brings it.
package testneed

import (
	"fmt"
	"os"
	"testing"
)

// Missing ends t, because part of the tests ("ZooKeeper", "kazoo") cannot run here and how ("make deps") would change that.
// Call it from the test's own goroutine.
func Missing(t testing.TB, part, how string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not on this machine, and under CI=true every part must run: %s", part, how)
	}
	if err := record(part, how); err != nil {
		t.Fatalf("record that %s is missing: %v", part, err)
	}
	t.Skipf("%s is not on this machine: %s", part, how)
}

// record leaves a line for `make test`, which names the file. Packages are tested in processes of their own, side by
// side: one short appending write per line keeps the lines whole.
func record(part, how string) error {
	name := os.Getenv("ZKQ_TEST_NOT_RUN")
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "%s tests: %s\n", part, how)
	return err
}
