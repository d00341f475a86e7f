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

// putter puts values into a queue.
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
	b.some = some
	var names []string
	err = pt.Bounded(ctx, func(ctx context.Context) error {
		note := o.noteOf(batches{b})
		if err := checkNote(note); err != nil {
			return err
		}
		if err := pt.fits(ctx, note, b.whole(), len(values)); err != nil || len(values) == 0 {
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
		copy(names, b.p.delayed.laterNames(ctx, b.creates[:b.n]))
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
	s, err := pt.Session(ctx)
	for retry.NothingSent(err) {
		s, err = pt.Session(ctx)
	}
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
		if op.Kind == coord.KindCreate && !pt.delayed.isLater(path.Base(op.Path)) {
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
