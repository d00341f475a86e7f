package head

import (
	"fmt"
	"slices"
	"testing"

	"github.com/zkq/zkq/internal/member"
)

// The owner of an entry begins with the first of those it owns. A handle that has no entry of
// its own left begins with those that no other member comes to sooner, from the other end.
func TestAHandleWithNothingLeftWantsTheOthersEntriesFromTheirEnd(t *testing.T) {
	const window, me = 8, "00000000000000000000000000000001"
	h := New(Config{Window: 2 * window, Holder: me})
	h.members = []string{me, me[:31] + "2", me[:31] + "3"}
	for i := range 2 * window {
		h.ready = append(h.ready, fmt.Sprintf("entry-100-%010d", i))
	}
	order, _ := h.order(1, MaxReadAhead)
	if sorted := slices.Sorted(slices.Values(order)); !slices.Equal(sorted, h.ready) {
		t.Fatalf("the order is %v", order)
	}
	if behind := order[window:]; !slices.Equal(behind, h.ready[window:]) {
		t.Errorf("behind the window the order is %v", behind)
	}
	counts := make(map[int]int)
	for i, name := range order[:window] {
		before := member.Before(h.members, me, name)
		if counts[before]++; i == 0 {
			continue
		}
		last := order[i-1]
		switch was := member.Before(h.members, me, last); {
		case before < was, before == was && (name > last) != (before == 0):
			t.Errorf("%s, with %d members before, is wanted after %s, with %d", name, before, last, was)
		}
	}
	if counts[0] < 2 || counts[1] < 2 || counts[2] < 2 {
		t.Errorf("numbers of entries by the number of members before: %v", counts)
	}
}
