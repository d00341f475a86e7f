package zkq

// Remembered is how many entries the handle remembers though they are gone or held.
func Remembered(q *LockingQueue) int { return q.head.Suppressed.Len() }
