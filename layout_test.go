package zkq_test

import (
	"slices"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// Which of kazoo's two queues a path holds is seen from its nodes.
func TestTheLayoutOfAQueueIsFound(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		find := func(name string, want zkq.Layout) {
			t.Helper()
			if got, err := zkq.FindLayout(b.ctx, c, name); got != want || err != nil {
				t.Errorf("%s: %q, %v, want %q", name, got, err, want)
			}
		}
		find(q.Name(), "")
		b.put(q, "v")
		find(q.Name(), zkq.LayoutLocking)
		if err := b.take(q).Consume(b.ctx); err != nil {
			t.Fatal(err)
		}
		find(q.Name(), zkq.LayoutLocking)

		plain := zkq.NewQueue(c, "plain")
		defer plain.Close()
		if _, err := plain.Put(b.ctx, []byte("v")); err != nil {
			t.Fatal(err)
		}
		find("plain", zkq.LayoutPlain)

		s, err := c.Session(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		// kazoo's Queue makes its directory before the first put, and keeps it.
		if _, err := s.Commit(b.ctx, coord.Create("/drained", nil)); err != nil {
			t.Fatal(err)
		}
		find("drained", zkq.LayoutPlain)
		// The directory of another queue, and of one that has only its configuration.
		if _, err := s.Commit(b.ctx, coord.Create("/team/jobs/config", nil)); err != nil {
			t.Fatal(err)
		}
		find("team", "")
		find("team/jobs", "")
		if _, err := zkq.FindLayout(b.ctx, c, "a//b"); err == nil {
			t.Error("an invalid name has a layout")
		}
	})
}

// A name is found by its end, whatever the entry's state.
func TestNamesAreFoundByTheirEnds(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		dead, ready := b.put(q, "dead"), b.put(q, "ready")
		if err := b.take(q).Bury(b.ctx, "broken"); err != nil {
			t.Fatal(err)
		}
		later, err := q.Put(b.ctx, []byte("later"), zkq.WithDelay(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		end := func(name string, n int) string { return name[len(name)-n:] }
		found, err := q.FindNames(b.ctx, end(dead, 10), end(ready, 10), end(later, 16), end(ready, 9), "none")
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != 3 || !slices.Equal(found[end(ready, 10)], []string{ready}) || !slices.Equal(found[end(later, 16)], []string{later}) {
			t.Errorf("found %q", found)
		}
		e, err := q.Peek(b.ctx, found[end(dead, 10)][0])
		if err != nil || string(e.Value) != "dead" || time.Since(e.Since) > time.Minute {
			t.Errorf("%+v, %v", e, err)
		}
		for e, err := range q.EntriesWithValues(b.ctx) {
			if err != nil || string(e.Value) != map[zkq.State]string{zkq.StateDead: "dead", zkq.StateReady: "ready", zkq.StateDelayed: "later"}[e.State] {
				t.Errorf("%+v, %v", e, err)
			}
		}
		for e, err := range q.Entries(b.ctx) {
			if err != nil || e.Value != nil {
				t.Errorf("%+v, %v", e, err)
			}
		}
	})
}
