package zkq_test

import (
	"context"
	"errors"
	"fmt"
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

// watchBound calls f with each number of entries and delayed puts that there is.
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

// Sixteen producers, some of whose answers are lost, put whatever they can while others
// finish, give back, and put for later.
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

func TestWhatHasExpiredMakesRoom(t *testing.T) {
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

// A handle that is open hears of a bound within seconds, and a finish of a bounded queue
// costs what it costs of any.
func TestABoundCostsThePutterAndNobodyElse(t *testing.T) {
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

// What uses nothing of all this costs, besides the put, a look at the configuration now
// and then.
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

// A put that has read the old bound is refused by the service; one that has only heard
// of it reads it anew.
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

// TestPutAllNamesItsLimitOfEntries puts as much as one commit takes, and one entry more: the
// op that guards an exact bound leaves room for one entry less.
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

// More than a bounded queue ever takes is refused at once, with both numbers, and is not
// waited for.
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

// A stream goes into a bounded queue in order, a commit for as much as there is room for.
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
func TestTheNoteOfAPutOfSomeSaysHowMany(t *testing.T) {
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

// Bounds are told in words that agree with their numbers.
func TestBoundsAreToldInWords(t *testing.T) {
	for want, c := range map[string]zkq.QueueConfig{
		"any number of entries":                             {},
		"at most 1 entry":                                   {MaxEntries: 1},
		"at most 5 entries (approximately)":                 {MaxEntries: 5, Approximate: true},
		"at most 5 entries, values of at most 1 byte":       {MaxEntries: 5, MaxSize: 1},
		"any number of entries, values of at most 64 bytes": {MaxSize: 64},
	} {
		if got := c.String(); got != want {
			t.Errorf("%+v is told as %q, want %q", c, got, want)
		}
	}
}
