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

// history is what an entry's earlier deliveries came to, and where that is written. The
// holder of the entry writes it, in the commit that gives the entry back; the commit that
// removes the entry removes it. So it does not change while the entry is held.
type history struct {
	layout.History

	path     string
	fence    coord.Fence
	revision int64 // of the commit that wrote it
	there    bool  // its node exists

	key      string // the node of the key that the entry stands for, "" if for none
	keyFence coord.Fence
}

// histories reads and sweeps the histories of a queue's entries.
type histories struct {
	*handle.Handle
	swept atomic.Int64 // Unix nanoseconds of the last sweep by this handle; 0: none yet
}

// readHistory reads what became of an entry before.
func (hs *histories) readHistory(ctx context.Context, s coord.Session, name string) (history, error) {
	a := history{path: path.Join(hs.Root, layout.HistoryDir, name)}
	n, err := s.Get(ctx, a.path)
	if errors.Is(err, coord.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return a, fmt.Errorf("read what became of %s before: %w", name, err)
	}
	return parseHistory(n), nil
}

// parseHistory is the history in a node.
func parseHistory(n coord.Node) history {
	return history{History: layout.ParseHistory(n.Value), path: n.Path, fence: n.Fence, revision: n.Revision, there: true}
}

// readHistoriesUpTo reads what is known of the entries after one name up to another.
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

// write is the op that leaves h as what is known.
func (h history) write() coord.Op {
	if h.there {
		return coord.Set(h.path, h.Value(), h.fence)
	}
	return coord.Create(h.path, h.Value())
}

// forget are the ops that go with the removal of the entry.
func (h history) forget() (ops []coord.Op) {
	if h.there {
		ops = append(ops, coord.Delete(h.path, h.fence))
	}
	if h.key != "" {
		ops = append(ops, coord.Delete(h.key, h.keyFence))
	}
	return ops
}

// handOn are the ops that go with the removal of the entry, and those that put what came of
// it. A key that both name stays, and is written: from then on it belongs to what was put.
func (h history) handOn(puts []coord.Op) []coord.Op {
	for i, op := range puts {
		if h.key != "" && op.Path == h.key {
			puts[i] = coord.Set(h.key, op.Value, h.keyFence)
			h.key = ""
		}
	}
	return append(h.forget(), puts...)
}

// sweepEvery is how often a handle that gives entries back looks for attempts
// whose entry is gone: kazoo's consume leaves them.
const sweepEvery = time.Hour

// sweepIfDue sweeps behind the caller, if it is time.
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

// sweepHistories removes attempts whose entry is gone. As no name is created twice
// under the entries, one that is not there never will be. What goes wrong is left
// for the next.
func (hs *histories) sweepHistories(ctx context.Context, s coord.Session) {
	for after := ""; ; {
		l, err := s.List(ctx, path.Join(hs.Root, layout.HistoryDir), coord.ListOptions{After: after, Limit: handle.NodesPage, Values: true})
		if err != nil {
			return
		}
		for _, n := range l.Nodes {
			after = path.Base(n.Path)
			if _, ok := priority.Parse(after); !ok {
				continue // not ours, and no name of a node beside
			}
			_, err := s.Get(ctx, path.Join(hs.Entries, after))
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
		if !l.More {
			return
		}
	}
}
