package etcdqueue

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/zkq/zkq/coord"
)

// shown is the last revision that the service has shown a coordinator in any answer
// or event.
type shown struct{ rev atomic.Int64 }

// saw is told of a revision before anybody is told what there was at it.
func (s *shown) saw(rev int64) {
	for old := s.rev.Load(); rev > old; old = s.rev.Load() {
		if s.rev.CompareAndSwap(old, rev) {
			return
		}
	}
}

// restart is told of the revision at which a session began, and of what was shown before
// it was asked for. If that is higher, the service was restored from a backup since.
func (s *shown) restart(rev, before int64) (restored bool) {
	if rev >= before {
		return false
	}
	s.rev.Store(rev)
	return true
}

// watchedKV notes the revisions of the answers.
type watchedKV struct {
	pb.KVClient
	shown *shown
}

func (k watchedKV) Range(ctx context.Context, in *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
	r, err := k.KVClient.Range(ctx, in, opts...)
	if err == nil {
		k.shown.saw(r.Header.Revision)
	}
	return r, err
}

func (k watchedKV) Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
	r, err := k.KVClient.Txn(ctx, in, opts...)
	if err == nil {
		k.shown.saw(r.Header.Revision)
	}
	return r, err
}

// Read implements [coord.Session]. One request asks for many nodes, and the member
// answers from what it has: a linearizable read would wait for whatever it is writing
// to its disk. A member that is behind what this coordinator was shown is asked again for a
// linearizable one.
func (s *session) Read(user context.Context, paths ...string) ([]coord.Node, error) {
	for _, path := range paths {
		if err := coord.CheckPath(path); err != nil {
			return nil, fmt.Errorf("read: %w", err)
		}
	}
	ctx, cancel, err := s.call(user)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	defer cancel()
	nodes := make([]coord.Node, 0, len(paths))
	least, local := s.c.shown.rev.Load(), true
	for left := paths; len(left) > 0; left = paths[len(nodes):] {
		some := left[:min(len(left), nest, int(s.c.most.Load()))]
		t := &pb.TxnRequest{Success: make([]*pb.RequestOp, len(some))}
		for i, path := range some {
			t.Success[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: s.c.key(path), Serializable: local}}}
		}
		var r *pb.TxnResponse
		err := s.c.ask(user, ctx, func(ctx context.Context) (err error) {
			r, err = s.c.kv.Txn(ctx, t, waiting...)
			return err
		})
		switch {
		case err == nil && local && r.Header.Revision < least:
			local = false
			continue
		case err == nil:
		case errors.Is(err, coord.ErrTooLarge) && len(some) > 1:
			_ = s.c.learn(len(some)) // and so fewer at a time
			continue
		default:
			return nil, fmt.Errorf("read %s and %d more: %w", some[0], len(some)-1, err)
		}
		for i, answer := range r.Responses {
			var n coord.Node
			if kvs := answer.GetResponseRange().Kvs; len(kvs) > 0 {
				n = node(some[i], kvs[0])
			}
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}
