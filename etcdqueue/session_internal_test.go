package etcdqueue

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/boottime"
	"github.com/zkq/zkq/internal/group"
	"github.com/zkq/zkq/internal/liveness"
)

// TestCallsCompareTheClock is a process that was suspended past its deadline and resumes
// before its timers fire: the first call must notice.
func TestCallsCompareTheClock(t *testing.T) {
	for name, call := range map[string]func(coord.Session) error{
		"get":    func(s coord.Session) error { _, err := s.Get(t.Context(), "/a"); return err },
		"list":   func(s coord.Session) error { _, err := s.List(t.Context(), "/a", coord.ListOptions{}); return err },
		"read":   func(s coord.Session) error { _, err := s.Read(t.Context(), "/a"); return err },
		"count":  func(s coord.Session) error { _, err := s.Count(t.Context(), "/a"); return err },
		"watch":  func(s coord.Session) error { _, err := s.Watch(t.Context(), "/a"); return err },
		"commit": func(s coord.Session) error { _, err := s.Commit(t.Context(), coord.Create("/a", nil)); return err },
		"empty":  func(s coord.Session) error { _, err := s.Commit(t.Context()); return err },
	} {
		unhooked := 0
		s := &session{c: &Coordinator{ctx: context.Background()}, onEnd: func() { unhooked++ }}
		s.c.watches, s.commits = newWatchHub(s.c), group.NewRunner(batchLimits, maxInFlight, s.sendBatch)
		s.optimisticCommits = group.NewRunner(batchLimits, maxOptimisticInFlight, s.sendOptimisticBatch)
		s.ctx, s.cancel = context.WithCancelCause(context.Background())
		s.deadline = liveness.New(boottime.Now, func() {})
		s.deadline.Start(time.Hour, boottime.Now()-time.Hour)
		if err := call(s); !errors.Is(err, coord.ErrSessionLost) {
			t.Errorf("%s: %v", name, err)
		}
		select {
		case <-s.Done():
		default:
			t.Errorf("%s left Done open", name)
		}
		if unhooked != 1 {
			t.Errorf("%s: unhooked %d times", name, unhooked)
		}
	}
}
