package testneed_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/zkq/zkq/internal/testneed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMissingSkipsAndLeavesALine(t *testing.T) {
	list := filepath.Join(t.TempDir(), "not-run")
	t.Setenv("CI", "")
	t.Setenv("ZKQ_TEST_NOT_RUN", list)
	for _, part := range []string{"ZooKeeper", "kazoo"} {
		var r recorder
		testneed.Missing(&r, part, "make deps")
		if r.fatal != "" || !strings.Contains(r.skip, "make deps") {
			t.Errorf("%s: fatal %q, skip %q; want only a skip that says make deps", part, r.fatal, r.skip)
		}
	}
	got, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if want := "ZooKeeper tests: make deps\nkazoo tests: make deps\n"; string(got) != want {
		t.Errorf("list is %q, want %q", got, want)
	}
}

func TestMissingSkipsWithoutAList(t *testing.T) {
	t.Setenv("CI", "")
	t.Setenv("ZKQ_TEST_NOT_RUN", "")
	var r recorder
	testneed.Missing(&r, "kazoo", "make deps")
	if r.fatal != "" || r.skip == "" {
		t.Errorf("fatal %q, skip %q; want only a skip", r.fatal, r.skip)
	}
}

func TestMissingFailsUnderCI(t *testing.T) {
	list := filepath.Join(t.TempDir(), "not-run")
	t.Setenv("CI", "true")
	t.Setenv("ZKQ_TEST_NOT_RUN", list)
	var r recorder
	testneed.Missing(&r, "kazoo", "make deps")
	if !strings.Contains(r.fatal, "make deps") || r.skip != "" {
		t.Errorf("fatal %q, skip %q; want only a failure that says make deps", r.fatal, r.skip)
	}
}

// TestMissingFailsWhereItCannotLeaveALine: a skipped part that cannot be recorded fails the test.
func TestMissingFailsWhereItCannotLeaveALine(t *testing.T) {
	t.Setenv("CI", "")
	t.Setenv("ZKQ_TEST_NOT_RUN", filepath.Join(t.TempDir(), "no", "such", "directory"))
	var r recorder
	testneed.Missing(&r, "kazoo", "make deps")
	if r.fatal == "" || r.skip != "" {
		t.Errorf("fatal %q, skip %q; want only a failure", r.fatal, r.skip)
	}
}

// recorder keeps the first message that would have ended a test; a real test runs nothing after that.
type recorder struct {
	testing.TB
	skip, fatal string
}

func (r *recorder) Helper() {}

func (r *recorder) Skipf(format string, args ...any) {
	if r.fatal == "" {
		r.skip = fmt.Sprintf(format, args...)
	}
}

func (r *recorder) Fatalf(format string, args ...any) {
	if r.skip == "" && r.fatal == "" {
		r.fatal = fmt.Sprintf(format, args...)
	}
}
