package main

import (
	"context"
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/bench/load"
)

// backlogGroup is what a long queue costs, and the service's own limit.
func (b *bench) backlogGroup(prefix string) group {
	g := group{
		says: "long queues and the limit: " + prefix,
		rows: []*row{
			atLeast(prefix+"-limit", 0.7, " ×", "take and finish, 16 workers, one at a time, against one bare write per entry, 16 in flight"),
			shown(prefix+"-limit-ceiling", " ×", "only zkq's commits, 4 loops with 4 entries, against one bare write per entry, 16 in flight"),
			atLeast(prefix+"-50k", 0.8, " ×", "rate at a backlog of 50,000 against 1,000, 16 workers"),
			atMost(prefix+"-memory", 64, " MiB", "peak memory of a consumer process at a backlog of 100,000"),
		},
		measure: func(ctx context.Context, b *bench, r map[string]*row) error {
			v, err := b.starter(prefix)(ctx, false)
			if err != nil {
				return err
			}
			root := v.root()
			c, err := load.Open(ctx, v.kind, v.address, root)
			if err != nil {
				return err
			}
			defer c.Close()
			at := func(backlog int) *contender {
				name := fmt.Sprintf("/q%d", backlog)
				return &contender{name: fmt.Sprintf("backlog %d", backlog), series: "zkq, " + v.kind, backlog: backlog, run: func(ctx context.Context) (load.Done, error) {
					return b.drain(ctx, c, name, backlog, 16, 1)
				}}
			}
			bare, end, err := b.bare(v)
			if err != nil {
				return err
			}
			defer end()
			ten := at(10_000)
			most, endMost, err := b.ceiling(ctx, v, 16, 10_000)
			if err != nil {
				return err
			}
			b.compare(ctx, bare, ten, most)
			endMost()
			r[prefix+"-limit"].over(ten, bare)
			r[prefix+"-limit-ceiling"].over(most, bare)
			long, short := at(50_000), at(1_000)
			b.compare(ctx, long, short)
			r[prefix+"-50k"].over(long, short)
			if err := b.memory(ctx, v, root, c, r[prefix+"-memory"]); err != nil {
				r[prefix+"-memory"].Why = err.Error()
			}
			if b.quick {
				return nil
			}
			if row := r["zk-kazoo-16-50k"]; row != nil {
				ours, theirs, _, end, err := b.kazooContenders(ctx, v, 16, 50_000)
				if err != nil {
					return err
				}
				theirs.series, theirs.backlog = "kazoo", 50_000
				b.compare(ctx, ours, theirs)
				end()
				row.over(ours, theirs)
			}
			return b.cleanUp(ctx, v, c, at(200_000), r[prefix+"-200k"], r[prefix+"-purge"], r[prefix+"-restart"])
		},
	}
	if !b.quick {
		if prefix == "zk" {
			g.rows = append(g.rows, shown("zk-kazoo-16-50k", " ×", "get and consume against kazoo, 16 consumers, backlog 50,000"))
		}
		g.rows = append(g.rows,
			shown(prefix+"-200k", "/s", "rate at a backlog of 200,000, 16 workers"),
			shown(prefix+"-purge", "/s", "entries removed by a purge, beside long queues"),
			shown(prefix+"-restart", " s", "until a server that was killed serves again, with some 300,000 entries"))
	}
	return g
}

// cleanUp is what is hard about queues that are too long: to work one off at all, to empty it, to start the server again.
func (b *bench) cleanUp(ctx context.Context, v *service, c *load.Client, longest *contender, rate, purged, restarted *row) error {
	begun := time.Now()
	if err := load.Fill(ctx, c, "/q200000", 200_000); err != nil {
		return err
	}
	filled := time.Since(begun)
	d, err := longest.run(ctx)
	if err != nil {
		return err
	}
	longest.rates = []float64{d.Rate()}
	b.point(longest)
	rate.set(longest.rates, "%d entries taken, first listings included; put at %.0f/s", d.N, 200_000/filled.Seconds())
	begun = time.Now()
	n := 0
	for _, name := range []string{"/q10000", "/q1000"} {
		q := zkq.NewLockingQueue(c, name)
		k, err := q.Purge(ctx, zkq.StateReady)
		q.Close()
		if err != nil {
			return err
		}
		n += k
	}
	purged.set([]float64{float64(n) / time.Since(begun).Seconds()}, "%d entries", n)
	n = 0
	for _, name := range []string{"/q200000", "/q50000", "/memory"} {
		q := zkq.NewLockingQueue(c, name)
		k, err := q.Len(ctx)
		q.Close()
		if err != nil {
			return err
		}
		n += k
	}
	begun = time.Now()
	if err := v.restart(ctx); err != nil {
		return err
	}
	restarted.set([]float64{time.Since(begun).Seconds()}, "%d entries of %d bytes", n, load.Size)
	return nil
}

// bare writes single nodes or keys, 16 in flight on one connection.
func (b *bench) bare(v *service) (*contender, func(), error) {
	if v.kind == load.Etcd {
		e, err := etcdClient(v.address)
		if err != nil {
			return nil, nil, err
		}
		root := v.root()
		return &contender{name: "bare puts", run: func(ctx context.Context) (load.Done, error) {
			return b.hammer(ctx, func(ctx context.Context, i int) error {
				_, err := e.Put(ctx, fmt.Sprintf("%s/%d/%012d", root, time.Now().UnixNano(), i), string(load.Value(i)))
				return err
			})
		}}, func() { e.Close() }, nil
	}
	conn, err := zkConn(v.address)
	if err != nil {
		return nil, nil, err
	}
	root := v.root()
	if _, err := conn.Create(root, nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return &contender{name: "bare creates", run: func(ctx context.Context) (load.Done, error) {
		return b.hammer(ctx, func(_ context.Context, i int) error {
			_, err := conn.Create(root+"/n-", load.Value(i), zk.FlagSequence, zk.WorldACL(zk.PermAll))
			return err
		})
	}}, func() { conn.Close() }, nil
}

// memory is the peak of a process that takes and finishes some thousand entries of a long queue, 16 workers.
func (b *bench) memory(ctx context.Context, v *service, root string, c *load.Client, r *row) error {
	const backlog, taken = 100_000, 3000
	if err := load.Fill(ctx, c, "/memory", backlog); err != nil {
		return err
	}
	ws, err := b.consumers(v, root, "/memory", 1, 16, 1)
	if err != nil {
		return err
	}
	defer ws.kill()
	d, err := ws.work(ctx, taken, 20*time.Second)
	if err != nil {
		return err
	}
	last := ws.all[0].last
	r.set([]float64{float64(last.Peak) / (1 << 20)}, "%d entries taken at %.0f/s; %.0f MiB of it not mapped from files at the end", d.N, d.Rate(), float64(last.Anonymous)/(1<<20))
	return nil
}
