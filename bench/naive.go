package main

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/bench/load"
	"github.com/zkq/zkq/internal/workload"
)

// naive is kazoo's LockingQueue step by step in Go, for what the language alone is worth: two listings for each entry, a
// lock at the head, the value, and one transaction that removes both.
type naive struct {
	conn           *zk.Conn
	entries, taken string
}

func newNaive(c *zk.Conn, queue string) *naive {
	return &naive{c, queue + "/entries", queue + "/taken"}
}

// drain has workers take and finish entries until there were most of them or the time is over.
func (q *naive) drain(ctx context.Context, workers, most int, limit time.Duration) (load.Done, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if _, err := q.conn.Create(q.taken, nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
		return load.Done{}, err
	}
	var n, last atomic.Int64
	begun := time.Now()
	err := workload.InParallel(workers, func(int) error {
		for ctx.Err() == nil {
			name, err := q.take()
			if err != nil {
				return err
			}
			if name == "" {
				continue
			}
			if _, err := q.conn.Multi(
				&zk.DeleteRequest{Path: path.Join(q.entries, name), Version: -1},
				&zk.DeleteRequest{Path: path.Join(q.taken, name), Version: -1}); err != nil {
				return err
			}
			last.Store(int64(time.Since(begun)))
			if n.Add(1) >= int64(most) {
				cancel()
			}
		}
		return nil
	})
	return load.Done{N: int(n.Load()), Took: time.Duration(last.Load())}, err
}

// take locks the first entry that no worker holds; "" when others were faster.
func (q *naive) take() (string, error) {
	taken, _, err := q.conn.Children(q.taken)
	if err != nil {
		return "", err
	}
	entries, _, err := q.conn.Children(q.entries)
	if err != nil {
		return "", err
	}
	held := make(map[string]bool, len(taken))
	for _, name := range taken {
		held[name] = true
	}
	entries = slices.DeleteFunc(entries, func(name string) bool { return held[name] || !strings.HasPrefix(name, "entry-") })
	if len(entries) == 0 {
		return "", nil
	}
	slices.Sort(entries)
	name := entries[0]
	lock := path.Join(q.taken, name)
	_, err = q.conn.Create(lock, nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
	if errors.Is(err, zk.ErrNodeExists) {
		return "", nil // look again
	}
	if err != nil {
		return "", err
	}
	_, _, err = q.conn.Get(path.Join(q.entries, name))
	if errors.Is(err, zk.ErrNoNode) { // finished before we locked it
		err = q.conn.Delete(lock, -1)
		return "", err
	}
	return name, err
}
