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
	"github.com/zkq/zkq/internal/testqueue"
)

// laneNodes returns the paths of all lanes.
func laneNodes(env *testqueue.Env, s coord.Session) []string {
	env.Helper()
	return env.Children(s, "/zkq/producers")
}

// putUnknown makes a put that gets no answer within a second, and returns its token.
func putUnknown(env *testqueue.Env, q *zkq.LockingQueue, value string, opts ...zkq.PutOption) zkq.Token {
	env.Helper()
	ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
	defer cancel()
	_, err := q.Put(ctx, []byte(value), opts...)
	var unknown *zkq.UnknownError
	if !errors.As(err, &unknown) || !errors.Is(err, zkq.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		env.Fatalf("Put: %v, want an UnknownError of a deadline", err)
	}
	if !strings.Contains(err.Error(), string(unknown.Token)) {
		env.Errorf("%q does not name the token %s", err, unknown.Token)
	}
	return unknown.Token
}

func resolveToken(env *testqueue.Env, t zkq.Token) zkq.Outcome {
	env.Helper()
	o, err := zkq.Resolve(env.Ctx, env.Client(), t)
	if err != nil {
		env.Fatalf("Resolve(%s): %v", t, err)
	}
	return o
}

func TestPutIsAppliedOnceWhateverAnswersAreLost(t *testing.T) {
	for _, faults := range []string{"", "a", "r", "rr", "ra", "ar", "aaaa", "rrra", "pa", "pr", "prra", "pba", "pab"} {
		t.Run(faults, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				env.Session(c)
				for _, f := range faults { // the first commit opens the lane
					switch f {
					case 'a':
						c.DropReply()
					case 'r':
						c.DropRequest()
					case 'b':
						c.Refuse(coord.ErrBusy)
					case 'p':
						c.Pass()
					}
				}
				names, err := q.PutAll(env.Ctx, [][]byte{[]byte("1"), []byte("2"), []byte("3")})
				if err != nil {
					t.Fatal(err)
				}
				var want []string
				for _, e := range env.Entries(q) {
					want = append(want, e.Name)
				}
				if !slices.Equal(names, want) || len(want) != 3 {
					t.Fatalf("PutAll = %q, there are %q", names, want)
				}
			})
		})
	}
}

func TestUnknownPutIsResolvedByAnyProcess(t *testing.T) {
	for _, applied := range []bool{true, false} {
		t.Run(fmt.Sprint("applied ", applied), func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				env.Put(q, "first")
				if applied {
					c.HoldReplies()
				} else {
					c.HoldRequests()
				}
				token := putUnknown(env, q, "second", zkq.WithNote([]byte("a b")))
				for range 2 {
					o := resolveToken(env, token)
					if o.Applied != applied || applied && string(o.Note) != "a b" {
						t.Fatalf("Resolve = %+v", o)
					}
				}
				// A request that is still in flight comes too late.
				c.Heal()
				synctest.Wait()
				want := []string{"first"}
				if applied {
					want = append(want, "second")
				}
				if got := env.Values(q); !slices.Equal(got, want) {
					t.Fatalf("there are %q, want %q", got, want)
				}
				env.Put(q, "third")
				if got := env.Values(q); !slices.Equal(got, append(want, "third")) {
					t.Fatalf("there are %q", got)
				}
			})
		})
	}
}

func TestUnknownPutIsResolvedAfterItsSessionAndProcess(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "first")
		c.HoldReplies()
		token := putUnknown(env, q, "second")
		c.Crash()
		time.Sleep(time.Hour)
		if o := resolveToken(env, token); !o.Applied {
			t.Fatalf("Resolve = %+v", o)
		}
	})
}

func TestPutMadeAgainWithItsTokenIsTheSame(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		token, err := q.NewToken(env.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		name := env.Put(q, "once", zkq.WithToken(token))
		c.Crash()
		again, _ := env.Queue()
		for range 2 {
			if got := env.Put(again, "once", zkq.WithToken(token)); got != name {
				t.Fatalf("put again: %s, was %s", got, name)
			}
		}
		if got := env.Values(again); !slices.Equal(got, []string{"once"}) {
			t.Fatalf("there are %q", got)
		}
		env.Consume(env.Take(again))
		if got := env.Put(again, "once", zkq.WithToken(token)); got != "" {
			t.Fatalf("put again after its end: %q", got)
		}
		env.WantEmpty(again)
	})
}

func TestPutsOfOneTokenAtOnceAreOne(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		token, err := q.NewToken(env.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		names := make([]string, 8)
		var wg sync.WaitGroup
		for i := range names {
			other, c := env.Queue()
			env.Session(c)
			if i%2 == 0 {
				c.DropReply()
			}
			wg.Go(func() { names[i] = env.Put(other, "once", zkq.WithToken(token)) })
		}
		wg.Wait()
		if got := env.Entries(q); len(got) != 1 || len(slices.Compact(names)) != 1 || names[0] != got[0].Name {
			t.Fatalf("put as %q, there are %v", names, got)
		}
	})
}

func TestVoidTokenPutsNothing(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		token, err := q.NewToken(env.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		if o := resolveToken(env, token); o.Applied {
			t.Fatalf("Resolve = %+v of a put that was not made", o)
		}
		_, err = q.Put(env.Ctx, []byte("late"), zkq.WithToken(token))
		env.WantErr(err, zkq.ErrTokenVoid)
		env.WantEmpty(q)
	})
}

func TestAForgottenTokenIsExpiredAndNeverNotApplied(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		token, err := q.NewToken(env.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := zkq.Forget(env.Ctx, c, token, token); err != nil {
			t.Fatal(err)
		}
		_, err = zkq.Resolve(env.Ctx, c, token)
		env.WantErr(err, zkq.ErrTokenExpired)
		_, err = q.Put(env.Ctx, []byte("late"), zkq.WithToken(token))
		env.WantErr(err, zkq.ErrTokenExpired)
		env.WantEmpty(q)
		for _, bad := range []zkq.Token{"x", "0123456789abcdef-00-0", "0123456789abcdef-0-1", "0123456789ABCDEF-00-1", token + "x"} {
			_, err := zkq.Resolve(env.Ctx, c, bad)
			env.WantErr(err, zkq.ErrInvalid)
			_, err = q.Put(env.Ctx, []byte("bad"), zkq.WithToken(bad))
			env.WantErr(err, zkq.ErrInvalid)
		}
	})
}

// A lane is used again once the outcome was reported. It can no longer be looked up then.
func TestTokenOfAnEarlierPutIsExpired(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue(zkq.Producer("0123456789abcdef"))
		env.Put(q, "first")
		env.Put(q, "second")
		_, err := zkq.Resolve(env.Ctx, c, "0123456789abcdef-00-1")
		env.WantErr(err, zkq.ErrTokenExpired)
		if o := resolveToken(env, "0123456789abcdef-00-2"); !o.Applied {
			t.Fatalf("Resolve = %+v", o)
		}
		_, err = zkq.Resolve(env.Ctx, c, "0123456789abcdef-00-4")
		env.WantErr(err, zkq.ErrInvalid)
		lanes := laneNodes(env, env.Session(c))
		env.WantErr(zkq.Forget(env.Ctx, c, "0123456789abcdef-00-4"), zkq.ErrInvalid)
		if err := zkq.Forget(env.Ctx, c, "0123456789abcdef-00-1"); err != nil {
			t.Fatal(err)
		}
		if left := laneNodes(env, env.Session(c)); !slices.Equal(left, lanes) {
			t.Fatalf("lanes %q, were %q", left, lanes)
		}
		env.Put(q, "third")
	})
}

func TestCloseRemovesLanesButThoseInDoubt(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		var wg sync.WaitGroup
		env.Put(q, "first")
		c.HoldReplies()
		for i := range 149 { // more than one series names
			wg.Go(func() { env.Put(q, fmt.Sprint(i)) })
		}
		synctest.Wait()
		c.Heal()
		wg.Wait()
		if n, err := q.Len(env.Ctx); n != 150 || err != nil {
			t.Fatalf("Len = %d, %v", n, err)
		}
		if n := len(laneNodes(env, env.Session(c))); n != 128 { // as many as a handle has
			t.Fatalf("%d lanes", n)
		}
		c.HoldReplies()
		token := putUnknown(env, q, "doubt")
		c.Heal()
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		s := env.Session(env.Client())
		if left := laneNodes(env, s); len(left) != 1 || !strings.HasPrefix(string(token), strings.TrimPrefix(left[0], "/zkq/producers/")) {
			t.Fatalf("lanes left: %q, in doubt is %s", left, token)
		}
		if o := resolveToken(env, token); !o.Applied {
			t.Fatalf("Resolve = %+v", o)
		}
	})
}

func TestAbandonedLanesGoAfterADayOrTwo(t *testing.T) {
	for _, by := range []string{"a handle that lives long", "hand"} {
		t.Run(by, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				dead, c := env.Queue()
				env.Put(dead, "a")
				token, err := dead.NewToken(env.Ctx)
				if err != nil {
					t.Fatal(err)
				}
				c.Crash()
				alive, c := env.Queue()
				seldom, _ := env.Queue()
				env.Put(seldom, "b")
				for hour := range 51 {
					if by == "hand" {
						if err := zkq.Sweep(env.Ctx, c); err != nil {
							t.Fatal(err)
						}
					} else {
						env.Put(alive, "c")
					}
					synctest.Wait()
					if hour < 24 { // the first makes it void: no later one writes to it
						resolveToken(env, token)
					}
					time.Sleep(time.Hour)
				}
				_, err = zkq.Resolve(env.Ctx, c, token)
				env.WantErr(err, zkq.ErrTokenExpired)
				env.Put(seldom, "its lane is gone too")
				if n := len(laneNodes(env, env.Session(c))); n > 2 {
					t.Fatalf("%d lanes left", n)
				}
			})
		})
	}
}

func TestPutGoesOnWhenItsLaneWasRemoved(t *testing.T) {
	for _, fault := range []string{"none", "reply", "request"} {
		t.Run(fault, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				env.Put(q, "a")
				s := env.Session(env.Client())
				lane := laneNodes(env, s)[0]
				env.Commit(s, coord.Delete(lane, env.Get(s, lane).Fence))
				switch fault {
				case "reply":
					c.DropReply()
				case "request":
					c.DropRequest()
				}
				_, err := q.Put(env.Ctx, []byte("b"))
				// The outcome of a request that cannot be looked up is never guessed.
				if fault == "none" {
					env.WantErr(err, nil)
				} else {
					env.WantErr(err, zkq.ErrUnknown)
					env.WantErr(err, zkq.ErrTokenExpired)
				}
				env.Put(q, "c")
			})
		})
	}
}

func TestNoteAndBatchHaveTheirLimits(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		_, err := q.Put(env.Ctx, nil, zkq.WithNote(make([]byte, zkq.MaxNote+1)))
		env.WantErr(err, zkq.ErrTooLarge)
		limit := env.Session(c).Limits().Creates - 1
		_, err = q.PutAll(env.Ctx, make([][]byte, limit+1))
		if le := (*coord.LimitError)(nil); !errors.As(err, &le) || le.Size != limit+1 || le.Limit != limit || le.Unit != "entries" {
			t.Fatalf("PutAll: %v", err)
		}
		if n := len(laneNodes(env, env.Session(c))); n != 0 {
			t.Fatalf("%d lanes after puts that were refused", n)
		}
		if names, err := q.PutAll(env.Ctx, make([][]byte, limit)); len(names) != limit || err != nil {
			t.Fatalf("PutAll of %d: %v", limit, err)
		}
	})
}

func TestGetOfAPlainQueueLosesNothingWithTheAnswer(t *testing.T) {
	for _, fault := range []func(*coordtest.Coordinator){(*coordtest.Coordinator).DropReply, (*coordtest.Coordinator).DropRequest} {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			c := env.Client()
			q := zkq.NewQueue(c, "plain")
			defer q.Close()
			for i := range 3 {
				env.Put(q, fmt.Sprint(i))
			}
			for i := range 3 {
				fault(c)
				if e, err := q.Get(env.Ctx); string(e.Value) != fmt.Sprint(i) || err != nil {
					t.Fatalf("Get = %q, %v", e.Value, err)
				}
			}
		})
	}
}

func TestUnknownGetOfAPlainQueueIsResolved(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := env.Client()
		q := zkq.NewQueue(c, "plain")
		defer q.Close()
		env.Put(q, "a")
		for range 50 {
			c.DropReply()
		}
		ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
		defer cancel()
		e, err := q.TryGet(ctx)
		env.WantErr(err, zkq.ErrUnknown)
		var unknown *zkq.UnknownError
		if !errors.As(err, &unknown) {
			t.Fatalf("TryGet: %v", err)
		}
		if o := resolveToken(env, unknown.Token); !o.Applied || string(e.Value) != "a" {
			t.Fatalf("Resolve = %+v of %q", o, e.Value)
		}
	})
}

// A lane that was idle for a day is swept. No token loses its put with it.
func TestUnknownPutIsResolvedThoughItsHandleWasIdle(t *testing.T) {
	for _, idle := range []time.Duration{time.Minute, 20 * time.Minute, 23 * time.Hour, 25 * time.Hour, 49 * time.Hour} {
		t.Run(idle.String(), func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				link := &heldBackPuts{Coordinator: env.Client()}
				link.open.Store(true)
				q := env.QueueOn(link)
				sweeper := env.Client()
				sweep := func() {
					if err := zkq.Sweep(env.Ctx, sweeper); err != nil {
						t.Fatal(err)
					}
				}
				sweep()
				env.Put(q, "first")
				for range int(idle / time.Minute) {
					time.Sleep(time.Minute)
					sweep()
				}
				link.open.Store(false)
				token := putUnknown(env, q, "second")
				for range 24 * 60 {
					time.Sleep(time.Minute - time.Second/30) // a day less a bit
					sweep()
				}
				if o := resolveToken(env, token); o.Applied {
					t.Fatalf("Resolve = %+v", o)
				}
			})
		})
	}
}

// Tokens that were not forgotten are swept, even if all puts of the handle have a token.
func TestHandlesThatPutWithTokensOnlySweep(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		for range 200 {
			token, err := q.NewToken(env.Ctx)
			if err != nil {
				t.Fatal(err)
			}
			env.Put(q, "a", zkq.WithToken(token))
			time.Sleep(time.Hour)
		}
		if n := len(laneNodes(env, env.Session(c))); n > 55 {
			t.Fatalf("%d lanes left", n)
		}
	})
}

// A foreign value in a lane does not disturb later puts.
func TestALaneWithAForeignValueIsKept(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "a")
		s := env.Session(c)
		lane := laneNodes(env, s)[0]
		env.Commit(s, coord.Set(lane, []byte("2 of a later version"), env.Get(s, lane).Fence))
		env.Put(q, "b")
		env.Put(q, "c")
		if got := env.Values(q); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Fatalf("there are %q", got)
		}
	})
}

func TestInvalidTokensAndProducersAreRefused(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		_, err := q.Put(env.Ctx, []byte("a"), zkq.WithToken(""))
		env.WantErr(err, zkq.ErrInvalid)
		for _, id := range []string{"me", "0123456789ABCDEF", "0123456789abcdef0", "a/b"} {
			bad := env.QueueOn(c, zkq.Producer(id))
			_, err := bad.Put(env.Ctx, []byte("a"))
			env.WantErr(err, zkq.ErrInvalid)
			_, err = bad.NewToken(env.Ctx)
			env.WantErr(err, zkq.ErrInvalid)
		}
		env.WantEmpty(q)
	})
}

// heldBackPuts is a coordinator that holds puts back, so that they can be applied later from what their callers passed.
type heldBackPuts struct {
	coord.Coordinator
	open atomic.Bool // lets them through
	kept atomic.Pointer[[]coord.Op]
}

type heldBackPutsSession struct {
	coord.Session
	c *heldBackPuts
}

func (c *heldBackPuts) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	return heldBackPutsSession{s, c}, err
}

func (s heldBackPutsSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	if len(ops) == 1 || s.c.open.Load() { // one opens a lane
		return s.Session.Commit(ctx, ops...)
	}
	s.c.kept.Store(&ops)
	<-ctx.Done()
	return nil, fmt.Errorf("%w: %w", coord.ErrUnknown, ctx.Err())
}

func TestValueMayBeWrittenOverWhenItsPutReturned(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		late := &heldBackPuts{Coordinator: env.Client()}
		q := env.QueueOn(late)
		ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
		defer cancel()
		value := []byte("mine")
		_, err := q.Put(ctx, value)
		env.WantErr(err, zkq.ErrUnknown)
		copy(value, "next")
		env.Commit(env.Session(late.Coordinator), *late.kept.Load()...)
		if got := env.Values(q); !slices.Equal(got, []string{"mine"}) {
			t.Fatalf("there are %q", got)
		}
	})
}

// The put waited either for an answer or for its next attempt.
func TestUnknownPutSaysWhatEndedIt(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Put(q, "first")
		for range 50 {
			c.DropRequest()
		}
		if o := resolveToken(env, putUnknown(env, q, "second")); o.Applied {
			t.Fatalf("Resolve = %+v", o)
		}
		q, c = env.Queue()
		env.Put(q, "third")
		time.AfterFunc(time.Second, func() { q.Close() })
		for range 50 {
			c.DropRequest()
		}
		_, err := q.Put(env.Ctx, []byte("fourth"))
		env.WantErr(err, zkq.ErrUnknown)
		env.WantErr(err, zkq.ErrClosed)
	})
}

// A handle leaves a bounded number of lanes, however many puts run at once.
func TestManyPutsAtOnceShareTheirLanes(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const puts, most = 5000, 128
		q, c := env.Queue()
		env.Put(q, "first")
		c.HoldRequests() // so that many puts are in flight, however the goroutines are scheduled
		var wg sync.WaitGroup
		for range puts {
			wg.Go(func() {
				if _, err := q.Put(env.Ctx, nil); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Second)
		c.Heal()
		wg.Wait()
		if n := len(env.Children(env.Session(c), "/zkq/producers")); n > most || n < 16 {
			t.Errorf("%d lanes", n)
		}
		if n, err := q.Len(env.Ctx); err != nil || n != 1+puts {
			t.Errorf("%d entries, %v", n, err)
		}
		// A put that waits for a lane ends with its context.
		c.HoldReplies()
		ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
		defer cancel()
		for range 2 * most {
			wg.Go(func() {
				if _, err := q.Put(ctx, nil); err == nil {
					t.Error("a put without an answer succeeded")
				}
			})
		}
		wg.Wait()
		c.Heal()
		env.Put(q, "last")
	})
}

// A handle that only polls forgets the entries it took, even if it waited for one once.
func TestAHandleThatPollsForgetsWhatItTook(t *testing.T) {
	for how, first := range map[string]func(env *testqueue.Env, q *zkq.LockingQueue) *zkq.Held{
		"polls only": func(env *testqueue.Env, q *zkq.LockingQueue) *zkq.Held {
			h, err := q.TryTake(env.Ctx)
			env.WantErr(err, nil)
			return h
		},
		"waited once": func(env *testqueue.Env, q *zkq.LockingQueue) *zkq.Held { return env.Take(q) },
	} {
		t.Run(how, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, _ := env.Queue()
				env.Put(q, "")
				env.Consume(first(env, q))
				for range 10_000 {
					env.Put(q, "")
					h, err := q.TryTake(env.Ctx)
					if err != nil {
						t.Fatal(err)
					}
					env.Consume(h)
					time.Sleep(100 * time.Millisecond)
				}
				if n := zkq.Remembered(q); n > 1024 {
					t.Errorf("it remembers %d entries", n)
				}
			})
		})
	}
}

// A key is free again once its entry is gone, whichever way that happens.
func TestAUniqueKeyGoesWithItsEntry(t *testing.T) {
	for way, remove := range map[string]func(env *testqueue.Env, q *zkq.LockingQueue, name string) error{
		"consume": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error { return env.Take(q).Consume(env.Ctx) },
		"bury":    func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error { return env.Take(q).Bury(env.Ctx, "") },
		"rm": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error {
			return q.Remove(env.Ctx, name, false)
		},
		"rm --force": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error {
			env.Take(q)
			return q.Remove(env.Ctx, name, true)
		},
		"purge": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error { return env.Purge(q, zkq.StateReady, 1) },
		"purge held": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error {
			env.Take(q)
			return env.Purge(q, zkq.StateHeld, 1)
		},
		"rm of aside": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error {
			env.Release(env.Take(q), zkq.After(time.Hour))
			return q.Remove(env.Ctx, name, false)
		},
		"a failure and a consume": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error {
			env.Fail(env.Take(q), "no", zkq.After(time.Minute))
			env.WantRefused(q, "k", name)
			return env.TakeWithin(q, 2*time.Minute).Consume(env.Ctx)
		},
	} {
		t.Run(way, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, _ := env.Queue()
				other, _ := env.Queue()
				for range 2 {
					name := env.Put(q, "a", zkq.WithUnique("k"))
					env.WantRefused(q, "k", name)
					env.WantRefused(other, "k", name)
					env.WantErr(remove(env, q, name), nil)
					env.Put(other, "another", zkq.WithUnique("another"))
					env.WantErr(env.Take(other).Consume(env.Ctx), nil)
				}
				env.WantNothingLeft(q)
			})
		})
	}
}

func TestTwentyPutsOfOneKeyAtOnceAreOne(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const n = 20
		var wg sync.WaitGroup
		errs, names := make([]error, n), make([]string, n)
		for i := range n {
			q, c := env.Queue()
			if i%3 == 0 {
				c.DropReply()
			}
			wg.Go(func() {
				names[i], errs[i] = q.Put(env.Ctx, []byte(fmt.Sprint(i)), zkq.WithUnique("k"))
			})
		}
		wg.Wait()
		var put string
		for i, err := range errs {
			if err == nil {
				if put != "" {
					t.Errorf("%s and %s were put", put, names[i])
				}
				put = names[i]
			}
		}
		for _, err := range errs {
			if exists := (*zkq.ExistsError)(nil); err != nil && (!errors.As(err, &exists) || exists.Name != put) {
				t.Errorf("%v, and the key is that of %s", err, put)
			}
		}
		q, _ := env.Queue()
		if es := env.Entries(q); put == "" || len(es) != 1 || es[0].Name != put {
			t.Errorf("%s was put, and there are %v", put, es)
		}
	})
}

// A key belongs to a delayed put, and then to the entry that the put becomes.
func TestADelayedPutKeepsItsKey(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		name := env.Put(q, "a", zkq.WithUnique("k"), zkq.WithDelay(time.Minute))
		env.WantRefused(q, "k", name)
		if err := q.Remove(env.Ctx, name, false); err != nil {
			t.Fatal(err)
		}
		name = env.Put(q, "a", zkq.WithUnique("k"), zkq.WithDelay(time.Minute))
		env.WantRefused(q, "k", name)
		c.DropReply()
		h := env.TakeWithin(q, 2*time.Minute)
		if h.Name == name {
			t.Fatal(name)
		}
		env.WantRefused(q, "k", h.Name)
		env.Consume(h)
		env.WantNothingLeft(q)
		env.Put(q, "a", zkq.WithUnique("k"), zkq.WithDelay(time.Hour))
		env.WantErr(env.Purge(q, zkq.StateDelayed, 1), nil)
		env.Put(q, "a", zkq.WithUnique("k"), zkq.WithDelay(time.Hour), zkq.WithTTL(time.Minute))
		time.Sleep(2 * time.Hour)
		env.WantEmpty(q)
		env.WantNothingLeft(q)
	})
}

// kazoo's consume does not remove keys.
func TestAKeyWithoutAnEntryIsFree(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		s := env.Session(c)
		for range 3 {
			name := env.Put(q, "a", zkq.WithUnique("k"))
			n := env.Get(s, "/jobs/entries/"+name)
			env.Commit(s, coord.Delete(n.Path, n.Fence))
		}
		name := env.Put(q, "a", zkq.WithUnique("k"))
		env.WantRefused(q, "k", name)
		// The same with a key node that another client wrote: the put looks for its entry among all entries.
		env.Put(q, "b")
		key := env.Children(s, "/jobs/unique")[0]
		n := env.Get(s, key)
		env.Commit(s, coord.Set(key, n.Value, n.Fence))
		env.WantRefused(q, "k", name)
		env.Consume(env.Take(q))
		env.Consume(env.Take(q))
		env.WantNothingLeft(q)
	})
}

func TestLostRepliesOfUniquePutsPutOnce(t *testing.T) {
	for name, lose := range testqueue.Losses {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				other, _ := env.Queue()
				lose(c)
				name := env.Put(q, "a", zkq.WithUnique("k"))
				lose(c)
				env.WantRefused(q, "k", name)
				env.WantRefused(other, "k", name)
				lose(c)
				env.Consume(env.Take(q))
				env.WantNothingLeft(q)
			})
		})
	}
}

// A refused put stays refused. An attempt that is still in flight when the key becomes free is not applied.
func TestAPutThatWasRefusedIsNotAppliedLater(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		other, _ := env.Queue()
		standing := env.Put(other, "standing", zkq.WithUnique("k"))
		env.Put(q, "a lane")
		voids := 0
		env.Store.Observe(func(a coordtest.Applied) {
			for _, op := range a.Ops {
				if strings.HasPrefix(op.Path, "/zkq/producers/") && strings.Contains(string(op.Value), "void") {
					voids++
				}
			}
		})
		c.DropRequest() // lost, or late: the putter cannot know
		env.WantRefused(q, "k", standing)
		if voids != 1 {
			t.Errorf("%d lanes have moved on", voids)
		}
		// A put whose answer came costs nothing more.
		env.WantRefused(q, "k", standing)
		if voids != 1 {
			t.Errorf("%d lanes have moved on", voids)
		}
	})
}

func TestUniquePutsAreMadeAgainWithTheirToken(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		token, err := q.NewToken(env.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		name := env.Put(q, "a", zkq.WithUnique("k"), zkq.WithToken(token))
		if again := env.Put(q, "a", zkq.WithUnique("k"), zkq.WithToken(token)); again != name {
			t.Errorf("put again is %s, and was %s", again, name)
		}
		env.WantRefused(q, "k", name)
	})
}

func TestInvalidUniquePutsAreRefused(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		_, err := q.PutAll(env.Ctx, make([][]byte, 2), zkq.WithUnique("k"))
		env.WantErr(err, zkq.ErrInvalid)
		_, err = q.Put(env.Ctx, nil, zkq.WithUnique(strings.Repeat("k", zkq.MaxKey+1)))
		env.WantErr(err, zkq.ErrTooLarge)
		_, err = q.Put(env.Ctx, nil, zkq.WithTTL(1<<63-1))
		env.WantErr(err, zkq.ErrInvalid)
		env.WantRefused(q, "", env.Put(q, "a", zkq.WithUnique("")))
		plain := zkq.NewQueue(c, "plain")
		defer plain.Close()
		for _, opt := range []zkq.PutOption{zkq.WithUnique("k"), zkq.WithTTL(time.Second), zkq.WithWait(time.Second)} {
			_, err := plain.Put(context.Background(), nil, opt)
			env.WantErr(err, zkq.ErrInvalid)
		}
	})
}

// errFullService is the error of a service without space.
var errFullService = fmt.Errorf("no space on the third disk: %w", coord.ErrBusy)

// fullService is a coordinator that refuses commits for lack of space.
type fullService struct {
	coord.Coordinator
	full     atomic.Bool // refuses each commit
	putsOnly bool        // refuses only those that create entries or lanes

	mu   sync.Mutex
	last *fullSession
}

type fullSession struct {
	coord.Session
	c *fullService
}

func (c *fullService) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil || c.last.Session != s {
		c.last = &fullSession{s, c}
	}
	return c.last, nil
}

func (s *fullSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	put := slices.ContainsFunc(ops, func(op coord.Op) bool { return strings.HasPrefix(op.Path, "/zkq/producers/") })
	if s.c.full.Load() && (put || !s.c.putsOnly) {
		return nil, errFullService
	}
	return s.Session.Commit(ctx, ops...)
}

// warnings returns the lines of a journal at level warn.
func (j *journal) warnings() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(j.lines), func(line string) bool { return !strings.HasPrefix(line, "warn ") })
}

// wantWarnings requires that there are as many warnings, and checks how each begins.
func wantWarnings(env *testqueue.Env, j *journal, begin ...string) {
	env.Helper()
	got := j.warnings()
	if len(got) != len(begin) {
		env.Fatalf("warnings %q, want those that begin with %q", got, begin)
	}
	for i, line := range got {
		if !strings.HasPrefix(line, "warn "+begin[i]) {
			env.Fatalf("warnings %q, want those that begin with %q", got, begin)
		}
	}
}

func TestAPutToAFullServiceNamesTheCauseAndTheEndOfItsTime(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := &fullService{Coordinator: env.Client()}
		q := env.QueueOn(c)
		for _, first := range []bool{true, false} { // without a lane, and with one
			c.full.Store(true)
			ctx, cancel := context.WithTimeout(env.Ctx, 3*time.Second)
			_, err := q.Put(ctx, []byte("x"))
			cancel()
			for _, want := range []error{context.DeadlineExceeded, coord.ErrBusy, errFullService} {
				env.WantErr(err, want)
			}
			if errors.Is(err, zkq.ErrUnknown) || !strings.Contains(err.Error(), "/jobs") {
				t.Errorf("without a lane %v: %v", first, err)
			}
			c.full.Store(false)
			env.Put(q, "x")
		}
	})
}

func TestEachCallToAFullServiceNamesTheCauseAndTheEndOfItsTime(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := &fullService{Coordinator: env.Client()}
		q := env.QueueOn(c)
		env.Put(q, "held")
		h := env.Take(q)
		env.Put(q, "ready")
		bounded := zkq.QueueConfig{MaxEntries: 10}
		c.full.Store(true)
		for name, call := range map[string]func(context.Context) error{
			"take":    func(ctx context.Context) error { _, err := q.Take(ctx); return err },
			"consume": func(ctx context.Context) error { return h.Consume(ctx) },
			"update":  func(ctx context.Context) error { return h.Update(ctx, []byte("new")) },
			"pause":   q.Pause,
			"create":  func(ctx context.Context) error { return q.Create(ctx, bounded) },
			"token":   func(ctx context.Context) error { _, err := q.NewToken(ctx); return err },
		} {
			ctx, cancel := context.WithTimeout(env.Ctx, 3*time.Second)
			err := call(ctx)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errFullService) {
				t.Errorf("%s: %v", name, err)
			}
		}
		c.full.Store(false)
		env.Consume(h)
	})
}

func TestAPutThatWaitsForAFullServiceIsLoggedOnceAndItsEndToo(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c, j := &fullService{Coordinator: env.Client()}, &journal{}
		q := env.QueueOn(c, zkq.LogTo(j))
		env.Put(q, "before")
		c.full.Store(true)
		var puts sync.WaitGroup
		defer puts.Wait()
		defer c.full.Store(false)
		for range 5 {
			puts.Go(func() { env.Put(q, "waits") })
		}
		time.Sleep(900 * time.Millisecond)
		wantWarnings(env, j)
		time.Sleep(time.Minute)
		wantWarnings(env, j, "put waits: ")
		if !j.has("/jobs", "third disk") {
			t.Errorf("%q names no queue or no cause", j.warnings())
		}
		c.full.Store(false)
		puts.Wait()
		wantWarnings(env, j, "put waits: ", "put goes on: ")
	})
}

// A refusal that ends within a second is not logged.
func TestAShortRefusalIsNotLogged(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c, j := &fullService{Coordinator: env.Client()}, &journal{}
		q := env.QueueOn(c, zkq.LogTo(j))
		for range 3 {
			c.full.Store(true)
			time.AfterFunc(500*time.Millisecond, func() { c.full.Store(false) })
			env.Put(q, "x")
			env.Consume(env.Take(q))
			time.Sleep(time.Minute)
		}
		wantWarnings(env, j)
	})
}

// The caller gives up each put, so that no put waits when there is space again.
func TestTheEndOfAWaitIsLoggedByTheNextCallOfItsKind(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c, j := &fullService{Coordinator: env.Client(), putsOnly: true}, &journal{}
		q := env.QueueOn(c, zkq.LogTo(j))
		env.Put(q, "a")
		c.full.Store(true)
		for range 3 {
			ctx, cancel := context.WithTimeout(env.Ctx, 3*time.Second)
			_, err := q.Put(ctx, []byte("x"))
			cancel()
			env.WantErr(err, coord.ErrBusy)
		}
		env.Consume(env.Take(q)) // takes are served, which says nothing of puts
		wantWarnings(env, j, "put waits: ")
		c.full.Store(false)
		env.Put(q, "b")
		wantWarnings(env, j, "put waits: ", "put goes on: ")
		env.Put(q, "c")
		wantWarnings(env, j, "put waits: ", "put goes on: ")
	})
}

func TestAWorkerLogsThatTheServiceIsFull(t *testing.T) {
	for _, both := range []bool{false, true} {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			c, own := &fullService{Coordinator: env.Client()}, &journal{}
			var opts []zkq.Option
			if both {
				opts = append(opts, zkq.LogTo(own))
			}
			q := env.QueueOn(c, opts...)
			env.Put(q, "a")
			env.Put(q, "b")
			k := startWorker(env, &zkq.Worker{Queue: q, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
				c.full.Store(true) // while it is held
				return nil
			})})
			hears := k.logged
			if both {
				hears = own
			}
			synctest.Wait()
			time.Sleep(5 * time.Second)
			if len(hears.warnings()) != 1 || !hears.has("waits: ", "/jobs", "third disk") {
				t.Errorf("warnings %q", hears.warnings())
			}
			c.full.Store(false)
			time.Sleep(5 * time.Second)
			if !hears.has("goes on: ", "/jobs") {
				t.Errorf("warnings %q", hears.warnings())
			}
			if both && len(k.logged.warnings()) > 0 {
				t.Errorf("the worker's Logger, too: %q", k.logged.warnings())
			}
			c.full.Store(false)
			k.stopCleanly()
		})
	}
}
