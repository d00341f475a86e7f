package etcdqueue

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/boottime"
	"github.com/zkq/zkq/internal/group"
)

// TestCallsCompareTheClock is a process that was stopped past its deadline and
// wakes with its timers late: the first call must see it.
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
		s := &session{c: &Coordinator{ctx: context.Background()}, unhook: func() { unhooked++ }, timer: time.NewTimer(time.Hour)}
		s.c.hub, s.commits = newHub(s.c), group.NewRunner(batches, flightsAtOnce, s.deliver)
		s.puts = group.NewRunner(batches, guessesAtOnce, s.deliverGuesses)
		s.ctx, s.cancel = context.WithCancelCause(context.Background())
		s.deadline.Store(int64(boottime.Now()))
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

// TestDeadlineCountsFromTheSending: an answer that was long under way moves the
// deadline less than one that came at once.
func TestDeadlineCountsFromTheSending(t *testing.T) {
	s := &session{timeout: 12 * time.Second, timer: time.NewTimer(time.Hour)}
	sent := boottime.Now() - 3*time.Second
	s.heard(sent)
	if got, want := time.Duration(s.deadline.Load())-sent, 10*time.Second; got != want {
		t.Errorf("%v after the sending, want %v", got, want)
	}
}
