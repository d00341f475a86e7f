package etcdqueue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
)

// The limits of an etcd server with default options. One comparison of a transaction is the
// session's. The ops and comparisons of a nested transaction count in addition to the outer
// ones, so at most 64 times 64 writes fit.
const (
	maxOps          = 128
	maxCommitOps    = maxOps - 1
	nestedOps       = maxOps / 2
	maxBulkOps      = nestedOps * nestedOps
	maxRequestBytes = 1536<<10 - 1<<10 // the server adds a header

	maxValueBytes  = 1 << 20
	maxCommitBytes = 1280 << 10 // leaves room for the paths in comparisons
)

// Limits returns the largest commit and value; see [coord.Session]. A server with a lower
// --max-txn-ops refuses a commit; from then on CommitOps is lower.
func (s *session) Limits() coord.Limits {
	ops := int(s.c.opLimit.Load())
	l := coord.Limits{ValueBytes: maxValueBytes, CommitBytes: maxCommitBytes, CommitOps: ops, Creates: maxBulkOps}
	if ops < maxCommitOps {
		l.Creates = ops
	}
	return l
}

// Commit applies all ops or none; see [coord.Session].
func (s *session) Commit(user context.Context, ops ...coord.Op) ([]coord.Result, error) {
	r, err := s.commit(user, ops)
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return r, nil
}

// commit sends the ops until their outcome is known:
//
//	more ops than a transaction may compare   commitBulk
//	optimistic names                          the runner optimisticCommits
//	all others                                the runner commits
//
// It starts again when the name of a sequential node was taken, which is no concern of the
// caller's, and when the check of a bulk commit failed although nothing stood in its way.
// The second attempt reads the revision.
func (s *session) commit(user context.Context, ops []coord.Op) ([]coord.Result, error) {
	if err := checkContext(user); err != nil {
		return nil, err
	}
	if err := s.checkAlive(); err != nil {
		return nil, err
	}
	if err := coord.CheckOps(s.Limits(), ops); err != nil {
		return nil, err
	}
	if len(ops) == 0 {
		return nil, nil
	}
	// A commit that is sent alone would make all others wait for it.
	for optimistic := len(ops) <= batchLimits.Each; ; optimistic = false {
		numbered, err := s.numberOps(user, ops, optimistic)
		if err != nil {
			return nil, err
		}
		var r []coord.Result
		switch {
		case len(ops) > maxCommitOps:
			r, err = s.commitBulk(user, s.completeNames(numbered))
		case slices.ContainsFunc(numbered, isOptimistic):
			r, err = s.optimisticCommits.DoWithin(user, maxRevisionAge, numbered)
			if errors.Is(err, group.ErrLate) || errors.Is(err, coord.ErrTooLarge) { // an optimistic commit is a little larger
				continue
			}
		default:
			r, err = s.commits.Do(user, numbered)
		}
		if errors.Is(err, errNameTaken) {
			continue
		}
		if err == nil {
			s.c.watches.noteCommit(ops, r)
		}
		return r, err
	}
}

// errNameTaken means that a transaction was refused for the name of a sequential node, not
// for a condition of the caller's.
var errNameTaken = errors.New("the name of a sequential node is taken")

// pendingCommit is the work of one call of Commit. The names of its sequential nodes are
// complete. A commit that is sent again gets new names, so there is one pendingCommit for
// each attempt.
type pendingCommit struct {
	s   *session
	ops []coord.Op
}

// txn returns a transaction whose failure branch reads the paths of all ops, so that the
// answer shows which op was refused. For a commit that creates /a with the session's lease
// and deletes /b at fence 41 it is
//
//	If    create revision of /a = 0, modification revision of /b = 41
//	Then  put /a with the lease, delete /b
//	Else  read the revisions of /a and /b
//
// Whether the session is still there (withSessionCheck) and whether optimistic names sort
// last (requireLast) is compared for the whole request, not for each commit of a batch.
func (c *pendingCommit) txn() *pb.TxnRequest {
	t := &pb.TxnRequest{
		Compare: make([]*pb.Compare, 0, len(c.ops)+1),
		Success: make([]*pb.RequestOp, 0, len(c.ops)),
		Failure: make([]*pb.RequestOp, 0, len(c.ops)+1),
	}
	for _, op := range c.ops {
		key := c.s.c.key(op.Path)
		t.Failure = append(t.Failure, readKeyOp(key))
		if createsNode(op) {
			t.Compare = append(t.Compare, compareAbsent(key))
		} else {
			t.Compare = append(t.Compare, compareFence(key, op.Fence))
		}
		if w := c.writeOp(op, key); w != nil {
			t.Success = append(t.Success, w)
		}
	}
	return t
}

// requireLast adds the condition that no name sorts after the first optimistic name of each
// prefix.
func (c *Coordinator) requireLast(t *pb.TxnRequest, first map[string]string) {
	for _, prefix := range slices.Sorted(maps.Keys(first)) {
		t.Compare = append(t.Compare, compareNoneFrom(c.key(first[prefix]), c.key(prefix)))
	}
}

// createsNode reports whether the op needs its path to be free.
func createsNode(op coord.Op) bool {
	switch op.Kind {
	case coord.KindCreate, coord.KindEphemeral, coord.KindSequential:
		return true
	}
	return false
}

// writeOp returns what an op writes, or nil if it only checks.
func (c *pendingCommit) writeOp(op coord.Op, key []byte) *pb.RequestOp {
	switch op.Kind {
	case coord.KindCreate, coord.KindSequential, coord.KindReplace:
		return putOp(&pb.PutRequest{Key: key, Value: op.Value})
	case coord.KindEphemeral:
		return putOp(&pb.PutRequest{Key: key, Value: op.Value, Lease: c.s.lease})
	case coord.KindSet:
		return putOp(&pb.PutRequest{Key: key, Value: op.Value, IgnoreLease: true})
	case coord.KindTouch:
		return putOp(&pb.PutRequest{Key: key, IgnoreValue: true, IgnoreLease: true})
	case coord.KindDelete:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}
	}
	return nil
}

// firstRefusal returns the refusal of the first op whose condition does not hold. The
// answers are those of the ops for which looked is true, in their order.
func (c *pendingCommit) firstRefusal(answers []*pb.ResponseOp, looked func(coord.Op) bool) error {
	next := 0
	for i, op := range c.ops {
		if !looked(op) {
			continue
		}
		var fence coord.Fence // 0: no such key
		if kvs := answers[next].GetResponseRange().Kvs; len(kvs) > 0 {
			fence = coord.Fence(kvs[0].ModRevision)
		}
		next++
		var err error
		switch {
		case op.Kind == coord.KindSequential: // is sent again with another name
		case createsNode(op) && fence != 0:
			err = coord.ErrExist
		case createsNode(op):
		case fence == 0:
			err = coord.ErrNotExist
		case fence != op.Fence:
			err = coord.ErrVersion
		}
		if err != nil {
			return &coord.Refusal{Index: i, Op: op, Err: err}
		}
	}
	return nil
}

// refusalError returns the error of a transaction that was refused, from its failure
// branch.
func (c *pendingCommit) refusalError(answers []*pb.ResponseOp) error {
	if err := c.firstRefusal(answers, func(coord.Op) bool { return true }); err != nil {
		return err
	}
	return errNameTaken
}

// results returns the results of a commit that was applied at the revision.
func (c *pendingCommit) results(revision int64) []coord.Result {
	results := make([]coord.Result, len(c.ops))
	for i, op := range c.ops {
		results[i] = coord.Result{Path: op.Path, Fence: coord.Fence(revision), Revision: revision}
		switch op.Kind {
		case coord.KindDelete:
			results[i].Fence = 0
		case coord.KindCheck:
			results[i].Fence = op.Fence
		}
	}
	return results
}
