package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/bench/load"
	"github.com/zkq/zkq/internal/workload"
)

// recipeGroup compares with the two queues that come with etcd's client, and with a counter for the order of puts. The
// recipes neither lock nor acknowledge: what is taken is gone.
func recipeGroup() group {
	return group{
		says: "beside etcd's recipes",
		rows: []*row{
			atLeast("etcd-recipes-1", 1.3, " ×", "take and finish against the better recipe's dequeue, 1 worker, backlog 1,000"),
			atLeast("etcd-recipes-16", 8, " ×", "take and finish against the better recipe's dequeue, 16 workers, backlog 1,000"),
			shown("etcd-ceiling-1", " ×", "only zkq's commits, by one loop, against the better recipe's dequeue, 1 worker, backlog 1,000"),
			shown("etcd-ceiling-16", " ×", "only zkq's commits, by 4 loops with 4 entries each, against the better recipe's dequeue, 16 workers, backlog 1,000"),
			atLeast("etcd-put-counter", 10, " ×", "put against a counter key in the transaction, 16 producers"),
			atLeast("etcd-put-priority", 20, " ×", "put against recipes.PriorityQueue, 16 producers, backlog 1,000"),
			shown("etcd-put-queue", " ×", "put against recipes.Queue, which orders by wall clock, 16 producers"),
		},
		measure: func(ctx context.Context, b *bench, r map[string]*row) error {
			v, err := b.etcd(ctx, false)
			if err != nil {
				return err
			}
			e, err := etcdClient(v.address)
			if err != nil {
				return err
			}
			defer e.Close()
			c, err := v.open(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			for _, workers := range []int{1, 16} {
				const backlog = 1000
				name := fmt.Sprint(workers)
				ours := &contender{name: "zkq", run: func(ctx context.Context) (load.Done, error) {
					return b.drain(ctx, c, "/ours-"+name, backlog, workers, 1)
				}}
				queue := &contender{name: "recipes.Queue", run: func(ctx context.Context) (load.Done, error) {
					return b.dequeue(ctx, e, plainRecipe, v.root(), workers, backlog)
				}}
				prioritized := &contender{name: "recipes.PriorityQueue", run: func(ctx context.Context) (load.Done, error) {
					return b.dequeue(ctx, e, priorityRecipe, v.root(), workers, backlog)
				}}
				most, end, err := b.ceiling(ctx, v, workers, backlog)
				if err != nil {
					return err
				}
				b.compare(ctx, ours, most, queue, prioritized)
				end()
				r["etcd-recipes-"+name].overBest(ours, queue, prioritized)
				r["etcd-ceiling-"+name].overBest(most, queue, prioritized)
			}
			return b.comparePuts(ctx, v, c, e, r)
		},
	}
}

// comparePuts compares the puts of 16 producers.
func (b *bench) comparePuts(ctx context.Context, v *service, c *load.Client, e *clientv3.Client, r map[string]*row) error {
	q := zkq.NewLockingQueue(c, "/puts")
	defer q.Close()
	ours := &contender{name: "zkq", run: func(ctx context.Context) (load.Done, error) {
		return b.hammer(ctx, func(ctx context.Context, i int) error {
			_, err := q.Put(ctx, load.Value(i))
			return err
		})
	}}
	counted := &contender{name: "a counter key", run: func(ctx context.Context) (load.Done, error) {
		root := v.root()
		return b.hammer(ctx, func(ctx context.Context, i int) error { return putCounted(ctx, e, root, load.Value(i)) })
	}}
	queue := &contender{name: "recipes.Queue", run: func(ctx context.Context) (load.Done, error) {
		rq := recipe.NewQueue(e, v.root())
		return b.hammer(ctx, func(_ context.Context, i int) error { return rq.Enqueue(string(load.Value(i))) })
	}}
	prioritized := &contender{name: "recipes.PriorityQueue", run: func(ctx context.Context) (load.Done, error) {
		root := v.root()
		if err := fillRecipe(ctx, e, priorityRecipe, root, 1000); err != nil {
			return load.Done{}, err
		}
		rq := recipe.NewPriorityQueue(e, root)
		return b.hammer(ctx, func(_ context.Context, i int) error { return rq.Enqueue(string(load.Value(i)), 100) })
	}}
	b.compare(ctx, ours, counted, prioritized, queue)
	r["etcd-put-counter"].over(ours, counted)
	r["etcd-put-priority"].over(ours, prioritized)
	r["etcd-put-queue"].over(ours, queue)
	return nil
}

// hammer has 16 goroutines do something for half of a measurement's time.
func (b *bench) hammer(ctx context.Context, do func(ctx context.Context, i int) error) (load.Done, error) {
	var n atomic.Int64
	begun := time.Now()
	end := begun.Add(b.cell / 2)
	err := workload.InParallel(16, func(int) error {
		for time.Now().Before(end) {
			if err := do(ctx, int(n.Add(1))); err != nil {
				return err
			}
		}
		return nil
	})
	return load.Done{N: int(n.Load()), Took: time.Since(begun)}, err
}

// putCounted puts a value under the next number of a counter that the same transaction moves on.
func putCounted(ctx context.Context, e *clientv3.Client, root string, value []byte) error {
	key := root + "/counter"
	for n, revision := 0, int64(0); ; {
		answer, err := e.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
			Then(clientv3.OpPut(key, strconv.Itoa(n+1)), clientv3.OpPut(fmt.Sprintf("%s/q/%012d", root, n+1), string(value))).
			Else(clientv3.OpGet(key)).Commit()
		if err != nil || answer.Succeeded {
			return err
		}
		kv := answer.Responses[0].GetResponseRange().Kvs[0]
		revision = kv.ModRevision
		if n, err = strconv.Atoi(string(kv.Value)); err != nil {
			return err
		}
	}
}

// The recipes.
const (
	plainRecipe = iota
	priorityRecipe
)

// fillRecipe writes what Enqueue would have, many in a transaction: it is not what is measured.
func fillRecipe(ctx context.Context, e *clientv3.Client, kind int, root string, n int) error {
	for from := 0; from < n; from += 100 {
		var ops []clientv3.Op
		for i := from; i < min(from+100, n); i++ {
			key := fmt.Sprintf("%s/%d", root, 1_000_000_000_000+i)
			if kind == priorityRecipe {
				key = fmt.Sprintf("%s/%05d/%016d", root, 100, i)
			}
			ops = append(ops, clientv3.OpPut(key, string(load.Value(i))))
		}
		if _, err := e.Txn(ctx).Then(ops...).Commit(); err != nil {
			return err
		}
	}
	return nil
}

// dequeue has workers dequeue from a backlog down to half of it, for as long as the bench has.
func (b *bench) dequeue(ctx context.Context, e *clientv3.Client, kind int, root string, workers, backlog int) (load.Done, error) {
	if err := fillRecipe(ctx, e, kind, root, backlog); err != nil {
		return load.Done{}, err
	}
	take := recipe.NewQueue(e, root).Dequeue
	if kind == priorityRecipe {
		take = recipe.NewPriorityQueue(e, root).Dequeue
	}
	var n, last, left atomic.Int64
	left.Store(int64(backlog / 2))
	begun := time.Now()
	end := begun.Add(b.cell)
	err := workload.InParallel(workers, func(int) error {
		for time.Now().Before(end) && left.Add(-1) >= 0 {
			if _, err := take(); err != nil {
				return err
			}
			n.Add(1)
			last.Store(int64(time.Since(begun)))
		}
		return nil
	})
	if err == nil && n.Load() == 0 {
		err = errors.New("nothing was dequeued")
	}
	return load.Done{N: int(n.Load()), Took: time.Duration(last.Load())}, err
}
