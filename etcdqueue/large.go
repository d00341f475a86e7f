package etcdqueue

import (
	"cmp"
	"context"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/zkq/zkq/coord"
)

// large is a commit of more ops than one transaction may compare. It travels alone.
type large struct {
	commit
	user, ctx context.Context // as in session.call
}

// large sends a large commit, for as long as its caller waits.
func (s *session) large(user context.Context, ops []coord.Op) ([]coord.Result, error) {
	ctx, cancel, err := s.call(user)
	if err != nil {
		return nil, err
	}
	defer cancel()
	c := &large{commit{s: s, ops: ops}, user, ctx}
	t, err := c.txn()
	if err != nil {
		return nil, err
	}
	if err := fits(t); err != nil {
		return nil, err
	}
	x := &sending{s: s, user: user, ctx: ctx, options: waiting, back: func() {}}
	x.begin = func() (*pb.TxnRequest, error) { return t, nil }
	r, err := x.send()
	switch {
	case refusedFor(err, noSpace):
		return nil, s.resolve(user, ctx, t, err)
	case refusedFor(err, tooManyOps):
		return nil, s.c.learn(len(ops))
	case err != nil:
		return nil, err
	case r.Succeeded:
		return c.results(r.Header.Revision), nil
	}
	return nil, c.refusal(r.Responses)
}

// refusal finds what stood in the way; what a guard of many paths met, the next
// attempt will find.
func (c *large) refusal(answers []*pb.ResponseOp) error {
	if err := c.s.standing(answers[len(answers)-1]); err != nil {
		return err
	}
	fixed := func(op coord.Op) bool { return op.Kind == coord.KindCreate }
	if !slices.ContainsFunc(c.ops, fixed) {
		if err := c.firstRefused(answers, func(op coord.Op) bool { return !creates(op) }); err != nil {
			return err
		}
	}
	return errTaken
}

// txn is a transaction of persistent creates that are too many to be compared
// one by one. Fixed paths are read first; then, for each directory, the range
// from the first to the last of them must hold nothing newer than that reading.
// Sequential names of one prefix are a range of their own, which must be empty.
// The few ops of other kinds are compared each by itself.
func (c *large) txn() (*pb.TxnRequest, error) {
	const guards = (nest - 1 - coord.MaxBeside) / 2 // for fixed names, and for sequential ones
	fixed, sequential := make(map[string][]int), make(map[string][]int)
	t := &pb.TxnRequest{}
	for i, op := range c.ops {
		switch {
		case op.Kind == coord.KindSequential:
			prefix := op.Path[:len(op.Path)-suffixLen]
			sequential[prefix] = append(sequential[prefix], i)
		case creates(op):
			dir := op.Path[:strings.LastIndexByte(op.Path, '/')]
			fixed[dir] = append(fixed[dir], i)
		default:
			key := c.s.c.key(op.Path)
			t.Compare = append(t.Compare, at(key, op.Fence))
			t.Failure = append(t.Failure, look(key))
		}
	}
	if len(fixed) > 0 {
		rev, err := c.vacant()
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
			guard := c.span(group)
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
		guard := c.span(group)
		guard.Target, guard.Result = pb.Compare_CREATE, pb.Compare_EQUAL
		guard.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: 0}
		t.Compare = append(t.Compare, guard)
	}
	for chunk := range slices.Chunk(c.order(), nest) {
		inner := &pb.TxnRequest{}
		for _, i := range chunk {
			if w := c.write(c.ops[i], c.s.c.key(c.ops[i].Path)); w != nil {
				inner.Success = append(inner.Success, w)
			}
		}
		t.Success = append(t.Success, nested(inner))
	}
	return c.s.guarded(t), nil
}

// order is the indexes of the ops.
func (c *large) order() []int {
	order := make([]int, len(c.ops))
	for i := range order {
		order[i] = i
	}
	return order
}

// span is a comparison of all keys from the first to the last of a group.
func (c *large) span(group []int) *pb.Compare {
	byPath := func(i, j int) int { return cmp.Compare(c.ops[i].Path, c.ops[j].Path) }
	first, last := slices.MinFunc(group, byPath), slices.MaxFunc(group, byPath)
	return &pb.Compare{Key: c.s.c.key(c.ops[first].Path), RangeEnd: append(c.s.c.key(c.ops[last].Path), 0)}
}

// vacant reads whether the fixed paths are free, and at which revision they are.
// What else stands in the commit's way it finds too, so that a refusal names the
// first.
func (c *large) vacant() (int64, error) {
	t := &pb.TxnRequest{}
	for chunk := range slices.Chunk(c.order(), nest) {
		inner := &pb.TxnRequest{}
		for _, i := range chunk {
			if c.ops[i].Kind != coord.KindSequential {
				inner.Success = append(inner.Success, look(c.s.c.key(c.ops[i].Path)))
			}
		}
		t.Success = append(t.Success, nested(inner))
	}
	var r *pb.TxnResponse
	err := c.s.c.ask(c.user, c.ctx, func(ctx context.Context) (err error) {
		r, err = c.s.c.kv.Txn(ctx, t, waiting...)
		return err
	})
	if err != nil {
		return 0, err
	}
	answers := make([]*pb.ResponseOp, 0, len(c.ops))
	for _, chunk := range r.Responses {
		answers = append(answers, chunk.GetResponseTxn().Responses...)
	}
	if err := c.firstRefused(answers, func(op coord.Op) bool { return op.Kind != coord.KindSequential }); err != nil {
		return 0, err
	}
	return r.Header.Revision, nil
}
