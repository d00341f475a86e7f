package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
)

// forwardOutput collects the output of CMD, which becomes the value of a forwarded entry. It
// keeps no more than the largest value, and counts all bytes.
type forwardOutput struct {
	buf bytes.Buffer
	n   int64 // bytes that CMD printed, kept or not
}

// Write never fails, so that CMD does not notice when its output is too large.
func (p *forwardOutput) Write(b []byte) (int, error) {
	p.n += int64(len(b))
	if room := zkq.MaxValue - p.buf.Len(); room > 0 {
		p.buf.Write(b[:min(room, len(b))])
	}
	return len(b), nil
}

// value returns the output. It returns ErrTooLarge if an entry cannot hold all of it.
func (p *forwardOutput) value() ([]byte, error) {
	if p.n > zkq.MaxValue {
		return nil, fmt.Errorf("CMD printed %d bytes, and an entry holds at most %d: %w", p.n, zkq.MaxValue, zkq.ErrTooLarge)
	}
	return p.buf.Bytes(), nil
}

// fullEvery is the time between two attempts to put into a full queue.
const fullEvery = 200 * time.Millisecond

// passOn puts a value into the next queue in the commit that removes the entry. It returns
// the result of the attempt for the worker. If err is not nil, nothing is put, and err
// decides the result.
//
// While the next queue is full, passOn waits and the entry stays held. A slow consumer of
// the next queue thus slows this one down.
func (c *consumer) passOn(ctx context.Context, h *zkq.Held, a *attempt, value []byte, err error) error {
	if err == nil {
		target := zkq.Target{Queue: c.next, Value: value, Options: []zkq.PutOption{zkq.WithPriority(h.Priority)}}
		full := retry.Backoff{First: fullEvery, Max: fullEvery}
		told := false
		err, _ = full.Do(ctx, nil, func() (retry.Decision, error) {
			err := h.Forward(ctx, target)
			if !errors.Is(err, zkq.ErrFull) {
				return retry.Stop, err
			}
			if !told {
				c.call.log.Warn("waiting for room", "queue", c.next.Name())
				told = true
			}
			return retry.Later, err
		})
	}
	switch {
	case err == nil, errors.Is(err, zkq.ErrLockLost):
		return err
	case errors.Is(err, zkq.ErrTooLarge):
		a.Reason = err.Error()
		return errors.New(a.Reason)
	case !errors.Is(err, coord.ErrUnknown) && ctx.Err() == nil:
		c.fail(err)
	}
	return zkq.Release() // has no effect if the unanswered commit was made after all
}
