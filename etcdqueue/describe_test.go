package etcdqueue_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
	"github.com/zkq/zkq/internal/testtls"
)

var _ coord.Describer = (*etcdqueue.Coordinator)(nil)

func TestDescribeAsksEveryMember(t *testing.T) {
	c := open(t, etcdqueue.Config{Endpoints: append(three.get(t).Endpoints(), "127.0.0.1:1"), Prefix: prefix()})
	session(t, c)
	var service coord.Service
	eventually(t, patience, "one leads and one is in use", func() bool { // a busy machine may elect another just now
		var err error
		service, err = c.Describe(within(t, patience))
		if err != nil || service.Name != "etcd" || len(service.Servers) != 4 {
			t.Fatalf("%+v, %v", service, err)
		}
		modes, used := map[string]int{}, 0
		for _, s := range service.Servers[:3] {
			modes[s.Mode]++
			if s.InUse {
				used++
			}
		}
		return modes["leader"] == 1 && modes["follower"] == 2 && used == 1
	})
	for _, s := range service.Servers[:3] {
		if s.Err != nil || !strings.HasPrefix(s.Version, "3.") {
			t.Errorf("%+v", s)
		}
	}
	if s := service.Servers[3]; s.Address != "127.0.0.1:1" || s.InUse || s.Err == nil || !strings.Contains(s.Err.Error(), "refused") {
		t.Errorf("nobody listens there: %+v", s)
	}
}

func TestDescribeDoesNotWaitForFrozenMember(t *testing.T) {
	cluster := three.get(t)
	c := open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix()})
	frozen := cluster.Members[1]
	frozen.Pause()
	t.Cleanup(frozen.Resume)
	service, err := c.Describe(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	if s := service.Servers[1]; s.Err == nil || !strings.Contains(s.Err.Error(), "no answer") {
		t.Errorf("the frozen member: %+v", s)
	}
}

func TestDescribeAfterCloseIsErrClosed(t *testing.T) {
	c := open(t, etcdqueue.Config{Endpoints: single.get(t).Endpoints(), Prefix: prefix()})
	c.Close()
	if _, err := c.Describe(within(t, patience)); !errors.Is(err, coord.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestDescribeLogsInAndEncrypts(t *testing.T) {
	ca := testtls.NewAuthority(t, "ca")
	ca.Leaf(t, "server", net.IPv4(127, 0, 0, 1))
	ca.Leaf(t, "client")
	encrypted := testetcd.StartFor(t, 1, testetcd.Options{Cert: ca.File("server", "crt"), Key: ca.File("server", "key"), CA: ca.File("ca", "crt")})
	for _, cfg := range []etcdqueue.Config{
		{Endpoints: guardedServer(t).Endpoints(), Username: "worker", Password: password, Prefix: "/ours"},
		{Endpoints: encrypted.Endpoints(), TLS: ca.Trust(t, "client"), Prefix: prefix()},
	} {
		c := open(t, cfg)
		service, err := c.Describe(within(t, patience))
		if err != nil || service.Servers[0].Err != nil || service.Servers[0].Mode != "leader" {
			t.Errorf("%v: %+v, %v", cfg, service, err)
		}
	}
}
