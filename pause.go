package zkq

import (
	"context"
	"errors"
	"fmt"

	"github.com/zkq/zkq/coord"
)

// errPaused is ErrPaused, which is an ErrEmpty.
type errPaused struct{}

func (errPaused) Error() string        { return "zkq: queue is paused" }
func (errPaused) Is(target error) bool { return target == ErrEmpty }

// ErrPaused: nothing is handed out until somebody calls [LockingQueue.Resume]. It is an
// [ErrEmpty] too: nothing is there to be taken now.
var ErrPaused error = errPaused{}

// Pause has takes hand out nothing until Resume: those that wait go on waiting, others are
// [ErrPaused]. It is stored with the queue, and those that wait hear of it at once; a claim
// that is under way may still succeed. What is held can be finished, and puts go on. kazoo's
// workers know nothing of it.
func (q *LockingQueue) Pause(ctx context.Context) error { return q.setPaused(ctx, "pause", true) }

// Resume ends a Pause. One that was not paused is no error.
func (q *LockingQueue) Resume(ctx context.Context) error { return q.setPaused(ctx, "resume", false) }

func (q *LockingQueue) setPaused(ctx context.Context, act string, paused bool) error {
	err := q.settings.changeConfig(ctx, func(c *config) error {
		if c.Paused == paused {
			return errDone
		}
		c.Paused = paused
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", act, q.handle.Root, err)
	}
	return nil
}

// paused says whether the queue is, by what this handle has heard.
func (q *LockingQueue) paused(ctx context.Context) (paused bool, err error) {
	err = q.handle.Do(ctx, func(ctx context.Context, s coord.Session) error {
		c, err := q.settings.config(ctx, s)
		paused = c.Paused
		return err
	})
	return paused, err
}

// whileRunning runs take while the queue is not paused: a take that waits is ended by a
// pause, as its caller could end it, and begun again afterwards.
func (q *LockingQueue) whileRunning(ctx context.Context, take func(context.Context) error) error {
	if ctx == nil {
		return fmt.Errorf("nil context: %w", ErrInvalid)
	}
	q.settings.take()
	q.mover.start() // who hears of a change
	for {
		next := q.settings.next() // before the look
		paused, err := q.paused(ctx)
		if err != nil {
			return err
		}
		q.tellPaused(paused)
		if paused {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-q.handle.Life.Done():
				return ErrClosed
			case <-next:
			}
			continue
		}
		taking, stop := context.WithCancelCause(ctx)
		ended := q.settings.atPause(func() { stop(ErrPaused) })
		err = take(taking)
		ended()
		stop(nil)
		if err == nil || ctx.Err() != nil || !errors.Is(context.Cause(taking), ErrPaused) {
			return err
		}
	}
}

// tellPaused logs it once when takes begin to wait for the end of a pause, and when they
// go on.
func (q *LockingQueue) tellPaused(paused bool) {
	if q.log == nil || q.waitsPaused.Swap(paused) == paused {
		return
	}
	if paused {
		q.log.Warn("queue is paused: nothing is handed out until it is resumed", "queue", q.Name())
	} else {
		q.log.Info("queue is resumed", "queue", q.Name())
	}
}
