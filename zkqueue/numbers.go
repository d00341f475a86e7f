package zkqueue

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
)

// numbers are what a session knows of the counters that complete the names of sequential
// nodes. ZooKeeper's stop at 2147483647, which is then given again and again: a name would
// be created twice, and an old fence would fit the new node. So creates end one before it.
type numbers struct {
	mu     sync.Mutex
	next   map[string]int64 // at least, by whole directory
	warned map[string]bool
}

// warnNumber is where the user is warned that a directory's numbers come to their end.
const warnNumber = 2_000_000_000

// maxNumbers bounds what is remembered.
const maxNumbers = 10_000

// checkNumbers refuses a commit whose sequential nodes a directory has no numbers for. The
// counter is read once for each directory, and before each commit when it nears its end.
func (s *session) checkNumbers(ctx context.Context, ops []coord.Op) error {
	var wanted map[string]int64
	for _, op := range ops {
		if op.Kind == coord.KindSequential {
			if wanted == nil {
				wanted = make(map[string]int64, 1)
			}
			wanted[parent(s.whole(op.Path))]++
		}
	}
	for dir, n := range wanted {
		s.numbers.mu.Lock()
		next, known := s.numbers.next[dir]
		s.numbers.mu.Unlock()
		if known && next+n < warnNumber {
			continue
		}
		next, err := s.counter(ctx, dir)
		switch {
		case errors.Is(err, coord.ErrForbidden):
			continue // the commit will tell
		case err != nil:
			return err
		case next+n-1 > coord.LastNumber:
			return &coord.ExhaustedError{Dir: dir[len(s.cfg.Chroot):], Next: next}
		}
		s.numbers.saw(dir, next)
		if next >= warnNumber && s.numbers.warn(dir) {
			s.cfg.Warn(fmt.Sprintf("%s has used %d of its %d numbers; move its entries to a queue of another name before they are used up", dir, next, int64(coord.LastNumber)+1))
		}
	}
	return nil
}

// counter is the number of the next create in a directory. The server tells creates and
// deletions together: twice the creates less the children.
func (s *session) counter(ctx context.Context, dir string) (int64, error) {
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

func (n *numbers) saw(dir string, next int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == nil || len(n.next) >= maxNumbers {
		n.next = make(map[string]int64)
	}
	n.next[dir] = max(next, n.next[dir])
}

func (n *numbers) warn(dir string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.warned == nil {
		n.warned = make(map[string]bool)
	}
	first := !n.warned[dir]
	n.warned[dir] = true
	return first
}

// named takes the numbers of the nodes that a commit created.
func (s *session) named(ops []coord.Op, results []coord.Result) {
	for i, op := range ops {
		if op.Kind != coord.KindSequential || i >= len(results) {
			continue
		}
		if n, ok := sequence(results[i].Path); ok {
			s.numbers.saw(parent(s.whole(op.Path)), int64(n)+1)
		}
	}
}
