package zkq

import (
	"context"
	"sync"
)

// shared is something that many may want at a time, and one of them does for all.
type shared struct {
	mu   sync.Mutex
	done chan struct{} // closed when somebody has tried; nil: nobody does
}

// until has act called until enough is true, by one at a time. An error is that one's: the
// next tries himself.
func (sh *shared) until(ctx context.Context, woke func(context.Context), enough func() bool, act func() error) error {
	if enough() {
		return nil
	}
	woke(ctx) // with others, maybe, by the end of a session
	for {
		sh.mu.Lock()
		if enough() {
			sh.mu.Unlock()
			return nil
		}
		done := sh.done
		if done == nil {
			sh.done = make(chan struct{})
		}
		sh.mu.Unlock()
		if done == nil {
			err := act()
			sh.mu.Lock()
			close(sh.done)
			sh.done = nil
			sh.mu.Unlock()
			if err != nil {
				return err
			}
			continue
		}
		select {
		case <-done:
		case <-ctx.Done():
		}
		woke(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}
