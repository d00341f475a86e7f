package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/priority"
)

// history is what an entry's earlier deliveries came to, and the node that says so. The
// holder of the entry writes the node in the commit that gives the entry back, and the
// commit that removes the entry removes it. So it does not change while the entry is held.
type history struct {
	layout.History

	path     string
	fence    coord.Fence
	revision int64 // of the commit that wrote the node
	exists   bool  // the node does

	key      string // the node of the key that the entry stands for, "" if for none
	keyFence coord.Fence
}

// histories reads and sweeps the histories of a queue's entries.
type histories struct {
	*handle.Handle
	swept atomic.Int64 // Unix nanoseconds of the last sweep by this handle; 0: none yet
}

// readHistory reads the history of an entry; it is empty where there is no node.
func (hs *histories) readHistory(ctx context.Context, s coord.Session, name string) (history, error) {
	h := history{path: path.Join(hs.Root, layout.HistoryDir, name)}
	n, err := s.Get(ctx, h.path)
	if errors.Is(err, coord.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return h, fmt.Errorf("read what became of %s before: %w", name, err)
	}
	return parseHistory(n), nil
}

// parseHistory returns the history in a node.
func parseHistory(n coord.Node) history {
	return history{History: layout.ParseHistory(n.Value), path: n.Path, fence: n.Fence, revision: n.Revision, exists: true}
}

// readHistoriesUpTo reads the histories of the entries after one name, up to another.
func (hs *histories) readHistoriesUpTo(ctx context.Context, s coord.Session, after, last string) (map[string]history, error) {
	known := make(map[string]history)
	for after < last {
		l, err := s.List(ctx, path.Join(hs.Root, layout.HistoryDir), coord.ListOptions{After: after, Limit: handle.NodesPage, Values: true, Fresh: true})
		if err != nil {
			return nil, err
		}
		for _, n := range l.Nodes {
			after = path.Base(n.Path)
			known[after] = parseHistory(n)
		}
		if !l.More {
			break
		}
	}
	return known, nil
}

// writeOp returns the op that stores h.
func (h history) writeOp() coord.Op {
	if h.exists {
		return coord.Set(h.path, h.Value(), h.fence)
	}
	return coord.Create(h.path, h.Value())
}

// removeOps returns the ops to commit together with the removal of the entry.
func (h history) removeOps() (ops []coord.Op) {
	if h.exists {
		ops = append(ops, coord.Delete(h.path, h.fence))
	}
	if h.key != "" {
		ops = append(ops, coord.Delete(h.key, h.keyFence))
	}
	return ops
}

// handOverOps returns the ops to commit together with the removal of the entry and the puts
// of its results. If a put has the entry's own unique key, the key's node is written instead
// of removed: from then on it belongs to the new entry.
func (h history) handOverOps(puts []coord.Op) []coord.Op {
	for i, op := range puts {
		if h.key != "" && op.Path == h.key {
			puts[i] = coord.Set(h.key, op.Value, h.keyFence)
			h.key = ""
		}
	}
	return append(h.removeOps(), puts...)
}

// sweepEvery is how often a handle that gives entries back looks for histories whose entry
// is gone: kazoo's consume leaves them behind.
const sweepEvery = time.Hour

// sweepIfDue sweeps in the background, if it is time.
func (hs *histories) sweepIfDue(s coord.Session) {
	now := time.Now().UnixNano()
	if hs.swept.CompareAndSwap(0, now) {
		return
	}
	last := hs.swept.Load()
	if now-last < int64(sweepEvery) || !hs.swept.CompareAndSwap(last, now) || hs.IsClosed() {
		return
	}
	hs.Spawn(func() { hs.sweepHistories(hs.Life, s) })
}

// sweepHistories removes histories whose entry is gone. No name among the entries is created
// twice, so an entry that does not exist never will. After an error, a later sweep goes on.
func (hs *histories) sweepHistories(ctx context.Context, s coord.Session) {
	for page, err := range handle.Pages(ctx, s, path.Join(hs.Root, layout.HistoryDir), coord.ListOptions{Limit: handle.NodesPage, Values: true}) {
		if err != nil {
			return
		}
		for _, n := range page {
			name := path.Base(n.Path)
			if _, ok := priority.Parse(name); !ok {
				continue // another client's node
			}
			_, err := s.Get(ctx, path.Join(hs.Entries, name))
			if err == nil {
				continue
			}
			if errors.Is(err, coord.ErrNotExist) {
				_, err = s.Commit(ctx, coord.Delete(n.Path, n.Fence))
			}
			if err != nil && !retry.IsRefused(err) {
				return
			}
		}
	}
}
