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
	writeFloor = segment + pages
	pages      = 2 << 20 // what a compaction writes to the database before it frees some

	// reserveSize is what the file reserve holds. It is removed when the disk is full,
	// so that there is room for takes and removals though other programs filled it.
	reserveSize = 3 * segment

	// Below putFloor nothing is put. The reserve counts as free.
	putFloor = reserveSize + segment + writeFloor

	startFloor = writeFloor // for a store that is there
	birthFloor = startFloor + 2*segment

	// growthStep is by how much etcd's database grows at a time.
	growthStep = 16 << 20

	// Of the database's file, which has holes, this much is allocated at a time ahead of
	// what is written.
	aheadStep = 1 << 20

	reclaimEvery = time.Second
	settleFrom   = 16 << 20 // bytes that were charged
)

// room decides which requests there is space for. What a request may cost is charged
// before it is passed on, since etcd writes it to the disk some time later.
type room struct {
	dir     directory
	reclaim func(context.Context) // makes etcd give up what it need not keep
	full    func()                // called when the next segment of the log is due

	mu        sync.Mutex
	database  backend.Backend
	space     space
	allocated int64 // of the database's file, from its beginning
	reclaimed time.Time
	flying    int64 // what the requests cost that are not answered yet
	settling  int64 // what those cost that were answered since the database was last written
	written   int64 // what was charged since the log was last trimmed
}

// space is what there is to write to, in bytes.
type space struct {
	disk     int64 // free on the disk, with the reserve
	reserve  int64 // of that, what the reserve holds
	database int64 // by how much the database may grow under the limit of file sizes
	reusable int64 // of the database
	ahead    int64 // allocated for the database, and not used yet
}

func newRoom(dir directory, database backend.Backend) *room {
	r := &room{dir: dir, database: database}
	r.restore()
	return r
}

// kind is what a request is to the room.
type kind int

const (
	free  kind = iota // it writes nothing
	write             // a take, a finish, a removal
	grow              // a put
)

// intercept is a [grpc.UnaryServerInterceptor] that refuses what there is no room for.
func (r *room) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	k, cost := weigh(req)
	if k == free {
		return handler(ctx, req)
	}
	if !r.charge(ctx, k, cost) {
		return nil, diskfull.Err
	}
	defer r.answered(cost)
	return handler(ctx, req)
}

// charge reports whether there is room for a request, and counts it if there is.
func (r *room) charge(ctx context.Context, k kind, cost int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look()
	if r.lacks(k, cost) || r.settling > settleFrom {
		r.settle()
	}
	if r.lacks(k, cost) && time.Since(r.reclaimed) > reclaimEvery {
		r.reclaimed = time.Now()
		r.mu.Unlock()
		r.reclaim(ctx)
		r.mu.Lock()
		r.settle()
	}
	if k == write && r.lacks(k, cost) && r.space.reserve > 0 {
		r.removeReserve()
	}
	if r.lacks(k, cost) || !r.allocate(cost) {
		return false
	}
	r.flying += cost
	if r.written += cost; r.written >= segment {
		r.written = 0
		r.full()
	}
	return true
}

// answered is called when a request that was charged has been applied.
func (r *room) answered(cost int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flying -= cost
	r.settling += cost
}

// lacks reports whether there is no room for a request.
func (r *room) lacks(k kind, cost int64) bool {
	s, cost := r.space, cost+r.flying+r.settling
	// Free pages of the database are used again. Large values need several in a row.
	usable := s.ahead + s.reusable/2
	if k == grow && (s.disk+usable < putFloor+cost || s.database+s.reusable/2 < segment+cost) {
		return true
	}
	onDisk := max(cost/2, cost-usable) // the log takes its part in any case
	return s.disk-s.reserve < writeFloor-min(pages*3/4, usable)+onDisk || s.database+s.reusable < segment/4+cost
}

// look measures the space. What was charged may be written already, or not. The next
// segment of the log must fit at any time, so the reserve makes way for it.
func (r *room) look() {
	r.space = r.dir.space()
	if r.space.reserve > 0 && r.space.disk-r.space.reserve < segment {
		os.Remove(r.dir.reserve())
		r.space = r.dir.space()
	}
	size := r.database.Size()
	r.space.database -= size
	r.space.reusable = size - r.database.SizeInUse()
	r.space.ahead = max(0, r.allocated-size)
}

// allocate has the file system keep space for what the database writes next, whatever
// other programs write meanwhile. It reports whether that is so.
func (r *room) allocate(cost int64) bool {
	need := func() int64 { return r.database.Size() + max(0, r.flying+r.settling+cost-r.space.reusable/2) }
	if r.allocated >= need() {
		return true
	}
	r.settle()
	for _, want := range []int64{need() + aheadStep, need()} {
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

// replaced is called when the database has another file.
func (r *room) replaced() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.allocated = 0
}

// settle measures the space after everything that was answered is written.
func (r *room) settle() {
	r.database.ForceCommit()
	r.settling = 0
	r.look()
}

// space measures what there is. The database's size is not taken off yet.
func (d directory) space() space {
	s := space{disk: freeSpace(d.path), database: math.MaxInt64 / 2}
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
func (r *room) makeReserve() {
	f, err := os.OpenFile(r.dir.reserve(), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	err = errors.Join(fileutil.Preallocate(f, reserveSize, true), f.Close())
	if err != nil {
		os.Remove(r.dir.reserve())
	}
	r.look()
}

func (r *room) removeReserve() {
	os.Remove(r.dir.reserve())
	r.look()
}

// restore makes the reserve when there is plenty of room for it.
func (r *room) restore() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look()
	if r.space.reserve < reserveSize && r.space.disk >= putFloor {
		r.makeReserve()
	}
}

// short reports whether even a take might be refused.
func (r *room) short() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look()
	return r.lacks(write, segment/4)
}

// checkRoom refuses to start etcd where it could not go on. It gives up the reserve
// if that helps.
func (d directory) checkRoom() error {
	// A process that was killed leaves the segment that it had made in advance.
	spare, _ := filepath.Glob(filepath.Join(d.data(), "member", "wal", "*.tmp"))
	for _, path := range spare {
		os.Remove(path)
	}
	if freeSpace(d.path) < smallDisk {
		if err := cutHole(d.database()); err != nil {
			return fmt.Errorf("shorten %s: %w", d.database(), err)
		}
	}
	needed, born := int64(birthFloor), false
	if _, err := os.Stat(d.data()); err == nil {
		needed, born = startFloor, true
	}
	s := d.space()
	if s.disk-s.reserve < needed && s.reserve > 0 {
		os.Remove(d.reserve())
		s = d.space()
	}
	if s.disk < needed {
		return &NoSpaceError{Dir: d.path, Free: s.disk, Needed: needed}
	}
	if limit := fileSizeLimit(); limit < growthStep+segment {
		return fmt.Errorf("this process may write files of at most %s (ulimit -f), and the store needs %s: %w",
			bytesText(limit), bytesText(growthStep+segment), errFileLimit)
	} else if info, err := os.Stat(d.database()); born && err == nil && info.Size() > limit {
		return fmt.Errorf("this process may write files of at most %s (ulimit -f), and the store's database has %s: %w",
			bytesText(limit), bytesText(info.Size()), errFileLimit)
	}
	return nil
}

// cutHole takes off what the database's file has behind its last page. etcd has the
// kernel read the whole file when it opens it, and some file systems fill a hole then.
func cutHole(database string) error {
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

var errFileLimit = errors.New("file size limit too low")

// NoSpaceError: the disk is so full that the store cannot be opened. Nothing was
// changed.
type NoSpaceError struct {
	Dir          string
	Free, Needed int64 // bytes
}

func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("the disk of %s is full: %s are free, and the store needs %s to open", e.Dir, bytesText(e.Free), bytesText(e.Needed))
}

// bytesText is a number of bytes for people.
func bytesText(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// weigh tells what a request is, and what it costs at most.
func weigh(req any) (kind, int64) {
	switch req := req.(type) {
	case *pb.TxnRequest:
		w := weight{}
		w.add(req)
		switch {
		case !w.writes:
			return free, 0
		case w.grows:
			return grow, w.cost(req)
		}
		return write, w.cost(req)
	case *pb.PutRequest:
		return grow, 3*int64(proto.Size(req)) + writeCost
	case *pb.DeleteRangeRequest, *pb.LeaseGrantRequest:
		return write, writeCost
	}
	return free, 0
}

// writeCost is what a write costs beside the bytes of its request: its share of the
// database's pages.
const writeCost = 1 << 10

// smallValue is the largest value that a take or a finish writes where it removes
// nothing.
const smallValue = 4 << 10

// weight is what the transactions of a request do.
type weight struct {
	writes, grows bool
	count         int64
}

// cost is what the request adds to the log and to the database.
func (w *weight) cost(t *pb.TxnRequest) int64 { return 3*int64(proto.Size(t)) + (w.count+1)*writeCost }

// add weighs a transaction. Each of those in it is a commit of its own: it grows if
// it creates a node that stays, and removes none.
func (w *weight) add(t *pb.TxnRequest) {
	grows, removes := false, false
	for _, op := range t.Success {
		switch {
		case op.GetRequestPut() != nil:
			w.writes = true
			w.count++
			grows = grows || stays(op.GetRequestPut())
		case op.GetRequestDeleteRange() != nil:
			w.writes, removes = true, true
			w.count++
		case op.GetRequestTxn() != nil:
			w.add(op.GetRequestTxn())
		}
	}
	w.grows = w.grows || grows && !removes
}

// stays reports whether a put creates a node of a queue that no session holds. What the
// library keeps on its own account is small.
func stays(p *pb.PutRequest) bool {
	if len(p.Value) > smallValue {
		return true
	}
	return p.Lease == 0 && !p.IgnoreLease && !strings.HasPrefix(string(p.Key), "/zkq/")
}
