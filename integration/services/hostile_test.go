package services_test

import (
	"bytes"
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

// What looks like an envelope, or is none although it says so, is the value that was put.
func TestValuesOfAnyKindComeBackUnchanged(t *testing.T) {
	largest := make([]byte, zkq.MaxValue)
	for i := range largest {
		largest[i] = byte(i * i >> 3)
	}
	values := [][]byte{
		{},
		largest,
		[]byte("\xff\xfe\x1b]0;owned\a\x00"),
		[]byte("\x00zkq\x01"),
		[]byte("\x00zkq\x01\x02{}body"),
		[]byte("\x00zkq\x01\x02[]body"),
		[]byte("\x00zkq\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f{}"), // longer than memory, it says
		[]byte("\x00zkq\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02"),
		append([]byte("\x00zkq\x01\x02{}"), largest[:zkq.MaxValue-100]...),
	}
	onAll(t, func(t *testing.T, p *place) {
		c := p.client()
		q := p.locking(c, "jobs")
		plain := zkq.NewQueue(c, "plain")
		defer plain.Close()
		for i, v := range values {
			if _, err := q.Put(p.ctx, v); err != nil {
				t.Fatalf("put %d: %v", i, err)
			}
			if _, err := plain.Put(p.ctx, v); err != nil {
				t.Fatalf("put %d: %v", i, err)
			}
		}
		for i, v := range values {
			h, err := q.TryTake(p.ctx)
			if err != nil || !bytes.Equal(h.Value, v) {
				t.Fatalf("value %d: %v", i, err)
			}
			if err := h.Consume(p.ctx); err != nil {
				t.Fatal(err)
			}
			if e, err := plain.TryGet(p.ctx); err != nil || !bytes.Equal(e.Value, v) {
				t.Fatalf("value %d: %v", i, err)
			}
		}
	})
}
