// Package resolve finds the servers behind a host name. A name with several addresses
// stands for as many servers; a driver tries each of them.
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

// Names looks up host names and remembers the order in which their addresses were dialled.
// The zero value is ready for use. Its methods may be called from several goroutines.
type Names struct {
	// Lookup finds the addresses of a host; nil means the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	mu     sync.Mutex
	dials  uint64
	dialed map[string]uint64 // the number of the last dial, by address
}

// maxDialed bounds how many addresses are remembered. In some clusters a server gets a new
// address with each restart.
const maxDialed = 1024

// Servers returns the addresses that a host:port stands for now, as IP:port. Those that
// were never dialled come first, in random order, then the others, the one dialled longest
// ago first. An address with an IP is returned as it is. Servers blocks until the resolver
// answers or ctx ends.
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

// Dialed records that a server is dialled now.
func (n *Names) Dialed(server string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dialed == nil || len(n.dialed) >= maxDialed {
		n.dialed = make(map[string]uint64)
	}
	n.dials++
	n.dialed[server] = n.dials
}

// Absent reports whether a dial failed because no server listens there, or because this
// machine does not support the protocol of the address.
func Absent(err error) bool {
	var dns *net.DNSError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) ||
		errors.As(err, &dns) && dns.IsNotFound
}
