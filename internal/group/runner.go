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

// Runner sends the commits of many goroutines, several in one request if they wait at
// the same time. It has a goroutine for each request in flight and no other. These
// goroutines end soon after [Runner.End]; [Runner.Wait] waits for them.
type Runner struct {
	send        func(*Batch) []Outcome
	maxInFlight int

	mu       sync.Mutex
	queue    *Queue
	inFlight int  // goroutines
	isTaking bool // one of them is about to take a batch
	endErr   error
	senders  sync.WaitGroup
}

// waiter is the state of a commit in a runner, guarded by the runner's mutex.
type waiter struct {
	done       chan struct{} // closed when outcome is set
	outcome    Outcome
	isSealed   bool // may have been sent: see Batch.Seal
	hasLeft    bool // its caller has gone
	hasOutcome bool
}

// NewRunner returns a runner that has at most maxInFlight requests in flight.
//
// send makes one request of a batch. It waits until the connection is open, calls
// [Batch.Seal], sends the commits that this returns, and returns an outcome for each of
// them, in their order. An outcome is one of
//
//   - the results of the commit;
//   - a [*coord.Refusal] with the index within that commit;
//   - [coord.ErrUnknown] if no answer came;
//   - [ErrAgain] if the service applied nothing because it refused another commit;
//   - any other error if nothing was applied.
//
// send ends with the session, not with a caller's context. Several goroutines call it.
func NewRunner(l Limits, maxInFlight int, send func(*Batch) []Outcome) *Runner {
	return &Runner{send: send, maxInFlight: maxInFlight, queue: NewQueue(l)}
}

// Do commits a copy of ops and waits for the outcome. If ctx ends before they were sent,
// they are never sent, and the error is that of ctx. If it ends later, the error is both
// that of ctx and [coord.ErrUnknown]. After [Runner.End] nothing is sent.
func (r *Runner) Do(ctx context.Context, ops []coord.Op) ([]coord.Result, error) {
	return r.commit(ctx, nil, ops)
}

// ErrLate means that a commit was not sent in time and never will be.
var ErrLate = errors.New("not sent in time")

// DoWithin is [Runner.Do], but returns [ErrLate] if sending has not begun after patience.
func (r *Runner) DoWithin(ctx context.Context, patience time.Duration, ops []coord.Op) ([]coord.Result, error) {
	t := time.NewTimer(patience)
	defer t.Stop()
	return r.commit(ctx, t.C, ops)
}

// Waiting returns how many commits are not in a request yet.
func (r *Runner) Waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.queue.Len()
}

func (r *Runner) commit(ctx context.Context, late <-chan time.Time, ops []coord.Op) ([]coord.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := &Commit{Ops: make([]coord.Op, len(ops))}
	for i, op := range ops {
		op.Value = bytes.Clone(op.Value) // it may be sent after this call has returned
		c.Ops[i] = op
	}
	c.waiter.done = make(chan struct{})
	if err := r.add(c); err != nil {
		return nil, err
	}
	for {
		select {
		case <-c.waiter.done:
			return c.waiter.outcome.Results, c.waiter.outcome.Err
		case <-late:
			if r.withdraw(c) {
				return nil, ErrLate
			}
			late = nil
		case <-ctx.Done():
			if err := r.abandon(c, ctx.Err()); err != nil {
				return nil, err
			}
			return c.waiter.outcome.Results, c.waiter.outcome.Err
		}
	}
}

// add lets c wait, and makes sure that a goroutine will take it.
func (r *Runner) add(c *Commit) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.endErr != nil {
		return r.endErr
	}
	r.queue.Add(c)
	r.startSenderLocked()
	return nil
}

// startSenderLocked starts another sending goroutine, unless one is about to take a
// batch or the most that is allowed are in flight.
func (r *Runner) startSenderLocked() {
	if r.isTaking || r.inFlight >= r.maxInFlight || r.queue.Len() == 0 {
		return
	}
	r.isTaking = true
	r.inFlight++
	r.senders.Add(1)
	go r.sendBatches()
}

// withdraw removes a commit unless its sending has begun. It reports whether it did.
func (r *Runner) withdraw(c *Commit) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.waiter.hasOutcome || c.waiter.isSealed {
		return false
	}
	c.waiter.hasLeft = true
	r.queue.Remove(c)
	return true
}

// abandon ends a caller's wait with an error. It returns nil if there is an outcome.
func (r *Runner) abandon(c *Commit, why error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.waiter.hasOutcome {
		return nil
	}
	c.waiter.hasLeft = true
	r.queue.Remove(c)
	if c.waiter.isSealed {
		return fmt.Errorf("%w: %w", coord.ErrUnknown, why)
	}
	return why
}

// sendBatches sends batches until no commit waits.
func (r *Runner) sendBatches() {
	defer r.senders.Done()
	for {
		r.yieldToReady()
		r.mu.Lock()
		r.isTaking = false
		b := r.queue.Next()
		if b == nil {
			r.inFlight--
			r.mu.Unlock()
			return
		}
		b.runner = r
		r.startSenderLocked() // for commits that are not in this batch
		r.mu.Unlock()
		r.answer(b, r.send(b))
	}
}

// yieldToReady lets goroutines run first that are ready to, so that those which one
// answer woke commit again in one batch. It does not wait for any other goroutine.
func (r *Runner) yieldToReady() {
	before := -1
	for range 4 { // another processor may run this goroutine before the last of them
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

// answer wakes the callers of a batch, in its order, and lets commits without an outcome
// wait again.
func (r *Runner) answer(b *Batch, outcomes []Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, c := range b.Commits {
		if outcomes[i].Again() {
			c.waiter.isSealed = false
			switch {
			case c.waiter.hasLeft:
				outcomes[i].Err = coord.ErrUnknown // as its caller was told
			case r.endErr != nil:
				outcomes[i].Err = r.endErr
			default:
				continue
			}
		}
		c.setOutcomeLocked(outcomes[i])
	}
	r.queue.Requeue(b, outcomes)
	r.isTaking = true // this goroutine takes the next batch
}

// setOutcomeLocked sets the outcome, unless there is one, and wakes the caller.
func (c *Commit) setOutcomeLocked(out Outcome) {
	if !c.waiter.hasOutcome {
		c.waiter.hasOutcome, c.waiter.outcome = true, out
		close(c.waiter.done)
	}
}

// Seal returns the commits of the batch to send now. Commits whose callers have gone are
// left out and never sent. From now on the outcome is unknown for a caller that stops
// waiting. After [Runner.End] Seal returns no commits.
func (b *Batch) Seal() []*Commit {
	r := b.runner
	r.mu.Lock()
	defer r.mu.Unlock()
	stay := b.Commits[:0]
	for _, c := range b.Commits {
		switch {
		case c.waiter.hasLeft:
		case r.endErr != nil:
			c.setOutcomeLocked(Outcome{Err: r.endErr})
		default:
			c.waiter.isSealed = true
			stay = append(stay, c)
		}
	}
	clear(b.Commits[len(stay):])
	b.Commits = stay
	return stay
}

// Unseal undoes a [Batch.Seal]. Call it only if the service certainly applied nothing of the
// batch, and never will: it received nothing, or refused the request.
func (b *Batch) Unseal() {
	b.runner.mu.Lock()
	defer b.runner.mu.Unlock()
	for _, c := range b.Commits {
		c.waiter.isSealed = false
	}
}

// End ends all commits that are not sent yet, and all later calls, with err. Requests in
// flight go on, and send returns their outcomes.
func (r *Runner) End(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.endErr != nil {
		return
	}
	r.endErr = err
	for b := r.queue.Next(); b != nil; b = r.queue.Next() {
		for _, c := range b.Commits {
			c.setOutcomeLocked(Outcome{Err: err})
		}
	}
}

// Wait returns when no request is in flight any more.
func (r *Runner) Wait() { r.senders.Wait() }
