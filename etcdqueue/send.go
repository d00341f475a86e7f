package etcdqueue

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue/internal/diskfull"
)

// sending makes sure that a transaction is sent at most once: again only when it is
// certain that the service saw nothing of it, or refused it for what passes.
type sending struct {
	s         *session
	user, ctx context.Context // as in session.call
	options   []grpc.CallOption

	begin func() (*pb.TxnRequest, error) // what to send if that is done now; nil: nothing
	back  func()                         // what was begun was certainly not applied
}

// refused is the error of a transaction that the service refused for good, whatever
// its conditions.
type refused struct {
	verdict
	error
	code string
}

func (r *refused) Unwrap() error { return r.error }

var (
	tooManyOps = text(rpctypes.ErrGRPCTooManyOps)
	noSpace    = text(rpctypes.ErrGRPCNoSpace)
	diskFull   = text(diskfull.Err)
)

// refusedFor says that err is a refusal with that code.
func refusedFor(err error, code string) bool {
	var r *refused
	return errors.As(err, &r) && r.code == code
}

// send returns the answer, a [*refused], [coord.ErrUnknown] or why nothing was sent.
func (x *sending) send() (*pb.TxnResponse, error) {
	var r retries
	for {
		if err := stopped(x.user, x.ctx); err != nil {
			return nil, err
		}
		// The clock, too: nobody may have woken yet to say that the session is over.
		if err := x.s.alive(); err != nil {
			return nil, err
		}
		t, err := x.begin()
		if t == nil {
			return nil, err
		}
		ctx, envelope, landed := x.s.flight(x.user)
		resp, err := x.s.c.kv.Txn(clientv3.WithRequireLeader(ctx), t, x.options...)
		why := stopped(x.user, ctx)
		landed()
		if err == nil {
			x.s.c.link.served()
			return resp, nil
		}
		v := x.s.c.judge(err)
		final := &refused{verdict: v, error: v.wrap(err), code: text(err)}
		if envelope.sent.Load() && !v.refused {
			switch {
			case final.code == noSpace:
				return nil, final // nearly always: see resolve
			case why != nil && x.user.Err() == nil:
				// What ended is not in the chain: it must not look as if nothing was sent.
				return nil, unknown(fmt.Errorf("not answered: %v", why))
			case why != nil:
				return nil, unknown(why)
			}
			return nil, unknown(final.error)
		}
		x.back()
		switch {
		case v.means == coord.ErrSessionLost:
			x.s.end(coord.ErrSessionLost)
			return nil, coord.ErrSessionLost
		case why != nil && !errors.Is(why, errElection):
			return nil, why
		case !r.again(x.ctx, v):
			return nil, final
		}
	}
}

// resolve finds out what became of a transaction that met ErrNoSpace: etcd refuses
// what comes when there is no space, but the one that took the last of it was
// applied. An applied transaction has broken its own conditions.
func (s *session) resolve(user, ctx context.Context, t *pb.TxnRequest, full error) error {
	probe := &pb.TxnRequest{Compare: t.Compare, Success: []*pb.RequestOp{look(s.key)}, Failure: []*pb.RequestOp{look(s.key)}}
	var r *pb.TxnResponse
	err := s.c.ask(user, ctx, func(ctx context.Context) (err error) {
		r, err = s.c.kv.Txn(ctx, probe, waiting...)
		return err
	})
	if err != nil || !r.Succeeded {
		return unknown(full)
	}
	return full
}

// learn lowers the limit of a server that takes fewer ops.
func (c *Coordinator) learn(ops int) error {
	lower(&c.most, ops/2)
	return &coord.LimitError{What: "commit", Unit: "ops", Size: ops, Limit: int(c.most.Load())}
}
