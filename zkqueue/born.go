package zkqueue

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
)

// birth is a search for the sequential nodes that one transaction created. The
// server counts the creates of a directory, so that the numbers in names rise with
// the transactions: few reads find the place among many names.
type birth struct {
	s     *session
	born  int64
	names []numbered // in order
}

type numbered struct {
	path   string
	number uint32
}

// born returns the nodes of o.Born in a listing.
func (s *session) born(ctx context.Context, all []string, o coord.ListOptions) (coord.List, error) {
	b := &birth{s: s, born: o.Born}
	for _, path := range all {
		if n, ok := sequence(path); ok {
			b.names = append(b.names, numbered{path, n})
		}
	}
	slices.SortFunc(b.names, func(x, y numbered) int { return cmp.Compare(x.number, y.number) })
	paths, err := b.find(ctx)
	if err != nil {
		return coord.List{}, err
	}
	slices.Sort(paths)
	var l coord.List
	if o.Values {
		l.Nodes, err = s.values(ctx, paths)
		return l, err
	}
	for _, path := range paths {
		l.Nodes = append(l.Nodes, coord.Node{Path: path})
	}
	return l, nil
}

// sequence is the number at the end of a sequential node's name. A directory that
// counted beyond 2147483647 may go on with the smallest number there is: what is
// negative comes last.
func sequence(path string) (uint32, bool) {
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

// find returns the paths of the transaction's nodes, without those that are gone.
// Each round asks at equal distances between what came before and what came
// after; when that brings little, the rest is read whole. Names that only look like
// the server's may stand anywhere: where they are met, everything is read.
func (b *birth) find(ctx context.Context) ([]string, error) {
	from, to := 0, len(b.names)
	for before := math.MaxInt; to-from > readers && to-from < before/2; {
		before = to - from
		start := from
		births, err := b.read(ctx, readers, func(i int) int { return start + i*before/readers })
		if err != nil {
			return nil, err
		}
		if !slices.IsSortedFunc(births, byTransaction) {
			from, to = 0, len(b.names)
			break
		}
		for _, n := range births {
			switch {
			case n.transaction < b.born:
				from = n.place + 1
			case n.transaction > b.born:
				to = min(to, n.place)
			}
		}
	}
	births, err := b.read(ctx, to-from, func(i int) int { return from + i })
	if err == nil && to-from < len(b.names) && !slices.IsSortedFunc(births, byTransaction) {
		births, err = b.read(ctx, len(b.names), func(i int) int { return i })
	}
	if err != nil {
		return nil, err
	}
	var found []string
	for _, n := range births {
		if n.transaction == b.born {
			found = append(found, b.names[n.place].path)
		}
	}
	return found, nil
}

// node is one that stands: its place among the names, and what created it.
type node struct {
	place       int
	transaction int64
}

func byTransaction(a, b node) int { return cmp.Compare(a.transaction, b.transaction) }

// read asks for n nodes at their places, and leaves out those that are gone.
func (b *birth) read(ctx context.Context, n int, place func(int) int) ([]node, error) {
	paths := make([]string, n)
	for i := range paths {
		paths[i] = b.names[place(i)].path
	}
	stats, err := each(ctx, paths, readers, func(ctx context.Context, path string) (*zk.Stat, error) {
		return read(ctx, b.s, func(z *zk.Conn) (*zk.Stat, error) {
			there, stat, err := z.Exists(b.s.whole(path))
			if err == nil && !there {
				err = zk.ErrNoNode
			}
			return stat, err
		})
	})
	if err != nil {
		return nil, err
	}
	var births []node
	for i, stat := range stats {
		if stat != nil {
			births = append(births, node{place(i), (*stat).Czxid})
		}
	}
	return births, nil
}
