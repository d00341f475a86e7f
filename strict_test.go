package zkq_test

import (
	"testing"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/internal/testqueue"
)

// TestStrictTakesWhatItHasNotHeardOf has the taker's server lag behind, so that nothing tells the taker of the more
// urgent entry. Without Strict it takes what it knows: the difference is the option's.
func TestStrictTakesWhatItHasNotHeardOf(t *testing.T) {
	for _, c := range []struct {
		want string
		opts []zkq.Option
	}{
		{"urgent", []zkq.Option{zkq.Strict()}},
		{"known", nil},
	} {
		t.Run(c.want, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				producer, _ := env.Queue()
				taker, at := env.Queue(c.opts...)
				for range 2 {
					env.Put(producer, "known")
				}
				env.Consume(env.Take(taker)) // it has a view of the queue now
				at.Lag()
				env.Put(producer, "urgent", zkq.WithPriority(1))
				if h := env.Take(taker); string(h.Value) != c.want {
					t.Errorf("took %q, want %q", h.Value, c.want)
				}
				at.CatchUp()
			})
		})
	}
}

// An entry that came back since it was read is not passed over by a claim of several.
func TestStrictTakesWhatCameBackSinceItWasRead(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue(zkq.Strict())
		other, _ := env.Queue()
		for _, value := range []string{"1", "2", "3", "4", "5"} {
			env.Put(other, value)
		}
		env.Take(q)
		env.Take(q) // it reads the next ones, too
		env.Release(env.Take(other))
		held, err := q.TakeN(env.Ctx, 2)
		if err != nil || len(held) == 0 || string(held[0].Value) != "3" {
			t.Errorf("took %v, %v", held, err)
		}
	})
}
