package integration_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/zkq/zkq"
)

// TestKazooSeesNothingOfWhatEntriesLeaveBesideThem: neither of failures nor of the dead.
func TestKazooSeesNothingOfWhatEntriesLeaveBesideThem(t *testing.T) {
	b := newBench(t)
	q, k, z := b.locking(zkq.MaxDeliveries(2)), b.kazoo("LockingQueue"), b.zookeeper()
	name := b.put(q, []byte("poison"))
	b.put(q, []byte("next"))
	for range 2 {
		if err := b.take(q).Fail(b.ctx, "no"); err != nil {
			t.Fatal(err)
		}
		b.lens(q, k, 2)
		k.want("poison") // in its old place, and kazoo's deliveries do not count
		k.says("release", true)
	}
	h := b.take(q)
	if string(h.Value) != "next" {
		t.Fatalf("took %q", h.Value)
	}
	b.lens(q, k, 1)
	b.consume(h)
	k.nothing()
	dead, attempts := z.children("/jobs/dead"), z.children("/jobs/attempts")
	if len(dead) != 1 || !strings.HasSuffix(dead[0], "-"+name) || len(attempts) != 0 {
		t.Fatalf("dead: %q, attempts: %q", dead, attempts)
	}
	again, err := q.Requeue(b.ctx, dead[0])
	if err != nil || again <= name {
		t.Fatalf("Requeue of %s = %s, %v", name, again, err)
	}
	k.want("poison")
	k.says("consume", true)
	b.lens(q, k, 0)
}

// TestWhatKazoosConsumeLeavesIsSwept: it knows nothing of the attempts of the entry that it
// removes.
func TestWhatKazoosConsumeLeavesIsSwept(t *testing.T) {
	b := newBench(t)
	q, k, z := b.locking(), b.kazoo("LockingQueue"), b.zookeeper()
	b.put(q, []byte("job"))
	b.release(b.take(q))
	k.want("job")
	k.says("consume", true)
	if left := z.children("/jobs/attempts"); len(left) != 1 {
		t.Fatalf("kazoo left %q", left)
	}
	name := b.put(q, []byte("other"))
	b.release(b.take(q))
	if _, err := q.Purge(b.ctx, zkq.StateDelayed); err != nil {
		t.Fatal(err)
	}
	if left := z.children("/jobs/attempts"); len(left) != 1 || left[0] != name {
		t.Fatalf("the sweep left %q", left)
	}
	b.consume(b.take(q))
}

// TestTheLargestValueDiesAndComesBack in one transaction each, which carry it again.
func TestTheLargestValueDiesAndComesBack(t *testing.T) {
	b := newBench(t)
	q, z := b.locking(zkq.MaxDeliveries(1)), b.zookeeper()
	value := bytes.Repeat([]byte{'x'}, zkq.MaxValue)
	reason := strings.Repeat("because of \x00, ", 1000)
	name := b.put(q, value)
	for range 2 {
		if err := b.take(q).Fail(b.ctx, reason); err != nil {
			t.Fatal(err)
		}
		b.empty(q)
		dead := z.children("/jobs/dead")
		if len(dead) != 1 {
			t.Fatalf("dead: %q", dead)
		}
		e, err := q.Peek(b.ctx, dead[0])
		if err != nil || !bytes.Equal(e.Value, value) || e.Failures != 1 || e.Deliveries != 1 || !strings.Contains(e.Reason, "because of") {
			t.Fatalf("%d bytes, failures %d, deliveries %d, reason %.40q, %v", len(e.Value), e.Failures, e.Deliveries, e.Reason, err)
		}
		if name, err = q.Requeue(b.ctx, dead[0]); err != nil {
			t.Fatal(err)
		}
	}
	h := b.take(q)
	if h.Name != name || !bytes.Equal(h.Value, value) {
		t.Fatalf("took %s of %d bytes", h.Name, len(h.Value))
	}
	if err := h.Bury(b.ctx, reason); err != nil {
		t.Fatal(err)
	}
}
