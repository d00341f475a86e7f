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
)

// state is that of an entry by its name.
func (b *bench) state(q *zkq.LockingQueue, name string) zkq.State {
	b.Helper()
	e, err := q.Peek(b.ctx, name)
	if err != nil {
		b.Fatal(err)
	}
	return e.State
}

// aside demands that exactly the entries are put aside, each with a place in the index.
func (b *bench) aside(c coord.Coordinator, names ...string) {
	b.Helper()
	s := b.session(c)
	var there []string
	for _, at := range b.children(s, "/jobs/delayed") {
		ms, name, _ := strings.Cut(strings.TrimPrefix(at, "/jobs/delayed/"), "-")
		there = append(there, name)
		if lock := string(b.get(s, "/jobs/taken/"+name).Value); lock != `{"zkq":1,"due_ms":`+strings.TrimLeft(ms, "0")+`}` || len(ms) != 13 {
			b.Errorf("%s is due at %s, and its lock says %s", name, ms, lock)
		}
	}
	if fmt.Sprint(there) != fmt.Sprint(names) {
		b.Fatalf("put aside are %v, want %v", there, names)
	}
}

func TestAnEntryPutAsideIsBackInItsPlaceWhenItIsDue(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		first := b.put(q, "first")
		b.put(q, "second")
		third := b.put(q, "third")
		start := time.Now()
		h := b.take(q)
		b.release(h, zkq.After(10*time.Second))
		b.aside(c, first)
		if st := b.state(q, first); st != zkq.StateDelayed || q.LeftAlone() != 1 {
			t.Fatalf("it is %s, and %d are left alone", st, q.LeftAlone())
		}
		b.consume(b.take(q))
		b.release(b.take(q), zkq.After(20*time.Second)) // third
		b.empty(q)
		other, _ := b.queue()
		if h = b.take(other); h.Name != first || h.Deliveries != 2 || h.Failures != 0 {
			t.Errorf("took %s, delivery %d", h.Name, h.Deliveries)
		}
		if d := time.Since(start); d < 10*time.Second || d > 11*time.Second {
			t.Errorf("it was back after %v", d)
		}
		b.consume(h)
		if h = b.take(q); h.Name != third || q.LeftAlone() != 0 {
			t.Errorf("took %s, %d are left alone", h.Name, q.LeftAlone())
		}
		if d := time.Since(start); d < 20*time.Second || d > 21*time.Second {
			t.Errorf("the next was back after %v", d)
		}
		b.consume(h)
		b.aside(c)
	})
}

func TestAFailureCanBePutAside(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue(zkq.MaxDeliveries(3))
		name := b.put(q, "a")
		for i := range 3 {
			h := b.take(q)
			if h.Failures != i {
				t.Fatalf("%d failures, want %d", h.Failures, i)
			}
			b.fail(h, fmt.Sprint("no ", i), zkq.After(time.Minute))
			b.want(h.Consume(b.ctx), zkq.ErrAlreadyDone)
			b.aside(c, name)
			if e := b.entries(q)[0]; e.State != zkq.StateDelayed || e.Failures != i+1 || e.Reason != fmt.Sprint("no ", i) {
				t.Fatalf("%+v", e)
			}
			synctest.Wait()
			time.Sleep(time.Minute + time.Second)
		}
		b.empty(q)
		if e := b.dead(q); e.Failures != 3 {
			t.Errorf("%+v", e)
		}
		b.aside(c)
	})
}

// Its locks and its session are gone, what it put aside stays.
func TestWhatIsPutAsideStaysWhenItsProcessDies(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		name := b.put(q, "a")
		b.release(b.take(q), zkq.After(time.Hour))
		c.Crash()
		other, oc := b.queue()
		time.Sleep(30 * time.Minute)
		b.empty(other)
		b.aside(oc, name)
		time.Sleep(30*time.Minute + time.Second)
		// Nobody was there when it fell due, and nobody waits.
		h, err := other.TryTake(b.ctx)
		if err != nil || h.Name != name {
			t.Fatal(h, err)
		}
		b.consume(h)
		b.aside(oc)
	})
}

// A take that looked just before, and finds nothing left to make ready just after.
func TestWhatTheMoverMakesReadyIsNotEmpty(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c)
		b.put(q, "a", zkq.WithDelay(time.Minute))
		b.empty(q)
		b.empty(q) // and from here on the handle has a mover
		looked, taken := make(chan struct{}), make(chan error, 1)
		c.hook(func(_ coord.Session, act, _ string) {
			if act != "commit" { // the mover's
				return
			}
			c.hook(func(_ coord.Session, act, path string) {
				if act == "list" && path == "/jobs/delayed" {
					c.hook(nil)
					close(looked)
					time.Sleep(time.Second)
				}
			})
			go func() {
				_, err := q.TryTake(b.ctx)
				taken <- err
			}()
			<-looked
		})
		if err := <-taken; err != nil {
			t.Error(err)
		}
	})
}

func TestWhatIsDueIsMovedInTheNextSession(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		putter, _ := b.queue()
		name := b.put(q, "a")
		b.release(b.take(q), zkq.After(time.Minute))
		got := make(chan *zkq.Held, 1)
		go func() {
			h, _ := q.Take(b.ctx)
			got <- h
		}()
		synctest.Wait()
		for range 3 {
			c.Cut()
			time.Sleep(15 * time.Second)
			c.Heal()
			time.Sleep(time.Second)
		}
		b.put(putter, "not me", zkq.WithPriority(1))
		if h := <-got; h == nil || string(h.Value) != "not me" {
			t.Fatal(h)
		}
		start := time.Now()
		if h := b.take(q); h.Name != name || time.Since(start) > 13*time.Second {
			t.Fatalf("took %s after %v", h.Name, time.Since(start))
		}
	})
}

func TestLostRepliesOfReleasesForLaterPutAsideOnce(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				entry := b.put(q, "a")
				for i := range 3 {
					h := b.take(q)
					lose(c)
					b.fail(h, "no", zkq.After(5*time.Second))
					b.aside(c, entry)
					h = b.take(q)
					if h.Failures != i+1 {
						t.Fatalf("%d failures", h.Failures)
					}
					lose(c)
					b.release(h, zkq.After(5*time.Second))
					b.aside(c, entry)
				}
				b.consume(b.take(q))
				b.aside(c)
			})
		})
	}
}

// A second, other finish does not undo the first, and says that it did nothing.
func TestAFinishAfterAnUnansweredReleaseForLaterChangesNothing(t *testing.T) {
	for act, finish := range map[string]func(context.Context, *zkq.Held) error{
		"consume":           func(ctx context.Context, h *zkq.Held) error { return h.Consume(ctx) },
		"bury":              func(ctx context.Context, h *zkq.Held) error { return h.Bury(ctx, "") },
		"release":           func(ctx context.Context, h *zkq.Held) error { return h.Release(ctx) },
		"release for later": func(ctx context.Context, h *zkq.Held) error { return h.Release(ctx, zkq.After(time.Hour)) },
		"fail for later":    func(ctx context.Context, h *zkq.Held) error { return h.Fail(ctx, "", zkq.After(time.Hour)) },
	} {
		t.Run(act, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				name := b.put(q, "a")
				h := b.take(q)
				c.HoldReplies()
				ctx, cancel := context.WithTimeout(b.ctx, time.Second)
				defer cancel()
				b.want(h.Release(ctx, zkq.After(time.Minute)), zkq.ErrUnknown)
				c.Heal()
				if err := finish(b.ctx, h); err == nil && act != "release for later" {
					t.Errorf("%s after a release for later: no error", act)
				}
				b.aside(c, name)
				if st, err := q.Stat(b.ctx); err != nil || st.Delayed != 1 || st.Dead != 0 {
					t.Errorf("%+v, %v", st, err)
				}
			})
		})
	}
}

// The index goes with what it stands for, whoever removes that.
func TestTheIndexGoesWithTheEntry(t *testing.T) {
	for way, remove := range map[string]func(b *bench, q *zkq.LockingQueue, name string) error{
		"rm":    func(b *bench, q *zkq.LockingQueue, name string) error { return q.Remove(b.ctx, name, false) },
		"purge": func(b *bench, q *zkq.LockingQueue, _ string) error { return b.purge(q, zkq.StateDelayed, 1) },
		"purge of others": func(b *bench, q *zkq.LockingQueue, name string) error {
			for _, st := range []zkq.State{zkq.StateReady, zkq.StateHeld, zkq.StateDead} {
				if err := b.purge(q, st, 0); err != nil {
					return err
				}
			}
			return q.Remove(b.ctx, name, true)
		},
	} {
		t.Run(way, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				name := b.put(q, "a")
				b.fail(b.take(q), "no", zkq.After(time.Minute))
				if err := remove(b, q, name); err != nil {
					t.Fatal(err)
				}
				for _, dir := range []string{"entries", "taken", "attempts", "delayed"} {
					if left := b.children(b.session(c), "/jobs/"+dir); len(left) > 0 {
						t.Errorf("left: %q", left)
					}
				}
				b.want(q.BreakLock(b.ctx, name), zkq.ErrNoEntry)
			})
		})
	}
}

func (b *bench) purge(q *zkq.LockingQueue, st zkq.State, want int) error {
	n, err := q.Purge(b.ctx, st)
	if err == nil && n != want {
		err = fmt.Errorf("purged %d that are %s, want %d", n, st, want)
	}
	return err
}

// What others left in the index is in nobody's way, and what points to nothing is swept.
func TestForeignNodesInTheIndexAreInNobodysWay(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		var warned []string
		q, c := b.queue(zkq.Warn(func(m string) { warned = append(warned, m) }))
		name, stale := b.put(q, "a"), b.put(q, "b")
		s := b.session(c)
		foreign := []string{"0", "0000000000000-entry-1", "0000000000000", "zzz"}
		for i := range 100 {
			foreign = append(foreign, fmt.Sprintf("0000000000000-x%d", i))
		}
		for _, f := range foreign {
			b.commit(s, coord.Create("/jobs/delayed/"+f, nil))
		}
		b.commit(s, coord.Create("/jobs/delayed/0000000000001-"+stale, nil))
		b.release(b.take(q), zkq.After(time.Minute))
		b.consume(b.take(q))
		if h := b.take2(q, 2*time.Minute); h.Name != name {
			t.Fatal(h)
		}
		time.Sleep(2 * time.Minute)
		if left := b.children(s, "/jobs/delayed"); len(left) != len(foreign) {
			t.Errorf("%d left of %d: %q", len(left), len(foreign), left)
		}
		if len(warned) < 100 {
			t.Errorf("%d warnings: %q", len(warned), warned)
		}
	})
}

// take2 takes within some time.
func (b *bench) take2(q *zkq.LockingQueue, within time.Duration) *zkq.Held {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, within)
	defer cancel()
	h, err := q.Take(ctx)
	if err != nil {
		b.Fatal(err)
	}
	return h
}

func TestDelaysBeyondTheCalendarAreRefused(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		b.put(q, "a")
		h := b.take(q)
		b.want(h.Release(b.ctx, zkq.After(1<<63-1)), zkq.ErrInvalid)
		b.want(h.Fail(b.ctx, "", zkq.After(1<<63-1)), zkq.ErrInvalid)
		b.fail(h, "", zkq.After(0))
		b.aside(c)
		b.release(b.take(q), zkq.After(-time.Hour))
		b.consume(b.take(q))
		b.want((&zkq.Held{}).Release(b.ctx, zkq.After(time.Hour)), zkq.ErrNotHeld)
	})
}

// Where nothing is delayed, that it could be costs a watch and a listing for each handle,
// and no request for an entry.
func TestWhatIsNotDelayedCostsNothing(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := newCounting(b.client())
		q := b.on(c)
		b.put(q, "a")
		b.consume(b.take(q))
		time.Sleep(time.Minute)
		lists := 0
		c.hook(func(_ coord.Session, act, path string) {
			if strings.Contains(path, "delayed") {
				lists++
			}
		})
		for range 50 {
			b.put(q, "a")
			b.consume(b.take(q))
			time.Sleep(time.Minute)
		}
		if lists > 0 {
			t.Errorf("%d requests for what is not there", lists)
		}
	})
}

// One process falls due with another: nobody moves an entry twice, or not at all.
func TestWhatIsDueIsMovedByWhoeverIsThere(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		putter, c := b.queue()
		const n = 200
		for i := range n {
			b.put(putter, fmt.Sprint(i))
		}
		for range n {
			b.release(b.take(putter), zkq.After(10*time.Second))
		}
		start := time.Now()
		done := make(chan string, n)
		for range 4 {
			q, _ := b.queue()
			go func() {
				for h, err := range q.All(b.ctx) {
					if err != nil {
						return
					}
					if h.Consume(b.ctx) == nil {
						done <- h.Name
					}
				}
			}()
		}
		seen := make(map[string]bool)
		for range n {
			seen[<-done] = true
		}
		if d := time.Since(start); len(seen) != n || d < 9*time.Second || d > 12*time.Second {
			t.Errorf("%d entries after %v", len(seen), d)
		}
		time.Sleep(time.Second)
		b.aside(c)
		if st, err := putter.Stat(b.ctx); err != nil || st.Total() != 0 {
			t.Errorf("%+v, %v", st, err)
		}
		if _, err := putter.TryTake(b.ctx); !errors.Is(err, zkq.ErrEmpty) {
			t.Error(err)
		}
	})
}
