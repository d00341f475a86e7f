package embedded

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// maintenance is the owner's work for the store: it ends the sessions of dead processes,
// compacts old revisions and gives disk space back.
type maintenance struct {
	server    *etcdserver.EtcdServer
	dir       directory
	sessions  sessionLocks
	admission *admission
	warn      func(string)
	// One token: a process may have died.
	sweepRequest chan struct{}
	// One token: the log is to be trimmed.
	trimRequest chan struct{}
	// What is sent is closed when space was reclaimed.
	reclaimRequest chan chan struct{}
	// Leases without a file, and since when.
	orphans map[int64]time.Time

	// Revision at the time of the last compaction.
	compactNext int64
	compactedTo int64
	defraggedAt time.Time
	// Newest segment when entries were last added for a reclaim.
	filledSegment string
}

// How often sessions are checked, and how soon after a connection ended: the lock on a
// session's file may be freed a little later.
const (
	sweepInterval = time.Second
	sweepSoon     = 10 * time.Millisecond
	orphanAge     = 10 * time.Second // between the grant of a lease and the lock on its file

	compactInterval = 5 * time.Second
	compactFrom     = 500    // revisions
	openFrom        = 10_000 // when the store opens, since short-lived owners never reach compactInterval
	openKeep        = 1_000  // of these, for watchers that resume

	// The log is trimmed at this interval, and when a segment was filled. It may have longLog
	// segments: if it has more, a snapshot is forced.
	trimInterval = 5 * time.Second
	longLog      = keptSegments + 1

	reclaimTimeout = 5 * time.Second

	defragInterval = 30 * time.Second
	defragFrom     = 16 << 20 // free bytes, which must also exceed those in use
)

// newMaintenance returns the maintenance of a store that is about to serve.
func newMaintenance(server *etcdserver.EtcdServer, dir directory, room *admission, warn func(string)) *maintenance {
	return &maintenance{
		server:         server,
		dir:            dir,
		sessions:       dir.sessions(),
		admission:      room,
		warn:           warn,
		sweepRequest:   make(chan struct{}, 1),
		trimRequest:    make(chan struct{}, 1),
		reclaimRequest: make(chan chan struct{}),
		orphans:        make(map[int64]time.Time),
	}
}

// prepare does what must be done before the store serves.
func (m *maintenance) prepare(ctx context.Context) error {
	if err := m.sweep(ctx); err != nil {
		return fmt.Errorf("end the sessions of dead processes: %w", err)
	}
	kv := m.server.KV()
	m.compactedTo, m.compactNext = kv.FirstRev(), kv.Rev()
	if m.admission.isShort() {
		return m.reclaim(ctx)
	}
	if m.compactNext-m.compactedTo > openFrom {
		return m.compact(ctx, m.compactNext-openKeep, false)
	}
	return nil
}

// requestSweep has the sessions checked soon: a process may have died.
func (m *maintenance) requestSweep() {
	select {
	case m.sweepRequest <- struct{}{}:
	default:
	}
}

// run does the work until ctx ends.
func (m *maintenance) run(ctx context.Context) {
	compaction := time.NewTicker(compactInterval)
	defer compaction.Stop()
	trim := time.NewTicker(trimInterval)
	defer trim.Stop()
	sweep := time.NewTimer(sweepInterval)
	defer sweep.Stop()
	hurried := false
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-m.sweepRequest:
			if !hurried {
				hurried = true
				sweep.Reset(sweepSoon)
			}
		case <-sweep.C:
			hurried = false
			sweep.Reset(sweepInterval)
			err = m.sweep(ctx)
		case <-compaction.C:
			err = errors.Join(m.compactOld(ctx), m.defrag())
			m.admission.restoreReserve()
		case <-trim.C:
			err = m.trim(ctx)
		case <-m.trimRequest:
			err = m.trim(ctx)
		case done := <-m.reclaimRequest:
			err = m.reclaim(ctx)
			close(done)
		}
		if err != nil && ctx.Err() == nil {
			m.warn(fmt.Sprintf("maintenance of the store: %v", err))
		}
	}
}

// sweep ends the sessions of dead processes.
func (m *maintenance) sweep(ctx context.Context) error {
	dead, alive, err := m.sessions.dead()
	if err != nil {
		return err
	}
	errs := make([]error, len(dead))
	var wg sync.WaitGroup
	some := make(chan struct{}, 64)
	for i, d := range dead {
		some <- struct{}{}
		wg.Go(func() {
			defer func() { <-some }()
			if errs[i] = m.revoke(ctx, d.id); errs[i] == nil {
				d.remove()
			} else {
				d.lock.release()
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, m.sweepOrphans(ctx, alive))...)
}

// sweepOrphans revokes leases whose process died before it had locked a file. No node is
// attached to them.
func (m *maintenance) sweepOrphans(ctx context.Context, alive map[int64]bool) error {
	all, err := m.server.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	if err != nil {
		return err
	}
	now := time.Now()
	seen := make(map[int64]time.Time)
	var errs []error
	for _, l := range all.Leases {
		if alive[l.ID] {
			continue
		}
		since, known := m.orphans[l.ID]
		if !known {
			since = now
		}
		seen[l.ID] = since
		if now.Sub(since) > orphanAge {
			errs = append(errs, m.revoke(ctx, l.ID))
		}
	}
	m.orphans = seen
	return errors.Join(errs...)
}

// revoke ends a session.
func (m *maintenance) revoke(ctx context.Context, id int64) error {
	_, err := m.server.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
	if err != nil && !errors.Is(err, lease.ErrLeaseNotFound) {
		return fmt.Errorf("end session %x: %w", uint64(id), err)
	}
	return nil
}

// compactOld compacts the revisions that were old when it was last called.
func (m *maintenance) compactOld(ctx context.Context) error {
	old := m.compactNext
	m.compactNext = m.server.KV().Rev()
	if old-m.compactedTo < compactFrom {
		return nil
	}
	return m.compact(ctx, old, false)
}

// compact drops the revisions before rev. If wait is true it returns when their space can
// be used again.
func (m *maintenance) compact(ctx context.Context, rev int64, wait bool) error {
	_, err := m.server.Compact(ctx, &pb.CompactionRequest{Revision: rev, Physical: wait})
	if err != nil && !errors.Is(err, mvcc.ErrCompacted) {
		return fmt.Errorf("compact: %w", err)
	}
	m.compactedTo = rev
	return nil
}

// defrag gives free pages of the database back to the file system. All requests wait
// meanwhile, some milliseconds for every ten megabytes in use.
func (m *maintenance) defrag() error {
	b := m.server.Backend()
	used := b.SizeInUse()
	if free := b.Size() - used; free < defragFrom || free < used || time.Since(m.defraggedAt) < defragInterval {
		return nil
	}
	if freeSpace(m.dir.path) < minFreeToPut+growthStep+2*used { // it copies the database
		return nil
	}
	m.defraggedAt = time.Now()
	err := b.Defrag()
	m.admission.databaseReplaced()
	if err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	return nil
}

// requestTrim has the log trimmed soon: a segment was filled.
func (m *maintenance) requestTrim() {
	select {
	case m.trimRequest <- struct{}{}:
	default:
	}
}

// trim removes the segments of the log that a snapshot has made dispensable. etcd makes a
// snapshot after a number of entries, however large they are. If these fill many segments,
// trim forces a snapshot.
func (m *maintenance) trim(ctx context.Context) error {
	if err := m.purge(keptSegments); err != nil || len(m.segments()) <= longLog {
		return err
	}
	return errors.Join(m.forceSnapshot(ctx), m.purge(keptSegments))
}

// purge removes all segments but the newest ones, and none that is still needed.
func (m *maintenance) purge(keep uint) error {
	member := filepath.Join(m.dir.data(), "member")
	once := make(chan struct{})
	close(once)
	logs, errLogs := fileutil.PurgeFileWithDoneNotify(nil, filepath.Join(member, "wal"), "wal", keep, time.Hour, once)
	<-logs
	snapshots, errSnapshots := fileutil.PurgeFileWithoutFlock(nil, filepath.Join(member, "snap"), "snap", keptSegments, time.Hour, once)
	<-snapshots
	for _, c := range []<-chan error{errLogs, errSnapshots} {
		select {
		case err := <-c:
			return fmt.Errorf("remove old files: %w", err)
		default:
		}
	}
	return nil
}

// segments returns the files of the log, the oldest first.
func (m *maintenance) segments() []string {
	names, _ := filepath.Glob(filepath.Join(m.dir.data(), "member", "wal", "*.wal"))
	return names
}

// forceSnapshot has etcd make a snapshot. It adds as many entries to the log as etcd makes
// a snapshot after: queries for alarms, which change nothing.
func (m *maintenance) forceSnapshot(ctx context.Context) error {
	var wg sync.WaitGroup
	askers := make([]error, 64)
	for i := range askers {
		wg.Go(func() {
			for range snapshotEvery/len(askers) + 1 {
				if _, err := m.server.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET}); err != nil {
					askers[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(askers...); err != nil {
		return fmt.Errorf("force a snapshot: %w", err)
	}
	return nil
}

// reclaimNow has the maintenance reclaim space, and waits for it.
func (m *maintenance) reclaimNow(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reclaimTimeout)
	defer cancel()
	done := make(chan struct{})
	select {
	case m.reclaimRequest <- done:
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// reclaim makes space where it is short: it removes as much of the log as it can, and drops
// all old revisions.
func (m *maintenance) reclaim(ctx context.Context) error {
	err := m.purge(1)
	if names := m.segments(); len(names) > 1 && names[len(names)-1] != m.filledSegment {
		m.filledSegment = names[len(names)-1]
		err = errors.Join(err, m.forceSnapshot(ctx), m.purge(1))
	}
	if m.compactNext = m.server.KV().Rev(); m.compactNext > m.compactedTo {
		err = errors.Join(err, m.compact(ctx, m.compactNext, true))
	}
	return err
}
