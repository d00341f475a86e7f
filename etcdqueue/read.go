package etcdqueue

import (
	"context"
	"errors"
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/zkq/zkq/coord"
)

// shown is how far the service is, by what it has shown a coordinator in any answer
// or event. A service that was restored from a backup is further back than that.
type shown struct {
	mu sync.Mutex
	at position
}

// position is a state of the service.
type position struct {
	epoch   int    // counts restores
	rev     int64  // the last revision
	cluster uint64 // its ID; 0: not known yet
}

// position returns what has been shown so far.
func (s *shown) position() position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

// saw is told of a revision before anybody is told what there was at it. What was
// shown before the last restore counts no more.
func (s *shown) saw(epoch int, rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch == s.at.epoch {
		s.at.rev = max(s.at.rev, rev)
	}
}

// answered takes the header of a linearizable answer, and what had been shown when
// the request began: the answer is no older, unless the service was restored since.
// Each restore is reported once.
func (s *shown) answered(before position, h *pb.ResponseHeader) (restored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case h == nil, before.epoch != s.at.epoch:
		return false
	case before.isAhead(h):
		s.at = position{before.epoch + 1, h.Revision, h.ClusterId}
		return true
	}
	s.at.rev, s.at.cluster = max(s.at.rev, h.Revision), h.ClusterId
	return false
}

// isAhead reports whether the header is of an earlier state, or of another cluster.
func (p position) isAhead(h *pb.ResponseHeader) bool {
	if h == nil { // a server that sends no header tells nothing of its state
		return false
	}
	return h.Revision < p.rev || p.cluster != 0 && h.ClusterId != p.cluster
}

// watchedKV notes the revisions of the answers.
type watchedKV struct {
	pb.KVClient
	c *Coordinator
}

func (k watchedKV) Range(ctx context.Context, in *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
	before := k.c.shown.position()
	r, err := k.KVClient.Range(ctx, in, opts...)
	if err == nil {
		k.note(before, r.Header, !in.Serializable)
	}
	return r, err
}

func (k watchedKV) Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
	before := k.c.shown.position()
	r, err := k.KVClient.Txn(ctx, in, opts...)
	if err == nil {
		local := len(in.Compare) == 0 && len(in.Success) > 0 && in.Success[0].GetRequestRange().GetSerializable() // see Read
		k.note(before, r.Header, !local)
	}
	return r, err
}

func (k watchedKV) note(before position, h *pb.ResponseHeader, linearizable bool) {
	if !linearizable {
		k.c.shown.saw(before.epoch, h.GetRevision())
	} else if k.c.shown.answered(before, h) {
		k.c.restart()
	}
}

// restart forgets what was known of the service before it was restored. Fences and
// locks of the old session may name other states now, so the session is over.
func (c *Coordinator) restart() {
	c.guesses.forget()
	c.flights.forget()
	if s := c.newest(); s != nil {
		s.end(coord.ErrSessionLost)
		c.spawn(s.revoke) // if its lease was restored, too
	}
	c.hub.restart()
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
	least, local := s.c.shown.position().rev, true
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
