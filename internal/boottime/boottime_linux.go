// Package boottime is a clock that also runs while the machine sleeps, which
// Go's monotonic clock does not: a session's deadline must not be moved by a
// suspended laptop.
package boottime

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now returns the time since some fixed instant, the same for all processes of
// this boot. It never goes back and is not moved by setting the wall clock.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return fallback()
	}
	return time.Duration(ts.Nano())
}
