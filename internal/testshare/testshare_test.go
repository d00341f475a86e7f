package testshare_test

import (
	"slices"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/zkq/zkq/internal/testshare"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheSharesOfAListAreTheWholeList(t *testing.T) {
	items := []string{"a", "b", "c", "d", "e", "f", "g"}
	var all []string
	for i := range 3 {
		t.Setenv(testshare.Variable, strconv.Itoa(i)+"/3")
		all = append(all, testshare.Of(t, items)...)
	}
	slices.Sort(all)
	if !slices.Equal(all, items) {
		t.Errorf("the three shares hold %q, want each of %q once", all, items)
	}
	t.Setenv(testshare.Variable, "")
	if got := testshare.Of(t, items); !slices.Equal(got, items) || !testshare.Whole() {
		t.Errorf("without a share: %q, whole %v", got, testshare.Whole())
	}
}

func TestAShareThatCannotBeParsedFailsTheTest(t *testing.T) {
	for _, value := range []string{"1", "3/3", "-1/3", "0/0", "a/b", "1/3x", "01/3"} {
		t.Setenv(testshare.Variable, value)
		failed := &recorder{TB: t}
		func() {
			defer func() { _ = recover() }()
			testshare.Of(failed, []int{1})
		}()
		if !failed.fatal {
			t.Errorf("%s=%s was accepted", testshare.Variable, value)
		}
	}
}

// recorder notes that Fatal was called, and ends the call by a panic.
type recorder struct {
	testing.TB
	fatal bool
}

func (r *recorder) Helper() {}

func (r *recorder) Fatal(...any) {
	r.fatal = true
	panic("fatal")
}
