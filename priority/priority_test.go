package priority_test

import (
	"cmp"
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

// FuzzEntryName: a name can be put together again from its parts, and names of one
// service that differ in priority or sequence sort by them.
func FuzzEntryName(f *testing.F) {
	f.Add("entry-100-0000000042", "entry-099-0000000043")
	f.Add("entry-000-0000000000", "entry-999-2147483647")
	f.Add("entry-007-0000000000000000042-1763683200000-9f86d081-000003", "entry-007-0000000000000000041-1763683200000-00000000-999999")
	f.Add("entry-007-9223372036854775807-0000000000000-ffffffff-000000", "entry-007-9223372036854775808-0000000000000-ffffffff-000000")
	f.Add("entry-007-0000000000000000042-9999999999999-9f86d081-123456789012", "entry-007-0000000000000000042-9999999999999-9f86d081-1234567890123")
	f.Add("entry-100--2147483648", "entry-100--000000001")
	f.Add("entry-+10-0000000042", "entry-100-00000000x2")
	f.Add("entry-١٠٠-0000000001", "entry-100-0000000001\x00")
	f.Fuzz(func(t *testing.T, a, b string) {
		m, ok := priority.Parse(a)
		if !ok {
			return
		}
		if priority.Check(m.Priority) != nil || m.Sequence < 0 {
			t.Fatalf("Parse(%q) = %+v", a, m)
		}
		again := fmt.Sprintf("%s%010d", priority.Prefix(m.Priority), m.Sequence)
		if parts := strings.Split(a, "-"); len(parts) > 3 {
			again = fmt.Sprintf("%s%019d-%013d-%s-%s", priority.Prefix(m.Priority), m.Sequence, m.Put.UnixMilli(), parts[4], parts[5])
		} else if !m.Put.IsZero() {
			t.Fatalf("Parse(%q) says it was put at %v", a, m.Put)
		}
		if again != a {
			t.Fatalf("Parse(%q) = %+v, which makes %q", a, m, again)
		}
		n, ok := priority.Parse(b)
		if !ok || m.Put.IsZero() != n.Put.IsZero() {
			return
		}
		if want := cmp.Or(cmp.Compare(m.Priority, n.Priority), cmp.Compare(m.Sequence, n.Sequence)); want != 0 && strings.Compare(a, b) != want {
			t.Fatalf("%q is %+v and %q is %+v, and they do not sort so", a, m, b, n)
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

func TestBeyondSkipsNoEntry(t *testing.T) {
	var entries []string
	for _, p := range []int{0, 9, 10, 99, 100, 101, 899, 900, 999} {
		for _, seq := range []string{"0000000000", "0000000042", "2147483647", "0000000000000004711-1763683200000-9f86d081-000000"} {
			entries = append(entries, priority.Prefix(p)+seq)
		}
	}
	foreign := []string{
		"", "aaa", "entries", "entry", "entry+", "entry-", "entry-1", "entry-1-0000000001", "entry-10", "entry-100", "entry-100-", "entry-100--2147483648", "entry-100-000000004",
		"entry-100-00000000420", "entry-100-x", "entry-100.", "entry-1000-0000000001", "entry-10x", "entry-9999-1", "entry-999-99999999999", "entry-99:", "entry-x", "entry-\xff", "entry.", "garbage", "zzz", "\xff",
	}
	for _, name := range foreign {
		after, more := priority.Beyond(name)
		if more && after < name {
			t.Errorf("Beyond(%q) = %q, which is before it", name, after)
		}
		for _, e := range entries {
			if e > name && (!more || e <= after) {
				t.Errorf("Beyond(%q) = %q, %v: skips %s", name, after, more, e)
			}
		}
	}
	for name, want := range map[string]string{"aaa1": "entry-000", "entry-000-x1": "entry-001-", "entry-100--1": "entry-100-0", "entry-9999": "entry-999-"} {
		// All these names are skipped at once.
		if after, more := priority.Beyond(name); !more || after >= want && name[:9] != want[:9] || after <= name+"0" {
			t.Errorf("Beyond(%q) = %q, %v", name, after, more)
		}
	}
	for _, name := range []string{"entry.", "garbage", "zzz"} {
		if after, more := priority.Beyond(name); more {
			t.Errorf("Beyond(%q) = %q, though no entry is behind it", name, after)
		}
	}
}
