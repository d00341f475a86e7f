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

// etcd ends the process that runs it when a write fails for want of space. So the
// room refuses requests before that: puts first, so that takes, finishes and removals
// can go on and make room, and everything that writes when even those might fail.
//
// The figures are about the space that is free. A segment is what etcd's log takes at
// a time.
const (
	// Below writeFloor nothing is written: the log's next segment and a compaction must
	// still fit.
	minFreeToWrite  = segmentBytes + compactionBytes
	compactionBytes = 2 << 20 // what a compaction writes to the database before it frees some

	// reserveSize is what the file reserve holds. It is removed when the disk is full,
	// so that there is room for takes and removals though other programs filled it.
	reserveSize = 3 * segmentBytes

	// Below putFloor nothing is put. The reserve counts as free.
	minFreeToPut = reserveSize + segmentBytes + minFreeToWrite

	minFreeToStart  = minFreeToWrite // for a store that is there
	minFreeToCreate = minFreeToStart + 2*segmentBytes

	// growthStep is by how much etcd's database grows at a time.
	growthStep = 16 << 20

	// Of the database's file, which has holes, this much is allocated at a time ahead of
	// what is written.
	allocateStep = 1 << 20

	reclaimInterval = time.Second
	flushFrom       = 16 << 20 // bytes that were charged
)

// admission decides which requests there is space for. What a request may cost is charged
// before it is passed on, since etcd writes it to the disk some time later.
type admission struct {
	dir           directory
	reclaim       func(context.Context) // makes etcd give up what it need not keep
	onFullSegment func()                // called when the next segment of the log is due

	mu          sync.Mutex
	database    backend.Backend
	space       diskSpace
	allocated   int64 // of the database's file, from its beginning
	reclaimedAt time.Time
	inFlight    int64 // what the requests cost that are not answered yet
	unwritten   int64 // what those cost that were answered since the database was last written
	logBytes    int64 // what was charged since the log was last trimmed
}

// diskSpace is what there is to write to, in bytes.
type diskSpace struct {
	disk         int64 // free on the disk, with the reserve
	reserve      int64 // of that, what the reserve holds
	database     int64 // by how much the database may grow under the limit of file sizes
	reusable     int64 // of the database
	preallocated int64 // allocated for the database, and not used yet
}

func newAdmission(dir directory, database backend.Backend) *admission {
	r := &admission{dir: dir, database: database}
	r.restoreReserve()
	return r
}

// requestKind is what a request is to the room.
type requestKind int

const (
	kindRead  requestKind = iota // it writes nothing
	kindWrite                    // a take, a finish, a removal
	kindGrow                     // a put
)

// intercept is a [grpc.UnaryServerInterceptor] that refuses what there is no room for.
func (r *admission) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	k, cost := classifyRequest(req)
	if k == kindRead {
		return handler(ctx, req)
	}
	if !r.admit(ctx, k, cost) {
		return nil, diskfull.Err
	}
	defer r.release(cost)
	return handler(ctx, req)
}

// admit reports whether there is room for a request, and counts it if there is.
func (r *admission) admit(ctx context.Context, k requestKind, cost int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.measure()
	if r.lacksSpace(k, cost) || r.unwritten > flushFrom {
		r.flush()
	}
	if r.lacksSpace(k, cost) && time.Since(r.reclaimedAt) > reclaimInterval {
		r.reclaimedAt = time.Now()
		r.mu.Unlock()
		r.reclaim(ctx)
		r.mu.Lock()
		r.flush()
	}
	if k == kindWrite && r.lacksSpace(k, cost) && r.space.reserve > 0 {
		r.removeReserve()
	}
	if r.lacksSpace(k, cost) || !r.allocate(cost) {
		return false
	}
	r.inFlight += cost
	if r.logBytes += cost; r.logBytes >= segmentBytes {
		r.logBytes = 0
		r.onFullSegment()
	}
	return true
}

// release is called when a request that was charged has been applied.
func (r *admission) release(cost int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight -= cost
	r.unwritten += cost
}

// lacksSpace reports whether there is no room for a request.
func (r *admission) lacksSpace(k requestKind, cost int64) bool {
	s, cost := r.space, cost+r.inFlight+r.unwritten
	// Free pages of the database are used again. Large values need several in a row.
	usable := s.preallocated + s.reusable/2
	if k == kindGrow && (s.disk+usable < minFreeToPut+cost || s.database+s.reusable/2 < segmentBytes+cost) {
		return true
	}
	onDisk := max(cost/2, cost-usable) // the log takes its part in any case
	return s.disk-s.reserve < minFreeToWrite-min(compactionBytes*3/4, usable)+onDisk || s.database+s.reusable < segmentBytes/4+cost
}

// measure measures the space. What was charged may be written already, or not. The next
// segment of the log must fit at any time, so the reserve makes way for it.
func (r *admission) measure() {
	r.space = r.dir.diskSpace()
	if r.space.reserve > 0 && r.space.disk-r.space.reserve < segmentBytes {
		os.Remove(r.dir.reserve())
		r.space = r.dir.diskSpace()
	}
	size := r.database.Size()
	r.space.database -= size
	r.space.reusable = size - r.database.SizeInUse()
	r.space.preallocated = max(0, r.allocated-size)
}

// allocate has the file system keep space for what the database writes next, whatever
// other programs write meanwhile. It reports whether that is so.
func (r *admission) allocate(cost int64) bool {
	need := func() int64 { return r.database.Size() + max(0, r.inFlight+r.unwritten+cost-r.space.reusable/2) }
	if r.allocated >= need() {
		return true
	}
	r.flush()
	for _, want := range []int64{need() + allocateStep, need()} {
		if r.allocated >= want {
			return true
		}
		if err := allocate(r.dir.database(), want); err == nil {
			r.allocated = want
			return true
		}
	}
	return false
}

// databaseReplaced is called when the database has another file.
func (r *admission) databaseReplaced() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.allocated = 0
}

// flush measures the space after everything that was answered is written.
func (r *admission) flush() {
	r.database.ForceCommit()
	r.unwritten = 0
	r.measure()
}

// diskSpace measures what there is. The database's size is not taken off yet.
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

// makeReserve allocates the reserve. Where that cannot be done there is none.
func (r *admission) makeReserve() {
	f, err := os.OpenFile(r.dir.reserve(), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	err = errors.Join(fileutil.Preallocate(f, reserveSize, true), f.Close())
	if err != nil {
		os.Remove(r.dir.reserve())
	}
	r.measure()
}

func (r *admission) removeReserve() {
	os.Remove(r.dir.reserve())
	r.measure()
}

// restoreReserve makes the reserve when there is plenty of room for it.
func (r *admission) restoreReserve() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.measure()
	if r.space.reserve < reserveSize && r.space.disk >= minFreeToPut {
		r.makeReserve()
	}
}

// isShort reports whether even a take might be refused.
func (r *admission) isShort() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.measure()
	return r.lacksSpace(kindWrite, segmentBytes/4)
}

// checkSpace refuses to start etcd where it could not go on. It gives up the reserve
// if that helps.
func (d directory) checkSpace() error {
	// A process that was killed leaves the segment that it had made in advance.
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

// truncateHole takes off what the database's file has behind its last page. etcd has the
// kernel read the whole file when it opens it, and some file systems fill a hole then.
func truncateHole(database string) error {
	info, err := os.Stat(database)
	if err != nil || info.Size() < growthStep {
		return nil // etcd makes it, or says what is wrong
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

// classifyRequest tells what a request is, and what it costs at most.
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

// writeCost is what a write costs beside the bytes of its request: its share of the
// database's pages.
const writeCost = 1 << 10

// smallValue is the largest value that a take or a finish writes where it removes
// nothing.
const smallValue = 4 << 10

// txnCost is what the transactions of a request do.
type txnCost struct {
	writes, grows bool
	count         int64
}

// cost is what the request adds to the log and to the database.
func (w *txnCost) cost(t *pb.TxnRequest) int64 { return 3*int64(proto.Size(t)) + (w.count+1)*writeCost }

// addTxn weighs a transaction. Each of those in it is a commit of its own: it grows if
// it creates a node that stays, and removes none.
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

// createsPersistent reports whether a put creates a node of a queue that no session holds. What the
// library keeps on its own account is small.
func createsPersistent(p *pb.PutRequest) bool {
	if len(p.Value) > smallValue {
		return true
	}
	return p.Lease == 0 && !p.IgnoreLease && !strings.HasPrefix(string(p.Key), "/zkq/")
}
