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
