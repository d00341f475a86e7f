package integration_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq"
)

// every has all bytes there are.
func every() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// values that a queue must hand on as they are: not text, empty, like an envelope and
// none, and more than a page.
var values = map[string][]byte{
	"none":              nil,
	"empty":             {},
	"every byte":        every(),
	"begins like magic": []byte("\x00zkq"),
	"large":             bytes.Repeat([]byte("0123456789abcdef"), 50_000),
}

func TestLockingQueueValuesArriveUnchangedBothWays(t *testing.T) {
	for name, value := range values {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			q, k := b.locking(), b.kazoo("LockingQueue")

			b.put(q, value)
			k.want(string(value)) // and so not None, which an empty value must not become
			k.says("consume", true)

			k.put(value, 100)
			h := b.take(q)
			if !bytes.Equal(h.Value, value) || h.Deliveries != 1 || h.Created.IsZero() {
				t.Fatalf("took %d bytes, %d deliveries, created %v; kazoo put %d", len(h.Value), h.Deliveries, h.Created, len(value))
			}
			b.consume(h)
			b.lens(q, k, 0)
		})
	}
}

func TestSimpleQueueValuesArriveUnchangedBothWays(t *testing.T) {
	for name, value := range values {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			q, k := b.simple(), b.kazoo("Queue")

			b.put(q, value)
			k.want(string(value))
			k.nothing()

			k.put(value, 100)
			if got := b.get(q); !bytes.Equal(got, value) {
				t.Fatalf("got %d bytes, kazoo put %d", len(got), len(value))
			}
			b.lens(q, k, 0)
		})
	}
}

// TestEnvelopeIsSeenByKazooOnlyWhereBytesBeginWithTheMagic: kazoo gets the bytes of the
// node, and zkq what was put.
func TestEnvelopeIsSeenByKazooOnlyWhereBytesBeginWithTheMagic(t *testing.T) {
	const magic = "\x00zkq\x01"
	b := newBench(t)
	q, k := b.locking(), b.kazoo("LockingQueue")

	b.put(q, []byte(magic+"body"))
	k.want(magic + "\x02{}" + magic + "body")
	k.says("release", true)
	h := b.take(q)
	if string(h.Value) != magic+"body" {
		t.Fatalf("took %q", h.Value)
	}
	b.consume(h)

	// What begins like an envelope and is none to the last detail is plain: from kazoo too.
	for _, plain := range []string{magic, magic + "\x05{}", magic + "\x02[]"} {
		k.put([]byte(plain), 100)
		h := b.take(q)
		if string(h.Value) != plain {
			t.Fatalf("kazoo put %q, zkq took %q", plain, h.Value)
		}
		b.consume(h)
	}
}

// TestEntryOfKazooTooLargeToBeSentAgainIsTakenAndFinished: a claim on ZooKeeper sends the
// value again, and kazoo puts values that do not fit beside the lock.
func TestEntryOfKazooTooLargeToBeSentAgainIsTakenAndFinished(t *testing.T) {
	b := newBench(t)
	q, k := b.locking(), b.kazoo("LockingQueue")
	value := bytes.Repeat([]byte{'x'}, 1<<20-300)
	k.put(value, 100)
	h := b.take(q)
	if !bytes.Equal(h.Value, value) {
		t.Fatalf("took %d bytes", len(h.Value))
	}
	k.nothing()
	b.release(h)
	k.want(string(value))
	k.says("release", true)
	b.consume(b.take(q))
	b.lens(q, k, 0)
}

func TestLockTakenByEitherHidesTheEntryFromTheOther(t *testing.T) {
	b := newBench(t)
	q, k := b.locking(), b.kazoo("LockingQueue")
	b.put(q, []byte("first"))
	k.putAll([][]byte{[]byte("second"), []byte("third")}, 100)

	h := b.take(q)
	k.want("second")
	k.says("holds_lock", true)
	third := b.take(q)
	if string(h.Value) != "first" || string(third.Value) != "third" {
		t.Fatalf("zkq holds %q and %q", h.Value, third.Value)
	}
	b.empty(q)
	b.kazoo("LockingQueue").nothing()
	b.lens(q, k, 3) // held ones count
	st, err := q.Stat(b.ctx)
	if err != nil || st.Ready != 0 || st.Held != 3 {
		t.Fatalf("Stat = %+v, %v", st, err)
	}
	for e, err := range q.Entries(b.ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if kazoos := e.Holder == string(k.call(command{Act: "holder"}).Bytes); e.State != zkq.StateHeld || kazoos != (e.Name == "entry-100-0000000001") {
			t.Errorf("%s is %s, held by %s", e.Name, e.State, e.Holder)
		}
	}

	// What is given back stands in its old place, for the other too.
	b.release(h)
	k.says("consume", true)
	k.want("first")
	k.says("release", true)
	if h = b.take(q); string(h.Value) != "first" || h.Deliveries != 2 {
		t.Fatalf("took %q, delivery %d", h.Value, h.Deliveries)
	}
	b.consume(h)
	b.consume(third)
	b.lens(q, k, 0)
	if left := b.zookeeper().children("/jobs/taken"); len(left) != 0 {
		t.Errorf("locks left: %q", left)
	}
}

func TestWaitingWorkerOfEitherWakesForTheOthersPutAndRelease(t *testing.T) {
	b := newBench(t)
	q, k := b.locking(), b.kazoo("LockingQueue")
	other := b.locking()
	got := make(chan *zkq.Held)
	take := func() {
		go func() {
			h, err := q.Take(b.ctx)
			if err != nil {
				t.Errorf("Take: %v", err)
			}
			got <- h
		}()
	}
	wakes := func() *zkq.Held {
		t.Helper()
		select {
		case h := <-got:
			return h
		case <-time.After(2 * time.Minute):
			t.Fatal("zkq's Take did not wake")
			return nil
		}
	}

	b.lens(q, k, 0) // makes kazoo's directories
	k.wait()
	b.put(other, []byte("put"))
	if a := k.answer(); string(a.Bytes) != "put" {
		t.Fatalf("kazoo woke with %+v", a)
	}
	take()
	k.says("release", true)
	h := wakes()
	k.wait()
	b.release(h)
	if a := k.answer(); string(a.Bytes) != "put" {
		t.Fatalf("kazoo woke with %+v", a)
	}
	k.says("consume", true)
	take()
	b.kazoo("LockingQueue").put([]byte("theirs"), 5)
	h = wakes()
	if string(h.Value) != "theirs" || h.Priority != 5 {
		t.Fatalf("woke with %q at %d", h.Value, h.Priority)
	}
	b.consume(h)
}

// mixed puts from both sides in turns with random priorities, and returns the values in
// the order in which they must come out.
func (b *bench) mixed(q putter, k *kazoo, n int) []string {
	b.Helper()
	type entry struct {
		priority int
		value    string
	}
	var put []entry
	random := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range n {
		e := entry{[]int{0, 5, 100, 999}[random.IntN(4)], fmt.Sprint(i)}
		if random.IntN(2) == 0 {
			b.put(q, []byte(e.value), zkq.WithPriority(e.priority))
		} else {
			k.put([]byte(e.value), e.priority)
		}
		put = append(put, e)
	}
	slices.SortStableFunc(put, func(a, b entry) int { return a.priority - b.priority })
	want := make([]string, n)
	for i, e := range put {
		want[i] = e.value
	}
	return want
}

func TestOrderHoldsOverMixedProducersWhoeverTakes(t *testing.T) {
	const n = 60
	for _, takers := range []string{"zkq", "kazoo", "both in turns"} {
		ours := func(i int) bool { return takers == "zkq" || takers == "both in turns" && i%2 == 0 }
		t.Run("locking queue, "+takers, func(t *testing.T) {
			b := newBench(t)
			q, k := b.locking(), b.kazoo("LockingQueue")
			want := b.mixed(q, k, n)
			b.lens(q, k, n)
			for i, value := range want {
				if ours(i) {
					h := b.take(q)
					if string(h.Value) != value {
						t.Fatalf("%d: zkq took %q, want %q", i, h.Value, value)
					}
					b.consume(h)
				} else {
					k.want(value)
					k.says("consume", true)
				}
			}
			b.lens(q, k, 0)
		})
		t.Run("simple queue, "+takers, func(t *testing.T) {
			b := newBench(t)
			q, k := b.simple(), b.kazoo("Queue")
			want := b.mixed(q, k, n)
			b.lens(q, k, n)
			for i, value := range want {
				if ours(i) {
					if got := b.get(q); string(got) != value {
						t.Fatalf("%d: zkq got %q, want %q", i, got, value)
					}
				} else {
					k.want(value)
				}
			}
			k.nothing()
			b.lens(q, k, 0)
		})
	}
}

// TestMixedFleetFinishesEachEntryOnce: two workers of each kind, at the same time, on what
// both kinds put.
func TestMixedFleetFinishesEachEntryOnce(t *testing.T) {
	b := newBench(t)
	const n = 120
	producer := b.locking()
	b.mixed(producer, b.kazoo("LockingQueue"), n)
	var mu sync.Mutex
	finished := make(map[string]int)
	by := make(map[string]int)
	finish := func(who string, value []byte) {
		mu.Lock()
		defer mu.Unlock()
		finished[string(value)]++
		by[who]++
	}
	var wg sync.WaitGroup
	for range 2 {
		k, q := b.kazoo("LockingQueue"), b.locking()
		wg.Go(func() {
			for {
				k.send(command{Act: "get", Timeout: 1})
				got, ok := <-k.answers
				if !ok || got.Error != "" || got.Bytes == nil {
					if got.Error != "" {
						t.Errorf("kazoo: get raised %s", got.Error)
					}
					return
				}
				k.send(command{Act: "consume"})
				if a := <-k.answers; !a.Bool {
					t.Errorf("kazoo's consume: %+v", a)
					return
				}
				finish("kazoo", got.Bytes)
			}
		})
		wg.Go(func() {
			for {
				held, err := q.TryTakeN(b.ctx, 1)
				if err != nil {
					return // ErrEmpty; whatever else leaves entries, which is seen below
				}
				if err := held[0].Consume(b.ctx); err != nil {
					t.Errorf("Consume: %v", err)
					return
				}
				finish("zkq", held[0].Value)
			}
		})
	}
	wg.Wait()
	for value, times := range finished {
		if times != 1 {
			t.Errorf("%s was finished %d times", value, times)
		}
	}
	// A worker of kazoo that lost all its races may have gone with nothing: what it left is
	// still there.
	left, err := producer.Len(b.ctx)
	if err != nil || len(finished)+left != n {
		t.Errorf("%d finished and %d left of %d: %v", len(finished), left, n, err)
	}
	if locks := b.zookeeper().children("/jobs/taken"); len(locks) != 0 {
		t.Errorf("locks left: %q", locks)
	}
	if by["kazoo"] == 0 || by["zkq"] == 0 {
		t.Errorf("finished by %v: both should have had some", by)
	}
}

func TestEntryOfADeadWorkerComesBackToTheOther(t *testing.T) {
	t.Run("kazoo dies", func(t *testing.T) {
		b := newBench(t)
		q, k := b.locking(), b.kazoo("LockingQueue")
		b.put(q, []byte("job"))
		b.put(q, []byte("later"))
		k.want("job")
		later := b.take(q)
		died := time.Now()
		k.kill()
		h := b.take(q)
		if took := time.Since(died); string(h.Value) != "job" || took > kazooSession+time.Minute {
			t.Fatalf("took %q %v after kazoo died", h.Value, took)
		}
		b.consume(h)
		b.consume(later)
	})
	t.Run("zkq dies", func(t *testing.T) {
		b := newBench(t)
		k := b.kazoo("LockingQueue")
		k.put([]byte("job"), 100)
		k.put([]byte("later"), 100)
		worker := b.holder()
		k.want("later")
		k.says("consume", true)
		k.nothing()
		worker.kill()
		died := time.Now()
		k.want("job")
		if took := time.Since(died); took > time.Minute {
			t.Errorf("kazoo got it %v after the worker died", took)
		}
		k.says("consume", true)
		b.lens(b.locking(), k, 0)
	})
}

// TestRestingEntryIsSkippedByBoth: its lock is persistent, and belongs to no worker.
func TestRestingEntryIsSkippedByBoth(t *testing.T) {
	b := newBench(t)
	q, k, z := b.locking(), b.kazoo("LockingQueue"), b.zookeeper()
	aside := b.put(q, []byte("aside"))
	b.put(q, []byte("next"))
	b.release(b.take(q)) // makes the directory of locks
	due := time.Now().Add(time.Hour).UnixMilli()
	z.create("/jobs/taken/"+aside, fmt.Sprintf(`{"zkq":1,"due_ms":%d}`, due))

	k.want("next")
	k.says("release", true)
	h := b.take(q)
	if string(h.Value) != "next" {
		t.Fatalf("took %q", h.Value)
	}
	b.empty(q)
	k.nothing()
	st, err := q.Stat(b.ctx)
	if err != nil || st.Delayed != 1 || st.Held != 1 || st.Ready != 0 {
		t.Errorf("Stat = %+v, %v", st, err)
	}
	b.consume(h)
	b.lens(q, k, 1)
	z.remove("/jobs/taken/" + aside)
	k.want("aside")
	k.says("consume", true)
}
