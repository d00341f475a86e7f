package zkq_test

import (
	"sync"
	"testing"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testqueue"
)

func TestPurgeCountsOnlyWhatItRemoved(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		other, _ := env.Queue()
		for range 2 {
			env.Put(q, "stays until the purge")
		}
		last := env.Put(q, "goes before the purge comes to it")
		remove := sync.OnceFunc(func() {
			if err := other.Remove(env.Ctx, last, false); err != nil {
				t.Error(err)
			}
		})
		c.Before(func(_ coord.Session, act, _ string) {
			if act == "commit" {
				remove()
			}
		})
		if n, err := q.Purge(env.Ctx, zkq.StateReady); n != 2 || err != nil {
			t.Errorf("Purge = %d, %v; another process removed one of the 3 entries meanwhile", n, err)
		}
		env.WantEmpty(q)
	})
}
