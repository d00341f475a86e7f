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
	"github.com/zkq/zkq/internal/retry"
)

// txnCall sends a transaction at most once. It sends it again only when it is certain that
// the service did not see it, or refused it for a reason that passes. If the answer does
// not come, the outcome is unknown and the caller is told so: sending it again could apply
// it twice.
type txnCall struct {
	s         *session
	user, ctx context.Context // as in session.beginCall
	options   []grpc.CallOption

	build    func() (*pb.TxnRequest, error) // called just before the request is sent; nil: send nothing
	withdraw func()                         // called when what build returned was certainly not applied
}

// refusedError is the error of a transaction that the service refused whatever its
// conditions.
type refusedError struct {
	errorClass
	error
	code string
}

// Unwrap returns the error with the meaning that it has in coord.
func (r *refusedError) Unwrap() error { return r.error }

// Texts of errors that a transaction's refusal is checked for.
var (
	textTooManyOps = errorText(rpctypes.ErrGRPCTooManyOps)
	textNoSpace    = errorText(rpctypes.ErrGRPCNoSpace)
	textDiskFull   = errorText(diskfull.Err)
)

// isRefusedFor reports whether err is a refusal with that text of etcd's.
func isRefusedFor(err error, code string) bool {
	var r *refusedError
	return errors.As(err, &r) && r.code == code
}

// do returns the answer, a [*refusedError], [coord.ErrUnknown], or why nothing was sent.
// After an error it distinguishes
//
//	was the request sent?       no: another attempt, if the error is retryable
//	was it certainly refused?   yes: the same
//	otherwise                   the outcome is unknown
//
// Only gRPC knows whether a request was sent, see sentMarker.
func (x *txnCall) do() (resp *pb.TxnResponse, err error) {
	r := newRetrier()
	r.backoff.Repeat(x.ctx, nil, func() (next retry.Decision) {
		resp, next, err = x.attempt(r)
		return next
	})
	return resp, err
}

// attempt is one attempt at do.
func (x *txnCall) attempt(r *retrier) (*pb.TxnResponse, retry.Decision, error) {
	if err := stopReason(x.user, x.ctx); err != nil {
		return nil, retry.Stop, err
	}
	// The session's context may be late: checkAlive looks at the clock too.
	if err := x.s.checkAlive(); err != nil {
		return nil, retry.Stop, err
	}
	t, err := x.build()
	if t == nil {
		return nil, retry.Stop, err
	}
	ctx, mark, done := x.s.trackInFlight(x.user)
	resp, err := x.s.c.kv.Txn(clientv3.WithRequireLeader(ctx), t, x.options...)
	why := stopReason(x.user, ctx)
	done()
	if err == nil {
		x.s.c.dialer.noteLeader()
		return resp, retry.Stop, nil
	}
	class := x.s.c.classify(err)
	final := &refusedError{errorClass: class, error: class.wrap(err), code: errorText(err)}
	if mark.sent.Load() && !class.notApplied {
		return nil, retry.Stop, x.unansweredError(final, why)
	}
	x.withdraw()
	switch {
	case class.coordErr == coord.ErrSessionLost:
		x.s.end(coord.ErrSessionLost)
		return nil, retry.Stop, coord.ErrSessionLost
	case why != nil && !errors.Is(why, errNewLeader):
		return nil, retry.Stop, why
	}
	return nil, r.decide(class), final
}

// unansweredError returns the error of a request that was sent and may have been applied. why is
// the reason for which the attempt was broken off, or nil.
func (x *txnCall) unansweredError(final *refusedError, why error) error {
	switch {
	case final.code == textNoSpace:
		return final // nearly always not applied: see resolveNoSpace
	case why != nil && x.user.Err() == nil:
		// The cause is not wrapped: callers take it for a promise that nothing was sent.
		return unknownOutcome(fmt.Errorf("not answered: %v", why))
	case why != nil:
		return unknownOutcome(why)
	}
	return unknownOutcome(final.error)
}

// resolveNoSpace finds the outcome of a transaction that met ErrNoSpace. etcd refuses
// transactions without a change when there is no space, except for the one that used up the
// last of it, which was applied. An applied transaction has broken its own conditions, so
// they are compared again.
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

// lowerOpLimit lowers the limit after the server has refused so many ops, and returns an
// error that names the new one.
func (c *Coordinator) lowerOpLimit(ops int) error {
	lowerTo(&c.opLimit, ops/2)
	return &coord.LimitError{What: "commit", Unit: "ops", Size: ops, Limit: int(c.opLimit.Load())}
}

// compareAbsent compares that the key does not exist.
func compareAbsent(key []byte) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}
}

// compareNoneFrom compares that no key exists from key on, itself included, among those
// that begin with prefix and a digit. A comparison of a range holds if it holds for every
// key in it, and so holds for an empty one: no key has the create revision 0.
func compareNoneFrom(key, prefix []byte) *pb.Compare {
	t := compareAbsent(key)
	t.RangeEnd = append(prefix, '9'+1)
	return t
}

// compareFence compares a fence. A key that does not exist has the revision 0, which is no
// node's fence and so must not be compared.
func compareFence(key []byte, f coord.Fence) *pb.Compare {
	if f <= 0 {
		f = -1
	}
	return &pb.Compare{Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: int64(f)}}
}

// putOp returns a put as an op of a transaction.
func putOp(p *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}}
}

// readKeyOp reads all of a key except its value.
func readKeyOp(key []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key, KeysOnly: true}}}
}

// nestedOp returns a transaction as an op of another one.
func nestedOp(t *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

// compareSession compares the session's key: without it nothing is applied.
func (s *session) compareSession() *pb.Compare {
	return &pb.Compare{Key: s.key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: s.keyRevision}}
}

// withSessionCheck adds to t the condition that the session is not over, and a read that
// shows whether that was what failed.
func (s *session) withSessionCheck(t *pb.TxnRequest) *pb.TxnRequest {
	t.Compare = append(t.Compare, s.compareSession())
	t.Failure = append(t.Failure, readKeyOp(s.key))
	return t
}

// checkSessionKey takes the answer to that read. It ends the session if its key is gone.
func (s *session) checkSessionKey(guard *pb.ResponseOp) error {
	if kvs := guard.GetResponseRange().Kvs; len(kvs) == 0 || kvs[0].CreateRevision != s.keyRevision {
		s.end(coord.ErrSessionLost)
		return coord.ErrSessionLost
	}
	return nil
}

// checkRequestSize refuses a transaction that is too large to be sent.
func checkRequestSize(t *pb.TxnRequest) error {
	if n := proto.Size(t); n > maxRequestBytes {
		return &coord.LimitError{What: "commit", Unit: "bytes", Size: n, Limit: maxRequestBytes}
	}
	return nil
}
