package zkq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/priority"
)

// attempts is what an entry's earlier deliveries came to, in the node of its name
// beside the entries; one that never came back has none. Whoever holds the entry
// writes it, in the commit that gives the entry back, and it goes in the commit
// that removes the entry: while the entry is held it stands still.
type attempts struct {
	Failures int    `json:"failures"`          // deliveries that ended in Fail
	Forgiven int64  `json:"forgiven"`          // deliveries that were nobody's fault
	Updates  int64  `json:"updates,omitempty"` // writes of the value by those who held it, which are forgiven too
	Stuck    int    `json:"stuck,omitempty"`   // failures in which the handler did not return
	Reason   string `json:"reason,omitempty"`  // of the last failure

	path     string
	fence    coord.Fence
	revision int64 // of the commit that wrote them
	there    bool

	key      string // the node of the key that the entry stands for, "" if for none
	keyFence coord.Fence
}

// mostCounted is more than any entry comes to: a larger number was not counted.
const mostCounted = 1 << 40

// maxReason bounds what is kept of a reason, in bytes.
const maxReason = 1024

// cutReason is the beginning of a reason, whole characters of at most n bytes.
func cutReason(reason string, n int) string {
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if len(reason) <= n {
		return reason
	}
	return strings.ToValidUTF8(reason[:max(n, 0)], "")
}

// attempts reads what is known of an entry.
func (p *place) attempts(ctx context.Context, s coord.Session, name string) (attempts, error) {
	a := attempts{path: path.Join(p.root, dirAttempts, name)}
	n, err := s.Get(ctx, a.path)
	if errors.Is(err, coord.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return a, fmt.Errorf("read what became of %s before: %w", name, err)
	}
	return parseAttempts(n), nil
}

// parseAttempts takes what is not ours for nothing known.
func parseAttempts(n coord.Node) attempts {
	var a attempts
	if json.Unmarshal(n.Value, &a) != nil || a.Failures < 0 || a.Forgiven < 0 || a.Updates < 0 || a.Stuck < 0 ||
		max(int64(a.Failures), int64(a.Stuck), a.Forgiven, a.Updates) > mostCounted {
		a = attempts{}
	}
	a.path, a.fence, a.revision, a.there = n.Path, n.Fence, n.Revision, true
	return a
}

// attemptsUpTo reads what is known of the entries after one name up to another.
func (p *place) attemptsUpTo(ctx context.Context, s coord.Session, after, last string) (map[string]attempts, error) {
	known := make(map[string]attempts)
	for after < last {
		l, err := s.List(ctx, path.Join(p.root, dirAttempts), coord.ListOptions{After: after, Limit: nodesPage, Values: true, Fresh: true})
		if err != nil {
			return nil, err
		}
		for _, n := range l.Nodes {
			after = path.Base(n.Path)
			known[after] = parseAttempts(n)
		}
		if !l.More {
			break
		}
	}
	return known, nil
}

// write is the op that leaves a as what is known.
func (a attempts) write() coord.Op {
	value, err := json.Marshal(a)
	if err != nil {
		panic(fmt.Sprintf("zkq: attempts: %v", err)) // a struct of plain fields
	}
	if a.there {
		return coord.Set(a.path, value, a.fence)
	}
	return coord.Create(a.path, value)
}

// forget are the ops that go with the removal of the entry.
func (a attempts) forget() (ops []coord.Op) {
	if a.there {
		ops = append(ops, coord.Delete(a.path, a.fence))
	}
	if a.key != "" {
		ops = append(ops, coord.Delete(a.key, a.keyFence))
	}
	return ops
}

// handOn are the ops that go with the removal of the entry, and those that put what came of
// it. A key that both name stays, and is written: from then on it belongs to what was put.
func (a attempts) handOn(puts []coord.Op) []coord.Op {
	for i, op := range puts {
		if a.key != "" && op.Path == a.key {
			puts[i] = coord.Set(a.key, op.Value, a.keyFence)
			a.key = ""
		}
	}
	return append(a.forget(), puts...)
}

// sweepEvery is how often a handle that gives entries back looks for attempts
// whose entry is gone: kazoo's consume leaves them.
const sweepEvery = time.Hour

// sweepNowAndThen sweeps behind the caller, if it is time.
func (q *LockingQueue) sweepNowAndThen(s coord.Session) {
	now := time.Now().UnixNano()
	if q.swept.CompareAndSwap(0, now) {
		return
	}
	last := q.swept.Load()
	if now-last < int64(sweepEvery) || !q.swept.CompareAndSwap(last, now) || q.closed() {
		return
	}
	q.spawn(func() { q.sweepAttempts(q.life, s) })
}

// sweepAttempts removes attempts whose entry is gone. As no name is created twice
// under the entries, one that is not there never will be. What goes wrong is left
// for the next.
func (p *place) sweepAttempts(ctx context.Context, s coord.Session) {
	for after := ""; ; {
		l, err := s.List(ctx, path.Join(p.root, dirAttempts), coord.ListOptions{After: after, Limit: nodesPage, Values: true})
		if err != nil {
			return
		}
		for _, n := range l.Nodes {
			after = path.Base(n.Path)
			if _, ok := priority.Parse(after); !ok {
				continue // not ours, and no name of a node beside
			}
			_, err := s.Get(ctx, path.Join(p.entries, after))
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
