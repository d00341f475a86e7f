package zkq_test

// Outcomes that nobody can know, and what must not be said of them.

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// inDoubt makes an attempt at a finish that has no answer; what the service does
// with it is up to lose.
func (b *bench) inDoubt(lose func(), act func(context.Context) error) {
	b.Helper()
	lose()
	ctx, cancel := context.WithTimeout(b.ctx, time.Millisecond)
	defer cancel()
	b.want(act(ctx), zkq.ErrUnknown)
}

// acts are the ways to finish.
var acts = map[string]func(context.Context, *zkq.Held) error{
	"consume": func(ctx context.Context, h *zkq.Held) error { return h.Consume(ctx) },
	"release": func(ctx context.Context, h *zkq.Held) error { return h.Release(ctx) },
	"fail":    func(ctx context.Context, h *zkq.Held) error { return h.Fail(ctx, "no") },
	"bury":    func(ctx context.Context, h *zkq.Held) error { return h.Bury(ctx, "no") },
}

// Two finishes of one handle are in doubt, and the first was applied: the second
// must not be said to be.
func TestAFinishIsNotTakenForAnotherOfItsHandle(t *testing.T) {
	for first, doFirst := range acts {
		for second, doSecond := range acts {
			if first == second {
				continue
			}
			t.Run(first+" and "+second, func(t *testing.T) {
				virtual(t, func(t *testing.T, b *bench) {
					q, c := b.queue()
					b.put(q, "a")
					h := b.take(q)
					b.inDoubt(func() { c.DropReply() }, func(ctx context.Context) error { return doFirst(ctx, h) })
					c.DropRequest()
					if err := doSecond(b.ctx, h); err == nil {
						t.Errorf("%s was said to be applied", second)
					}
					if err := doSecond(b.ctx, h); err == nil {
						t.Errorf("%s was said to be applied when asked again", second)
					}
				})
			})
		}
	}
}

// A consume in doubt was not applied if the entry stands there without a lock.
func TestAFinishInDoubtIsNotAlreadyDoneWhenTheLockWasBroken(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		name := b.put(q, "a")
		for first, second := range map[string]string{"consume": "release", "bury": "consume"} {
			h := b.take(q)
			b.inDoubt(func() { c.DropRequest() }, func(ctx context.Context) error { return acts[first](ctx, h) })
			if err := q.BreakLock(b.ctx, name); err != nil {
				t.Fatal(err)
			}
			if err := acts[second](b.ctx, h); errors.Is(err, zkq.ErrAlreadyDone) || err == nil {
				t.Errorf("%s after %s: %v", second, first, err)
			}
		}
	})
}

// takings are the ways in which an operator takes an entry from its holder.
var takings = map[string]func(b *bench, q *zkq.LockingQueue, name string){
	"release --force": func(b *bench, q *zkq.LockingQueue, name string) { b.want(q.BreakLock(b.ctx, name), nil) },
	"rm --force":      func(b *bench, q *zkq.LockingQueue, name string) { b.want(q.Remove(b.ctx, name, true), nil) },
	"purge": func(b *bench, q *zkq.LockingQueue, _ string) {
		if n, err := q.Purge(b.ctx, zkq.StateHeld); n != 1 || err != nil {
			b.Fatal(n, err)
		}
	},
}

// No finish says that it was applied, or another of its handle, if an operator took the
// entry while its answer was missing. Asked again it says that the entry is not held.
func TestNoFinishInDoubtIsSaidToBeAppliedWhenAnOperatorTookTheEntry(t *testing.T) {
	for taking, takeAway := range takings {
		for first, doFirst := range acts {
			for second, doSecond := range acts {
				t.Run(taking+", "+first+", "+second, func(t *testing.T) {
					virtual(t, func(t *testing.T, b *bench) {
						q, c := b.queue()
						other, _ := b.queue()
						b.put(q, "a")
						h := b.take(q)
						b.inDoubt(func() { c.DropRequest() }, func(ctx context.Context) error { return doFirst(ctx, h) })
						takeAway(b, other, h.Name)
						err := doSecond(b.ctx, h)
						if !errors.Is(err, zkq.ErrUnknown) && !errors.Is(err, zkq.ErrLockLost) {
							t.Errorf("%s: %v", second, err)
						}
						b.want(doSecond(b.ctx, h), zkq.ErrLockLost)
						if taking == "release --force" {
							b.consume(b.take(q))
						}
						b.empty(q)
					})
				})
			}
		}
	}
}

// A trace of an earlier hold says nothing of this one.
func TestALockThatWasBrokenBeforeIsNotThisOnes(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		name := b.put(q, "a")
		for _, act := range []string{"fail", "consume"} {
			b.take(q)
			if err := q.BreakLock(b.ctx, name); err != nil {
				t.Fatal(err)
			}
			h := b.take(q)
			c.DropReply()
			if err := acts[act](b.ctx, h); err != nil {
				t.Errorf("%s: %v", act, err)
			}
		}
	})
}

// lowered is a coordinator whose sessions say that they take less than they do.
type lowered struct {
	coord.Coordinator
	bytes int

	mu   sync.Mutex
	last *loweredSession
}

type loweredSession struct {
	coord.Session
	bytes int
}

func (c *lowered) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil || c.last.Session != s {
		c.last = &loweredSession{s, c.bytes}
	}
	return c.last, nil
}

func (s *loweredSession) Limits() coord.Limits {
	l := s.Session.Limits()
	l.ValueBytes = s.bytes
	return l
}

// The claim of an entry that is too large to be touched moves no fence: whether it
// was applied is told by the lock alone.
func TestLostRepliesOfClaimsOfTooLargeEntriesAreResolved(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				putter, _ := b.queue()
				b.put(putter, strings.Repeat("x", 2000))
				cl := b.client()
				q := b.on(&lowered{Coordinator: cl, bytes: 1000})
				lose(cl)
				h := b.take(q)
				lose(cl)
				b.release(h)
				lose(cl)
				b.consume(b.take(q))
			})
		})
	}
}

// The listing that the second take goes by is older than the first one's claim.
func TestAHoldOfATooLargeEntryIsNotTakenForANewClaim(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		putter, _ := b.queue()
		b.put(putter, strings.Repeat("x", 2000))
		cl := b.client()
		c := newCounting(cl)
		q := b.on(&lowered{Coordinator: c, bytes: 1000})
		again := make(chan error, 1)
		c.hook(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.Contains(path, "/jobs/entries/") {
				c.hook(nil)
				cl.Pass()
				cl.DropRequest()
				go func() {
					ctx, cancel := context.WithTimeout(b.ctx, time.Second)
					defer cancel()
					_, err := q.Take(ctx)
					again <- err
				}()
				time.Sleep(time.Millisecond) // it waits for its turn
			}
		})
		h, err := q.TryTake(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		b.want(<-again, context.DeadlineExceeded)
		b.consume(h)
	})
}

// A removal that was cancelled between its claim and its end leaves the entry to
// others, and not held by nobody as long as the session lasts.
func TestCancelledRemovalHoldsNothing(t *testing.T) {
	for way, remove := range map[string]func(ctx context.Context, q *zkq.LockingQueue, name string) error{
		"rm": func(ctx context.Context, q *zkq.LockingQueue, name string) error { return q.Remove(ctx, name, false) },
		"purge": func(ctx context.Context, q *zkq.LockingQueue, _ string) error {
			_, err := q.Purge(ctx, zkq.StateReady)
			return err
		},
	} {
		t.Run(way, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				c := newCounting(b.client())
				q := b.on(c)
				other, _ := b.queue()
				name := b.put(other, "a")
				ctx, cancel := context.WithCancel(b.ctx)
				c.hook(func(_ coord.Session, act, path string) {
					if act == "commit" && strings.HasPrefix(path, "delete /jobs/entries/") {
						cancel()
					}
				})
				if err := remove(ctx, q, name); err == nil {
					t.Fatal("it was not cancelled: this shows nothing")
				}
				b.consume(b.take(other))
			})
		})
	}
}

// The answer was lost and then the session: what this call did is not said to have
// been there before.
func TestWhatARemovalDidIsKnownInTheNextSession(t *testing.T) {
	for way, act := range map[string]func(b *bench, q *zkq.LockingQueue, name string) error{
		"rm --force": func(b *bench, q *zkq.LockingQueue, name string) error { return q.Remove(b.ctx, name, true) },
		"release":    func(b *bench, q *zkq.LockingQueue, name string) error { return q.BreakLock(b.ctx, name) },
		"purge": func(b *bench, q *zkq.LockingQueue, _ string) error {
			n, err := q.Purge(b.ctx, zkq.StateHeld)
			if err == nil && n != 1 {
				b.Errorf("purged %d", n)
			}
			return err
		},
		"rm of a dead one": func(b *bench, q *zkq.LockingQueue, _ string) error {
			b.bury(b.take(q), "")
			b.put(q, "another")
			return q.Remove(b.ctx, b.dead(q).Name, false)
		},
	} {
		t.Run(way, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				cl := b.client()
				c := newCounting(cl)
				q := b.on(c)
				other, _ := b.queue()
				name := b.put(q, "a")
				if way != "rm of a dead one" {
					b.take(other)
				}
				lost := false
				c.hook(func(_ coord.Session, a, path string) {
					removal := strings.HasPrefix(path, "delete /jobs/entries/"+name) || strings.HasPrefix(path, "check /jobs/entries/"+name) || strings.HasPrefix(path, "delete /jobs/dead/")
					switch {
					case a == "commit" && removal && way != "rm of a dead one" || a == "commit" && strings.HasPrefix(path, "delete /jobs/dead/"):
						if !lost {
							lost = true
							cl.DropReply()
						}
					case a == "get" && lost:
						c.hook(nil)
						cl.Expire()
					}
				})
				if err := act(b, q, name); err != nil && !errors.Is(err, zkq.ErrUnknown) || !lost {
					t.Fatalf("%v, lost: %v", err, lost)
				}
			})
		})
	}
}

// The lock was broken though the answer was lost; that of the next holder is not.
func TestLostReplyOfABreakBreaksNoOtherLock(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		other, _ := b.queue()
		name := b.put(q, "a")
		b.take(other)
		c.DropReply()
		got := make(chan error, 1)
		go func() { got <- q.BreakLock(b.ctx, name) }()
		time.Sleep(time.Millisecond)
		next := b.take(other)
		b.want(<-got, nil)
		b.consume(next)
	})
}

func TestAsManyAsThereAreCanBeAskedFor(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		for range 6 {
			b.put(q, "a")
		}
		b.take(q)
		held, err := q.TakeN(b.ctx, math.MaxInt)
		if err != nil || len(held) != 5 {
			t.Fatalf("TakeN = %d, %v", len(held), err)
		}
		for _, h := range held {
			b.consume(h)
		}
		b.put(q, "a")
		if held, err = q.TryTakeN(b.ctx, math.MaxInt); err != nil || len(held) != 1 {
			t.Fatalf("TryTakeN = %d, %v", len(held), err)
		}
	})
}

// What does not fit into the commit is neither read nor claimed.
func TestATakeOfVeryManyReadsNoMoreThanItTakes(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c)
		const entries = 1000
		for range entries {
			b.put(q, "a")
		}
		held, err := q.TakeN(b.ctx, math.MaxInt)
		if err != nil || len(held) < 10 || c.values > 2*len(held) {
			t.Errorf("took %d, %v, and read %d", len(held), err, c.values)
		}
	})
}

// Whoever works is told, though another goroutine's finish heard of it first.
func TestAFinishThatMeetsALostLockEndsTheWork(t *testing.T) {
	for what, act := range acts {
		t.Run(what, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, _ := b.queue()
				other, _ := b.queue()
				b.put(q, "a")
				h := b.take(q)
				working, done := h.Context(b.ctx)
				defer done()
				if err := other.BreakLock(b.ctx, h.Name); err != nil {
					t.Fatal(err)
				}
				b.take(other)
				b.want(act(b.ctx, h), zkq.ErrLockLost)
				time.Sleep(2 * time.Second)
				b.want(context.Cause(working), zkq.ErrLockLost)
			})
		})
	}
}

// What is not a dead entry is not counted as one.
func TestForeignNodesAmongTheDeadAreNotCounted(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		var warned []string
		q, c := b.queue(zkq.Warn(func(m string) { warned = append(warned, m) }))
		b.put(q, "a")
		b.bury(b.take(q), "no")
		b.commit(b.session(c), coord.Create("/jobs/dead/garbage", nil))
		for range 2 {
			if st, err := q.Stat(b.ctx); err != nil || st.Dead != 1 {
				t.Errorf("Stat = %+v, %v", st, err)
			}
		}
		if n, err := q.Purge(b.ctx, zkq.StateDead); n != 1 || err != nil {
			t.Errorf("Purge = %d, %v", n, err)
		}
		if st, err := q.Stat(b.ctx); err != nil || st.Dead != 0 || len(warned) != 1 {
			t.Errorf("Stat = %+v, %v, warned: %q", st, err, warned)
		}
	})
}

// A take whose move to the dead is in doubt, because somebody broke its lock, goes
// on to the next entry.
func TestATakeGoesOnAfterAMoveThatNobodyKnowsOf(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		cl := b.client()
		c := newCounting(cl)
		q := b.on(c, zkq.MaxDeliveries(1))
		other, _ := b.queue()
		name := b.put(other, "poison")
		b.fail(b.take(other), "no")
		b.put(other, "next")
		c.hook(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.HasPrefix(path, "delete /jobs/entries/") {
				c.hook(nil)
				cl.DropRequest()
				if err := other.BreakLock(b.ctx, name); err != nil {
					t.Error(err)
				}
				b.consume(b.take(other))
			}
		})
		if h := b.take(q); string(h.Value) != "next" {
			t.Errorf("took %q", h.Value)
		}
	})
}

// While one take's claim is under way another looks and passes over the entry, and when the claim turns
// out to be lost the entry stands free already: no change comes that would wake the other.
func TestAClaimThatIsLostWakesWhoPassedOverIt(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		other, _ := b.queue()
		c := newCounting(b.client())
		q := b.on(c)
		b.put(other, "a")
		ctx, stop := context.WithCancel(b.ctx)
		defer stop()
		took := make(chan *zkq.Held)
		take := func() {
			if h, err := q.Take(ctx); err == nil {
				took <- h
			}
		}
		c.hook(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.Contains(path, "/jobs/entries/") {
				c.hook(nil)
				go take()
				synctest.Wait() // it waits for entries
				if h := b.take(other); h != nil {
					b.release(h)
				}
				synctest.Wait()
			}
		})
		go take()
		select {
		case h := <-took:
			b.consume(h)
		case <-time.After(time.Minute):
			t.Error("the entry stands free, and of two takes none has it")
		}
	})
}
