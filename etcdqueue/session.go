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
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/boottime"
	"github.com/zkq/zkq/internal/group"
	"github.com/zkq/zkq/internal/liveness"
)

// session is the life of one lease.
type session struct {
	c       *Coordinator
	lease   int64
	id      string
	timeout time.Duration
	key     []byte // hangs on the lease
	created int64  // its revision: what every commit compares

	deadline *liveness.Deadline // by boottime
	ctx      context.Context
	cancel   context.CancelCauseFunc // the cause is what its calls return from then on
	over     sync.Once
	unhook   func()
	commits  *group.Runner
	puts     *group.Runner // those commits whose names are guessed
}

var _ coord.Session = (*session)(nil)

// begin opens a session, for ctx as long as it takes. It waits for a service without
// space, and returns that error if there is none in time.
func (c *Coordinator) begin(user context.Context) (*session, error) {
	ctx, cancel := within(user, c.ctx)
	defer cancel()
	var r retries
	var busy error // what the service last answered, if it was that it is busy or full
	tell := tellFull{c: c, since: time.Now()}
	for {
		if err := stopped(user, ctx); err != nil {
			return nil, cmp.Or(busy, err)
		}
		s, v, err := c.grant(ctx)
		if stopped(user, ctx) == nil {
			busy = nil
			if errors.Is(err, coord.ErrBusy) {
				busy = err
				tell.waits(err)
			}
		}
		if err != nil {
			if stopped(user, ctx) == nil && !r.again(ctx, v) {
				return nil, err
			}
			continue // a lease whose answer was lost holds nothing, and ends by itself
		}
		err = s.establish(user, ctx)
		if err == nil {
			err = coord.CheckFormat(ctx, s)
		}
		if err == nil && !c.admit(s) {
			err = coord.ErrClosed
		}
		if err == nil {
			tell.over()
			return s, nil
		}
		s.end(coord.ErrSessionLost)
		s.revoke()
		switch {
		case errors.Is(err, coord.ErrBusy):
			busy = err
			tell.waits(err)
			r.again(ctx, verdict{again: true})
		case !errors.Is(err, coord.ErrSessionLost):
			return nil, err
		}
	}
}

// tellAfter is how long a session may wait for a full service before the user is told.
const tellAfter = time.Second

// tellFull warns once that a session waits for a service that is busy or full, and once
// that it waits no more.
type tellFull struct {
	c     *Coordinator
	since time.Time
	told  bool
}

func (t *tellFull) waits(err error) {
	if !t.told && time.Since(t.since) >= tellAfter {
		t.told = true
		t.c.cfg.Warn(fmt.Sprintf("no new session with etcd at %s yet, and going on: %v", strings.Join(t.c.cfg.Endpoints, ", "), err))
	}
}

func (t *tellFull) over() {
	if t.told {
		t.c.cfg.Warn(fmt.Sprintf("there is a session with etcd at %s again", strings.Join(t.c.cfg.Endpoints, ", ")))
	}
}

// grant has the service make a lease.
func (c *Coordinator) grant(ctx context.Context) (*session, verdict, error) {
	s := &session{c: c, lease: leaseID()}
	s.id = ownerID(s.lease)
	s.key = c.key("/zkq/sessions/" + s.id)
	unhook, err := c.cfg.LeaseHook(s.id)
	if err != nil {
		return nil, verdict{}, fmt.Errorf("session %s: %w", s.id, err)
	}
	s.unhook = unhook
	sent := boottime.Now()
	ttl := int64((c.cfg.SessionTimeout + time.Second - 1) / time.Second)
	g, err := c.lease.LeaseGrant(clientv3.WithRequireLeader(ctx), &pb.LeaseGrantRequest{ID: s.lease, TTL: ttl}, waiting...)
	if err != nil {
		unhook()
		v := c.judge(err)
		switch text(err) {
		case text(rpctypes.ErrGRPCLeaseExist), text(rpctypes.ErrGRPCRequestTooManyRequests): // another number; in a moment
			v.again = true
		case noSpace, diskFull: // until room is made
			v.again = true
		}
		return nil, v, fmt.Errorf("grant a lease: %w", v.wrap(err))
	}
	s.timeout = time.Duration(g.TTL) * time.Second
	s.ctx, s.cancel = context.WithCancelCause(c.ctx)
	s.commits = group.NewRunner(batches, flightsAtOnce, s.deliver)
	s.puts = group.NewRunner(batches, guessesAtOnce, s.deliverGuesses)
	s.deadline = liveness.New(boottime.Now, func() { s.end(coord.ErrSessionLost) })
	s.deadline.Start(s.timeout, sent)
	return s, verdict{}, nil
}

// leaseID is never 0, which would leave the choice to the service.
func leaseID() int64 {
	var b [8]byte
	rand.Read(b[:])
	return int64(binary.BigEndian.Uint64(b[:])>>1 | 1)
}

func ownerID(lease int64) string {
	if lease == 0 {
		return ""
	}
	return fmt.Sprintf("%016x", lease)
}

// establish writes the session's key, and keeps the lease alive from then on.
func (s *session) establish(user, ctx context.Context) error {
	ctx, cancel := within(ctx, s.ctx)
	defer cancel()
	txn := &pb.TxnRequest{
		Compare: []*pb.Compare{absent(s.key)},
		Success: []*pb.RequestOp{put(&pb.PutRequest{Key: s.key, Lease: s.lease})},
		Failure: []*pb.RequestOp{look(s.key)},
	}
	err := s.c.ask(user, ctx, func(ctx context.Context) error {
		r, err := s.c.kv.Txn(ctx, txn, waiting...)
		if err != nil {
			return err
		}
		s.created = r.Header.Revision
		if !r.Succeeded { // an earlier attempt was applied and its answer lost
			kvs := r.Responses[0].GetResponseRange().Kvs
			if len(kvs) == 0 || kvs[0].Lease != s.lease {
				return rpctypes.ErrGRPCLeaseNotFound
			}
			s.created = kvs[0].CreateRevision
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", s.key, err)
	}
	if !s.c.spawn(s.keep) {
		return coord.ErrClosed
	}
	return nil
}

// end makes all calls return why from now on.
func (s *session) end(why error) {
	s.over.Do(func() {
		s.commits.End(why)
		s.puts.End(why)
		s.cancel(why)
		s.deadline.Stop()
		s.unhook()
	})
}

// close ends the session in order.
func (s *session) close() {
	lost := errors.Is(context.Cause(s.ctx), coord.ErrSessionLost)
	s.end(coord.ErrClosed)
	if !lost {
		s.revoke()
	}
}

// revoke tells the service that the lease is not needed, without insisting.
func (s *session) revoke() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	// What it answers changes nothing: the lease goes now or when its time is up.
	_ = s.c.ask(ctx, ctx, func(ctx context.Context) error {
		_, err := s.c.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: s.lease}, waiting...)
		return err
	})
}

// alive returns nil or why the session is over.
func (s *session) alive() error {
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

// keep sends heartbeats until the session is over, and returns when the last of its
// commits has been answered.
func (s *session) keep() {
	defer s.commits.Wait()
	defer s.puts.Wait()
	defer func() {
		s.commits.End(s.alive())
		s.puts.End(s.alive())
	}()
	for s.alive() == nil {
		s.beat()
		select {
		case <-time.After(s.timeout / 40):
		case <-s.ctx.Done():
		}
	}
}

// beat sends heartbeats on one stream until it breaks or falls silent. One stream
// serves many, since with a password each would log in anew.
func (s *session) beat() {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(s.ctx))
	defer cancel()
	stream, err := s.c.lease.LeaseKeepAlive(ctx, waiting...)
	if err != nil {
		s.c.judge(err)
		return
	}
	answers := make(chan *pb.LeaseKeepAliveResponse)
	var receiver sync.WaitGroup
	receiver.Go(func() {
		defer close(answers)
		for {
			r, err := stream.Recv()
			if err != nil {
				s.c.judge(err)
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
	defer cancel() // before the wait

	tick := time.NewTicker(s.timeout / 6)
	defer tick.Stop()
	var sent []time.Duration // of the heartbeats that were not answered yet
	for {
		if len(sent) == 0 || boottime.Now()-sent[0] < s.timeout/4 {
			sent = append(sent, boottime.Now())
			if stream.Send(&pb.LeaseKeepAliveRequest{ID: s.lease}) != nil {
				return
			}
		} else {
			return // it hangs
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

// call is the frame of every call: it refuses what cannot be sent, and gives the
// context that ends with the caller's and with the session.
func (s *session) call(user context.Context) (context.Context, context.CancelFunc, error) {
	if err := checkContext(user); err != nil {
		return nil, nil, err
	}
	if err := s.alive(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := within(user, s.ctx)
	return ctx, cancel, nil
}

// ID implements [coord.Session].
func (s *session) ID() string { return s.id }

// Timeout implements [coord.Session].
func (s *session) Timeout() time.Duration { return s.timeout }

// Done implements [coord.Session].
func (s *session) Done() <-chan struct{} { return s.ctx.Done() }

// Get implements [coord.Session].
func (s *session) Get(user context.Context, path string) (coord.Node, error) {
	if err := coord.CheckPath(path); err != nil {
		return coord.Node{}, fmt.Errorf("get: %w", err)
	}
	ctx, cancel, err := s.call(user)
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

// Count implements [coord.Session].
func (s *session) Count(user context.Context, dir string) (int, error) {
	if err := coord.CheckDir(dir); err != nil {
		return 0, fmt.Errorf("count: %w", err)
	}
	ctx, cancel, err := s.call(user)
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", dir, err)
	}
	defer cancel()
	base := s.c.base(dir)
	r, err := s.read(user, ctx, &pb.RangeRequest{Key: []byte(base), RangeEnd: after(base), CountOnly: true})
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", dir, err)
	}
	return int(r.Count), nil
}

// read makes a linearizable read.
func (s *session) read(user, ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	var r *pb.RangeResponse
	err := s.c.ask(user, ctx, func(ctx context.Context) (err error) {
		r, err = s.c.kv.Range(ctx, req, waiting...)
		return err
	})
	return r, err
}

// node is what coord knows of a key. Keys that were read without their values
// have none.
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
