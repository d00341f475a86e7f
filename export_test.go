package zkq

// Reserved are the names that no segment of a queue's name may have.
var Reserved = reserved

// Remembered is how many entries the handle remembers though they are gone or held.
func Remembered(q *LockingQueue) int { return q.head.Suppressed.Len() }
