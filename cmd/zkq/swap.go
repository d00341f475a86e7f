package main

import (
	"errors"

	"github.com/zkq/zkq"
)

// swaps let the entries that are done be removed by whoever takes the next
// ones, in one commit: half of what the two cost, and less where several are done.
type swaps struct {
	open bool      // somebody takes, and will see to what is added
	done []*leaver // since he last did
}

// leaver is an entry whose work is done. The one who worked on it waits to hear
// what became of it.
type leaver struct {
	held *zkq.Held
	told chan error
}

// remove removes an entry, together with others and with the taking of more if that
// is going on anyway.
func (c *consumer) remove(h *zkq.Held) error {
	c.mu.Lock()
	if c.swaps.open {
		l := &leaver{h, make(chan error, 1)}
		c.swaps.done = append(c.swaps.done, l)
		c.mu.Unlock()
		c.wake()
		return <-l.told
	}
	c.mu.Unlock()
	ctx, cancel := c.settling()
	defer cancel()
	return h.Consume(ctx)
}

// leavers are those that wait to be removed. Unless it is the last time, whoever
// takes sees to those that come from then on.
func (c *consumer) leavers(last bool) []*leaver {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := c.swaps.done
	c.swaps.done, c.swaps.open = nil, !last
	return done
}

// standAside says that whoever takes may wait for entries: nobody waits for him, and
// nobody will.
func (c *consumer) standAside() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.swaps.open = len(c.swaps.done) > 0
	return !c.swaps.open
}

// swap removes entries and takes up to n others that are there. The error is that
// of the taking.
func (c *consumer) swap(done []*leaver, n int) ([]*zkq.Held, error) {
	ctx, cancel := c.settling()
	defer cancel()
	entries := make([]*zkq.Held, len(done))
	for i, l := range done {
		entries[i] = l.held
	}
	held, err := c.queue.Exchange(ctx, entries, n)
	finishes := make(map[*zkq.Held]error)
	err = apart(err, finishes)
	for _, l := range done {
		l.told <- finishes[l.held]
	}
	return held, err
}

// apart parts the error of an exchange: what became of single entries goes into
// finishes, and the rest is returned.
func apart(err error, finishes map[*zkq.Held]error) error {
	var f *zkq.FinishError
	if !errors.As(err, &f) {
		return err
	}
	switch e := err.(type) {
	case *zkq.FinishError:
		finishes[e.Held] = e.Err
		return nil
	case interface{ Unwrap() []error }:
		var rest []error
		for _, part := range e.Unwrap() {
			rest = append(rest, apart(part, finishes))
		}
		return errors.Join(rest...)
	}
	return apart(errors.Unwrap(err), finishes)
}

// wake has whoever takes look again.
func (c *consumer) wake() {
	select {
	case c.ended <- struct{}{}:
	default:
	}
}
