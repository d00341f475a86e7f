package head

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// reserve has a goroutine reserve an entry, and returns how that ends.
func reserve(ctx context.Context, c *Claims, name string) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- c.Reserve(ctx, name) }()
	synctest.Wait()
	return ended
}

// isWaiting reports whether the goroutine of a call of reserve still waits.
func isWaiting(ended <-chan error) bool {
	synctest.Wait()
	return len(ended) == 0
}

func TestOneGoroutineAtATimeClaimsAnEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{Woke: func(context.Context) {}}).Claims
		if err := <-reserve(t.Context(), c, "e"); err != nil {
			t.Fatalf("reserve an entry that is free: %v", err)
		}
		if c.TryReserve("e") || !c.TryReserve("other") || !c.Has("e") || c.Len() != 2 {
			t.Error("a reserved entry is reserved once more, or another one is not")
		}
		second := reserve(t.Context(), c, "e")
		short, cancel := context.WithCancel(t.Context())
		third := reserve(short, c, "e")
		if !isWaiting(second) || !isWaiting(third) {
			t.Fatal("two goroutines claim one entry")
		}
		cancel()
		if err := <-third; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that has gone: %v", err)
		}
		c.Release("e")
		if err := <-second; err != nil {
			t.Errorf("the next caller: %v", err)
		}
		c.Release("e")
		c.Release("other")
		if c.Len() != 0 {
			t.Errorf("%d entries are still reserved", c.Len())
		}
	})
}

// A claim that waits for the lock of another process keeps no other goroutine waiting, unless
// that one came when the lock may have been gone.
func TestABlockedClaimLetsOthersPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{Woke: func(context.Context) {}}).Claims
		c.TryReserve("e")
		waiting := reserve(t.Context(), c, "e")
		if !c.LetOthersPass("e") {
			t.Error("a goroutine arrived since the claim was tried, and it is not tried again")
		}
		if c.LetOthersPass("e") {
			t.Error("the claim is to be tried again though no goroutine arrived since")
		}
		if err := <-waiting; !errors.Is(err, ErrUnavailable) {
			t.Errorf("the goroutine that waited: %v", err)
		}
		later := reserve(t.Context(), c, "e")
		if !isWaiting(later) {
			t.Error("a goroutine that came later passes without a new try of the claim")
		}
		if len(c.RetryRequests("e")) != 1 {
			t.Error("it asks for no new try of the claim")
		}
		c.ClearRetryRequest("e")
		c.LetOthersPass("e")
		if err := <-later; !errors.Is(err, ErrUnavailable) {
			t.Errorf("the goroutine that came later: %v", err)
		}
	})
}

func TestAClaimInDoubtHoldsLaterEntriesBack(t *testing.T) {
	c := New(Config{Woke: func(context.Context) {}}).Claims
	for _, name := range []string{"a", "b", "c"} {
		c.TryReserve(name)
	}
	if c.holdsBackLocked("b") || c.FirstInDoubt() != "" {
		t.Error("a claim whose caller waits is in doubt")
	}
	c.MarkInDoubt("c")
	c.MarkInDoubt("b")
	if !c.holdsBackLocked("b") || c.holdsBackLocked("a") || c.holdsBackLocked("none") || c.FirstInDoubt() != "b" {
		t.Errorf("the first claim in doubt is %q, want b", c.FirstInDoubt())
	}
	c.LetOthersPass("b")
	if c.FirstInDoubt() != "c" {
		t.Errorf("with a blocked claim the first in doubt is %q, want c", c.FirstInDoubt())
	}
	if !c.holdsBackLocked("b") || len(c.RetryRequests("b")) != 1 {
		t.Error("a blocked claim is not tried again when the entry seems to be free")
	}
	c.Release("b")
	if c.holdsBackLocked("b") {
		t.Error("a released claim is in doubt")
	}
}
