package embedded

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// store is the running server. etcd itself listens nowhere: its services are
// registered with a gRPC server of ours, which can be stopped in an order that
// loses no answer.
type store struct {
	dir    directory
	warn   func(string)
	etcd   *server
	room   *room
	grpc   *grpc.Server
	guests *guests
	upkeep *upkeep

	leaving context.Context // ends the streams, and the upkeep
	leaveUp context.CancelFunc
	served  chan error
	tasks   sync.WaitGroup
	broken  atomic.Bool // etcd has given up
}

// farewell is what a request that was sent before the goodbye may take to be answered.
const farewell = 5 * time.Second

// startStore returns when the store serves: sessions of dead processes are over. When
// ctx ends before that, what was started is stopped again.
func startStore(ctx context.Context, dir directory, warn func(string)) (*store, error) {
	if err := dir.checkRoom(); err != nil {
		return nil, err
	}
	if err := dir.born(ctx); err != nil {
		return nil, err
	}
	etcd, err := startServer(ctx, dir.data(), serving)
	if err != nil {
		return nil, err
	}
	s := &store{dir: dir, warn: warn, etcd: etcd, served: make(chan error, 3)}
	s.leaving, s.leaveUp = context.WithCancel(context.Background())
	if err := s.serve(); err != nil {
		s.leaveUp()
		return nil, errors.Join(err, etcd.close())
	}
	return s, nil
}

// serve begins to take requests.
func (s *store) serve() error {
	s.room = newRoom(s.dir, s.etcd.Server.Backend())
	s.upkeep = newUpkeep(s.etcd.Server, s.dir, s.room, s.warn)
	s.room.reclaim, s.room.full = s.upkeep.reclaimNow, s.upkeep.trimSoon
	if err := s.upkeep.open(s.leaving); err != nil {
		return err
	}
	l, err := s.dir.listen()
	if err != nil {
		return err
	}
	s.guests = newGuests(l, s.upkeep.poke)
	s.grpc = v3rpc.Server(s.etcd.Server, nil, s.room.intercept,
		grpc.StreamInterceptor(s.stream),
		grpc.ConnectionTimeout(farewell/2), // one that never speaks would delay the leaving
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}))
	s.tasks.Go(func() { s.upkeep.run(s.leaving) })
	s.tasks.Go(func() { s.served <- s.grpc.Serve(s.guests) })
	s.tasks.Go(func() {
		select {
		case why := <-s.etcd.alarm.c:
			s.broken.Store(true)
			s.served <- s.etcd.givenUp(why)
		case why := <-s.etcd.alarm.short:
			s.served <- why // started anew, etcd tries again
		case <-s.etcd.Server.StopNotify():
			s.served <- errors.New("etcd stopped by itself")
		case <-s.leaving.Done():
		}
	})
	return nil
}

// failed tells that the store has stopped by itself, and why.
func (s *store) failed() <-chan error { return s.served }

// leave stops the store so that no client loses an answer. Clients are told to send
// nothing more on their connections: what they sent before is answered, what
// they send later waits for the next owner. Streams end, and their clients
// resume them there. A connection is closed when it carries nothing any more;
// only those of stopped processes, which cannot say so, are cut. An etcd that has
// given up answers nothing, so all connections are cut then.
func (s *store) leave() error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s.broken.Load() {
			s.grpc.Stop()
		} else {
			s.grpc.GracefulStop()
		}
	}()
	s.leaveUp()
	deadline := time.After(farewell)
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-time.After(50 * time.Millisecond):
			s.guests.cutStopped()
		case <-deadline:
			s.grpc.Stop()
			waiting = false
		}
	}
	os.Remove(s.dir.sock())
	if s.broken.Load() {
		return nil // its goroutines stand still
	}
	s.tasks.Wait()
	return s.etcd.close()
}

// stream lets streams end, with an error that makes clients resume them, when the
// store is left.
func (s *store) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	defer context.AfterFunc(s.leaving, cancel)()
	err := handler(srv, &mortalStream{ss, ctx})
	if s.leaving.Err() != nil {
		return status.Error(codes.Unavailable, "the process that ran the store is leaving")
	}
	return err
}

type mortalStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *mortalStream) Context() context.Context { return s.ctx }
