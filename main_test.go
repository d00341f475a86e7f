package zkq

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Remembered returns how many entries the handle remembers as held or removed, though a listing may still show them.
func Remembered(q *LockingQueue) int { return q.claimer.head.Suppressed.Len() }
