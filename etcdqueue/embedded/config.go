package embedded

import (
	"context"
	"fmt"
	"time"

	"github.com/zkq/zkq/coord"
)

// Config says which store, and how patiently.
type Config struct {
	// Dir holds the store. It is made, readable by its user alone, where there
	// is none; an empty directory is taken over. A directory with other things
	// in it is refused, and so is a store that others than its user may enter.
	Dir string

	SessionTimeout time.Duration // how long a silent process keeps its nodes; 0 means 10 s
	ConnectTimeout time.Duration // how long Open tries; 0 means 5 s

	// Warn is told, in a sentence, what works but should be looked at. nil is
	// silent.
	Warn func(string)

	// Serving is called by [Serve] each time this process begins to run the
	// store. nil is silent.
	Serving func()
}

const defaultConnectTimeout = 5 * time.Second

// check fills in the defaults.
func (cfg *Config) check(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("nil context: %w", coord.ErrInvalid)
	}
	if cfg.SessionTimeout < 0 || cfg.ConnectTimeout < 0 || cfg.SessionTimeout > 24*time.Hour {
		return fmt.Errorf("timeout out of range: %w", coord.ErrInvalid)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	if cfg.Warn == nil {
		cfg.Warn = func(string) {}
	}
	if cfg.Serving == nil {
		cfg.Serving = func() {}
	}
	return ctx.Err()
}
