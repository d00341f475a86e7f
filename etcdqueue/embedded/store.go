package embedded

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
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
	etcd   *embed.Etcd
	grpc   *grpc.Server
	guests *guests
	upkeep *upkeep

	leaving context.Context // ends the streams, and the upkeep
	leaveUp context.CancelFunc
	served  chan error
	tasks   sync.WaitGroup
	purged  <-chan struct{}
}

const (
	// One member elects itself; the election's random wait is most of a start.
	tick     = 10 * time.Millisecond
	election = 50 * time.Millisecond

	// The log is cut into small files, written to a snapshot's index and then
	// removed early, so that the directory stays small.
	segment       = 4 << 20
	snapshotEvery = 1000
	keptSegments  = 2
	purgeEvery    = 5 * time.Second

	// How many entries of the log stay in memory after they were applied. Nobody has
	// to catch up, but etcd reads those that it replays at a start once more when it
	// elects itself, and panics if one is gone: as many as may lie behind a snapshot.
	keptEntries = 2 * snapshotEvery

	// Every hundred entries etcd removes those from memory that need not be kept, and
	// the very first even if it must be. So the log of a new store must not begin there
	// any more by then: after its first snapshot it does not.
	firstSnapshot = 90

	// What a request that was sent before the goodbye may take to be answered.
	farewell = 5 * time.Second
)

func init() { wal.SegmentSizeBytes = segment }

// startStore returns when the store serves: sessions of dead processes are over.
func startStore(dir directory, warn func(string)) (s *store, err error) {
	s = &store{dir: dir, warn: warn, served: make(chan error, 2)}
	s.leaving, s.leaveUp = context.WithCancel(context.Background())
	if s.etcd, err = startEtcd(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.leaveUp()
			s.etcd.Close()
		}
	}()
	s.upkeep = newUpkeep(s.etcd.Server, dir.sessions(), warn)
	if err := s.upkeep.open(s.leaving); err != nil {
		return nil, err
	}
	l, err := dir.listen()
	if err != nil {
		return nil, err
	}
	s.guests = newGuests(l, s.upkeep.poke)
	s.grpc = v3rpc.Server(s.etcd.Server, nil, nil,
		grpc.StreamInterceptor(s.stream),
		grpc.ConnectionTimeout(farewell/2), // one that never speaks would delay the leaving
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}))
	stop := s.leaving.Done()
	s.purged, _ = fileutil.PurgeFileWithDoneNotify(nil, filepath.Join(dir.data(), "member", "wal"), "wal", keptSegments, purgeEvery, stop)
	s.tasks.Go(func() { s.upkeep.run(s.leaving) })
	s.tasks.Go(func() { s.served <- s.grpc.Serve(s.guests) })
	s.tasks.Go(func() {
		select {
		case <-s.etcd.Server.StopNotify():
			s.served <- errors.New("etcd stopped by itself")
		case <-s.leaving.Done():
		}
	})
	return s, nil
}

// failed tells that the store has stopped by itself, and why.
func (s *store) failed() <-chan error { return s.served }

// leave stops the store so that nobody loses an answer. Clients are told to send
// nothing more on their connections: what they sent before is answered, what
// they send later waits for the next owner. Streams end, and their clients
// resume them there. A connection is closed when it carries nothing any more;
// only those of stopped processes, which cannot say so, are cut.
func (s *store) leave() {
	done := make(chan struct{})
	s.tasks.Go(func() {
		s.grpc.GracefulStop()
		close(done)
	})
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
			<-done
			waiting = false
		}
	}
	s.tasks.Wait()
	<-s.purged
	s.etcd.Close()
	os.Remove(s.dir.sock())
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

// startEtcd returns when etcd is ready to serve.
func startEtcd(dir directory) (e *embed.Etcd, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &brokenError{fmt.Errorf("etcd gave up on its data in %s: %v", dir.data(), r)}
		} else if err != nil {
			err = fmt.Errorf("etcd with its data in %s: %w", dir.data(), err)
		}
	}()
	nowhere := url.URL{Scheme: "unix", Host: "nowhere"}
	cfg := embed.NewConfig()
	cfg.Name = "zkq"
	cfg.Dir = dir.data()
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.AdvertisePeerUrls, cfg.AdvertiseClientUrls = []url.URL{nowhere}, []url.URL{nowhere}
	cfg.InitialCluster = cfg.Name + "=" + nowhere.String()
	cfg.EnableGRPCGateway = false
	cfg.TickMs, cfg.ElectionMs = uint(tick.Milliseconds()), uint(election.Milliseconds())
	cfg.SnapshotCount = snapshotEvery
	if snapshots, _ := filepath.Glob(filepath.Join(dir.data(), "member", "snap", "*.snap")); len(snapshots) == 0 {
		cfg.SnapshotCount = firstSnapshot
	}
	cfg.SnapshotCatchUpEntries = keptEntries
	cfg.MaxWalFiles = 0        // purged by the store
	cfg.QuotaBackendBytes = -1 // the disk is the limit; over a quota nobody could join to drain the queues
	cfg.MaxSnapFiles = keptSegments
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop().WithOptions(zap.WithFatalHook(fatal{})))
	if e, err = embed.StartEtcd(cfg); err != nil {
		return nil, err
	}
	select {
	case <-e.Server.ReadyNotify():
	case <-e.Server.StopNotify():
		e.Close()
		return nil, errors.New("etcd stopped while it started")
	}
	// Until it has settled on a cluster version it refuses requests.
	for !api.IsCapabilityEnabled(api.V3rpcCapability) {
		select {
		case <-time.After(time.Millisecond):
		case <-e.Server.StopNotify():
			e.Close()
			return nil, errors.New("etcd stopped while it started")
		}
	}
	return e, nil
}

// fatal is what becomes of etcd's fatal log lines, such as a log that cannot be
// written: a panic that says it. The logger's own way is to exit without a word.
type fatal struct{}

func (fatal) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			panic(fmt.Sprintf("%s: %v", e.Message, err))
		}
	}
	panic(e.Message)
}

// brokenError: etcd gave up half-way. What it had opened stays open, so this
// process must not try again.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }
