package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testqueue"
)

func TestQueueHandsOutEachEntryOnceInOrder(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q := zkq.NewQueue(env.Client(), "simple")
		defer q.Close()
		if _, err := q.PutAll(env.Ctx, [][]byte{[]byte("b"), []byte("c")}); err != nil {
			t.Fatal(err)
		}
		env.Put(q, "a", zkq.WithPriority(1))
		if n, err := q.Len(env.Ctx); n != 3 || err != nil {
			t.Fatalf("Len = %d, %v", n, err)
		}
		for _, want := range []string{"a", "b", "c"} {
			if e, err := q.TryGet(env.Ctx); string(e.Value) != want || err != nil {
				t.Fatalf("TryGet = %q, %v; want %q", e.Value, err, want)
			}
		}
		_, err := q.TryGet(env.Ctx)
		env.WantErr(err, zkq.ErrEmpty)
	})
}

func TestQueueGetWaits(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q := zkq.NewQueue(env.Client(), "simple")
		other := zkq.NewQueue(env.Client(), "simple")
		defer other.Close()
		got := make(chan zkq.Entry, 1)
		go func() {
			e, err := q.Get(env.Ctx)
			if err != nil {
				t.Errorf("Get: %v", err)
			}
			got <- e
		}()
		synctest.Wait()
		env.Put(other, "a")
		if e := <-got; string(e.Value) != "a" {
			t.Fatalf("got %q", e.Value)
		}
		ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
		defer cancel()
		_, err := q.Get(ctx)
		env.WantErr(err, context.DeadlineExceeded)
		if err := errors.Join(q.Close(), q.Close()); err != nil {
			t.Fatal(err)
		}
		_, err = q.Get(env.Ctx)
		env.WantErr(err, zkq.ErrClosed)
	})
}

func TestQueueInsideAQueuesPathIsNotItsEntry(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := env.Client()
		outer, inner := zkq.NewQueue(c, "a"), zkq.NewQueue(c, "a/b")
		defer outer.Close()
		defer inner.Close()
		env.Put(outer, "outer")
		env.Put(inner, "inner")
		if n, err := outer.Len(env.Ctx); n != 1 || err != nil {
			t.Fatalf("Len = %d, %v", n, err)
		}
		if e, err := outer.TryGet(env.Ctx); string(e.Value) != "outer" || err != nil {
			t.Fatalf("TryGet = %q, %v", e.Value, err)
		}
		_, err := outer.TryGet(env.Ctx)
		env.WantErr(err, zkq.ErrEmpty)
	})
}

func TestEntriesStatAndPeekSeeEveryState(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue(zkq.Holder("0123456789abcdef0123456789abcdef"))
		if st, err := q.Stat(env.Ctx); st != (zkq.Stat{}) || err != nil {
			t.Fatalf("Stat of nothing = %+v, %v", st, err)
		}
		_, err := q.Peek(env.Ctx, "")
		env.WantErr(err, zkq.ErrEmpty)
		start := time.Now()
		held := env.Put(q, "held", zkq.WithPriority(1))
		time.Sleep(time.Minute)
		ready := env.Put(q, "ready!", zkq.WithPriority(2))
		delayed := env.Put(q, "delayed", zkq.WithPriority(3))
		s := env.Session(c)
		env.Commit(s, coord.Create("/jobs/taken/"+delayed, []byte(`{"zkq":1,"due_ms":1900000000000}`)))
		h := env.Take(q)

		es := env.Entries(q)
		var got []string
		for _, e := range es {
			got = append(got, fmt.Sprint(e.Name, e.Priority, e.State, e.Deliveries, e.Size, e.Value == nil))
		}
		want := []string{
			fmt.Sprint(held, 1, zkq.StateHeld, 1, 4, true),
			fmt.Sprint(ready, 2, zkq.StateReady, 0, 6, true),
			fmt.Sprint(delayed, 3, zkq.StateDelayed, 0, 7, true),
		}
		if !slices.Equal(got, want) {
			t.Fatalf("Entries = %q, want %q", got, want)
		}
		if es[0].Holder != "0123456789abcdef0123456789abcdef" || es[0].Token != h.Token {
			t.Errorf("held entry: %+v, token %d", es[0], h.Token)
		}
		n := 0
		for e, err := range q.Entries(env.Ctx, zkq.StateReady) {
			if err != nil || e.Name != ready {
				t.Errorf("Entries(ready) yields %v, %v", e, err)
			}
			n++
		}
		if n != 1 {
			t.Errorf("Entries(ready) yields %d", n)
		}
		st, err := q.Stat(env.Ctx)
		if err != nil || st.Ready != 1 || st.Held != 1 || st.Delayed != 1 || st.Dead != 0 || st.Total() != 3 {
			t.Errorf("Stat = %+v, %v", st, err)
		}
		if st.Oldest.Sub(start).Abs() > time.Second {
			t.Errorf("oldest %v, put at %v", st.Oldest, start)
		}
		if e, err := q.Peek(env.Ctx, ""); e.Name != ready || string(e.Value) != "ready!" || err != nil {
			t.Errorf("Peek = %+v, %v", e, err)
		}
		if e, err := q.Peek(env.Ctx, held); e.State != zkq.StateHeld || string(e.Value) != "held" || err != nil {
			t.Errorf("Peek(%s) = %+v, %v", held, e, err)
		}
		_, err = q.Peek(env.Ctx, "entry-100-0000000099")
		env.WantErr(err, zkq.ErrNoEntry)
	})
}

func TestEntriesPagesThroughALongQueue(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		names, err := q.PutAll(env.Ctx, make([][]byte, 100))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range env.Entries(q) {
			got = append(got, e.Name)
		}
		if !slices.Equal(got, names) {
			t.Fatalf("%d entries, want %d in put order", len(got), len(names))
		}
		n := 0
		for range q.Entries(env.Ctx) {
			if n++; n == 40 {
				break
			}
		}
	})
}

func TestRemoveAndPurgeRespectHolders(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		held, ready := env.Put(q, "a"), env.Put(q, "b")
		h := env.Take(q)
		env.WantErr(q.Remove(env.Ctx, held, false), zkq.ErrHeld)
		if err := q.Remove(env.Ctx, ready, false); err != nil {
			t.Fatal(err)
		}
		env.WantErr(q.Remove(env.Ctx, ready, false), zkq.ErrNoEntry)
		for range 3 {
			env.Put(q, "c")
		}
		if n, err := q.Purge(env.Ctx, zkq.StateReady); n != 3 || err != nil {
			t.Fatalf("Purge(ready) = %d, %v", n, err)
		}
		if n, err := q.Len(env.Ctx); n != 1 || err != nil {
			t.Fatalf("Len = %d, %v: the held one stays", n, err)
		}
		if err := q.Remove(env.Ctx, held, true); err != nil {
			t.Fatal(err)
		}
		env.WantErr(h.Consume(env.Ctx), zkq.ErrLockLost)
		env.Put(q, "d")
		h = env.Take(q)
		if n, err := q.Purge(env.Ctx, zkq.StateHeld); n != 1 || err != nil {
			t.Fatalf("Purge(held) = %d, %v", n, err)
		}
		env.WantErr(h.Consume(env.Ctx), zkq.ErrLockLost)
		env.WantErr(q.BreakLock(env.Ctx, held), zkq.ErrNoEntry)
		name := env.Put(q, "e")
		env.WantErr(q.BreakLock(env.Ctx, name), zkq.ErrNotHeld)
	})
}

func TestWaitEmptyReturnsWithTheLastEntry(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		if err := q.WaitEmpty(env.Ctx); err != nil {
			t.Fatalf("of a queue nobody wrote to: %v", err)
		}
		env.Put(q, "a")
		h := env.Take(q)
		ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
		defer cancel()
		env.WantErr(q.WaitEmpty(ctx), context.DeadlineExceeded)
		done := make(chan error, 1)
		go func() { done <- q.WaitEmpty(env.Ctx) }()
		synctest.Wait()
		env.Consume(h)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestQueuesFindsBothLayouts(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := env.Client()
		for _, name := range []string{"jobs", "a/b/c"} {
			q := zkq.NewLockingQueue(c, name)
			defer q.Close()
			env.Put(q, "x")
		}
		for _, name := range []string{"simple", "jobs/sub"} {
			q := zkq.NewQueue(c, name)
			defer q.Close()
			env.Put(q, "x")
		}
		got, err := zkq.Queues(env.Ctx, c)
		slices.Sort(got)
		if want := []string{"/a/b/c", "/jobs", "/jobs/sub", "/simple"}; !slices.Equal(got, want) || err != nil {
			t.Fatalf("Queues = %q, %v; want %q", got, err, want)
		}
	})
}

func TestCheckNameSaysWhatIsWrongAndWhere(t *testing.T) {
	for name, want := range map[string]string{
		"jobs": "/jobs", "/jobs": "/jobs", "a/b": "/a/b", "/a/b": "/a/b", "zkqs": "/zkqs", "a/zkq": "/a/zkq",
		strings.Repeat("x", 255): "/" + strings.Repeat("x", 255), "Größe": "/Größe", "a b": "/a b", "-": "/-",
	} {
		if got, err := zkq.CheckName(name); got != want || err != nil {
			t.Errorf("CheckName(%q) = %q, %v", name, got, err)
		}
	}
	for name, says := range map[string]string{
		"": "empty", "/": "empty", "//a": "byte 1", "a/": "byte 2", "a//b": "byte 2", ".": `"."`, "..": `".."`, "a/../b": "byte 2",
		"a\x00": "byte 1", "a\nb": "byte 1", "a\x7f": "byte 1", "\xff": "UTF-8", "\ue000": "byte 0", "mail-📮": "beyond U+FFFF", "entries": "reserved", "a/taken": "byte 2", "dead": "byte 0",
		"a/entries/b": "chroot", "zkq/a": "chroot", "a/taken/b": "chroot", "a/retained/head": "byte 11", "a/retained/labels/b": "byte 11", "a/retained/cursors": "byte 11",
		"a/workers/0123456789abcdef0123456789abcdef": "byte 10", "a/workers/0123456789abcdef0123456789abcdef/b": "byte 10", "a/unique/" + strings.Repeat("0f", 32): "byte 9",
		"a/delayed/0000000000001-put-100-0123456789abcdef/b": "byte 10", "a/dead/0000000000001-entry-100-0000000001": "byte 7", "a/broken/0000000000001-entry-100-0000000001/b": "byte 9",
		"entry-1": "entry-", "x/entry-100-0000000001": "byte 2", "zkq": "reserved", "zookeeper/x": "reserved", "config": "reserved",
		strings.Repeat("x", 256): "255", strings.Repeat("x/", 600) + "x": "1024",
	} {
		_, err := zkq.CheckName(name)
		if !errors.Is(err, zkq.ErrInvalidName) || !strings.Contains(err.Error(), says) {
			t.Errorf("CheckName(%.20q) = %v; want it to say %q", name, err, says)
		}
	}
}
