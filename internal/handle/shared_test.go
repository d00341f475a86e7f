package handle

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

// TestConcurrentCallersShareOneCall has one act while others wait, whose contexts end at
// different times, and which go on when the first fails.
func TestConcurrentCallersShareOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		sh := SharedCall{Mu: &mu}
		enough, acts := false, 0
		release := make(chan error)
		want := func(ctx context.Context) error {
			return sh.Until(ctx, func(context.Context) {}, func() bool { return enough }, func() error {
				acts++
				return <-release
			})
		}
		begin := func(ctx context.Context) <-chan error {
			ended := make(chan error, 1)
			go func() { ended <- want(ctx) }()
			synctest.Wait()
			return ended
		}
		first := begin(t.Context())
		short, cancel := context.WithCancel(t.Context())
		gone := begin(short)
		second, third := begin(t.Context()), begin(t.Context())
		if acts != 1 {
			t.Fatalf("%d act at the same time", acts)
		}
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("who did not want to wait any more: %v", err)
		}
		broken := errors.New("broken")
		release <- broken
		if err := <-first; err != broken {
			t.Errorf("whose act failed: %v", err)
		}
		synctest.Wait()
		if acts != 2 {
			t.Fatalf("%d acts when the first had failed", acts)
		}
		enough = true
		release <- nil
		if err1, err2 := <-second, <-third; err1 != nil || err2 != nil {
			t.Errorf("those who waited: %v, %v", err1, err2)
		}
		if err := want(short); err != nil || acts != 2 {
			t.Errorf("where it is done: %v, after %d acts", err, acts)
		}
	})
}
