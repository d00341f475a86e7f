package zkq

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
)

// errPaused is ErrPaused, which is an ErrEmpty.
type errPaused struct{}

func (errPaused) Error() string        { return "zkq: queue is paused" }
func (errPaused) Is(target error) bool { return target == ErrEmpty }

// ErrPaused: nothing is handed out until somebody calls [LockingQueue.Resume]. It is an
// [ErrEmpty] too: nothing is there to be taken now.
var ErrPaused error = errPaused{}

// pauser has takes wait while the queue is paused. The pause is stored in the queue's
// configuration, so it holds for takes of every process.
type pauser struct {
	*handle.Handle
	settings  *settings
	log       Logger      // may be nil
	isWaiting atomic.Bool // a take waits for the end of a pause, and the log was told
}

// set pauses or resumes the queue.
func (p *pauser) set(ctx context.Context, act string, paused bool) error {
	err := p.settings.changeConfig(ctx, func(c *config) error {
		if c.Paused == paused {
			return errUnchanged
		}
		c.Paused = paused
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", act, p.Root, err)
	}
	return nil
}

// isPaused reports whether the queue is paused, by what this handle has heard last.
func (p *pauser) isPaused(ctx context.Context) (paused bool, err error) {
	err = p.Do(ctx, func(ctx context.Context, s coord.Session) error {
		c, err := p.settings.config(ctx, s)
		paused = c.Paused
		return err
	})
	return paused, err
}

// whileRunning runs take while the queue is not paused. A pause ends a take that waits, as the
// take's caller could end it, and the take begins again afterwards.
func (p *pauser) whileRunning(ctx context.Context, take func(context.Context) error) error {
	if ctx == nil {
		return fmt.Errorf("nil context: %w", ErrInvalid)
	}
	p.settings.startTaking()
	for {
		next := p.settings.changeSignal() // before the configuration is read
		paused, err := p.isPaused(ctx)
		if err != nil {
			return err
		}
		p.logWaiting(paused)
		if paused {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-p.Life.Done():
				return ErrClosed
			case <-next:
			}
			continue
		}
		taking, stop := context.WithCancelCause(ctx)
		ended := p.settings.onPause(func() { stop(ErrPaused) })
		err = take(taking)
		ended()
		stop(nil)
		if err == nil || ctx.Err() != nil || !errors.Is(context.Cause(taking), ErrPaused) {
			return err
		}
	}
}

// logWaiting logs once when takes begin to wait for the end of a pause, and once when they go
// on.
func (p *pauser) logWaiting(paused bool) {
	if p.log == nil || p.isWaiting.Swap(paused) == paused {
		return
	}
	if paused {
		p.log.Warn("queue is paused: nothing is handed out until it is resumed", "queue", p.Root)
	} else {
		p.log.Info("queue is resumed", "queue", p.Root)
	}
}
