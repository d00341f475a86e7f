package zkqueue_test

import (
	"cmp"
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

// patience is how long tests wait for what they do not measure.
const patience = testcoord.Patience

// open opens a coordinator that lives as long as the test. Where cfg leaves it open, a busy machine
// has long to connect, and loses no session.
func open(t testing.TB, cfg zkqueue.Config) *zkqueue.Coordinator {
	t.Helper()
	cfg.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, patience)
	cfg.SessionTimeout = cmp.Or(cfg.SessionTimeout, 30*time.Second)
	c, err := zkqueue.Open(within(t, patience), cfg)
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
func signalled(t testing.TB, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		t.Fatalf("no signal within %v: %s", patience, what)
	}
}
