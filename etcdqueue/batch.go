package etcdqueue

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/protobuf/proto"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/boottime"
	"github.com/zkq/zkq/internal/group"
)

// Commits that wait at the same time travel together: as transactions in one, each
// with conditions of its own, so that the refusal of one costs the others nothing.
var batchLimits = group.Limits{Commits: nestedOps, Each: nestedOps - 1, Bytes: maxRequestBytes / 3}

// maxInFlight is how many requests with commits a session has under way.
const maxInFlight = 32

// maxOptimisticInFlight is how many of those whose names are guessed. Of two the later could be
// the first to be applied, and refuse the other.
const maxOptimisticInFlight = 1

// separateFor is how long commits travel each by itself after the service had no space
// left: those that only delete are still taken, and must not wait for the others.
const separateFor = time.Second

// failFast are the options of a commit: it waits for a connection before it begins.
var failFast = []grpc.CallOption{grpc.MaxCallRecvMsgSize(math.MaxInt32)}

// errSeparate says that a batch is not to be sent as one.
var errSeparate = errors.New("each by itself")

// sendBatch is what the session's group sends a batch by.
func (s *session) sendBatch(b *group.Batch) []group.Outcome {
	_, outcomes := s.send(b, func() bool { return true })
	return outcomes
}

// sendOptimisticBatch sends a batch of commits whose names are guessed.
func (s *session) sendOptimisticBatch(b *group.Batch) []group.Outcome {
	commits, outcomes := s.send(b, s.c.optimistic.beginRequest)
	s.c.optimistic.endRequest(commits, outcomes)
	return outcomes
}

// send returns the commits that were sent, if any were, and what became of all.
func (s *session) send(b *group.Batch, may func() bool) (commits []*pendingCommit, outcomes []group.Outcome) {
	seal := func() {
		sealed := b.Seal()
		commits = make([]*pendingCommit, len(sealed))
		for i, c := range sealed {
			commits[i] = &pendingCommit{s: s, ops: s.completeNames(c.Ops)}
		}
	}
	var begun time.Duration
	x := &txnCall{s: s, user: context.Background(), ctx: s.ctx, options: failFast, withdraw: b.Unseal}
	x.build = func() (*pb.TxnRequest, error) {
		if err := s.awaitConnection(); err != nil {
			return nil, err
		}
		if commits = nil; !may() {
			return nil, errNameTaken
		}
		begun = boottime.Now()
		seal()
		switch len(commits) {
		case 0:
			return nil, nil
		case 1:
			return commits[0].singleTxn()
		}
		return s.batchTxn(commits)
	}
	r, err := x.do()
	if err == nil && r != nil {
		s.c.optimistic.revisionShown(begun)
	}
	var why *refusedError
	switch {
	case len(b.Commits) == 0:
		return nil, nil
	case len(commits) == 1:
		return commits, []group.Outcome{commits[0].outcome(r, err)}
	case errors.Is(err, errSeparate):
		return commits, mapCommits(commits, (*pendingCommit).sendAlone)
	case errors.As(err, &why) && why.code == textNoSpace:
		s.c.lastFull.Store(time.Now().UnixNano())
		return commits, mapCommits(commits, func(c *pendingCommit) group.Outcome { return c.resendAfterFull(why) })
	case errors.As(err, &why) && why.code == textDiskFull:
		s.c.lastFull.Store(time.Now().UnixNano())
		seal() // those that make room are still taken
		return commits, mapCommits(commits, (*pendingCommit).sendAlone)
	case errors.As(err, &why) && why.code == textTooManyOps:
		lowerTo(&s.c.batchOpLimit, countedOps(commits)/2)
		seal() // without those who have left since they were told that nothing was sent
		return commits, mapCommits(commits, (*pendingCommit).sendAlone)
	case errors.As(err, &why) && (why.coordErr == coord.ErrForbidden || why.coordErr == coord.ErrTooLarge || why.coordErr == coord.ErrInvalid):
		seal() // for what one of them wants
		return commits, mapCommits(commits, (*pendingCommit).sendAlone)
	case err == nil && !r.Succeeded:
		if err = s.checkSessionKey(r.Responses[0]); err == nil {
			err = errNameTaken
		}
	}
	if err != nil {
		outcomes = make([]group.Outcome, len(b.Commits))
		for i := range outcomes {
			outcomes[i].Err = err
		}
		return commits, outcomes
	}
	outcomes = make([]group.Outcome, len(commits))
	for i, c := range commits {
		one := r.Responses[i].GetResponseTxn()
		if one.Succeeded {
			outcomes[i].Results = c.results(r.Header.Revision)
		} else {
			outcomes[i].Err = c.refusalError(one.Responses)
		}
	}
	return commits, outcomes
}

func mapCommits(commits []*pendingCommit, f func(*pendingCommit) group.Outcome) []group.Outcome {
	outcomes := make([]group.Outcome, len(commits))
	for i, c := range commits {
		outcomes[i] = f(c)
	}
	return outcomes
}

// awaitConnection waits for a connection, or the session's end.
func (s *session) awaitConnection() error {
	for {
		if err := s.checkAlive(); err != nil {
			return err
		}
		connection := s.c.client.ActiveConnection()
		state := connection.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.Idle:
			connection.Connect()
		}
		connection.WaitForStateChange(s.ctx, state)
	}
}

// batchTxn is a transaction of transactions.
func (s *session) batchTxn(commits []*pendingCommit) (*pb.TxnRequest, error) {
	if time.Since(time.Unix(0, s.c.lastFull.Load())) < separateFor || countedOps(commits) > int(s.c.batchOpLimit.Load()) {
		return nil, errSeparate
	}
	t := &pb.TxnRequest{Success: make([]*pb.RequestOp, len(commits))}
	s.c.requireLast(t, firstOptimisticNames(commits...))
	for i, c := range commits {
		t.Success[i] = nestedOp(c.txn())
	}
	if s.withSessionCheck(t); s.c.mayExceedRequest(commits...) && proto.Size(t) > maxRequestBytes {
		return nil, errSeparate
	}
	return t, nil
}

// countedOps is what the service holds against its limit of ops: those of the outer
// transaction and of the largest in it.
func countedOps(commits []*pendingCommit) int {
	most := 0
	for _, c := range commits {
		most = max(most, len(c.ops))
	}
	return max(len(commits), 1+len(firstOptimisticNames(commits...))) + most
}

// mayExceedRequest says that a request with the commits must be measured.
func (c *Coordinator) mayExceedRequest(commits ...*pendingCommit) bool {
	size := 0
	for _, x := range commits {
		for _, op := range x.ops {
			size += 4*(len(c.cfg.Prefix)+len(op.Path)) + len(op.Value) + coord.OpOverhead
		}
	}
	return size > maxRequestBytes
}

// singleTxn is the transaction of a commit that travels alone.
func (c *pendingCommit) singleTxn() (*pb.TxnRequest, error) {
	t := c.txn()
	c.s.c.requireLast(t, firstOptimisticNames(c))
	if c.s.withSessionCheck(t); c.s.c.mayExceedRequest(c) {
		if err := checkRequestSize(t); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// sendAlone sends a commit that was to travel with others.
func (c *pendingCommit) sendAlone() group.Outcome {
	x := &txnCall{s: c.s, user: context.Background(), ctx: c.s.ctx, options: waitForReady, build: c.singleTxn, withdraw: func() {}}
	return c.outcome(x.do())
}

// resendAfterFull sends a commit again that the service may have refused because others
// of its batch needed space.
func (c *pendingCommit) resendAfterFull(why *refusedError) group.Outcome {
	if err := c.s.resolveNoSpace(context.Background(), c.s.ctx, c.s.withSessionCheck(c.txn()), why); errors.Is(err, coord.ErrUnknown) {
		return group.Outcome{Err: err}
	}
	return c.sendAlone()
}

// outcome is how a commit ended that travelled alone.
func (c *pendingCommit) outcome(r *pb.TxnResponse, err error) group.Outcome {
	switch {
	case isRefusedFor(err, textNoSpace):
		err = c.s.resolveNoSpace(context.Background(), c.s.ctx, c.s.withSessionCheck(c.txn()), err)
	case isRefusedFor(err, textTooManyOps):
		err = c.s.c.lowerOpLimit(len(c.ops))
	case err != nil:
	case r.Succeeded:
		return group.Outcome{Results: c.results(r.Header.Revision)}
	default:
		if err = c.s.checkSessionKey(r.Responses[len(c.ops)]); err == nil {
			err = c.refusalError(r.Responses)
		}
	}
	return group.Outcome{Err: err}
}

// lowerTo makes n no more than most, and no less than 1.
func lowerTo(n *atomic.Int64, most int) {
	for old := n.Load(); int64(most) < old; old = n.Load() {
		if n.CompareAndSwap(old, int64(max(1, most))) {
			return
		}
	}
}
