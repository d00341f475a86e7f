package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/bench/load"
)

// flowGroup is the whole way through each system, from 16 putters to 16 workers, on the disk as it is or a slow one.
func flowGroup(slow bool) group {
	at, says := "e2e-", "put, take and finish, 16 putters and 16 workers, against "
	if slow {
		at, says = "slow-e2e-", "slow disk: "+says
	}
	var rows []*row
	for _, broker := range []string{"asynq", "beanstalkd", "nats"} {
		text := says + map[string]string{
			"asynq": "asynq on Redis (appendfsync always)", "beanstalkd": "beanstalkd (-f 0)", "nats": "NATS JetStream (sync_interval: always)",
		}[broker]
		switch {
		case slow:
			rows = append(rows, atLeast("zk-"+at+broker, 5, " ×", text), atLeast("etcd-"+at+broker, 4, " ×", text))
		default:
			rows = append(rows, atLeast("zk-"+at+broker, 1, " ×", text), shown("etcd-"+at+broker, " ×", text))
		}
	}
	for _, other := range []string{"river", "river-1ms", "kazoo"} {
		text := says + map[string]string{
			"river": "River on PostgreSQL", "river-1ms": "River with FetchCooldown 1 ms", "kazoo": "kazoo, 4 processes with 4 putters and 4 workers",
		}[other]
		rows = append(rows, shown("zk-"+at+other, " ×", text))
		if other != "kazoo" {
			rows = append(rows, shown("etcd-"+at+other, " ×", text))
		}
	}
	return group{
		says: map[bool]string{false: "from put to finish beside brokers", true: "the same with 2 ms added to every sync"}[slow],
		rows: rows,
		measure: func(ctx context.Context, b *bench, r map[string]*row) error {
			return b.compareFlows(ctx, slow, at, r)
		},
	}
}

func (b *bench) compareFlows(ctx context.Context, slow bool, at string, r map[string]*row) error {
	all := map[string]*contender{}
	var order []*contender
	add := func(key, name string, s *process, err error, open func(context.Context) (pipe, error)) {
		c := &contender{name: name, err: err}
		if err == nil {
			c = b.flow(name, open)
			if slow {
				c.run = countSyncs(s, c.run)
			}
		}
		all[key] = c
		order = append(order, c)
	}
	zookeeper, zkErr := b.zookeeper(ctx, slow)
	add("zk", "zkq on ZooKeeper", zookeeper.server(), zkErr, func(ctx context.Context) (pipe, error) { return newOurs(ctx, zookeeper) })
	etcd, err := b.etcd(ctx, slow)
	add("etcd", "zkq on etcd", etcd.server(), err, func(ctx context.Context) (pipe, error) { return newOurs(ctx, etcd) })
	redis, err := b.redis(ctx, slow)
	add("asynq", "asynq", redis, err, newAsynq(redis))
	beanstalkd, err := b.beanstalkd(ctx, slow)
	add("beanstalkd", "beanstalkd", beanstalkd, err, newBeanstalk(beanstalkd))
	nats, err := b.nats(ctx, slow)
	add("nats", "NATS JetStream", nats, err, newNATS(nats))
	postgres, err := b.postgres(ctx, slow)
	add("river", "River", postgres, err, newRiver(postgres, 0))
	add("river-1ms", "River, cooldown 1 ms", postgres, err, newRiver(postgres, time.Millisecond))
	kazoo := &contender{name: "kazoo", err: zkErr, run: func(ctx context.Context) (load.Done, error) {
		return b.kazooFlow(ctx, zookeeper)
	}}
	all["kazoo"] = kazoo
	b.compare(ctx, append(order, kazoo)...)
	for key, theirs := range all {
		for _, mine := range []string{"zk", "etcd"} {
			if row := r[mine+"-"+at+key]; row != nil {
				row.over(all[mine], theirs)
			}
		}
	}
	return nil
}

// server is the process of a service, or nil.
func (v *service) server() *process {
	if v == nil {
		return nil
	}
	return v.process
}

// countSyncs makes sure that the slow disk is one: a system that was not seen to sync is not measured.
func countSyncs(s *process, run func(context.Context) (load.Done, error)) func(context.Context) (load.Done, error) {
	return func(ctx context.Context) (load.Done, error) {
		before := s.synced()
		d, err := run(ctx)
		if n := s.synced() - before; err == nil && n == 0 {
			err = fmt.Errorf("%s was not seen to sync anything", s.name)
		}
		return d, err
	}
}

// kazooFlow is kazoo's way from put to finish.
func (b *bench) kazooFlow(ctx context.Context, v *service) (load.Done, error) {
	const processes, threads = 4, 4
	puts := max(int(10*b.cell.Seconds()), 8) // of each thread
	root := v.root()
	c, err := load.Open(ctx, v.kind, v.address, root) // makes the root
	if err != nil {
		return load.Done{}, err
	}
	defer c.Close()
	ws, err := b.kazooWorkers(v, root, "/q", "both", processes, threads, puts)
	if err != nil {
		return load.Done{}, err
	}
	defer ws.kill()
	n := processes * threads * puts
	d, err := ws.work(ctx, n, time.Minute)
	if err == nil && d.N < n {
		err = fmt.Errorf("%d of %d values came", d.N, n)
	}
	return d, err
}

// slowGroup is kazoo on the slow disk, and how long an entry is under way there.
func slowGroup() group {
	const latency = "put to worker at 100/s, slow disk: "
	return group{
		says: "kazoo and latency with 2 ms added to every sync",
		rows: []*row{
			atLeast("zk-slow-kazoo-1-1k", 2, " ×", "slow disk: get and consume against kazoo, 1 consumer, backlog 1,000"),
			atLeast("zk-slow-kazoo-16-1k", 15, " ×", "slow disk: get and consume against kazoo, 16 consumers, backlog 1,000"),
			atMost("zk-slow-p50", 2.5, " ×", latency+"p50 against that of one bare commit, ZooKeeper"),
			atMost("zk-slow-p99", 3, " ×", latency+"p99 against p50, ZooKeeper"),
			atMost("etcd-slow-p50", 2.5, " ×", latency+"p50 against that of one bare commit, etcd"),
			atMost("etcd-slow-p99", 3, " ×", latency+"p99 against p50, etcd"),
			shown("beanstalkd-slow-p50", " ms", latency+"p50 of beanstalkd, which takes one sync where a lock takes two"),
			shown("nats-slow-p50", " ms", latency+"p50 of NATS JetStream, the same"),
			shown("asynq-slow-p50", " ms", latency+"p50 of asynq"),
		},
		measure: func(ctx context.Context, b *bench, r map[string]*row) error {
			v, err := b.zookeeper(ctx, true)
			if err != nil {
				return err
			}
			for _, workers := range []int{1, 16} {
				ours, theirs, _, end, err := b.kazooContenders(ctx, v, workers, 1000)
				if err != nil {
					return err
				}
				b.compare(ctx, ours, theirs)
				end()
				r[fmt.Sprintf("zk-slow-kazoo-%d-1k", workers)].over(ours, theirs)
			}
			if err := b.latency(ctx, v, r["zk-slow-p50"], r["zk-slow-p99"]); err != nil {
				r["zk-slow-p50"].Why, r["zk-slow-p99"].Why = err.Error(), err.Error()
			}
			b.stop()
			if v, err = b.etcd(ctx, true); err == nil {
				err = b.latency(ctx, v, r["etcd-slow-p50"], r["etcd-slow-p99"])
			}
			if err != nil {
				r["etcd-slow-p50"].Why, r["etcd-slow-p99"].Why = err.Error(), err.Error()
			}
			b.stop()
			for name, broker := range map[string]struct {
				start func(context.Context, bool) (*process, error)
				open  func(*process) func(context.Context) (pipe, error)
			}{"beanstalkd": {b.beanstalkd, newBeanstalk}, "nats": {b.nats, newNATS}, "asynq": {b.redis, newAsynq}} {
				row := r[name+"-slow-p50"]
				if err := b.brokerLatency(ctx, row, broker.start, broker.open); err != nil {
					row.Why = err.Error()
				}
			}
			return nil
		},
	}
}

// brokerLatency sets a row to the p50 of a broker.
func (b *bench) brokerLatency(ctx context.Context, r *row, start func(context.Context, bool) (*process, error), open func(*process) func(context.Context) (pipe, error)) error {
	s, err := start(ctx, true)
	if err != nil {
		return err
	}
	p, err := open(s)(ctx)
	if err != nil {
		return err
	}
	defer p.close()
	st, err := newStream(ctx, p)
	if err != nil {
		return err
	}
	defer st.end()
	took, err := st.paced(ctx, int(100*b.cell.Seconds()))
	if err != nil {
		return err
	}
	r.set([]float64{milliseconds(at(took, 50))}, "p99 %.1f ms", milliseconds(at(took, 99)))
	return nil
}

// latency measures bare commits and entries' ways in turns.
func (b *bench) latency(ctx context.Context, v *service, p50, p99 *row) error {
	bare, end, err := b.bareCommit(v)
	if err != nil {
		return err
	}
	defer end()
	p, err := newOurs(ctx, v)
	if err != nil {
		return err
	}
	defer p.close()
	s, err := newStream(ctx, p)
	if err != nil {
		return err
	}
	defer s.end()
	var halves, tails, ours, commits []float64
	for range b.rounds {
		n := int(100 * b.cell.Seconds())
		var single []time.Duration
		tick := time.NewTicker(10 * time.Millisecond)
		for i := range n {
			<-tick.C
			begun := time.Now()
			if err := bare(ctx, i); err != nil {
				tick.Stop()
				return err
			}
			single = append(single, time.Since(begun))
		}
		tick.Stop()
		slices.Sort(single)
		took, err := s.paced(ctx, n)
		if err != nil {
			return err
		}
		halves = append(halves, float64(at(took, 50))/float64(at(single, 50)))
		tails = append(tails, float64(at(took, 99))/float64(at(took, 50)))
		ours = append(ours, milliseconds(at(took, 50)))
		commits = append(commits, milliseconds(at(single, 50)))
	}
	slices.Sort(ours)
	slices.Sort(commits)
	p50.set(halves, "%.1f ms, a bare commit %.1f ms", median(ours), median(commits))
	p99.set(tails, "p50 %.1f ms", median(ours))
	return nil
}

// bareCommit writes one node or key.
func (b *bench) bareCommit(v *service) (func(context.Context, int) error, func(), error) {
	root := v.root()
	if v.kind == load.Etcd {
		e, err := etcdClient(v.address)
		if err != nil {
			return nil, nil, err
		}
		return func(ctx context.Context, i int) error {
			_, err := e.Put(ctx, fmt.Sprintf("%s/%d", root, i), string(load.Value(i)))
			return err
		}, func() { e.Close() }, nil
	}
	conn, err := zkConn(v.address)
	if err != nil {
		return nil, nil, err
	}
	if _, err := conn.Create(root, nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return func(_ context.Context, i int) error {
		_, err := conn.Create(root+"/n-", load.Value(i), zk.FlagSequence, zk.WorldACL(zk.PermAll))
		return err
	}, conn.Close, nil
}

// at is a percentile of sorted times.
func at(sorted []time.Duration, percent int) time.Duration {
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
