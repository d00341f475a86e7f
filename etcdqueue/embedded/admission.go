package embedded

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/zkq/zkq/etcdqueue/internal/diskfull"
)

// These figures are compared with the free space. A segment is what etcd's log allocates at
// a time.
const (
	// With less nothing is written: the log's next segment and a compaction must still fit.
	minFreeToWrite  = segmentBytes + compactionBytes
	compactionBytes = 2 << 20 // what a compaction writes to the database before it frees some

	// The file reserve holds this much. It is removed when the disk is full, so that takes and
	// removals have space even if other programs filled the disk.
	reserveSize = 3 * segmentBytes

	// With less nothing is put. The reserve counts as free.
	minFreeToPut = reserveSize + segmentBytes + minFreeToWrite

	minFreeToStart  = minFreeToWrite // for a store that exists
	minFreeToCreate = minFreeToStart + 2*segmentBytes

	// etcd's database grows by this much at a time.
	growthStep = 16 << 20

	// The database's file has holes. This much of it is allocated at a time, ahead of what is
	// written.
	allocateStep = 1 << 20

	reclaimInterval = time.Second
	flushFrom       = 16 << 20 // bytes that were charged
)

// admission refuses the requests that there is no space for. etcd ends its process when a
// write fails for want of space, so requests are refused before that: puts first, so that
// takes, finishes and removals can still make room; then everything that writes.
//
// A request is charged for its largest possible cost before it is passed on, because etcd
// writes it to the disk only later.
type admission struct {
	dir directory
	// Makes etcd give up what it need not keep.
	reclaim func(context.Context)
	// Called when the log begins its next segment.
	onFullSegment func()

	mu       sync.Mutex
	database backend.Backend
	space    diskSpace
	// Bytes of the database's file, from its beginning.
	allocated int64
	// When reclaim was last called.
	reclaimedAt time.Time
	// Cost of the requests without an answer.
	inFlight int64
	// Cost of those answered since the database was last written.
	unwritten int64
	// Cost since the log began its last segment.
	logBytes int64
}

// diskSpace is the space that the store can write to, in bytes.
type diskSpace struct {
	// Free on the disk, with the reserve.
	disk int64
	// Of disk, what the reserve holds.
	reserve int64
	// By how much the database may grow under the limit of file sizes.
	database int64
	// Free pages of the database.
	reusable int64
	// Allocated for the database and not used yet.
	preallocated int64
}

// newAdmission returns the admission of a store that is about to serve, and allocates the
// reserve.
func newAdmission(dir directory, database backend.Backend) *admission {
	r := &admission{dir: dir, database: database}
	r.restoreReserve()
	return r
}

// requestKind says what a request may do to the space.
type requestKind int

const (
	kindRead  requestKind = iota // writes nothing
	kindWrite                    // a take, a finish, a removal
	kindGrow                     // a put
)

// intercept is a [grpc.UnaryServerInterceptor] that refuses requests without space for
// them.
func (a *admission) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	k, cost := classifyRequest(req)
	if k == kindRead {
		return handler(ctx, req)
	}
	if !a.admit(ctx, k, cost) {
		return nil, diskfull.Err
	}
	defer a.noteAnswered(cost)
	return handler(ctx, req)
}

// admit reports whether there is space for a request, and charges it if so. If space is
// short it first measures what is really used, has etcd give up what it can, and for a take
// or a removal gives up the reserve.
func (a *admission) admit(ctx context.Context, k requestKind, cost int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.measureLocked()
	if a.lacksSpaceLocked(k, cost) || a.unwritten > flushFrom {
		a.flushLocked()
	}
	if a.lacksSpaceLocked(k, cost) && time.Since(a.reclaimedAt) > reclaimInterval {
		a.reclaimedAt = time.Now()
		a.mu.Unlock()
		a.reclaim(ctx)
		a.mu.Lock()
		a.flushLocked()
	}
	if k == kindWrite && a.lacksSpaceLocked(k, cost) && a.space.reserve > 0 {
		a.removeReserveLocked()
	}
	if a.lacksSpaceLocked(k, cost) || !a.allocateLocked(cost) {
		return false
	}
	a.inFlight += cost
	if a.logBytes += cost; a.logBytes >= segmentBytes {
		a.logBytes = 0
		a.onFullSegment()
	}
	return true
}

// noteAnswered moves an answered request's cost from inFlight to unwritten. It stays
// charged until the next flush.
func (a *admission) noteAnswered(cost int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inFlight -= cost
	a.unwritten += cost
}

// lacksSpaceLocked reports whether there is no space for a request.
func (a *admission) lacksSpaceLocked(k requestKind, cost int64) bool {
	s, cost := a.space, cost+a.inFlight+a.unwritten
	// Free pages of the database are used again, but large values need several in a row.
	usable := s.preallocated + s.reusable/2
	if k == kindGrow && (s.disk+usable < minFreeToPut+cost || s.database+s.reusable/2 < segmentBytes+cost) {
		return true
	}
	onDisk := max(cost/2, cost-usable) // the log grows by at least this much
	return s.disk-s.reserve < minFreeToWrite-min(compactionBytes*3/4, usable)+onDisk || s.database+s.reusable < segmentBytes/4+cost
}

// measureLocked measures the space. What was charged may have been written already, or not. The
// log's next segment must fit at any time, so the reserve is removed for it if need be.
func (a *admission) measureLocked() {
	a.space = a.dir.diskSpace()
	if a.space.reserve > 0 && a.space.disk-a.space.reserve < segmentBytes {
		os.Remove(a.dir.reserve())
		a.space = a.dir.diskSpace()
	}
	size := a.database.Size()
	a.space.database -= size
	a.space.reusable = size - a.database.SizeInUse()
	a.space.preallocated = max(0, a.allocated-size)
}

// allocateLocked has the file system keep space for what the database writes next, whatever other
// programs write meanwhile. It reports whether there is such space.
func (a *admission) allocateLocked(cost int64) bool {
	need := func() int64 { return a.database.Size() + max(0, a.inFlight+a.unwritten+cost-a.space.reusable/2) }
	if a.allocated >= need() {
		return true
	}
	a.flushLocked()
	for _, want := range []int64{need() + allocateStep, need()} {
		if a.allocated >= want {
			return true
		}
		if err := allocate(a.dir.database(), want); err == nil {
			a.allocated = want
			return true
		}
	}
	return false
}

// databaseReplaced is called when the database has a new file.
func (a *admission) databaseReplaced() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.allocated = 0
}

// flushLocked has etcd write everything that was answered, and measures the space.
func (a *admission) flushLocked() {
	a.database.ForceCommit()
	a.unwritten = 0
	a.measureLocked()
}

// diskSpace measures the space, without taking the database's size off yet.
func (d directory) diskSpace() diskSpace {
	s := diskSpace{disk: freeSpace(d.path), database: math.MaxInt64 / 2}
	if info, err := os.Stat(d.reserve()); err == nil {
		s.reserve = info.Size()
		s.disk += s.reserve
	}
	if limit := fileSizeLimit(); limit < math.MaxInt64/2 {
		s.database = limit - growthStep
		if info, err := os.Stat(d.database()); err == nil && info.Size() <= limit {
			s.database = max(s.database, info.Size())
		}
	}
	return s
}

// makeReserveLocked allocates the reserve. If that fails there is none.
func (a *admission) makeReserveLocked() {
	f, err := os.OpenFile(a.dir.reserve(), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	err = errors.Join(fileutil.Preallocate(f, reserveSize, true), f.Close())
	if err != nil {
		os.Remove(a.dir.reserve())
	}
	a.measureLocked()
}

// removeReserveLocked gives the reserve up.
func (a *admission) removeReserveLocked() {
	os.Remove(a.dir.reserve())
	a.measureLocked()
}

// restoreReserve allocates the reserve when there is plenty of space for it.
func (a *admission) restoreReserve() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.measureLocked()
	if a.space.reserve < reserveSize && a.space.disk >= minFreeToPut {
		a.makeReserveLocked()
	}
}

// isShort reports whether even a take might be refused.
func (a *admission) isShort() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.measureLocked()
	return a.lacksSpaceLocked(kindWrite, segmentBytes/4)
}

// checkSpace refuses to start etcd where it could not go on. It gives up the reserve if
// that helps.
func (d directory) checkSpace() error {
	// A killed owner leaves the segment that it had allocated in advance.
	spare, _ := filepath.Glob(filepath.Join(d.data(), "member", "wal", "*.tmp"))
	for _, path := range spare {
		os.Remove(path)
	}
	if freeSpace(d.path) < smallDisk {
		if err := truncateHole(d.database()); err != nil {
			return fmt.Errorf("shorten %s: %w", d.database(), err)
		}
	}
	needed, born := int64(minFreeToCreate), false
	if _, err := os.Stat(d.data()); err == nil {
		needed, born = minFreeToStart, true
	}
	s := d.diskSpace()
	if s.disk-s.reserve < needed && s.reserve > 0 {
		os.Remove(d.reserve())
		s = d.diskSpace()
	}
	if s.disk < needed {
		return &NoSpaceError{Dir: d.path, Free: s.disk, Needed: needed}
	}
	if limit := fileSizeLimit(); limit < growthStep+segmentBytes {
		return fmt.Errorf("this process may write files of at most %s (ulimit -f), and the store needs %s: %w",
			bytesText(limit), bytesText(growthStep+segmentBytes), errFileLimit)
	} else if info, err := os.Stat(d.database()); born && err == nil && info.Size() > limit {
		return fmt.Errorf("this process may write files of at most %s (ulimit -f), and the store's database has %s: %w",
			bytesText(limit), bytesText(info.Size()), errFileLimit)
	}
	return nil
}

// truncateHole cuts the database's file after its last page. etcd has the kernel read the
// whole file when it opens it, and some file systems fill a hole then.
func truncateHole(database string) error {
	info, err := os.Stat(database)
	if err != nil || info.Size() < growthStep {
		return nil // etcd creates it, or reports the error
	}
	db, err := bolt.Open(database, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return nil
	}
	end := int64(0)
	err = db.View(func(tx *bolt.Tx) error {
		end = tx.Size()
		return nil
	})
	if err = errors.Join(err, db.Close()); err != nil || end >= info.Size() {
		return err
	}
	return os.Truncate(database, end)
}

// classifyRequest returns the kind of a request and the most bytes that it can cost.
func classifyRequest(req any) (requestKind, int64) {
	switch req := req.(type) {
	case *pb.TxnRequest:
		w := txnCost{}
		w.addTxn(req)
		switch {
		case !w.writes:
			return kindRead, 0
		case w.grows:
			return kindGrow, w.cost(req)
		}
		return kindWrite, w.cost(req)
	case *pb.PutRequest:
		return kindGrow, 3*int64(proto.Size(req)) + writeCost
	case *pb.DeleteRangeRequest, *pb.LeaseGrantRequest:
		return kindWrite, writeCost
	}
	return kindRead, 0
}

// writeCost is what a write costs besides the bytes of its request: its share of the
// database's pages.
const writeCost = 1 << 10

// smallValue is the largest value that a take or a finish writes, if it removes nothing.
const smallValue = 4 << 10

// txnCost is what the transactions of a request do.
type txnCost struct {
	writes, grows bool
	count         int64
}

// cost returns how many bytes the request adds to the log and the database.
func (w *txnCost) cost(t *pb.TxnRequest) int64 { return 3*int64(proto.Size(t)) + (w.count+1)*writeCost }

// addTxn adds a transaction. Each nested transaction is a commit of its own: it is a put if
// it creates a persistent node and deletes none.
func (w *txnCost) addTxn(t *pb.TxnRequest) {
	grows, removes := false, false
	for _, op := range t.Success {
		switch {
		case op.GetRequestPut() != nil:
			w.writes = true
			w.count++
			grows = grows || createsPersistent(op.GetRequestPut())
		case op.GetRequestDeleteRange() != nil:
			w.writes, removes = true, true
			w.count++
		case op.GetRequestTxn() != nil:
			w.addTxn(op.GetRequestTxn())
		}
	}
	w.grows = w.grows || grows && !removes
}

// createsPersistent reports whether a put creates a node of a queue that belongs to no
// session. The library's own nodes are small and do not count.
func createsPersistent(p *pb.PutRequest) bool {
	if len(p.Value) > smallValue {
		return true
	}
	return p.Lease == 0 && !p.IgnoreLease && !strings.HasPrefix(string(p.Key), "/zkq/")
}
