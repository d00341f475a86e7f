package zkqueue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
)

// sequenceCounters are the lowest values that the counters of directories can have.
// ZooKeeper completes the names of sequential nodes with the directory's counter. The
// counter stops at 2147483647, and that number is given again and again: a name would be
// created twice, and an old fence would fit the new node. So the driver refuses a commit
// before the counter is used up.
type sequenceCounters struct {
	mu     sync.Mutex
	next   map[string]int64 // the lowest possible next number, by full path of the directory
	warned map[string]bool  // directories whose user has been warned
}

// warnFromNumber is the number from which on the user is warned.
const warnFromNumber = 2_000_000_000

// maxCounters bounds the directories that are remembered.
const maxCounters = 10_000

// checkCounters refuses a commit with sequential nodes that a directory has no numbers for.
// It reads a directory's counter before the session's first commit there, and then again
// before each commit once the counter is beyond warnFromNumber. In between, the numbers of
// the session's own nodes show how far the counter is.
func (s *session) checkCounters(ctx context.Context, ops []coord.Op) error {
	var creates map[string]int64
	for _, op := range ops {
		if op.Kind == coord.KindSequential {
			if creates == nil {
				creates = make(map[string]int64, 1)
			}
			creates[parentPath(s.fullPath(op.Path))]++
		}
	}
	for dir, n := range creates {
		s.counters.mu.Lock()
		next, known := s.counters.next[dir]
		s.counters.mu.Unlock()
		if known && next+n < warnFromNumber {
			continue
		}
		next, err := s.readCounter(ctx, dir)
		switch {
		case errors.Is(err, coord.ErrForbidden):
			continue // the commit reports it
		case err != nil:
			return err
		case next+n-1 > coord.LastNumber:
			return &coord.ExhaustedError{Dir: dir[len(s.cfg.Chroot):], Next: next}
		}
		s.counters.advance(dir, next)
		if next >= warnFromNumber && s.counters.isFirstWarning(dir) {
			s.cfg.Warn(fmt.Sprintf("%s has used %d of its %d numbers; move its entries to a queue of another name before they are used up", dir, next, int64(coord.LastNumber)+1))
		}
	}
	return nil
}

// readCounter returns the number of the next create in a directory. ZooKeeper reports
// creates plus deletes (cversion), and creates minus deletes (the number of children): the
// sum is twice the creates.
func (s *session) readCounter(ctx context.Context, dir string) (int64, error) {
	stat, err := read(ctx, s, func(z *zk.Conn) (*zk.Stat, error) {
		there, stat, err := z.Exists(dir)
		if err == nil && !there {
			stat = &zk.Stat{}
		}
		return stat, err
	})
	if err != nil {
		return 0, err
	}
	return int64(uint32(stat.Cversion+stat.NumChildren) / 2), nil
}

// advance notes that the directory's counter is at least next.
func (c *sequenceCounters) advance(dir string, next int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil || len(c.next) >= maxCounters {
		c.next = make(map[string]int64)
	}
	c.next[dir] = max(next, c.next[dir])
}

// isFirstWarning reports whether the user has not been warned of this directory yet.
func (c *sequenceCounters) isFirstWarning(dir string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.warned == nil {
		c.warned = make(map[string]bool)
	}
	first := !c.warned[dir]
	c.warned[dir] = true
	return first
}

// advanceCounters notes the numbers of the nodes that a commit created.
func (s *session) advanceCounters(ops []coord.Op, results []coord.Result) {
	for i, op := range ops {
		if op.Kind != coord.KindSequential || i >= len(results) {
			continue
		}
		if n, ok := sequenceNumber(results[i].Path); ok {
			s.counters.advance(parentPath(s.fullPath(op.Path)), int64(n)+1)
		}
	}
}

// sequenceNumber returns the number at the end of a sequential node's name. In some
// versions a counter that has passed 2147483647 goes on with the smallest int32; such
// negative numbers are returned as the largest ones, in their order.
func sequenceNumber(path string) (uint32, bool) {
	const width = 10
	name := path[strings.LastIndexByte(path, '/')+1:]
	if len(name) < width {
		return 0, false
	}
	digits := name[len(name)-width:]
	if prefix := name[:len(name)-width]; digits[0] != '0' && (strings.HasSuffix(prefix, "--") || prefix == "-") {
		digits = "-" + digits // the ten digits leave the sign out
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || digits[0] == '+' {
		return 0, false
	}
	return uint32(int32(n)), true
}
