package zkq

import "github.com/zkq/zkq/internal/layout"

// Reserved are the names that the last segment of a queue's name may not have.
var Reserved, _ = layout.Reserved()

// Remembered is how many entries the handle remembers though they are gone or held.
func Remembered(q *LockingQueue) int { return q.head.Suppressed.Len() }
