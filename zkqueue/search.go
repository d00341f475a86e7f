package zkqueue

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
)

// creationSearch finds the sequential nodes that one transaction created. A directory's
// numbers rise with the transactions, so few reads find the place among many names.
type creationSearch struct {
	s           *session
	transaction int64          // the zxid that created the nodes
	candidates  []numberedPath // in the order of their numbers
}

// numberedPath is the path of a node and the number at its end.
type numberedPath struct {
	path   string
	number uint32
}

// listCreated returns the nodes among all that the transaction o.Born created.
func (s *session) listCreated(ctx context.Context, all []string, o coord.ListOptions) (coord.List, error) {
	b := &creationSearch{s: s, transaction: o.Born}
	for _, path := range all {
		if n, ok := sequenceNumber(path); ok {
			b.candidates = append(b.candidates, numberedPath{path, n})
		}
	}
	slices.SortFunc(b.candidates, func(x, y numberedPath) int { return cmp.Compare(x.number, y.number) })
	paths, err := b.find(ctx)
	if err != nil {
		return coord.List{}, err
	}
	slices.Sort(paths)
	var l coord.List
	if o.Values {
		l.Nodes, err = s.readValues(ctx, paths)
		return l, err
	}
	for _, path := range paths {
		l.Nodes = append(l.Nodes, coord.Node{Path: path})
	}
	return l, nil
}

// find returns the paths of the transaction's nodes that still exist. Each round reads
// candidates at equal distances between the last one that is older and the first one that
// is newer. When a round narrows the range little, the rest is read whole. Names that only
// look like sequential ones can be anywhere: if any is met, all candidates are read.
func (c *creationSearch) find(ctx context.Context) ([]string, error) {
	// The transaction's nodes are among candidates[from:to].
	from, to := 0, len(c.candidates)
	for before := math.MaxInt; to-from > parallelReads && to-from < before/2; {
		before = to - from
		start := from
		births, err := c.readCreations(ctx, parallelReads, func(i int) int { return start + i*before/parallelReads })
		if err != nil {
			return nil, err
		}
		if !slices.IsSortedFunc(births, byTransaction) {
			from, to = 0, len(c.candidates)
			break
		}
		for _, n := range births {
			switch {
			case n.transaction < c.transaction:
				from = n.index + 1
			case n.transaction > c.transaction:
				to = min(to, n.index)
			}
		}
	}
	births, err := c.readCreations(ctx, to-from, func(i int) int { return from + i })
	if err == nil && to-from < len(c.candidates) && !slices.IsSortedFunc(births, byTransaction) {
		births, err = c.readCreations(ctx, len(c.candidates), func(i int) int { return i })
	}
	if err != nil {
		return nil, err
	}
	var found []string
	for _, n := range births {
		if n.transaction == c.transaction {
			found = append(found, c.candidates[n.index].path)
		}
	}
	return found, nil
}

// creation says which transaction created a candidate.
type creation struct {
	index       int // in candidates
	transaction int64
}

func byTransaction(a, b creation) int { return cmp.Compare(a.transaction, b.transaction) }

// readCreations reads n candidates at the indexes that place returns. It leaves out those
// that do not exist any more.
func (c *creationSearch) readCreations(ctx context.Context, n int, place func(int) int) ([]creation, error) {
	paths := make([]string, n)
	for i := range paths {
		paths[i] = c.candidates[place(i)].path
	}
	stats, err := inParallel(ctx, paths, parallelReads, func(ctx context.Context, path string) (*zk.Stat, error) {
		return read(ctx, c.s, func(z *zk.Conn) (*zk.Stat, error) {
			there, stat, err := z.Exists(c.s.fullPath(path))
			if err == nil && !there {
				err = zk.ErrNoNode
			}
			return stat, err
		})
	})
	if err != nil {
		return nil, err
	}
	var births []creation
	for i, stat := range stats {
		if stat != nil {
			births = append(births, creation{place(i), (*stat).Czxid})
		}
	}
	return births, nil
}
