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

// maxNumber is how many names a producer makes before its numbers begin again.
const maxNumber = 1_000_000

// numbers tell a producer's names with the same revision and millisecond apart.
type numbers struct {
	mu   sync.Mutex
	next int
}

// take returns the first of n numbers in a row. The row never wraps, so that the
// names of a commit sort in the order of its ops. Between commits nothing rests on
// the order: where it matters, the revision differs.
func (c *numbers) take(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next+n > maxNumber {
		c.next = 0
	}
	first := c.next
	c.next += n
	return first
}

// suffixLen is the length of a suffix.
const suffixLen = len("0000000000000004711-1767225600000-9f86d081-000000")

// suffix is what completes a sequential node's name.
func suffix(seq int64, at time.Time, producer string, number int) string {
	return fmt.Sprintf("%019d-%013d-%s-%06d", seq, at.UnixMilli(), producer, number)
}

// queueOf is the queue that a sequential node belongs to: the parent of a
// directory called entries, any other directory itself.
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

// maxFlying is how many reads of one queue's number are on their way at a time.
const maxFlying = 2

// rounds share the reads that sequence numbers come from: a commit may use any
// read that begins after it was called.
type rounds struct {
	mu     sync.Mutex
	queued map[string]*round // not begun, so open to everybody who comes
	flying map[string]int
}

// round is one read.
type round struct {
	done     chan struct{} // closed when the others are set
	revision int64
	seq      int64 // with the offset
	err      error
}

// sequence returns a number for names in queue: larger than the number of any
// name whose commit was answered before this call.
func (c *Coordinator) sequence(user, ctx context.Context, queue string) (*round, error) {
	r := c.join(queue)
	if r == nil {
		return nil, coord.ErrClosed
	}
	select {
	case <-r.done:
		return r, r.err
	case <-ctx.Done():
		return nil, stopped(user, ctx)
	}
}

// join returns a round that has not begun; nil when the coordinator is closed.
func (c *Coordinator) join(queue string) *round {
	c.rounds.mu.Lock()
	defer c.rounds.mu.Unlock()
	r := c.rounds.queued[queue]
	if r != nil {
		return r
	}
	r = &round{done: make(chan struct{})}
	if c.rounds.flying[queue] >= maxFlying {
		c.rounds.queued[queue] = r
		return r
	}
	if !c.spawn(func() { c.fly(queue, r) }) {
		return nil
	}
	c.rounds.flying[queue]++
	return r
}

// fly makes the read of r, and of what was queued meanwhile.
func (c *Coordinator) fly(queue string, r *round) {
	for r != nil {
		r.revision, r.seq, r.err = c.revision(queue)
		close(r.done)
		c.rounds.mu.Lock()
		r = c.rounds.queued[queue]
		delete(c.rounds.queued, queue)
		if r == nil {
			if c.rounds.flying[queue]--; c.rounds.flying[queue] == 0 {
				delete(c.rounds.flying, queue)
			}
		}
		c.rounds.mu.Unlock()
	}
}

// revision reads the queue's configuration: for the revision that it is read at,
// and for the offset in it, which seq has added.
func (c *Coordinator) revision(queue string) (revision, seq int64, err error) {
	var r *pb.RangeResponse
	err = c.ask(c.ctx, c.ctx, func(ctx context.Context) (err error) {
		r, err = c.kv.Range(ctx, &pb.RangeRequest{Key: []byte(c.base(queue) + "config")}, waiting...)
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
			return 0, 0, fmt.Errorf("%s: %w: %w", c.base(queue)+"config", err, coord.ErrInvalid)
		}
	}
	rev := r.Header.Revision
	if config.Offset <= -rev || config.Offset > math.MaxInt64/2 {
		return 0, 0, fmt.Errorf("%s: offset %d: %w", c.base(queue)+"config", config.Offset, coord.ErrInvalid)
	}
	return rev, rev + config.Offset, nil
}
