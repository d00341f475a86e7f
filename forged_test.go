package zkq_test

// Entries whose bytes another client of the service made up: what looks like ours, and is not.

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

// envelope is a value with headers, as zkq would write it.
func envelope(headers, body string) []byte {
	b := binary.AppendUvarint([]byte("\x00zkq\x01"), uint64(len(headers)))
	return append(append(b, headers...), body...)
}

// forgedKeys are headers that name something else than a key of the entry.
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
	for way, end := range map[string]func(b *bench, q *zkq.LockingQueue, name string) error{
		"consume": func(b *bench, q *zkq.LockingQueue, _ string) error { return b.take(q).Consume(b.ctx) },
		"exchange": func(b *bench, q *zkq.LockingQueue, _ string) error {
			_, err := q.Exchange(b.ctx, []*zkq.Held{b.take(q)}, 1)
			return err
		},
		"fail and consume": func(b *bench, q *zkq.LockingQueue, _ string) error {
			b.fail(b.take(q), "no")
			return b.take(q).Consume(b.ctx)
		},
		"bury and requeue": func(b *bench, q *zkq.LockingQueue, name string) error {
			if err := b.take(q).Bury(b.ctx, "no"); err != nil {
				return err
			}
			if _, err := q.Requeue(b.ctx, name); err != nil {
				return err
			}
			return b.take(q).Consume(b.ctx)
		},
		"forward": func(b *bench, q *zkq.LockingQueue, _ string) error {
			return b.take(q).Forward(b.ctx, zkq.Target{Queue: q, Value: []byte("next")})
		},
		"update": func(b *bench, q *zkq.LockingQueue, _ string) error {
			h := b.take(q)
			if err := h.Update(b.ctx, []byte("half")); err != nil {
				return err
			}
			return h.Consume(b.ctx)
		},
		"remove": func(b *bench, q *zkq.LockingQueue, name string) error { return q.Remove(b.ctx, name, false) },
		"purge": func(b *bench, q *zkq.LockingQueue, _ string) error {
			_, err := q.Purge(b.ctx, zkq.StateReady)
			return err
		},
		"an expired one": func(b *bench, q *zkq.LockingQueue, _ string) error {
			time.Sleep(2 * time.Hour)
			_, err := q.TryTake(b.ctx)
			if errors.Is(err, zkq.ErrEmpty) {
				err = nil
			}
			return err
		},
	} {
		for what, key := range forgedKeys("k") {
			t.Run(way+" with "+what, func(t *testing.T) {
				virtual(t, func(t *testing.T, b *bench) {
					victim := zkq.NewLockingQueue(b.client(), "tenantb/jobs")
					defer victim.Close()
					b.put(victim, "tenant b's job")
					own := testqueue.Confine(b.client(), func(what string) { t.Error(what) }, "tenanta/jobs")
					q := zkq.NewLockingQueue(own, "tenanta/jobs")
					defer q.Close()
					standing := b.put(q, "stands for a key", zkq.WithUnique("k"), zkq.WithPriority(500))
					b.want(q.Pause(b.ctx), nil)
					b.want(q.Resume(b.ctx), nil)

					kazoo := b.session(b.client())
					header, _ := json.Marshal(map[string]any{"unique": key, "expires_ms": time.Now().Add(time.Hour).UnixMilli()})
					rs, err := kazoo.Commit(b.ctx, coord.CreateSequential("/tenanta/jobs/entries/entry-100-", envelope(string(header), "x")))
					b.want(err, nil)
					name := rs[0].Path[strings.LastIndex(rs[0].Path, "/")+1:]
					before := b.get(kazoo, "/tenanta/jobs/unique/"+forgedKeys("k")["another entry's key"])
					b.want(end(b, q, name), nil)

					if n, err := victim.Len(b.ctx); n != 1 || err != nil {
						t.Errorf("the other queue has %d entries, %v", n, err)
					}
					if _, err := q.Peek(b.ctx, standing); way != "purge" && way != "an expired one" {
						b.want(err, nil)
						b.refusedBy(q, "k", standing)
						after := b.get(kazoo, before.Path)
						if after.Fence != before.Fence {
							t.Errorf("the key of another entry was written")
						}
					}
					b.get(kazoo, "/tenanta/jobs/config")
				})
			})
		}
	}
}

// A delayed put is bytes in a node too, and the mover writes what it finds there.
func TestForgedDelayedPutChangesNothingElse(t *testing.T) {
	for what, key := range forgedKeys("k") {
		t.Run(what, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				victim := zkq.NewLockingQueue(b.client(), "tenantb/jobs")
				defer victim.Close()
				b.put(victim, "tenant b's job")
				own := testqueue.Confine(b.client(), func(what string) { t.Error(what) }, "tenanta/jobs")
				q := zkq.NewLockingQueue(own, "tenanta/jobs")
				defer q.Close()
				b.put(q, "stands for a key", zkq.WithUnique("k"), zkq.WithPriority(500))
				kazoo := b.session(b.client())
				before := b.get(kazoo, "/tenanta/jobs/unique/"+forgedKeys("k")["another entry's key"])
				for i, ttl := range []time.Duration{-time.Hour, time.Hour} {
					header, _ := json.Marshal(map[string]any{"unique": key, "expires_ms": time.Now().Add(ttl).UnixMilli()})
					b.commit(kazoo, coord.Create(fmt.Sprintf("/tenanta/jobs/delayed/%013d-put-100-%016x", 1+i, i), envelope(string(header), "x")))
				}
				for range 2 { // what stands for the key, and what was forged
					if h := b.take(q); string(h.Value) == "x" {
						b.consume(h)
					}
				}
				if n, err := victim.Len(b.ctx); n != 1 || err != nil {
					t.Errorf("the other queue has %d entries, %v", n, err)
				}
				if after := b.get(kazoo, before.Path); after.Fence != before.Fence {
					t.Error("the key of another entry was written")
				}
			})
		})
	}
}

// A forged entry that names a key does not stand for it: when the real one went without
// its key, as kazoo leaves it, the key is free.
func TestForgedEntryKeepsNoKeyTaken(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		name := b.put(q, "a", zkq.WithUnique("k"))
		s := b.session(c)
		b.commit(s, coord.CreateSequential("/jobs/entries/entry-100-", envelope(fmt.Sprintf(`{"unique":%q}`, forgedKeys("k")["another entry's key"]), "x")))
		n := b.get(s, "/jobs/entries/"+name)
		b.commit(s, coord.Delete(n.Path, n.Fence))
		b.put(q, "b", zkq.WithUnique("k"))
	})
}

// encoding/json reads a field's name in any case.
func TestRequeuedEntryHasNoHeaderOfAnyCaseLeft(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		s := b.session(c)
		header := fmt.Sprintf(`{"EXPIRES_MS":%d,"Unique":"x"}`, time.Now().Add(time.Hour).UnixMilli())
		b.commit(s, coord.CreateSequential("/jobs/entries/entry-100-", envelope(header, "x")))
		h := b.take(q)
		b.want(h.Bury(b.ctx, "no"), nil)
		time.Sleep(2 * time.Hour)
		if _, err := q.Requeue(b.ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		if h := b.take(q); string(h.Value) != "x" {
			t.Fatalf("took %q", h.Value)
		}
	})
}

// Nodes that nobody of ours made stand where ours do, under names that lead elsewhere.
func TestForeignNamesLeadNowhere(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		own := testqueue.Confine(b.client(), func(what string) { t.Error(what) }, "jobs")
		q := zkq.NewLockingQueue(own, "jobs")
		defer q.Close()
		b.put(q, "a")
		s := b.session(b.client())
		for _, dir := range []string{"entries", "taken", "attempts", "delayed", "dead", "broken", "workers", "unique"} {
			for _, name := range []string{"foreign", "0000000000001-foreign", "entry-100-foreign", "entries"} {
				b.commit(s, coord.Create("/jobs/"+dir+"/"+name, []byte(`{"due_ms":1,"zkq":1}`)))
			}
		}
		b.commit(s, coord.Create("/zkq/producers/foreign", nil), coord.Create("/zkq/swept", []byte("1 0")))
		b.fail(b.take(q), "no")
		h := b.take(q)
		b.want(q.Remove(b.ctx, h.Name, true), nil)
		if _, err := q.Stat(b.ctx); err != nil {
			t.Error(err)
		}
		b.entries(q)
		for _, state := range []zkq.State{zkq.StateReady, zkq.StateHeld, zkq.StateDelayed, zkq.StateDead} {
			if _, err := q.Purge(b.ctx, state); err != nil {
				t.Error(err)
			}
		}
		if _, err := q.Workers(b.ctx); err != nil {
			t.Error(err)
		}
		b.want(zkq.Sweep(b.ctx, own), nil)
		for _, path := range []string{"/jobs/attempts/foreign", "/zkq/producers/foreign"} {
			b.get(s, path) // it was left alone
		}
	})
}

func TestNumbersThatNothingCountedAreNoHistory(t *testing.T) {
	for _, history := range []string{`{"forgiven":9223372036854775807}`, `{"updates":-1}`, `{"updates":9223372036854775807}`, `{"failures":9223372036854775807}`, `{"failures":-1}`, `[]`} {
		virtual(t, func(t *testing.T, b *bench) {
			q, c := b.queue(zkq.MaxDeliveries(2))
			name := b.put(q, "a")
			s := b.session(c)
			b.commit(s, coord.Create("/jobs/attempts/"+name, []byte(history)))
			b.fail(b.take(q), "no")
			h := b.take(q)
			if h.Deliveries != 2 || h.Failures != 1 {
				t.Errorf("%s: delivery %d, %d failures", history, h.Deliveries, h.Failures)
			}
			b.fail(h, "no")
			b.empty(q)
		})
	}
}

func TestAHolderIsNoPath(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		for _, holder := range []string{"../../other/entries/entry-100-0000000000", strings.Repeat("A", 32), "1"} {
			q, _ := b.queue(zkq.Holder(holder))
			_, err := q.TryTake(b.ctx)
			b.want(err, zkq.ErrInvalid)
			b.want(q.Register(b.ctx), zkq.ErrInvalid)
		}
	})
}
