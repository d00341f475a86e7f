package member

import (
	"fmt"
	"slices"
	"testing"
)

func TestAnEntryHasOneOwnerWhoeverAsksAndInWhateverOrder(t *testing.T) {
	members := []string{"a", "b", "c", "d"}
	for i := range 100 {
		name := fmt.Sprintf("entry-100-%010d", i)
		want := Owner(members, name)
		turned := slices.Clone(members)
		slices.Reverse(turned)
		if got := Owner(turned, name); got != want || !slices.Contains(members, got) {
			t.Fatalf("owner of %s: %s, and %s of the members turned round", name, want, got)
		}
	}
	if got := Owner(nil, "entry-100-0000000000"); got != "" {
		t.Errorf("of no members %q is the owner", got)
	}
}

func TestAMemberThatLeavesMovesNobodyElsesEntries(t *testing.T) {
	members := []string{"a", "b", "c", "d", "e"}
	for i := range 1000 {
		name := fmt.Sprintf("entry-100-%010d", i)
		if before := Owner(members, name); before != "c" {
			if after := Owner([]string{"a", "b", "d", "e"}, name); after != before {
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
			owns[Owner(members, fmt.Sprintf(names, i))]++
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
		got += Owner(members, fmt.Sprintf("entry-100-%010d", i))[31:]
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
			next := Owner(left, name)
			if got := Before(members, next, name); got != before {
				t.Fatalf("%d members are before %s for %s, not %d", got, next, name, before)
			}
			left = slices.DeleteFunc(left, func(m string) bool { return m == next })
		}
	}
}

func TestRanksAreThoseOfThePresentMembers(t *testing.T) {
	members := []string{"a", "b", "c", "d", "e"}
	r := Ranks{Me: "c"}
	for len(members) > 0 {
		r.SetMembers(slices.Clone(members))
		if got := r.IsMember(); got != slices.Contains(members, "c") || r.Len() != len(members) {
			t.Errorf("of %s it is a member: %v", members, got)
		}
		for i := range 100 {
			name := fmt.Sprintf("entry-100-%010d", i)
			want := 0
			for _, m := range members {
				if Owner([]string{m, "c"}, name) != "c" {
					want++
				}
			}
			for range 2 {
				if got := r.Before(name); got != want {
					t.Fatalf("%d members of %s are before c for %s, not %d", got, members, name, want)
				}
			}
		}
		members = members[1:]
	}
}
