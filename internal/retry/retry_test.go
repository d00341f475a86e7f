package retry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
)

var errTest = errors.New("test")

// pauses returns how long b pauses, n times.
func pauses(t *testing.T, b *retry.Backoff, n int) (lengths []time.Duration) {
	for range n {
		began := time.Now()
		if err := b.Wait(t.Context(), nil, errTest); err != nil {
			t.Fatal(err)
		}
		lengths = append(lengths, time.Since(began))
	}
	return lengths
}

func TestPausesGrowToTheLongest(t *testing.T) {
	ms := func(all ...time.Duration) []time.Duration {
		for i := range all {
			all[i] *= time.Millisecond
		}
		return all
	}
	for _, c := range []struct {
		name string
		b    retry.Backoff
		want []time.Duration
	}{
		{"zero", retry.Backoff{}, ms(5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000)},
		{"own", retry.Backoff{First: time.Millisecond, Max: 5 * time.Millisecond}, ms(1, 2, 4, 5, 5)},
		{"linear", retry.Backoff{First: 10 * time.Millisecond, Max: 35 * time.Millisecond, Linear: true}, ms(10, 20, 30, 35, 35)},
		{"first beyond the longest", retry.Backoff{First: 3 * time.Second}, ms(1000, 1000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := pauses(t, &c.b, len(c.want)); !slices.Equal(got, c.want) {
					t.Errorf("pauses %v, want %v", got, c.want)
				}
				c.b.Reset()
				if got := pauses(t, &c.b, 2); !slices.Equal(got, c.want[:2]) {
					t.Errorf("pauses after Reset %v, want %v", got, c.want[:2])
				}
			})
		})
	}
}

func TestAPauseEndsWithTheContextTheSessionOrAWake(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	closed := make(chan struct{})
	close(closed)
	for _, c := range []struct {
		name string
		ctx  context.Context
		done <-chan struct{}
		wake <-chan struct{}
		want error
	}{
		{"context", cancelled, nil, nil, context.Canceled},
		{"session", context.Background(), closed, nil, coord.ErrSessionLost},
		{"both", cancelled, closed, nil, context.Canceled},
		{"wake", context.Background(), nil, closed, nil},
		{"wake after the end of the session", context.Background(), closed, closed, coord.ErrSessionLost},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				b := retry.Backoff{First: time.Hour, Max: time.Hour, Wake: c.wake}
				if err := b.Wait(c.ctx, c.done, errTest); !errors.Is(err, c.want) {
					t.Errorf("Wait: %v, want %v", err, c.want)
				}
				if d := time.Since(began); d > 0 {
					t.Errorf("returned after %v", d)
				}
			})
		})
	}
}

func TestDoMakesAttemptsUntilOneStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, attempts := time.Now(), 0
		var b retry.Backoff
		result, interrupted := b.Do(t.Context(), nil, func() (retry.Decision, error) {
			attempts++
			switch attempts {
			case 1, 3:
				return retry.Later, errTest
			case 2:
				return retry.Now, errTest
			}
			return retry.Stop, nil
		})
		if result != nil || interrupted != nil || attempts != 4 {
			t.Errorf("%v, %v after %d attempts", result, interrupted, attempts)
		}
		if d := time.Since(began); d != 15*time.Millisecond {
			t.Errorf("it took %v, want two pauses", d)
		}
	})
}

func TestDoReturnsTheLastErrorAndWhatEndedThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Millisecond)
		defer cancel()
		attempts := 0
		var b retry.Backoff
		result, interrupted := b.Do(ctx, nil, func() (retry.Decision, error) {
			attempts++
			return retry.Later, fmt.Errorf("attempt %d: %w", attempts, errTest)
		})
		if attempts != 2 || result == nil || result.Error() != "attempt 2: test" || !errors.Is(interrupted, context.DeadlineExceeded) {
			t.Errorf("%v, %v after %d attempts", result, interrupted, attempts)
		}
	})
}

func TestRepeatMakesAnotherAttemptAtTheEndOfThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended, end := context.WithTimeout(t.Context(), 8*time.Millisecond)
		defer end()
		done := make(chan struct{})
		time.AfterFunc(10*time.Millisecond, func() { close(done) })
		began := time.Now()
		var at []time.Duration
		b := retry.Backoff{Max: 10 * time.Millisecond}
		b.Repeat(ended, done, func() retry.Decision {
			switch at = append(at, time.Since(began)); len(at) {
			case 1:
				return retry.Now
			case 2, 3: // the second pause ends with the context
				return retry.Later
			}
			return retry.Stop
		})
		if want := []time.Duration{0, 0, 5 * time.Millisecond, 8 * time.Millisecond}; !slices.Equal(at, want) {
			t.Errorf("attempts at %v, want %v", at, want)
		}
		at, began = nil, time.Now()
		b.Repeat(t.Context(), done, func() retry.Decision {
			if at = append(at, time.Since(began)); time.Since(began) > 0 {
				return retry.Stop
			}
			return retry.Later
		})
		if want := []time.Duration{0, 2 * time.Millisecond}; !slices.Equal(at, want) {
			t.Errorf("attempts at %v, want %v: the pause ends with done", at, want)
		}
	})
}

// calls records what an Observer hears.
type calls []string

func (c *calls) Waiting(act string, err error) { *c = append(*c, "waiting "+act) }
func (c *calls) Served(act string)             { *c = append(*c, "served "+act) }

func TestTheObserverHearsOfAWaitOfASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard calls
		b := retry.Backoff{First: 400 * time.Millisecond, Max: 400 * time.Millisecond, Observer: &heard, Act: "put"}
		wait := func(err error, want ...string) {
			t.Helper()
			heard = nil
			if err := b.Wait(t.Context(), nil, err); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(heard, want) {
				t.Errorf("heard %q, want %q", heard, want)
			}
		}
		busy := fmt.Errorf("full: %w", coord.ErrBusy)
		wait(busy)
		wait(errTest)
		wait(busy)
		wait(busy, "waiting put") // 1.2 s after the first
		time.Sleep(2 * time.Minute)
		wait(busy) // another wait
		heard = nil
		b.Succeeded()
		if !slices.Equal(heard, []string{"served put"}) {
			t.Errorf("heard %q", heard)
		}
		(&retry.Backoff{}).Succeeded() // without an observer
	})
}

func TestAnErrorDecidesAboutAnotherAttempt(t *testing.T) {
	for _, c := range []struct {
		err         error
		want        retry.Decision
		laterIfBusy retry.Decision
	}{
		{nil, retry.Stop, retry.Stop},
		{errTest, retry.Stop, retry.Stop},
		{&coord.Refusal{Err: coord.ErrVersion}, retry.Stop, retry.Stop},
		{coord.ErrBusy, retry.Later, retry.Later},
		{coord.ErrUnknown, retry.Later, retry.Stop},
		{fmt.Errorf("%w: %w", coord.ErrUnknown, coord.ErrBusy), retry.Later, retry.Stop},
		{coord.ErrSessionLost, retry.Now, retry.Stop},
		{fmt.Errorf("%w: %w", coord.ErrUnknown, coord.ErrSessionLost), retry.Later, retry.Stop},
		{coord.ErrClosed, retry.Stop, retry.Stop},
		{fmt.Errorf("%w: %w", coord.ErrUnknown, coord.ErrClosed), retry.Stop, retry.Stop},
	} {
		if got := retry.Decide(c.err); got != c.want {
			t.Errorf("Decide(%v) = %v, want %v", c.err, got, c.want)
		}
		if got := retry.LaterIfBusy(c.err); got != c.laterIfBusy {
			t.Errorf("LaterIfBusy(%v) = %v, want %v", c.err, got, c.laterIfBusy)
		}
	}
}

func TestAcrossSessionsGoesOnWhileNothingWasSent(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 2},
		{errTest, 2},
		{fmt.Errorf("%w: %w", coord.ErrUnknown, coord.ErrSessionLost), 2},
	} {
		calls := 0
		err := retry.AcrossSessions(func() error {
			if calls++; calls == 1 {
				return fmt.Errorf("call 1: %w", coord.ErrSessionLost)
			}
			return c.err
		})
		if err != c.err || calls != c.want {
			t.Errorf("with %v: %v after %d calls", c.err, err, calls)
		}
	}
}

func TestErrorsSayWhatAnotherAttemptCanDo(t *testing.T) {
	refusal := fmt.Errorf("commit: %w", &coord.Refusal{Index: 2, Op: coord.Check("/a", 1), Err: coord.ErrVersion})
	if !retry.IsRefused(refusal) || retry.RefusedOp(refusal) != 2 {
		t.Errorf("a refusal: %v, op %d", retry.IsRefused(refusal), retry.RefusedOp(refusal))
	}
	if retry.IsRefused(errTest) || retry.RefusedOp(errTest) != -1 || retry.IsRefused(nil) {
		t.Error("an error that is no refusal")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := retry.WithDeadline(ended, errTest); !errors.Is(err, context.Canceled) || !errors.Is(err, errTest) {
		t.Error(err)
	}
	if err := retry.WithDeadline(t.Context(), errTest); err != errTest {
		t.Error(err)
	}
	if err := retry.BusyUntil(context.Canceled, errTest); err != context.Canceled {
		t.Error(err)
	}
	if err := retry.BusyUntil(context.Canceled, coord.ErrBusy); !errors.Is(err, context.Canceled) || !errors.Is(err, coord.ErrBusy) {
		t.Error(err)
	}
	if err := retry.NotApplied(t.Context(), errTest); err != errTest {
		t.Error(err)
	}
	for _, ctx := range []context.Context{t.Context(), ended} {
		err := retry.NotApplied(ctx, fmt.Errorf("lost: %w", coord.ErrUnknown))
		if errors.Is(err, coord.ErrUnknown) || !errors.Is(err, coord.ErrUnreachable) || errors.Is(err, context.Canceled) != (ctx == ended) {
			t.Error(err)
		}
	}
}
