package etcdqueue_test

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/zkq/zkq/coord"
)

// TestListingsAgreeWithAModel compares pages of all sizes with a sorted list, for names and
// directories whose keys sort in another order.
func TestListingsAgreeWithAModel(t *testing.T) {
	s := alone(t)
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"a", "a-b", "a.b", "a!", "a0", "ab", "a-b-c", "-", "z", "a-", "a b"}
	for round := range 12 {
		dir := fmt.Sprintf("/d%d", round)
		var ops []coord.Op
		nodes, all := make(map[string]bool), make(map[string]bool)
		for range 1 + r.IntN(40) {
			name := words[r.IntN(len(words))] + words[r.IntN(len(words))]
			if all[name] {
				continue
			}
			all[name] = true
			if r.IntN(3) == 0 {
				ops = append(ops, coord.Create(dir+"/"+name+"/"+words[r.IntN(len(words))], nil), coord.Create(dir+"/"+name+"/deep/er", nil))
				continue
			}
			nodes[name] = true
			ops = append(ops, coord.Create(dir+"/"+name, []byte(name)))
		}
		commit(t, s, ops...)
		for _, values := range []bool{false, true} {
			want := sorted(all)
			if values {
				want = sorted(nodes)
			}
			for _, after := range append([]string{"", "0", "a-bz", "zzz"}, want...) {
				for _, limit := range []int{0, 1, 2, 3, 7, 100} {
					left := slices.DeleteFunc(slices.Clone(want), func(n string) bool { return n <= after && after != "" })
					more := limit > 0 && len(left) > limit
					if more {
						left = left[:limit]
					}
					l, err := s.List(t.Context(), dir, coord.ListOptions{After: after, Limit: limit, Values: values})
					if err != nil {
						t.Fatal(err)
					}
					var got []string
					for _, n := range l.Nodes {
						got = append(got, path.Base(n.Path))
						if values && string(n.Value) != path.Base(n.Path) {
							t.Errorf("%s has the value %q", n.Path, n.Value)
						}
					}
					if !slices.Equal(got, left) || l.More != more {
						t.Fatalf("of %q after %q, limit %d, values %t:\n got %q (more: %t)\nwant %q (more: %t)", want, after, limit, values, got, l.More, left, more)
					}
				}
			}
		}
	}
}

func sorted(set map[string]bool) []string {
	var s []string
	for k := range set {
		s = append(s, k)
	}
	slices.Sort(s)
	return s
}

func TestListingsOfManyPagesAreWhole(t *testing.T) {
	s := alone(t)
	const n = 3 * 4000
	for range n / 4000 {
		var ops []coord.Op
		for range 4000 {
			ops = append(ops, coord.CreateSequential("/q/entries/e-", []byte(strings.Repeat("x", 100))))
		}
		commit(t, s, ops...)
	}
	for _, o := range []coord.ListOptions{{}, {Values: true}, {Limit: n}, {Limit: n - 1}} {
		l, err := s.List(t.Context(), "/q/entries", o)
		if err != nil {
			t.Fatal(err)
		}
		want := n
		if o.Limit > 0 {
			want = o.Limit
		}
		if len(l.Nodes) != want || l.More != (want < n) {
			t.Errorf("%+v: %d nodes, more: %t", o, len(l.Nodes), l.More)
		}
		if !slices.IsSortedFunc(l.Nodes, func(a, b coord.Node) int { return strings.Compare(a.Path, b.Path) }) {
			t.Errorf("%+v: not in order", o)
		}
	}
	// The queue's own directory holds one name, however much lies below it.
	l, err := s.List(t.Context(), "/q", coord.ListOptions{})
	if err != nil || len(l.Nodes) != 1 || l.Nodes[0].Path != "/q/entries" {
		t.Errorf("%+v, %v", l, err)
	}
}
