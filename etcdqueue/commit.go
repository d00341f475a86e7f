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
	if err := s.alive(); err != nil {
		return nil, err
	}
	if err := coord.CheckOps(s.Limits(), ops); err != nil {
		return nil, err
	}
	if len(ops) == 0 {
		return nil, nil
	}
	// What travels alone would have all others wait for it.
	for guess := len(ops) <= batches.Each; ; guess = false {
		numbered, err := s.number(user, ops, guess)
		if err != nil {
			return nil, err
		}
		var r []coord.Result
		switch {
		case len(ops) > commitOps:
			r, err = s.large(user, s.name(numbered))
		case slices.ContainsFunc(numbered, guessed):
			r, err = s.puts.DoWithin(user, guessAge, numbered)
			if errors.Is(err, group.ErrLate) || errors.Is(err, coord.ErrTooLarge) { // as a guess is larger
				continue
			}
		default:
			r, err = s.commits.Do(user, numbered)
		}
		if errors.Is(err, errTaken) {
			continue
		}
		if err == nil {
			s.c.hub.committed(ops, r)
		}
		return r, err
	}
}

// errTaken says that a transaction was refused for what is not its caller's affair.
var errTaken = errors.New("the name of a sequential node would not do")

// commit is what one call of Commit wants done. The paths of its sequential nodes are
// complete.
type commit struct {
	s   *session
	ops []coord.Op
}

// txn is a transaction whose other branch reads what stood in the way. That all that
// stands sorts before its guessed names the whole request compares: see demandLast.
func (c *commit) txn() *pb.TxnRequest {
	t := &pb.TxnRequest{
		Compare: make([]*pb.Compare, 0, len(c.ops)+1),
		Success: make([]*pb.RequestOp, 0, len(c.ops)),
		Failure: make([]*pb.RequestOp, 0, len(c.ops)+1),
	}
	for _, op := range c.ops {
		key := c.s.c.key(op.Path)
		t.Failure = append(t.Failure, look(key))
		if creates(op) {
			t.Compare = append(t.Compare, absent(key))
		} else {
			t.Compare = append(t.Compare, at(key, op.Fence))
		}
		if w := c.write(op, key); w != nil {
			t.Success = append(t.Success, w)
		}
	}
	return t
}

// demandLast has t demand that all that stands sorts before the guessed names.
func (c *Coordinator) demandLast(t *pb.TxnRequest, first map[string]string) {
	for _, prefix := range slices.Sorted(maps.Keys(first)) {
		t.Compare = append(t.Compare, last(c.key(first[prefix]), c.key(prefix)))
	}
}

// guarded is t, unless the session is over: what it reads then tells.
func (s *session) guarded(t *pb.TxnRequest) *pb.TxnRequest {
	t.Compare = append(t.Compare, s.stands())
	t.Failure = append(t.Failure, look(s.key))
	return t
}

// creates says whether the op wants its path free.
func creates(op coord.Op) bool {
	switch op.Kind {
	case coord.KindCreate, coord.KindEphemeral, coord.KindSequential:
		return true
	}
	return false
}

// write is what an op writes; nil: nothing.
func (c *commit) write(op coord.Op, key []byte) *pb.RequestOp {
	switch op.Kind {
	case coord.KindCreate, coord.KindSequential, coord.KindReplace:
		return put(&pb.PutRequest{Key: key, Value: op.Value})
	case coord.KindEphemeral:
		return put(&pb.PutRequest{Key: key, Value: op.Value, Lease: c.s.lease})
	case coord.KindSet:
		return put(&pb.PutRequest{Key: key, Value: op.Value, IgnoreLease: true})
	case coord.KindTouch:
		return put(&pb.PutRequest{Key: key, IgnoreValue: true, IgnoreLease: true})
	case coord.KindDelete:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}
	}
	return nil
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

// refusal finds what stood in the way of a transaction, by what it read.
func (c *commit) refusal(answers []*pb.ResponseOp) error {
	if err := c.firstRefused(answers, func(coord.Op) bool { return true }); err != nil {
		return err
	}
	return errTaken
}

// standing judges the answer that a refused transaction's guard gave.
func (s *session) standing(guard *pb.ResponseOp) error {
	if kvs := guard.GetResponseRange().Kvs; len(kvs) == 0 || kvs[0].CreateRevision != s.created {
		s.end(coord.ErrSessionLost)
		return coord.ErrSessionLost
	}
	return nil
}

// results are those of a commit applied at a revision.
func (c *commit) results(revision int64) []coord.Result {
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

// stands compares the session's key: without it nothing is applied.
func (s *session) stands() *pb.Compare {
	return &pb.Compare{Key: s.key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: s.created}}
}

func absent(key []byte) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}
}

// last compares what stands from key on among the names that begin with prefix and go
// on with a number, the key included: nothing may.
func last(key, prefix []byte) *pb.Compare {
	t := absent(key)
	t.RangeEnd = append(prefix, '9'+1)
	return t
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
