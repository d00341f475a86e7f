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

// store is the store that runs in this process. etcd itself does not listen: its services
// are registered with a gRPC server of ours, which can be stopped in an order that loses no
// answer. Before etcd sees a request, admission decides whether there is space for it.
type store struct {
	dir         directory
	warn        func(string)
	etcd        *server
	admission   *admission
	grpc        *grpc.Server
	conns       *clientConns
	maintenance *maintenance

	ctx      context.Context // ends the streams and the maintenance
	cancel   context.CancelFunc
	failures chan error // receives why the store stopped by itself
	tasks    sync.WaitGroup
	crashed  atomic.Bool // etcd has given up
}

// drainTimeout is how long requests that were received before the store closes may take.
const drainTimeout = 5 * time.Second

// startStore returns when the store serves. The sessions of dead processes are over then.
// If ctx ends before that, everything that was started is stopped again.
func startStore(ctx context.Context, dir directory, warn func(string)) (*store, error) {
	if err := dir.checkSpace(); err != nil {
		return nil, err
	}
	if err := dir.ensureData(ctx); err != nil {
		return nil, err
	}
	etcd, err := startServer(ctx, dir.data(), servingTiming)
	if err != nil {
		return nil, err
	}
	s := &store{dir: dir, warn: warn, etcd: etcd, failures: make(chan error, 3)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.serve(); err != nil {
		s.cancel()
		return nil, errors.Join(err, etcd.close())
	}
	return s, nil
}

// serve begins to accept requests.
func (s *store) serve() error {
	s.admission = newAdmission(s.dir, s.etcd.Server.Backend())
	s.maintenance = newMaintenance(s.etcd.Server, s.dir, s.admission, s.warn)
	s.admission.reclaim, s.admission.onFullSegment = s.maintenance.reclaimNow, s.maintenance.requestTrim
	if err := s.maintenance.prepare(s.ctx); err != nil {
		return err
	}
	l, err := s.dir.listen()
	if err != nil {
		return err
	}
	s.conns = newClientConns(l, s.maintenance.requestSweep)
	s.grpc = v3rpc.Server(s.etcd.Server, nil, s.admission.intercept,
		grpc.StreamInterceptor(s.interceptStream),
		grpc.ConnectionTimeout(drainTimeout/2), // a connection that never speaks would delay the stop
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}))
	s.tasks.Go(func() { s.maintenance.run(s.ctx) })
	s.tasks.Go(func() { s.failures <- s.grpc.Serve(s.conns) })
	s.tasks.Go(func() {
		select {
		case why := <-s.etcd.crash.fatal:
			s.crashed.Store(true)
			s.failures <- s.etcd.crashError(why)
		case why := <-s.etcd.crash.noSegment:
			s.failures <- why // etcd tries again when the store is restarted
		case <-s.etcd.Server.StopNotify():
			s.failures <- errors.New("etcd stopped by itself")
		case <-s.ctx.Done():
		}
	})
	return nil
}

// failed returns a channel that receives why the store stopped by itself.
func (s *store) failed() <-chan error { return s.failures }

// stop stops the store so that no client loses an answer. Clients are told to send nothing
// more on their connections: requests sent before are answered, later ones wait for the
// next owner. Streams end, and clients resume them there. A connection closes when nothing
// is in flight on it; only those of stopped processes, which cannot take part, are cut. An
// etcd that has given up answers nothing, so then all connections are cut.
func (s *store) stop() error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s.crashed.Load() {
			s.grpc.Stop()
		} else {
			s.grpc.GracefulStop()
		}
	}()
	s.cancel()
	deadline := time.After(drainTimeout)
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-time.After(50 * time.Millisecond):
			s.conns.closeStopped()
		case <-deadline:
			s.grpc.Stop()
			waiting = false
		}
	}
	os.Remove(s.dir.sock())
	if s.crashed.Load() {
		return nil // its goroutines are stopped for ever
	}
	s.tasks.Wait()
	return s.etcd.close()
}

// interceptStream ends each stream when the store stops, with an error that makes clients
// resume it.
func (s *store) interceptStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	err := handler(srv, &endableStream{ss, ctx})
	if s.ctx.Err() != nil {
		return status.Error(codes.Unavailable, "the process that ran the store is leaving")
	}
	return err
}

// endableStream is a stream that ends when the store stops.
type endableStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *endableStream) Context() context.Context { return s.ctx }
