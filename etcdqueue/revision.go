package etcdqueue

import (
	"context"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/zkq/zkq/coord"
)

// revisionTracker is the latest state of the service that any answer or event has shown
// this coordinator. A service that was restored from a backup is behind that state.
type revisionTracker struct {
	mu     sync.Mutex
	latest serviceState
}

// serviceState is a state of the service.
type serviceState struct {
	epoch   int    // how many restores were noticed
	rev     int64  // the latest revision
	cluster uint64 // the cluster's ID; 0: not known yet
}

// current returns the latest state so far.
func (t *revisionTracker) current() serviceState {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.latest
}

// observe notes a revision, before any caller sees what exists at it. A revision from
// before the last restore is ignored.
func (t *revisionTracker) observe(epoch int, rev int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if epoch == t.latest.epoch {
		t.latest.rev = max(t.latest.rev, rev)
	}
}

// observeAnswer takes the header of a linearizable answer, and the state that was known
// when the request began. The answer is not older than that state unless the service was
// restored meanwhile. Each restore is reported once.
func (t *revisionTracker) observeAnswer(before serviceState, h *pb.ResponseHeader) (restored bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case h == nil, before.epoch != t.latest.epoch:
		return false
	case before.isAheadOf(h):
		t.latest = serviceState{before.epoch + 1, h.Revision, h.ClusterId}
		return true
	}
	t.latest.rev, t.latest.cluster = max(t.latest.rev, h.Revision), h.ClusterId
	return false
}

// isAheadOf reports whether the header shows an earlier state, or another cluster.
func (p serviceState) isAheadOf(h *pb.ResponseHeader) bool {
	if h == nil { // a server that sends no header says nothing of its state
		return false
	}
	return h.Revision < p.rev || p.cluster != 0 && h.ClusterId != p.cluster
}

// trackingKV is a KV client that notes the revisions of all answers.
type trackingKV struct {
	pb.KVClient
	c *Coordinator
}

// Range notes the revision of a read.
func (k trackingKV) Range(ctx context.Context, in *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
	before := k.c.revisions.current()
	r, err := k.KVClient.Range(ctx, in, opts...)
	if err == nil {
		k.record(before, r.Header, !in.Serializable)
	}
	return r, err
}

// Txn notes the revision of a transaction.
func (k trackingKV) Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
	before := k.c.revisions.current()
	r, err := k.KVClient.Txn(ctx, in, opts...)
	if err == nil {
		serializable := len(in.Compare) == 0 && len(in.Success) > 0 && in.Success[0].GetRequestRange().GetSerializable() // see Read
		k.record(before, r.Header, !serializable)
	}
	return r, err
}

// record notes the header of an answer, and handles a restore that it shows.
func (k trackingKV) record(before serviceState, h *pb.ResponseHeader, linearizable bool) {
	if !linearizable {
		k.c.revisions.observe(before.epoch, h.GetRevision())
	} else if k.c.revisions.observeAnswer(before, h) {
		k.c.handleRestore()
	}
}

// handleRestore forgets what was known of the service before it was restored. The fences
// and locks of the current session may name other states now, so the session ends.
func (c *Coordinator) handleRestore() {
	c.optimistic.reset()
	c.inFlight.resetTerm()
	if s := c.latestSession(); s != nil {
		s.end(coord.ErrSessionLost)
		c.startGoroutine(s.revoke) // the lease may have been restored too
	}
	c.watches.restart()
}
