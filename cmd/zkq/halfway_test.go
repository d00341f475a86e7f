package main

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"

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
	const first, second = "entry-100-0000000000", "entry-100-0000000001"
	for _, line := range [][]string{
		{"rm", "q", first, second},
		{"purge", "--yes", "q"},
		{"requeue", "--all", "q"},
		{"get", "-n", "64", "q"},
	} {
		s := newShell(t)
		after := int64(1)
		s.run(strings.Repeat("v\n", 40), "put", "-l", "q")
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
		if code := p.run(context.Background()); code != exitFailed || !strings.Contains(stderr.String(), "before") && !strings.Contains(stderr.String(), "1 entry was removed") {
			t.Errorf("zkq %s: exit %d, stdout %q, stderr %q", quoteLine(line), code, stdout.String(), stderr.String())
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
