package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testhook"
	"github.com/zkq/zkq/internal/testqueue"
)

// valuesOf returns the values of held entries, in order.
func valuesOf(held []*zkq.Held) string {
	var all []string
	for _, h := range held {
		all = append(all, string(h.Value))
	}
	return strings.Join(all, " ")
}

func TestExchangeFinishesAndTakesInOneCommit(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		for i := range 6 {
			env.Put(q, fmt.Sprint(i))
		}
		held := env.Exchange(q, nil, 2)
		synctest.Wait()
		c.Reset()
		next := env.Exchange(q, held, 3)
		if got := valuesOf(next); got != "2 3 4" {
			t.Errorf("took %q", got)
		}
		if commits, reads := c.Count("commit"), c.Count("read"); commits != 1 || reads > 1 {
			t.Errorf("%d commits and %d reads", commits, reads)
		}
		if left := env.Exchange(q, next, 0); len(left) != 0 {
			t.Errorf("took %q for nothing", valuesOf(left))
		}
		if n, err := q.Len(env.Ctx); n != 1 || err != nil {
			t.Errorf("%d entries are left, %v", n, err)
		}
		env.WantErr(next[0].Consume(env.Ctx), zkq.ErrAlreadyDone)
	})
}

func TestExchangeOfALostEntryCostsTheOthersNothing(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		other, _ := env.Queue()
		for i := range 4 {
			env.Put(q, fmt.Sprint(i))
		}
		held := env.Exchange(q, nil, 3)
		if err := other.BreakLock(env.Ctx, held[1].Name); err != nil {
			t.Fatal(err)
		}
		env.Take(other)
		next, err := q.Exchange(env.Ctx, held, 1)
		if got := valuesOf(next); got != "3" {
			t.Errorf("took %q", got)
		}
		failed := testqueue.FinishErrors(err)
		if len(failed) != 1 || failed[0].Held != held[1] || !errors.Is(err, zkq.ErrLockLost) {
			t.Errorf("error %v", err)
		}
		if n, err := q.Len(env.Ctx); n != 2 || err != nil {
			t.Errorf("%d entries are left, %v", n, err)
		}
	})
}

func TestExchangeTakesAnotherEntryWhereOneWasClaimedFirst(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		other, _ := env.Queue()
		for i := range 4 {
			env.Put(q, fmt.Sprint(i))
		}
		held := env.Exchange(q, nil, 1)
		var theirs *zkq.Held
		c.Before(func(_ coord.Session, act, _ string) {
			if act == "commit" && theirs == nil {
				theirs = env.Take(other)
			}
		})
		next := env.Exchange(q, held, 2)
		if got := valuesOf(next); string(theirs.Value) != "1" || got != "2" && got != "2 3" {
			t.Errorf("took %q, the other %q", got, theirs.Value)
		}
		env.WantErr(held[0].Consume(env.Ctx), zkq.ErrAlreadyDone)
	})
}

func TestExchangeWhoseAnswerWasLostIsAppliedOnce(t *testing.T) {
	for _, lose := range []string{"answer", "request"} {
		t.Run(lose, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				for i := range 5 {
					env.Put(q, fmt.Sprint(i))
				}
				held := env.Exchange(q, nil, 2)
				if lose == "answer" {
					c.DropReply()
				} else {
					c.DropRequest()
				}
				next := env.Exchange(q, held, 2)
				if got := valuesOf(next); got != "2 3" || next[0].Deliveries != 1 {
					t.Errorf("took %q, delivery %d", got, next[0].Deliveries)
				}
				env.Exchange(q, next, 0)
				if n, err := q.Len(env.Ctx); n != 1 || err != nil {
					t.Errorf("%d entries are left, %v", n, err)
				}
			})
		})
	}
}

// An exchange that asks only for entries that are ready does not wait behind a take that waits for an entry.
func TestExchangeDoesNotWaitBehindATake(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Put(q, "a")
		held := env.Exchange(q, nil, 1)
		waiting, stop := context.WithCancel(env.Ctx)
		var wg sync.WaitGroup
		wg.Go(func() { q.Take(waiting) })
		synctest.Wait()
		start := time.Now()
		if next := env.Exchange(q, held, 1); len(next) != 0 {
			t.Errorf("took %q", valuesOf(next))
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("it took %v", d)
		}
		stop()
		wg.Wait()
	})
}

func TestExchangeRefusesWhatItDidNotHandOut(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		other, _ := env.Queue()
		env.Put(q, "a")
		h := env.Take(q)
		for _, done := range [][]*zkq.Held{{nil}, {h, h}, {{}}} {
			_, err := q.Exchange(env.Ctx, done, 1)
			env.WantErr(err, zkq.ErrNotHeld)
		}
		_, err := other.Exchange(env.Ctx, []*zkq.Held{h}, 0)
		env.WantErr(err, zkq.ErrNotHeld)
		_, err = q.Exchange(env.Ctx, nil, -1)
		env.WantErr(err, zkq.ErrInvalid)
		env.Consume(h)
	})
}

// sharingQueues returns handles in n processes that know of each other, and what counts their requests.
func sharingQueues(env *testqueue.Env, n int, opts ...zkq.Option) (all []*zkq.LockingQueue, counts []*testqueue.Counter) {
	env.Helper()
	for i := range n {
		id := zkq.Holder(fmt.Sprintf("%032x", i+1))
		c := testqueue.NewCounter(env.Client())
		counts = append(counts, c)
		q := env.QueueOn(c, append(slices.Clone(opts), id)...)
		if err := q.Register(env.Ctx); err != nil {
			env.Fatal(err)
		}
		all = append(all, q)
	}
	return all, counts
}

// The first of two processes hangs. The other takes its entries, and at most a window and two for each process are
// taken before any of them. The window is four times what both may have in hand: one entry, and one that is wanted.
func TestEntriesOfAProcessThatStandsStillAreTakenWithinTheBound(t *testing.T) {
	for name, of := range map[string]struct{ window, size int }{
		"small": {8, 10}, "so large that few are read ahead": {64, 160 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				both, _ := sharingQueues(env, 2, testqueue.Settings(testhook.Settings{Window: of.window}))
				put := func(i int) { env.Put(both[0], fmt.Sprintf("%03d", i)+strings.Repeat(".", of.size)) }
				for i := range 64 {
					put(i)
				}
				var order []string
				next := env.Exchange(both[1], nil, 1)
				for i := 64; len(order) < 200; i++ {
					put(i) // steadily more
					order = append(order, valuesOf(next)[:3])
					if next = env.Exchange(both[1], next, 1); len(next) == 0 { // all that are ready are left to the other
						next = []*zkq.Held{env.Take(both[1])}
					}
				}
				for i := range 64 {
					at := slices.Index(order, fmt.Sprintf("%03d", i))
					if at < 0 || at > i+max(of.window, 4*2*2)+2*2 {
						t.Fatalf("entry %d was taken as number %d: %v", i, at, order)
					}
				}
			})
		})
	}
}

// Processes that all claim the head lose most claims to each other. Those that share it out lose hardly any.
func TestProcessesThatShareOutTheHeadDoNotRace(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const entries, workers = 3000, 4 * 4
		all, counts := sharingQueues(env, 4)
		for i := range entries {
			env.Put(all[0], fmt.Sprint(i))
		}
		for _, c := range counts {
			c.Reset()
		}
		var wg sync.WaitGroup
		var taken, apart atomic.Int64 // apart: entries that were finished in commits of their own
		ctx, stop := context.WithCancel(env.Ctx)
		defer stop()
		for _, q := range all {
			for range workers / len(all) {
				wg.Go(func() {
					var held []*zkq.Held
					for ctx.Err() == nil {
						done := len(held)
						var err error
						if held, err = q.Exchange(env.Ctx, held, 1); err == nil && len(held) == 0 {
							apart.Add(int64(done))
							held, err = q.TakeN(ctx, 1)
						}
						if err != nil && ctx.Err() == nil {
							t.Error(err)
							return
						}
						if taken.Add(int64(len(held))) == entries {
							stop()
						}
					}
					q.Exchange(env.Ctx, held, 0)
				})
			}
		}
		wg.Wait()
		n := 0
		for _, c := range counts {
			n += c.Count("commit")
		}
		if lost := n - entries - int(apart.Load()) - 2*workers; lost > entries/10 { // each has a first claim and a last finish
			t.Errorf("%d claims were lost for %d entries", lost, entries)
		}
	})
}

// allWatch has every process of a fleet watch the queue.
var allWatch = testqueue.Settings(testhook.Settings{Watchers: 1000})

// All processes hear of an entry at the same time. Its owner claims it, and the others leave it alone.
func TestOneOfManyWaitingProcessesClaimsAnEntry(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const processes, entries = 12, 24
		all, counts := sharingQueues(env, processes, allWatch)
		ctx, stop := context.WithCancel(env.Ctx)
		defer stop()
		taken := make(chan struct{}, entries)
		var wg sync.WaitGroup
		for _, q := range all {
			wg.Go(func() {
				for h, err := range q.All(ctx) {
					if err == nil {
						err = h.Consume(env.Ctx)
					}
					if err != nil {
						t.Error(err)
					}
					taken <- struct{}{}
				}
			})
		}
		producer, _ := env.Queue()
		synctest.Wait()
		for _, c := range counts {
			c.Reset()
			c.Before(func(_ coord.Session, act, _ string) {
				if act == "commit" {
					time.Sleep(5 * time.Millisecond) // so that claims of one entry would overlap
				}
			})
		}
		for i := range entries {
			env.Put(producer, fmt.Sprint(i))
			<-taken
			time.Sleep(time.Second)
		}
		commits := 0
		for _, c := range counts {
			commits += c.Count("commit")
		}
		if commits != 2*entries {
			t.Errorf("%d commits for %d entries, each of which is claimed and consumed", commits, entries)
		}
		stop()
		wg.Wait()
	})
}

// Eleven of twelve processes are registered and take nothing. The entries that they own are the twelfth's after a while,
// and at once when they have left.
func TestEntriesOfProcessesThatTakeNothingAreTakenSoon(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		all, _ := sharingQueues(env, 12, allWatch)
		last := all[len(all)-1]
		take := func() time.Duration {
			begun := time.Now()
			env.Consume(env.Take(last))
			return time.Since(begun)
		}
		waited := 0
		for i := range 24 {
			env.Put(all[0], fmt.Sprint(i))
			took := take()
			if took > 500*time.Millisecond {
				t.Errorf("entry %d was taken after %v", i, took)
			}
			if took > 0 {
				waited++
			}
		}
		if waited < 12 {
			t.Errorf("%d of 24 entries were left to the others for a while", waited)
		}
		for i := range 3 {
			env.Put(all[0], fmt.Sprint("left ", i))
		}
		producer, _ := env.Queue()
		for _, q := range all[:len(all)-1] {
			q.Close()
		}
		for i := range 24 {
			if i >= 3 {
				env.Put(producer, fmt.Sprint(i))
			}
			if took := take(); took > 0 {
				t.Errorf("entry %d was taken after %v, and no other process is there", i, took)
			}
		}
	})
}

// The part of the head that the members share out grows with their number. So each finds entries of its own.
func TestEachProcessOfALargeFleetFindsEntriesOfItsOwn(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		all, _ := sharingQueues(env, 40)
		for i := range 400 {
			env.Put(all[0], fmt.Sprint(i))
		}
		for i, q := range all {
			if held := env.Exchange(q, nil, 4); len(held) == 0 {
				t.Errorf("process %d found nothing", i)
			}
		}
	})
}

// The handle has read ahead when a more urgent entry is put. A process that is notified of the entry takes it next.
func TestAMoreUrgentEntryIsTakenNextByEveryProcess(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		all, _ := sharingQueues(env, 3)
		for i := range 90 {
			env.Put(all[0], fmt.Sprint(i))
		}
		held := make([][]*zkq.Held, len(all))
		for i, q := range all {
			held[i] = env.Exchange(q, nil, 1)
		}
		for i, q := range all {
			env.Put(all[0], "urgent", zkq.WithPriority(1))
			synctest.Wait() // the signal arrives
			if held[i] = env.Exchange(q, held[i], 1); valuesOf(held[i]) != "urgent" {
				t.Errorf("process %d took %q", i, valuesOf(held[i]))
			}
		}
	})
}

// No signal tells that a claim failed: the entry stands where it was.
func TestATakeThatGaveUpLeavesTheEntryToTheNext(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "a")
		env.Put(q, "b")
		env.Consume(env.Take(q)) // the view is there
		synctest.Wait()
		time.Sleep(time.Second)
		c.Refuse(coord.ErrBusy)
		c.Refuse(coord.ErrBusy)
		ctx, cancel := context.WithTimeout(env.Ctx, 12*time.Millisecond)
		defer cancel()
		_, err := q.Take(ctx)
		env.WantErr(err, coord.ErrBusy)
		if h := env.Take(q); string(h.Value) != "b" {
			t.Errorf("took %q", h.Value)
		}
	})
}

// An entry that was put before the watch began causes no signal. The first listing comes after it.
func TestAnEntryPutAsTheWatchBeginsIsTaken(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		other, _ := env.Queue()
		put := false
		c.Before(func(_ coord.Session, act, path string) {
			if act == "watch" && path == "/jobs/entries" && !put {
				put = true
				env.Put(other, "x")
			}
		})
		if h := env.Take(q); string(h.Value) != "x" || !put {
			t.Errorf("took %q", h.Value)
		}
	})
}

// A caller may assume that entries which the error does not name were removed.
func TestExchangeOfAClosedHandleNamesWhatItDidNotRemove(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		for i := range 2 {
			env.Put(q, fmt.Sprint(i))
		}
		held := env.Exchange(q, nil, 2)
		q.Close()
		for range 2 {
			_, err := q.Exchange(env.Ctx, held, 1)
			env.WantErr(err, zkq.ErrClosed)
			left := slices.Clone(held)
			for _, f := range testqueue.FinishErrors(err) {
				left = slices.DeleteFunc(left, func(h *zkq.Held) bool { return h == f.Held })
			}
			if len(left) > 0 {
				t.Errorf("it does not name %q: %v", valuesOf(left), err)
			}
		}
		_, err := q.Exchange(env.Ctx, nil, 1)
		env.WantErr(err, zkq.ErrClosed)
		for _, h := range held {
			env.Consume(h)
		}
		if n, err := env.QueueOn(c).Len(env.Ctx); n != 0 || err != nil {
			t.Errorf("%d entries are left, %v", n, err)
		}
	})
}

// Takes are woken when the outcome of the claim is known. They need not ask the service repeatedly.
func TestTakesThatWaitForAClaimInDoubtDoNotPoll(t *testing.T) {
	for _, how := range []string{"Take", "Exchange", "Take, strictly"} {
		t.Run(how, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				client := env.Client()
				c := testqueue.NewCounter(client)
				var opts []zkq.Option
				if how == "Take, strictly" {
					opts = append(opts, zkq.Strict())
				}
				q := env.QueueOn(c, opts...)
				const entries = 300 // more than the head that is listed
				for i := range entries {
					env.Put(q, fmt.Sprint(i))
				}
				for range 8 {
					client.DropRequest()
				}
				ctx, cancel := context.WithTimeout(env.Ctx, 12*time.Millisecond)
				defer cancel()
				_, err := q.Take(ctx)
				env.WantErr(err, context.DeadlineExceeded)
				c.Reset()
				c.Before(func(_ coord.Session, act, _ string) {
					if act == "list" && c.Count("list") > 1000 {
						c.Before(nil)
						time.Sleep(time.Hour) // or it would go on for ever
					}
				})
				if how == "Exchange" {
					if held := env.Exchange(q, nil, 1); len(held) != 0 {
						t.Errorf("took %q", valuesOf(held))
					}
				} else if h := env.Take(q); string(h.Value) != "0" {
					t.Errorf("took %q", h.Value)
				}
				if n := c.Count("list"); n > 50 {
					t.Errorf("%d listings", n)
				}
			})
		})
	}
}

// A stale listing shows as free what this handle holds. The handle does not claim it again, and neither an exchange nor
// a worker ends because of it.
func TestAHandleDoesNotClaimAgainWhatItHolds(t *testing.T) {
	const entries, workers = 40, 4
	run := map[string]func(env *testqueue.Env, q *zkq.LockingQueue){
		"Exchange": func(env *testqueue.Env, q *zkq.LockingQueue) {
			var wg sync.WaitGroup
			for i := range workers {
				wg.Go(func() {
					var held []*zkq.Held
					for idle := 0; idle < 20; {
						var err error
						if held, err = q.Exchange(env.Ctx, held, 2); err != nil {
							env.Errorf("Exchange: %v", err)
							return
						}
						if idle++; len(held) > 0 {
							idle = 0
						}
						time.Sleep(time.Duration(110+30*i) * time.Millisecond)
					}
				})
			}
			wg.Wait()
		},
		"Worker": func(env *testqueue.Env, q *zkq.LockingQueue) {
			ctx, cancel := context.WithTimeout(env.Ctx, time.Minute)
			defer cancel()
			var mu sync.Mutex
			done := 0
			w := &zkq.Worker{Queue: q, Concurrency: workers, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
				time.Sleep(150 * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				if done++; done == entries {
					cancel()
				}
				return nil
			})}
			if err := w.Run(ctx); err != nil {
				env.Error(err)
			}
		},
	}
	for how, run := range run {
		t.Run(how, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				putter, _ := env.Queue()
				for i := range entries {
					env.Put(putter, fmt.Sprint(i))
				}
				c := env.Client()
				c.LagBy(200 * time.Millisecond)
				twice := 0
				counts := testqueue.NewCounter(c)
				q := env.QueueOn(counts)
				env.Store.Observe(func(a coordtest.Applied) {
					for _, op := range a.Ops {
						if op.Kind == coord.KindTouch && strings.HasPrefix(op.Path, "/jobs/entries/") {
							twice++
						}
					}
				})
				run(env, q)
				if twice != entries {
					t.Errorf("%d claims of %d entries", twice, entries)
				}
				if n := counts.Count("commit"); n > 3*entries {
					t.Errorf("%d commits for %d entries", n, entries)
				}
				env.WantEmpty(putter)
			})
		})
	}
}

// Any handle may take an entry whose lock was broken, including the one that held it.
func TestAnEntryWhoseLockWasBrokenIsTakenAgainByItsHolder(t *testing.T) {
	for how, lag := range map[string]time.Duration{"at once": 0, "late": 200 * time.Millisecond} {
		t.Run(how, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				if lag > 0 {
					c.LagBy(lag)
				}
				other, _ := env.Queue()
				h := env.PutAndTake(q, "a")
				time.Sleep(time.Second)
				env.WantErr(other.BreakLock(env.Ctx, h.Name), nil)
				start := time.Now()
				again := env.Take(q)
				if d := time.Since(start); d > time.Second {
					t.Errorf("it took %v", d)
				}
				env.WantErr(h.Consume(env.Ctx), zkq.ErrLockLost)
				env.Consume(again)
			})
		})
	}
}

// An entry that cannot be removed in the commit of the claim is removed first. While that is in doubt no new entry is
// held, and every returned entry has its lock.
func TestNothingIsClaimedWhileAnotherFinishIsInDoubt(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := env.Client()
		counts := testqueue.NewCounter(c)
		q := env.QueueOn(counts)
		for i := range 6 {
			env.Put(q, fmt.Sprint(i))
		}
		held := env.Exchange(q, nil, 2)
		other, oc := env.Queue()
		if err := other.Remove(env.Ctx, held[1].Name, true); err != nil {
			t.Fatal(err)
		}
		s := env.Session(oc)
		counts.Before(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.Contains(path, held[1].Name) {
				counts.Before(nil)
				c.HoldReplies()
				time.AfterFunc(3*time.Second, func() {
					if locks := env.Children(s, "/jobs/taken"); len(locks) > 1 {
						t.Errorf("held meanwhile: %q", locks)
					}
				})
				time.AfterFunc(12*time.Second, c.Heal)
			}
		})
		next, err := q.Exchange(env.Ctx, held, 2)
		var failed *zkq.FinishError
		if !errors.As(err, &failed) {
			t.Errorf("error %v", err)
		}
		for _, h := range next {
			if holds, err := h.HoldsLock(env.Ctx); err != nil || !holds {
				t.Errorf("%s: holds %v, %v", h.Name, holds, err)
			}
		}
		if len(next) == 0 {
			t.Errorf("took %q", valuesOf(next))
		}
	})
}
