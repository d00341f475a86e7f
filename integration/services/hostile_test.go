package services_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// strange creates n nodes of that form beside the entries of a queue.
func (p *place) strange(s coord.Session, queue, form string, n int) {
	p.Helper()
	var ops []coord.Op
	for i := range n {
		ops = append(ops, coord.Create(fmt.Sprintf("/%s/entries/"+form, queue, i), nil))
	}
	for part := range slices.Chunk(ops, 500) {
		p.commit(s, part...)
	}
}

// TestForeignNodesCostLittleTime compares with a queue of nothing but entries, batch by batch: what else the machine does
// meets both. What they cost in requests is tested exactly, in memory.
func TestForeignNodesCostLittleTime(t *testing.T) {
	const many, batches = 10_000 / scale, 40
	forms := []string{"", "aaa%06d", "zzz%06d", "entry-000-x%06d"}
	onEach(t, func(t *testing.T, p *place) {
		c := p.client()
		s := p.session(c)
		queues := make([]*zkq.LockingQueue, len(forms))
		took := make([]spread, len(forms))
		for i, form := range forms {
			name := fmt.Sprintf("jobs/%d", i)
			queues[i] = p.locking(c, name)
			if form != "" {
				p.strange(s, name, form, many)
			}
		}
		for range batches {
			for i, q := range queues {
				begun := time.Now()
				if err := p.batch(q, 100); err != nil {
					t.Fatal(err)
				}
				took[i] = append(took[i], time.Since(begun))
			}
		}
		clean := took[0].at(50)
		for i, form := range forms {
			t.Logf("%q: %.0f %% of the clean queue's throughput; a batch takes: %v", form, 100*float64(clean)/float64(took[i].at(50)), took[i])
			if took[i].at(50) > 2*clean {
				t.Errorf("%d nodes %q halve the throughput, and more", many, form)
			}
		}
	})
}
