package zkq_test

import (
	"testing"

	"github.com/zkq/zkq"
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
			virtual(t, func(t *testing.T, b *bench) {
				producer, _ := b.queue()
				taker, at := b.queue(c.opts...)
				for range 2 {
					b.put(producer, "known")
				}
				b.consume(b.take(taker)) // it has a view of the queue now
				at.Lag()
				b.put(producer, "urgent", zkq.WithPriority(1))
				if h := b.take(taker); string(h.Value) != c.want {
					t.Errorf("took %q, want %q", h.Value, c.want)
				}
				at.CatchUp()
			})
		})
	}
}

// An entry that came back since it was read is not passed over by a claim of several.
func TestStrictTakesWhatCameBackSinceItWasRead(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue(zkq.Strict())
		other, _ := b.queue()
		for _, value := range []string{"1", "2", "3", "4", "5"} {
			b.put(other, value)
		}
		b.take(q)
		b.take(q) // it reads the next ones, too
		b.release(b.take(other))
		held, err := q.TakeN(b.ctx, 2)
		if err != nil || len(held) == 0 || string(held[0].Value) != "3" {
			t.Errorf("took %v, %v", held, err)
		}
	})
}
