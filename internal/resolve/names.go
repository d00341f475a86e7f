// Package resolve finds the servers behind a host name. A name with several addresses
// stands for as many servers, and each of them is tried.
package resolve

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
)

// Names looks host names up and remembers which of their addresses were dialled when. The
// zero value is ready for use, from several goroutines.
type Names struct {
	// Lookup finds the addresses of a host; nil means the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	mu     sync.Mutex
	dials  uint64
	dialed map[string]uint64 // the number of the last dial, by address
}

// maxDialed bounds what is remembered: in some places each restart of a server gives its
// name a new address.
const maxDialed = 1024

// Servers returns the addresses that a host:port stands for now, as IP:port: first those
// that were dialled longest ago or never, in random order where that is equal. An address
// that is an IP already is returned as it is.
func (n *Names) Servers(ctx context.Context, address string) ([]string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{address}, nil
	}
	lookup := n.Lookup
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	ips, err := lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, &net.DNSError{Err: "no addresses", Name: host, IsNotFound: true}
	}
	servers := make([]string, 0, len(ips))
	for _, ip := range ips {
		if s := net.JoinHostPort(ip.Unmap().String(), port); !slices.Contains(servers, s) {
			servers = append(servers, s)
		}
	}
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	n.mu.Lock()
	defer n.mu.Unlock()
	slices.SortStableFunc(servers, func(a, b string) int {
		switch x, y := n.dialed[a], n.dialed[b]; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return servers, nil
}

// Dialed notes that a server is dialled now.
func (n *Names) Dialed(server string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dialed == nil || len(n.dialed) >= maxDialed {
		n.dialed = make(map[string]uint64)
	}
	n.dials++
	n.dialed[server] = n.dials
}

// Absent reports that a dial failed because no server listens there, or because this
// machine does not speak the address's protocol.
func Absent(err error) bool {
	var dns *net.DNSError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) ||
		errors.As(err, &dns) && dns.IsNotFound
}
