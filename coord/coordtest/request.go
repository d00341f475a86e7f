package coordtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
)

// request is one call on its way.
type request struct {
	session *session // nil: opens one
	kind    string
	where   []string   // of a read
	ops     []coord.Op // of a commit, never nil there
	new     bool       // a simulator has yet to give it its place

	// apply does the work at the service, on behalf of its end of the session.
	apply  func(*remote) error
	opened *session

	actor     string
	sent      bool // it left, and a connection that ends leaves its outcome open
	abandoned bool // nobody waits for the answer
	local     bool // the answer needs no connection
	answered  bool
	until     time.Time // a simulator lets it wait
	err       error
	done      chan struct{}
}

type actorKey struct{}

// As names the goroutine that makes requests with the context. A [Sim] orders
// requests that goroutines of one client send at the same time by it, so that two
// of them that send the same get their answers in the order of the seed.
func As(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// inTurn gives goroutines that one thing woke, say the end of their session,
// instants of their own: who comes first is then the seed's choice.
func inTurn(ctx context.Context) {
	actor, _ := ctx.Value(actorKey{}).(string)
	n := 1
	for _, b := range []byte(actor) {
		n = (n*31 + int(b)) % 997
	}
	time.Sleep(time.Duration(1 + 1024*n)) // further apart than their callers began
}

// fault is what becomes of a client's next commit.
type fault struct {
	apply bool
	err   error
}

// do sends q and waits for its answer, ctx, or the end of the session.
func (c *Coordinator) do(ctx context.Context, q *request) error {
	over := c.gone
	if q.session != nil {
		over = q.session.done
	}
	if c.store.simulated {
		over = nil // its driver wakes those who wait, one by one
	}
	q.done = make(chan struct{})
	q.actor, _ = ctx.Value(actorKey{}).(string)
	c.store.mu.Lock()
	for !c.store.simulated && c.store.expireNext() {
		// What is over is over, though the timer for it is late.
	}
	if err := c.may(ctx, q); err != nil {
		c.store.mu.Unlock()
		return err
	}
	c.submit(q)
	c.store.arm()
	c.store.mu.Unlock()
	select {
	case <-q.done:
	case <-ctx.Done():
	case <-over:
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	return c.settle(ctx, q)
}

// may says why q cannot be sent.
func (c *Coordinator) may(ctx context.Context, q *request) error {
	if c.closed {
		return coord.ErrClosed
	}
	if q.session != nil {
		if err := q.session.alive(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (c *Coordinator) submit(q *request) {
	q.sent = !c.cut && !c.store.down
	if !c.store.simulated && c.requestsReach() && len(c.queue) == 0 {
		c.arrive(q)
		return
	}
	q.new = true
	c.queue = append(c.queue, q)
	c.store.nudge()
}

// settle says how q ended for the one who waited.
func (c *Coordinator) settle(ctx context.Context, q *request) error {
	if q.answered {
		return q.err
	}
	q.abandoned = true
	c.replies = slices.DeleteFunc(c.replies, func(o *request) bool { return o == q })
	err := c.may(ctx, q)
	if q.ops != nil && q.sent {
		if errors.Is(err, ctx.Err()) {
			return fmt.Errorf("%w: %w", coord.ErrUnknown, err)
		}
		return coord.ErrUnknown
	}
	c.queue = slices.DeleteFunc(c.queue, func(o *request) bool { return o == q })
	return err
}

// pump lets through what waited, in order.
func (c *Coordinator) pump() {
	if c.repliesReach() && !c.store.simulated {
		replies := c.replies
		c.replies = nil
		for _, q := range replies {
			c.finish(q, q.err)
		}
	}
	if !c.store.down && !c.cut {
		for _, q := range c.queue {
			q.sent = true
		}
	}
	if c.store.simulated {
		return // request by request, step by step
	}
	for len(c.queue) > 0 && c.requestsReach() {
		q := c.queue[0]
		c.queue = c.queue[1:]
		c.arrive(q)
	}
}

// arrive lets the service do q.
func (c *Coordinator) arrive(q *request) {
	f := fault{apply: true}
	if q.ops != nil && len(c.faults) > 0 {
		f = c.faults[0]
		c.faults = c.faults[1:]
	}
	err := f.err
	if f.apply {
		err = c.store.serve(q)
	}
	if f.err != nil {
		c.answer(q, f.err)
		if errors.Is(f.err, coord.ErrUnknown) {
			c.reconnect()
		}
		return
	}
	if !c.repliesReach() || c.store.simulated {
		q.err = err
		c.replies = append(c.replies, q)
		return
	}
	c.finish(q, err)
}

// serve does q at the service, unless its session is over there.
func (s *Store) serve(q *request) error {
	if q.session == nil {
		return q.apply(nil)
	}
	if r := s.remote(q.session.id); r != nil {
		return q.apply(r)
	}
	return coord.ErrSessionLost
}

// answer lets the client find out err by itself.
func (c *Coordinator) answer(q *request, err error) {
	if c.store.simulated && !q.answered && !q.abandoned {
		q.err, q.local = err, true
		c.replies = append(c.replies, q)
		return
	}
	c.finish(q, err)
}

func (c *Coordinator) finish(q *request, err error) {
	if q.answered || q.abandoned {
		return
	}
	if errors.Is(err, coord.ErrSessionLost) {
		q.session.lose()
	}
	if q.opened != nil && err == nil {
		c.session = q.opened
		c.hear()
	}
	q.answered, q.err = true, err
	close(q.done)
}
