package zkq_test

import (
	"slices"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testqueue"
)

// Which of kazoo's two queues a path holds is seen from its nodes.
func TestTheLayoutOfAQueueIsFound(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		find := func(name string, want zkq.Layout) {
			t.Helper()
			if got, err := zkq.FindLayout(env.Ctx, c, name); got != want || err != nil {
				t.Errorf("%s: %q, %v, want %q", name, got, err, want)
			}
		}
		find(q.Name(), "")
		env.Put(q, "v")
		find(q.Name(), zkq.LayoutLocking)
		if err := env.Take(q).Consume(env.Ctx); err != nil {
			t.Fatal(err)
		}
		find(q.Name(), zkq.LayoutLocking)

		plain := zkq.NewQueue(c, "plain")
		defer plain.Close()
		if _, err := plain.Put(env.Ctx, []byte("v")); err != nil {
			t.Fatal(err)
		}
		find("plain", zkq.LayoutPlain)

		s, err := c.Session(env.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		// kazoo's Queue makes its directory before the first put, and keeps it.
		if _, err := s.Commit(env.Ctx, coord.Create("/drained", nil)); err != nil {
			t.Fatal(err)
		}
		find("drained", zkq.LayoutPlain)
		// The directory of another queue, and of one that has only its configuration.
		if _, err := s.Commit(env.Ctx, coord.Create("/team/jobs/config", nil)); err != nil {
			t.Fatal(err)
		}
		find("team", "")
		find("team/jobs", "")
		if _, err := zkq.FindLayout(env.Ctx, c, "a//b"); err == nil {
			t.Error("an invalid name has a layout")
		}
	})
}

// A name is found by its end, whatever the entry's state.
func TestNamesAreFoundByTheirEnds(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		dead, ready := env.Put(q, "dead"), env.Put(q, "ready")
		if err := env.Take(q).Bury(env.Ctx, "broken"); err != nil {
			t.Fatal(err)
		}
		later, err := q.Put(env.Ctx, []byte("later"), zkq.WithDelay(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		end := func(name string, n int) string { return name[len(name)-n:] }
		found, err := q.FindNames(env.Ctx, end(dead, 10), end(ready, 10), end(later, 16), end(ready, 9), "none")
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != 3 || !slices.Equal(found[end(ready, 10)], []string{ready}) || !slices.Equal(found[end(later, 16)], []string{later}) {
			t.Errorf("found %q", found)
		}
		e, err := q.Peek(env.Ctx, found[end(dead, 10)][0])
		if err != nil || string(e.Value) != "dead" || time.Since(e.Since) > time.Minute {
			t.Errorf("%+v, %v", e, err)
		}
		for e, err := range q.EntriesWithValues(env.Ctx) {
			if err != nil || string(e.Value) != map[zkq.State]string{zkq.StateDead: "dead", zkq.StateReady: "ready", zkq.StateDelayed: "later"}[e.State] {
				t.Errorf("%+v, %v", e, err)
			}
		}
		for e, err := range q.Entries(env.Ctx) {
			if err != nil || e.Value != nil {
				t.Errorf("%+v, %v", e, err)
			}
		}
	})
}
