package etcdqueue

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/zkq/zkq/coord"
)

// Get reads one node; see [coord.Session]. The read is linearizable.
func (s *session) Get(user context.Context, path string) (coord.Node, error) {
	if err := coord.CheckPath(path); err != nil {
		return coord.Node{}, fmt.Errorf("get: %w", err)
	}
	ctx, cancel, err := s.beginCall(user)
	if err != nil {
		return coord.Node{}, fmt.Errorf("get %s: %w", path, err)
	}
	defer cancel()
	r, err := s.read(user, ctx, &pb.RangeRequest{Key: s.c.key(path)})
	if err == nil && len(r.Kvs) == 0 {
		err = coord.ErrNotExist
	}
	if err != nil {
		return coord.Node{}, fmt.Errorf("get %s: %w", path, err)
	}
	return node(path, r.Kvs[0]), nil
}

// Read reads many nodes, up to 64 in one request; see [coord.Session]. The connected member
// answers from its own state, as a linearizable read would wait for what it is writing to
// its disk. If that state is older than what this coordinator has seen, Read makes a
// linearizable request.
func (s *session) Read(user context.Context, paths ...string) ([]coord.Node, error) {
	for _, path := range paths {
		if err := coord.CheckPath(path); err != nil {
			return nil, fmt.Errorf("read: %w", err)
		}
	}
	ctx, cancel, err := s.beginCall(user)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	defer cancel()
	nodes := make([]coord.Node, 0, len(paths))
	required, serializable := s.c.revisions.current().rev, true
	for left := paths; len(left) > 0; left = paths[len(nodes):] {
		some := left[:min(len(left), nestedOps, int(s.c.opLimit.Load()))]
		t := &pb.TxnRequest{Success: make([]*pb.RequestOp, len(some))}
		for i, path := range some {
			t.Success[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: s.c.key(path), Serializable: serializable}}}
		}
		var r *pb.TxnResponse
		err := s.c.doRepeatable(user, ctx, func(ctx context.Context) (err error) {
			r, err = s.c.kv.Txn(ctx, t, waitForReady...)
			return err
		})
		switch {
		case err == nil && serializable && r.Header.Revision < required:
			serializable = false
			continue
		case err == nil:
		case errors.Is(err, coord.ErrTooLarge) && len(some) > 1:
			_ = s.c.lowerOpLimit(len(some)) // reads fewer at a time from now on
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

// Count returns how many keys are below dir; see [coord.Session]. The read is linearizable.
func (s *session) Count(user context.Context, dir string) (int, error) {
	if err := coord.CheckDir(dir); err != nil {
		return 0, fmt.Errorf("count: %w", err)
	}
	ctx, cancel, err := s.beginCall(user)
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", dir, err)
	}
	defer cancel()
	base := s.c.dirPrefix(dir)
	r, err := s.read(user, ctx, &pb.RangeRequest{Key: []byte(base), RangeEnd: prefixEnd(base), CountOnly: true})
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", dir, err)
	}
	return int(r.Count), nil
}

// read makes a linearizable read.
func (s *session) read(user, ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	var r *pb.RangeResponse
	err := s.c.doRepeatable(user, ctx, func(ctx context.Context) (err error) {
		r, err = s.c.kv.Range(ctx, req, waitForReady...)
		return err
	})
	return r, err
}

// node converts a key to coord's form. A key that was read without its value has none.
func node(path string, kv *mvccpb.KeyValue) coord.Node {
	n := coord.Node{
		Path:     path,
		Value:    kv.Value,
		Fence:    coord.Fence(kv.ModRevision),
		Changes:  kv.Version - 1,
		Revision: kv.ModRevision,
		Born:     kv.CreateRevision,
		Owner:    ownerID(kv.Lease),
	}
	if n.Value == nil {
		n.Value = []byte{}
	}
	return n
}
