package group

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
)

// Runner sends the commits of many goroutines, several in one request where they
// wait at the same time. It has a goroutine for each request that is under way and
// none else; the last of them ends soon after [Runner.End], and [Runner.Wait] waits
// for it.
type Runner struct {
	send    func(*Batch) []Outcome
	flights int

	mu      sync.Mutex
	queue   *Queue
	flying  int  // goroutines
	looking bool // one of them is about to take a batch
	ended   error
	flown   sync.WaitGroup
}

// seat is what a runner knows of a commit. Its mutex guards it.
type seat struct {
	done    chan struct{} // closed with the outcome
	out     Outcome
	sealed  bool // counts as sent
	left    bool // its caller has gone
	settled bool
}

// NewRunner returns a runner that has at most so many requests under way.
//
// send makes one request of a batch. It waits for the way to be open, calls
// [Batch.Seal], sends what that leaves, and returns an outcome for each of these
// commits, in their order: the results; a [*coord.Refusal] with the commit's own
// index; [coord.ErrUnknown] where no answer came; [ErrAgain] where the service
// applied nothing because it refused another; or another error that says that
// nothing was applied. It is bound to the session's life and to no caller's
// context, and is called by several goroutines.
func NewRunner(l Limits, flights int, send func(*Batch) []Outcome) *Runner {
	return &Runner{send: send, flights: flights, queue: NewQueue(l)}
}

// Do commits ops, which are copied, and waits for the outcome. When ctx ends before
// they were sent they never are, and the error is the context's; after that it is
// [coord.ErrUnknown] too. After [Runner.End] nothing is sent.
func (r *Runner) Do(ctx context.Context, ops []coord.Op) ([]coord.Result, error) {
	return r.do(ctx, nil, ops)
}

// ErrLate says that a commit was not sent in time, and never is.
var ErrLate = errors.New("not sent in time")

// DoWithin is Do, with [ErrLate] if nobody has begun to send the commit after patience.
func (r *Runner) DoWithin(ctx context.Context, patience time.Duration, ops []coord.Op) ([]coord.Result, error) {
	t := time.NewTimer(patience)
	defer t.Stop()
	return r.do(ctx, t.C, ops)
}

// Waiting returns how many commits are not in a request yet.
func (r *Runner) Waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.queue.Len()
}

func (r *Runner) do(ctx context.Context, late <-chan time.Time, ops []coord.Op) ([]coord.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := &Commit{Ops: make([]coord.Op, len(ops))}
	for i, op := range ops {
		op.Value = bytes.Clone(op.Value) // it may be sent when the caller has gone on
		c.Ops[i] = op
	}
	c.seat.done = make(chan struct{})
	if err := r.add(c); err != nil {
		return nil, err
	}
	for {
		select {
		case <-c.seat.done:
			return c.seat.out.Results, c.seat.out.Err
		case <-late:
			if r.withdraw(c) {
				return nil, ErrLate
			}
			late = nil
		case <-ctx.Done():
			if err := r.leave(c, ctx.Err()); err != nil {
				return nil, err
			}
			return c.seat.out.Results, c.seat.out.Err
		}
	}
}

// add lets c wait and sees to it that somebody will take it.
func (r *Runner) add(c *Commit) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended != nil {
		return r.ended
	}
	r.queue.Add(c)
	r.wake()
	return nil
}

// wake starts another flight, unless one is about to look at the queue or no more
// may be under way.
func (r *Runner) wake() {
	if r.looking || r.flying >= r.flights || r.queue.Len() == 0 {
		return
	}
	r.looking = true
	r.flying++
	r.flown.Add(1)
	go r.fly()
}

// withdraw takes a commit back that nobody has begun to send.
func (r *Runner) withdraw(c *Commit) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.seat.settled || c.seat.sealed {
		return false
	}
	c.seat.left = true
	r.queue.Remove(c)
	return true
}

// leave ends a caller's wait; nil: there is an outcome.
func (r *Runner) leave(c *Commit, why error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.seat.settled {
		return nil
	}
	c.seat.left = true
	r.queue.Remove(c)
	if c.seat.sealed {
		return fmt.Errorf("%w: %w", coord.ErrUnknown, why)
	}
	return why
}

// fly sends batches until none waits.
func (r *Runner) fly() {
	defer r.flown.Done()
	for {
		r.gather()
		r.mu.Lock()
		r.looking = false
		b := r.queue.Next()
		if b == nil {
			r.flying--
			r.mu.Unlock()
			return
		}
		b.runner = r
		r.wake() // for what this batch left
		r.mu.Unlock()
		r.settle(b, r.send(b))
	}
}

// gather lets goroutines that are ready to run go first: those that one answer woke
// commit again together. It waits for nobody who is not ready.
func (r *Runner) gather() {
	before := -1
	for range 4 { // another processor may run us before the last of them
		runtime.Gosched()
		r.mu.Lock()
		n := r.queue.Len()
		r.mu.Unlock()
		if n <= before {
			return
		}
		before = n
	}
}

// settle wakes the callers of a batch in its order, and puts back what goes again.
func (r *Runner) settle(b *Batch, outcomes []Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, c := range b.Commits {
		if outcomes[i].Again() {
			c.seat.sealed = false
			switch {
			case c.seat.left:
				outcomes[i].Err = coord.ErrUnknown // as its caller was told
			case r.ended != nil:
				outcomes[i].Err = r.ended
			default:
				continue
			}
		}
		c.settle(outcomes[i])
	}
	r.queue.Again(b, outcomes)
	r.looking = true // the one who settles looks next
}

func (c *Commit) settle(out Outcome) {
	if !c.seat.settled {
		c.seat.settled, c.seat.out = true, out
		close(c.seat.done)
	}
}

// Seal says that the batch is being sent. It leaves out commits whose callers have
// gone, which are never sent; from now on a caller who leaves is told that the
// outcome is unknown. Nothing left: there is nothing to send. After
// [Runner.End] that is so.
func (b *Batch) Seal() []*Commit {
	r := b.runner
	r.mu.Lock()
	defer r.mu.Unlock()
	stay := b.Commits[:0]
	for _, c := range b.Commits {
		switch {
		case c.seat.left:
		case r.ended != nil:
			c.settle(Outcome{Err: r.ended})
		default:
			c.seat.sealed = true
			stay = append(stay, c)
		}
	}
	clear(b.Commits[len(stay):])
	b.Commits = stay
	return stay
}

// Unseal takes a Seal back: it is certain that the service saw nothing of the batch.
func (b *Batch) Unseal() {
	b.runner.mu.Lock()
	defer b.runner.mu.Unlock()
	for _, c := range b.Commits {
		c.seat.sealed = false
	}
}

// End ends all that is not sent yet with err, and all later calls. What is sent is
// answered by whoever sends it.
func (r *Runner) End(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended != nil {
		return
	}
	r.ended = err
	for b := r.queue.Next(); b != nil; b = r.queue.Next() {
		for _, c := range b.Commits {
			c.settle(Outcome{Err: err})
		}
	}
}

// Wait returns when no request is under way any more.
func (r *Runner) Wait() { r.flown.Wait() }
