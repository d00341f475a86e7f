package etcdqueue

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue/internal/diskfull"
)

// txnCall makes sure that a transaction is sent at most once: again only when it is
// certain that the service saw nothing of it, or refused it for what passes.
type txnCall struct {
	s         *session
	user, ctx context.Context // as in session.call
	options   []grpc.CallOption

	build    func() (*pb.TxnRequest, error) // what to send if that is done now; nil: nothing
	withdraw func()                         // what was begun was certainly not applied
}

// refusedError is the error of a transaction that the service refused for good, whatever
// its conditions.
type refusedError struct {
	errorClass
	error
	code string
}

func (r *refusedError) Unwrap() error { return r.error }

var (
	textTooManyOps = errorText(rpctypes.ErrGRPCTooManyOps)
	textNoSpace    = errorText(rpctypes.ErrGRPCNoSpace)
	textDiskFull   = errorText(diskfull.Err)
)

// isRefusedFor says that err is a refusal with that code.
func isRefusedFor(err error, code string) bool {
	var r *refusedError
	return errors.As(err, &r) && r.code == code
}

// do returns the answer, a [*refused], [coord.ErrUnknown] or why nothing was sent.
func (x *txnCall) do() (*pb.TxnResponse, error) {
	r := newRetrier()
	for {
		if err := stopReason(x.user, x.ctx); err != nil {
			return nil, err
		}
		// The clock, too: nobody may have woken yet to say that the session is over.
		if err := x.s.checkAlive(); err != nil {
			return nil, err
		}
		t, err := x.build()
		if t == nil {
			return nil, err
		}
		ctx, envelope, landed := x.s.trackInFlight(x.user)
		resp, err := x.s.c.kv.Txn(clientv3.WithRequireLeader(ctx), t, x.options...)
		why := stopReason(x.user, ctx)
		landed()
		if err == nil {
			x.s.c.dialer.noteLeader()
			return resp, nil
		}
		v := x.s.c.classify(err)
		final := &refusedError{errorClass: v, error: v.wrap(err), code: errorText(err)}
		if envelope.sent.Load() && !v.notApplied {
			switch {
			case final.code == textNoSpace:
				return nil, final // nearly always: see resolve
			case why != nil && x.user.Err() == nil:
				// What ended is not in the chain: it must not look as if nothing was sent.
				return nil, unknownOutcome(fmt.Errorf("not answered: %v", why))
			case why != nil:
				return nil, unknownOutcome(why)
			}
			return nil, unknownOutcome(final.error)
		}
		x.withdraw()
		switch {
		case v.coordErr == coord.ErrSessionLost:
			x.s.end(coord.ErrSessionLost)
			return nil, coord.ErrSessionLost
		case why != nil && !errors.Is(why, errNewLeader):
			return nil, why
		case !r.waitForRetry(x.ctx, v):
			return nil, final
		}
	}
}

// resolveNoSpace finds out what became of a transaction that met ErrNoSpace: etcd refuses
// what comes when there is no space, but the one that took the last of it was
// applied. An applied transaction has broken its own conditions.
func (s *session) resolveNoSpace(user, ctx context.Context, t *pb.TxnRequest, full error) error {
	probe := &pb.TxnRequest{Compare: t.Compare, Success: []*pb.RequestOp{readKeyOp(s.key)}, Failure: []*pb.RequestOp{readKeyOp(s.key)}}
	var r *pb.TxnResponse
	err := s.c.doRepeatable(user, ctx, func(ctx context.Context) (err error) {
		r, err = s.c.kv.Txn(ctx, probe, waitForReady...)
		return err
	})
	if err != nil || !r.Succeeded {
		return unknownOutcome(full)
	}
	return full
}

// lowerOpLimit lowers the limit of a server that takes fewer ops.
func (c *Coordinator) lowerOpLimit(ops int) error {
	lowerTo(&c.opLimit, ops/2)
	return &coord.LimitError{What: "commit", Unit: "ops", Size: ops, Limit: int(c.opLimit.Load())}
}

func compareAbsent(key []byte) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}
}

// compareNoneFrom compares what stands from key on among the names that begin with prefix and go
// on with a number, the key included: nothing may.
func compareNoneFrom(key, prefix []byte) *pb.Compare {
	t := compareAbsent(key)
	t.RangeEnd = append(prefix, '9'+1)
	return t
}

// compareFence compares a fence. A key that is not there has the revision 0, so 0, which is
// no node's fence, must not be compared as it is.
func compareFence(key []byte, f coord.Fence) *pb.Compare {
	if f <= 0 {
		f = -1
	}
	return &pb.Compare{Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: int64(f)}}
}

func putOp(p *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}}
}

// readKeyOp reads all of a key but its value.
func readKeyOp(key []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key, KeysOnly: true}}}
}

func nestedOp(t *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

// compareSession compares the session's key: without it nothing is applied.
func (s *session) compareSession() *pb.Compare {
	return &pb.Compare{Key: s.key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: s.keyRevision}}
}

// withSessionCheck is t, unless the session is over: what it reads then tells.
func (s *session) withSessionCheck(t *pb.TxnRequest) *pb.TxnRequest {
	t.Compare = append(t.Compare, s.compareSession())
	t.Failure = append(t.Failure, readKeyOp(s.key))
	return t
}

// checkSessionKey judges the answer that a refused transaction's guard gave.
func (s *session) checkSessionKey(guard *pb.ResponseOp) error {
	if kvs := guard.GetResponseRange().Kvs; len(kvs) == 0 || kvs[0].CreateRevision != s.keyRevision {
		s.end(coord.ErrSessionLost)
		return coord.ErrSessionLost
	}
	return nil
}

// checkRequestSize says that a transaction is not too large to be sent.
func checkRequestSize(t *pb.TxnRequest) error {
	if n := proto.Size(t); n > maxRequestBytes {
		return &coord.LimitError{What: "commit", Unit: "bytes", Size: n, Limit: maxRequestBytes}
	}
	return nil
}
