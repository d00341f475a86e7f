//go:build !linux

package boottime

import "time"

// Now returns the time since the program started. On this system it stands
// still while the machine sleeps.
func Now() time.Duration { return fallback() }
