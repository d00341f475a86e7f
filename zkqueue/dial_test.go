package zkqueue_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testzk"
	"github.com/zkq/zkq/zkqueue"
)

// addresses returns a lookup of a host with these addresses, in this order.
func addresses(ips ...string) func(context.Context, string) ([]netip.Addr, error) {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		if host != "zkm" {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		var addrs []netip.Addr
		for _, ip := range ips {
			addrs = append(addrs, netip.MustParseAddr(ip))
		}
		return addrs, nil
	}
}

// TestEachAddressOfANameIsAServer gives a name two addresses, one of which is of no use. The
// first dial goes to either: the other must be tried too.
func TestEachAddressOfANameIsAServer(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	plain := servers.Single(t).Addresses()[0]
	encrypted := tlsFront(t, &tls.Config{Certificates: []tls.Certificate{p.issue(t, time.Now().Add(time.Hour), "zkm")}})
	for name, serve := range map[string]func(net.Conn){
		"closes": func(c net.Conn) { c.Close() },
		"silent": func(net.Conn) {},
		"absent": nil,
	} {
		for _, good := range []string{plain, encrypted} {
			t.Run(fmt.Sprintf("%s/TLS=%v", name, good == encrypted), func(t *testing.T) {
				t.Parallel()
				// A port of its own for each, so that what is of no use can listen there.
				front := testzk.NewLink(t, good).Addresses()[0]
				_, port, _ := net.SplitHostPort(front)
				if serve != nil {
					accept(t, "127.0.0.2:"+port, serve)
				}
				for range 4 {
					cfg := zkqueue.Config{Servers: []string{"zkm:" + port}, Chroot: chroot(t), SessionTimeout: 8 * time.Second}
					if good == encrypted {
						cfg.TLS = &tls.Config{RootCAs: p.pool}
					}
					c := open(t, zkqueue.WithLookup(cfg, addresses("127.0.0.2", "127.0.0.1")))
					commit(t, session(t, c), coord.Create("/q/a", nil))
					service, err := c.Describe(within(t, patience))
					if err != nil || len(service.Servers) != 2 {
						t.Fatalf("%+v, %v", service, err)
					}
					if s := service.Servers[1]; s.InUse || s.Err == nil || s.Address != "zkm:"+port+" (127.0.0.2:"+port+")" {
						t.Errorf("%+v is of no use", s)
					}
					if s := service.Servers[0]; !s.InUse || s.Err != nil {
						t.Errorf("%+v is in use", s)
					}
				}
			})
		}
	}
}

// TestUnreachableNamesEachAddressOfAName gives a name two addresses where no server is.
func TestUnreachableNamesEachAddressOfAName(t *testing.T) {
	t.Parallel()
	_, port, _ := net.SplitHostPort(closedPort(t))
	cfg := zkqueue.Config{Servers: []string{"zkm:" + port, "nowhere:" + port}, ConnectTimeout: patience}
	_, err := zkqueue.Open(context.Background(), zkqueue.WithLookup(cfg, addresses("127.0.0.2", "127.0.0.3")))
	if !errors.Is(err, coord.ErrUnreachable) {
		t.Fatalf("%v, want ErrUnreachable", err)
	}
	for _, says := range []string{"127.0.0.2:" + port + "): ", "127.0.0.3:" + port + "): ", "refused", "nowhere:" + port + ": ", "no such host"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%q is not in %v", says, err)
		}
	}
}
