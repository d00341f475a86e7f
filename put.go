package zkq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/lane"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/priority"
)

// putter puts values into a queue, once each, whatever answers are lost: a put is one commit
// in a lane. It keeps the queue's bounds and unique keys, and waits for room where the caller
// asked for that. The fields are the parts of the queue that a put may have to touch.
type putter struct {
	*handle.Handle
	dead     *deadLetters
	delayed  *delayedPuts
	expiry   *lifetimes
	inspect  *inspector
	keys     *keys
	lanes    lanes
	removal  *remover
	settings *settings
}

func (pt *putter) put(ctx context.Context, value []byte, opts []PutOption) (string, error) {
	names, err := pt.putAll(ctx, [][]byte{value}, opts)
	if err != nil {
		return "", err
	}
	return names[0], nil
}

// putAll creates the entries in one commit, once. It returns as many names as there
// are values, empty ones where an answer was lost and the entries were taken before
// their names could be read.
func (pt *putter) putAll(ctx context.Context, values [][]byte, opts []PutOption) ([]string, error) {
	return pt.putOf(ctx, values, opts, false)
}

// putSome is putAll of the first of the values, as many as there is room for.
func (pt *putter) putSome(ctx context.Context, values [][]byte, opts []PutOption) ([]string, error) {
	return pt.putOf(ctx, values, opts, true)
}

func (pt *putter) putOf(ctx context.Context, values [][]byte, opts []PutOption, some bool) ([]string, error) {
	if pt.Invalid != nil { // it names the queue itself
		return nil, pt.Invalid
	}
	o, err := newPut(opts)
	if err != nil {
		return nil, err
	}
	b, err := pt.batch(o, values)
	if err == nil && some && o.token != nil {
		err = fmt.Errorf("a token for a put of which only some may be made: %w", ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("put %s: %w", pt.Root, err)
	}
	b.partial = some
	var names []string
	err = pt.Bounded(ctx, func(ctx context.Context) error {
		note := o.noteOf(batches{b})
		if err := checkNote(note); err != nil {
			return err
		}
		if err := pt.fits(ctx, note, b.sizeOps(), len(values)); err != nil || len(values) == 0 {
			return err
		}
		done, err := pt.apply(ctx, o, batches{b})
		if err != nil {
			return err
		}
		names = make([]string, b.n)
		b.names(ctx, done, 0, names)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("put %s: %w", pt.Root, err)
	}
	return names, nil
}

// names fills in what the entries are called, the results of which begin with the given.
func (b *batch) names(ctx context.Context, done lane.Applied, first int, names []string) {
	switch {
	case done.Results != nil:
		for i, r := range done.Results[first : first+len(names)] {
			names[i] = path.Base(r.Path)
		}
	case b.o.delay > 0 && b.o.token == nil:
		for i, op := range b.creates[:b.n] {
			names[i] = path.Base(op.Path)
		}
	case b.o.delay > 0:
		copy(names, b.p.delayed.namesOfToken(ctx, b.creates[:b.n]))
	default:
		copy(names, b.p.namesOf(ctx, done.Revision, b.creates[:b.n]))
	}
}

// namesOf returns the names of the entries that the commit of a revision created by
// ops, or nothing if not all of them are there any more. The put is done, so no
// trouble with that is an error. Puts of others may have travelled with it, and are
// told apart by their values: where all bytes are equal it can be the name of one of
// those.
func (pt *putter) namesOf(ctx context.Context, revision int64, ops []coord.Op) []string {
	for backoff := pt.Backoff(actPut); ; {
		s, err := pt.Session(ctx)
		var l coord.List
		if err == nil {
			l, err = s.List(ctx, pt.Entries, coord.ListOptions{Born: revision, Values: true})
		}
		if err == nil {
			return pt.namesAmong(l.Nodes, ops)
		}
		if !lane.Again(ctx, err, backoff) {
			return nil
		}
	}
}

// namesAmong finds what ops created among the nodes, which stand in the order in which
// the service named them.
func (pt *putter) namesAmong(nodes []coord.Node, ops []coord.Op) []string {
	ours := make(map[string]bool, len(ops))
	for _, op := range ops {
		ours[string(op.Value)] = true
	}
	var own []coord.Node
	for _, n := range nodes {
		if strings.HasPrefix(n.Path, ops[0].Path) && ours[string(n.Value)] {
			own = append(own, n)
		}
	}
	if len(own) != len(ops) {
		return nil
	}
	for i, n := range own {
		if !bytes.Equal(n.Value, ops[i].Value) {
			return nil
		}
	}
	return pt.EntryNames(own)
}

// fits refuses, before anything is sent, a put of n entries that is too much for one
// commit, and one that, on a server that wants the value sent again, would not fit the
// claim.
func (pt *putter) fits(ctx context.Context, note []byte, ops []coord.Op, n int) error {
	var s coord.Session
	err := retry.AcrossSessions(func() (err error) {
		s, err = pt.Session(ctx)
		return err
	})
	if err != nil {
		return err
	}
	all := append([]coord.Op{coord.Set(lane.Path("0000000000000000-00"), layout.Marker{N: 1 << 62, Note: note}.Value(), 1)}, ops...)
	if err = coord.CheckOps(s.Limits(), all); err != nil {
		return inEntries(err, n)
	}
	return pt.claimable(s, ops)
}

// inEntries says in entries what a commit that puts n of them has too many ops for. The
// ops beside them, of the lane, of an exact bound and of keys, make the limit smaller.
func inEntries(err error, n int) error {
	var limit *coord.LimitError
	if !errors.As(err, &limit) || limit.Unit != "ops" {
		return err
	}
	return &coord.LimitError{What: "batch", Unit: "entries", Size: n, Limit: limit.Limit - (limit.Size - n)}
}

// claimable refuses a value that would not fit the claim or the move to the dead.
func (pt *putter) claimable(s coord.Session, ops []coord.Op) error {
	if pt.Taken == "" {
		return nil
	}
	limits := s.Limits()
	wrapped := limits
	wrapped.ValueBytes -= deadHeaders
	wrapped.CommitBytes -= deadHeaders
	for _, op := range ops {
		if op.Kind == coord.KindCreate && !pt.delayed.isDelayedPut(path.Base(op.Path)) {
			continue // a key
		}
		name := priority.Prefix(priority.Max) + longestSequence
		claim := []coord.Op{
			coord.Touch(path.Join(pt.Entries, name), op.Value, 1),
			coord.CreateEphemeral(path.Join(pt.Taken, name), make([]byte, 32)),
		}
		var limit *coord.LimitError
		err := coord.CheckOps(limits, claim)
		if err == nil {
			err = coord.CheckOps(wrapped, pt.dead.moveToDead(name, op.Value))
		}
		if errors.As(err, &limit) {
			over := limit.Size - limit.Limit
			return &coord.LimitError{What: "value", Unit: "bytes", Size: len(op.Value), Limit: len(op.Value) - over}
		}
	}
	return nil
}

// longestSequence is as long as any sequence that a coordinator appends.
const longestSequence = "0000000000000000000-0000000000000-00000000-000000"

// refusedKey says what a put met that found its key in use: an [*ExistsError], or nil when
// it is free now.
func (pt *putter) refusedKey(ctx context.Context, key string) error {
	sum := path.Base(key)
	return pt.Do(ctx, func(ctx context.Context, s coord.Session) error {
		err, interrupted := pt.Backoff(actPut).Do(ctx, s.Done(), func() (retry.Decision, error) {
			n, err := pt.keys.keyNode(ctx, s, sum)
			if err != nil || n.Path == "" {
				return retry.Stop, err
			}
			name, err := pt.keys.bornWith(ctx, s, n)
			var now coord.Node
			if err == nil && name == "" {
				now, err = pt.keys.keyNode(ctx, s, sum)
			}
			if err == nil && now.Revision == n.Revision && now.Path != "" {
				// The entry went without its key: kazoo knows nothing of it.
				name, err = pt.keys.orphaned(ctx, s, now)
			}
			if err == nil && name != "" {
				var gone bool
				if gone, err = pt.dropExpired(ctx, name); err == nil && !gone {
					return retry.Stop, &ExistsError{name}
				}
				if gone {
					return retry.Stop, nil
				}
			}
			if err != nil && !retry.IsRefused(err) && !errors.Is(err, coord.ErrUnknown) && !errors.Is(err, coord.ErrBusy) {
				return retry.Stop, err
			}
			return retry.Later, err
		})
		if interrupted != nil {
			return retry.BusyUntil(interrupted, err)
		}
		return err
	})
}

// dropExpired removes the entry, or the delayed put, of that name if it has expired and
// nobody holds it, and says whether it is gone.
func (pt *putter) dropExpired(ctx context.Context, name string) (gone bool, err error) {
	e, err := pt.inspect.find(ctx, name)
	if err == nil && e.expired() {
		gone = true
		err = pt.removal.remove(ctx, name, false)
	}
	switch {
	case errors.Is(err, ErrNoEntry):
		return true, nil
	case errors.Is(err, ErrHeld):
		return false, nil
	}
	return gone, err
}

// batch is what one put writes to one queue.
type batch struct {
	p       *putter
	o       putOptions
	largest int        // value, in bytes
	creates []coord.Op // one for each value
	partial bool       // put the first of them only, where there is no room for all
	n       int        // creates that the commit makes
	removed int        // entries of this queue that go in the same commit
	others  int        // entries that others of the same commit put into this queue
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
	id := pt.delayed.putID(o.token)
	return func(i int, value []byte) coord.Op { return pt.delayed.createOp(o, due, id, i, value) }, nil
}

// sizeOps are the ops of the put by their size.
func (b *batch) sizeOps() []coord.Op {
	ops := b.creates[:len(b.creates):len(b.creates)]
	if b.key != "" {
		ops = append(ops, coord.Create(b.key, b.o.unique))
	}
	return ops
}

// extraOps are the ops that the put needs besides, as the queue stands now.
func (b *batch) extraOps(ctx context.Context) ([]coord.Op, error) {
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
		n, ops, err = p.room(ctx, s, demand{entries: len(b.creates) + b.others, removed: b.removed, partial: b.partial})
		b.n = n - b.others
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
		ops, err := b.extraOps(ctx)
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

// retryable says whether a put that was refused may be made once more: nil if so.
func (bs batches) retryable(ctx context.Context, err error, backoff *retry.Backoff) error {
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
			b.p.settings.expire()
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
			err = w.waitForRoom(ctx, full.puts, err)
		case errors.Is(err, coord.ErrBusy) && !errors.Is(err, coord.ErrUnknown):
			_, err = backoff.WaitWhileBusy(ctx, nil, err)
		default:
			err = inEntries(bs.retryable(ctx, err, backoff), bs.entries())
		}
		if retry.NothingSent(err) {
			err = ctx.Err()
		}
		if err != nil {
			return lane.Applied{}, err
		}
	}
}

// noteOf is the note of a put of the batches.
func (o putOptions) noteOf(bs batches) []byte {
	if o.noteFor == nil {
		return o.note
	}
	return o.noteFor(bs.entries())
}
