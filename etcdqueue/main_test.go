package etcdqueue_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
)

func TestMain(m *testing.M) {
	testetcd.Main()
	code := m.Run()
	single.stop()
	three.stop()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// The clusters that tests share. Nothing that a test does to one outlasts it.
var (
	single = &shared{members: 1}
	three  = &shared{members: 3}
)

type shared struct {
	members int
	once    sync.Once
	cluster *testetcd.Cluster
	err     error
}

func (s *shared) get(t testing.TB) *testetcd.Cluster {
	t.Helper()
	s.once.Do(func() { s.cluster, s.err = testetcd.Start(s.members, testetcd.Options{}) })
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.cluster
}

func (s *shared) stop() {
	if s.cluster != nil {
		s.cluster.Stop()
	}
}

var prefixes atomic.Int64

// prefix is one that no other test uses.
func prefix() string { return fmt.Sprintf("/zkqtest/%d", prefixes.Add(1)) }

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// open opens a coordinator that lives as long as the test.
func open(t testing.TB, cfg etcdqueue.Config) *etcdqueue.Coordinator {
	t.Helper()
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 15 * time.Second // the machine may be busy
	}
	c, err := etcdqueue.Open(within(t, 20*time.Second), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func session(t testing.TB, c coord.Coordinator) coord.Session {
	t.Helper()
	s, err := c.Session(within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func commit(t testing.TB, s coord.Session, ops ...coord.Op) []coord.Result {
	t.Helper()
	r, err := s.Commit(within(t, 10*time.Second), ops...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// eventually polls until f is true.
func eventually(t testing.TB, most time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(most); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", most, what)
		}
	}
}
