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

// sequenceCounters are what a session knows of the counters that complete the names of sequential
// nodes. ZooKeeper's stop at 2147483647, which is then given again and again: a name would
// be created twice, and an old fence would fit the new node. So creates end one before it.
type sequenceCounters struct {
	mu     sync.Mutex
	next   map[string]int64 // at least, by whole directory
	warned map[string]bool
}

// warnFromNumber is where the user is warned that a directory's numbers come to their end.
const warnFromNumber = 2_000_000_000

// maxCounters bounds what is remembered.
const maxCounters = 10_000

// checkCounters refuses a commit whose sequential nodes a directory has no numbers for. The
// counter is read once for each directory, and before each commit when it nears its end.
func (s *session) checkCounters(ctx context.Context, ops []coord.Op) error {
	var wanted map[string]int64
	for _, op := range ops {
		if op.Kind == coord.KindSequential {
			if wanted == nil {
				wanted = make(map[string]int64, 1)
			}
			wanted[parentPath(s.fullPath(op.Path))]++
		}
	}
	for dir, n := range wanted {
		s.counters.mu.Lock()
		next, known := s.counters.next[dir]
		s.counters.mu.Unlock()
		if known && next+n < warnFromNumber {
			continue
		}
		next, err := s.readCounter(ctx, dir)
		switch {
		case errors.Is(err, coord.ErrForbidden):
			continue // the commit will tell
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

// readCounter is the number of the next create in a directory. The server tells creates and
// deletions together: twice the creates less the children.
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

func (n *sequenceCounters) advance(dir string, next int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == nil || len(n.next) >= maxCounters {
		n.next = make(map[string]int64)
	}
	n.next[dir] = max(next, n.next[dir])
}

func (n *sequenceCounters) isFirstWarning(dir string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.warned == nil {
		n.warned = make(map[string]bool)
	}
	first := !n.warned[dir]
	n.warned[dir] = true
	return first
}

// advanceCounters takes the numbers of the nodes that a commit created.
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

// sequenceNumber is the number at the end of a sequential node's name. A directory that
// counted beyond 2147483647 may go on with the smallest number there is: what is
// negative comes last.
func sequenceNumber(path string) (uint32, bool) {
	const width = 10
	name := path[strings.LastIndexByte(path, '/')+1:]
	if len(name) < width {
		return 0, false
	}
	digits := name[len(name)-width:]
	if prefix := name[:len(name)-width]; digits[0] != '0' && (strings.HasSuffix(prefix, "--") || prefix == "-") {
		digits = "-" + digits // the sign is not among the ten
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || digits[0] == '+' {
		return 0, false
	}
	return uint32(int32(n)), true
}
