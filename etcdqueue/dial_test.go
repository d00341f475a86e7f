package etcdqueue_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
)

// TestEachAddressOfANameIsAServer gives a name two addresses, one of which is of no use. The
// first dial goes to either: the other must be tried too.
func TestEachAddressOfANameIsAServer(t *testing.T) {
	t.Parallel()
	lookup := func(_ context.Context, host string) ([]netip.Addr, error) {
		if host != "etcdm" {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")}, nil
	}
	good := strings.TrimPrefix(single.get(t).Endpoints()[0], "http://")
	for name, serve := range map[string]func(net.Conn){
		"closes": func(c net.Conn) { c.Close() },
		"silent": func(net.Conn) {},
		"absent": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Each server of no use has a port of its own, so the good one is reached by a link.
			link := testetcd.NewLink(t, good)
			_, port, _ := net.SplitHostPort(link.Addresses()[0])
			if serve != nil {
				accept(t, "127.0.0.2:"+port, serve)
			}
			for range 4 {
				cfg := etcdqueue.Config{Endpoints: []string{"etcdm:" + port}, Prefix: prefix(), ConnectTimeout: patience}
				c := open(t, etcdqueue.WithLookup(cfg, lookup))
				commit(t, session(t, c), coord.Create("/q/a", nil))
				service, err := c.Describe(within(t, patience))
				if err != nil || len(service.Servers) != 2 {
					t.Fatalf("%+v, %v", service, err)
				}
				if s := service.Servers[1]; s.InUse || s.Err == nil || s.Address != "etcdm:"+port+" (127.0.0.2:"+port+")" {
					t.Errorf("%+v is of no use", s)
				}
				if s := service.Servers[0]; !s.InUse || s.Err != nil {
					t.Errorf("%+v is in use", s)
				}
			}
		})
	}
}

// accept listens at the address, and gives each connection to serve until the test ends.
func accept(t *testing.T, address string, serve func(net.Conn)) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			serve(c)
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
		for _, c := range conns {
			c.Close()
		}
	})
}
