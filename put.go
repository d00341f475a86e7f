package zkq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/priority"
)

func (p *place) put(ctx context.Context, value []byte, opts []PutOption) (string, error) {
	names, err := p.putAll(ctx, [][]byte{value}, opts)
	if err != nil {
		return "", err
	}
	return names[0], nil
}

// putAll creates the entries in one commit, once. It returns as many names as there
// are values, empty ones where an answer was lost and the entries were taken before
// their names could be read.
func (p *place) putAll(ctx context.Context, values [][]byte, opts []PutOption) ([]string, error) {
	o, err := newPut(opts)
	if err != nil {
		return nil, err
	}
	if p.invalid != nil {
		return nil, p.invalid
	}
	prefix := path.Join(p.entries, priority.Prefix(o.priority))
	ops := make([]coord.Op, len(values))
	for i, value := range values {
		if len(value) > MaxValue {
			return nil, fmt.Errorf("put %s: value %d of %d: %w", p.root, i+1, len(values),
				&coord.LimitError{What: "value", Unit: "bytes", Size: len(value), Limit: MaxValue})
		}
		// A copy: a commit that got no answer may be sent when the caller has gone on.
		ops[i] = coord.CreateSequential(prefix, seal(bytes.Clone(value)))
	}
	names := make([]string, len(values))
	err = p.bounded(ctx, func(ctx context.Context) error {
		if err := p.fits(ctx, o.note, ops); err != nil || len(ops) == 0 {
			return err
		}
		var done applied
		var err error
		if o.token == nil {
			done, err = p.once(ctx, o.note, ops)
		} else {
			done, err = p.onceAs(ctx, *o.token, o.note, ops)
		}
		if err != nil {
			return err
		}
		for i, r := range done.results {
			names[i] = path.Base(r.Path)
		}
		if done.results == nil {
			copy(names, p.namesOf(ctx, done.revision, len(names)))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("put %s: %w", p.root, err)
	}
	return names, nil
}

// namesOf returns the names of the n entries that the commit of a revision created,
// or nothing if not all of them are there any more. The put is done, so no trouble
// with that is an error.
func (p *place) namesOf(ctx context.Context, revision int64, n int) []string {
	for pause := newPause(); ; {
		s, err := p.session(ctx)
		var l coord.List
		if err == nil {
			l, err = s.List(ctx, p.entries, coord.ListOptions{Born: revision})
		}
		if err == nil {
			if names := p.entryNames(l.Nodes); len(names) == n {
				return names
			}
			return nil
		}
		if !p.again(ctx, err, pause) {
			return nil
		}
	}
}

// fits refuses, before anything is sent, what is too much for one commit, and what
// fits a put but, on a server that wants the value sent again, would not fit the
// claim.
func (p *place) fits(ctx context.Context, note []byte, ops []coord.Op) error {
	s, err := p.session(ctx)
	for lostBefore(err) {
		s, err = p.session(ctx)
	}
	if err != nil {
		return err
	}
	lane := lane{name: "0000000000000000-00"}
	all := append([]coord.Op{coord.Set(lane.path(), marker{n: 1 << 62, note: note}.value(), 1)}, ops...)
	err = coord.CheckOps(s.Limits(), all)
	if limit := (*coord.LimitError)(nil); errors.As(err, &limit) && limit.Unit == "ops" {
		return &coord.LimitError{What: "batch", Unit: "entries", Size: limit.Size - 1, Limit: limit.Limit - 1}
	}
	if err != nil {
		return err
	}
	return p.claimable(s, ops)
}

// claimable refuses a value that would not fit the claim or the move to the dead.
func (p *place) claimable(s coord.Session, ops []coord.Op) error {
	if p.taken == "" {
		return nil
	}
	limits := s.Limits()
	wrapped := limits
	wrapped.ValueBytes -= deadHeaders
	wrapped.CommitBytes -= deadHeaders
	for _, op := range ops {
		name := path.Base(op.Path) + longestSequence
		claim := []coord.Op{
			coord.Touch(path.Join(p.entries, name), op.Value, 1),
			coord.CreateEphemeral(path.Join(p.taken, name), make([]byte, 32)),
		}
		var limit *coord.LimitError
		err := coord.CheckOps(limits, claim)
		if err == nil {
			err = coord.CheckOps(wrapped, p.moveToDead(name, op.Value))
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
