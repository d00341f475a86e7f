package embedded_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
)

func TestLeavingInOrderIsInvisibleToOthers(t *testing.T) {
	for range 4 {
		leaveUnderLoad(t)
	}
}

func leaveUnderLoad(t *testing.T) {
	dir := newDir(t)
	owner := start(t, "join", dir, "")
	if owner.expect("open") != "true" {
		t.Fatal("alone, and not the owner")
	}
	heir := start(t, "serve", dir, "") // either it or this process takes over
	heir.expect("open")
	c, s := session(t, dir)
	signals, err := s.Watch(t.Context(), "/idle")
	if err != nil {
		t.Fatal(err)
	}

	var writers sync.WaitGroup
	var wrote atomic.Int64
	slowest := make([]time.Duration, 16)
	stop := make(chan struct{})
	for w := range slowest {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				began := time.Now()
				path := fmt.Sprintf("/w/%d-%d", w, i)
				if _, err := s.Commit(t.Context(), coord.Create(path, nil)); err != nil {
					t.Errorf("write %s: %v", path, err)
					return
				}
				if _, err := s.Get(t.Context(), path); err != nil {
					t.Errorf("read %s: %v", path, err)
					return
				}
				slowest[w] = max(slowest[w], time.Since(began))
				wrote.Add(1)
			}
		})
	}
	more := func() {
		target := wrote.Load() + 1000
		eventually(t, patience, "writes", func() bool { return wrote.Load() > target || t.Failed() })
	}
	more()
	owner.signal(syscall.SIGTERM)
	owner.all()
	more()
	if pid, self := c.Owner(); !self && pid == heir.pid() {
		heir.signal(syscall.SIGTERM)
		heir.all()
		more()
	}
	close(stop)
	writers.Wait()
	var worst time.Duration
	for _, d := range slowest {
		worst = max(worst, d)
	}
	t.Logf("%d writes, the slowest took %v", wrote.Load(), worst)
	if worst > patience/2 {
		t.Errorf("a write took %v", worst)
	}
	select {
	case <-s.Done():
		t.Error("the session was lost")
	default:
	}
	n, err := s.Count(t.Context(), "/w")
	if err != nil || int64(n) != wrote.Load() {
		t.Errorf("%d nodes, %v; %d were acknowledged", n, err, wrote.Load())
	}
	drain(signals)
	if _, err := s.Commit(t.Context(), coord.Create("/idle/x", nil)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-signals:
	case <-time.After(patience):
		t.Error("no signal from the watch")
	}
}

func TestWaitingKeepsItsDeadlineWhenTheOwnerLeaves(t *testing.T) {
	dir := newDir(t)
	owner := start(t, "join", dir, "")
	owner.expect("open")
	_, s := session(t, dir)
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	signals, err := s.Watch(ctx, "/q/entries")
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, func() { owner.signal(syscall.SIGTERM) })
	for waiting := true; waiting; { // as a waiting take does
		l, err := s.List(ctx, "/q/entries", coord.ListOptions{Fresh: true})
		if ctx.Err() == nil && (err != nil || len(l.Nodes) != 0) {
			t.Fatalf("%d nodes, %v", len(l.Nodes), err)
		}
		select {
		case <-ctx.Done():
			waiting = false
		case <-signals:
		}
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("waited %v instead of 1.5s", took)
	}
	owner.all()
	select {
	case <-s.Done():
		t.Error("the session was lost")
	default:
	}
}

func TestStoppedClientDoesNotDelayTheLeaving(t *testing.T) {
	dir := newDir(t)
	owner := start(t, "join", dir, "")
	owner.expect("open")
	asleep := start(t, "hold", dir, "/held")
	asleep.expect("held")
	asleep.signal(syscall.SIGSTOP)
	_, s := session(t, dir)
	owner.signal(syscall.SIGTERM)
	began := time.Now()
	owner.all()
	if took := time.Since(began); took > patience/2 {
		t.Errorf("the owner took %v to leave", took)
	}
	// Nor does it lose anything: it lives, and its lock with it.
	if _, err := s.Get(t.Context(), "/held"); err != nil {
		t.Error(err)
	}
	asleep.signal(syscall.SIGCONT)
	asleep.rest()
}
