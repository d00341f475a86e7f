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
)

// lanes are the nodes of the lanes that there are.
func (b *bench) lanes(s coord.Session) []string {
	b.Helper()
	return b.children(s, "/zkq/producers")
}

func (b *bench) values(q *zkq.LockingQueue) []string {
	b.Helper()
	var values []string
	for _, e := range b.entries(q) {
		e, err := q.Peek(b.ctx, e.Name)
		if err != nil {
			b.Fatal(err)
		}
		values = append(values, string(e.Value))
	}
	return values
}

// unknown is the token of a put that got no answer within a second.
func (b *bench) unknown(q *zkq.LockingQueue, value string, opts ...zkq.PutOption) zkq.Token {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Second)
	defer cancel()
	_, err := q.Put(ctx, []byte(value), opts...)
	var unknown *zkq.UnknownError
	if !errors.As(err, &unknown) || !errors.Is(err, zkq.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		b.Fatalf("Put: %v, want an UnknownError of a deadline", err)
	}
	if !strings.Contains(err.Error(), string(unknown.Token)) {
		b.Errorf("%q does not name the token %s", err, unknown.Token)
	}
	return unknown.Token
}

func (b *bench) resolve(t zkq.Token) zkq.Outcome {
	b.Helper()
	o, err := zkq.Resolve(b.ctx, b.client(), t)
	if err != nil {
		b.Fatalf("Resolve(%s): %v", t, err)
	}
	return o
}

func TestPutIsAppliedOnceWhateverAnswersAreLost(t *testing.T) {
	for _, faults := range []string{"", "a", "r", "rr", "ra", "ar", "aaaa", "rrra", "pa", "pr", "prra", "pba", "pab"} {
		t.Run(faults, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				b.session(c)
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
				names, err := q.PutAll(b.ctx, [][]byte{[]byte("1"), []byte("2"), []byte("3")})
				if err != nil {
					t.Fatal(err)
				}
				var want []string
				for _, e := range b.entries(q) {
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
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				b.put(q, "first")
				if applied {
					c.HoldReplies()
				} else {
					c.HoldRequests()
				}
				token := b.unknown(q, "second", zkq.WithNote([]byte("a b")))
				for range 2 {
					o := b.resolve(token)
					if o.Applied != applied || applied && string(o.Note) != "a b" {
						t.Fatalf("Resolve = %+v", o)
					}
				}
				// What is still on its way comes too late.
				c.Heal()
				synctest.Wait()
				want := []string{"first"}
				if applied {
					want = append(want, "second")
				}
				if got := b.values(q); !slices.Equal(got, want) {
					t.Fatalf("there are %q, want %q", got, want)
				}
				b.put(q, "third")
				if got := b.values(q); !slices.Equal(got, append(want, "third")) {
					t.Fatalf("there are %q", got)
				}
			})
		})
	}
}

func TestUnknownPutIsResolvedAfterItsSessionAndProcess(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		b.put(q, "first")
		c.HoldReplies()
		token := b.unknown(q, "second")
		c.Crash()
		time.Sleep(time.Hour)
		if o := b.resolve(token); !o.Applied {
			t.Fatalf("Resolve = %+v", o)
		}
	})
}

func TestPutMadeAgainWithItsTokenIsTheSame(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		token, err := q.NewToken(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		name := b.put(q, "once", zkq.WithToken(token))
		c.Crash()
		again, _ := b.queue()
		for range 2 {
			if got := b.put(again, "once", zkq.WithToken(token)); got != name {
				t.Fatalf("put again: %s, was %s", got, name)
			}
		}
		if got := b.values(again); !slices.Equal(got, []string{"once"}) {
			t.Fatalf("there are %q", got)
		}
		b.consume(b.take(again))
		if got := b.put(again, "once", zkq.WithToken(token)); got != "" {
			t.Fatalf("put again after its end: %q", got)
		}
		b.empty(again)
	})
}

func TestPutsOfOneTokenAtOnceAreOne(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		token, err := q.NewToken(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		names := make([]string, 8)
		var wg sync.WaitGroup
		for i := range names {
			other, c := b.queue()
			b.session(c)
			if i%2 == 0 {
				c.DropReply()
			}
			wg.Go(func() { names[i] = b.put(other, "once", zkq.WithToken(token)) })
		}
		wg.Wait()
		if got := b.entries(q); len(got) != 1 || len(slices.Compact(names)) != 1 || names[0] != got[0].Name {
			t.Fatalf("put as %q, there are %v", names, got)
		}
	})
}

func TestVoidTokenPutsNothing(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		token, err := q.NewToken(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if o := b.resolve(token); o.Applied {
			t.Fatalf("Resolve = %+v of a put that was not made", o)
		}
		_, err = q.Put(b.ctx, []byte("late"), zkq.WithToken(token))
		b.want(err, zkq.ErrTokenVoid)
		b.empty(q)
	})
}

func TestTokenOfNobodyIsExpiredAndNeverNotApplied(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		token, err := q.NewToken(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := zkq.Forget(b.ctx, c, token, token); err != nil {
			t.Fatal(err)
		}
		_, err = zkq.Resolve(b.ctx, c, token)
		b.want(err, zkq.ErrTokenExpired)
		_, err = q.Put(b.ctx, []byte("late"), zkq.WithToken(token))
		b.want(err, zkq.ErrTokenExpired)
		b.empty(q)
		for _, bad := range []zkq.Token{"x", "0123456789abcdef-00-0", "0123456789abcdef-0-1", "0123456789ABCDEF-00-1", token + "x"} {
			_, err := zkq.Resolve(b.ctx, c, bad)
			b.want(err, zkq.ErrInvalid)
			_, err = q.Put(b.ctx, []byte("bad"), zkq.WithToken(bad))
			b.want(err, zkq.ErrInvalid)
		}
	})
}

// The lane goes on when an outcome was told, and nobody can know it any more.
func TestTokenOfAnEarlierPutIsExpired(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue(zkq.Producer("0123456789abcdef"))
		b.put(q, "first")
		b.put(q, "second")
		_, err := zkq.Resolve(b.ctx, c, "0123456789abcdef-00-1")
		b.want(err, zkq.ErrTokenExpired)
		if o := b.resolve("0123456789abcdef-00-2"); !o.Applied {
			t.Fatalf("Resolve = %+v", o)
		}
		_, err = zkq.Resolve(b.ctx, c, "0123456789abcdef-00-4")
		b.want(err, zkq.ErrInvalid)
		lanes := b.lanes(b.session(c))
		b.want(zkq.Forget(b.ctx, c, "0123456789abcdef-00-4"), zkq.ErrInvalid)
		if err := zkq.Forget(b.ctx, c, "0123456789abcdef-00-1"); err != nil {
			t.Fatal(err)
		}
		if left := b.lanes(b.session(c)); !slices.Equal(left, lanes) {
			t.Fatalf("lanes %q, were %q", left, lanes)
		}
		b.put(q, "third")
	})
}

func TestCloseRemovesLanesButThoseInDoubt(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		var wg sync.WaitGroup
		b.put(q, "first")
		c.HoldReplies()
		for i := range 149 { // more than one series names
			wg.Go(func() { b.put(q, fmt.Sprint(i)) })
		}
		synctest.Wait()
		c.Heal()
		wg.Wait()
		if n, err := q.Len(b.ctx); n != 150 || err != nil {
			t.Fatalf("Len = %d, %v", n, err)
		}
		if n := len(b.lanes(b.session(c))); n != 128 { // as many as a handle has
			t.Fatalf("%d lanes", n)
		}
		c.HoldReplies()
		token := b.unknown(q, "doubt")
		c.Heal()
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		s := b.session(b.client())
		if left := b.lanes(s); len(left) != 1 || !strings.HasPrefix(string(token), strings.TrimPrefix(left[0], "/zkq/producers/")) {
			t.Fatalf("lanes left: %q, in doubt is %s", left, token)
		}
		if o := b.resolve(token); !o.Applied {
			t.Fatalf("Resolve = %+v", o)
		}
	})
}

func TestAbandonedLanesGoAfterADayOrTwo(t *testing.T) {
	for _, by := range []string{"a handle that lives long", "hand"} {
		t.Run(by, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				dead, c := b.queue()
				b.put(dead, "a")
				token, err := dead.NewToken(b.ctx)
				if err != nil {
					t.Fatal(err)
				}
				c.Crash()
				alive, c := b.queue()
				seldom, _ := b.queue()
				b.put(seldom, "b")
				for hour := range 51 {
					if by == "hand" {
						if err := zkq.Sweep(b.ctx, c); err != nil {
							t.Fatal(err)
						}
					} else {
						b.put(alive, "c")
					}
					synctest.Wait()
					if hour < 24 { // the first makes it void: no later one writes to it
						b.resolve(token)
					}
					time.Sleep(time.Hour)
				}
				_, err = zkq.Resolve(b.ctx, c, token)
				b.want(err, zkq.ErrTokenExpired)
				b.put(seldom, "its lane is gone too")
				if n := len(b.lanes(b.session(c))); n > 2 {
					t.Fatalf("%d lanes left", n)
				}
			})
		})
	}
}

func TestPutGoesOnWhenItsLaneWasRemoved(t *testing.T) {
	for _, fault := range []string{"none", "reply", "request"} {
		t.Run(fault, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				b.put(q, "a")
				s := b.session(b.client())
				lane := b.lanes(s)[0]
				b.commit(s, coord.Delete(lane, b.get(s, lane).Fence))
				switch fault {
				case "reply":
					c.DropReply()
				case "request":
					c.DropRequest()
				}
				_, err := q.Put(b.ctx, []byte("b"))
				// What was sent and is nowhere to be read about is never guessed.
				if fault == "none" {
					b.want(err, nil)
				} else {
					b.want(err, zkq.ErrUnknown)
					b.want(err, zkq.ErrTokenExpired)
				}
				b.put(q, "c")
			})
		})
	}
}

func TestNoteAndBatchHaveTheirLimits(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		_, err := q.Put(b.ctx, nil, zkq.WithNote(make([]byte, zkq.MaxNote+1)))
		b.want(err, zkq.ErrTooLarge)
		limit := b.session(c).Limits().Creates - 1
		_, err = q.PutAll(b.ctx, make([][]byte, limit+1))
		if le := (*coord.LimitError)(nil); !errors.As(err, &le) || le.Size != limit+1 || le.Limit != limit || le.Unit != "entries" {
			t.Fatalf("PutAll: %v", err)
		}
		if n := len(b.lanes(b.session(c))); n != 0 {
			t.Fatalf("%d lanes for what was refused", n)
		}
		if names, err := q.PutAll(b.ctx, make([][]byte, limit)); len(names) != limit || err != nil {
			t.Fatalf("PutAll of %d: %v", limit, err)
		}
	})
}

func TestGetOfAPlainQueueLosesNothingWithTheAnswer(t *testing.T) {
	for _, fault := range []func(*coordtest.Coordinator){(*coordtest.Coordinator).DropReply, (*coordtest.Coordinator).DropRequest} {
		virtual(t, func(t *testing.T, b *bench) {
			c := b.client()
			q := zkq.NewQueue(c, "plain")
			defer q.Close()
			for i := range 3 {
				b.put(q, fmt.Sprint(i))
			}
			for i := range 3 {
				fault(c)
				if e, err := q.Get(b.ctx); string(e.Value) != fmt.Sprint(i) || err != nil {
					t.Fatalf("Get = %q, %v", e.Value, err)
				}
			}
		})
	}
}

func TestUnknownGetOfAPlainQueueIsResolved(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := b.client()
		q := zkq.NewQueue(c, "plain")
		defer q.Close()
		b.put(q, "a")
		for range 50 {
			c.DropReply()
		}
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		e, err := q.TryGet(ctx)
		b.want(err, zkq.ErrUnknown)
		var unknown *zkq.UnknownError
		if !errors.As(err, &unknown) {
			t.Fatalf("TryGet: %v", err)
		}
		if o := b.resolve(unknown.Token); !o.Applied || string(e.Value) != "a" {
			t.Fatalf("Resolve = %+v of %q", o, e.Value)
		}
	})
}

// A lane that was idle for a day, and is swept, takes no token with it.
func TestUnknownPutIsResolvedThoughItsHandleWasIdle(t *testing.T) {
	for _, idle := range []time.Duration{time.Minute, 20 * time.Minute, 23 * time.Hour, 25 * time.Hour, 49 * time.Hour} {
		t.Run(idle.String(), func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				link := &keeping{Coordinator: b.client()}
				link.open.Store(true)
				q := b.on(link)
				sweeper := b.client()
				sweep := func() {
					if err := zkq.Sweep(b.ctx, sweeper); err != nil {
						t.Fatal(err)
					}
				}
				sweep()
				b.put(q, "first")
				for range int(idle / time.Minute) {
					time.Sleep(time.Minute)
					sweep()
				}
				link.open.Store(false)
				token := b.unknown(q, "second")
				for range 24 * 60 {
					time.Sleep(time.Minute - time.Second/30) // a day less a bit
					sweep()
				}
				if o := b.resolve(token); o.Applied {
					t.Fatalf("Resolve = %+v", o)
				}
			})
		})
	}
}

// Tokens that nobody forgot go, though nobody puts without one.
func TestHandlesThatPutWithTokensOnlySweep(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		for range 200 {
			token, err := q.NewToken(b.ctx)
			if err != nil {
				t.Fatal(err)
			}
			b.put(q, "a", zkq.WithToken(token))
			time.Sleep(time.Hour)
		}
		if n := len(b.lanes(b.session(c))); n > 55 {
			t.Fatalf("%d lanes left", n)
		}
	})
}

// What somebody wrote into a lane is in no later put's way.
func TestLaneWithForeignValueIsLeft(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		b.put(q, "a")
		s := b.session(c)
		lane := b.lanes(s)[0]
		b.commit(s, coord.Set(lane, []byte("2 of a later version"), b.get(s, lane).Fence))
		b.put(q, "b")
		b.put(q, "c")
		if got := b.values(q); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Fatalf("there are %q", got)
		}
	})
}

func TestTokensAndProducersThatAreNoneAreRefused(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		_, err := q.Put(b.ctx, []byte("a"), zkq.WithToken(""))
		b.want(err, zkq.ErrInvalid)
		for _, id := range []string{"me", "0123456789ABCDEF", "0123456789abcdef0", "a/b"} {
			bad := b.on(c, zkq.Producer(id))
			_, err := bad.Put(b.ctx, []byte("a"))
			b.want(err, zkq.ErrInvalid)
			_, err = bad.NewToken(b.ctx)
			b.want(err, zkq.ErrInvalid)
		}
		b.empty(q)
	})
}

// keeping keeps puts back, which can be made later from what their callers gave it.
type keeping struct {
	coord.Coordinator
	open atomic.Bool // lets them through
	kept atomic.Pointer[[]coord.Op]
}

type keepingSession struct {
	coord.Session
	c *keeping
}

func (c *keeping) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	return keepingSession{s, c}, err
}

func (s keepingSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	if len(ops) == 1 || s.c.open.Load() { // one opens a lane
		return s.Session.Commit(ctx, ops...)
	}
	s.c.kept.Store(&ops)
	<-ctx.Done()
	return nil, fmt.Errorf("%w: %w", coord.ErrUnknown, ctx.Err())
}

func TestValueMayBeWrittenOverWhenItsPutReturned(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		late := &keeping{Coordinator: b.client()}
		q := b.on(late)
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		value := []byte("mine")
		_, err := q.Put(ctx, value)
		b.want(err, zkq.ErrUnknown)
		copy(value, "next")
		b.commit(b.session(late.Coordinator), *late.kept.Load()...)
		if got := b.values(q); !slices.Equal(got, []string{"mine"}) {
			t.Fatalf("there are %q", got)
		}
	})
}

// Whether it waited for an answer then or for another attempt.
func TestUnknownPutSaysWhatEndedIt(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		b.put(q, "first")
		for range 50 {
			c.DropRequest()
		}
		if o := b.resolve(b.unknown(q, "second")); o.Applied {
			t.Fatalf("Resolve = %+v", o)
		}
		q, c = b.queue()
		b.put(q, "third")
		time.AfterFunc(time.Second, func() { q.Close() })
		for range 50 {
			c.DropRequest()
		}
		_, err := q.Put(b.ctx, []byte("fourth"))
		b.want(err, zkq.ErrUnknown)
		b.want(err, zkq.ErrClosed)
	})
}

// However many puts there are at once, a handle leaves a bounded number of lanes.
func TestManyPutsAtOnceShareTheirLanes(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		const puts, most = 5000, 128
		q, c := b.queue()
		var wg sync.WaitGroup
		for range puts {
			wg.Go(func() {
				if _, err := q.Put(b.ctx, nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := len(b.children(b.session(c), "/zkq/producers")); n > most || n < 16 {
			t.Errorf("%d lanes", n)
		}
		if n, err := q.Len(b.ctx); err != nil || n != puts {
			t.Errorf("%d entries, %v", n, err)
		}
		// One that waits for a lane ends with its context.
		c.HoldReplies()
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
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
		b.put(q, "last")
	})
}

// A handle that only polls forgets the entries that it took, also if it waited for one once.
func TestAHandleThatPollsForgetsWhatItTook(t *testing.T) {
	for how, first := range map[string]func(b *bench, q *zkq.LockingQueue) *zkq.Held{
		"polls only": func(b *bench, q *zkq.LockingQueue) *zkq.Held {
			h, err := q.TryTake(b.ctx)
			b.want(err, nil)
			return h
		},
		"waited once": func(b *bench, q *zkq.LockingQueue) *zkq.Held { return b.take(q) },
	} {
		t.Run(how, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, _ := b.queue()
				b.put(q, "")
				b.consume(first(b, q))
				for range 10_000 {
					b.put(q, "")
					h, err := q.TryTake(b.ctx)
					if err != nil {
						t.Fatal(err)
					}
					b.consume(h)
					time.Sleep(100 * time.Millisecond)
				}
				if n := zkq.Remembered(q); n > 1024 {
					t.Errorf("it remembers %d entries", n)
				}
			})
		})
	}
}
