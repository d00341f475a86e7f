// Package testneed skips tests that need something this machine lacks, but not quietly.
// With CI=true such a test fails. Elsewhere it is skipped, and `make test` prints at its
// end which tests were not run, with the command that installs what they need.
package testneed

import (
	"fmt"
	"os"
	"testing"
)

// Missing ends t: a part of the tests ("ZooKeeper", "kazoo") cannot run on this machine. how
// ("make deps") is the command that changes that. Call Missing from the test's own goroutine.
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

// record appends a line to the file that `make test` names. Packages are tested in several
// processes at the same time. One short write in append mode keeps each line whole.
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
