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

// etcd's limits, as a server without options has them. Of the ops of a transaction
// one comparison goes to the session. The ops of a nested transaction count on top
// of the outer ones, the comparisons there included, so 64 times 64 writes are what
// fits.
const (
	maxOps          = 128
	maxCommitOps    = maxOps - 1
	nestedOps       = maxOps / 2
	maxBulkOps      = nestedOps * nestedOps
	maxRequestBytes = 1536<<10 - 1<<10 // the server adds a header

	maxValueBytes  = 1 << 20
	maxCommitBytes = 1280 << 10 // leaves room for the paths in comparisons
)

// Limits implements [coord.Session]. A server with a lower --max-txn-ops shows it
// by refusing a commit; from then on CommitOps is lower.
func (s *session) Limits() coord.Limits {
	ops := int(s.c.opLimit.Load())
	l := coord.Limits{ValueBytes: maxValueBytes, CommitBytes: maxCommitBytes, CommitOps: ops, Creates: maxBulkOps}
	if ops < maxCommitOps {
		l.Creates = ops
	}
	return l
}

// Commit implements [coord.Session].
func (s *session) Commit(user context.Context, ops ...coord.Op) ([]coord.Result, error) {
	r, err := s.commit(user, ops)
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return r, nil
}

// commit has the ops sent until it is decided what became of them. It goes round
// again when the name of a sequential node would not do, which is not the caller's
// affair, and when the guard of a large commit failed though nothing was in its way.
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
	// What travels alone would have all others wait for it.
	for guess := len(ops) <= batchLimits.Each; ; guess = false {
		numbered, err := s.numberOps(user, ops, guess)
		if err != nil {
			return nil, err
		}
		var r []coord.Result
		switch {
		case len(ops) > maxCommitOps:
			r, err = s.commitBulk(user, s.completeNames(numbered))
		case slices.ContainsFunc(numbered, isOptimistic):
			r, err = s.optimisticCommits.DoWithin(user, maxRevisionAge, numbered)
			if errors.Is(err, group.ErrLate) || errors.Is(err, coord.ErrTooLarge) { // as a guess is larger
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

// errNameTaken says that a transaction was refused for what is not its caller's affair.
var errNameTaken = errors.New("the name of a sequential node would not do")

// pendingCommit is what one call of Commit wants done. The paths of its sequential nodes are
// complete.
type pendingCommit struct {
	s   *session
	ops []coord.Op
}

// txn is a transaction whose other branch reads what stood in the way. That all that
// stands sorts before its guessed names the whole request compares: see demandLast.
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

// requireLast has t demand that all that stands sorts before the guessed names.
func (c *Coordinator) requireLast(t *pb.TxnRequest, first map[string]string) {
	for _, prefix := range slices.Sorted(maps.Keys(first)) {
		t.Compare = append(t.Compare, compareNoneFrom(c.key(first[prefix]), c.key(prefix)))
	}
}

// createsNode says whether the op wants its path free.
func createsNode(op coord.Op) bool {
	switch op.Kind {
	case coord.KindCreate, coord.KindEphemeral, coord.KindSequential:
		return true
	}
	return false
}

// writeOp is what an op writes; nil: nothing.
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

// firstRefusal judges the ops that were looked at, by the answers in their order.
func (c *pendingCommit) firstRefusal(answers []*pb.ResponseOp, looked func(coord.Op) bool) error {
	k := 0
	for i, op := range c.ops {
		if !looked(op) {
			continue
		}
		var fence coord.Fence // of the key; 0: there is none
		if kvs := answers[k].GetResponseRange().Kvs; len(kvs) > 0 {
			fence = coord.Fence(kvs[0].ModRevision)
		}
		k++
		var err error
		switch {
		case op.Kind == coord.KindSequential: // another name will do
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

// refusalError finds what stood in the way of a transaction, by what it read.
func (c *pendingCommit) refusalError(answers []*pb.ResponseOp) error {
	if err := c.firstRefusal(answers, func(coord.Op) bool { return true }); err != nil {
		return err
	}
	return errNameTaken
}

// results are those of a commit applied at a revision.
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
