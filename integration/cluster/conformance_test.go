//go:build cluster

package cluster

import (
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest/conformance"
	"github.com/zkq/zkq/internal/testetcd"
	"github.com/zkq/zkq/internal/testfleet"
	"github.com/zkq/zkq/internal/testshare"
	"github.com/zkq/zkq/internal/testzk"
)

// TestConformance runs the contract's suite on the clusters. A share of the checks has one of the two, or neither:
// go test ./... runs the same suite on three members of each service without containers.
func TestConformance(t *testing.T) {
	for _, service := range testshare.Of(t, []struct {
		name string
		run  func(*testing.T)
	}{
		{"ZooKeeper", conformZooKeeper},
		{"etcd", conformEtcd},
	}) {
		t.Run(service.name, service.run)
	}
}

func conformZooKeeper(t *testing.T) {
	conform(t, zooKeeper(t), func(t *testing.T, p testfleet.Place) coord.Coordinator {
		l := testzk.NewLink(t, p.Addresses...)
		return testzk.NewClient(t, open(t, p, l), l)
	})
}

func conformEtcd(t *testing.T) {
	s := etcd(t)
	s.session = 3 * time.Second
	admin := etcdClient(t, s)
	conform(t, s, func(t *testing.T, p testfleet.Place) coord.Coordinator {
		l := testetcd.NewLink(t, p.Addresses...)
		return testetcd.NewClient(open(t, p, l), l, admin)
	})
}

// open returns a client of a place by a link.
func open(t *testing.T, p testfleet.Place, l link) coord.Coordinator {
	t.Helper()
	p.Addresses = l.Addresses()
	c, err := testfleet.Open(within(t, 20*time.Second), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func conform(t *testing.T, s *service, open func(*testing.T, testfleet.Place) coord.Coordinator) {
	with := func(s service) func(*testing.T) conformance.Service {
		return func(*testing.T) conformance.Service { return &space{service: &s, place: s.place(), open: open} }
	}
	patient := *s
	patient.session = 20 * time.Second
	conformance.Run(t, conformance.Factory{New: with(*s), Patient: with(patient), Timeout: s.session})
}

// space is a part of a cluster for one case of the suite.
type space struct {
	*service
	place testfleet.Place
	open  func(*testing.T, testfleet.Place) coord.Coordinator
	t     *testing.T
}

func (s *space) Open(t *testing.T) coord.Coordinator {
	t.Helper()
	s.t = t
	c := s.open(t, s.place)
	if _, err := c.Session(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// Restart kills one member after the other, each once the one before serves again.
func (s *space) Restart() {
	for _, m := range s.members {
		m.kill(s.t)
		m.start(s.t)
		s.leader(s.t)
	}
}
