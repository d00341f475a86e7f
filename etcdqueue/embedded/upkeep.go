package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// upkeep is what the owner does for the store: it ends the sessions of processes
// that have died, forgets old revisions and gives disk space back.
type upkeep struct {
	server   *etcdserver.EtcdServer
	sessions sessions
	warn     func(string)
	poked    chan struct{}
	orphans  map[int64]time.Time // leases without a file, and since when

	marked    int64 // the revision at the last compaction's time
	compacted int64
	defragged time.Time
}

const (
	sweepEvery  = time.Second
	sweepSoon   = 10 * time.Millisecond // after a connection ended: a file's lock may go a little later
	orphanGrace = 10 * time.Second      // between a lease's grant and the lock on its file

	compactEvery = 5 * time.Second
	compactFrom  = 500    // revisions
	openFrom     = 10_000 // at opening, where one-shot owners never live to see compactEvery
	openKeep     = 1_000  // of these, for watchers that resume

	defragEvery = 30 * time.Second
	defragFrom  = 16 << 20 // bytes free, and more than are in use
)

func newUpkeep(server *etcdserver.EtcdServer, s sessions, warn func(string)) *upkeep {
	return &upkeep{
		server:   server,
		sessions: s,
		warn:     warn,
		poked:    make(chan struct{}, 1),
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
	if u.marked-u.compacted > openFrom {
		return u.compact(ctx, u.marked-openKeep)
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
	return u.compact(ctx, old)
}

func (u *upkeep) compact(ctx context.Context, rev int64) error {
	_, err := u.server.Compact(ctx, &pb.CompactionRequest{Revision: rev})
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
	u.defragged = time.Now()
	if err := b.Defrag(); err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	return nil
}
