package etcdqueue

import (
	"cmp"
	"context"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/zkq/zkq/coord"
)

// bulkCommit is a commit of more ops than one transaction may compare. It travels alone.
type bulkCommit struct {
	pendingCommit
	user, ctx context.Context // as in session.call
}

// commitBulk sends a large commit, for as long as its caller waits.
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

// refusalError finds what stood in the way; what a guard of many paths met, the next
// attempt will find.
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

// txn is a transaction of persistent creates that are too many to be compared
// one by one. Fixed paths are read first; then, for each directory, the range
// from the first to the last of them must hold nothing newer than that reading.
// Sequential names of one prefix are a range of their own, which must be empty.
// The few ops of other kinds are compared each by itself.
func (c *bulkCommit) txn() (*pb.TxnRequest, error) {
	const guards = (nestedOps - 1 - coord.MaxBeside) / 2 // for fixed names, and for sequential ones
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
	// A name holds its producer and a number that it never gives twice. Where so
	// many prefixes meet that not all can be compared, that must do for the others.
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

// indexes is the indexes of the ops.
func (c *bulkCommit) indexes() []int {
	order := make([]int, len(c.ops))
	for i := range order {
		order[i] = i
	}
	return order
}

// compareSpan is a comparison of all keys from the first to the last of a group.
func (c *bulkCommit) compareSpan(group []int) *pb.Compare {
	byPath := func(i, j int) int { return cmp.Compare(c.ops[i].Path, c.ops[j].Path) }
	first, last := slices.MinFunc(group, byPath), slices.MaxFunc(group, byPath)
	return &pb.Compare{Key: c.s.c.key(c.ops[first].Path), RangeEnd: append(c.s.c.key(c.ops[last].Path), 0)}
}

// checkVacant reads whether the fixed paths are free, and at which revision they are.
// What else stands in the commit's way it finds too, so that a refusal names the
// first.
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
