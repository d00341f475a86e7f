package zkqueue

import (
	"context"
	"net/netip"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/resolve"
)

// WithLookup returns cfg with host names looked up by lookup.
func WithLookup(cfg Config, lookup func(ctx context.Context, host string) ([]netip.Addr, error)) Config {
	cfg.names = &resolve.Names{Lookup: lookup}
	return cfg
}

// Counter returns the number of the next create in a directory.
func Counter(s coord.Session, ctx context.Context, dir string) (int64, error) {
	return s.(*session).readCounter(ctx, dir)
}

// SawNumber notes that a directory's counter is at least next.
func SawNumber(s coord.Session, dir string, next int64) { s.(*session).counters.advance(dir, next) }
