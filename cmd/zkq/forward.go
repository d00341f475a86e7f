package main

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/zkq/zkq"
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

// passOn puts a value into the next queue, in the commit that removes the entry. It
// waits while that queue is full: the entry is held meanwhile, so that those who
// are ahead are held up by those behind.
func (c *consumer) passOn(h *zkq.Held, a *attempt, value []byte, err error) {
	for told := false; err == nil; told = true {
		err = c.persist(h, func() error {
			ctx, cancel := c.settling()
			defer cancel()
			return h.Forward(ctx, zkq.Target{Queue: c.next, Value: value, Options: []zkq.PutOption{zkq.WithPriority(h.Priority)}})
		})
		if !errors.Is(err, zkq.ErrFull) {
			break
		}
		if !told {
			c.call.log.Warn("waiting for room", "queue", c.next.Name())
		}
		t := time.NewTimer(fullEvery)
		select {
		case <-t.C:
			err = nil
		case <-c.ending.Done():
			t.Stop()
			c.release(h, a, outcomeReleased)
			return
		}
	}
	if errors.Is(err, zkq.ErrTooLarge) {
		a.Reason = err.Error()
		c.failed(h, a)
		return
	}
	c.finished(h, a, err)
}
