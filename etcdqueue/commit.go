package etcdqueue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/zkq/zkq/coord"
)

// etcd's limits, as a server without options has them. Of the ops of a transaction
// one comparison goes to the session. The ops of a nested transaction count on top
// of the outer ones, the comparisons there included, so 64 times 64 writes are what
// fits.
const (
	maxOps     = 128
	commitOps  = maxOps - 1
	nest       = maxOps / 2
	mostOps    = nest * nest
	maxRequest = 1536<<10 - 1<<10 // the server adds a header

	valueBytes  = 1 << 20
	commitBytes = 1280 << 10 // leaves room for the paths in comparisons
)

// Limits implements [coord.Session]. A server with a lower --max-txn-ops shows it
// by refusing a commit; from then on CommitOps is lower.
func (s *session) Limits() coord.Limits {
	ops := int(s.c.most.Load())
	l := coord.Limits{ValueBytes: valueBytes, CommitBytes: commitBytes, CommitOps: ops, Creates: mostOps}
	if ops < commitOps {
		l.Creates = ops
	}
	return l
}

// Commit implements [coord.Session].
func (s *session) Commit(user context.Context, ops ...coord.Op) ([]coord.Result, error) {
	ctx, cancel, err := s.call(user)
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	defer cancel()
	if err := coord.CheckOps(s.Limits(), ops); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	if len(ops) == 0 {
		return nil, nil
	}
	c := &commit{s: s, user: user, ctx: ctx, ops: ops}
	r, err := c.run()
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return r, nil
}

// commit is one call of Commit.
type commit struct {
	s         *session
	user, ctx context.Context
	ops       []coord.Op
	paths     []string // of the ops; sequential names are complete
}

// run sends the transaction until it is decided. It goes round again when the
// name of a sequential node was taken, which is not the caller's affair, and when
// the guard of a large commit failed though nothing was in its way.
func (c *commit) run() ([]coord.Result, error) {
	for {
		if err := c.name(); err != nil {
			return nil, err
		}
		build := c.small
		if len(c.ops) > commitOps {
			build = c.large
		}
		txn, err := build()
		if err != nil {
			return nil, err
		}
		if n := proto.Size(txn); n > maxRequest {
			return nil, &coord.LimitError{What: "commit", Unit: "bytes", Size: n, Limit: maxRequest}
		}
		r, err := c.send(txn)
		if err != nil {
			return nil, err
		}
		if r.Succeeded {
			return c.results(r.Header.Revision), nil
		}
		if err := c.refusal(r); err != nil {
			return nil, err
		}
	}
}

// name chooses the names of sequential nodes.
func (c *commit) name() error {
	c.paths = make([]string, len(c.ops))
	n := 0
	for i, op := range c.ops {
		c.paths[i] = op.Path
		if op.Kind == coord.KindSequential {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	number, now := c.s.c.numbers.take(n), time.Now()
	seqs := make(map[string]int64, 1)
	for i, op := range c.ops {
		if op.Kind != coord.KindSequential {
			continue
		}
		queue := queueOf(op.Path)
		seq, ok := seqs[queue]
		if !ok {
			var err error
			if seq, err = c.s.c.sequence(c.user, c.ctx, queue); err != nil {
				return err
			}
			seqs[queue] = seq
		}
		c.paths[i] = op.Path + suffix(seq, now, c.s.c.producer, number)
		number++
	}
	return nil
}

// small is a transaction whose other branch reads what stood in its way.
func (c *commit) small() (*pb.TxnRequest, error) {
	t := &pb.TxnRequest{
		Compare: []*pb.Compare{c.s.stands()},
		Failure: []*pb.RequestOp{look(c.s.key)},
	}
	for i, op := range c.ops {
		key := c.s.c.key(c.paths[i])
		t.Failure = append(t.Failure, look(key))
		if creates(op) {
			t.Compare = append(t.Compare, absent(key))
		} else {
			t.Compare = append(t.Compare, at(key, op.Fence))
		}
		t.Success = c.write(t.Success, i)
	}
	return t, nil
}

// creates says whether the op wants its path free.
func creates(op coord.Op) bool {
	switch op.Kind {
	case coord.KindCreate, coord.KindEphemeral, coord.KindSequential:
		return true
	}
	return false
}

// write adds what an op writes, if it does.
func (c *commit) write(to []*pb.RequestOp, i int) []*pb.RequestOp {
	op, key := c.ops[i], c.s.c.key(c.paths[i])
	switch op.Kind {
	case coord.KindCreate, coord.KindSequential, coord.KindReplace:
		return append(to, put(&pb.PutRequest{Key: key, Value: op.Value}))
	case coord.KindEphemeral:
		return append(to, put(&pb.PutRequest{Key: key, Value: op.Value, Lease: c.s.lease}))
	case coord.KindSet:
		return append(to, put(&pb.PutRequest{Key: key, Value: op.Value, IgnoreLease: true}))
	case coord.KindTouch:
		return append(to, put(&pb.PutRequest{Key: key, IgnoreValue: true, IgnoreLease: true}))
	case coord.KindDelete:
		return append(to, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}})
	}
	return to
}

// large is a transaction of persistent creates that are too many to be compared
// one by one. Fixed paths are read first; then, for each directory, the range
// from the first to the last of them must hold nothing newer than that reading.
// Sequential names of one prefix are a range of their own, which must be empty.
// The few ops of other kinds are compared each by itself.
func (c *commit) large() (*pb.TxnRequest, error) {
	const guards = (nest - 1 - coord.MaxBeside) / 2 // for fixed names, and for sequential ones
	fixed, sequential := make(map[string][]int), make(map[string][]int)
	t := &pb.TxnRequest{Compare: []*pb.Compare{c.s.stands()}, Failure: []*pb.RequestOp{look(c.s.key)}}
	for i, op := range c.ops {
		switch {
		case op.Kind == coord.KindSequential:
			sequential[op.Path] = append(sequential[op.Path], i)
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
			inner.Success = c.write(inner.Success, i)
		}
		t.Success = append(t.Success, nested(inner))
	}
	return t, nil
}

// order is the indexes of the ops.
func (c *commit) order() []int {
	order := make([]int, len(c.ops))
	for i := range order {
		order[i] = i
	}
	return order
}

// span is a comparison of all keys from the first to the last of a group.
func (c *commit) span(group []int) *pb.Compare {
	byPath := func(i, j int) int { return cmp.Compare(c.paths[i], c.paths[j]) }
	first, last := slices.MinFunc(group, byPath), slices.MaxFunc(group, byPath)
	return &pb.Compare{Key: c.s.c.key(c.paths[first]), RangeEnd: append(c.s.c.key(c.paths[last]), 0)}
}

// vacant reads whether the fixed paths are free, and at which revision they are.
// What else stands in the commit's way it finds too, so that a refusal names the
// first.
func (c *commit) vacant() (int64, error) {
	t := &pb.TxnRequest{}
	for chunk := range slices.Chunk(c.order(), nest) {
		inner := &pb.TxnRequest{}
		for _, i := range chunk {
			if c.ops[i].Kind != coord.KindSequential {
				inner.Success = append(inner.Success, look(c.s.c.key(c.paths[i])))
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

// firstRefused judges the ops that were looked at, by the answers in their order.
func (c *commit) firstRefused(answers []*pb.ResponseOp, looked func(coord.Op) bool) error {
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
		case creates(op) && fence != 0:
			err = coord.ErrExist
		case creates(op):
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

// send makes sure that the transaction is sent at most once.
func (c *commit) send(t *pb.TxnRequest) (*pb.TxnResponse, error) {
	var r retries
	for {
		if err := c.stopped(); err != nil {
			return nil, err
		}
		ctx, envelope, landed := c.flight()
		resp, err := c.s.c.kv.Txn(clientv3.WithRequireLeader(ctx), t, waiting...)
		why := stopped(c.user, ctx)
		landed()
		if err == nil {
			c.s.c.link.served()
			return resp, nil
		}
		v := c.s.c.judge(err)
		sent := envelope.sent.Load()
		switch {
		case text(err) == text(rpctypes.ErrGRPCNoSpace):
			return nil, c.resolve(t, v.wrap(err))
		case text(err) == text(rpctypes.ErrGRPCTooManyOps):
			return nil, c.s.c.learn(len(c.ops))
		case sent && !v.refused && why != nil && c.user.Err() == nil:
			// What ended is not in the chain: it must not look as if nothing was sent.
			return nil, unknown(fmt.Errorf("not answered: %v", why))
		case sent && !v.refused && why != nil:
			return nil, unknown(why)
		case sent && !v.refused:
			return nil, unknown(v.wrap(err))
		case v.means == coord.ErrSessionLost:
			c.s.end(coord.ErrSessionLost)
			return nil, coord.ErrSessionLost
		case why != nil && !errors.Is(why, errElection):
			return nil, why
		case !r.again(c.ctx, v):
			return nil, v.wrap(err)
		}
	}
}

// stopped also compares the clock: the session may have ended while the request
// waited, without anybody having woken to say so.
func (c *commit) stopped() error {
	if err := stopped(c.user, c.ctx); err != nil {
		return err
	}
	return c.s.alive()
}

// resolve finds out what became of a transaction that met ErrNoSpace: etcd refuses
// what comes when there is no space, but the one that took the last of it was
// applied. An applied transaction has broken its own conditions.
func (c *commit) resolve(t *pb.TxnRequest, full error) error {
	probe := &pb.TxnRequest{Compare: t.Compare, Success: []*pb.RequestOp{look(c.s.key)}, Failure: []*pb.RequestOp{look(c.s.key)}}
	var r *pb.TxnResponse
	err := c.s.c.ask(c.user, c.ctx, func(ctx context.Context) (err error) {
		r, err = c.s.c.kv.Txn(ctx, probe, waiting...)
		return err
	})
	if err != nil || !r.Succeeded {
		return unknown(full)
	}
	return full
}

// learn lowers the limit of a server that takes fewer ops.
func (c *Coordinator) learn(ops int) error {
	most := int64(max(1, ops/2))
	if old := c.most.Load(); most < old {
		c.most.CompareAndSwap(old, most)
	}
	return &coord.LimitError{What: "commit", Unit: "ops", Size: ops, Limit: int(c.most.Load())}
}

// refusal finds what stood in the way; nil if it was nothing of the caller's.
func (c *commit) refusal(r *pb.TxnResponse) error {
	if kvs := r.Responses[0].GetResponseRange().Kvs; len(kvs) == 0 || kvs[0].CreateRevision != c.s.created {
		c.s.end(coord.ErrSessionLost)
		return coord.ErrSessionLost
	}
	looked := func(coord.Op) bool { return true }
	if len(c.ops) > commitOps {
		if slices.ContainsFunc(c.ops, func(op coord.Op) bool { return op.Kind == coord.KindCreate }) {
			return nil // vacant looks again, at all
		}
		looked = func(op coord.Op) bool { return !creates(op) }
	}
	return c.firstRefused(r.Responses[1:], looked)
}

// results are those of a commit applied at a revision.
func (c *commit) results(revision int64) []coord.Result {
	results := make([]coord.Result, len(c.ops))
	for i, op := range c.ops {
		results[i] = coord.Result{Path: c.paths[i], Fence: coord.Fence(revision), Revision: revision}
		switch op.Kind {
		case coord.KindDelete:
			results[i].Fence = 0
		case coord.KindCheck:
			results[i].Fence = op.Fence
		}
	}
	return results
}

// stands compares the session's key: without it nothing is applied.
func (s *session) stands() *pb.Compare {
	return &pb.Compare{Key: s.key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: s.created}}
}

func absent(key []byte) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}
}

// at compares a fence. A key that is not there has the revision 0, so 0, which is
// no node's fence, must not be compared as it is.
func at(key []byte, f coord.Fence) *pb.Compare {
	if f <= 0 {
		f = -1
	}
	return &pb.Compare{Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: int64(f)}}
}

func put(p *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}}
}

// look reads all of a key but its value.
func look(key []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key, KeysOnly: true}}}
}

func nested(t *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}
