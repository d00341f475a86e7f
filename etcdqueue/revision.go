package etcdqueue

import (
	"context"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/zkq/zkq/coord"
)

// revisionTracker is how far the service is, by what it has shown a coordinator in any answer
// or event. A service that was restored from a backup is further back than that.
type revisionTracker struct {
	mu     sync.Mutex
	latest serviceState
}

// serviceState is a state of the service.
type serviceState struct {
	epoch   int    // counts restores
	rev     int64  // the last revision
	cluster uint64 // its ID; 0: not known yet
}

// current returns what has been shown so far.
func (s *revisionTracker) current() serviceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest
}

// observe is told of a revision before anybody is told what there was at it. What was
// shown before the last restore counts no more.
func (s *revisionTracker) observe(epoch int, rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch == s.latest.epoch {
		s.latest.rev = max(s.latest.rev, rev)
	}
}

// observeAnswer takes the header of a linearizable answer, and what had been shown when
// the request began: the answer is no older, unless the service was restored since.
// Each restore is reported once.
func (s *revisionTracker) observeAnswer(before serviceState, h *pb.ResponseHeader) (restored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case h == nil, before.epoch != s.latest.epoch:
		return false
	case before.isAheadOf(h):
		s.latest = serviceState{before.epoch + 1, h.Revision, h.ClusterId}
		return true
	}
	s.latest.rev, s.latest.cluster = max(s.latest.rev, h.Revision), h.ClusterId
	return false
}

// isAheadOf reports whether the header is of an earlier state, or of another cluster.
func (p serviceState) isAheadOf(h *pb.ResponseHeader) bool {
	if h == nil { // a server that sends no header tells nothing of its state
		return false
	}
	return h.Revision < p.rev || p.cluster != 0 && h.ClusterId != p.cluster
}

// trackingKV notes the revisions of the answers.
type trackingKV struct {
	pb.KVClient
	c *Coordinator
}

func (k trackingKV) Range(ctx context.Context, in *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
	before := k.c.revisions.current()
	r, err := k.KVClient.Range(ctx, in, opts...)
	if err == nil {
		k.record(before, r.Header, !in.Serializable)
	}
	return r, err
}

func (k trackingKV) Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
	before := k.c.revisions.current()
	r, err := k.KVClient.Txn(ctx, in, opts...)
	if err == nil {
		local := len(in.Compare) == 0 && len(in.Success) > 0 && in.Success[0].GetRequestRange().GetSerializable() // see Read
		k.record(before, r.Header, !local)
	}
	return r, err
}

func (k trackingKV) record(before serviceState, h *pb.ResponseHeader, linearizable bool) {
	if !linearizable {
		k.c.revisions.observe(before.epoch, h.GetRevision())
	} else if k.c.revisions.observeAnswer(before, h) {
		k.c.handleRestore()
	}
}

// handleRestore forgets what was known of the service before it was restored. Fences and
// locks of the old session may name other states now, so the session is over.
func (c *Coordinator) handleRestore() {
	c.optimistic.reset()
	c.inFlight.resetTerm()
	if s := c.latestSession(); s != nil {
		s.end(coord.ErrSessionLost)
		c.startGoroutine(s.revoke) // if its lease was restored, too
	}
	c.watches.restart()
}
