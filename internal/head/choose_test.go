package head

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq/internal/member"
)

// The owner of an entry begins with the first of those it owns. A handle that has no entry of
// its own left begins with those that no other member comes to sooner, from the other end.
func TestAHandleWithNothingLeftWantsTheOthersEntriesFromTheirEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, window, me = 20, 2 * 20 * 3, "00000000000000000000000000000001"
		members := []string{me, me[:31] + "2", me[:31] + "3"}
		h := New(Config{Holder: me})
		h.ranks.SetMembers(members)
		for i := range 2 * window {
			if name := fmt.Sprintf("entry-100-%010d", i); member.Owner(members, name) != me || i%5 == 0 {
				h.ready = append(h.ready, name)
			}
		}
		h.changedAt = time.Now()
		early, _ := h.order(n, 2*window)
		for _, name := range early {
			if member.Owner(members, name) != me || name > h.ready[window-1] {
				t.Errorf("%s is wanted at once", name)
			}
		}
		time.Sleep(maxPatience) // then other members' entries are this handle's too
		order, _ := h.order(n, 2*window)
		if sorted := slices.Sorted(slices.Values(order)); !slices.Equal(sorted, h.ready) {
			t.Fatalf("the order is %v", order)
		}
		if behind := order[window:]; !slices.Equal(behind, h.ready[window:]) {
			t.Errorf("behind the window the order is %v", behind)
		}
		counts := make(map[int]int)
		for i, name := range order[:window] {
			before := member.Before(members, me, name)
			if counts[before]++; i == 0 {
				continue
			}
			last := order[i-1]
			switch was := member.Before(members, me, last); {
			case before < was, before == was && (name > last) != (before == 0):
				t.Errorf("%s, with %d members before, is wanted after %s, with %d", name, before, last, was)
			}
		}
		if counts[0] < 2 || counts[1] < 2 || counts[2] < 2 {
			t.Errorf("numbers of entries by the number of members before: %v", counts)
		}
	})
}
