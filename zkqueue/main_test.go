package zkqueue_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testzk"
	"github.com/zkq/zkq/zkqueue"
)

var servers testzk.Servers

func TestMain(m *testing.M) {
	code := m.Run()
	servers.Stop()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

var chroots atomic.Int64

// chroot is a place that no other test uses.
func chroot(t testing.TB) string {
	return fmt.Sprintf("/zkqtest/%d-%d-%s", os.Getpid(), chroots.Add(1), strings.NewReplacer("/", "_", " ", "_", "#", "_").Replace(t.Name()))
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func open(t testing.TB, cfg zkqueue.Config) *zkqueue.Coordinator {
	t.Helper()
	c, err := zkqueue.Open(within(t, 20*time.Second), cfg)
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
	rs, err := s.Commit(within(t, 10*time.Second), ops...)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func names(t testing.TB, s coord.Session, dir string, o coord.ListOptions) []string {
	t.Helper()
	l, err := s.List(within(t, 10*time.Second), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	var ns []string
	for _, n := range l.Nodes {
		ns = append(ns, strings.TrimPrefix(n.Path, strings.TrimSuffix(dir, "/")+"/"))
	}
	return ns
}

// singleLink is a way to the single server.
func singleLink(t testing.TB) *testzk.Link {
	t.Helper()
	return testzk.NewLink(t, servers.Single(t).Addresses()...)
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

// signalled waits for a signal.
func signalled(t testing.TB, ch <-chan struct{}, most time.Duration, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(most):
		t.Fatalf("no signal within %v: %s", most, what)
	}
}
