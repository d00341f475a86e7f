package zkqueue

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
	"github.com/zkq/zkq/internal/retry"
)

// batchLimits bound one merged multi. ZooKeeper names the first op that it refuses and
// applies nothing; the commit of that op is refused, and the others are sent again.
var batchLimits = group.Limits{Commits: 64, Ops: 512, Each: 64, Bytes: 256 << 10}

// maxInFlight is how many multis one session may have in flight.
const maxInFlight = 32

// sendBatch sends a batch of merged commits as one multi and returns the outcome of each.
// It is not bound to the context of any caller; the session's end ends it.
func (s *session) sendBatch(b *group.Batch) (outcomes []group.Outcome) {
	ctx := context.Background() // the session's end is checked apart
	s.newBackoff().Repeat(ctx, s.done, func() (next retry.Decision) {
		outcomes, next = s.attemptBatch(ctx, b)
		return next
	})
	return outcomes
}

// attemptBatch is one attempt at sendBatch. The next one follows if the multi was not sent.
func (s *session) attemptBatch(ctx context.Context, b *group.Batch) ([]group.Outcome, retry.Decision) {
	if err := s.acquireSlot(ctx); err != nil {
		return sameOutcome(len(b.Commits), err), retry.Stop
	}
	// The commits are sealed as late as possible: until now their callers could withdraw
	// them.
	sealed := b.Seal()
	if len(sealed) == 0 {
		s.releaseSlot()
		return nil, retry.Stop
	}
	commits := make([][]coord.Op, len(sealed))
	for i, c := range sealed {
		commits[i] = c.Ops
	}
	m := s.newMulti(commits...)
	if m.size > maxFrame || len(commits) > 1 && m.size > s.payload.current() {
		s.releaseSlot()
		return s.sendSeparately(ctx, commits), retry.Stop
	}
	answers, err := s.classifyReply(callWithSlot(ctx, s, m.send))
	// The server may have closed the connection because the request was too large for it.
	if len(commits) > 1 && errors.Is(err, coord.ErrUnknown) {
		s.payload.lower(m.size)
	}
	if !errors.Is(err, errNotSent) {
		return s.batchOutcomes(ctx, commits, m, answers, err), retry.Stop
	}
	b.Unseal()
	if err := s.checkAlive(); err != nil {
		return sameOutcome(len(b.Commits), err), retry.Stop
	}
	return nil, retry.Later
}

// sameOutcome returns err as the outcome of n commits.
func sameOutcome(n int, err error) []group.Outcome {
	outcomes := make([]group.Outcome, n)
	for i := range outcomes {
		outcomes[i].Err = err
	}
	return outcomes
}

// sendSeparately sends the commits one after the other.
func (s *session) sendSeparately(ctx context.Context, commits [][]coord.Op) []group.Outcome {
	outcomes := make([]group.Outcome, len(commits))
	for i, ops := range commits {
		outcomes[i].Results, outcomes[i].Err = s.sendAlone(ctx, ops)
	}
	return outcomes
}

// batchOutcomes returns the outcome of each commit of a multi. ZooKeeper applies all of a
// multi or nothing: if it refuses an op, the commit of that op is refused and all others
// have the outcome [group.ErrAgain]. A commit whose parent directory is missing is sent
// alone, after the directory was created.
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

// sendAlone sends one commit until it has an outcome, and creates the directories that it
// lacks. It creates one directory per refusal, and gives up when other clients delete them
// as fast.
func (s *session) sendAlone(ctx context.Context, ops []coord.Op) (results []coord.Result, err error) {
	m := s.newMulti(ops)
	created := 0
	s.newBackoff().Repeat(ctx, s.done, func() retry.Decision {
		var answers []zk.MultiResponse
		answers, err = s.classifyReply(call(ctx, s, m.send))
		switch {
		case err == nil:
			results = s.results([][]coord.Op{ops}, m, answers)[0]
			return retry.Stop
		case errors.Is(err, errNotSent):
			if err = s.checkAlive(); err != nil {
				return retry.Stop
			}
			return retry.Later
		}
		at := firstFailedOp(answers)
		if at < 0 {
			return retry.Stop
		}
		i := m.refs[at].op
		if !lacksParent(m.ops[at], answers[at].Error) || created > len(ops) {
			err = refusalError(ops, i, err)
			return retry.Stop
		}
		created++
		if err = s.createDirectory(ctx, parentPath(m.ops[at].(*zk.CreateRequest).Path)); err != nil {
			err = fmt.Errorf("directory of %s: %w", ops[i].Path, err)
			return retry.Stop
		}
		return retry.Now
	})
	return results, err
}

// errNotSent means that the service has not seen a multi, or has ignored it.
var errNotSent = errors.New("not sent")

// classifyReply returns the answers of a multi, or one of coord's errors, or errNotSent.
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
	return nil, errNotSent // the connection is no longer the session's, or the session is over
}
