//go:build cluster

package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/zkq/zkq/internal/testetcd"
	"github.com/zkq/zkq/internal/testfleet"
	"github.com/zkq/zkq/internal/testproxy"
	"github.com/zkq/zkq/internal/testzk"
)

// service is one of the two, with what the tests must know of it.
type service struct {
	name    string
	members []*member
	session time.Duration // that clients ask for
	bound   time.Duration // until every client writes again

	clientLink func(t testing.TB) *testproxy.Link
	leads      func(*member) (leads, serves bool)
}

// link is a client's way to the members, as the conformance suite uses it.
type link interface {
	Addresses() []string
	Cut()
	HoldReplies()
	HoldRequests()
	Heal()
}

func zooKeeper(t testing.TB) *service {
	s := &service{
		name: testfleet.ZooKeeper, members: members(t, "zookeeper", "2181"), session: 4 * time.Second, bound: 8 * time.Second,
		leads: func(m *member) (bool, bool) {
			answer, err := testzk.Ask(m.address, "srvr")
			return strings.Contains(answer, "Mode: leader"), err == nil && strings.Contains(answer, "Mode: ")
		},
	}
	s.clientLink = func(t testing.TB) *testproxy.Link { return testzk.NewLink(t, s.addresses()...).Link }
	return s
}

func etcd(t testing.TB) *service {
	s := &service{
		name: testfleet.Etcd, members: members(t, "etcd", "2379"), session: 5 * time.Second, bound: 5 * time.Second,
	}
	s.clientLink = func(t testing.TB) *testproxy.Link { return testetcd.NewLink(t, s.addresses()...).Link }
	admin := etcdClient(t, s)
	s.leads = func(m *member) (bool, bool) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		status, err := admin.Status(ctx, m.address)
		if err != nil || len(status.Errors) > 0 {
			return false, false
		}
		return status.Leader == status.Header.MemberId, status.Leader != 0
	}
	return s
}

func etcdClient(t testing.TB, s *service) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: s.addresses(), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func (s *service) addresses() []string {
	var as []string
	for _, m := range s.members {
		as = append(as, m.address)
	}
	return as
}

// leader waits until all members serve and one of them leads.
func (s *service) leader(t testing.TB) *member {
	t.Helper()
	var leader *member
	eventually(t, 60*time.Second, s.name+" has a leader, and all its members serve", func() bool {
		leader = nil
		for _, m := range s.members {
			leads, serves := s.leads(m)
			if !serves {
				return false
			}
			if leads {
				leader = m
			}
		}
		return leader != nil
	})
	return leader
}

func (s *service) follower(t testing.TB) *member {
	t.Helper()
	leader := s.leader(t)
	for _, m := range s.members {
		if m != leader {
			return m
		}
	}
	panic("there are three members")
}

// place is where a test works whose clients ask for a session like the service's.
func (s *service) place() testfleet.Place {
	return testfleet.Place{Service: s.name, Addresses: s.addresses(), Root: testfleet.NewRoot(), Session: s.session}
}
