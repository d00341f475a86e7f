package zkqueue

import (
	"context"
	"net/netip"

	"github.com/zkq/zkq/internal/resolve"
)

// WithLookup returns cfg with host names looked up by lookup.
func WithLookup(cfg Config, lookup func(ctx context.Context, host string) ([]netip.Addr, error)) Config {
	cfg.names = &resolve.Names{Lookup: lookup}
	return cfg
}
