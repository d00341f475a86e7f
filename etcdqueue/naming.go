package etcdqueue

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/zkq/zkq/coord"
)

// maxNameCounter is how many numbers a producer has before they begin again.
const maxNameCounter = 1_000_000

// nameCounter gives a producer's names with the same revision and millisecond different
// numbers.
type nameCounter struct {
	mu   sync.Mutex
	next int
}

// reserve returns the first of n consecutive numbers. The counter does not wrap within these n, so
// the names of one commit sort in the order of its ops. Names of different commits differ
// in their revision where their order matters.
func (c *nameCounter) reserve(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next+n > maxNameCounter {
		c.next = 0
	}
	first := c.next
	c.next += n
	return first
}

// nameSuffixLen is the length of each result of nameSuffix.
const nameSuffixLen = len("0000000000000004711-1767225600000-9f86d081-000000")

// nameSuffix returns what completes a sequential node's name.
func nameSuffix(seq int64, at time.Time, producer string, number int) string {
	return fmt.Sprintf("%019d-%013d-%s-%06d", seq, at.UnixMilli(), producer, number)
}

// queueOf returns the queue that a sequential node belongs to: the parent of a directory
// called entries, and any other directory itself.
func queueOf(prefix string) string {
	dir := prefix[:strings.LastIndexByte(prefix, '/')]
	if q, ok := strings.CutSuffix(dir, "/entries"); ok {
		dir = q
	}
	if dir == "" {
		return "/"
	}
	return dir
}

// maxParallelReads is how many reads of one queue's revision may be in flight.
const maxParallelReads = 2

// revisionReads lets commits share the reads of a queue's revision. A commit may use any
// read that begins after the commit was called, because every entry that was answered
// before then is in the revision that the read shows. So many commits need few reads.
type revisionReads struct {
	mu      sync.Mutex
	queued  map[string]*revisionRead // by queue: not begun, so commits may still join
	running map[string]int           // by queue: reads in flight
}

// revisionRead is one read of a queue's revision.
type revisionRead struct {
	done     chan struct{} // closed when the other fields are set
	revision int64
	seq      int64 // revision plus the queue's offset
	err      error
}

// sequenceNumber returns a number for names in the queue. It is higher than the number of
// every name whose commit was answered before this call.
func (c *Coordinator) sequenceNumber(user, ctx context.Context, queue string) (*revisionRead, error) {
	r := c.joinRead(queue)
	if r == nil {
		return nil, coord.ErrClosed
	}
	select {
	case <-r.done:
		return r, r.err
	case <-ctx.Done():
		return nil, stopReason(user, ctx)
	}
}

// joinRead returns a read that has not begun, or nil if the coordinator is closed.
func (c *Coordinator) joinRead(queue string) *revisionRead {
	c.revisionReads.mu.Lock()
	defer c.revisionReads.mu.Unlock()
	r := c.revisionReads.queued[queue]
	if r != nil {
		return r
	}
	r = &revisionRead{done: make(chan struct{})}
	// The read begins when one of those in flight has ended; until then other commits join it.
	if c.revisionReads.running[queue] >= maxParallelReads {
		c.revisionReads.queued[queue] = r
		return r
	}
	if !c.startGoroutine(func() { c.runReads(queue, r) }) {
		return nil
	}
	c.revisionReads.running[queue]++
	return r
}

// runReads makes the read r, and then those that were queued meanwhile.
func (c *Coordinator) runReads(queue string, r *revisionRead) {
	for r != nil {
		r.revision, r.seq, r.err = c.readRevision(queue)
		close(r.done)
		c.revisionReads.mu.Lock()
		r = c.revisionReads.queued[queue]
		delete(c.revisionReads.queued, queue)
		if r == nil {
			if c.revisionReads.running[queue]--; c.revisionReads.running[queue] == 0 {
				delete(c.revisionReads.running, queue)
			}
		}
		c.revisionReads.mu.Unlock()
	}
}

// readRevision reads the queue's configuration. It returns the revision of the read, and
// that revision plus the offset in the configuration.
func (c *Coordinator) readRevision(queue string) (revision, seq int64, err error) {
	var r *pb.RangeResponse
	err = c.doRepeatable(c.ctx, c.ctx, func(ctx context.Context) (err error) {
		r, err = c.kv.Range(ctx, &pb.RangeRequest{Key: []byte(c.dirPrefix(queue) + "config")}, waitForReady...)
		return err
	})
	if err != nil {
		if c.ctx.Err() != nil {
			err = coord.ErrClosed
		}
		return 0, 0, fmt.Errorf("read the revision: %w", err)
	}
	var config struct {
		Offset int64 `json:"offset"`
	}
	if len(r.Kvs) > 0 && len(r.Kvs[0].Value) > 0 {
		if err := json.Unmarshal(r.Kvs[0].Value, &config); err != nil {
			return 0, 0, fmt.Errorf("%s: %w: %w", c.dirPrefix(queue)+"config", err, coord.ErrInvalid)
		}
	}
	// A number must be positive, and leave room for the revisions to come.
	rev := r.Header.Revision
	if config.Offset <= -rev || config.Offset > math.MaxInt64/2 {
		return 0, 0, fmt.Errorf("%s: offset %d: %w", c.dirPrefix(queue)+"config", config.Offset, coord.ErrInvalid)
	}
	return rev, rev + config.Offset, nil
}
