package integration_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"testing"

	"github.com/zkq/zkq"
)

// tree is every node below the test's chroot and path, by path, as others see it.
func (z *zookeeper) tree(path string) map[string]string {
	z.b.Helper()
	nodes := make(map[string]string)
	var walk func(string)
	walk = func(path string) {
		value, stat, ok := z.read(path)
		if !ok {
			z.b.Fatalf("%s is gone", path)
		}
		acl, _, err := z.c.GetACL(z.b.chroot + path)
		if err != nil {
			z.b.Fatal(err)
		}
		kind := "persistent"
		if stat.EphemeralOwner != 0 {
			kind = "ephemeral"
			if regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(value) {
				value = "32 hex digits"
			}
		}
		nodes[path] = fmt.Sprintf("%s %q, version %d, %d children, ACL %v version %d", kind, value, stat.Version, stat.NumChildren, acl, stat.Aversion)
		for _, child := range z.children(path) {
			walk(path + "/" + child)
		}
	}
	walk(path)
	return nodes
}

// same demands that both trees are equal but for what is allowed: by path, zkq's and
// kazoo's words.
func same(t *testing.T, ours, theirs map[string]string, allowed map[string][2]string) {
	t.Helper()
	paths := maps.Clone(ours)
	maps.Copy(paths, theirs)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		want, differs := allowed[path]
		switch o, k := ours[path], theirs[path]; {
		case differs && (!regexp.MustCompile(want[0]).MatchString(o) || !regexp.MustCompile(want[1]).MatchString(k)):
			t.Errorf("%s\n zkq:   %s, want %s\n kazoo: %s, want %s", path, o, want[0], k, want[1])
		case !differs && o != k:
			t.Errorf("%s\n zkq:   %s\n kazoo: %s", path, o, k)
		}
	}
}

func TestSimpleQueueLeavesTheNodesOfKazoos(t *testing.T) {
	ours, theirs := newBench(t), newBench(t)
	q, k := ours.simple(), theirs.kazoo("Queue")
	for i, value := range [][]byte{{}, every(), []byte("x"), []byte("y")} {
		ours.put(q, value, zkq.WithPriority(i*333))
		k.put(value, i*333)
	}
	ours.put(q, []byte("default"))
	k.put([]byte("default"), 100)
	if len(ours.get(q)) != 0 {
		t.Error("got another than the most urgent")
	}
	k.want("")
	tree := ours.zookeeper().tree("/jobs")
	if len(tree) != 5 {
		t.Fatalf("zkq left %d nodes: %v", len(tree), tree)
	}
	same(t, tree, theirs.zookeeper().tree("/jobs"), nil)
}

// TestLockingQueueLeavesTheNodesOfKazoos but for two versions, both of entries that were
// taken: the entry's moves on with each claim of zkq, and the lock's begins at 1. And
// beside them lies what became of an entry that came back.
func TestLockingQueueLeavesTheNodesOfKazoos(t *testing.T) {
	ours, theirs := newBench(t), newBench(t)
	q, k := ours.locking(), theirs.kazoo("LockingQueue")
	for i, value := range [][]byte{[]byte("consumed"), []byte("released"), {}, every()} {
		ours.put(q, value, zkq.WithPriority(i*333))
		k.put(value, i*333)
	}
	if _, err := q.PutAll(ours.ctx, [][]byte{[]byte("a"), {}}, zkq.WithPriority(7)); err != nil {
		t.Fatal(err)
	}
	k.putAll([][]byte{[]byte("a"), {}}, 7)

	ours.consume(ours.take(q))
	k.want("consumed")
	k.says("consume", true)
	ours.release(ours.take(q)) // "a"
	k.want("a")
	k.says("release", true)
	held := ours.take(q)
	k.want("a")

	path := "/entries/" + held.Name
	same(t, ours.zookeeper().tree("/jobs"), theirs.zookeeper().tree("/jobs"), map[string][2]string{
		"/jobs" + path:             {`^persistent "a", version 2,`, `^persistent "a", version 0,`},
		"/jobs/taken/" + held.Name: {`^ephemeral "32 hex digits", version 1,`, `^ephemeral "32 hex digits", version 0,`},

		"/jobs":                       {`^persistent "", version 0, 3 children`, `^persistent "", version 0, 2 children`},
		"/jobs/attempts":              {`^persistent "", version 0, 1 children`, `^$`},
		"/jobs/attempts/" + held.Name: {`^persistent "{\\"failures\\":0,\\"forgiven\\":1}", version 0,`, `^$`},
	})
}

// TestNamesCountOnWhoeverPuts: the sequence is the directory's, and each side goes on where
// the other stopped.
func TestNamesCountOnWhoeverPuts(t *testing.T) {
	b := newBench(t)
	q, k, z := b.locking(), b.kazoo("LockingQueue"), b.zookeeper()
	k.put([]byte("0"), 100)
	if name := b.put(q, []byte("1"), zkq.WithPriority(5)); name != "entry-005-0000000001" {
		t.Errorf("zkq put %s", name)
	}
	k.putAll([][]byte{[]byte("2"), []byte("3")}, 0)
	if name := b.put(q, []byte("4")); name != "entry-100-0000000004" {
		t.Errorf("zkq put %s", name)
	}
	names := z.children("/jobs/entries")
	slices.Sort(names)
	if want := []string{"entry-000-0000000002", "entry-000-0000000003", "entry-005-0000000001", "entry-100-0000000000", "entry-100-0000000004"}; !slices.Equal(names, want) {
		t.Errorf("names are %q, want %q", names, want)
	}
}
