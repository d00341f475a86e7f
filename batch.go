package zkq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/lane"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/priority"
)

// batch is what one put writes to one queue.
type batch struct {
	p       *putter
	o       putOptions
	largest int        // value, in bytes
	creates []coord.Op // one for each value
	some    bool       // put the first of them only, where there is no room for all
	n       int        // creates that the commit makes
	removed int        // entries of this queue that go in the same commit
	more    int        // entries that others of the same commit put into this queue
	counted bool       // another batch counts these
	key     string     // the node of the key, where it is unique
	count   string     // the node that guards an exact bound
}

// batch makes the ops of a put, of copies of the values: a commit that got no answer may
// be sent when the caller has gone on.
func (pt *putter) batch(o putOptions, values [][]byte) (*batch, error) {
	if pt.Invalid != nil {
		return nil, pt.Invalid
	}
	b := &batch{p: pt, o: o, count: path.Join(pt.Root, layout.CountNode)}
	if pt.Taken == "" && (o.delay > 0 || o.ttl > 0 || o.unique != nil || o.wait > 0) {
		return nil, fmt.Errorf("a plain queue has no delays, times to live, unique keys or bounds: %w", ErrInvalid)
	}
	h, err := o.headers()
	if err != nil {
		return nil, err
	}
	if o.unique != nil {
		if len(values) > 1 {
			return nil, fmt.Errorf("a unique key is for one entry, not for %d: %w", len(values), ErrInvalid)
		}
		b.key = pt.keys.uniquePath(h.Unique)
	}
	create, err := pt.creator(o)
	if err != nil {
		return nil, err
	}
	for i, value := range values {
		if len(value) > MaxValue {
			return nil, fmt.Errorf("value %d of %d: %w", i+1, len(values),
				&coord.LimitError{What: "value", Unit: "bytes", Size: len(value), Limit: MaxValue})
		}
		b.largest = max(b.largest, len(value))
		b.creates = append(b.creates, create(i, h.Seal(bytes.Clone(value))))
	}
	b.n = len(b.creates)
	return b, nil
}

// creator makes the op of a value.
func (pt *putter) creator(o putOptions) (func(i int, value []byte) coord.Op, error) {
	if o.delay <= 0 {
		prefix := path.Join(pt.Entries, priority.Prefix(o.priority))
		return func(_ int, value []byte) coord.Op { return coord.CreateSequential(prefix, value) }, nil
	}
	due, err := dueIn(o.delay)
	if err != nil {
		return nil, err
	}
	id := pt.delayed.laterID(o.token)
	return func(i int, value []byte) coord.Op { return pt.delayed.createLater(o, due, id, i, value) }, nil
}

// whole are the ops of the put by their size.
func (b *batch) whole() []coord.Op {
	ops := b.creates[:len(b.creates):len(b.creates)]
	if b.key != "" {
		ops = append(ops, coord.Create(b.key, b.o.unique))
	}
	return ops
}

// beside are the ops that the put needs besides, as the queue stands now.
func (b *batch) beside(ctx context.Context) ([]coord.Op, error) {
	p := b.p
	s, err := p.Session(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.checkSize(ctx, s, b.largest); err != nil {
		return nil, err
	}
	var ops []coord.Op
	if !b.counted {
		var n int
		n, ops, err = p.room(ctx, s, demand{entries: len(b.creates) + b.more, removed: b.removed, some: b.some})
		b.n = n - b.more
	}
	if err == nil && b.o.ttl > 0 {
		err = p.expiry.markExpiring(ctx, s)
	}
	if b.key != "" {
		ops = append(ops, coord.Create(b.key, b.o.unique))
	}
	return ops, err
}

// batches are what one commit puts into several queues.
type batches []*batch

// ops are those of the commit: those that create entries first, in order.
func (bs batches) ops(ctx context.Context) ([]coord.Op, error) {
	var beside []coord.Op
	for _, b := range bs {
		ops, err := b.beside(ctx)
		if err != nil {
			return nil, err
		}
		beside = append(beside, ops...)
	}
	var ops []coord.Op
	for _, b := range bs {
		ops = append(ops, b.creates[:b.n]...)
	}
	return append(ops, beside...), nil
}

// entries is how many the batches put.
func (bs batches) entries() int {
	n := 0
	for _, b := range bs {
		n += b.n
	}
	return n
}

// again says whether a put that was refused may be made once more: nil if so.
func (bs batches) again(ctx context.Context, err error, backoff *retry.Backoff) error {
	var r *coord.Refusal
	switch {
	case retry.NothingSent(err):
		return ctx.Err()
	case errors.Is(err, coord.ErrUnknown), !errors.As(err, &r):
		return err
	}
	for _, b := range bs {
		switch r.Op.Path {
		case b.count: // somebody else has put
			b.p.settings.stale()
			return backoff.Wait(ctx, nil, nil)
		case b.key:
			return b.p.refusedKey(ctx, b.key)
		}
	}
	return err
}

// apply makes the put of the batches, once. It waits for room where that was asked for.
func (pt *putter) apply(ctx context.Context, o putOptions, bs batches) (lane.Applied, error) {
	w := waitRoom{until: o.until()}
	defer w.close()
	for backoff := pt.Backoff(actPut); ; {
		var done lane.Applied
		var err error
		var ops []coord.Op
		if o.token != nil {
			done, err = pt.lanes.onceAs(ctx, *o.token, o.noteOf(bs), bs.ops)
		} else if ops, err = bs.ops(ctx); err == nil {
			done, err = pt.lanes.once(ctx, o.noteOf(bs), ops)
		}
		switch {
		case err == nil:
			return done, nil
		case errors.Is(err, ErrFull) && o.wait > 0:
			full := (*fullError)(nil)
			errors.As(err, &full)
			err = w.wait(ctx, full.puts, err)
		case errors.Is(err, coord.ErrBusy) && !errors.Is(err, coord.ErrUnknown):
			_, err = backoff.WaitWhileBusy(ctx, nil, err)
		default:
			err = inEntries(bs.again(ctx, err, backoff), bs.entries())
		}
		if retry.NothingSent(err) {
			err = ctx.Err()
		}
		if err != nil {
			return lane.Applied{}, err
		}
	}
}
