package integration_test

import (
	"errors"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/internal/testzk"
)

// What a mixed fleet keeps, and what it loses because kazoo finishes without a condition.
// docs/guarantees.md says the same in words.

// TestFinishOfZkqNeverRemovesALockOfKazoo: kazoo does not move the entry's version when it
// takes it, so only the version of the lock tells the two apart.
func TestFinishOfZkqNeverRemovesALockOfKazoo(t *testing.T) {
	for act, finish := range map[string]func(*bench, *zkq.Held) error{
		"consume": func(b *bench, h *zkq.Held) error { return h.Consume(b.ctx) },
		"release": func(b *bench, h *zkq.Held) error { return h.Release(b.ctx) },
	} {
		t.Run(act, func(t *testing.T) {
			b := newBench(t)
			q, admin, k, z := b.locking(), b.locking(), b.kazoo("LockingQueue"), b.zookeeper()
			name := b.put(q, []byte("job"))
			h := b.take(q)
			if _, version := z.lockOf(name); version != 1 {
				t.Errorf("zkq's lock stands at version %d", version)
			}
			if err := admin.BreakLock(b.ctx, name); err != nil {
				t.Fatal(err)
			}
			k.want("job")
			holder, version := z.lockOf(name)
			if version != 0 || holder != string(k.call(command{Act: "holder"}).Bytes) {
				t.Fatalf("the lock of kazoo is %s at version %d", holder, version)
			}
			_, claimed, _ := z.read("/jobs/entries/" + name)
			b.lost(finish(b, h))
			if again, _ := z.lockOf(name); again != holder {
				t.Fatalf("the lock was of %s, and is of %s", holder, again)
			}
			if _, now, there := z.read("/jobs/entries/" + name); !there || now.Version != claimed.Version {
				t.Fatalf("the entry that kazoo holds: there %v, at version %d, was %d", there, now.Version, claimed.Version)
			}
			k.says("consume", true)
			b.lens(q, k, 0)
		})
	}
}

// TestFinishOfZkqInASessionThatEndedRemovesNothingOfKazoo: the other fence, whose proof with
// the first out of play is zkqueue's.
func TestFinishOfZkqInASessionThatEndedRemovesNothingOfKazoo(t *testing.T) {
	b := newBench(t)
	link := testzk.NewLink(t, b.servers...)
	q := zkq.NewLockingQueue(b.clientBy(link.Addresses()), queueName)
	t.Cleanup(func() { q.Close() })
	k := b.kazoo("LockingQueue")
	k.put([]byte("job"), 100)
	h := b.take(q)
	if there, err := link.Expire(); !there || err != nil {
		t.Fatalf("Expire = %v, %v", there, err)
	}
	k.want("job")
	b.lost(h.Consume(b.ctx))
	k.says("holds_lock", true)
	k.says("consume", true)
	b.lens(q, k, 0)
}

// TestFinishOfZkqAfterKazooGaveTheEntryBackIsRefused: then there is no lock at all.
func TestFinishOfZkqAfterKazooGaveTheEntryBackIsRefused(t *testing.T) {
	b := newBench(t)
	q, admin, k := b.locking(), b.locking(), b.kazoo("LockingQueue")
	name := b.put(q, []byte("job"))
	h := b.take(q)
	if err := admin.BreakLock(b.ctx, name); err != nil {
		t.Fatal(err)
	}
	k.want("job")
	k.says("release", true)
	b.lost(h.Consume(b.ctx))
	b.lens(q, k, 1)
	b.consume(b.take(q))
}

// TestBrokenLockOfKazooIsSeenByItsNextFinish: kazoo looks before it finishes, and answers
// False when the lock is another's. When there is none, it raises.
func TestBrokenLockOfKazooIsSeenByItsNextFinish(t *testing.T) {
	for _, act := range []string{"consume", "release"} {
		t.Run(act, func(t *testing.T) {
			b := newBench(t)
			q, k, z := b.locking(), b.kazoo("LockingQueue"), b.zookeeper()
			name := b.put(q, []byte("job"))
			k.want("job")
			if err := q.BreakLock(b.ctx, name); err != nil {
				t.Fatal(err)
			}
			k.send(command{Act: act})
			if a := k.answer(); a.Error[:min(len(a.Error), 11)] != "NoNodeError" {
				t.Fatalf("with its lock gone kazoo's %s is %+v", act, a)
			}
			h := b.take(q)
			k.says("holds_lock", false)
			k.says(act, false)
			if _, version := z.lockOf(name); version != 1 {
				t.Fatalf("the lock stands at version %d", version)
			}
			b.consume(h)
			b.lens(q, k, 0)
		})
	}
}

// late is a worker of kazoo that stands between its look at the lock and its transaction,
// and a worker of zkq that has its entry meanwhile.
type late struct {
	*bench
	z    *zookeeper
	name string    // of the entry, "job"; there is a second, "next"
	held *zkq.Held // by the worker of zkq
	q    *zkq.LockingQueue
	k    *kazoo
	goOn func() bool // lets kazoo finish, and is its answer
}

// eachLate runs f for both ways in which kazoo can lose its lock just then.
func eachLate(t *testing.T, finish string, f func(late)) {
	for _, how := range []string{"lock broken", "session ended"} {
		t.Run(how, func(t *testing.T) {
			b := newBench(t)
			link := testzk.NewLink(t, b.servers...)
			l := late{bench: b, z: b.zookeeper(), q: b.locking(), k: b.kazooBy("LockingQueue", link.Addresses())}
			l.name = b.put(l.q, []byte("job"))
			b.put(l.q, []byte("next"))
			l.k.want("job")
			l.goOn = l.k.slow(finish)
			if how == "lock broken" {
				if err := l.q.BreakLock(b.ctx, l.name); err != nil {
					t.Fatal(err)
				}
			} else {
				dials := link.Dials()
				if there, err := link.Expire(); !there || err != nil {
					t.Fatalf("Expire = %v, %v", there, err)
				}
				for end := time.Now().Add(2 * time.Minute); link.Dials() == dials; time.Sleep(5 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatal("kazoo did not connect again")
					}
				}
			}
			if l.held = b.take(l.q); l.held.Name != l.name {
				t.Fatalf("took %s, want %s", l.held.Name, l.name)
			}
			f(l)
		})
	}
}

// gotBetter is what kazoo says when it looks at what it does.
const gotBetter = "kazoo got better, and docs/guarantees.md should say so"

// TestLostInMixedFleetStaleConsumeOfKazooRemovesWhatAZkqWorkerHolds is the price: kazoo's
// transaction has no condition. The zkq worker is told.
func TestLostInMixedFleetStaleConsumeOfKazooRemovesWhatAZkqWorkerHolds(t *testing.T) {
	eachLate(t, "consume", func(l late) {
		if !l.goOn() {
			l.Fatal("kazoo's consume is False: " + gotBetter)
		}
		if _, _, there := l.z.read("/jobs/entries/" + l.name); there {
			l.Error("the entry is there: " + gotBetter)
		}
		l.lost(l.held.Consume(l.ctx)) // one finish was acknowledged: kazoo's
		l.lost(l.held.Consume(l.ctx))
		if holds, err := l.held.HoldsLock(l.ctx); holds || err != nil {
			l.Errorf("HoldsLock = %v, %v", holds, err)
		}
		if locks := l.z.children("/jobs/taken"); len(locks) != 0 {
			l.Errorf("locks left: %q", locks)
		}
		l.lens(l.q, l.k, 1)
	})
}

// TestLostInMixedFleetConsumeOfKazooSaysTrueForWhatZkqFinished: kazoo does not look at
// what became of its transaction.
func TestLostInMixedFleetConsumeOfKazooSaysTrueForWhatZkqFinished(t *testing.T) {
	eachLate(t, "consume", func(l late) {
		l.consume(l.held)
		if !l.goOn() {
			l.Error("kazoo's consume is False: " + gotBetter)
		}
		l.lens(l.q, l.k, 1)
		if next := l.take(l.q); string(next.Value) != "next" {
			l.Errorf("left is %q", next.Value)
		}
	})
}

// TestStaleReleaseOfKazooLeavesTheEntryOfAZkqWorker: it can take the lock away, and no more.
// The worker cannot finish then, whether or not another has the entry.
func TestStaleReleaseOfKazooLeavesTheEntryOfAZkqWorker(t *testing.T) {
	for _, taken := range []bool{false, true} {
		eachLate(t, "release", func(l late) {
			if !l.goOn() {
				l.Error("kazoo's release is False: " + gotBetter)
			}
			if value, _, there := l.z.read("/jobs/entries/" + l.name); !there || value != "job" {
				l.Fatalf("the entry: there %v, %q", there, value)
			}
			if locks := l.z.children("/jobs/taken"); len(locks) != 0 {
				l.Errorf("locks left: %q", locks)
			}
			other := l.locking()
			if !taken {
				l.lost(l.held.Consume(l.ctx))
			}
			second := l.take(other)
			if taken {
				l.lost(l.held.Consume(l.ctx))
			}
			if second.Name != l.name || second.Token <= l.held.Token {
				l.Errorf("second holder has %s, token %d after %d", second.Name, second.Token, l.held.Token)
			}
			l.consume(second)
			l.lens(l.q, l.k, 1)
		})
	}
}

// TestRemoveSparesWhatKazooHolds unless it is forced, and then kazoo's lock goes with the
// entry.
func TestRemoveSparesWhatKazooHolds(t *testing.T) {
	b := newBench(t)
	q, k := b.locking(), b.kazoo("LockingQueue")
	name := b.put(q, []byte("job"))
	k.want("job")
	if err := q.Remove(b.ctx, name, false); !errors.Is(err, zkq.ErrHeld) {
		t.Fatalf("Remove = %v, want ErrHeld", err)
	}
	if n, err := q.Purge(b.ctx, zkq.StateReady); n != 0 || err != nil {
		t.Fatalf("Purge = %d, %v", n, err)
	}
	k.says("holds_lock", true)
	if err := q.Remove(b.ctx, name, true); err != nil {
		t.Fatal(err)
	}
	b.lens(q, k, 0)
	if locks := b.zookeeper().children("/jobs/taken"); len(locks) != 0 {
		t.Errorf("locks left: %q", locks)
	}
}
