package zkqueue

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
)

// Commits that wait at the same time travel together, in one multi. The service names
// the first op that it refuses, and applies nothing: the commit of that op has its answer,
// and the others go again.
var batchLimits = group.Limits{Commits: 64, Ops: 512, Each: 64, Bytes: 256 << 10}

// maxInFlight is how many requests with commits a session has under way.
const maxInFlight = 32

// sendBatch is what the session's group sends a batch by.
func (s *session) sendBatch(b *group.Batch) []group.Outcome {
	ctx := context.Background() // the session's end ends it, and no caller
	for backoff := s.newBackoff(); ; {
		if err := s.acquireSlot(ctx); err != nil {
			return sameOutcome(len(b.Commits), err)
		}
		sealed := b.Seal()
		if len(sealed) == 0 {
			s.releaseSlot()
			return nil
		}
		commits := make([][]coord.Op, len(sealed))
		for i, c := range sealed {
			commits[i] = c.Ops
		}
		m := s.newMulti(commits...)
		if m.size > maxFrame || len(commits) > 1 && m.size > s.payload.current() {
			s.releaseSlot()
			return s.sendSeparately(ctx, commits)
		}
		answers, err := s.classifyReply(callWithSlot(ctx, s, m.send))
		if len(commits) > 1 && errors.Is(err, coord.ErrUnknown) {
			s.payload.lower(m.size)
		}
		if errors.Is(err, errNotSent) {
			b.Unseal()
			if err := s.checkAlive(); err != nil {
				return sameOutcome(len(b.Commits), err)
			}
			_ = backoff.Wait(ctx, s.done, nil) // the loop looks whether the session is over
			continue
		}
		return s.batchOutcomes(ctx, commits, m, answers, err)
	}
}

func sameOutcome(n int, err error) []group.Outcome {
	outcomes := make([]group.Outcome, n)
	for i := range outcomes {
		outcomes[i].Err = err
	}
	return outcomes
}

// sendSeparately sends commits one after the other.
func (s *session) sendSeparately(ctx context.Context, commits [][]coord.Op) []group.Outcome {
	outcomes := make([]group.Outcome, len(commits))
	for i, ops := range commits {
		outcomes[i].Results, outcomes[i].Err = s.sendAlone(ctx, ops)
	}
	return outcomes
}

// batchOutcomes says how each commit of a multi ended.
func (s *session) batchOutcomes(ctx context.Context, commits [][]coord.Op, m *multi, answers []zk.MultiResponse, err error) []group.Outcome {
	if err == nil {
		outcomes := make([]group.Outcome, len(commits))
		for i, results := range s.results(commits, m, answers) {
			outcomes[i].Results = results
		}
		return outcomes
	}
	at := firstFailedOp(answers)
	if at < 0 {
		return sameOutcome(len(commits), err)
	}
	outcomes := sameOutcome(len(commits), group.ErrAgain)
	i := m.refs[at].commit
	if lacksParent(m.ops[at], answers[at].Error) {
		outcomes[i].Results, outcomes[i].Err = s.sendAlone(ctx, commits[i])
	} else {
		outcomes[i].Err = refusalError(commits[i], m.refs[at].op, err)
	}
	return outcomes
}

// sendAlone sends one commit until there is an answer to it, and makes the directories that
// it lacks. Each refusal for want of a directory makes one, unless others delete them as
// fast.
func (s *session) sendAlone(ctx context.Context, ops []coord.Op) ([]coord.Result, error) {
	m := s.newMulti(ops)
	backoff := s.newBackoff()
	for lacking := 0; ; {
		answers, err := s.classifyReply(call(ctx, s, m.send))
		switch {
		case err == nil:
			return s.results([][]coord.Op{ops}, m, answers)[0], nil
		case errors.Is(err, errNotSent):
			if err := s.checkAlive(); err != nil {
				return nil, err
			}
			_ = backoff.Wait(ctx, s.done, nil) // the loop looks whether the session is over
			continue
		}
		at := firstFailedOp(answers)
		if at < 0 {
			return nil, err
		}
		i := m.refs[at].op
		if !lacksParent(m.ops[at], answers[at].Error) || lacking > len(ops) {
			return nil, refusalError(ops, i, err)
		}
		lacking++
		if err := s.createDirectory(ctx, parentPath(m.ops[at].(*zk.CreateRequest).Path)); err != nil {
			return nil, fmt.Errorf("directory of %s: %w", ops[i].Path, err)
		}
	}
}

// errNotSent says that the service has not seen a multi, or has ignored it.
var errNotSent = errors.New("not sent")

// classifyReply says what became of a multi. The error is coord's, or errUnsent.
func (s *session) classifyReply(r reply[[]zk.MultiResponse]) ([]zk.MultiResponse, error) {
	switch {
	case r.err == nil:
		return r.value, nil
	case !r.passedOn:
		return nil, r.err
	case !r.answered:
		return nil, fmt.Errorf("%w: %w", coord.ErrUnknown, hideSessionEnd(r.err))
	}
	out, err := classify(r.err)
	switch out {
	case outcomeRefused:
		return r.value, err
	case outcomeExpired:
		s.end(coord.ErrSessionLost)
		return nil, err
	case outcomeUnknown:
		return nil, fmt.Errorf("%w: %w", coord.ErrUnknown, err)
	}
	return nil, errNotSent // the session has left that connection, or is over
}
