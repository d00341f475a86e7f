package embedded

import (
	"context"
	"fmt"
	"time"

	"github.com/zkq/zkq/coord"
)

// Config says which directory to use, and for how long to wait. Only Dir is required.
type Config struct {
	// Dir holds the store. It is created, for its user alone, if it does not exist; an empty
	// directory is used as it is. A directory with other files in it is refused, and so is a
	// store that other users may enter.
	Dir string

	// SessionTimeout is how long the nodes of a process that is not heard from are kept; 0
	// means 10 s.
	SessionTimeout time.Duration
	// ConnectTimeout is the longest time that Open takes; 0 means 5 s.
	ConnectTimeout time.Duration

	// Warn is called with one sentence when something works but should be looked at. It may be
	// called from any goroutine. nil drops the warnings.
	Warn func(string)

	// Serving is called by [Serve] each time this process begins to run the store. nil means
	// no call.
	Serving func()
}

const defaultConnectTimeout = 5 * time.Second

// check sets the defaults. It returns [coord.ErrInvalid] if the configuration is wrong.
func (cfg *Config) check(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("nil context: %w", coord.ErrInvalid)
	}
	if cfg.SessionTimeout < 0 || cfg.ConnectTimeout < 0 || cfg.SessionTimeout > 24*time.Hour {
		return fmt.Errorf("timeouts must not be negative, and the session timeout at most 24 h: %w", coord.ErrInvalid)
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
