package embedded

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// server is an etcd in this process. It listens nowhere.
type server struct {
	*embed.Etcd
	data  string
	alarm *alarm
}

// pace is how often etcd looks at its clock, and how long it waits before it elects
// itself. The random part of that wait is most of a start.
type pace struct{ tick, election time.Duration }

var (
	serving = pace{10 * time.Millisecond, 50 * time.Millisecond}
	making  = pace{time.Millisecond, 10 * time.Millisecond}
)

const (
	// The log is cut into small files, written to a snapshot's index and then
	// removed early, so that the directory stays small.
	segment       = 4 << 20
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

	// electionLimit bounds the wait for etcd to elect itself after it has read its data.
	electionLimit = 30 * time.Second

	// stopLimit bounds the wait for an etcd that is starting or closing.
	stopLimit = 5 * time.Second
)

func init() { wal.SegmentSizeBytes = segment }

// startServer returns when etcd is ready to serve. When ctx ends before that, etcd is
// closed again. A [*brokenError] means that something of it is left in this process.
func startServer(ctx context.Context, data string, p pace) (*server, error) {
	s := &server{data: data, alarm: newAlarm()}
	cfg := configuration(data, p, s.alarm)
	started := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				s.alarm.raise(fmt.Errorf("%v", r))
			}
		}()
		e, err := embed.StartEtcd(cfg)
		s.Etcd = e
		started <- err
	}()
	// A start cannot be interrupted. It takes some hundredths of a second, as a rule.
	late, stop := context.WithCancel(context.Background())
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopLimit, stop) })()
	select {
	case err := <-started:
		if err != nil {
			sever(data) // etcd does not close all that it opened
			return nil, fmt.Errorf("etcd with its data in %s: %w", data, err)
		}
	case why := <-s.alarm.c:
		return nil, s.givenUp(why)
	case <-late.Done():
		return nil, &brokenError{fmt.Errorf("etcd with its data in %s: not started within %v: %w", data, stopLimit, ctx.Err())}
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
	limit := time.NewTimer(electionLimit)
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
		case why := <-s.alarm.c:
			return s.givenUp(why)
		case <-s.Server.StopNotify():
			return fmt.Errorf("etcd with its data in %s stopped while it started", s.data)
		case <-limit.C:
			return fmt.Errorf("etcd with its data in %s did not elect itself within %v", s.data, electionLimit)
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
	case why := <-s.alarm.c:
		return s.givenUp(why)
	case <-time.After(stopLimit):
		return s.givenUp(fmt.Errorf("not closed within %v", stopLimit))
	}
}

// givenUp is the error of an etcd that cannot go on. Its goroutines stay, and are
// kept from its files.
func (s *server) givenUp(why error) error {
	err := fmt.Errorf("etcd gave up on its data in %s: %w", s.data, why)
	if !sever(s.data) {
		return &brokenError{err}
	}
	return err
}

// brokenError: etcd gave up half-way. What it had opened stays open, so this
// process must not try again, and no other process can.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

func configuration(data string, p pace, a *alarm) *embed.Config {
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

// alarm hears from etcd's log why it cannot go on. etcd would end the process. The
// goroutine that logs such a line is stopped for ever instead, so that it does no
// further harm, and the reason is sent.
type alarm struct {
	c     chan error // receives the first reason
	short chan error // receives why the log's next segment could not be allocated
}

func newAlarm() *alarm { return &alarm{c: make(chan error, 1), short: make(chan error, 1)} }

func (a *alarm) raise(why error) {
	select {
	case a.c <- why:
	default:
	}
}

// OnWrite implements [zapcore.CheckWriteHook]. It is called for fatal lines and panics.
func (a *alarm) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	a.raise(because(e.Message, fields))
	select {}
}

// because is a line of etcd's log as an error. The error in the line is wrapped.
func because(message string, fields []zapcore.Field) error {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			return fmt.Errorf("%s: %w", message, err)
		}
	}
	return errors.New(message)
}

// noNextSegment is etcd's line about a segment of its log that it could not allocate
// in advance. etcd would give up later, when it needs that segment, even if there is
// room by then.
const noNextSegment = "failed to preallocate space when creating a new WAL"

// Enabled implements [zapcore.Core]: errors are listened to.
func (a *alarm) Enabled(l zapcore.Level) bool { return l >= zapcore.ErrorLevel }

// With implements [zapcore.Core].
func (a *alarm) With([]zapcore.Field) zapcore.Core { return a }

// Check implements [zapcore.Core].
func (a *alarm) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if a.Enabled(e.Level) {
		return ce.AddCore(e, a)
	}
	return ce
}

// Write implements [zapcore.Core].
func (a *alarm) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if strings.HasPrefix(e.Message, noNextSegment) {
		select {
		case a.short <- because(e.Message, fields):
		default:
		}
	}
	return nil
}

// Sync implements [zapcore.Core].
func (a *alarm) Sync() error { return nil }
