package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testetcd"
)

// fullService is a coordinator that refuses commits for lack of space, for a time that begins
// with the first.
type fullService struct {
	coord.Coordinator
	lasts time.Duration

	mu    sync.Mutex
	since time.Time
	last  *fullSession
}

type fullSession struct {
	coord.Session
	c *fullService
}

func (c *fullService) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil || c.last.Session != s {
		c.last = &fullSession{s, c}
	}
	return c.last, nil
}

func (s *fullSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	s.c.mu.Lock()
	if s.c.since.IsZero() {
		s.c.since = time.Now()
	}
	refuses := time.Since(s.c.since) < s.c.lasts
	s.c.mu.Unlock()
	if refuses {
		return nil, fmt.Errorf("no space on the third disk: %w", coord.ErrBusy)
	}
	return s.Session.Commit(ctx, ops...)
}

// runFull runs a command on a service that is full for so long.
func (s *shell) runFull(lasts time.Duration, words ...string) (code int, stdout, stderr string) {
	var out, said bytes.Buffer
	p := newProgram(words, strings.NewReader(""), &out, &said, s.env)
	p.open = func(context.Context, target, openOptions) (coord.Coordinator, error) {
		return &fullService{Coordinator: s.store.Open(coordtest.Options{}), lasts: lasts}, nil
	}
	return p.run(context.Background()), out.String(), said.String()
}

// linesWith counts the lines of stderr that have the word; a newline before it is the beginning.
func linesWith(stderr, word string) (n int) {
	for line := range strings.Lines(stderr) {
		if strings.Contains("\n"+line, word) {
			n++
		}
	}
	return n
}

// A service that refuses is reached: exit 1 and not 5, with the cause in one line.
func TestAFullServiceIsAFailureWithItsCause(t *testing.T) {
	for _, command := range [][]string{{"put", "q", "v"}, {"--layout", "plain", "put", "p", "v"}, {"get", "-w", "1s", "q"}} {
		s := newShell(t)
		s.run("", "put", "q", "v")
		global := []string{"--session-timeout", "1s", "--connect-timeout", "1s"}
		code, stdout, stderr := s.runFull(time.Hour, append(global, command...)...)
		if code != exitFailed || stdout != "" {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", command, code, stdout, stderr)
		}
		if linesWith(stderr, "\nzkq: ") != 1 || linesWith(stderr, "third disk") == 0 {
			t.Errorf("%q: stderr %q", command, stderr)
		}
	}
}

// The wait is longer than a second: it is told when it begins to count, and when it is over.
func TestACommandThatWaitsForAFullServiceSaysSo(t *testing.T) {
	for act, command := range map[string][]string{
		"put":  {"put", "q", "v"},
		"take": {"consume", "--drain", "q"},
	} {
		s := newShell(t)
		s.run("", "put", "q", "v")
		code, stdout, stderr := s.runFull(4*time.Second, command...)
		if code != exitDone || stdout == "" {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", command, code, stdout, stderr)
		}
		if linesWith(stderr, "[WARN]  zkq: "+act+" waits: ") != 1 || linesWith(stderr, "[WARN]  zkq: "+act+" goes on: ") != 1 {
			t.Errorf("%q: stderr %q", command, stderr)
		}
	}
}

// The alarm stands before the command begins: etcd gives it no session.
func TestACommandOnAFullEtcdSaysSo(t *testing.T) {
	endpoints := testetcd.StartFor(t, 1, testetcd.Options{}).Endpoints()
	admin, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	status, err := admin.Status(t.Context(), endpoints[0])
	if err != nil {
		t.Fatal(err)
	}
	alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: status.Header.MemberId, Alarm: pb.AlarmType_NOSPACE}
	if _, err := pb.NewMaintenanceClient(admin.ActiveConnection()).Alarm(t.Context(), alarm); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	env := []string{"HOME=/nonexistent", "PATH=/nonexistent", "ZKQ_COORDINATOR=etcd://" + endpoints[0]}
	code := newProgram([]string{"--connect-timeout", "3s", "put", "q", "v"}, strings.NewReader(""), &stdout, &stderr, env).run(t.Context())
	if code != exitFailed || stdout.Len() > 0 || linesWith(stderr.String(), "\nzkq: ") != 1 {
		t.Errorf("exit %d, stdout %q, stderr %q", code, &stdout, &stderr)
	}
	for _, words := range []string{"[WARN]  zkq: no new session", "database space exceeded", "disarm its alarm"} {
		if linesWith(stderr.String(), words) == 0 {
			t.Errorf("%q lacks %q", &stderr, words)
		}
	}
	t.Log(stderr.String())
}
