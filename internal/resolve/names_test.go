package resolve_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"github.com/zkq/zkq/internal/resolve"
)

func TestEachAddressOfANameIsTriedInTurn(t *testing.T) {
	now := []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("::ffff:127.0.0.3"), netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.0.2")}
	n := resolve.Names{Lookup: func(context.Context, string) ([]netip.Addr, error) { return now, nil }}
	var dialed []string
	for range 6 {
		servers, err := n.Servers(t.Context(), "zk:2181")
		if err != nil || len(servers) != 3 {
			t.Fatalf("%q, %v; want three servers", servers, err)
		}
		n.Dialed(servers[0])
		dialed = append(dialed, servers[0])
	}
	first := slices.Sorted(slices.Values(dialed[:3]))
	if want := []string{"127.0.0.2:2181", "127.0.0.3:2181", "[::1]:2181"}; !slices.Equal(first, want) {
		t.Errorf("the first three dials went to %q, want %q", first, want)
	}
	if !slices.Equal(dialed[:3], dialed[3:]) {
		t.Errorf("%q: want the same turn twice", dialed)
	}
	now = append(now, netip.MustParseAddr("127.0.0.4"))
	if servers, _ := n.Servers(t.Context(), "zk:2181"); servers[0] != "127.0.0.4:2181" {
		t.Errorf("%q: a new address is tried first", servers)
	}
}

func TestAnAddressThatIsOneIsNotLookedUp(t *testing.T) {
	n := resolve.Names{Lookup: func(context.Context, string) ([]netip.Addr, error) { panic("looked up") }}
	for _, address := range []string{"127.0.0.1:2181", "[::1]:2181", "[fe80::1%eth0]:2181"} {
		if servers, err := n.Servers(t.Context(), address); err != nil || !slices.Equal(servers, []string{address}) {
			t.Errorf("%s: %q, %v", address, servers, err)
		}
	}
	if servers, err := n.Servers(t.Context(), "no port"); err == nil {
		t.Errorf("no port: %q", servers)
	}
}
