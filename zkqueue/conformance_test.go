package zkqueue_test

import (
	"os"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest/conformance"
	"github.com/zkq/zkq/internal/testzk"
	"github.com/zkq/zkq/zkqueue"
)

func TestConformanceOfOneServer(t *testing.T) {
	c := servers.Single(t)
	f := factory(c)
	if os.Getenv("ZKQ_TEST_ZOOKEEPER") != "" {
		f.New = func(t *testing.T) conformance.Service { return service{cluster: c, root: chroot(t), timeout: timeout} }
		f.Without = []string{"Restart"}
	}
	conformance.Run(t, f)
}

func TestConformanceOfThreeServers(t *testing.T) {
	conformance.Run(t, factory(servers.Ensemble(t)))
}

// TestConformanceOfAnOldServer uses servers whose watches fire only once.
func TestConformanceOfAnOldServer(t *testing.T) {
	f := factory(servers.Single(t))
	f.New = func(t *testing.T) conformance.Service { return service{servers.Single(t), chroot(t), timeout, old} }
	f.Patient = nil
	f.LateSignals = true
	f.Without = []string{"Restart"}
	conformance.Run(t, f)
}

const timeout = 4 * time.Second

func factory(c *testzk.Cluster) conformance.Factory {
	with := func(timeout time.Duration) func(*testing.T) conformance.Service {
		return func(t *testing.T) conformance.Service {
			return restartable{service{cluster: c, root: chroot(t), timeout: timeout}}
		}
	}
	return conformance.Factory{New: with(timeout), Patient: with(20 * time.Second), Timeout: timeout}
}

// service is a chroot in a cluster.
type service struct {
	cluster *testzk.Cluster
	root    string
	timeout time.Duration
	variant func(zkqueue.Config) zkqueue.Config
}

func (s service) Open(t *testing.T) coord.Coordinator {
	t.Helper()
	addresses := s.cluster.Addresses()
	for len(addresses) < 3 { // see threeWays
		addresses = append(addresses, addresses[0])
	}
	link := testzk.NewLink(t, addresses...)
	cfg := zkqueue.Config{Servers: link.Addresses(), Chroot: s.root, SessionTimeout: s.timeout}
	if s.variant != nil {
		cfg = s.variant(cfg)
	}
	return testzk.NewClient(t, open(t, cfg), link)
}

// restartable is a service whose servers the test may restart.
type restartable struct{ service }

// Restart kills one server after the other, each once the one before serves again.
func (s restartable) Restart() {
	for _, m := range s.cluster.Members {
		m.Kill()
		if err := s.cluster.Start(); err != nil {
			panic(err)
		}
	}
}
