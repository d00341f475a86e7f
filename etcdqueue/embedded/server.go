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
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// server is an etcd in this process. It does not listen anywhere.
type server struct {
	*embed.Etcd
	data  string
	crash *crashHook
}

// timing is the interval of etcd's clock, and how long etcd waits at least before it elects
// itself, if it is not told to (electNow).
type timing struct{ tick, election time.Duration }

var (
	servingTiming  = timing{10 * time.Millisecond, 50 * time.Millisecond}
	creatingTiming = timing{time.Millisecond, 10 * time.Millisecond}
)

const (
	// The log has small segments, and snapshots make them dispensable early, so that the directory
	// stays small.
	segmentBytes  = 4 << 20
	snapshotEvery = 1000
	keptSegments  = 2

	// Entries of the log that stay in memory after they were applied. No other member has to catch
	// up. But when etcd elects itself after a start, it reads the replayed entries once more, and
	// panics if one is missing: so as many are kept as may follow a snapshot.
	keptEntries = 2 * snapshotEvery

	// Every hundred entries etcd removes from memory those that need not be kept, and the very
	// first one even if it must be kept. So the log of a new store must not begin there any more
	// by then, which its first snapshot achieves.
	firstSnapshot = 90

	// A compaction writes the pages that it empties before it can use them again. On a disk with
	// little space it goes in small steps.
	smallDisk  = 1 << 30
	smallBatch = 100 // keys

	// electionTimeout bounds the wait for etcd to elect itself after it has read its data.
	electionTimeout = 30 * time.Second

	// electAgain is the interval at which etcd is told to elect itself. A new store does not
	// while its first entry, which makes it a member, is not applied.
	electAgain = 2 * time.Millisecond

	etcdStopTimeout = 5 * time.Second // for an etcd that is starting or closing
)

func init() { wal.SegmentSizeBytes = segmentBytes }

// startServer returns when etcd is ready to serve. If ctx ends before that, etcd is closed
// again. A [*brokenError] means that a part of it is left in this process.
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
	// A start cannot be interrupted. It usually takes some hundredths of a second.
	late, stop := context.WithCancel(context.Background())
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(etcdStopTimeout, stop) })()
	select {
	case err := <-started:
		if err != nil {
			detachFiles(data) // etcd does not close everything that it opened
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

// awaitReady returns when etcd accepts requests.
func (s *server) awaitReady(ctx context.Context) error {
	limit := time.NewTimer(electionTimeout)
	defer limit.Stop()
	ready := s.Server.ReadyNotify()
	var settled <-chan time.Time
	s.electNow(ctx)
	elect := time.NewTicker(electAgain)
	defer elect.Stop()
	for {
		select {
		case <-elect.C:
			if ready != nil {
				s.electNow(ctx)
			}
		case <-ready:
			// etcd refuses requests until it has decided on a cluster version.
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

// electNow tells etcd to elect itself. It is the only member, so it need not wait to hear of a
// leader; the random length of that wait was most of a start. etcd ignores the message where it
// cannot be elected yet, and where it is the leader.
func (s *server) electNow(ctx context.Context) {
	self := uint64(s.Server.MemberID())
	s.Server.Process(ctx, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), From: &self, To: &self})
}

// close stops etcd in order, or gives up after etcdStopTimeout.
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

// crashError returns the error of an etcd that cannot go on. Its goroutines stay in this
// process, and are cut off from its files.
func (s *server) crashError(why error) error {
	err := fmt.Errorf("etcd gave up on its data in %s: %w", s.data, why)
	if !detachFiles(s.data) {
		return &brokenError{err}
	}
	return err
}

// brokenError means that etcd gave up half-way and keeps files open in this process. So
// this process must not start it again, and no other process can.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

// configuration returns etcd's configuration. It has no listeners and no peers.
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
	cfg.MaxWalFiles = 0        // maintenance purges them
	cfg.QuotaBackendBytes = -1 // admission watches the space
	cfg.MaxSnapFiles = keptSegments
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(a, zap.WithFatalHook(a), zap.WithPanicHook(a)))
	return cfg
}

// snapshots returns how many snapshots etcd has in its data directory.
func snapshots(data string) int {
	names, _ := filepath.Glob(filepath.Join(data, "member", "snap", "*.snap"))
	return len(names)
}
