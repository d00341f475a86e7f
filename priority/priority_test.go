package priority_test

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/zkq/zkq/priority"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseTakesWhatTheCoordinatorsWrite(t *testing.T) {
	for name, want := range map[string][2]int64{
		"entry-000-0000000000": {0, 0},
		"entry-100-0000000042": {100, 42},
		"entry-999-2147483647": {999, 2147483647},
		"entry-007-0000000000000000042-1763683200000-9f86d081-000003":   {7, 42},
		"entry-007-9223372036854775807-1763683200000-9f86d081-00000003": {7, 9223372036854775807},
	} {
		n, ok := priority.Parse(name)
		if !ok || int64(n.Priority) != want[0] || n.Sequence != want[1] {
			t.Errorf("Parse(%q) = %+v, %v; want %v", name, n, ok, want)
		}
	}
}

func TestParseRefusesForeignNames(t *testing.T) {
	for _, name := range []string{
		"", "entry", "entry-", "garbage", "entry-abc", "entry-100", "entry-100-",
		"entry-1000-0000000001", "entry-10-0000000001", "entry--10-0000000001", "entry-+10-0000000001",
		"entry-100--2147483648", "entry-100--000000001", "entry-100-000000001", "entry-100-00000000001",
		"entry-100-000000000x", "entry-١٠٠-0000000001", " entry-100-0000000001", "entry-100-0000000001 ",
		"Entry-100-0000000001", "entry-100-0000000001-x",
		"entry-100-9999999999999999999-1763683200000-9f86d081-000003",
		"entry-100-0000000000000000042-1763683200000-9F86D081-000003",
		"entry-100-0000000000000000042-1763683200000-9f86d081-3",
	} {
		if n, ok := priority.Parse(name); ok {
			t.Errorf("Parse(%q) = %+v, want it refused", name, n)
		}
	}
}

func TestNameOrderIsPriorityThenSequence(t *testing.T) {
	var names []string
	for _, p := range []int{0, 9, 10, 99, 100, 101, 999} {
		for _, seq := range []int{0, 9, 10, 99, 1 << 30, 2147483647} {
			names = append(names, fmt.Sprintf("%s%010d", priority.Prefix(p), seq))
		}
	}
	if !sort.StringsAreSorted(names) {
		t.Fatalf("names do not sort as (priority, sequence): %s", strings.Join(names, " "))
	}
}

func TestCheckNamesTheValueAndTheRange(t *testing.T) {
	for _, p := range []int{-1, 1000, 1e9} {
		err := priority.Check(p)
		if !errors.Is(err, priority.ErrRange) || !strings.Contains(err.Error(), fmt.Sprint(p)) {
			t.Errorf("Check(%d) = %v", p, err)
		}
	}
	for _, p := range []int{0, 100, 999} {
		if err := priority.Check(p); err != nil {
			t.Errorf("Check(%d) = %v", p, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("entry-100-0000000042")
	f.Add("entry-007-0000000000000000042-1763683200000-9f86d081-000003")
	f.Add("entry-100--2147483648")
	f.Fuzz(func(t *testing.T, name string) {
		n, ok := priority.Parse(name)
		if !ok {
			return
		}
		if priority.Check(n.Priority) != nil || n.Sequence < 0 {
			t.Fatalf("Parse(%q) = %+v", name, n)
		}
		if !strings.HasPrefix(name, priority.Prefix(n.Priority)) {
			t.Fatalf("Parse(%q) says priority %d, whose prefix is %q", name, n.Priority, priority.Prefix(n.Priority))
		}
	})
}

func Example() {
	n, ok := priority.Parse("entry-007-0000000042")
	fmt.Println(n.Priority, n.Sequence, ok)
	fmt.Println(priority.Prefix(7))
	// Output:
	// 7 42 true
	// entry-007-
}
