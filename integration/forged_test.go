package integration_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq"
)

// forgedHeaders are headers of an envelope that no zkq wrote. Each field of ours has values
// that it cannot have, and paths where a name is expected.
func forgedHeaders(key string) []string {
	far := "/tenantb/jobs/entries/entry-100-0000000000"
	for len(far) < 64 {
		far = "../"[max(0, 3-(64-len(far))):] + far
	}
	var all []string
	for _, field := range []string{"unique", "Unique", "UNIQUE", "reason", "failures", "deliveries", "expires_ms", "EXPIRES_MS", "later"} {
		for _, value := range []any{
			far, "../../tenantb/jobs/entries/entry-100-0000000000", key, strings.ToUpper(key), "..", "", "\u0000", strings.Repeat("/", 64), strings.Repeat("9", 64),
			-1, 0, 1, int64(1) << 62, 1e300, true, nil,
			[]int{1},
			map[string]any{"unique": far},
			time.Now().Add(time.Hour).UnixMilli(),
		} {
			text, err := json.Marshal(map[string]any{field: value})
			if err != nil {
				panic(err)
			}
			all = append(all, string(text))
		}
	}
	return append(all, `{"unique":"`+far+`","expires_ms":1,"unique":"`+far+`"}`, `[]`, `null`, `{`, ``)
}

// Real kazoo puts forged bytes into its queue, and zkq works on them in every way there is:
// not a node changes outside that queue.
func TestKazoosForgedBytesChangeNothingOutsideItsQueue(t *testing.T) {
	b := newBench(t)
	k := b.kazoo("LockingQueue")
	victim := zkq.NewLockingQueue(b.client(), "tenantb/jobs")
	b.put(victim, []byte("tenant b's job"))
	b.put(victim, []byte("another"), zkq.WithUnique("b"))
	victim.Close()
	q := b.locking()
	standing := b.put(q, []byte("stands for a key"), zkq.WithUnique("k"), zkq.WithPriority(900))
	z := b.zookeeper()
	keys := z.children("/" + queueName + "/unique")
	if len(keys) != 1 {
		t.Fatalf("keys %q", keys)
	}
	key, before, _ := z.read("/" + queueName + "/unique/" + keys[0])
	outside := func() map[string]string {
		nodes := z.tree("")
		maps.DeleteFunc(nodes, func(path, _ string) bool {
			return strings.HasPrefix(path, "/"+queueName) || strings.HasPrefix(path, "/zkq/producers") || path == ""
		})
		return nodes
	}
	was := outside()

	headers := forgedHeaders(keys[0])
	var values [][]byte
	for _, h := range headers {
		value := append(binary.AppendUvarint([]byte("\x00zkq\x01"), uint64(len(h))), h...)
		values = append(values, append(value, "harmless text"...))
	}
	for range 2 { // as they come, and what rose from the dead
		k.putAll(values, 100)
		n := 0
		for {
			h, err := q.TryTake(b.ctx)
			if errors.Is(err, zkq.ErrEmpty) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Name == standing {
				if err := h.Release(b.ctx, zkq.LeaveAlone(time.Hour)); err != nil {
					t.Fatal(err)
				}
				continue
			}
			n++
			switch n % 6 {
			case 0:
				err = h.Consume(b.ctx)
			case 1:
				err = h.Fail(b.ctx, "../../tenantb", zkq.After(time.Hour))
			case 2:
				err = h.Bury(b.ctx, "../../tenantb")
			case 3:
				err = h.Forward(b.ctx, zkq.Target{Queue: q, Value: h.Value, Options: []zkq.PutOption{zkq.WithDelay(time.Hour)}})
			case 4:
				if err = h.Release(b.ctx); err == nil {
					err = q.Remove(b.ctx, h.Name, false)
				}
			case 5:
				if err = h.Update(b.ctx, []byte("half")); err == nil {
					err = h.Consume(b.ctx)
				}
			}
			if err != nil {
				t.Fatalf("entry %d, %q: %v", n, h.Value, err)
			}
		}
		var dead []string
		for e, err := range q.Entries(b.ctx) {
			if err != nil {
				t.Fatal(err)
			}
			if e.State == zkq.StateDead {
				dead = append(dead, e.Name)
			}
		}
		for _, name := range dead {
			if _, err := q.Requeue(b.ctx, name); err != nil {
				t.Fatal(err)
			}
		}
		if n < len(values)/2 {
			t.Fatalf("%d of %d were taken", n, len(values))
		}
	}
	if _, err := q.Stat(b.ctx); err != nil {
		t.Fatal(err)
	}
	if e, err := q.Peek(b.ctx, standing); err != nil || string(e.Value) != "stands for a key" {
		t.Errorf("the entry that stands for a key is %q, %v", e.Value, err)
	}
	if value, after, ok := z.read("/" + queueName + "/unique/" + keys[0]); !ok || value != key || after.Mzxid != before.Mzxid {
		t.Errorf("the key of another entry was written or removed: %q, %v", value, ok)
	}
	for _, state := range []zkq.State{zkq.StateDelayed, zkq.StateDead, zkq.StateReady} {
		if _, err := q.Purge(b.ctx, state); err != nil {
			t.Fatal(err)
		}
	}
	now := outside()
	paths := maps.Clone(was)
	maps.Copy(paths, now)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if was[path] != now[path] {
			t.Errorf("%s was %s, and is %s", path, was[path], now[path])
		}
	}
}
