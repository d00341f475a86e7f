package zkq

import (
	"context"
	"errors"
	"fmt"

	"github.com/zkq/zkq/coord"
)

// Target is one put of [PutTo] or [Held.Forward]. All puts of a call are made in one commit,
// so their queues must be of the same coordinator.
type Target struct {
	Queue   *LockingQueue
	Value   []byte
	Options []PutOption // WithToken and WithNote are refused with ErrInvalid
}

// Forward removes the entry and puts its results into other queues, or into its own, in one
// commit. So a pipeline neither loses nor repeats a step, whichever process dies.
//
// Errors are those of [Held.Consume] and of a put. After [ErrFull], [ErrExists] and
// [ErrTooLarge] nothing was changed, and the entry is still held. A queue of another
// coordinator is refused with [ErrInvalid]. So is WithWait: the call would wait for room
// while it holds the entry.
//
// An entry with a unique key can pass the key on: put the next one into the same queue with
// the same [WithUnique]. That makes a job that recurs.
func (h *Held) Forward(ctx context.Context, targets ...Target) error {
	fail := func(err error) error { return fmt.Errorf("forward %s: %w", h.entry, err) }
	if h.claimer == nil {
		return h.finish(ctx, finish{act: "forward"})
	}
	bs, o, err := newBatches(h.claimer.Coordinator, targets)
	switch {
	case err == nil && ctx == nil:
		err = fmt.Errorf("nil context: %w", ErrInvalid)
	case err == nil && o.wait > 0:
		err = fmt.Errorf("a forward cannot wait for room: %w", ErrInvalid)
	}
	if err != nil {
		return fail(err)
	}
	for _, b := range bs {
		if err := b.p.checkClaimable(h.lock.Session(), b.creates); err != nil {
			return fail(err)
		}
		if b.p.Root == h.claimer.Root && !b.counted {
			b.removed = 1
		}
	}
	return h.finish(ctx, finish{
		act: "forward", entry: coord.Delete(h.entry, h.at()), wasApplied: h.wasRemoved,
		extraOps: func(ctx context.Context) ([]coord.Op, error) {
			if h.unanswered.act == "forward" { // it may have been applied, and filled the targets
				n, err := h.lock.Session().Get(ctx, h.entry)
				if errors.Is(err, coord.ErrNotExist) || err == nil && n.Fence != h.fence {
					return nil, nil // the commit will be refused, and the refusal is looked into
				}
				if err != nil {
					return nil, err
				}
			}
			ops, err := bs.ops(ctx)
			return h.past.handOverOps(ops), err
		},
		extraRefused: func(ctx context.Context, r *coord.Refusal) error {
			_, err := bs.decide(ctx, r)
			if exists := (*ExistsError)(nil); err == error(r) || r.Op.Path == h.past.key && errors.As(err, &exists) && exists.Name == h.Name {
				return nil // the key or the history has changed: the next attempt reads it again
			}
			return err
		},
	})
}

// PutTo puts into several queues in one commit: no process ever sees only some of the
// entries. It returns the names of the entries in the order of the targets. Promises and
// errors are those of [LockingQueue.PutAll]. The queues must be of one coordinator,
// otherwise the error is [ErrInvalid].
func PutTo(ctx context.Context, targets ...Target) ([]string, error) {
	if len(targets) == 0 {
		return nil, nil
	}
	if targets[0].Queue == nil {
		return nil, fmt.Errorf("put to several queues: target 1 has no queue: %w", ErrInvalid)
	}
	p := targets[0].Queue.base
	names := make([]string, len(targets))
	err := p.handle.Bounded(ctx, func(ctx context.Context) error {
		bs, o, err := newBatches(p.handle.Coordinator, targets)
		if err != nil {
			return err
		}
		var all []coord.Op
		for _, b := range bs {
			all = append(all, b.sizeOps()...)
		}
		if err := p.puts.checkFits(ctx, nil, all, len(bs)); err != nil {
			return err
		}
		done, err := p.puts.apply(ctx, o, bs)
		if err != nil {
			return err
		}
		for i, b := range bs {
			b.names(ctx, done, i, names[i:i+1])
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("put to %d queues, %s the first: %w", len(targets), p.handle.Root, err)
	}
	return names, nil
}

// newBatches returns a batch for each target, and the options of the whole put. Its wait for
// room is the longest that a target asks for. Where a queue is the target several times, its
// first batch counts the entries of all against the bound. [ErrInvalid]: a target that cannot
// be part of the commit.
func newBatches(coordinator coord.Coordinator, targets []Target) (batches, putOptions, error) {
	var bs batches
	var all putOptions
	counts, keys := make(map[string]*batch), make(map[string]bool) // by queue and by key's node
	for i, t := range targets {
		if t.Queue == nil || t.Queue.handle.Coordinator != coordinator {
			return nil, all, fmt.Errorf("target %d of %d is not a queue of the same coordinator: %w", i+1, len(targets), ErrInvalid)
		}
		o, err := newPut(t.Options)
		if err == nil && (o.token != nil || o.note != nil || o.noteFor != nil) {
			err = fmt.Errorf("a put to several queues takes no token and no note: %w", ErrInvalid)
		}
		var b *batch
		if err == nil {
			b, err = t.Queue.puts.newBatch(o, [][]byte{t.Value})
		}
		if err == nil && b.key != "" && keys[b.key] {
			err = fmt.Errorf("the unique key %q is given twice: %w", o.unique, ErrInvalid)
		}
		if err != nil {
			return nil, all, fmt.Errorf("target %d of %d, %s: %w", i+1, len(targets), t.Queue.handle.Root, err)
		}
		keys[b.key] = true
		if first := counts[b.p.Root]; first != nil {
			first.others, b.counted = first.others+1, true
		} else {
			counts[b.p.Root] = b
		}
		all.wait = max(all.wait, o.wait)
		bs = append(bs, b)
	}
	return bs, all, nil
}
