// Package bulk changes many nodes with few commits. A change is the ops of one entry, which are
// applied together or not at all. Many changes share a commit, and the service refuses all of it
// if it refuses one op. So a refused change is taken out, and the others are committed again.
package bulk

import (
	"context"
	"errors"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
)

// Size is how many changes share a commit, if the service's limits allow that many. Most changes
// have two ops, and etcd allows 128 ops in a commit, some of which the driver needs.
const Size = 60

// Outcome is the outcome of one change. Err is nil if it was applied. If it was refused, Err is a
// refusal whose index counts the ops of this change. After any other error the change was not
// applied, but after a [coord.ErrUnknown] it may have been.
type Outcome struct {
	Results []coord.Result
	Err     error
}

// Send makes one commit.
type Send func(ctx context.Context, ops ...coord.Op) ([]coord.Result, error)

// Commit commits the changes, up to most in a commit and within the limits, and returns the
// outcome of each. It makes one commit after the other. It stops early if a commit ends with an
// error that is no refusal and concerns more than its own changes: the changes that were not
// tried have that error, too, without [coord.ErrUnknown].
func Commit(ctx context.Context, limits coord.Limits, most int, changes [][]coord.Op, send Send) []Outcome {
	c := committer{limits: limits, changes: changes, send: send, outcomes: make([]Outcome, len(changes))}
	for next := 0; next < len(changes); {
		var some []int
		some, next = c.fill(next, most)
		if err := c.commit(ctx, some, false); err != nil {
			for i := next; i < len(changes); i++ {
				c.outcomes[i].Err = retry.NotApplied(ctx, err)
			}
			break
		}
	}
	return c.outcomes
}

// committer is one call of [Commit].
type committer struct {
	limits   coord.Limits
	changes  [][]coord.Op
	send     Send
	outcomes []Outcome
}

// fill returns the changes for one commit, the first of which is at index first, and the index at
// which the next commit begins. A change that names a path of another one begins a new commit.
func (c *committer) fill(first, most int) (some []int, next int) {
	ops, size, paths := 0, 0, make(map[string]bool)
	for next = first; next < len(c.changes) && len(some) < most; next++ {
		for _, op := range c.changes[next] {
			size += Bytes(op)
			if paths[op.Path] {
				return some, next
			}
		}
		for _, op := range c.changes[next] {
			paths[op.Path] = op.Kind != coord.KindSequential
		}
		ops += len(c.changes[next])
		if len(some) > 0 && (ops > c.limits.CommitOps || size > c.limits.CommitBytes) {
			return some, next
		}
		some = append(some, next)
	}
	return some, next
}

// Bytes returns how much an op adds to the size of its commit.
func Bytes(op coord.Op) int { return coord.OpOverhead + len(op.Path) + len(op.Value) }

// commit commits some of the changes. A refused change is taken out. After the second refusal the
// others are committed in two halves: many of them may be refused. wasRefused says that there was
// a first one. The error is one that keeps the caller from going on.
func (c *committer) commit(ctx context.Context, some []int, wasRefused bool) error {
	for len(some) > 0 {
		results, err := c.send(ctx, c.opsOf(some)...)
		refused := retry.RefusedOp(err)
		switch {
		case err == nil:
			for _, i := range some {
				n := len(c.changes[i])
				c.outcomes[i].Results, results = results[:n], results[n:]
			}
			return nil
		case refused >= 0:
			some = c.takeOut(some, refused, err)
		case len(some) > 1 && isOfOneChange(err):
			return c.commitAlone(ctx, some)
		default:
			for _, i := range some {
				c.outcomes[i].Err = err
			}
			if isOfOneChange(err) {
				return nil
			}
			return err
		}
		if wasRefused && len(some) > 1 {
			if err := c.commit(ctx, some[:len(some)/2], false); err != nil {
				for _, i := range some[len(some)/2:] {
					c.outcomes[i].Err = retry.NotApplied(ctx, err)
				}
				return err
			}
			some = some[len(some)/2:]
		}
		wasRefused = !wasRefused
	}
	return nil
}

// opsOf returns the ops of some changes, in their order.
func (c *committer) opsOf(some []int) (ops []coord.Op) {
	for _, i := range some {
		ops = append(ops, c.changes[i]...)
	}
	return ops
}

// takeOut notes the refusal of op number refused, and returns the changes without the one it
// belongs to.
func (c *committer) takeOut(some []int, refused int, err error) []int {
	var r *coord.Refusal
	errors.As(err, &r)
	for at, i := range some {
		if refused < len(c.changes[i]) {
			c.outcomes[i].Err = &coord.Refusal{Index: refused, Op: r.Op, Err: r.Err}
			return append(some[:at:at], some[at+1:]...)
		}
		refused -= len(c.changes[i])
	}
	return nil // no service refuses an op that is not in the commit
}

// isOfOneChange reports whether a commit failed for something that may be wrong with one change
// alone, so that each of them has to be tried by itself.
func isOfOneChange(err error) bool {
	return errors.Is(err, coord.ErrForbidden) || errors.Is(err, coord.ErrTooLarge) || errors.Is(err, coord.ErrInvalid)
}

// commitAlone gives each change a commit of its own.
func (c *committer) commitAlone(ctx context.Context, some []int) error {
	for at, i := range some {
		if err := c.commit(ctx, []int{i}, false); err != nil {
			for _, j := range some[at+1:] {
				c.outcomes[j].Err = retry.NotApplied(ctx, err)
			}
			return err
		}
	}
	return nil
}

// Delete deletes the nodes as they were read, many in a commit. It leaves alone those that have
// changed or are gone. The error is that of the first commit that ended otherwise.
func Delete(ctx context.Context, s coord.Session, nodes []coord.Node) error {
	changes := make([][]coord.Op, len(nodes))
	for i, n := range nodes {
		changes[i] = []coord.Op{coord.Delete(n.Path, n.Fence)}
	}
	for _, o := range Commit(ctx, s.Limits(), Size, changes, s.Commit) {
		if o.Err != nil && !retry.IsRefused(o.Err) {
			return o.Err
		}
	}
	return nil
}
