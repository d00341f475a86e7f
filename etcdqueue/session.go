package etcdqueue

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/boottime"
	"github.com/zkq/zkq/internal/group"
	"github.com/zkq/zkq/internal/liveness"
	"github.com/zkq/zkq/internal/retry"
)

// session is one session, which lives as long as its lease.
//
// The session ends by the first of four events: the service reports that the lease or the
// session's key is gone, deadline passes without an answered heartbeat, a restore of the
// service is noticed, or Close is called. From then on all calls return the same error.
type session struct {
	c       *Coordinator
	lease   int64
	id      string
	timeout time.Duration
	// The session's key, attached to the lease.
	key []byte
	// Create revision of key, which every commit compares.
	keyRevision int64

	// When this process stops to rely on the session, by boottime.
	deadline *liveness.Deadline
	ctx      context.Context
	// The cause is the error of all later calls.
	cancel  context.CancelCauseFunc
	endOnce sync.Once
	onEnd   func()
	// Sends the commits whose names are known.
	commits *group.Runner
	// Sends the commits with optimistic names.
	optimisticCommits *group.Runner
}

var _ coord.Session = (*session)(nil)

// openSession opens a session. It waits for a service that is busy or has no space, and
// returns that error if ctx ends first.
func (c *Coordinator) openSession(user context.Context) (*session, error) {
	ctx, cancel := joinContexts(user, c.ctx)
	defer cancel()
	r := newRetrier()
	var busy error // the last answer, if it was that the service is busy or full
	warning := liveness.NewOutageWarning("etcd at "+strings.Join(c.cfg.Endpoints, ", "), c.cfg.Warn)
	var s *session
	var err error
	r.backoff.Repeat(ctx, nil, func() retry.Decision {
		if err = stopReason(user, ctx); err != nil {
			err = cmp.Or(busy, err)
			return retry.Stop
		}
		var class errorClass
		s, class, err = c.awaitLease(ctx, warning)
		if stopReason(user, ctx) != nil {
			class = errorClass{retryable: true} // the next attempt returns the reason
		} else {
			busy = nil
			if errors.Is(err, coord.ErrBusy) {
				busy = err
				warning.Waiting(err)
			}
		}
		if err != nil { // a lease whose grant was not answered holds nothing, and expires
			return r.decide(class)
		}
		err = s.writeSessionKey(user, ctx)
		if err == nil {
			err = coord.CheckFormat(ctx, s)
		}
		if err == nil && !c.setLatest(s) {
			err = coord.ErrClosed
		}
		if err == nil {
			warning.Ended()
			return retry.Stop
		}
		// The lease exists, but it is of no use.
		s.end(coord.ErrSessionLost)
		s.revoke()
		switch {
		case errors.Is(err, coord.ErrBusy):
			busy = err
			warning.Waiting(err)
			return retry.Later
		case errors.Is(err, coord.ErrSessionLost):
			return retry.Now
		}
		return retry.Stop
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// awaitLease is grantLease. It warns if the service does not answer, unless no session was ever
// granted: then the caller of Open is told.
func (c *Coordinator) awaitLease(ctx context.Context, warning *liveness.OutageWarning) (*session, errorClass, error) {
	if c.latestSession() == nil {
		return c.grantLease(ctx)
	}
	var s *session
	var class errorClass
	var err error
	granted := make(chan struct{})
	go func() {
		defer close(granted)
		s, class, err = c.grantLease(ctx)
	}()
	select {
	case <-granted:
	case <-warning.Due():
		warning.Waiting(c.connectError(ctx, true, nil))
		<-granted
	}
	return s, class, err
}

// grantLease has the service grant a lease.
func (c *Coordinator) grantLease(ctx context.Context) (*session, errorClass, error) {
	s := &session{c: c, lease: newLeaseID()}
	s.id = ownerID(s.lease)
	s.key = c.key("/zkq/sessions/" + s.id)
	onEnd, err := c.cfg.LeaseHook(s.id)
	if err != nil {
		return nil, errorClass{}, fmt.Errorf("session %s: %w", s.id, err)
	}
	s.onEnd = onEnd
	// The deadline counts from before the request, since the lease may begin at any time
	// after.
	sent := boottime.Now()
	ttl := int64((c.cfg.SessionTimeout + time.Second - 1) / time.Second)
	grant, err := c.lease.LeaseGrant(clientv3.WithRequireLeader(ctx), &pb.LeaseGrantRequest{ID: s.lease, TTL: ttl}, waitForReady...)
	if err != nil {
		onEnd()
		class := c.classify(err)
		switch errorText(err) {
		case errorText(rpctypes.ErrGRPCLeaseExist), errorText(rpctypes.ErrGRPCRequestTooManyRequests): // retry with another ID, or later
			class.retryable = true
		case textNoSpace, textDiskFull: // retry until there is space
			class.retryable = true
		}
		return nil, class, fmt.Errorf("grant a lease: %w", class.wrap(err))
	}
	s.timeout = time.Duration(grant.TTL) * time.Second
	s.ctx, s.cancel = context.WithCancelCause(c.ctx)
	s.commits = group.NewRunner(batchLimits, maxInFlight, s.sendBatch)
	s.optimisticCommits = group.NewRunner(batchLimits, maxOptimisticInFlight, s.sendOptimisticBatch)
	s.deadline = liveness.New(boottime.Now, func() { s.end(coord.ErrSessionLost) })
	s.deadline.Start(s.timeout, sent)
	return s, errorClass{}, nil
}

// newLeaseID returns a random ID. It is never 0, with which the service would choose one.
func newLeaseID() int64 {
	var b [8]byte
	rand.Read(b[:])
	return int64(binary.BigEndian.Uint64(b[:])>>1 | 1)
}

// ownerID returns the session ID for a lease, "" for none.
func ownerID(lease int64) string {
	if lease == 0 {
		return ""
	}
	return fmt.Sprintf("%016x", lease)
}

// writeSessionKey writes the session's key, and starts the heartbeats.
func (s *session) writeSessionKey(user, ctx context.Context) error {
	ctx, cancel := joinContexts(ctx, s.ctx)
	defer cancel()
	create := &pb.TxnRequest{
		Compare: []*pb.Compare{compareAbsent(s.key)},
		Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: s.key, Lease: s.lease})},
		Failure: []*pb.RequestOp{readKeyOp(s.key)},
	}
	err := s.c.doRepeatable(user, ctx, func(ctx context.Context) error {
		r, err := s.c.kv.Txn(ctx, create, waitForReady...)
		if err != nil {
			return err
		}
		s.keyRevision = r.Header.Revision
		if !r.Succeeded { // an earlier attempt was applied and not answered
			kvs := r.Responses[0].GetResponseRange().Kvs
			if len(kvs) == 0 || kvs[0].Lease != s.lease {
				return rpctypes.ErrGRPCLeaseNotFound
			}
			s.keyRevision = kvs[0].CreateRevision
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", s.key, err)
	}
	if !s.c.startGoroutine(s.keepAlive) {
		return coord.ErrClosed
	}
	return nil
}

// end ends the session; all later calls return why.
func (s *session) end(why error) {
	s.endOnce.Do(func() {
		s.commits.End(why)
		s.optimisticCommits.End(why)
		s.cancel(why)
		s.deadline.Stop()
		s.onEnd()
	})
}

// close ends the session and revokes its lease.
func (s *session) close() {
	lost := errors.Is(context.Cause(s.ctx), coord.ErrSessionLost)
	s.end(coord.ErrClosed)
	if !lost {
		s.revoke()
	}
}

// revoke has the service delete the lease and its keys. It makes no second attempt.
func (s *session) revoke() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	// The answer does not matter: the lease expires at the latest.
	_ = s.c.doRepeatable(ctx, ctx, func(ctx context.Context) error {
		_, err := s.c.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: s.lease}, waitForReady...)
		return err
	})
}

// checkAlive returns why the session is over, or nil. It looks at the clock too, as a timer
// fires late on a machine that slept.
func (s *session) checkAlive() error {
	if s.ctx.Err() == nil && s.deadline.Passed() {
		s.end(coord.ErrSessionLost)
	}
	if s.c.ctx.Err() != nil {
		return coord.ErrClosed
	}
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	return nil
}

// keepAlive sends heartbeats until the session is over. It returns when the last of the
// session's commits has been answered.
func (s *session) keepAlive() {
	defer s.commits.Wait()
	defer s.optimisticCommits.Wait()
	defer func() {
		s.commits.End(s.checkAlive())
		s.optimisticCommits.End(s.checkAlive())
	}()
	backoff := retry.Backoff{First: s.timeout / 40, Max: s.timeout / 40}
	backoff.Repeat(s.ctx, nil, func() retry.Decision {
		if s.checkAlive() != nil {
			return retry.Stop
		}
		s.heartbeat()
		return retry.Later
	})
}

// heartbeat sends heartbeats on one stream until the stream breaks or its answers stop. It
// sends one every sixth of the session timeout, and gives the stream up when an answer has
// been missing for a quarter of it; keepAlive then opens another one. With a password each
// stream logs in, so one stream serves for many heartbeats.
func (s *session) heartbeat() {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(s.ctx))
	defer cancel()
	stream, err := s.c.lease.LeaseKeepAlive(ctx, waitForReady...)
	if err != nil {
		s.c.classify(err)
		return
	}
	answers := make(chan *pb.LeaseKeepAliveResponse)
	var receiver sync.WaitGroup
	receiver.Go(func() {
		defer close(answers)
		for {
			r, err := stream.Recv()
			if err != nil {
				s.c.classify(err)
				return
			}
			select {
			case answers <- r:
			case <-ctx.Done():
				return
			}
		}
	})
	defer receiver.Wait()
	defer cancel() // before the deferred Wait above

	tick := time.NewTicker(s.timeout / 6)
	defer tick.Stop()
	var sent []time.Duration // of the heartbeats without an answer
	for {
		if len(sent) == 0 || boottime.Now()-sent[0] < s.timeout/4 {
			sent = append(sent, boottime.Now())
			if stream.Send(&pb.LeaseKeepAliveRequest{ID: s.lease}) != nil {
				return
			}
		} else {
			return // the answers have stopped
		}
		for ticked := false; !ticked; {
			select {
			case r, ok := <-answers:
				switch {
				case !ok || len(sent) == 0:
					return
				case r.TTL <= 0:
					s.end(coord.ErrSessionLost)
					return
				}
				s.deadline.Extend(sent[0])
				sent = sent[1:]
			case <-tick.C:
				ticked = true
			case <-s.ctx.Done():
				return
			}
		}
	}
}

// beginCall checks that a call may be made, and returns a context that ends with the
// caller's and with the session.
func (s *session) beginCall(user context.Context) (context.Context, context.CancelFunc, error) {
	if err := checkContext(user); err != nil {
		return nil, nil, err
	}
	if err := s.checkAlive(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := joinContexts(user, s.ctx)
	return ctx, cancel, nil
}

// ID returns the lease's ID in hexadecimal.
func (s *session) ID() string { return s.id }

// Timeout returns the lease's TTL, which may be longer than what was asked for.
func (s *session) Timeout() time.Duration { return s.timeout }

// Done returns a channel that is closed when the session is over.
func (s *session) Done() <-chan struct{} { return s.ctx.Done() }
