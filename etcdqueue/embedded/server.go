package embedded

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
)

// server is an etcd in this process. It listens nowhere.
type server struct {
	*embed.Etcd
	data  string
	crash *crashHook
}

// timing is how often etcd looks at its clock, and how long it waits before it elects
// itself. The random part of that wait is most of a start.
type timing struct{ tick, election time.Duration }

var (
	servingTiming  = timing{10 * time.Millisecond, 50 * time.Millisecond}
	creatingTiming = timing{time.Millisecond, 10 * time.Millisecond}
)

const (
	// The log is cut into small files, written to a snapshot's index and then
	// removed early, so that the directory stays small.
	segmentBytes  = 4 << 20
	snapshotEvery = 1000
	keptSegments  = 2

	// How many entries of the log stay in memory after they were applied. Nobody has
	// to catch up, but etcd reads those that it replays at a start once more when it
	// elects itself, and panics if one is gone: as many as may lie behind a snapshot.
	keptEntries = 2 * snapshotEvery

	// Every hundred entries etcd removes those from memory that need not be kept, and
	// the very first even if it must be. So the log of a new store must not begin there
	// any more by then: after its first snapshot it does not.
	firstSnapshot = 90

	// A compaction writes the pages that it empties before it may use them again. On a
	// disk with little space it goes in small steps.
	smallDisk  = 1 << 30
	smallBatch = 100 // keys

	// electionTimeout bounds the wait for etcd to elect itself after it has read its data.
	electionTimeout = 30 * time.Second

	// etcdStopTimeout bounds the wait for an etcd that is starting or closing.
	etcdStopTimeout = 5 * time.Second
)

func init() { wal.SegmentSizeBytes = segmentBytes }

// startServer returns when etcd is ready to serve. When ctx ends before that, etcd is
// closed again. A [*brokenError] means that something of it is left in this process.
func startServer(ctx context.Context, data string, p timing) (*server, error) {
	s := &server{data: data, crash: newCrashHook()}
	cfg := configuration(data, p, s.crash)
	started := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				s.crash.report(fmt.Errorf("%v", r))
			}
		}()
		e, err := embed.StartEtcd(cfg)
		s.Etcd = e
		started <- err
	}()
	// A start cannot be interrupted. It takes some hundredths of a second, as a rule.
	late, stop := context.WithCancel(context.Background())
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(etcdStopTimeout, stop) })()
	select {
	case err := <-started:
		if err != nil {
			detachFiles(data) // etcd does not close all that it opened
			return nil, fmt.Errorf("etcd with its data in %s: %w", data, err)
		}
	case why := <-s.crash.fatal:
		return nil, s.crashError(why)
	case <-late.Done():
		return nil, &brokenError{fmt.Errorf("etcd with its data in %s: not started within %v: %w", data, etcdStopTimeout, ctx.Err())}
	}
	err := s.awaitReady(ctx)
	if err == nil {
		return s, nil
	}
	if broken := (*brokenError)(nil); errors.As(err, &broken) {
		return nil, err
	}
	return nil, errors.Join(err, s.close())
}

// awaitReady returns when etcd takes requests.
func (s *server) awaitReady(ctx context.Context) error {
	limit := time.NewTimer(electionTimeout)
	defer limit.Stop()
	ready := s.Server.ReadyNotify()
	var settled <-chan time.Time
	for {
		select {
		case <-ready:
			// Until it has settled on a cluster version it refuses requests.
			if api.IsCapabilityEnabled(api.V3rpcCapability) {
				return nil
			}
			ready, settled = nil, time.After(0)
		case <-settled:
			if api.IsCapabilityEnabled(api.V3rpcCapability) {
				return nil
			}
			settled = time.After(time.Millisecond)
		case why := <-s.crash.fatal:
			return s.crashError(why)
		case <-s.Server.StopNotify():
			return fmt.Errorf("etcd with its data in %s stopped while it started", s.data)
		case <-limit.C:
			return fmt.Errorf("etcd with its data in %s did not elect itself within %v", s.data, electionTimeout)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// close stops etcd in order. It waits for a bounded time.
func (s *server) close() error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Etcd.Close()
	}()
	select {
	case <-done:
		return nil
	case why := <-s.crash.fatal:
		return s.crashError(why)
	case <-time.After(etcdStopTimeout):
		return s.crashError(fmt.Errorf("not closed within %v", etcdStopTimeout))
	}
}

// crashError is the error of an etcd that cannot go on. Its goroutines stay, and are
// kept from its files.
func (s *server) crashError(why error) error {
	err := fmt.Errorf("etcd gave up on its data in %s: %w", s.data, why)
	if !detachFiles(s.data) {
		return &brokenError{err}
	}
	return err
}

// brokenError: etcd gave up half-way. What it had opened stays open, so this
// process must not try again, and no other process can.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

func configuration(data string, p timing, a *crashHook) *embed.Config {
	nowhere := url.URL{Scheme: "unix", Host: "nowhere"}
	cfg := embed.NewConfig()
	cfg.Name = "zkq"
	cfg.Dir = data
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.AdvertisePeerUrls, cfg.AdvertiseClientUrls = []url.URL{nowhere}, []url.URL{nowhere}
	cfg.InitialCluster = cfg.Name + "=" + nowhere.String()
	cfg.EnableGRPCGateway = false
	cfg.TickMs, cfg.ElectionMs = uint(p.tick.Milliseconds()), uint(p.election.Milliseconds())
	cfg.SnapshotCount = snapshotEvery
	if snapshots(data) == 0 {
		cfg.SnapshotCount = firstSnapshot
	}
	cfg.SnapshotCatchUpEntries = keptEntries
	if freeSpace(filepath.Dir(data)) < smallDisk {
		cfg.CompactionBatchLimit = smallBatch
		cfg.CompactionSleepInterval = time.Millisecond
	}
	cfg.MaxWalFiles = 0        // purged by the store
	cfg.QuotaBackendBytes = -1 // the room keeps watch over the space
	cfg.MaxSnapFiles = keptSegments
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(a, zap.WithFatalHook(a), zap.WithPanicHook(a)))
	return cfg
}

// snapshots counts the snapshots that etcd has in its data directory.
func snapshots(data string) int {
	names, _ := filepath.Glob(filepath.Join(data, "member", "snap", "*.snap"))
	return len(names)
}
