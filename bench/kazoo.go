package main

import (
	"context"
	"fmt"

	"github.com/zkq/zkq/bench/load"
)

// kazooGroup compares with kazoo on one server, and with its steps in Go.
func kazooGroup() group {
	return group{
		says: "beside kazoo",
		rows: []*row{
			atLeast("zk-kazoo-1-1k", 5, " ×", "get and consume against kazoo, 1 consumer, backlog 1,000"),
			atLeast("zk-kazoo-16-1k", 40, " ×", "get and consume against kazoo, 16 consumers, backlog 1,000"),
			atLeast("zk-kazoo-16-10k", 200, " ×", "get and consume against kazoo, 16 consumers, backlog 10,000"),
			shown("zk-naive-1-1k", " ×", "the same against kazoo's steps in Go, 1 consumer, backlog 1,000"),
			shown("zk-naive-16-1k", " ×", "the same against kazoo's steps in Go, 16 consumers, backlog 1,000"),
			shown("zk-naive-16-10k", " ×", "the same against kazoo's steps in Go, 16 consumers, backlog 10,000"),
			shown("zk-ceiling-1-1k", " ×", "only zkq's commits, by one loop, against kazoo, 1 consumer, backlog 1,000"),
			shown("zk-ceiling-16-1k", " ×", "only zkq's commits, by 4 loops with 4 entries each, against kazoo, 16 consumers, backlog 1,000"),
			shown("zk-ceiling-16-10k", " ×", "only zkq's commits, by 4 loops with 4 entries each, against kazoo, 16 consumers, backlog 10,000"),
		},
		measure: func(ctx context.Context, b *bench, r map[string]*row) error {
			v, err := b.zookeeper(ctx, false)
			if err != nil {
				return err
			}
			for _, at := range []struct {
				name             string
				workers, backlog int
			}{{"1-1k", 1, 1000}, {"16-1k", 16, 1000}, {"16-10k", 16, 10000}} {
				ours, theirs, naive, end, err := b.kazooContenders(ctx, v, at.workers, at.backlog)
				if err != nil {
					return err
				}
				if at.workers > 1 {
					theirs.series, theirs.backlog = "kazoo", at.backlog
				}
				most, endMost, err := b.ceiling(ctx, v, at.workers, at.backlog)
				if err != nil {
					end()
					return err
				}
				b.compare(ctx, ours, most, naive, theirs)
				end()
				endMost()
				r["zk-kazoo-"+at.name].over(ours, theirs)
				r["zk-naive-"+at.name].over(ours, naive)
				r["zk-ceiling-"+at.name].over(most, theirs)
			}
			return nil
		},
	}
}

// kazooContenders are ours, kazoo and the naive port, each with a queue of its own at the backlog. kazoo's 16 consumers
// are 4 processes with 4 threads, which is its best way to have them.
func (b *bench) kazooContenders(ctx context.Context, v *service, workers, backlog int) (ours, theirs, port *contender, end func(), err error) {
	root := v.root()
	c, err := load.Open(ctx, v.kind, v.address, root)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	conn, err := zkConn(v.address)
	if err != nil {
		c.Close()
		return nil, nil, nil, nil, err
	}
	processes := min(workers, 4)
	ours = &contender{name: "zkq", run: func(ctx context.Context) (load.Done, error) {
		return b.drain(ctx, c, "/ours", backlog, workers, 1)
	}}
	theirs = &contender{name: "kazoo", run: func(ctx context.Context) (load.Done, error) {
		if err := refill(ctx, c, "/theirs", backlog); err != nil {
			return load.Done{}, err
		}
		ws, err := b.kazooWorkers(v, root, "/theirs", "work", processes, workers/processes, 0)
		if err != nil {
			return load.Done{}, err
		}
		defer ws.kill()
		d, err := ws.work(ctx, backlog/2, b.cell)
		if err == nil && d.N == 0 {
			err = fmt.Errorf("took nothing in %v", b.cell)
		}
		return d, err
	}}
	port = &contender{name: "kazoo's steps in Go", run: func(ctx context.Context) (load.Done, error) {
		if err := refill(ctx, c, "/port", backlog); err != nil {
			return load.Done{}, err
		}
		return newNaive(conn, root+"/port").drain(ctx, workers, backlog/2, b.cell)
	}}
	return ours, theirs, port, func() { conn.Close(); c.Close() }, nil
}
