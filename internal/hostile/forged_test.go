package hostile

// These tests create nodes as another client of the service might: they look like those of zkq, and name what they should not.

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testqueue"
)

// envelope returns a value with headers, in zkq's encoding.
func envelope(headers, body string) []byte {
	b := binary.AppendUvarint([]byte("\x00zkq\x01"), uint64(len(headers)))
	return append(append(b, headers...), body...)
}

// forgedKeys returns headers that name something else than a key of the entry.
func forgedKeys(standing string) map[string]string {
	far := "/tenantb/jobs/entries/entry-100-0000000000"
	for len(far) < 64 {
		far = "../"[max(0, 3-(64-len(far))):] + far
	}
	sum := sha256.Sum256([]byte(standing))
	return map[string]string{
		"another queue's entry":       far,
		"the same, without padding":   "../../tenantb/jobs/entries/entry-100-0000000000",
		"the queue's configuration":   "../config" + strings.Repeat("/", 55),
		"upper case":                  strings.Repeat("A", 64),
		"another entry's key":         hex.EncodeToString(sum[:]),
		"a name that is no key's":     strings.Repeat("z", 64),
		"a directory above":           "..",
		"nothing that can be a path":  "\x00\xff",
		"a path of the whole service": "/zkq/format",
	}
}

func TestForgedKeyChangesNothingElse(t *testing.T) {
	for way, end := range map[string]func(env *testqueue.Env, q *zkq.LockingQueue, name string) error{
		"consume": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error { return env.Take(q).Consume(env.Ctx) },
		"exchange": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error {
			_, err := q.Exchange(env.Ctx, []*zkq.Held{env.Take(q)}, 1)
			return err
		},
		"fail and consume": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error {
			env.Fail(env.Take(q), "no")
			return env.Take(q).Consume(env.Ctx)
		},
		"bury and requeue": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error {
			if err := env.Take(q).Bury(env.Ctx, "no"); err != nil {
				return err
			}
			if _, err := q.Requeue(env.Ctx, name); err != nil {
				return err
			}
			return env.Take(q).Consume(env.Ctx)
		},
		"forward": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error {
			return env.Take(q).Forward(env.Ctx, zkq.Target{Queue: q, Value: []byte("next")})
		},
		"update": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error {
			h := env.Take(q)
			if err := h.Update(env.Ctx, []byte("half")); err != nil {
				return err
			}
			return h.Consume(env.Ctx)
		},
		"remove": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error {
			return q.Remove(env.Ctx, name, false)
		},
		"purge": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error {
			_, err := q.Purge(env.Ctx, zkq.StateReady)
			return err
		},
		"an expired one": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error {
			time.Sleep(2 * time.Hour)
			_, err := q.TryTake(env.Ctx)
			if errors.Is(err, zkq.ErrEmpty) {
				err = nil
			}
			return err
		},
	} {
		for what, key := range forgedKeys("k") {
			t.Run(way+" with "+what, func(t *testing.T) {
				testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
					victim := zkq.NewLockingQueue(env.Client(), "tenantb/jobs")
					defer victim.Close()
					env.Put(victim, "tenant b's job")
					own := testqueue.Confine(env.Client(), func(what string) { t.Error(what) }, "tenanta/jobs")
					q := zkq.NewLockingQueue(own, "tenanta/jobs")
					defer q.Close()
					standing := env.Put(q, "stands for a key", zkq.WithUnique("k"), zkq.WithPriority(500))
					env.WantErr(q.Pause(env.Ctx), nil)
					env.WantErr(q.Resume(env.Ctx), nil)

					kazoo := env.Session(env.Client())
					header, _ := json.Marshal(map[string]any{"unique": key, "expires_ms": time.Now().Add(time.Hour).UnixMilli()})
					rs, err := kazoo.Commit(env.Ctx, coord.CreateSequential("/tenanta/jobs/entries/entry-100-", envelope(string(header), "x")))
					env.WantErr(err, nil)
					name := rs[0].Path[strings.LastIndex(rs[0].Path, "/")+1:]
					before := env.Get(kazoo, "/tenanta/jobs/unique/"+forgedKeys("k")["another entry's key"])
					env.WantErr(end(env, q, name), nil)

					if n, err := victim.Len(env.Ctx); n != 1 || err != nil {
						t.Errorf("the other queue has %d entries, %v", n, err)
					}
					if _, err := q.Peek(env.Ctx, standing); way != "purge" && way != "an expired one" {
						env.WantErr(err, nil)
						env.WantRefused(q, "k", standing)
						after := env.Get(kazoo, before.Path)
						if after.Fence != before.Fence {
							t.Errorf("the key of another entry was written")
						}
					}
					env.Get(kazoo, "/tenanta/jobs/config")
				})
			})
		}
	}
}

// The mover writes what it finds in the node of a delayed put, and another client may have created that node.
func TestForgedDelayedPutChangesNothingElse(t *testing.T) {
	for what, key := range forgedKeys("k") {
		t.Run(what, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				victim := zkq.NewLockingQueue(env.Client(), "tenantb/jobs")
				defer victim.Close()
				env.Put(victim, "tenant b's job")
				own := testqueue.Confine(env.Client(), func(what string) { t.Error(what) }, "tenanta/jobs")
				q := zkq.NewLockingQueue(own, "tenanta/jobs")
				defer q.Close()
				env.Put(q, "stands for a key", zkq.WithUnique("k"), zkq.WithPriority(500))
				kazoo := env.Session(env.Client())
				before := env.Get(kazoo, "/tenanta/jobs/unique/"+forgedKeys("k")["another entry's key"])
				for i, ttl := range []time.Duration{-time.Hour, time.Hour} {
					header, _ := json.Marshal(map[string]any{"unique": key, "expires_ms": time.Now().Add(ttl).UnixMilli()})
					env.Commit(kazoo, coord.Create(fmt.Sprintf("/tenanta/jobs/delayed/%013d-put-100-%016x", 1+i, i), envelope(string(header), "x")))
				}
				for range 2 { // what stands for the key, and what was forged
					if h := env.Take(q); string(h.Value) == "x" {
						env.Consume(h)
					}
				}
				if n, err := victim.Len(env.Ctx); n != 1 || err != nil {
					t.Errorf("the other queue has %d entries, %v", n, err)
				}
				if after := env.Get(kazoo, before.Path); after.Fence != before.Fence {
					t.Error("the key of another entry was written")
				}
			})
		})
	}
}

// A forged entry that names a key does not own it. If the real entry was removed without its key, as kazoo does, the
// key is free.
func TestForgedEntryKeepsNoKeyTaken(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		name := env.Put(q, "a", zkq.WithUnique("k"))
		s := env.Session(c)
		env.Commit(s, coord.CreateSequential("/jobs/entries/entry-100-", envelope(fmt.Sprintf(`{"unique":%q}`, forgedKeys("k")["another entry's key"]), "x")))
		n := env.Get(s, "/jobs/entries/"+name)
		env.Commit(s, coord.Delete(n.Path, n.Fence))
		env.Put(q, "b", zkq.WithUnique("k"))
	})
}

// encoding/json matches field names in any case.
func TestRequeuedEntryHasNoHeaderOfAnyCaseLeft(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		s := env.Session(c)
		header := fmt.Sprintf(`{"EXPIRES_MS":%d,"Unique":"x"}`, time.Now().Add(time.Hour).UnixMilli())
		env.Commit(s, coord.CreateSequential("/jobs/entries/entry-100-", envelope(header, "x")))
		h := env.Take(q)
		env.WantErr(h.Bury(env.Ctx, "no"), nil)
		time.Sleep(2 * time.Hour)
		if _, err := q.Requeue(env.Ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		if h := env.Take(q); string(h.Value) != "x" {
			t.Fatalf("took %q", h.Value)
		}
	})
}

// Nodes of other clients stand among those of the queue, with names that look like paths elsewhere.
func TestForeignNamesLeadNowhere(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		own := testqueue.Confine(env.Client(), func(what string) { t.Error(what) }, "jobs")
		q := zkq.NewLockingQueue(own, "jobs")
		defer q.Close()
		env.Put(q, "a")
		s := env.Session(env.Client())
		for _, dir := range []string{"entries", "taken", "attempts", "delayed", "dead", "broken", "workers", "unique"} {
			for _, name := range []string{"foreign", "0000000000001-foreign", "entry-100-foreign", "entries"} {
				env.Commit(s, coord.Create("/jobs/"+dir+"/"+name, []byte(`{"due_ms":1,"zkq":1}`)))
			}
		}
		env.Commit(s, coord.Create("/zkq/producers/foreign", nil), coord.Create("/zkq/swept", []byte("1 0")))
		env.Fail(env.Take(q), "no")
		h := env.Take(q)
		env.WantErr(q.Remove(env.Ctx, h.Name, true), nil)
		if _, err := q.Stat(env.Ctx); err != nil {
			t.Error(err)
		}
		env.Entries(q)
		for _, state := range []zkq.State{zkq.StateReady, zkq.StateHeld, zkq.StateDelayed, zkq.StateDead} {
			if _, err := q.Purge(env.Ctx, state); err != nil {
				t.Error(err)
			}
		}
		if _, err := q.Workers(env.Ctx); err != nil {
			t.Error(err)
		}
		env.WantErr(zkq.Sweep(env.Ctx, own), nil)
		for _, path := range []string{"/jobs/attempts/foreign", "/zkq/producers/foreign"} {
			env.Get(s, path) // it was left alone
		}
	})
}

func TestAnImpossibleCountIsNoHistory(t *testing.T) {
	for _, history := range []string{`{"forgiven":9223372036854775807}`, `{"updates":-1}`, `{"updates":9223372036854775807}`, `{"failures":9223372036854775807}`, `{"failures":-1}`, `[]`} {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			q, c := env.Queue(zkq.MaxDeliveries(2))
			name := env.Put(q, "a")
			s := env.Session(c)
			env.Commit(s, coord.Create("/jobs/attempts/"+name, []byte(history)))
			env.Fail(env.Take(q), "no")
			h := env.Take(q)
			if h.Deliveries != 2 || h.Failures != 1 {
				t.Errorf("%s: delivery %d, %d failures", history, h.Deliveries, h.Failures)
			}
			env.Fail(h, "no")
			env.WantEmpty(q)
		})
	}
}

func TestAForgedHolderIsNotUsedAsAPath(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		for _, holder := range []string{"../../other/entries/entry-100-0000000000", strings.Repeat("A", 32), "1"} {
			q, _ := env.Queue(zkq.Holder(holder))
			_, err := q.TryTake(env.Ctx)
			env.WantErr(err, zkq.ErrInvalid)
			env.WantErr(q.Register(env.Ctx), zkq.ErrInvalid)
		}
	})
}
