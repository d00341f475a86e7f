package etcdqueue

import (
	"cmp"
	"context"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/zkq/zkq/coord"
)

// bulkCommit is a commit with more ops than one transaction may compare. It is sent by
// itself.
type bulkCommit struct {
	pendingCommit
	user, ctx context.Context // as in session.beginCall
}

// commitBulk sends a bulk commit, for as long as its caller waits.
func (s *session) commitBulk(user context.Context, ops []coord.Op) ([]coord.Result, error) {
	ctx, cancel, err := s.beginCall(user)
	if err != nil {
		return nil, err
	}
	defer cancel()
	c := &bulkCommit{pendingCommit{s: s, ops: ops}, user, ctx}
	t, err := c.txn()
	if err != nil {
		return nil, err
	}
	if err := checkRequestSize(t); err != nil {
		return nil, err
	}
	x := &txnCall{s: s, user: user, ctx: ctx, options: waitForReady, withdraw: func() {}}
	x.build = func() (*pb.TxnRequest, error) { return t, nil }
	r, err := x.do()
	switch {
	case isRefusedFor(err, textNoSpace):
		return nil, s.resolveNoSpace(user, ctx, t, err)
	case isRefusedFor(err, textTooManyOps):
		return nil, s.c.lowerOpLimit(len(ops))
	case err != nil:
		return nil, err
	case r.Succeeded:
		return c.results(r.Header.Revision), nil
	}
	return nil, c.refusalError(r.Responses)
}

// refusalError returns the op that was refused if the answer shows it. The comparison of a
// range does not show which path failed; then the next attempt finds it by reading.
func (c *bulkCommit) refusalError(answers []*pb.ResponseOp) error {
	if err := c.s.checkSessionKey(answers[len(answers)-1]); err != nil {
		return err
	}
	fixed := func(op coord.Op) bool { return op.Kind == coord.KindCreate }
	if !slices.ContainsFunc(c.ops, fixed) {
		if err := c.firstRefusal(answers, func(op coord.Op) bool { return !createsNode(op) }); err != nil {
			return err
		}
	}
	return errNameTaken
}

// txn returns a transaction of persistent creates that are too many to be compared one by
// one. The fixed paths are read first, at some revision R. Then, for each directory, the
// range from the first path to the last must contain nothing newer than R; the sequential
// names of each prefix are a range that must be empty; and the few ops of other kinds are
// compared one by one:
//
//	If    for each directory: modification revisions in [first, last] < R+1,
//	      for each prefix: create revisions in [first, last] = 0, the session's key exists
//	Then  nested transactions of 64 writes each
//
// The writes are nested because the outer transaction may not have more than 128 ops.
func (c *bulkCommit) txn() (*pb.TxnRequest, error) {
	const guards = (nestedOps - 1 - coord.MaxBeside) / 2 // comparisons of ranges: for fixed paths, and as many for sequential names
	fixed, sequential := make(map[string][]int), make(map[string][]int)
	t := &pb.TxnRequest{}
	for i, op := range c.ops {
		switch {
		case op.Kind == coord.KindSequential:
			prefix := op.Path[:len(op.Path)-nameSuffixLen]
			sequential[prefix] = append(sequential[prefix], i)
		case createsNode(op):
			dir := op.Path[:strings.LastIndexByte(op.Path, '/')]
			fixed[dir] = append(fixed[dir], i)
		default:
			key := c.s.c.key(op.Path)
			t.Compare = append(t.Compare, compareFence(key, op.Fence))
			t.Failure = append(t.Failure, readKeyOp(key))
		}
	}
	if len(fixed) > 0 {
		rev, err := c.checkVacant()
		if err != nil {
			return nil, err
		}
		// With too many directories one range spans all of them. It then refuses more than it
		// must, and the commit is tried again.
		if len(fixed) > guards {
			var all []int
			for _, group := range fixed {
				all = append(all, group...)
			}
			fixed = map[string][]int{"": all}
		}
		for _, group := range fixed {
			guard := c.compareSpan(group)
			guard.Target, guard.Result = pb.Compare_MOD, pb.Compare_LESS
			guard.TargetUnion = &pb.Compare_ModRevision{ModRevision: rev + 1}
			t.Compare = append(t.Compare, guard)
		}
	}
	// A name contains its producer and a number that the producer does not use again. Where the
	// prefixes are too many to be compared, that is enough for the rest.
	compared := 0
	for _, group := range sequential {
		if compared++; compared > guards {
			break
		}
		guard := c.compareSpan(group)
		guard.Target, guard.Result = pb.Compare_CREATE, pb.Compare_EQUAL
		guard.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: 0}
		t.Compare = append(t.Compare, guard)
	}
	for chunk := range slices.Chunk(c.indexes(), nestedOps) {
		inner := &pb.TxnRequest{}
		for _, i := range chunk {
			if w := c.writeOp(c.ops[i], c.s.c.key(c.ops[i].Path)); w != nil {
				inner.Success = append(inner.Success, w)
			}
		}
		t.Success = append(t.Success, nestedOp(inner))
	}
	return c.s.withSessionCheck(t), nil
}

// indexes returns 0, 1, 2 and so on, one for each op.
func (c *bulkCommit) indexes() []int {
	order := make([]int, len(c.ops))
	for i := range order {
		order[i] = i
	}
	return order
}

// compareSpan returns a comparison of all keys from the first to the last op of a group.
func (c *bulkCommit) compareSpan(group []int) *pb.Compare {
	byPath := func(i, j int) int { return cmp.Compare(c.ops[i].Path, c.ops[j].Path) }
	first, last := slices.MinFunc(group, byPath), slices.MaxFunc(group, byPath)
	return &pb.Compare{Key: c.s.c.key(c.ops[first].Path), RangeEnd: append(c.s.c.key(c.ops[last].Path), 0)}
}

// checkVacant reads all paths of the commit that are not sequential. It returns the
// revision at which they were free, or the refusal of the first op.
func (c *bulkCommit) checkVacant() (int64, error) {
	t := &pb.TxnRequest{}
	for chunk := range slices.Chunk(c.indexes(), nestedOps) {
		inner := &pb.TxnRequest{}
		for _, i := range chunk {
			if c.ops[i].Kind != coord.KindSequential {
				inner.Success = append(inner.Success, readKeyOp(c.s.c.key(c.ops[i].Path)))
			}
		}
		t.Success = append(t.Success, nestedOp(inner))
	}
	var r *pb.TxnResponse
	err := c.s.c.doRepeatable(c.user, c.ctx, func(ctx context.Context) (err error) {
		r, err = c.s.c.kv.Txn(ctx, t, waitForReady...)
		return err
	})
	if err != nil {
		return 0, err
	}
	answers := make([]*pb.ResponseOp, 0, len(c.ops))
	for _, chunk := range r.Responses {
		answers = append(answers, chunk.GetResponseTxn().Responses...)
	}
	if err := c.firstRefusal(answers, func(op coord.Op) bool { return op.Kind != coord.KindSequential }); err != nil {
		return 0, err
	}
	return r.Header.Revision, nil
}
