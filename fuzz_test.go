package zkq_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/priority"
)

// FuzzQueuePath: a name either is refused as one or leads to a path below the
// root, of the name's own segments, none of which can be taken for what zkq writes.
func FuzzQueuePath(f *testing.F) {
	for _, s := range []string{
		"", "/", "jobs", "/a/b", "a/../b", "..", "./a", "a//b", "a/", "entry-1", "a/entry-100-0000000001", "entries", "a/taken/b",
		"zkq", "zookeeper/quota", "\xff", "a\x00b", "a\x1b[2J", "//", "\ufeff", "\ue000", "a\u0085b", "١", strings.Repeat("x", 256), strings.Repeat("x/", 512) + "x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		path, err := zkq.CheckName(name)
		if err != nil {
			if path != "" || !errors.Is(err, zkq.ErrInvalidName) {
				t.Fatalf("CheckName(%q) = %q, %v", name, path, err)
			}
			return
		}
		if err := coord.CheckPath(path); err != nil {
			t.Fatalf("CheckName(%q) = %q: %v", name, path, err)
		}
		if path != "/"+strings.TrimPrefix(name, "/") {
			t.Fatalf("CheckName(%q) = %q", name, path)
		}
		for seg := range strings.SplitSeq(path[1:], "/") {
			if len(seg) > 255 || strings.HasPrefix(seg, priority.EntryPrefix) || slices.Contains([]string{"entries", "taken", "", ".", ".."}, seg) {
				t.Fatalf("CheckName(%q) = %q, with the segment %q", name, path, seg)
			}
		}
		if again, err := zkq.CheckName(path); again != path || err != nil {
			t.Fatalf("CheckName(%q) = %q, and of that %q, %v", name, path, again, err)
		}
	})
}
