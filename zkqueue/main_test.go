package zkqueue_test

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zkq/zkq/internal/testcoord"
	"github.com/zkq/zkq/internal/testzk"
	"github.com/zkq/zkq/zkqueue"
)

var servers testzk.Servers

// Helpers of package testcoord, by the names that the tests of this package use.
var (
	within     = testcoord.Within
	session    = testcoord.Session
	commit     = testcoord.Commit
	names      = testcoord.Names
	eventually = testcoord.Eventually
	inParallel = testcoord.InParallel
	closedPort = testcoord.ClosedPort
)

func TestMain(m *testing.M) {
	testcoord.Main(m, servers.Stop)
}

var chroots atomic.Int64

// chroot returns a path that no other test uses.
func chroot(t testing.TB) string {
	return fmt.Sprintf("/zkqtest/%d-%d-%s", os.Getpid(), chroots.Add(1), strings.NewReplacer("/", "_", " ", "_", "#", "_").Replace(t.Name()))
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

// singleLink returns a link to the single server.
func singleLink(t testing.TB) *testzk.Link {
	t.Helper()
	return testzk.NewLink(t, servers.Single(t).Addresses()...)
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
