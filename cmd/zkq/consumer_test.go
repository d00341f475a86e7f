package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// committing counts the commits that go through it.
type committing struct {
	coord.Coordinator
	n *atomic.Int64
}

type committingSession struct {
	coord.Session
	n *atomic.Int64
}

func (c committing) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	return committingSession{s, c.n}, err
}

func (s committingSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	s.n.Add(1)
	return s.Session.Commit(ctx, ops...)
}

// What is done is removed in the commit that takes the next.
func TestConsumeCommitsOnceForEachEntry(t *testing.T) {
	s := newShell(t)
	const entries = 60
	var lines strings.Builder
	for i := range entries {
		fmt.Fprintln(&lines, i)
	}
	s.run(lines.String(), "put", "-l", "q")
	var commits atomic.Int64
	var stdout, stderr bytes.Buffer
	p := newProgram([]string{"consume", "--drain", "q"}, strings.NewReader(""), &stdout, &stderr, s.env)
	p.open = func(context.Context, target, openOptions) (coord.Coordinator, error) {
		return committing{s.store.Open(coordtest.Options{}), &commits}, nil
	}
	if code := p.run(context.Background()); code != exitDone || stdout.String() != lines.String() {
		t.Fatalf("exit %d, stdout %q, stderr %q", code, stdout.String(), stderr.String())
	}
	// Besides: one to register, one for the last, one to leave.
	if n := int(commits.Load()); n > entries+5 {
		t.Errorf("%s commits for %d entries", strconv.Itoa(n), entries)
	}
}
