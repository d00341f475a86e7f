package testetcd_test

import (
	"context"
	"testing"
	"time"

	"github.com/zkq/zkq/internal/testetcd"
)

func TestCutOffLeaderIsReplaced(t *testing.T) {
	c := testetcd.StartFor(t, 3, testetcd.Options{Peers: true})
	client := c.Client(t)
	old := c.Leader(t.Context(), client)
	for _, deaf := range []bool{false, true} {
		if old == nil {
			t.Fatal("no leader")
		}
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
		old = c.Leader(t.Context(), client)
	}
}

func wait(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !f() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("not within 30 s: " + what)
		}
	}
}
