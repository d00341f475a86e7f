package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testqueue"
)

// watchBound calls f with the number of entries and delayed puts after each change.
func watchBound(env *testqueue.Env, f func(n int)) {
	n := 0
	env.Store.Observe(func(a coordtest.Applied) {
		for i, op := range a.Ops {
			at := op.Path
			if op.Kind == coord.KindSequential {
				at = a.Results[i].Path
			}
			counted := strings.HasPrefix(at, "/jobs/entries/") || strings.HasPrefix(at, "/jobs/delayed/") && strings.Contains(at, "-put-")
			switch {
			case counted && (op.Kind == coord.KindSequential || op.Kind == coord.KindCreate):
				n++
			case counted && op.Kind == coord.KindDelete:
				n--
			}
		}
		f(n)
	})
}

// Sixteen producers put as much as they can, and some of their answers are lost. Others consume, release and delay
// entries meanwhile.
func TestAnExactBoundIsNeverExceeded(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const bound, producers = 10, 16
		first, _ := env.Queue()
		env.Create(first, zkq.QueueConfig{MaxEntries: bound})
		most := 0
		watchBound(env, func(n int) {
			if most = max(most, n); n > bound {
				t.Errorf("%d entries", n)
			}
		})
		ctx, cancel := context.WithTimeout(env.Ctx, 2*time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		var mu sync.Mutex
		put, full := 0, 0
		for i := range producers {
			q, c := env.Queue()
			wg.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					if (n+i)%7 == 0 {
						c.DropReply()
					}
					var opts []zkq.PutOption
					if (n+i)%3 == 0 {
						opts = append(opts, zkq.WithDelay(time.Duration(n%5)*time.Second))
					}
					_, err := q.PutAll(ctx, make([][]byte, 1+n%2), opts...)
					mu.Lock()
					switch {
					case err == nil:
						put++
					case errors.Is(err, zkq.ErrFull):
						full++
					}
					mu.Unlock()
					time.Sleep(time.Duration(100*(1+i)) * time.Millisecond)
				}
			})
		}
		for range 2 {
			q, _ := env.Queue()
			wg.Go(func() {
				for h, err := range q.All(ctx) {
					if err != nil {
						return
					}
					time.Sleep(300 * time.Millisecond)
					if h.Deliveries%3 == 1 {
						h.Release(ctx, zkq.After(time.Second))
					} else {
						h.Consume(ctx)
					}
				}
			})
		}
		wg.Wait()
		synctest.Wait() // what was moved behind them, too
		if put < 50 || full < 50 || most != bound {
			t.Errorf("%d puts, %d refused, %d entries at most", put, full, most)
		}
	})
}

// sharing returns a handle whose requests take a millisecond each, so that puts at the same time wait for each other.
func sharing(env *testqueue.Env, bound int) (*zkq.LockingQueue, *testqueue.Counter, *coordtest.Coordinator) {
	c := env.Client()
	counter := testqueue.NewCounter(c)
	counter.Before(func(coord.Session, string, string) { time.Sleep(time.Millisecond) })
	q := env.QueueOn(counter)
	env.Create(q, zkq.QueueConfig{MaxEntries: bound})
	return q, counter, c
}

// putAtOnce makes puts in goroutines that start together, and returns what each got.
func putAtOnce(env *testqueue.Env, q *zkq.LockingQueue, n int, opts func(i int) []zkq.PutOption) (names []string, errs []error) {
	names, errs = make([]string, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { names[i], errs[i] = q.Put(env.Ctx, fmt.Append(nil, i), opts(i)...) })
		synctest.Wait() // in this order
	}
	wg.Wait()
	return names, errs
}

func noOptions(int) []zkq.PutOption { return nil }

// Sixteen producers of a handle need less than a request for a put, though each commit reads the room and writes the count.
// The node says how many entries there are. Each name is that of the put's own value, and each producer's values keep their order.
func TestPutsOfAHandleShareTheCountOfAnExactBound(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const producers, each = 16, 20
		q, counter, c := sharing(env, producers*each)
		putAtOnce(env, q, producers, noOptions) // opens the lanes
		for range producers {
			env.Consume(env.Take(q))
		}
		counter.Reset()
		names := make(map[string]string)
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range producers {
			wg.Go(func() {
				for k := range each {
					value := fmt.Sprintf("%02d:%02d", i, k)
					name, err := q.Put(env.Ctx, []byte(value))
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					names[name] = value
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if n := counter.Count(); n > producers*each {
			t.Errorf("%d requests for %d puts: %v", n, producers*each, counter.Requests)
		}
		if got := string(env.Get(env.Session(c), "/jobs/count").Value); got != fmt.Sprint(producers*each) {
			t.Errorf("the count is %s", got)
		}
		last := make(map[string]string)
		for e, err := range q.EntriesWithValues(env.Ctx) {
			value := string(e.Value)
			if err != nil || names[e.Name] != value {
				t.Errorf("%s holds %q, %v; its put was told of %q", e.Name, value, err, names[e.Name])
			}
			if who := value[:2]; value < last[who] {
				t.Errorf("%s stands behind %s", value, last[who])
			} else {
				last[who] = value
			}
		}
	})
}

// Puts that wait together go in as far as there is room. The others are refused, or wait until entries are finished.
func TestPutsTogetherFillTheRoomAndNoMore(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const bound, producers = 10, 16
		q, _, _ := sharing(env, bound)
		watchBound(env, func(n int) {
			if n > bound {
				t.Errorf("%d entries", n)
			}
		})
		_, errs := putAtOnce(env, q, producers, noOptions)
		full := 0
		for _, err := range errs {
			if err != nil {
				env.WantErr(err, zkq.ErrFull)
				full++
			}
		}
		if full != producers-bound {
			t.Errorf("%d puts were refused", full)
		}
		consumer, _ := env.Queue()
		var wg sync.WaitGroup
		wg.Go(func() {
			for range bound + producers {
				env.Consume(env.Take(consumer))
				time.Sleep(10 * time.Millisecond)
			}
		})
		_, errs = putAtOnce(env, q, producers, func(int) []zkq.PutOption { return []zkq.PutOption{zkq.WithWait(time.Minute)} })
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
		wg.Wait()
		env.WantEmpty(q)
	})
}

// Several processes with several producers each share a bound. Answers are lost, and some puts take all the room by themselves.
func TestSharedPutsOfSeveralProcessesKeepAnExactBound(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const bound = 7
		most, put := 0, 0
		watchBound(env, func(n int) {
			if most = max(most, n); n > bound {
				t.Errorf("%d entries", n)
			}
		})
		ctx, cancel := context.WithTimeout(env.Ctx, 5*time.Second)
		defer cancel()
		var mu sync.Mutex
		var wg sync.WaitGroup
		for process := range 3 {
			q, _, c := sharing(env, bound)
			for i := range 5 {
				wg.Go(func() {
					for n := i; ctx.Err() == nil; n++ {
						switch (n + process) % 9 {
						case 0:
							c.DropReply()
						case 4:
							c.DropRequest()
						}
						_, err := q.PutAll(ctx, make([][]byte, 1+(n+i)%3), zkq.WithWait(time.Duration(i%2)*time.Second))
						if err == nil {
							mu.Lock()
							put++
							mu.Unlock()
						} else if !errors.Is(err, zkq.ErrFull) && ctx.Err() == nil {
							t.Error(err)
						}
						time.Sleep(time.Duration(20+7*i) * time.Millisecond)
					}
				})
			}
		}
		consumer, _ := env.Queue()
		wg.Go(func() {
			for h, err := range consumer.All(ctx) {
				if err != nil {
					return
				}
				h.Consume(ctx)
				time.Sleep(20 * time.Millisecond)
			}
		})
		wg.Wait()
		time.Sleep(time.Second)
		synctest.Wait() // commits whose callers have left, too
		if put < 50 || most != bound {
			t.Errorf("%d puts, %d entries at most", put, most)
		}
	})
}

// A put that is refused because of its key, or its size, does not hinder those that wait with it.
func TestARefusedPutLeavesTheOthersOfItsCommit(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, counter, _ := sharing(env, 20)
		standing := env.Put(q, "standing", zkq.WithUnique("taken"))
		names, errs := putAtOnce(env, q, 12, func(i int) []zkq.PutOption {
			switch i % 4 {
			case 1:
				return []zkq.PutOption{zkq.WithUnique("taken")}
			case 2:
				return []zkq.PutOption{zkq.WithUnique("free")}
			}
			return nil
		})
		owner := names[2] + names[6] + names[10] // one of the three got the key
		for i, err := range errs {
			exists := (*zkq.ExistsError)(nil)
			errors.As(err, &exists)
			switch {
			case i%4 == 1 && (exists == nil || exists.Name != standing):
				t.Errorf("put %d: %v, want that %s has the key", i, err, standing)
			case i%4 == 2 && names[i] == "" && (exists == nil || exists.Name != owner):
				t.Errorf("put %d: %v, want that %s has the key", i, err, owner)
			case exists == nil && err != nil:
				t.Errorf("put %d: %v", i, err)
			}
		}
		if n, err := q.Len(env.Ctx); err != nil || n != 1+6+1 {
			t.Errorf("%d entries, %v", n, err)
		}
		// The bound refuses a put of 21 for good, and the others go in.
		counter.Reset()
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				_, err := q.PutAll(env.Ctx, make([][]byte, 1+20*(i%2)), zkq.WithWait(time.Hour))
				if want := i%2 == 1; errors.Is(err, zkq.ErrTooLarge) != want || !want && err != nil {
					t.Errorf("put %d: %v", i, err)
				}
			})
		}
		wg.Wait()
	})
}

// The answer to a put was lost, and the queue is full when it is made again. A put that was applied is not refused. One
// that was not is refused, and an attempt that is still under way is not applied when there is room again.
func TestAPutInDoubtIsDecidedWhenTheQueueIsFull(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _, c := sharing(env, 1)
		env.Put(q, "opens a lane")
		env.Consume(env.Take(q))
		c.DropReply()
		name := env.Put(q, "applied")
		if got := env.Values(q); len(got) != 1 || got[0] != "applied" || name == "" {
			t.Errorf("%q is %q", name, got)
		}
		env.Consume(env.Take(q))
		other, _ := env.Queue()
		env.Put(other, "opens another")
		env.Consume(env.Take(other))
		voids := 0
		env.Store.Observe(func(a coordtest.Applied) {
			for _, op := range a.Ops {
				if strings.HasPrefix(op.Path, "/zkq/producers/") && strings.Contains(string(op.Value), "void") {
					voids++
				}
			}
		})
		c.DropRequest()
		ended := make(chan error)
		go func() {
			_, err := q.Put(env.Ctx, []byte("lost"))
			ended <- err
		}()
		time.Sleep(6 * time.Millisecond) // after its first attempt, and before its second
		env.Put(other, "faster")
		env.WantErr(<-ended, zkq.ErrFull)
		if voids != 1 {
			t.Errorf("%d lanes have moved on", voids)
		}
	})
}

// Callers that leave while their puts are under way do not know the outcome, and each can ask for its own. A put whose
// caller left before it was sent is never made.
func TestCallersThatLeaveASharedCommit(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, counter, c := sharing(env, 20)
		putAtOnce(env, q, 6, noOptions)
		counter.Before(nil)
		c.HoldReplies()
		ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
		defer cancel()
		errs := make([]error, 6)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				of := env.Ctx
				if i%2 == 0 {
					of = ctx
				}
				_, errs[i] = q.Put(of, fmt.Append(nil, "left ", i))
			})
			synctest.Wait()
		}
		<-ctx.Done()
		synctest.Wait()
		c.Heal()
		wg.Wait()
		applied := 0
		for i, err := range errs {
			unknown := (*zkq.UnknownError)(nil)
			switch {
			case i%2 == 1:
				env.WantErr(err, nil)
				applied++
			case errors.As(err, &unknown):
				o, err := zkq.Resolve(env.Ctx, c, unknown.Token)
				if env.WantErr(err, nil); o.Applied {
					applied++
				}
			default:
				env.WantErr(err, context.DeadlineExceeded)
			}
		}
		if n, err := q.Len(env.Ctx); err != nil || n != 6+applied {
			t.Errorf("%d entries, %v; %d puts were applied", n, err, applied)
		}
	})
}

func TestAFullQueueRefusesTheWholePut(t *testing.T) {
	for _, approximate := range []bool{false, true} {
		t.Run(fmt.Sprint("approximate ", approximate), func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				env.Create(q, zkq.QueueConfig{MaxEntries: 3, MaxSize: 10, Approximate: approximate})
				env.Put(q, "1")
				_, err := q.PutAll(env.Ctx, make([][]byte, 3))
				env.WantErr(err, zkq.ErrFull)
				env.Put(q, "2", zkq.WithDelay(time.Hour))
				h := env.Take(q)
				env.Put(q, "3")
				_, err = q.Put(env.Ctx, nil)
				env.WantErr(err, zkq.ErrFull)
				_, err = q.Put(env.Ctx, make([]byte, 11))
				env.WantErr(err, zkq.ErrTooLarge)
				_, err = q.Put(env.Ctx, nil, zkq.WithUnique("k"))
				env.WantErr(err, zkq.ErrFull)
				env.Release(h, zkq.After(time.Hour))
				_, err = q.Put(env.Ctx, nil, zkq.WithDelay(time.Hour))
				env.WantErr(err, zkq.ErrFull)
				env.Bury(env.Take(q), "")
				env.Put(q, "1234567890")
				env.WantErr(requeueDead(env, q), zkq.ErrFull)
				env.Consume(env.Take(q))
				env.WantErr(requeueDead(env, q), nil)
				if st, err := q.Stat(env.Ctx); err != nil || st.Total() != 3 || st.Dead != 0 {
					t.Errorf("%+v, %v", st, err)
				}
				if n := len(env.Children(env.Session(c), "/jobs/unique")); n > 0 {
					t.Errorf("%d keys of nothing", n)
				}
			})
		})
	}
}

// requeueDead makes the only dead entry ready.
func requeueDead(env *testqueue.Env, q *zkq.LockingQueue) error {
	env.Helper()
	_, err := q.Requeue(env.Ctx, env.DeadEntry(q).Name)
	return err
}

func TestAPutWaitsForRoom(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Create(q, zkq.QueueConfig{MaxEntries: 2})
		env.Put(q, "1")
		env.Put(q, "2")
		start := time.Now()
		_, err := q.Put(env.Ctx, nil, zkq.WithWait(10*time.Second))
		if env.WantErr(err, zkq.ErrFull); time.Since(start) != 10*time.Second {
			t.Errorf("it waited for %v", time.Since(start))
		}
		ctx, cancel := context.WithTimeout(env.Ctx, 5*time.Second)
		defer cancel()
		_, err = q.Put(ctx, nil, zkq.WithWait(time.Hour))
		env.WantErr(err, context.DeadlineExceeded)

		got := make(chan time.Duration, 2)
		putting := func() {
			start := time.Now()
			if _, err := q.Put(env.Ctx, []byte("late"), zkq.WithWait(time.Hour)); err == nil {
				got <- time.Since(start)
			}
		}
		go putting()
		other, _ := env.Queue()
		time.Sleep(20 * time.Second)
		c.Cut() // also through another session
		time.Sleep(20 * time.Second)
		c.Heal()
		time.Sleep(20 * time.Second)
		env.Consume(env.Take(other))
		if d := <-got; d < time.Minute || d > time.Minute+time.Second {
			t.Errorf("it waited for %v", d)
		}
		go putting()
		time.Sleep(time.Minute)
		if err := other.Configure(env.Ctx, zkq.QueueConfig{MaxEntries: 3}); err != nil {
			t.Fatal(err)
		}
		if d := <-got; d < time.Minute || d > time.Minute+time.Second {
			t.Errorf("it waited for %v for a wider bound", d)
		}
	})
}

func TestExpiredEntriesMakeRoom(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Create(q, zkq.QueueConfig{MaxEntries: 3})
		env.Put(q, "1", zkq.WithTTL(time.Minute))
		env.Put(q, "2", zkq.WithTTL(time.Minute), zkq.WithDelay(time.Hour))
		env.Put(q, "3", zkq.WithTTL(time.Minute))
		h := env.Take(q)
		_, err := q.Put(env.Ctx, nil)
		env.WantErr(err, zkq.ErrFull)
		time.Sleep(time.Minute)
		env.Put(q, "4")
		env.Put(q, "5")
		_, err = q.Put(env.Ctx, nil) // one is held
		env.WantErr(err, zkq.ErrFull)
		env.Consume(h)
	})
}

func TestAConfigurationStandsUntilItIsReplaced(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		other, _ := env.Queue()
		s := env.Session(c)
		env.Commit(s, coord.Create("/jobs/config", []byte(`{"offset":7,"new":{"x":[1]}}`)))
		bounds := zkq.QueueConfig{MaxEntries: 5, MaxSize: 100}
		c.DropReply()
		env.Create(q, bounds)
		env.Create(other, bounds)
		var mismatch *zkq.ConfigError
		err := other.Create(env.Ctx, zkq.QueueConfig{MaxEntries: 6})
		if !errors.As(err, &mismatch) || !errors.Is(err, zkq.ErrConfig) || mismatch.Have != bounds {
			t.Error(err)
		}
		if have, err := other.Config(env.Ctx); err != nil || have != bounds {
			t.Errorf("%+v, %v", have, err)
		}
		if text := string(env.Get(s, "/jobs/config").Value); text != `{"layout":"locking","max_entries":5,"max_size":100,"new":{"x":[1]},"offset":7}` {
			t.Error(text)
		}
		if err := other.Configure(env.Ctx, zkq.QueueConfig{}); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			env.Put(other, "a")
		}
		for _, bad := range []zkq.QueueConfig{{MaxEntries: -1}, {MaxSize: -1}, {MaxSize: zkq.MaxValue + 1}} {
			env.WantErr(q.Create(env.Ctx, bad), zkq.ErrInvalid)
		}
		if left := env.Children(s, "/jobs/workers"); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}

func TestAConfigurationOfAnotherVersionIsNotTouched(t *testing.T) {
	for _, text := range []string{"x", "[]", `{"max_entries":-1}`, `{"max_entries":"many"}`} {
		t.Run(text, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				s := env.Session(c)
				env.Commit(s, coord.Create("/jobs/config", []byte(text)))
				env.WantErr(q.Create(env.Ctx, zkq.QueueConfig{MaxEntries: 1}), coord.ErrFormat)
				_, err := q.Put(env.Ctx, nil)
				env.WantErr(err, coord.ErrFormat)
				if now := string(env.Get(s, "/jobs/config").Value); now != text {
					t.Error(now)
				}
			})
		})
	}
}

// An open handle notices a new bound within seconds. A finish in a bounded queue costs as much as in any other.
func TestABoundCostsOnlyPuts(t *testing.T) {
	cost := func(bounds zkq.QueueConfig) (commits, gets int) {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			c := testqueue.NewCounter(env.Client())
			q := env.QueueOn(c)
			putter, _ := env.Queue()
			env.Create(putter, bounds)
			for range 20 {
				env.Put(putter, "a")
			}
			env.Consume(env.Take(q))
			time.Sleep(time.Second)
			c.Reset()
			for range 19 {
				env.Consume(env.Take(q))
			}
			commits, gets = c.Count("commit"), c.Count("get")
		})
		return commits, gets
	}
	commits, gets := cost(zkq.QueueConfig{})
	if c, g := cost(zkq.QueueConfig{MaxEntries: 20}); c != commits || g != gets {
		t.Errorf("19 takes and finishes: %d commits and %d gets, and %d and %d with a bound", commits, gets, c, g)
	}
}

// A plain put costs one commit, and a look at the configuration now and then.
func TestAPlainPutCostsOneCommit(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		env.Put(q, "a")
		c.Reset()
		for range 100 {
			env.Put(q, "a")
			time.Sleep(10 * time.Millisecond)
		}
		if n := c.Count(); n != 100 {
			t.Errorf("100 puts cost %d requests: %v", n, c.Requests)
		}
		time.Sleep(time.Minute)
		for range 10 {
			env.Put(q, "a")
		}
		if n := c.Count("get"); n != 1 {
			t.Errorf("%d looks", n)
		}
	})
}

// The service refuses a put that read the old bound. A put that was only notified of the new bound reads it again.
func TestALowerBoundHoldsAtOnce(t *testing.T) {
	for when, is := range map[string]func(act, path string) bool{
		"before the count was read": func(act, path string) bool { return act == "get" && path == "/jobs/count" },
		"before the commit":         func(act, path string) bool { return act == "commit" && strings.Contains(path, "/zkq/producers/") },
	} {
		t.Run(when, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				c := testqueue.NewCounter(env.Client())
				q := env.QueueOn(c)
				other, _ := env.Queue()
				env.Create(q, zkq.QueueConfig{MaxEntries: 3})
				env.Put(q, "a")
				env.Consume(env.Take(other))
				c.Before(func(_ coord.Session, act, path string) {
					if is(act, path) {
						c.Before(nil)
						if err := other.Configure(env.Ctx, zkq.QueueConfig{MaxEntries: 1}); err != nil {
							t.Error(err)
						}
					}
				})
				_, err := q.PutAll(env.Ctx, make([][]byte, 2))
				env.WantErr(err, zkq.ErrTooLarge)
				if n := len(env.Entries(q)); n != 0 {
					t.Errorf("%d entries", n)
				}
				env.Put(q, "b")
			})
		})
	}
}

// TestPutAllNamesItsLimitOfEntries puts as many entries as one commit takes, and one more. The op that guards an exact
// bound leaves room for one entry less.
func TestPutAllNamesItsLimitOfEntries(t *testing.T) {
	for _, of := range []struct {
		exact bool
		limit int
	}{{false, 4095}, {true, 4094}} {
		t.Run(fmt.Sprintf("exact=%v", of.exact), func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, _ := env.Queue()
				if of.exact {
					env.Create(q, zkq.QueueConfig{MaxEntries: 10_000})
				}
				_, err := q.PutAll(env.Ctx, make([][]byte, of.limit+1))
				var limit *coord.LimitError
				if !errors.As(err, &limit) || limit.Unit != "entries" || limit.Size != of.limit+1 || limit.Limit != of.limit {
					t.Errorf("%d entries: %v; want the limit of %d", of.limit+1, err, of.limit)
				}
				if _, err := q.PutAll(env.Ctx, make([][]byte, of.limit)); err != nil {
					t.Errorf("%d entries: %v", of.limit, err)
				}
			})
		})
	}
}

// A put that a bounded queue could never take is refused at once, with both numbers. It does not wait.
func TestAPutOfMoreThanTheBoundIsRefusedAtOnce(t *testing.T) {
	for what, c := range map[string]zkq.QueueConfig{
		"exact": {MaxEntries: 3}, "approximate": {MaxEntries: 3, Approximate: true},
	} {
		t.Run(what, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, _ := env.Queue()
				env.Create(q, c)
				start := time.Now()
				_, err := q.PutAll(env.Ctx, make([][]byte, 4), zkq.WithWait(time.Hour))
				var limit *coord.LimitError
				if !errors.As(err, &limit) || limit.Size != 4 || limit.Limit != 3 || errors.Is(err, zkq.ErrFull) {
					t.Errorf("error %v, want one with 4 and 3", err)
				}
				if d := time.Since(start); d > time.Second {
					t.Errorf("it took %v", d)
				}
				target := zkq.Target{Queue: q}
				_, err = zkq.PutTo(env.Ctx, target, target, target, target)
				env.WantErr(err, zkq.ErrTooLarge)
				env.WantEmpty(q)
				if _, err := q.PutAll(env.Ctx, make([][]byte, 3)); err != nil {
					t.Error(err)
				}
				_, err = q.PutSome(env.Ctx, make([][]byte, 2))
				env.WantErr(err, zkq.ErrFull)
			})
		})
	}
}

// A stream goes into a bounded queue in order. Each commit puts as many values as there is room for.
func TestPutSomePutsAStreamInOrder(t *testing.T) {
	for what, c := range map[string]zkq.QueueConfig{
		"exact": {MaxEntries: 3}, "approximate": {MaxEntries: 3, Approximate: true}, "unbounded": {},
	} {
		t.Run(what, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				const all = 300
				q, c1 := env.Queue()
				consumer, _ := env.Queue()
				env.Create(q, c)
				watchBound(env, func(n int) {
					if c.MaxEntries > 0 && n > c.MaxEntries {
						t.Errorf("%d entries stand", n)
					}
				})
				var wg sync.WaitGroup
				wg.Go(func() {
					for i := range all {
						h := env.Take(consumer)
						if string(h.Value) != fmt.Sprint(i) {
							t.Errorf("took %q, want %d", h.Value, i)
						}
						time.Sleep(10 * time.Millisecond)
						env.Consume(h)
					}
				})
				var values [][]byte
				for i := range all {
					values = append(values, fmt.Append(nil, i))
				}
				put := 0
				for len(values) > 0 {
					if put%5 == 0 {
						c1.DropReply()
					}
					names, err := q.PutSome(env.Ctx, values, zkq.WithWait(time.Minute))
					if err != nil {
						t.Fatal(err)
					}
					if len(names) == 0 || c.MaxEntries == 0 && len(names) != all {
						t.Fatalf("%d of %d were put", len(names), len(values))
					}
					values, put = values[len(names):], put+len(names)
				}
				wg.Wait()
				env.WantEmpty(q)
			})
		})
	}
}

// The note of a PutSome tells the process that resolves it how many entries were put.
func TestPutSomeNotesHowManyItPut(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := env.Client()
		counts := testqueue.NewCounter(c)
		q := env.QueueOn(counts)
		env.Create(q, zkq.QueueConfig{MaxEntries: 2})
		env.Put(q, "a")
		note := func(n int) []byte { return fmt.Append(nil, 40+n) }
		ctx, cancel := context.WithTimeout(env.Ctx, time.Minute)
		defer cancel()
		counts.Before(func(_ coord.Session, act, path string) {
			if act == "commit" && strings.Contains(path, "/zkq/producers/") {
				counts.Before(nil)
				c.HoldReplies()
				time.AfterFunc(time.Second, cancel)
			}
		})
		_, err := q.PutSome(ctx, make([][]byte, 5), zkq.WithNoteOf(note))
		var unknown *zkq.UnknownError
		if !errors.As(err, &unknown) {
			t.Fatalf("error %v, want an unknown one", err)
		}
		c.Heal()
		if o, err := zkq.Resolve(env.Ctx, env.Client(), unknown.Token); err != nil || !o.Applied || string(o.Note) != "41" {
			t.Errorf("%+v, %v", o, err)
		}
		_, err = q.PutSome(env.Ctx, make([][]byte, 5), zkq.WithNoteOf(func(int) []byte { return make([]byte, 2000) }))
		env.WantErr(err, zkq.ErrTooLarge)
		token, err := q.NewToken(env.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, err = q.PutSome(env.Ctx, make([][]byte, 5), zkq.WithToken(token))
		env.WantErr(err, zkq.ErrInvalid)
	})
}

// A configuration prints its bounds in words that agree with their numbers.
func TestAQueueConfigPrintsItsBounds(t *testing.T) {
	for want, c := range map[string]zkq.QueueConfig{
		"any number of entries":                             {},
		"at most 1 entry":                                   {MaxEntries: 1},
		"at most 5 entries (approximately)":                 {MaxEntries: 5, Approximate: true},
		"at most 5 entries, values of at most 1 byte":       {MaxEntries: 5, MaxSize: 1},
		"any number of entries, values of at most 64 bytes": {MaxSize: 64},
	} {
		if got := c.String(); got != want {
			t.Errorf("%+v prints as %q, want %q", c, got, want)
		}
	}
}

func TestNothingIsHandedOutWhilePaused(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		admin, c := env.Queue()
		waiting, _ := env.Queue()
		trying, _ := env.Queue()
		held := env.PutAndTake(admin, "held")
		got := make(chan *zkq.Held)
		go func() {
			for h, err := range waiting.All(env.Ctx) {
				if err != nil {
					return
				}
				got <- h
			}
		}()
		synctest.Wait()
		for range 3 {
			c.DropReply()
			env.Pause(admin)
			env.Pause(admin)
			synctest.Wait()
			env.Put(admin, "a")
			env.Put(admin, "b", zkq.WithDelay(time.Second))
			time.Sleep(time.Minute)
			_, err := trying.TryTake(env.Ctx)
			env.WantErr(err, zkq.ErrPaused)
			env.WantErr(err, zkq.ErrEmpty)
			ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
			_, err = trying.Take(ctx)
			cancel()
			env.WantErr(err, context.DeadlineExceeded)
			fresh, _ := env.Queue()
			_, err = fresh.TryTake(env.Ctx)
			env.WantErr(err, zkq.ErrPaused)
			select {
			case h := <-got:
				t.Fatalf("%s was handed out", h.Name)
			default:
			}
			if st, err := admin.Stat(env.Ctx); err != nil || st.Held != 1 || st.Ready != 2 {
				t.Errorf("%+v, %v", st, err)
			}
			if c, err := fresh.Config(env.Ctx); err != nil || !c.Paused {
				t.Errorf("%+v, %v", c, err)
			}
			start := time.Now()
			env.Resume(fresh)
			for range 2 {
				env.Consume(<-got)
			}
			if d := time.Since(start); d > time.Second {
				t.Errorf("taken %v after the pause", d)
			}
		}
		env.Consume(held)
		env.WantNothingLeft(admin)
	})
}

// A take that begins while the queue is paused also goes on when the pause ends.
func TestATakeThatBeginsInAPauseGoesOnAfterIt(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		admin, _ := env.Queue()
		env.Pause(admin)
		env.Put(admin, "a")
		q, _ := env.Queue()
		got := make(chan []*zkq.Held, 1)
		go func() {
			if held, err := q.TakeN(env.Ctx, 2); err == nil {
				got <- held
			}
		}()
		time.Sleep(time.Hour)
		env.Put(admin, "b")
		env.Resume(admin)
		start := time.Now()
		if held := <-got; len(held) != 2 || time.Since(start) > time.Second {
			t.Errorf("%d entries after %v", len(held), time.Since(start))
		}
	})
}

// The handle notices a pause that began while its session was lost.
func TestAPauseIsNoticedInTheNextSession(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		admin, _ := env.Queue()
		q, c := env.Queue()
		got := make(chan *zkq.Held, 1)
		go func() {
			if h, err := q.Take(env.Ctx); err == nil {
				got <- h
			}
		}()
		synctest.Wait()
		c.Cut()
		time.Sleep(time.Second)
		env.Pause(admin)
		env.Put(admin, "a")
		time.Sleep(20 * time.Second)
		c.Heal()
		time.Sleep(time.Minute)
		if len(got) > 0 {
			t.Fatal("it was handed out")
		}
		env.Resume(admin)
		env.Consume(<-got)
	})
}

// Close ends calls that wait for the end of a pause.
func TestCloseEndsTakesThatWaitForAPause(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		env.Pause(q)
		done := make(chan error, 1)
		go func() {
			_, err := q.Take(env.Ctx)
			done <- err
		}()
		synctest.Wait()
		q.Close()
		env.WantErr(<-done, zkq.ErrClosed)
	})
}

// A handle that read the configuration for a put reads it again before it takes.
func TestTheFirstTakeOfAHandleRespectsAPause(t *testing.T) {
	takes := map[string]func(*zkq.LockingQueue, context.Context) ([]*zkq.Held, error){
		"Take":       func(q *zkq.LockingQueue, ctx context.Context) ([]*zkq.Held, error) { return q.TakeN(ctx, 1) },
		"TryTake":    func(q *zkq.LockingQueue, ctx context.Context) ([]*zkq.Held, error) { return q.TryTakeN(ctx, 1) },
		"Exchange":   func(q *zkq.LockingQueue, ctx context.Context) ([]*zkq.Held, error) { return q.Exchange(ctx, nil, 1) },
		"TryTake ×2": func(q *zkq.LockingQueue, ctx context.Context) ([]*zkq.Held, error) { return q.TryTakeN(ctx, 1) },
	}
	for how, take := range takes {
		t.Run(how, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, _ := env.Queue()
				admin, _ := env.Queue()
				if how == "TryTake ×2" {
					env.WantEmpty(q)
				}
				env.Put(q, "a")
				env.Pause(admin)
				ctx, cancel := context.WithTimeout(env.Ctx, 3*time.Second)
				defer cancel()
				if held, err := take(q, ctx); len(held) > 0 {
					t.Errorf("took %q, %v", valuesOf(held), err)
				}
			})
		})
	}
}

// lateAnswers is a coordinator that holds back the answer to a read of the configuration.
type lateAnswers struct {
	coord.Coordinator

	mu      sync.Mutex
	session *lateAnswersSession // one for each session of the service, as a driver has it
	hold    chan struct{}       // for the next read; closed when its answer is to come
}

func (c *lateAnswers) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil || c.session.Session != s {
		c.session = &lateAnswersSession{s, c}
	}
	return c.session, nil
}

func (c *lateAnswers) holdNext(hold chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold = hold
}

func (c *lateAnswers) held(path string) (hold chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if path == "/jobs/config" {
		hold, c.hold = c.hold, nil
	}
	return hold
}

type lateAnswersSession struct {
	coord.Session
	c *lateAnswers
}

func (s *lateAnswersSession) Get(ctx context.Context, path string) (coord.Node, error) {
	n, err := s.Session.Get(ctx, path)
	if hold := s.c.held(path); hold != nil {
		<-hold
	}
	return n, err
}

func TestAStaleAnswerDoesNotEndAPause(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := &lateAnswers{Coordinator: env.Client()}
		q := env.QueueOn(c)
		admin, _ := env.Queue()
		got := make(chan *zkq.Held)
		go func() {
			h, _ := q.Take(env.Ctx)
			got <- h
		}()
		synctest.Wait()
		time.Sleep(time.Second)
		hold := make(chan struct{})
		c.holdNext(hold)
		go q.Config(env.Ctx) // reads that nothing is paused
		synctest.Wait()
		env.Pause(admin)
		time.Sleep(time.Second)
		close(hold)
		synctest.Wait()
		env.Put(admin, "a")
		time.Sleep(time.Minute)
		select {
		case <-got:
			t.Error("it was handed out")
		default:
			env.Resume(admin)
			<-got
		}
	})
}

func TestAPauseIsKnownOrReportedAsUnknown(t *testing.T) {
	for _, outage := range []time.Duration{20 * time.Second, time.Hour} { // the session ends in both
		t.Run(outage.String(), func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				client := env.Client()
				c := testqueue.NewCounter(client)
				q := env.QueueOn(c)
				if _, err := q.Config(env.Ctx); err != nil {
					t.Fatal(err)
				}
				c.Before(func(_ coord.Session, act, path string) {
					if act == "commit" && strings.HasSuffix(path, "/jobs/config") {
						c.Before(nil)
						client.HoldReplies()
						time.AfterFunc(outage, client.Heal)
					}
				})
				ctx, cancel := context.WithTimeout(env.Ctx, time.Minute)
				defer cancel()
				err := q.Pause(ctx)
				other, _ := env.Queue()
				if c, err := other.Config(env.Ctx); err != nil || !c.Paused {
					t.Fatalf("%+v, %v", c, err)
				}
				if outage > time.Minute {
					env.WantErr(err, zkq.ErrUnknown)
				} else if err != nil {
					t.Error(err)
				}
				client.Heal()
			})
		})
	}
}

// The handle logs once that its takes wait, and once that they go on, however many there are.
func TestAPauseIsLogged(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		var j journal
		q, _ := env.Queue(zkq.LogTo(&j), zkq.MaxDeliveries(1))
		admin, _ := env.Queue()
		env.Pause(admin)
		got := make(chan *zkq.Held, 2)
		for range 2 {
			go func() {
				h, err := q.Take(env.Ctx)
				if err != nil {
					t.Error(err)
				}
				got <- h
			}()
		}
		synctest.Wait()
		env.Put(admin, "a")
		env.Put(admin, "b")
		env.Resume(admin)
		worn := <-got
		env.Consume(<-got)
		if err := worn.Fail(env.Ctx, "no"); err != nil {
			t.Fatal(err)
		}
		env.WantEmpty(q)
		told := strings.Join(j.lines, "")
		for _, want := range []string{"warn queue is paused", "info queue is resumed", "error entry is dead"} {
			if strings.Count(told, want) != 1 {
				t.Errorf("the log %q does not have %q once", told, want)
			}
		}
	})
}

const alice, bob = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

func TestARegisteredHandleIsAmongTheWorkersWithWhatItHolds(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue(zkq.Holder(alice))
		other, _ := env.Queue(zkq.Holder(bob))
		if ws := env.Workers(q); len(ws) != 0 {
			t.Fatalf("of a queue without nodes: %+v", ws)
		}
		for range 3 {
			env.Put(q, "v")
		}
		before := time.Now()
		env.Register(q)
		time.Sleep(time.Second)
		env.Register(q)
		env.Take(q)
		env.Take(q)
		env.Take(other) // which never registered
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		ws := env.Workers(other)
		if len(ws) != 2 {
			t.Fatalf("workers: %+v", ws)
		}
		if want := (zkq.WorkerInfo{Holder: alice, Host: host, PID: os.Getpid(), Started: before.UTC(), Entries: 2}); ws[0].Holder != want.Holder ||
			ws[0].Host != want.Host || ws[0].PID != want.PID || !ws[0].Started.Equal(before) || ws[0].Entries != 2 {
			t.Errorf("the first is %+v, want %+v", ws[0], want)
		}
		if want := (zkq.WorkerInfo{Holder: bob, Entries: 1}); ws[1] != want {
			t.Errorf("the second is %+v, want %+v", ws[1], want)
		}
	})
}

func TestAWorkerThatOnlyWaitsIsAmongTheWorkers(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue(zkq.Holder(alice))
		watcher, _ := env.Queue()
		k := startWorker(env, &zkq.Worker{Queue: q, Handler: &noting{}})
		time.Sleep(time.Second)
		if ws := env.Workers(watcher); len(ws) != 1 || ws[0].Holder != alice || ws[0].Entries != 0 || ws[0].PID == 0 {
			t.Errorf("workers: %+v", ws)
		}
		k.stopCleanly()
	})
}

func TestAWorkerIsUnregisteredWithItsHandleOrSession(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue(zkq.Holder(alice))
		killed, c := env.Queue(zkq.Holder(bob))
		watcher, _ := env.Queue()
		env.Register(q)
		env.Register(killed)
		if ws := env.Workers(watcher); len(ws) != 2 || ws[0].Holder != alice || ws[1].Holder != bob {
			t.Fatalf("workers: %+v", ws)
		}
		q.Close()
		c.Close()
		if ws := env.Workers(watcher); len(ws) != 0 {
			t.Fatalf("workers that are gone: %+v", ws)
		}
	})
}

func TestAWorkerRegistersAgainInItsNextSession(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue(zkq.Holder(alice))
		watcher, _ := env.Queue()
		env.Register(q)
		c.Expire()
		synctest.Wait()
		if ws := env.Workers(watcher); len(ws) != 0 {
			t.Fatalf("workers of an expired session: %+v", ws)
		}
		env.Put(q, "v")
		env.Take(q)
		if ws := env.Workers(watcher); len(ws) != 1 || ws[0].Holder != alice || ws[0].Entries != 1 || ws[0].PID == 0 {
			t.Fatalf("workers: %+v", ws)
		}
	})
}

// The service has not yet ended the handle's earlier session.
func TestAWorkersNodeOfAnEarlierSessionIsReplaced(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		old := env.Session(env.Client())
		env.Commit(old, coord.CreateEphemeral("/jobs/workers/"+alice, []byte(`{"host":"old","pid":1}`)))
		q, c := env.Queue(zkq.Holder(alice))
		env.Register(q)
		n := env.Get(env.Session(c), "/jobs/workers/"+alice)
		if n.Owner != env.Session(c).ID() || strings.Contains(string(n.Value), `"old"`) {
			t.Fatalf("the node is %s of %s", n.Value, n.Owner)
		}
	})
}

func TestRegisteringAgainCostsNothing(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		env.Register(q)
		c.Reset()
		env.Register(q)
		if n := c.Count(); n != 0 {
			t.Fatalf("%d requests: %v", n, c.Requests)
		}
	})
}

func TestASingleTakeDoesNotRegisterAWorker(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "a")
		env.Put(q, "b")
		h, err := q.TryTake(env.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		env.Consume(h)
		if nodes := env.Children(env.Session(c), "/jobs/workers"); len(nodes) != 0 {
			t.Fatalf("a take registered %q", nodes)
		}
		for h, err := range q.All(env.Ctx) {
			if err != nil {
				t.Fatal(err)
			}
			env.Consume(h)
			break
		}
		if nodes := env.Children(env.Session(c), "/jobs/workers"); len(nodes) != 1 {
			t.Fatalf("All registered %q", nodes)
		}
	})
}

// withoutRegistration is a coordinator that refuses to create nodes among the workers.
type withoutRegistration struct{ coord.Coordinator }

type withoutRegistrationSession struct{ coord.Session }

func (c withoutRegistration) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	return withoutRegistrationSession{s}, err
}

func (s withoutRegistrationSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	if strings.HasPrefix(ops[0].Path, "/jobs/workers/") {
		return nil, coord.ErrForbidden
	}
	return s.Session.Commit(ctx, ops...)
}

func TestWorkGoesOnWhereRegisteringIsForbidden(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q := env.QueueOn(withoutRegistration{env.Client()})
		env.Register(q)
		env.Put(q, "v")
		env.Consume(env.Take(q))
	})
}

func TestForeignNodesAmongTheWorkersAreIgnored(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Commit(env.Session(c), coord.Create("/jobs/workers/"+alice, []byte(`{"host":"h","pid":1}`)))
		env.Commit(env.Session(c), coord.CreateEphemeral("/jobs/workers/"+bob, nil))
		env.Commit(env.Session(c), coord.CreateEphemeral("/jobs/workers/x", []byte(`[1`)))
		if ws := env.Workers(q); len(ws) != 0 {
			t.Fatalf("workers: %+v", ws)
		}
	})
}

func TestAQueueWithNothingButWorkersIsFound(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Register(q)
		queues, err := zkq.Queues(env.Ctx, c)
		if err != nil || len(queues) != 1 || queues[0] != "/jobs" {
			t.Fatalf("Queues = %q, %v", queues, err)
		}
	})
}

func TestWorkersOfAClosedHandleAreRefused(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		q.Close()
		if _, err := q.Workers(env.Ctx); !errors.Is(err, zkq.ErrClosed) {
			t.Errorf("Workers: %v", err)
		}
		env.WantErr(q.Register(env.Ctx), zkq.ErrClosed)
	})
}
