package liveness_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq/internal/liveness"
)

// clock is a clock that began an hour ago.
func clock() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Hour + time.Since(start) }
}

func TestDeadlineCountsFromTheSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := clock()
		var expired atomic.Bool
		d := liveness.New(now, func() { expired.Store(true) })
		defer d.Stop()
		if d.Passed() {
			t.Error("passed before it started")
		}
		d.Start(12*time.Second, now()-3*time.Second) // so until 7 s from now
		time.Sleep(6 * time.Second)
		d.Extend(now() - 2*time.Second) // sent at 4 s: until 14 s
		d.Extend(now() - 5*time.Second) // an older request, answered later
		time.Sleep(7 * time.Second)
		if d.Passed() || expired.Load() {
			t.Error("passed 9 s after the sending of the last answered request, want 10 s")
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if !d.Passed() || !expired.Load() {
			t.Error("not passed 10 s after the sending of the last answered request")
		}
	})
}

func TestAStoppedDeadlineCallsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := clock()
		d := liveness.New(now, func() { t.Error("expired after Stop") })
		d.Stop()
		d.Start(time.Second, now())
		time.Sleep(time.Minute)
	})
}
