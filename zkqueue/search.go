package zkqueue

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
)

// creationSearch is a search for the sequential nodes that one transaction created. The
// server counts the creates of a directory, so that the numbers in names rise with
// the transactions: few reads find the place among many names.
type creationSearch struct {
	s           *session
	transaction int64
	candidates  []numberedPath // in order
}

type numberedPath struct {
	path   string
	number uint32
}

// listCreated returns the nodes of o.Born in a listing.
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

// find returns the paths of the transaction's nodes, without those that are gone.
// Each round asks at equal distances between what came before and what came
// after; when that brings little, the rest is read whole. Names that only look like
// the server's may stand anywhere: where they are met, everything is read.
func (b *creationSearch) find(ctx context.Context) ([]string, error) {
	from, to := 0, len(b.candidates)
	for before := math.MaxInt; to-from > parallelReads && to-from < before/2; {
		before = to - from
		start := from
		births, err := b.readCreations(ctx, parallelReads, func(i int) int { return start + i*before/parallelReads })
		if err != nil {
			return nil, err
		}
		if !slices.IsSortedFunc(births, byTransaction) {
			from, to = 0, len(b.candidates)
			break
		}
		for _, n := range births {
			switch {
			case n.transaction < b.transaction:
				from = n.index + 1
			case n.transaction > b.transaction:
				to = min(to, n.index)
			}
		}
	}
	births, err := b.readCreations(ctx, to-from, func(i int) int { return from + i })
	if err == nil && to-from < len(b.candidates) && !slices.IsSortedFunc(births, byTransaction) {
		births, err = b.readCreations(ctx, len(b.candidates), func(i int) int { return i })
	}
	if err != nil {
		return nil, err
	}
	var found []string
	for _, n := range births {
		if n.transaction == b.transaction {
			found = append(found, b.candidates[n.index].path)
		}
	}
	return found, nil
}

// creation is one that stands: its place among the names, and what created it.
type creation struct {
	index       int
	transaction int64
}

func byTransaction(a, b creation) int { return cmp.Compare(a.transaction, b.transaction) }

// readCreations asks for n nodes at their places, and leaves out those that are gone.
func (b *creationSearch) readCreations(ctx context.Context, n int, place func(int) int) ([]creation, error) {
	paths := make([]string, n)
	for i := range paths {
		paths[i] = b.candidates[place(i)].path
	}
	stats, err := inParallel(ctx, paths, parallelReads, func(ctx context.Context, path string) (*zk.Stat, error) {
		return read(ctx, b.s, func(z *zk.Conn) (*zk.Stat, error) {
			there, stat, err := z.Exists(b.s.fullPath(path))
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
