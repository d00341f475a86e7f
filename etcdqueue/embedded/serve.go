package embedded

import (
	"context"
	"errors"
)

// Serve keeps the store running until ctx ends, and then returns nil. It runs the store
// itself or, while another process does, waits to take over. It returns an error if this
// process cannot run the store, or a [*StoppedOwnerError] if it found the owner stopped
// within cfg.ConnectTimeout. Once this process has run the store, a store that fails is
// started again, and cfg.Warn is called with the reason.
func Serve(ctx context.Context, cfg Config) error {
	if err := cfg.check(ctx); err != nil {
		return err
	}
	dir, err := openDirectory(cfg.Dir)
	if err != nil {
		return err
	}
	k := newCandidate(dir, cfg.Warn)
	defer k.stop(stopTimeout)
	first, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	err = k.withOwnerChecks(first, k.awaitOwning)
	if err != nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	served, ever, said := false, false, ""
	for {
		changed, err := k.failure()
		_, self := k.owner()
		switch {
		case err != nil && !ever:
			return err
		case err != nil && err.Error() != said:
			said = err.Error()
			cfg.Warn(said)
		case self:
			ever, said = true, ""
		}
		if self && !served {
			cfg.Serving()
		}
		served = self
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
