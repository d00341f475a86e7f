package handle

import (
	"context"
	"sync"
)

// SharedCall is a call that several goroutines may need at a time: one of them makes it for
// all.
type SharedCall struct {
	Mu   sync.Locker   // guards what the call changes, and the field below
	done chan struct{} // closed when the call that is under way has returned; nil: none is
}

// Until has call made, by one goroutine at a time, until isDone is true. isDone is called
// with Mu held, call without. An error goes to the goroutine that made the call; the next
// one makes it again. woke is called when a goroutine goes on after waiting for another.
func (c *SharedCall) Until(ctx context.Context, woke func(context.Context), isDone func() bool, call func() error) error {
	c.Mu.Lock()
	done := isDone()
	c.Mu.Unlock()
	if done {
		return nil
	}
	woke(ctx) // the end of a session lets several goroutines go on at a time
	for {
		c.Mu.Lock()
		if isDone() {
			c.Mu.Unlock()
			return nil
		}
		underWay := c.done
		if underWay == nil {
			c.done = make(chan struct{})
		}
		c.Mu.Unlock()
		if underWay == nil {
			err := call()
			c.Mu.Lock()
			close(c.done)
			c.done = nil
			c.Mu.Unlock()
			if err != nil {
				return err
			}
			continue
		}
		select {
		case <-underWay:
		case <-ctx.Done():
		}
		woke(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}
