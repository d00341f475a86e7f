package zkq

import (
	"fmt"
	"slices"
	"testing"

	"github.com/zkq/zkq/coord"
)

func TestAnEntryHasOneOwnerWhoeverAsksAndInWhateverOrder(t *testing.T) {
	members := []string{"a", "b", "c", "d"}
	for i := range 100 {
		name := fmt.Sprintf("entry-100-%010d", i)
		want := owner(members, name)
		turned := slices.Clone(members)
		slices.Reverse(turned)
		if got := owner(turned, name); got != want || !slices.Contains(members, got) {
			t.Fatalf("owner of %s: %s, and %s of the members turned round", name, want, got)
		}
	}
	if got := owner(nil, "entry-100-0000000000"); got != "" {
		t.Errorf("of no members %q is the owner", got)
	}
}

func TestAMemberThatLeavesMovesNobodyElsesEntries(t *testing.T) {
	members := []string{"a", "b", "c", "d", "e"}
	for i := range 1000 {
		name := fmt.Sprintf("entry-100-%010d", i)
		if before := owner(members, name); before != "c" {
			if after := owner([]string{"a", "b", "d", "e"}, name); after != before {
				t.Fatalf("%s went from %s to %s when c left", name, before, after)
			}
		}
	}
}

func TestMembersOwnAboutTheSame(t *testing.T) {
	for _, names := range []string{"entry-100-%010d", "entry-100-%019d-1790000000000-00c0ffee-000001"} {
		var members []string
		for i := range 8 {
			members = append(members, fmt.Sprintf("%032x", i))
		}
		owns := make(map[string]int)
		for i := range 8000 {
			owns[owner(members, fmt.Sprintf(names, i))]++
		}
		for _, m := range members {
			if owns[m] < 850 || owns[m] > 1150 {
				t.Errorf("%s of %s owns %d of 8000", m, names, owns[m])
			}
		}
	}
}

// Processes of different versions share a queue.
func TestTheOwnersHashNeverChanges(t *testing.T) {
	var members []string
	for i := range 16 {
		members = append(members, fmt.Sprintf("%032x", i))
	}
	got := ""
	for i := range 12 {
		got += owner(members, fmt.Sprintf("entry-100-%010d", i))[31:]
	}
	if want := "130557977244"; got != want {
		t.Errorf("the owners are %s, and were %s", got, want)
	}
}

func TestWhoIsNextOwnsTheEntryWhenThoseBeforeHaveLeft(t *testing.T) {
	members := []string{"a", "b", "c", "d", "e"}
	for i := range 100 {
		name := fmt.Sprintf("entry-100-%010d", i)
		left := slices.Clone(members)
		for before := range members {
			next := owner(left, name)
			if got := membersBefore(members, next, name); got != before {
				t.Fatalf("%d members are before %s for %s, not %d", got, next, name, before)
			}
			left = slices.DeleteFunc(left, func(m string) bool { return m == next })
		}
	}
}

// Its owner begins with the first of them, and whoever has none of his own left with
// those that nobody else comes to sooner, from the other end.
func TestWhoHasNothingLeftWantsTheOthersEntriesFromTheirEnd(t *testing.T) {
	const window, me = 8, "00000000000000000000000000000001"
	p := newPlace(strangers{}, "jobs", false, []Option{Holder(me), func(o *options) { o.window = 2 * window }})
	v := newView(p, newSkipped(), nil)
	v.members = []string{me, me[:31] + "2", me[:31] + "3"}
	for i := range 2 * window {
		v.ready = append(v.ready, fmt.Sprintf("entry-100-%010d", i))
	}
	order, _ := v.order(1, mostAhead)
	if sorted := slices.Sorted(slices.Values(order)); !slices.Equal(sorted, v.ready) {
		t.Fatalf("wanted are %v", order)
	}
	if behind := order[window:]; !slices.Equal(behind, v.ready[window:]) {
		t.Errorf("behind the window the order is %v", behind)
	}
	counts := make(map[int]int)
	for i, name := range order[:window] {
		before := membersBefore(v.members, me, name)
		if counts[before]++; i == 0 {
			continue
		}
		last := order[i-1]
		switch was := membersBefore(v.members, me, last); {
		case before < was, before == was && (name > last) != (before == 0):
			t.Errorf("%s, with %d before, is wanted after %s, with %d", name, before, last, was)
		}
	}
	if counts[0] < 2 || counts[1] < 2 || counts[2] < 2 {
		t.Errorf("so many entries are wanted with so many members before: %v", counts)
	}
}

// strangers is a coordinator that is not asked for anything.
type strangers struct{ coord.Coordinator }
