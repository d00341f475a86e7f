package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// stage is a handle to another queue of a client's.
func (b *bench) stage(c coord.Coordinator, name string) *zkq.LockingQueue {
	q := zkq.NewLockingQueue(c, name)
	b.Cleanup(func() { q.Close() })
	return q
}

func TestForwardMovesTheWorkOnInOneCommit(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		next, other := b.stage(c, "next"), b.stage(c, "other")
		b.put(q, "a", zkq.WithUnique("k"))
		b.fail(b.take(q), "no")
		h := b.take(q)
		commits := 0
		b.store.Observe(func(a coordtest.Applied) {
			if len(a.Ops) > 0 {
				commits++
			}
		})
		err := h.Forward(b.ctx,
			zkq.Target{Queue: next, Value: []byte("b"), Options: []zkq.PutOption{zkq.WithPriority(3), zkq.WithUnique("k")}},
			zkq.Target{Queue: other, Value: []byte("c"), Options: []zkq.PutOption{zkq.WithDelay(time.Minute)}},
			zkq.Target{Queue: q, Value: []byte("d")})
		if err != nil || commits != 1 {
			t.Fatalf("%v, %d commits", err, commits)
		}
		b.want(h.Consume(b.ctx), zkq.ErrAlreadyDone)
		for want, from := range map[string]*zkq.LockingQueue{"b": next, "d": q} {
			h := b.take(from)
			if string(h.Value) != want || h.Deliveries != 1 {
				t.Errorf("took %q, delivery %d", h.Value, h.Deliveries)
			}
			b.consume(h)
		}
		if h := b.take2(other, 2*time.Minute); string(h.Value) != "c" {
			t.Errorf("took %q", h.Value)
		}
		b.left(q)
	})
}

func TestAForwardThatIsRefusedLeavesTheEntryHeld(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		full, next := b.stage(c, "full"), b.stage(c, "next")
		far := b.stage(b.client(), "far")
		b.create(full, zkq.QueueConfig{MaxEntries: 3})
		b.put(full, "1")
		b.put(full, "2")
		standing := b.put(next, "3", zkq.WithUnique("k"))
		b.put(q, "a")
		h := b.take(q)
		var exists *zkq.ExistsError
		for want, targets := range map[error][]zkq.Target{
			zkq.ErrFull:     {{Queue: next}, {Queue: full}, {Queue: full}},
			zkq.ErrExists:   {{Queue: full}, {Queue: next, Options: []zkq.PutOption{zkq.WithUnique("k")}}},
			zkq.ErrInvalid:  {{Queue: next}, {Queue: far}},
			zkq.ErrTooLarge: {{Queue: next}, {Queue: full, Value: make([]byte, zkq.MaxValue+1)}},
			coord.ErrInvalid: {
				{Queue: next, Options: []zkq.PutOption{zkq.WithUnique("x")}},
				{Queue: next, Options: []zkq.PutOption{zkq.WithUnique("x")}},
			},
			zkq.ErrInvalidPriority: {{Queue: next, Options: []zkq.PutOption{zkq.WithPriority(1000)}}},
		} {
			err := h.Forward(b.ctx, targets...)
			if b.want(err, want); errors.Is(want, zkq.ErrExists) && (!errors.As(err, &exists) || exists.Name != standing) {
				t.Error(err)
			}
			if _, err := zkq.PutTo(b.ctx, targets...); !errors.Is(err, want) {
				t.Errorf("put: %v, want %v", err, want)
			}
			if holds, err := h.HoldsLock(b.ctx); err != nil || !holds {
				t.Fatal(holds, err)
			}
		}
		for _, target := range []zkq.Target{{}, {Queue: next, Options: []zkq.PutOption{zkq.WithWait(time.Hour)}}, {Queue: next, Options: []zkq.PutOption{zkq.WithNote([]byte("n"))}}} {
			b.want(h.Forward(b.ctx, target), zkq.ErrInvalid)
		}
		for q, want := range map[*zkq.LockingQueue]int{next: 1, full: 2} {
			if st, err := q.Stat(b.ctx); err != nil || st.Total() != want {
				t.Errorf("%+v, %v", st, err)
			}
		}
		b.want(h.Forward(b.ctx, zkq.Target{Queue: full}), nil)
		b.want((&zkq.Held{}).Forward(b.ctx), zkq.ErrNotHeld)
	})
}

// An entry that is forwarded to its own queue, which is full with it, is no more than that.
func TestAFullQueueForwardsToItself(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		b.create(q, zkq.QueueConfig{MaxEntries: 1})
		b.put(q, "a")
		b.want(b.take(q).Forward(b.ctx, zkq.Target{Queue: q, Value: []byte("b")}), nil)
		h := b.take(q)
		b.want(h.Forward(b.ctx, zkq.Target{Queue: q}, zkq.Target{Queue: q}), zkq.ErrTooLarge)
		b.consume(h)
	})
}

func TestLostRepliesOfForwardsPutOnce(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				next := b.stage(c, "next")
				b.create(next, zkq.QueueConfig{MaxEntries: 1})
				for range 3 {
					b.put(q, "a", zkq.WithUnique("k"))
					h := b.take(q)
					lose(c)
					if err := h.Forward(b.ctx, zkq.Target{Queue: next, Value: []byte("b"), Options: []zkq.PutOption{zkq.WithUnique("k")}}); err != nil {
						t.Fatal(err)
					}
					b.left(q)
					b.consume(b.take(next))
					b.empty(next)
				}
			})
		})
	}
}

// A worker that lost its lock forwards nothing.
func TestAForwardIsFenced(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		other, _ := b.queue()
		next := b.stage(c, "next")
		b.put(q, "a")
		h := b.take(q)
		if err := other.BreakLock(b.ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		now := b.take(other)
		b.want(h.Forward(b.ctx, zkq.Target{Queue: next}), zkq.ErrLockLost)
		b.empty(next)
		b.consume(now)
	})
}

// Three stages, whose workers die in the middle of everything: each input is one output.
func TestAPipelineWhoseWorkersDieLosesAndDoublesNothing(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		const n = 60
		names := []string{"one", "two", "three", "out"}
		putter := b.stage(b.client(), names[0])
		for i := range n {
			b.put(putter, fmt.Sprint(i))
		}
		ctx, cancel := context.WithCancel(b.ctx)
		var wg sync.WaitGroup
		for stage := range 3 {
			for w := range 2 {
				wg.Go(func() {
					for life := 0; ctx.Err() == nil; life++ {
						c := b.client()
						from, to := zkq.NewLockingQueue(c, names[stage]), zkq.NewLockingQueue(c, names[stage+1])
						lived, die := context.WithTimeout(ctx, time.Duration(3+2*stage+w)*time.Second)
						for lived.Err() == nil {
							h, err := from.Take(lived)
							if err != nil {
								continue
							}
							time.Sleep(time.Duration(100+70*w) * time.Millisecond)
							if life%3 == 0 {
								c.DropReply()
							}
							h.Forward(lived, zkq.Target{Queue: to, Value: append(h.Value, fmt.Sprint(">", stage)...)})
						}
						die()
						c.Crash()
						from.Close()
						to.Close()
					}
				})
			}
		}
		out := b.stage(b.client(), names[3])
		var got []string
		for len(got) < n {
			h := b.take2(out, 10*time.Minute)
			got = append(got, string(h.Value))
			b.consume(h)
		}
		cancel()
		wg.Wait()
		b.empty(out)
		slices.Sort(got)
		if got = slices.Compact(got); len(got) != n || !strings.HasSuffix(got[0], ">0>1>2") {
			t.Errorf("%d outputs of %d: %q", len(got), n, got)
		}
	})
}

func TestPutToIsAllOrNone(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				two, three := b.stage(c, "two"), b.stage(c, "three")
				b.put(q, "a lane")
				lose(c)
				names, err := zkq.PutTo(b.ctx,
					zkq.Target{Queue: two, Value: []byte("x")},
					zkq.Target{Queue: three, Value: []byte("y"), Options: []zkq.PutOption{zkq.WithDelay(time.Hour)}},
					zkq.Target{Queue: two, Value: []byte("z"), Options: []zkq.PutOption{zkq.WithPriority(1)}})
				if err != nil || len(names) != 3 {
					t.Fatal(names, err)
				}
				for i, q := range []*zkq.LockingQueue{two, three, two} {
					if e, err := q.Peek(b.ctx, names[i]); err != nil || string(e.Value) != []string{"x", "y", "z"}[i] {
						t.Errorf("%s: %+v, %v", names[i], e, err)
					}
				}
			})
		})
	}
}

func TestAForwardAfterALostSessionDoesNotWait(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		next := b.stage(c, "next")
		b.put(q, "a")
		h := b.take(q)
		work, stop := h.Context(b.ctx)
		defer stop()
		c.Cut()
		<-work.Done()
		ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
		defer cancel()
		start := time.Now()
		b.want(h.Forward(ctx, zkq.Target{Queue: next, Value: []byte("b")}), zkq.ErrLockLost)
		if d := time.Since(start); d > 100*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		c.Heal()
		b.empty(next)
	})
}

// A job that recurs: its key stands all the time, and only the standing entry has it.
func TestAForwardHandsItsUniqueKeyOn(t *testing.T) {
	for what, opts := range map[string][]zkq.PutOption{"ready": {zkq.WithUnique("k")}, "delayed": {zkq.WithUnique("k"), zkq.WithDelay(time.Minute)}} {
		for _, lost := range []string{"", "request", "reply"} {
			t.Run(what+" "+lost, func(t *testing.T) {
				virtual(t, func(t *testing.T, b *bench) {
					q, c := b.queue()
					other, _ := b.queue()
					b.put(q, "0", opts...)
					for i := range 5 {
						h := b.take2(q, 2*time.Minute)
						if string(h.Value) != fmt.Sprint(i) {
							t.Fatalf("took %q", h.Value)
						}
						b.refusedBy(other, "k", h.Name)
						switch lost {
						case "request":
							c.DropRequest()
						case "reply":
							c.DropReply()
						}
						b.want(h.Forward(b.ctx, zkq.Target{Queue: q, Value: []byte(fmt.Sprint(i + 1)), Options: opts}), nil)
						if es := b.entries(q); len(es) != 1 {
							t.Fatalf("%d entries stand", len(es))
						} else {
							b.refusedBy(other, "k", es[0].Name)
						}
					}
					b.consume(b.take2(q, 2*time.Minute))
					b.put(other, "anew", zkq.WithUnique("k"))
					b.consume(b.take(other))
					b.left(q)
				})
			})
		}
	}
}
