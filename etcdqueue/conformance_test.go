package etcdqueue_test

import (
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest/conformance"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
)

func TestConformanceOfOneMember(t *testing.T) { conform(t, single.get(t), 4*time.Second) }

func TestConformanceOfThreeMembers(t *testing.T) { conform(t, three.get(t), 4*time.Second) }

func conform(t *testing.T, cluster *testetcd.Cluster, timeout time.Duration) {
	admin := cluster.Client(t)
	with := func(timeout time.Duration) func(*testing.T) conformance.Service {
		return func(*testing.T) conformance.Service { return &service{cluster, admin, prefix(), timeout} }
	}
	conformance.Run(t, conformance.Factory{New: with(timeout), Patient: with(20 * time.Second), Timeout: timeout})
}

// service is a prefix in a cluster.
type service struct {
	cluster *testetcd.Cluster
	admin   *clientv3.Client
	prefix  string
	timeout time.Duration
}

// Open returns a client whose connections go through a link of its own.
func (s *service) Open(t *testing.T) coord.Coordinator {
	t.Helper()
	link := testetcd.NewLink(t, s.cluster.Endpoints()...)
	c := testetcd.NewClient(open(t, etcdqueue.Config{
		Endpoints: link.Addresses(), Prefix: s.prefix, SessionTimeout: s.timeout,
	}), link, s.admin)
	if _, err := c.Session(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// Restart kills one member after the other, each once the one before serves again.
func (s *service) Restart() {
	for _, m := range s.cluster.Members {
		m.Kill()
		if err := s.cluster.Restart(); err != nil {
			panic(err)
		}
	}
}
