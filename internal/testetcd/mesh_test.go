package testetcd_test

import (
	"testing"

	"github.com/zkq/zkq/internal/testcoord"
	"github.com/zkq/zkq/internal/testetcd"
)

func TestCutOffLeaderIsReplaced(t *testing.T) {
	c := testetcd.StartFor(t, 3, testetcd.Options{Peers: true})
	client := c.Client(t)
	var old *testetcd.Member
	for _, deaf := range []bool{false, true} {
		wait(t, "one leads", func() bool {
			old = c.Leader(t.Context(), client)
			return old != nil
		})
		if err := c.CutOff(t.Context(), client, old, deaf); err != nil {
			t.Fatal(err)
		}
		leader := old
		wait(t, "another leads", func() bool {
			leader = c.Leader(t.Context(), client)
			return leader != nil && leader != old
		})
		c.HealPeers()
		wait(t, "all know the leader", func() bool { return c.Serves(t.Context(), client) })
	}
}

func wait(t *testing.T, what string, f func() bool) {
	t.Helper()
	testcoord.Eventually(t, testcoord.Patience, what, f)
}
