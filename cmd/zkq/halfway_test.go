package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// leaving is a coordinator that cannot be reached any more once so many nodes of
// entries were deleted.
type leaving struct {
	coord.Coordinator
	after atomic.Int64
}

type leavingSession struct {
	coord.Session
	c *leaving
}

func (c *leaving) Session(ctx context.Context) (coord.Session, error) {
	if c.after.Load() <= 0 {
		return nil, coord.ErrUnreachable
	}
	s, err := c.Coordinator.Session(ctx)
	return &leavingSession{s, c}, err
}

func (s *leavingSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	if s.c.after.Load() <= 0 {
		return nil, coord.ErrUnreachable
	}
	for _, op := range ops {
		if op.Kind == coord.KindDelete && (strings.Contains(op.Path, "/entries/") || strings.Contains(op.Path, "/dead/")) {
			s.c.after.Add(-1)
		}
	}
	return s.Session.Commit(ctx, ops...)
}

// Exit 5 says that nothing was changed.
func TestUnreachableHalfwayIsNotNothingChanged(t *testing.T) {
	const entries = 400 // more than are under way at once: sixty in a commit, four commits
	rm := []string{"rm", "q"}
	for i := range entries {
		rm = append(rm, fmt.Sprintf("entry-100-%010d", i))
	}
	for _, line := range [][]string{
		rm,
		{"purge", "--yes", "q"},
		{"requeue", "--all", "q"},
		{"get", "-n", "64", "q"},
	} {
		s := newShell(t)
		after := int64(1)
		s.run(strings.Repeat("v\n", entries), "put", "-l", "q")
		switch line[0] {
		case "requeue":
			s.expect(exitSome, "", "", "consume", "--drain", "q", "--", "sh", "-c", "exit 65")
		case "get":
			after = chunk
		}
		var stdout, stderr bytes.Buffer
		p := newProgram(line, strings.NewReader(""), &stdout, &stderr, s.env)
		p.open = func(context.Context, target, openOptions) (coord.Coordinator, error) {
			c := &leaving{Coordinator: s.store.Open(coordtest.Options{})}
			c.after.Store(after)
			return c, nil
		}
		if code := p.run(context.Background()); code != exitFailed || !strings.Contains(stderr.String(), "before") && !strings.Contains(stderr.String(), "entries were removed") {
			t.Errorf("zkq %s: exit %d, stdout %.200q, stderr %.500q", line[0], code, stdout.String(), stderr.String())
		}
	}
}

// A service that asks to come again later ends a consumer in no mode.
func TestBusyServiceEndsNoConsumer(t *testing.T) {
	for _, mode := range [][]string{{"--drain"}, {"-n", "1"}} {
		s := newShell(t)
		s.run("", "put", "q", "v")
		var stdout, stderr bytes.Buffer
		p := newProgram(append(append([]string{"consume"}, mode...), "q"), strings.NewReader(""), &stdout, &stderr, s.env)
		p.open = func(context.Context, target, openOptions) (coord.Coordinator, error) {
			c := s.store.Open(coordtest.Options{})
			c.Refuse(coord.ErrBusy)
			return c, nil
		}
		if code := p.run(context.Background()); code != exitDone || stdout.String() != "v\n" {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", mode, code, stdout.String(), stderr.String())
		}
	}
}

// fullDisk is a coordinator of a service that takes no finish while its disk is full.
type fullDisk struct {
	coord.Coordinator
	full *atomic.Bool
}

type fullDiskSession struct {
	coord.Session
	full *atomic.Bool
}

func (c fullDisk) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	return fullDiskSession{s, c.full}, err
}

func (s fullDiskSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	if s.full.Load() && slices.ContainsFunc(ops, func(op coord.Op) bool { return op.Kind == coord.KindDelete || op.Kind == coord.KindReplace }) {
		return nil, coord.ErrBusy
	}
	return s.Session.Commit(ctx, ops...)
}

// A consumer whose finish is refused for longer than a change may take holds the entry,
// says so, and goes on when the service takes changes again.
func TestConsumerOutlastsAFullService(t *testing.T) {
	for _, tt := range []struct {
		line  []string
		code  int
		state string // of the entry afterwards
	}{
		{[]string{"q"}, exitDone, ""},
		{[]string{"--forward", "next", "q"}, exitDone, ""},
		{[]string{"q", "--", "sh", "-c", "exit 65"}, exitSome, "dead"},
		{[]string{"--backoff", "1h", "q", "--", "sh", "-c", "exit 1"}, exitSome, "delayed"},
		{[]string{"q", "--", "sh", "-c", "exit 75"}, exitSome, "ready"},
	} {
		s := newShell(t)
		s.run("", "put", "q", "v")
		var full atomic.Bool
		full.Store(true)
		var said strings.Builder
		stderr := writerFunc(func(b []byte) error {
			said.Write(b)
			if strings.Contains(said.String(), "finish waits: the service refuses it for now") {
				full.Store(false)
			}
			return nil
		})
		line := append([]string{"--session-timeout", "200ms", "--connect-timeout", "100ms", "consume", "-n", "1"}, tt.line...)
		var stdout bytes.Buffer
		p := newProgram(line, strings.NewReader(""), &stdout, stderr, s.env)
		p.open = func(context.Context, target, openOptions) (coord.Coordinator, error) {
			return fullDisk{s.store.Open(coordtest.Options{}), &full}, nil
		}
		if code := p.run(context.Background()); code != tt.code || full.Load() {
			t.Errorf("%q: exit %d, stderr %q", tt.line, code, said.String())
		}
		for _, state := range []string{"ready", "held", "delayed", "dead"} {
			if n := strings.Count(s.run("", "ls", "--state", state, "q").stdout, "\n"); n != map[bool]int{true: 1}[state == tt.state] {
				t.Errorf("%q: %d entries are %s", tt.line, n, state)
			}
		}
	}
}

// The end of the grace ends the wait for a service that takes no changes.
func TestFullServiceDoesNotOutlastTheGrace(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "q", "v")
	var full atomic.Bool
	full.Store(true)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var said strings.Builder
	stderr := writerFunc(func(b []byte) error {
		said.Write(b)
		if strings.Contains(said.String(), "finish waits: the service refuses it for now") {
			cancel(&signalError{os.Interrupt})
		}
		return nil
	})
	line := []string{"--session-timeout", "200ms", "--connect-timeout", "100ms", "consume", "--grace", "100ms", "q"}
	p := newProgram(line, strings.NewReader(""), &bytes.Buffer{}, stderr, s.env)
	p.open = func(context.Context, target, openOptions) (coord.Coordinator, error) {
		return fullDisk{s.store.Open(coordtest.Options{}), &full}, nil
	}
	ended := make(chan int, 1)
	go func() { ended <- p.run(ctx) }()
	select {
	case code := <-ended:
		if code != exitFailed {
			t.Errorf("exit %d, stderr %q", code, said.String())
		}
	case <-time.After(3 * time.Minute):
		t.Fatal("the consumer goes on after its grace")
	}
}
