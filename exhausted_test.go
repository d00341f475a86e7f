package zkq_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testqueue"
)

// TestAQueueWhoseNumbersAreUsedUpSaysSo puts in each way that there is. None may hang, spin or
// give a name twice, and what stands can be worked on.
func TestAQueueWhoseNumbersAreUsedUpSaysSo(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		warned := make(map[string]bool)
		other := env.QueueOn(c, zkq.Warn(func(s string) { warned[s] = true }))
		for _, v := range []string{"dead", "held"} {
			env.Put(q, v)
		}
		if err := env.Take(q).Bury(env.Ctx, "for the test"); err != nil {
			t.Fatal(err)
		}
		held := env.Take(q)
		if _, err := q.Put(env.Ctx, []byte("late"), zkq.WithDelay(time.Second)); err != nil {
			t.Fatal(err)
		}
		env.Store.SetCounter(q.Name()+"/entries", coord.LastNumber)
		last, err := other.Put(env.Ctx, []byte("last"))
		if err != nil || last != "entry-100-2147483646" {
			t.Fatalf("%s, %v", last, err)
		}
		if _, err := other.Stat(env.Ctx); err != nil || len(warned) != 1 {
			t.Errorf("stat warned of %v, %v", warned, err)
		}
		ctx, cancel := context.WithTimeout(env.Ctx, 30*time.Second)
		defer cancel()
		begun := time.Now()
		puts := map[string]func() error{
			"put": func() error { _, err := q.Put(ctx, nil); return err },
			"put all": func() error {
				_, err := q.PutAll(ctx, make([][]byte, 3))
				return err
			},
			"unique":  func() error { _, err := q.Put(ctx, nil, zkq.WithUnique("k")); return err },
			"forward": func() error { return held.Forward(ctx, zkq.Target{Queue: q, Value: []byte("next")}) },
			"requeue": func() error {
				for e, err := range q.Entries(ctx, zkq.StateDead) {
					if err == nil {
						_, err = q.Requeue(ctx, e.Name)
					}
					return err
				}
				return errors.New("nothing is dead")
			},
		}
		for name, put := range puts {
			if err := put(); !errors.Is(err, zkq.ErrExhausted) {
				t.Errorf("%s: %v, want ErrExhausted", name, err)
			}
		}
		if d := time.Since(begun); d > time.Second {
			t.Errorf("the refusals took %v", d)
		}
		env.Consume(held)
		h := env.Take(q)
		if string(h.Value) != "last" {
			t.Errorf("%q", h.Value)
		}
		env.Consume(h)
		if _, err := q.Put(ctx, nil); !errors.Is(err, zkq.ErrExhausted) {
			t.Errorf("put into the empty queue: %v, want ErrExhausted", err)
		}
		time.Sleep(10 * time.Second)
		if st, err := q.Stat(ctx); err != nil || st.Delayed != 1 {
			t.Errorf("what is due stays: %+v, %v", st, err)
		}
	})
}
