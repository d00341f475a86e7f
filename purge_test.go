package zkq_test

import (
	"sync"
	"testing"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

func TestPurgeCountsOnlyWhatItRemoved(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c)
		other, _ := b.queue()
		for range 2 {
			b.put(q, "stays until the purge")
		}
		last := b.put(q, "goes before the purge comes to it")
		remove := sync.OnceFunc(func() {
			if err := other.Remove(b.ctx, last, false); err != nil {
				t.Error(err)
			}
		})
		c.hook(func(_ coord.Session, act, _ string) {
			if act == "commit" {
				remove()
			}
		})
		if n, err := q.Purge(b.ctx, zkq.StateReady); n != 2 || err != nil {
			t.Errorf("Purge = %d, %v; another process removed one of the 3 entries meanwhile", n, err)
		}
		b.empty(q)
	})
}
