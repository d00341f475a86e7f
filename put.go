package zkq

import (
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

// putAll creates the entries in one commit. A commit without an answer is not
// made again: that could put twice.
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
		ops[i] = coord.CreateSequential(prefix, seal(value))
	}
	names := make([]string, len(values))
	err = p.do(ctx, func(ctx context.Context, s coord.Session) error {
		if err := p.claimable(s, ops); err != nil {
			return err
		}
		rs, err := s.Commit(ctx, ops...)
		for i, r := range rs {
			names[i] = path.Base(r.Path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("put %s: %w", p.root, err)
	}
	return names, nil
}

// claimable refuses a value that fits a put but, on a server that wants it sent
// again, would not fit the claim or the move to the dead.
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
