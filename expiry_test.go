package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testhook"
	"github.com/zkq/zkq/internal/testqueue"
)

// left demands that nothing of the queue's is left but the nodes that stay.
func (b *bench) left(q *zkq.LockingQueue, dirs ...string) {
	b.Helper()
	c := b.client()
	for _, dir := range append(dirs, "entries", "taken", "attempts", "delayed", "unique") {
		if left := b.children(b.session(c), "/jobs/"+dir); len(left) > 0 {
			b.Errorf("left: %q", left)
		}
	}
}

func TestAnExpiredEntryIsNeverHandedOut(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		other, _ := b.queue()
		gone := b.put(q, "gone", zkq.WithTTL(10*time.Second), zkq.WithPriority(1))
		held := b.put(q, "held", zkq.WithTTL(10*time.Second))
		aside := b.put(q, "aside", zkq.WithTTL(20*time.Second))
		late := b.put(q, "late", zkq.WithTTL(time.Minute), zkq.WithDelay(time.Hour))
		stays := b.put(q, "stays", zkq.WithTTL(time.Hour), zkq.WithPriority(200))
		h := b.take(q)
		if h.Name != gone || string(h.Value) != "gone" {
			t.Fatal(h)
		}
		keeps := b.take(q)
		b.release(b.take(q), zkq.After(30*time.Second))
		b.release(h)
		time.Sleep(10 * time.Second)
		if e, err := other.Peek(b.ctx, ""); err != nil || e.Name != stays || e.Expires.IsZero() {
			t.Errorf("the next is %+v, %v", e, err)
		}
		seen := make(map[string]zkq.State)
		for _, e := range b.entries(other) {
			seen[e.Name] = e.State
		}
		if len(seen) != 4 || seen[held] != zkq.StateHeld || seen[aside] != zkq.StateDelayed || seen[late] != zkq.StateDelayed || seen[stays] != zkq.StateReady {
			t.Errorf("%v", seen)
		}
		if st, err := other.Stat(b.ctx); err != nil || st.Ready != 1 || st.Held != 1 || st.Delayed != 2 {
			t.Errorf("%+v, %v", st, err)
		}
		got := b.take(other)
		if got.Name != stays {
			t.Errorf("took %s, %q", got.Name, got.Value)
		}
		b.consume(got)
		b.consume(keeps)
		b.empty(other)
		time.Sleep(2 * time.Hour)
		b.empty(other)
		b.left(q)
	})
}

// A waiting taker is handed what does not expire, and nothing else.
func TestWaitersPassOverWhatExpires(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		other, _ := b.queue()
		h := b.take3(q, "first")
		for range 200 {
			b.put(q, "gone", zkq.WithTTL(time.Second))
		}
		time.Sleep(2 * time.Second)
		b.put(q, "last")
		b.consume(h)
		if h := b.take(other); string(h.Value) != "last" {
			t.Errorf("took %q", h.Value)
		} else {
			b.consume(h)
		}
		b.left(q)
	})
}

func TestWaitEmptyDoesNotWaitForWhatHasExpired(t *testing.T) {
	for what, opts := range map[string][]zkq.PutOption{
		"ready": {}, "delayed": {zkq.WithDelay(time.Hour)},
	} {
		t.Run(what, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, _ := b.queue()
				b.put(q, "a", append(opts, zkq.WithTTL(time.Minute))...)
				start := time.Now()
				if err := q.WaitEmpty(b.ctx); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(start); d < 59*time.Second || d > 61*time.Second {
					t.Errorf("it waited for %v", d)
				}
				if _, err := q.Peek(b.ctx, ""); !errors.Is(err, zkq.ErrEmpty) {
					t.Error(err)
				}
			})
		})
	}
}

// The dead do not expire, and one that is requeued does not either.
func TestARequeuedEntryDoesNotExpire(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		b.put(q, "a", zkq.WithTTL(time.Minute), zkq.WithUnique("k"))
		b.bury(b.take(q), "no")
		time.Sleep(time.Hour)
		e := b.dead(q)
		if string(e.Value) == "" {
			t.Fatal(e)
		}
		if _, err := q.Requeue(b.ctx, e.Name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		b.put(q, "b", zkq.WithUnique("k"))
		if h := b.take(q); string(h.Value) != "a" {
			t.Errorf("took %q", h.Value)
		} else {
			b.consume(h)
		}
		b.consume(b.take(q))
		b.left(q)
	})
}

// An answer that is lost hands out nothing that has expired, and leaves nothing.
func TestLostRepliesOfClaimsOfWhatExpiredLeaveNothing(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				b.put(q, "a", zkq.WithTTL(time.Second), zkq.WithUnique("k"))
				time.Sleep(2 * time.Second)
				lose(c)
				b.empty(q)
				time.Sleep(time.Minute)
				b.empty(q)
				b.left(q)
			})
		})
	}
}

// behindSpent are the ways to take what stands behind spent entries.
var behindSpent = map[string]func(b *bench, q *zkq.LockingQueue) (*zkq.Held, error){
	"TryTake": func(b *bench, q *zkq.LockingQueue) (*zkq.Held, error) { return q.TryTake(b.ctx) },
	"Take":    func(b *bench, q *zkq.LockingQueue) (*zkq.Held, error) { return b.take(q), nil },
	"TryTakeN": func(b *bench, q *zkq.LockingQueue) (*zkq.Held, error) {
		held, err := q.TryTakeN(b.ctx, 8)
		if err != nil {
			return nil, err
		}
		return held[0], nil
	},
	"TakeN": func(b *bench, q *zkq.LockingQueue) (*zkq.Held, error) {
		held, err := q.TakeN(b.ctx, 8)
		if err != nil {
			return nil, err
		}
		return held[0], nil
	},
	"Exchange": func(b *bench, q *zkq.LockingQueue) (*zkq.Held, error) {
		first := b.put(q, "first", zkq.WithPriority(0))
		held, err := q.Exchange(b.ctx, nil, 1)
		if err != nil || len(held) != 1 || held[0].Name != first {
			b.Fatalf("%v, %v; want %s", held, err, first)
		}
		if held, err = q.Exchange(b.ctx, held, 1); err != nil || len(held) != 1 {
			b.Fatalf("exchanged for %v, %v", held, err)
		}
		return held[0], nil
	},
	"Worker": func(b *bench, q *zkq.LockingQueue) (h *zkq.Held, err error) {
		ctx, cancel := context.WithCancel(b.ctx)
		defer cancel()
		w := &zkq.Worker{Queue: q, Handler: zkq.HandlerFunc(func(_ context.Context, got *zkq.Held) error {
			h = got
			cancel()
			return nil
		})}
		return h, w.Run(ctx)
	},
}

// However many spent entries stand at the head, a take clears them away without a pause and
// in a few commits, and hands out what stands behind them.
func TestATakeClearsAwaySpentEntriesWithoutAPause(t *testing.T) {
	const many = 1000
	spend := map[string]func(b *bench) *zkq.LockingQueue{
		"expired": func(b *bench) *zkq.LockingQueue {
			q, _ := b.queue()
			if _, err := q.PutAll(b.ctx, make([][]byte, many), zkq.WithTTL(time.Second)); err != nil {
				b.Fatal(err)
			}
			return q
		},
		"delivered too often": func(b *bench) *zkq.LockingQueue {
			q, _ := b.queue()
			if _, err := q.PutAll(b.ctx, make([][]byte, many)); err != nil {
				b.Fatal(err)
			}
			// Workers that take some and crash.
			for range many / 50 {
				crash, c := b.queue()
				for range 50 {
					if _, err := crash.TakeN(b.ctx, 1); err != nil {
						b.Fatal(err)
					}
				}
				c.Crash()
			}
			return q
		},
	}
	for what, spend := range spend {
		for how, take := range behindSpent {
			t.Run(what+"/"+how, func(t *testing.T) {
				virtual(t, func(t *testing.T, b *bench) {
					putter := spend(b)
					time.Sleep(20 * time.Second)
					b.put(putter, "living")
					c := newCounting(b.client())
					q := b.on(c, zkq.MaxDeliveries(1))
					start := time.Now()
					h, err := take(b, q)
					if err != nil {
						t.Fatal(err)
					}
					if string(h.Value) != "living" {
						t.Errorf("took %q", h.Value)
					}
					if d := time.Since(start); d > 200*time.Millisecond {
						t.Errorf("it took %v", d)
					}
					if n := c.of("commit"); n > 100 {
						t.Errorf("%d commits for %d entries", n, many)
					}
					if how != "Worker" {
						b.consume(h)
					}
					if what != "expired" {
						if st, err := q.Stat(b.ctx); err != nil || st.Dead != many {
							t.Errorf("%+v, %v", st, err)
						}
					}
					b.left(putter)
				})
			})
		}
	}
}

// A few handles clear away the same spent entries at a time, some of their answers are lost,
// and each gets one of those that live.
func TestSeveralClearAwayTheSameSpentEntries(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		putter, _ := b.queue()
		for i := range 300 {
			b.put(putter, "", zkq.WithTTL(time.Second), zkq.WithUnique(fmt.Sprint(i)))
		}
		time.Sleep(2 * time.Second)
		const takers = 8
		for i := range takers {
			b.put(putter, fmt.Sprint(i))
		}
		got := make(chan string, takers)
		for i := range takers {
			q, c := b.queue()
			go func() {
				if i%3 == 0 {
					c.DropReply()
				}
				h, err := q.TryTake(b.ctx)
				if err != nil {
					t.Errorf("taker %d: %v", i, err)
					got <- ""
					return
				}
				got <- string(h.Value)
				b.consume(h)
			}()
		}
		seen := make(map[string]bool)
		for range takers {
			seen[<-got] = true
		}
		if len(seen) != takers {
			t.Errorf("they took %v", seen)
		}
		time.Sleep(time.Minute)
		b.left(putter)
	})
}

// Behind delayed puts that expired before anybody looked stands one that is due: the first
// call returns it.
func TestDelayedPutsThatExpiredAreNotTakenForNothing(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue(testqueue.Settings(testhook.Settings{DuePage: 5}))
		for range 200 {
			b.put(q, "gone", zkq.WithDelay(time.Second), zkq.WithTTL(2*time.Second))
		}
		b.put(q, "living", zkq.WithDelay(3*time.Second))
		time.Sleep(5 * time.Second)
		start := time.Now()
		h, err := q.TryTake(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 200*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		b.consume(h)
		b.empty(q)
		b.left(q)
	})
}

// A take without waiting that makes a delayed put ready, and loses the answer to that, does
// not say that its own outcome is unknown.
func TestTheMoversLostAnswerIsNotTheTakes(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				b.put(q, "a", zkq.WithDelay(time.Second))
				time.Sleep(2 * time.Second)
				lose(c)
				h, err := q.TryTake(b.ctx)
				if err != nil {
					t.Fatal(err)
				}
				b.consume(h)
				b.empty(q)
			})
		})
	}
}

// The same, where no answer comes in time.
func TestATakeWhoseMoverHearsNothingHoldsNothing(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := b.client()
		counts := newCounting(c)
		q := b.on(counts)
		b.put(q, "a", zkq.WithDelay(time.Second))
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithTimeout(b.ctx, 2*time.Second)
		defer cancel()
		counts.hook(func(_ coord.Session, act, path string) {
			if act == "commit" {
				counts.hook(nil)
				c.HoldReplies()
			}
		})
		_, err := q.TryTake(ctx)
		if err == nil || errors.Is(err, zkq.ErrUnknown) || errors.Is(err, zkq.ErrEmpty) {
			t.Errorf("error %v", err)
		}
		c.Heal()
		b.consume(b.take(q))
	})
}

// A key that an expired entry stands for is free: a put removes that and goes on.
func TestAnExpiredEntryHoldsNoKey(t *testing.T) {
	for what, opts := range map[string][]zkq.PutOption{
		"ready": {}, "delayed": {zkq.WithDelay(time.Hour)},
	} {
		t.Run(what, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				b.put(q, "old", append(opts, zkq.WithTTL(time.Second), zkq.WithUnique("k"))...)
				_, err := q.Put(b.ctx, []byte("new"), zkq.WithUnique("k"))
				b.want(err, zkq.ErrExists)
				time.Sleep(2 * time.Second)
				c.DropReply()
				b.put(q, "new", zkq.WithUnique("k"))
				h := b.take(q)
				if string(h.Value) != "new" {
					t.Errorf("took %q", h.Value)
				}
				b.want(h.Forward(b.ctx, zkq.Target{Queue: q, Value: []byte("next"), Options: []zkq.PutOption{zkq.WithTTL(time.Second), zkq.WithUnique("other")}}), nil)
				time.Sleep(2 * time.Second)
				b.put(q, "again", zkq.WithUnique("other"))
				b.consume(b.take(q))
				b.empty(q)
				b.left(q)
			})
		})
	}
}

// One that is put aside holds its key until it expires, and one that is held as long as it is.
func TestAHeldEntryHoldsItsKeyThoughItExpired(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		b.put(q, "held", zkq.WithTTL(time.Second), zkq.WithUnique("k"))
		h := b.take(q)
		time.Sleep(2 * time.Second)
		_, err := q.Put(b.ctx, []byte("new"), zkq.WithUnique("k"))
		b.want(err, zkq.ErrExists)
		if e, err := q.Peek(b.ctx, h.Name); err != nil || e.State != zkq.StateHeld {
			t.Errorf("%+v, %v", e, err)
		}
		b.release(h, zkq.After(time.Hour))
		b.put(q, "new", zkq.WithUnique("k"))
		b.consume(b.take(q))
		b.left(q)
	})
}

// Peek knows an expired entry as little as Entries and Stat do.
func TestPeekKnowsNoExpiredEntry(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		other, _ := b.queue()
		b.want(other.WaitEmpty(b.ctx), nil) // and has read the configuration
		ready := b.put(q, "a", zkq.WithTTL(time.Second))
		late := b.put(q, "b", zkq.WithTTL(time.Second), zkq.WithDelay(time.Hour))
		for _, name := range []string{ready, late} {
			if _, err := other.Peek(b.ctx, name); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(2 * time.Second)
		for _, name := range []string{ready, late} {
			_, err := other.Peek(b.ctx, name)
			b.want(err, zkq.ErrNoEntry)
		}
		_, err := other.Peek(b.ctx, "")
		b.want(err, zkq.ErrEmpty)
		if st, err := other.Stat(b.ctx); err != nil || st.Total() != 0 {
			t.Errorf("%+v, %v", st, err)
		}
	})
}

// A put that waits for room gets it when something expires, whatever state that is in.
func TestAPutThatWaitsGetsTheRoomOfWhatExpires(t *testing.T) {
	for what, exact := range map[string]bool{"exact": true, "approximate": false} {
		t.Run(what, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				const many = 300
				q, _ := b.queue()
				b.create(q, zkq.QueueConfig{MaxEntries: many + 3, Approximate: !exact})
				held := b.put(q, "held", zkq.WithTTL(time.Second))
				h := b.take(q)
				b.put(q, "aside", zkq.WithTTL(10*time.Second))
				b.release(b.take(q), zkq.After(time.Hour))
				b.put(q, "late", zkq.WithTTL(10*time.Second), zkq.WithDelay(time.Hour))
				if _, err := q.PutAll(b.ctx, make([][]byte, many), zkq.WithTTL(10*time.Second)); err != nil {
					t.Fatal(err)
				}
				other, c := b.queue()
				_, err := other.Put(b.ctx, nil)
				b.want(err, zkq.ErrFull)
				start := time.Now()
				c.DropReply()
				b.put(other, "new", zkq.WithWait(time.Minute))
				if d := time.Since(start); d < 9*time.Second || d > 11*time.Second {
					t.Errorf("it waited for %v", d)
				}
				if n, err := q.Len(b.ctx); err != nil || n != 2 {
					t.Errorf("%d entries, %v; want %s and the new one", n, err, held)
				}
				// What expires while it is held makes room when it is given back.
				if _, err := q.PutAll(b.ctx, make([][]byte, many+1)); err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(5*time.Second, func() { b.release(h) })
				start = time.Now()
				b.put(other, "last", zkq.WithWait(time.Minute))
				if d := time.Since(start); d < 5*time.Second || d > 7*time.Second {
					t.Errorf("it waited for %v", d)
				}
			})
		})
	}
}

// WaitEmpty hears of the first time to live of a queue, set while it waits.
func TestWaitEmptyHearsOfTheFirstTimeToLive(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		other, _ := b.queue()
		b.put(q, "a")
		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- other.WaitEmpty(b.ctx) }()
		time.Sleep(time.Second)
		b.put(q, "b", zkq.WithTTL(6*time.Second))
		b.consume(b.take(q))
		b.want(<-done, nil)
		if d := time.Since(start); d < 6*time.Second || d > 9*time.Second {
			t.Errorf("it waited for %v", d)
		}
	})
}

// An entry that expired while it was held is not waited for once it is given back.
func TestWaitEmptySeesWhatExpiredWhileItWasHeld(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		other, _ := b.queue()
		b.put(q, "a", zkq.WithTTL(time.Second))
		h := b.take(q)
		start := time.Now()
		time.AfterFunc(10*time.Second, func() { b.release(h) })
		b.want(other.WaitEmpty(b.ctx), nil)
		if d := time.Since(start); d < 10*time.Second || d > 12*time.Second {
			t.Errorf("it waited for %v", d)
		}
	})
}
