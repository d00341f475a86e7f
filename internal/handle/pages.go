package handle

import (
	"cmp"
	"context"
	"iter"
	"path"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
)

// Sizes of the pages in which directories are listed: of names, and of whole nodes, which
// may be large: NodesPage is the size of the first page.
const (
	NamesPage = 4096
	NodesPage = 32
)

// The largest page of whole nodes, in nodes and in bytes of their values.
const (
	largestPage = 1000
	pageBytes   = 4 << 20
)

// NextPage returns the size of the page that follows a page of whole nodes: as many as are likely
// to stay within pageBytes. The first page has NodesPage nodes, and a page is four times as large
// as the one before at most.
func NextPage(page []coord.Node) int {
	size := 0
	for _, n := range page {
		size += 128 + len(n.Value)
	}
	if size == 0 {
		return NodesPage
	}
	return max(1, min(pageBytes*len(page)/size, 4*len(page), largestPage))
}

// ListPatiently lists a directory in a live session. It tries again in the next session, and
// while the service is busy or does not answer, until ctx ends. act is as in [Handle.Backoff].
func (h *Handle) ListPatiently(ctx context.Context, act, dir string, o coord.ListOptions) (l coord.List, err error) {
	err, interrupted := h.Backoff(act).Do(ctx, nil, func() (retry.Decision, error) {
		s, err := h.Session(ctx)
		if err == nil {
			l, err = s.List(ctx, dir, o)
		}
		return retry.Decide(err), err
	})
	return l, cmp.Or(interrupted, err)
}

// Pages yields the nodes of a directory page by page, in name order. The first page is fresh
// if o says so; the later ones need not be, since each begins behind the one before. An error
// is yielded with a nil page and ends the loop.
func Pages(ctx context.Context, s coord.Session, dir string, o coord.ListOptions) iter.Seq2[[]coord.Node, error] {
	return func(yield func([]coord.Node, error) bool) {
		for {
			l, err := s.List(ctx, dir, o)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(l.Nodes, nil) || !l.More || len(l.Nodes) == 0 {
				return
			}
			o.After, o.Fresh = path.Base(l.Nodes[len(l.Nodes)-1].Path), false
			if o.Values && o.Limit > 0 {
				o.Limit = NextPage(l.Nodes)
			}
		}
	}
}
