package hostile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testqueue"
	"github.com/zkq/zkq/retained"
)

// FuzzForeignBytes plants arbitrary bytes in an entry, a lock, a history, a delayed put, the configuration, a dead
// entry, a worker's node and a log's nodes. A process must use no node outside its queue, change no other queue, not
// panic, and end.
func FuzzForeignBytes(f *testing.F) {
	far := "../../../../../../../../../../tenantb/jobs/entries/entry-100-0000000000"
	sealed := func(text string) []byte { return envelope(text, "x") }
	history, config, lock, head := []byte(`{"failures":1,"forgiven":1}`), []byte(`{"max_entries":3,"ttl":true}`), []byte(`{"zkq":1,"due_ms":1}`), []byte(`{"next":3,"labels":{"a":0}}`)
	for _, value := range [][]byte{
		[]byte("x"), sealed("{}"), sealed(`{"unique":"` + far[len(far)-64:] + `"}`), sealed(`{"expires_ms":1}`), sealed(`{"expires_ms":-1,"failures":-1,"reason":"../.."}`),
		sealed(`{"unique":"` + forgedKeys("k")["another entry's key"] + `"}`),
	} {
		for kinds := range uint8(8) {
			f.Add(value, config, lock, history, head, "0000000000001-put-100-0123456789abcdef", kinds)
		}
	}
	f.Add(sealed("[]"), []byte("[]"), []byte(far), []byte(far), []byte(far), "0000000000001-entry-100-0000000001", uint8(7))
	f.Add(sealed("null"), []byte(`{"offset":-1}`), []byte("0123456789abcdef0123456789abcdef"), []byte(`{"updates":9e18}`), []byte(`{"next":9223372036854775807}`), far, uint8(3))
	f.Fuzz(func(t *testing.T, value, config, lock, history, head []byte, delayed string, kinds uint8) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			store := coordtest.NewStore()
			if kinds&8 != 0 {
				store = coordtest.NewEtcdStore()
			}
			other := store.Open(coordtest.Options{})
			defer other.Close()
			s, err := other.Session(ctx)
			if err != nil {
				t.Fatal(err)
			}
			victim := zkq.NewLockingQueue(other, "tenantb/jobs")
			defer victim.Close()
			if _, err := victim.Put(ctx, []byte("theirs"), zkq.WithUnique("k")); err != nil {
				t.Fatal(err)
			}
			theirs := nodesBelow(ctx, t, s, "/tenantb")

			own := store.Open(coordtest.Options{})
			defer own.Close()
			c := testqueue.Confine(own, func(what string) { t.Error(what) }, "jobs")
			q := zkq.NewLockingQueue(c, "jobs", zkq.MaxDeliveries(4), zkq.Warn(func(string) {}))
			defer q.Close()
			log := retained.NewLog(c, "jobs", retained.Config{Keep: 2})
			defer log.Close()
			var names []string
			for i := range 3 {
				if name, err := q.Put(ctx, []byte("ours"), zkq.WithUnique(fmt.Sprint("k", i))); err == nil {
					names = append(names, name)
				}
			}
			for range 2 {
				if rs, err := s.Commit(ctx, coord.CreateSequential("/jobs/entries/entry-100-", value)); err == nil {
					names = append(names, rs[0].Path[len("/jobs/entries/"):])
				}
			}
			plant := func(path string, value []byte) {
				if coord.CheckPath(path) == nil && strings.Count(path, "/") <= 4 {
					_, _ = s.Commit(ctx, coord.Create(path, value))
				}
			}
			plant("/jobs/delayed/"+strings.ReplaceAll(delayed, "/", "_"), value)
			plant("/jobs/delayed/0000000000002-put-050-0123456789abcdef", value)
			plant("/jobs/delayed/0000000000001-"+names[0], history)
			plant("/jobs/dead/0000000000001-entry-100-0000000077", value)
			plant("/jobs/dead/"+strings.ReplaceAll(delayed, "/", "_"), value)
			plant("/jobs/attempts/"+names[1], history)
			plant("/jobs/attempts/"+strings.ReplaceAll(delayed, "/", "_"), history)
			plant("/jobs/workers/"+strings.ReplaceAll(delayed, "/", "_"), lock)
			plant("/jobs/broken/"+strings.ReplaceAll(delayed, "/", "_"), lock)
			plant("/jobs/taken/"+strings.ReplaceAll(delayed, "/", "_"), lock)
			if kinds&1 != 0 {
				plant("/jobs/taken/"+names[0], lock)
			}
			if kinds&2 != 0 {
				plant("/jobs/config", config)
			}
			if kinds&4 != 0 {
				plant("/jobs/retained/head", head)
				plant("/jobs/retained/labels", head)
				plant("/jobs/retained/cursors/0000000000000000000", head)
			}

			for i := range 12 {
				h, err := q.TryTake(ctx)
				if err != nil {
					break
				}
				switch i % 6 {
				case 0:
					_ = h.Fail(ctx, string(lock))
				case 1:
					_ = h.Release(ctx, zkq.After(time.Second))
				case 2:
					_ = h.Bury(ctx, string(lock))
				case 3:
					_ = h.Forward(ctx, zkq.Target{Queue: q, Value: value, Options: []zkq.PutOption{zkq.WithUnique("k3")}})
				case 4:
					_ = h.Update(ctx, value)
					_ = h.Consume(ctx)
				case 5:
					_, _ = q.Exchange(ctx, []*zkq.Held{h}, 2)
				}
			}
			_, _ = q.Put(ctx, value, zkq.WithUnique("k0"), zkq.WithDelay(time.Second), zkq.WithTTL(time.Minute))
			for e, err := range q.Entries(ctx) {
				if err != nil {
					break
				}
				_, _ = q.Peek(ctx, e.Name)
				if e.State == zkq.StateDead {
					_, _ = q.Requeue(ctx, e.Name)
				} else {
					_ = q.BreakLock(ctx, e.Name)
				}
			}
			_, _ = q.Stat(ctx)
			_, _ = q.Workers(ctx)
			_, _ = q.Config(ctx)
			_ = q.Pause(ctx)
			_ = q.Resume(ctx)
			_, _ = log.Append(ctx, value)
			if _, err := log.Label("a", retained.Oldest).TryRead(ctx, 2); err == nil {
				_, _ = log.Label("b", retained.Newest).Next(ctx, 1)
			}
			_, _ = log.Labels(ctx)
			_, _ = log.RemoveLabel(ctx, "a")
			_, _ = log.Truncate(ctx, 1)
			for _, name := range names {
				_ = q.Remove(ctx, name, true)
			}
			for _, state := range []zkq.State{zkq.StateReady, zkq.StateHeld, zkq.StateDelayed, zkq.StateDead} {
				_, _ = q.Purge(ctx, state)
			}
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.Error("it does not come to an end")
			}
			if now := nodesBelow(t.Context(), t, s, "/tenantb"); !maps.Equal(theirs, now) {
				t.Errorf("the other queue was %v, and is %v", theirs, now)
			}
		})
	})
}

// nodesBelow returns the nodes below a directory, with fences and values.
func nodesBelow(ctx context.Context, t *testing.T, s coord.Session, dir string) map[string]string {
	nodes := make(map[string]string)
	l, err := s.List(ctx, dir, coord.ListOptions{Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Nodes {
		if at, err := s.Get(ctx, n.Path); err == nil {
			nodes[n.Path] = fmt.Sprintf("%d %q", at.Fence, at.Value)
		}
		maps.Copy(nodes, nodesBelow(ctx, t, s, n.Path))
	}
	return nodes
}
