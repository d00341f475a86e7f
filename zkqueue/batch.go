package zkqueue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
)

// Commits that wait at the same time travel together, in one multi. The service names
// the first op that it refuses, and applies nothing: the commit of that op has its answer,
// and the others go again.
var batches = group.Limits{Commits: 64, Ops: 512, Each: 64, Bytes: 256 << 10}

// flights is how many requests with commits a session has under way.
const flights = 32

// deliver is what the session's group sends a batch by.
func (s *session) deliver(b *group.Batch) []group.Outcome {
	ctx := context.Background() // the session's end ends it, and no caller
	for {
		if err := s.enter(ctx); err != nil {
			return all(len(b.Commits), err)
		}
		sealed := b.Seal()
		if len(sealed) == 0 {
			s.leave()
			return nil
		}
		commits := make([][]coord.Op, len(sealed))
		for i, c := range sealed {
			commits[i] = c.Ops
		}
		m := s.plan(commits...)
		if m.size > mostFrame || len(commits) > 1 && m.size > s.width.most() {
			s.leave()
			return s.apart(ctx, commits)
		}
		answers, err := s.sent(entered(ctx, s, m.ask))
		if len(commits) > 1 && errors.Is(err, coord.ErrUnknown) {
			s.width.failed(m.size)
		}
		if errors.Is(err, errUnsent) {
			b.Unseal()
			if err := s.alive(); err != nil {
				return all(len(b.Commits), err)
			}
			time.Sleep(time.Millisecond)
			continue
		}
		return s.outcomes(ctx, commits, m, answers, err)
	}
}

func all(n int, err error) []group.Outcome {
	outcomes := make([]group.Outcome, n)
	for i := range outcomes {
		outcomes[i].Err = err
	}
	return outcomes
}

// apart sends commits one after the other.
func (s *session) apart(ctx context.Context, commits [][]coord.Op) []group.Outcome {
	outcomes := make([]group.Outcome, len(commits))
	for i, ops := range commits {
		outcomes[i].Results, outcomes[i].Err = s.alone(ctx, ops)
	}
	return outcomes
}

// outcomes says how each commit of a multi ended.
func (s *session) outcomes(ctx context.Context, commits [][]coord.Op, m *multi, answers []zk.MultiResponse, err error) []group.Outcome {
	if err == nil {
		outcomes := make([]group.Outcome, len(commits))
		for i, results := range s.results(commits, m, answers) {
			outcomes[i].Results = results
		}
		return outcomes
	}
	at := failedOp(answers)
	if at < 0 {
		return all(len(commits), err)
	}
	outcomes := all(len(commits), group.ErrAgain)
	i := m.owner[at].commit
	if lacksParent(m.ops[at], answers[at].Error) {
		outcomes[i].Results, outcomes[i].Err = s.alone(ctx, commits[i])
	} else {
		outcomes[i].Err = refusal(commits[i], m.owner[at].op, err)
	}
	return outcomes
}

// alone sends one commit until there is an answer to it, and makes the directories that
// it lacks. Each refusal for want of a directory makes one, unless others delete them as
// fast.
func (s *session) alone(ctx context.Context, ops []coord.Op) ([]coord.Result, error) {
	m := s.plan(ops)
	for lacking := 0; ; {
		answers, err := s.sent(call(ctx, s, m.ask))
		switch {
		case err == nil:
			return s.results([][]coord.Op{ops}, m, answers)[0], nil
		case errors.Is(err, errUnsent):
			if err := s.alive(); err != nil {
				return nil, err
			}
			time.Sleep(time.Millisecond)
			continue
		}
		at := failedOp(answers)
		if at < 0 {
			return nil, err
		}
		i := m.owner[at].op
		if !lacksParent(m.ops[at], answers[at].Error) || lacking > len(ops) {
			return nil, refusal(ops, i, err)
		}
		lacking++
		if err := s.makeDirectory(ctx, parent(m.ops[at].(*zk.CreateRequest).Path)); err != nil {
			return nil, fmt.Errorf("directory of %s: %w", ops[i].Path, err)
		}
	}
}

// errUnsent says that the service has not seen a multi, or has ignored it.
var errUnsent = errors.New("not sent")

// sent says what became of a multi. The error is coord's, or errUnsent.
func (s *session) sent(r reply[[]zk.MultiResponse]) ([]zk.MultiResponse, error) {
	switch {
	case r.err == nil:
		return r.value, nil
	case !r.handed:
		return nil, r.err
	case !r.answered:
		return nil, fmt.Errorf("%w: %w", coord.ErrUnknown, inFlight(r.err))
	}
	out, err := means(r.err)
	switch out {
	case refused:
		return r.value, err
	case expired:
		s.end(coord.ErrSessionLost)
		return nil, err
	case unknown:
		return nil, fmt.Errorf("%w: %w", coord.ErrUnknown, err)
	}
	return nil, errUnsent // the session has left that connection, or is over
}
