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

// batchLimits bound a batch. Commits that wait at the same time are sent as nested
// transactions of one: each has its own conditions, so a refusal does not affect the
// others.
var batchLimits = group.Limits{Commits: nestedOps, Each: nestedOps - 1, Bytes: maxRequestBytes / 3}

// maxInFlight is how many requests with commits one session may have in flight.
const maxInFlight = 32

// maxOptimisticInFlight is the same for commits with optimistic names. If two were in
// flight, the later one could be applied first, and the earlier would be refused.
const maxOptimisticInFlight = 1

// separateFor is how long commits are sent one by one after the service had no space left.
// Commits that only delete are still accepted then, and must not be refused with the
// others.
const separateFor = time.Second

// failFast are the call options of a batch. It does not wait for a connection, as
// awaitConnection has done so before the batch was sealed.
var failFast = []grpc.CallOption{grpc.MaxCallRecvMsgSize(math.MaxInt32)}

// errSeparate means that the commits of a batch are to be sent one by one.
var errSeparate = errors.New("the commits of the batch are to be sent one by one")

// sendBatch sends a batch of commits whose names are known.
func (s *session) sendBatch(b *group.Batch) []group.Outcome {
	r := &batchRequest{s: s, batch: b, allowed: func() bool { return true }}
	return r.send()
}

// sendOptimisticBatch sends a batch of commits with optimistic names.
func (s *session) sendOptimisticBatch(b *group.Batch) []group.Outcome {
	r := &batchRequest{s: s, batch: b, allowed: s.c.optimistic.beginRequest}
	outcomes := r.send()
	s.c.optimistic.endRequest(r.commits, outcomes)
	return outcomes
}

// batchRequest is the request that sends a batch of commits. The batch changes until the
// request is on its way, as callers may still withdraw their commits.
type batchRequest struct {
	s       *session
	batch   *group.Batch
	allowed func() bool // asked just before the request is sent; false refuses the commits

	commits []*pendingCommit // of the batch, as they were last sealed
	began   time.Duration    // by boottime: when they were
}

// send sends the batch as one transaction, or each commit by itself where the service does
// not take them together. It returns the outcome of each commit that is left in the batch.
func (r *batchRequest) send() []group.Outcome {
	call := &txnCall{s: r.s, user: context.Background(), ctx: r.s.ctx, options: failFast, build: r.buildTxn, withdraw: r.batch.Unseal}
	answer, err := call.do()
	if err == nil && answer != nil {
		r.s.c.optimistic.revisionShown(r.began)
	}
	switch {
	case len(r.batch.Commits) == 0:
		return nil
	case len(r.commits) == 1:
		return []group.Outcome{r.commits[0].outcome(answer, err)}
	case errors.Is(err, errSeparate):
		return r.sendSeparately()
	}
	var refusal *refusedError
	if errors.As(err, &refusal) {
		if outcomes := r.afterRefusal(refusal); outcomes != nil {
			return outcomes
		}
	}
	if err == nil && !answer.Succeeded {
		if err = r.s.checkSessionKey(answer.Responses[0]); err == nil {
			err = errNameTaken
		}
	}
	if err != nil {
		outcomes := make([]group.Outcome, len(r.batch.Commits))
		for i := range outcomes {
			outcomes[i].Err = err
		}
		return outcomes
	}
	return r.outcomes(answer)
}

// buildTxn seals the batch and returns the transaction to send; nil if no commit is left.
func (r *batchRequest) buildTxn() (*pb.TxnRequest, error) {
	if err := r.s.awaitConnection(); err != nil {
		return nil, err
	}
	if r.commits = nil; !r.allowed() {
		return nil, errNameTaken
	}
	r.began = boottime.Now()
	r.seal()
	switch len(r.commits) {
	case 0:
		return nil, nil
	case 1:
		return r.commits[0].singleTxn()
	}
	return r.s.batchTxn(r.commits)
}

// seal takes the commits of the batch whose callers still wait, and completes their names.
func (r *batchRequest) seal() {
	sealed := r.batch.Seal()
	r.commits = make([]*pendingCommit, len(sealed))
	for i, c := range sealed {
		r.commits[i] = &pendingCommit{s: r.s, ops: r.s.completeNames(c.Ops)}
	}
}

// afterRefusal sends each commit by itself if the refusal of the batch need not hold for
// every commit in it; otherwise it returns nil. A batch that was refused has been unsealed,
// so it is sealed again without the commits whose callers have gone.
func (r *batchRequest) afterRefusal(refusal *refusedError) []group.Outcome {
	c := r.s.c
	switch {
	case refusal.code == textNoSpace: // still sealed: it may have been applied
		c.lastFull.Store(time.Now().UnixNano())
		return mapCommits(r.commits, func(c *pendingCommit) group.Outcome { return c.resendAfterFull(refusal) })
	case refusal.code == textDiskFull:
		c.lastFull.Store(time.Now().UnixNano())
	case refusal.code == textTooManyOps:
		lowerTo(&c.batchOpLimit, countedOps(r.commits)/2)
	case refusal.coordErr == coord.ErrForbidden, refusal.coordErr == coord.ErrTooLarge, refusal.coordErr == coord.ErrInvalid:
	default:
		return nil
	}
	r.seal()
	return r.sendSeparately()
}

// sendSeparately sends each commit by itself, one after the other.
func (r *batchRequest) sendSeparately() []group.Outcome {
	return mapCommits(r.commits, (*pendingCommit).sendAlone)
}

// outcomes returns the outcome of each commit of a batch that was applied: each is a
// transaction with conditions of its own.
func (r *batchRequest) outcomes(answer *pb.TxnResponse) []group.Outcome {
	outcomes := make([]group.Outcome, len(r.commits))
	for i, c := range r.commits {
		txn := answer.Responses[i].GetResponseTxn()
		if txn.Succeeded {
			outcomes[i].Results = c.results(answer.Header.Revision)
		} else {
			outcomes[i].Err = c.refusalError(txn.Responses)
		}
	}
	return outcomes
}

// mapCommits returns the outcome of f for each commit.
func mapCommits(commits []*pendingCommit, f func(*pendingCommit) group.Outcome) []group.Outcome {
	outcomes := make([]group.Outcome, len(commits))
	for i, c := range commits {
		outcomes[i] = f(c)
	}
	return outcomes
}

// awaitConnection waits for a connection. It returns an error when the session ends.
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

// batchTxn returns one transaction with the commits as nested transactions:
//
//	If    the session's key exists, no name sorts after the optimistic ones
//	Then  nested transaction of commit 1, of commit 2, ...
//	Else  read the session's key
//
// It returns errSeparate if the commits exceed the server's limits, or if the service has
// had no space a moment ago.
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

// countedOps returns what the server compares with its limit of ops: the ops of the outer
// transaction plus those of the largest nested one.
func countedOps(commits []*pendingCommit) int {
	most := 0
	for _, c := range commits {
		most = max(most, len(c.ops))
	}
	return max(len(commits), 1+len(firstOptimisticNames(commits...))) + most
}

// mayExceedRequest estimates, from above, whether a request is too large, so that most need
// not be encoded to be measured.
func (c *Coordinator) mayExceedRequest(commits ...*pendingCommit) bool {
	size := 0
	for _, x := range commits {
		for _, op := range x.ops {
			size += 4*(len(c.cfg.Prefix)+len(op.Path)) + len(op.Value) + coord.OpOverhead
		}
	}
	return size > maxRequestBytes
}

// singleTxn returns the transaction of a commit that is sent alone.
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

// sendAlone sends a commit of a batch by itself.
func (c *pendingCommit) sendAlone() group.Outcome {
	x := &txnCall{s: c.s, user: context.Background(), ctx: c.s.ctx, options: waitForReady, build: c.singleTxn, withdraw: func() {}}
	return c.outcome(x.do())
}

// resendAfterFull sends a commit again that the service may have refused only because other
// commits of its batch needed space.
func (c *pendingCommit) resendAfterFull(why *refusedError) group.Outcome {
	if err := c.s.resolveNoSpace(context.Background(), c.s.ctx, c.s.withSessionCheck(c.txn()), why); errors.Is(err, coord.ErrUnknown) {
		return group.Outcome{Err: err}
	}
	return c.sendAlone()
}

// outcome returns the outcome of a commit that was sent alone.
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

// lowerTo lowers n to most, but not below 1.
func lowerTo(n *atomic.Int64, most int) {
	for old := n.Load(); int64(most) < old; old = n.Load() {
		if n.CompareAndSwap(old, int64(max(1, most))) {
			return
		}
	}
}
