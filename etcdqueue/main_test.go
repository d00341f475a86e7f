package etcdqueue_test

import (
	"cmp"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testcoord"
	"github.com/zkq/zkq/internal/testetcd"
)

// Helpers of package testcoord, by the names that the tests of this package use.
var (
	within     = testcoord.Within
	session    = testcoord.Session
	commit     = testcoord.Commit
	eventually = testcoord.Eventually
	inParallel = testcoord.InParallel
	closedPort = testcoord.ClosedPort
)

func TestMain(m *testing.M) {
	testetcd.Main()
	testcoord.Main(m, single.stop, three.stop)
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

// prefix returns a prefix that no other test uses.
func prefix() string { return fmt.Sprintf("/zkqtest/%d", prefixes.Add(1)) }

// patience is how long tests wait for what they do not measure.
const patience = testcoord.Patience

// open opens a coordinator that lives as long as the test. Where cfg leaves it open, a busy machine
// has long to connect, and loses no session.
func open(t testing.TB, cfg etcdqueue.Config) *etcdqueue.Coordinator {
	t.Helper()
	cfg.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, patience)
	cfg.SessionTimeout = cmp.Or(cfg.SessionTimeout, 30*time.Second)
	c, err := etcdqueue.Open(within(t, patience), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
