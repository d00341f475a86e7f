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

// printed is what CMD printed, of which an entry is to be made: as much as one can
// hold, and how much it was.
type printed struct {
	buf bytes.Buffer
	n   int64
}

func (p *printed) Write(b []byte) (int, error) {
	p.n += int64(len(b))
	if room := zkq.MaxValue - p.buf.Len(); room > 0 {
		p.buf.Write(b[:min(room, len(b))])
	}
	return len(b), nil
}

// value is what the entry holds, and why there can be none.
func (p *printed) value() ([]byte, error) {
	if p.n > zkq.MaxValue {
		return nil, fmt.Errorf("CMD printed %d bytes, and an entry holds at most %d: %w", p.n, zkq.MaxValue, zkq.ErrTooLarge)
	}
	return p.buf.Bytes(), nil
}

// fullEvery is how often a full queue is asked again whether it has room.
const fullEvery = 200 * time.Millisecond

// passOn puts a value into the next queue, in the commit that removes the entry, and returns
// what that means for the entry. While that queue is full it waits: the entry stays held, so
// that a slow consumer of the next queue slows this one down.
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
	return zkq.Release() // unless it was passed on after all
}
