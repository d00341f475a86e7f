package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// attempts is the node of what became of an entry before; "" if there is none.
func (b *bench) attempts(c coord.Coordinator, name string) string {
	b.Helper()
	n, err := b.session(c).Get(b.ctx, "/jobs/attempts/"+name)
	if errors.Is(err, coord.ErrNotExist) {
		return ""
	}
	if err != nil {
		b.Fatal(err)
	}
	return string(n.Value)
}

func (b *bench) release(h *zkq.Held, opts ...zkq.ReleaseOption) {
	b.Helper()
	if err := h.Release(b.ctx, opts...); err != nil {
		b.Fatalf("Release: %v", err)
	}
}

func (b *bench) fail(h *zkq.Held, reason string, opts ...zkq.ReleaseOption) {
	b.Helper()
	if err := h.Fail(b.ctx, reason, opts...); err != nil {
		b.Fatalf("Fail: %v", err)
	}
}

func TestFailuresAreCountedAndShown(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		other, _ := b.queue()
		name := b.put(q, "a")
		b.put(q, "never taken")
		for i := range 3 {
			h := b.take(q)
			if h.Name != name || h.Failures != i || h.Deliveries != 2*i+1 {
				t.Fatalf("took %s, delivery %d, failures %d", h.Name, h.Deliveries, h.Failures)
			}
			b.fail(h, fmt.Sprint("no ", i))
			b.release(b.take(other))
		}
		for _, look := range []func() (zkq.Entry, error){
			func() (zkq.Entry, error) { return b.entries(q)[0], nil },
			func() (zkq.Entry, error) { return q.Peek(b.ctx, "") },
			func() (zkq.Entry, error) { return q.Peek(b.ctx, name) },
		} {
			e, err := look()
			if err != nil || e.Name != name || e.Failures != 3 || e.Deliveries != 6 || e.Reason != "no 2" {
				t.Errorf("%+v, %v", e, err)
			}
		}
	})
}

func TestAFirstDeliveryCostsNoRequestMore(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c, zkq.MaxDeliveries(1))
		b.put(q, "a")
		b.put(q, "b")
		h := b.take(q)
		synctest.Wait()
		c.reset()
		b.consume(h)
		b.release(b.take(q))
		if commits, reads := c.of("commit"), c.of("read")+c.of("get"); commits != 3 || reads > 1 {
			t.Errorf("consume, take and release: %d commits and %d reads", commits, reads)
		}
	})
}

// What an entry leaves beside it goes with it, whoever removes it.
func TestAttemptsGoWithTheEntry(t *testing.T) {
	for way, remove := range map[string]func(b *bench, q *zkq.LockingQueue, name string) error{
		"consume":    func(b *bench, q *zkq.LockingQueue, _ string) error { return b.take(q).Consume(b.ctx) },
		"bury":       func(b *bench, q *zkq.LockingQueue, _ string) error { return b.take(q).Bury(b.ctx, "") },
		"rm":         func(b *bench, q *zkq.LockingQueue, name string) error { return q.Remove(b.ctx, name, false) },
		"rm --force": func(b *bench, q *zkq.LockingQueue, name string) error { b.take(q); return q.Remove(b.ctx, name, true) },
		"purge": func(b *bench, q *zkq.LockingQueue, _ string) error {
			_, err := q.Purge(b.ctx, zkq.StateReady)
			return err
		},
		"purge --state held": func(b *bench, q *zkq.LockingQueue, _ string) error {
			b.take(q)
			_, err := q.Purge(b.ctx, zkq.StateHeld)
			return err
		},
	} {
		t.Run(way, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				name := b.put(q, "a")
				b.fail(b.take(q), "no")
				if b.attempts(c, name) == "" {
					t.Fatal("no attempts: this shows nothing")
				}
				// Not by the sweep that follows a purge.
				alone := true
				b.store.Observe(func(a coordtest.Applied) {
					alone = alone && !(len(a.Ops) == 1 && strings.Contains(a.Ops[0].Path, "/attempts/"))
				})
				if err := remove(b, q, name); err != nil {
					t.Fatal(err)
				}
				s := b.session(c)
				if left := b.children(s, "/jobs/attempts"); len(left) > 0 || !alone {
					t.Errorf("left: %q, removed in the same commit: %v", left, alone)
				}
				if left := b.children(s, "/jobs/entries"); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			})
		})
	}
}

// kazoo's consume knows nothing of attempts.
func TestAttemptsWithoutAnEntryAreSwept(t *testing.T) {
	for way, sweep := range map[string]func(b *bench, q *zkq.LockingQueue){
		"by purge": func(b *bench, q *zkq.LockingQueue) {
			if _, err := q.Purge(b.ctx, zkq.StateDelayed); err != nil {
				b.Fatal(err)
			}
		},
		"within the hour by who gives back": func(b *bench, q *zkq.LockingQueue) {
			time.Sleep(time.Hour)
			b.release(b.take(q))
			time.Sleep(time.Second)
		},
	} {
		t.Run(way, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				gone := b.put(q, "kazoo's")
				stays := b.put(q, "stays")
				b.fail(b.take(q), "no")
				n := b.get(b.session(c), "/jobs/entries/"+gone)
				b.commit(b.session(c), coord.Delete(n.Path, n.Fence))
				b.fail(b.take(q), "no")
				sweep(b, q)
				if left := b.children(b.session(c), "/jobs/attempts"); len(left) != 1 || left[0] != "/jobs/attempts/"+stays {
					t.Fatalf("left: %q", left)
				}
				b.consume(b.take(q))
			})
		})
	}
}

func TestAttemptsThatSomebodySpoiltAreInNobodysWay(t *testing.T) {
	for what, value := range map[string]string{"no JSON": "\xff", "negative": `{"failures":-5,"forgiven":-7}`, "a list": "[]", "nothing": "", "null": "null"} {
		t.Run(what, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue(zkq.MaxDeliveries(3))
				name := b.put(q, "a")
				b.fail(b.take(q), "no")
				s, at := b.session(c), "/jobs/attempts/"+name
				b.commit(s, coord.Set(at, []byte(value), b.get(s, at).Fence))
				h := b.take(q)
				if h.Failures != 0 {
					t.Errorf("failures %d", h.Failures)
				}
				// And under the holder's hands.
				b.commit(s, coord.Set(at, []byte(value), b.get(s, at).Fence))
				b.fail(h, "no")
				h = b.take(q)
				b.commit(s, coord.Delete(at, b.get(s, at).Fence))
				b.release(h)
				h = b.take(q)
				b.commit(s, coord.Delete(at, b.get(s, at).Fence))
				b.consume(h)
				b.put(q, "b")
				h = b.take(q)
				b.commit(s, coord.Create("/jobs/attempts/"+h.Name, nil))
				b.fail(h, "no")
				if h = b.take(q); h.Failures != 1 {
					t.Errorf("failures %d", h.Failures)
				}
			})
		})
	}
}

func TestReasonsAreCutToWholeCharacters(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		b.put(q, "a")
		for reason, want := range map[string]string{
			strings.Repeat("ü", 10000):       strings.Repeat("ü", 512),
			"x" + strings.Repeat("ü", 10000): "x" + strings.Repeat("ü", 511),
			"\xff":                           "\uFFFD",
			"":                               "",
			"one\ntwo\x00<b>\u2028":          "one\ntwo\x00<b>\u2028",
			strings.Repeat("\x00", 2000) + "not kept": strings.Repeat("\x00", 1024),
		} {
			b.fail(b.take(q), reason)
			if e := b.entries(q)[0]; e.Reason != want {
				t.Errorf("%.20q became %.20q, of %d bytes", reason, e.Reason, len(e.Reason))
			}
		}
	})
}

func TestLostRepliesOfFailuresCountOnce(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				b.put(q, "a")
				for i := range 4 {
					h := b.take(q)
					if h.Failures != i {
						t.Fatalf("failures %d, want %d", h.Failures, i)
					}
					lose(c)
					b.fail(h, "no")
				}
				h := b.take(q)
				lose(c)
				b.release(h)
				if got := b.attempts(c, h.Name); got != `{"failures":4,"forgiven":1,"reason":"no"}` {
					t.Fatal(got)
				}
			})
		})
	}
}

// A failure that nobody can know to be counted is not said to be.
func TestUnansweredFailureOfABrokenEntryIsUnknown(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		other, _ := b.queue()
		b.put(q, "a")
		h := b.take(q)
		c.DropRequest()
		got := make(chan error, 1)
		go func() { got <- h.Fail(b.ctx, "no") }()
		time.Sleep(time.Millisecond) // the first attempt is lost; the second comes after 5
		if err := other.BreakLock(b.ctx, h.Name); err != nil {
			t.Fatal(err)
		}
		b.want(<-got, zkq.ErrUnknown)
		b.want(b.take(other).Fail(b.ctx, "no"), nil)
	})
}

// The claim was answered, what became of the entry before was not.
func TestTakeCancelledBeforeItKnowsTheAttemptsHoldsNothing(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		cl := b.client()
		c := newCounting(cl)
		q := b.on(c, zkq.MaxDeliveries(3))
		other, oc := b.queue()
		name := b.put(other, "a")
		b.fail(b.take(other), "no")
		held := false
		c.hook(func(_ coord.Session, act, path string) {
			if act == "get" && strings.HasPrefix(path, "/jobs/attempts/") && !held {
				held = true
				cl.HoldReplies()
			}
		})
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		_, err := q.Take(ctx)
		b.want(err, context.DeadlineExceeded)
		if !held {
			t.Fatal("attempts were not read")
		}
		b.empty(other)
		cl.Heal()
		if h := b.take(other); h.Failures != 1 || h.Deliveries != 3 {
			t.Fatalf("failures %d, deliveries %d", h.Failures, h.Deliveries)
		}
		if got := b.attempts(oc, name); got != `{"failures":1,"forgiven":1,"reason":"no"}` {
			t.Fatal(got)
		}
	})
}

// What was forgiven after the claim does not count for it: the lock was broken in
// between.
func TestAnEntryAtItsCeilingIsNotHandedOutByWhatALaterHolderWasForgiven(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c, zkq.MaxDeliveries(1))
		other, _ := b.queue()
		name := b.put(other, "a")
		b.fail(b.take(other), "no")
		broken := false
		c.hook(func(_ coord.Session, act, path string) {
			if act == "get" && path == "/jobs/attempts/"+name && !broken {
				broken = true
				if err := other.BreakLock(b.ctx, name); err != nil {
					t.Error(err)
				}
				b.release(b.take(other))
			}
		})
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		h, err := q.Take(ctx)
		if b.want(err, context.DeadlineExceeded); h != nil || !broken {
			t.Fatalf("took %+v; the lock was broken: %v", h, broken)
		}
		if e := b.dead(other); e.Deliveries != 3 || e.Failures != 1 {
			t.Errorf("it died as %+v", e)
		}
	})
}

// Who writes there and holds nothing keeps nobody from the entry.
func TestAttemptsWrittenByAnotherDuringATakeDoNotStopIt(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c, zkq.MaxDeliveries(3))
		other, oc := b.queue()
		name := b.put(other, "a")
		b.fail(b.take(other), "no")
		written := false
		c.hook(func(_ coord.Session, act, path string) {
			if act == "get" && path == "/jobs/attempts/"+name && !written {
				written = true
				s := b.session(oc)
				b.commit(s, coord.Set(path, []byte(`{"failures":2}`), b.get(s, path).Fence))
			}
		})
		h := b.take(q)
		if !written || h.Failures != 2 {
			t.Fatalf("written: %v, failures %d", written, h.Failures)
		}
		b.consume(h)
	})
}

func TestAnEntryThatCameBackIsTakenAlone(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		names := func(held []*zkq.Held, err error) string {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, h := range held {
				all = append(all, string(h.Value))
			}
			return strings.Join(all, "")
		}
		for _, v := range "abcdef" {
			b.put(q, string(v))
		}
		all, err := q.TakeN(b.ctx, 6)
		if err != nil {
			t.Fatal(err)
		}
		b.fail(all[0], "no") // a
		b.release(all[3])    // d
		b.consume(all[1])    // b
		b.put(q, "g")        // never taken
		b.put(q, "h")        // never taken
		for _, want := range []string{"a", "d", "gh"} {
			if got := names(q.TryTakeN(b.ctx, 5)); got != want {
				t.Errorf("TryTakeN took %q, want %q", got, want)
			}
		}
		b.put(q, "i", zkq.WithPriority(1))
		b.fail(all[2], "no") // c, behind i
		b.put(q, "j")
		for _, want := range []string{"i", "c", "j"} {
			if got := names(q.TakeN(b.ctx, 5)); got != want {
				t.Errorf("TakeN took %q, want %q", got, want)
			}
		}
	})
}

func TestTakeNTakesAllInOneCommit(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c)
		for range 10 {
			b.put(q, "x")
		}
		c.reset()
		held, err := q.TakeN(b.ctx, 8)
		if err != nil || len(held) != 8 {
			t.Fatalf("TakeN = %v, %v", held, err)
		}
		if commits, reads := c.of("commit"), c.of("read"); commits != 1 || reads != 1 {
			t.Errorf("%d commits and %d reads", commits, reads)
		}
		for _, h := range held {
			b.consume(h)
		}
	})
}
