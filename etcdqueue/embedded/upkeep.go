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

// upkeep is what the owner does for the store: it ends the sessions of processes
// that have died, forgets old revisions and gives disk space back.
type upkeep struct {
	server   *etcdserver.EtcdServer
	dir      directory
	sessions sessions
	room     *room
	warn     func(string)
	poked    chan struct{}
	trimming chan struct{}       // holds a token when the log is to be trimmed soon
	wanted   chan chan struct{}  // asks for a reclaim; what is sent is closed after it
	orphans  map[int64]time.Time // leases without a file, and since when

	marked    int64 // the revision at the last compaction's time
	compacted int64
	defragged time.Time
	filled    string // the log's newest segment when entries were last added for a reclaim
}

const (
	sweepEvery  = time.Second
	sweepSoon   = 10 * time.Millisecond // after a connection ended: a file's lock may go a little later
	orphanGrace = 10 * time.Second      // between a lease's grant and the lock on its file

	compactEvery = 5 * time.Second
	compactFrom  = 500    // revisions
	openFrom     = 10_000 // at opening, where one-shot owners never live to see compactEvery
	openKeep     = 1_000  // of these, for watchers that resume

	// The log is trimmed at this interval, and when a segment of it was filled. It may
	// have this many segments: a snapshot is made when there are more.
	trimEvery = 5 * time.Second
	longLog   = keptSegments + 1

	reclaimLimit = 5 * time.Second

	defragEvery = 30 * time.Second
	defragFrom  = 16 << 20 // bytes free, and more than are in use
)

func newUpkeep(server *etcdserver.EtcdServer, dir directory, room *room, warn func(string)) *upkeep {
	return &upkeep{
		server:   server,
		dir:      dir,
		sessions: dir.sessions(),
		room:     room,
		warn:     warn,
		poked:    make(chan struct{}, 1),
		trimming: make(chan struct{}, 1),
		wanted:   make(chan chan struct{}),
		orphans:  make(map[int64]time.Time),
	}
}

// open does what must be done before anybody is served.
func (u *upkeep) open(ctx context.Context) error {
	if err := u.sweep(ctx); err != nil {
		return fmt.Errorf("end the sessions of dead processes: %w", err)
	}
	kv := u.server.KV()
	u.compacted, u.marked = kv.FirstRev(), kv.Rev()
	if u.room.short() {
		return u.reclaim(ctx)
	}
	if u.marked-u.compacted > openFrom {
		return u.compact(ctx, u.marked-openKeep, false)
	}
	return nil
}

// poke says that a process may have died.
func (u *upkeep) poke() {
	select {
	case u.poked <- struct{}{}:
	default:
	}
}

func (u *upkeep) run(ctx context.Context) {
	compaction := time.NewTicker(compactEvery)
	defer compaction.Stop()
	trim := time.NewTicker(trimEvery)
	defer trim.Stop()
	sweep := time.NewTimer(sweepEvery)
	defer sweep.Stop()
	hurried := false
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-u.poked:
			if !hurried {
				hurried = true
				sweep.Reset(sweepSoon)
			}
		case <-sweep.C:
			hurried = false
			sweep.Reset(sweepEvery)
			err = u.sweep(ctx)
		case <-compaction.C:
			err = errors.Join(u.shrink(ctx), u.defrag())
			u.room.restore()
		case <-trim.C:
			err = u.trim(ctx)
		case <-u.trimming:
			err = u.trim(ctx)
		case done := <-u.wanted:
			err = u.reclaim(ctx)
			close(done)
		}
		if err != nil && ctx.Err() == nil {
			u.warn(fmt.Sprintf("upkeep of the store: %v", err))
		}
	}
}

// sweep ends the sessions of dead processes.
func (u *upkeep) sweep(ctx context.Context) error {
	dead, alive, err := u.sessions.dead()
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
			if errs[i] = u.revoke(ctx, d.id); errs[i] == nil {
				d.bury()
			} else {
				d.lock.free()
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, u.sweepOrphans(ctx, alive))...)
}

// sweepOrphans ends leases whose process died before it had locked a file. They
// hold nothing.
func (u *upkeep) sweepOrphans(ctx context.Context, alive map[int64]bool) error {
	all, err := u.server.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
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
		since, known := u.orphans[l.ID]
		if !known {
			since = now
		}
		seen[l.ID] = since
		if now.Sub(since) > orphanGrace {
			errs = append(errs, u.revoke(ctx, l.ID))
		}
	}
	u.orphans = seen
	return errors.Join(errs...)
}

func (u *upkeep) revoke(ctx context.Context, id int64) error {
	_, err := u.server.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
	if err != nil && !errors.Is(err, lease.ErrLeaseNotFound) {
		return fmt.Errorf("end session %x: %w", uint64(id), err)
	}
	return nil
}

// shrink forgets the revisions that were old when it was last called.
func (u *upkeep) shrink(ctx context.Context) error {
	old := u.marked
	u.marked = u.server.KV().Rev()
	if old-u.compacted < compactFrom {
		return nil
	}
	return u.compact(ctx, old, false)
}

// compact forgets the revisions before rev. If wait is true it returns when their space
// can be used again.
func (u *upkeep) compact(ctx context.Context, rev int64, wait bool) error {
	_, err := u.server.Compact(ctx, &pb.CompactionRequest{Revision: rev, Physical: wait})
	if err != nil && !errors.Is(err, mvcc.ErrCompacted) {
		return fmt.Errorf("compact: %w", err)
	}
	u.compacted = rev
	return nil
}

// defrag gives free pages back to the file system. Calls wait meanwhile, some
// milliseconds for each ten megabytes in use.
func (u *upkeep) defrag() error {
	b := u.server.Backend()
	used := b.SizeInUse()
	if free := b.Size() - used; free < defragFrom || free < used || time.Since(u.defragged) < defragEvery {
		return nil
	}
	if freeSpace(u.dir.path) < putFloor+growthStep+2*used { // it makes a copy
		return nil
	}
	u.defragged = time.Now()
	err := b.Defrag()
	u.room.replaced()
	if err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	return nil
}

// trimSoon says that a segment of the log was filled.
func (u *upkeep) trimSoon() {
	select {
	case u.trimming <- struct{}{}:
	default:
	}
}

// trim removes those segments of the log that a snapshot has made dispensable. etcd
// makes a snapshot after a number of entries, however large these are; where they fill
// many segments, small entries are added until it does.
func (u *upkeep) trim(ctx context.Context) error {
	if err := u.purge(keptSegments); err != nil || len(u.segments()) <= longLog {
		return err
	}
	return errors.Join(u.fillLog(ctx), u.purge(keptSegments))
}

// purge removes all but the newest segments, and none that is still needed.
func (u *upkeep) purge(keep uint) error {
	member := filepath.Join(u.dir.data(), "member")
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
func (u *upkeep) segments() []string {
	names, _ := filepath.Glob(filepath.Join(u.dir.data(), "member", "wal", "*.wal"))
	return names
}

// fillLog adds entries that change nothing: questions for alarms, which go through the
// log. With them etcd has as many as it makes a snapshot after.
func (u *upkeep) fillLog(ctx context.Context) error {
	var wg sync.WaitGroup
	askers := make([]error, 64)
	for i := range askers {
		wg.Go(func() {
			for range snapshotEvery/len(askers) + 1 {
				if _, err := u.server.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET}); err != nil {
					askers[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(askers...); err != nil {
		return fmt.Errorf("have a snapshot made: %w", err)
	}
	return nil
}

// reclaimNow has the upkeep reclaim space, and returns after that.
func (u *upkeep) reclaimNow(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reclaimLimit)
	defer cancel()
	done := make(chan struct{})
	select {
	case u.wanted <- done:
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// reclaim makes room where the space is short: it removes all of the log that it can,
// and forgets all old revisions.
func (u *upkeep) reclaim(ctx context.Context) error {
	err := u.purge(1)
	if names := u.segments(); len(names) > 1 && names[len(names)-1] != u.filled {
		u.filled = names[len(names)-1]
		err = errors.Join(err, u.fillLog(ctx), u.purge(1))
	}
	if u.marked = u.server.KV().Rev(); u.marked > u.compacted {
		err = errors.Join(err, u.compact(ctx, u.marked, true))
	}
	return err
}
