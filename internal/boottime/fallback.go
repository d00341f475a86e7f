package boottime

import "time"

var start = time.Now()

// fallback is Go's monotonic clock: good but for the time asleep.
func fallback() time.Duration { return time.Since(start) }
