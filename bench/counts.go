package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/bench/load"
)

// starter starts a service of a kind.
type starter func(ctx context.Context, slow bool) (*service, error)

// countGroup counts requests, which carry no noise. The design asks for those of a claim and a finish on ZooKeeper.
func countGroup(prefix string, bound bool) group {
	requests := func(name string, most float64, says string) *row {
		if bound {
			return atMost(prefix+name, most, "", says)
		}
		return shown(prefix+name, "", says)
	}
	g := group{
		says: "requests, counted by the server: " + prefix,
		rows: []*row{
			requests("-requests-1", 2.1, "requests per entry taken and finished, 1 worker"),
			requests("-requests-16x8", 1.1, "requests per entry taken and finished, 16 workers, 8 at a time"),
			atMost(prefix+"-lost-4x4", 0.1, "", "lost claims per entry, 4 processes with 4 workers"),
			atMost(prefix+"-requests-idle", 10, "", "requests per entry, 16 waiting workers in a process, 10 puts a second"),
			atMost(prefix+"-requests-bound", 1, "", "requests per put into a queue with an exact bound, 16 producers in a process"),
			atMost(prefix+"-idle", 0.2, "/s", "requests of 16 waiting workers while nothing is put, heartbeats aside"),
		},
		measure: func(ctx context.Context, b *bench, r map[string]*row) error {
			v, err := b.starter(prefix)(ctx, false)
			if err != nil {
				return err
			}
			if err := b.countTakes(ctx, v, r[prefix+"-requests-1"], r[prefix+"-listings"], 1, 1); err != nil {
				return err
			}
			if err := b.countTakes(ctx, v, r[prefix+"-requests-16x8"], nil, 16, 8); err != nil {
				return err
			}
			if err := b.countLost(ctx, v, r[prefix+"-lost-4x4"]); err != nil {
				return err
			}
			if err := b.countBound(ctx, v, r[prefix+"-requests-bound"]); err != nil {
				return err
			}
			return b.countWaiting(ctx, v, r[prefix+"-requests-idle"], r[prefix+"-idle"])
		},
	}
	if bound {
		g.rows = append(g.rows, atMost(prefix+"-listings", 0.05, "", "listings per entry taken and finished, 1 worker"))
	}
	return g
}

// countTakes counts the requests of a drain, and the listings if there is a row for them.
func (b *bench) countTakes(ctx context.Context, v *service, r, listings *row, workers, batch int) error {
	const n = 4000
	c, err := v.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := load.Fill(ctx, c, "/q", 2*n); err != nil {
		return err
	}
	q := zkq.NewLockingQueue(c, "/q")
	defer q.Close()
	before, err := v.requests(ctx)
	if err != nil {
		return err
	}
	pings, listed := c.Pings.Load(), c.Listings.Load()
	d, err := load.Drain(ctx, q, workers, batch, n, 5*b.cell)
	if err != nil {
		return err
	}
	after, err := v.requests(ctx)
	if err != nil {
		return err
	}
	pings = c.Pings.Load() - pings
	r.set([]float64{float64(after-before-int(pings)) / float64(d.N)}, "%d requests, %d entries", after-before-int(pings), d.N)
	if listings != nil {
		listed = c.Listings.Load() - listed
		listings.set([]float64{float64(listed) / float64(d.N)}, "%d listings, %d entries", listed, d.N)
	}
	return nil
}

// countLost counts the commits that were refused to processes that work beside each other.
func (b *bench) countLost(ctx context.Context, v *service, r *row) error {
	const n = 4000
	root := v.root()
	c, err := load.Open(ctx, v.kind, v.address, root)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := load.Fill(ctx, c, "/q", 2*n); err != nil {
		return err
	}
	ws, err := b.consumers(v, root, "/q", 4, 4, 1)
	if err != nil {
		return err
	}
	defer ws.kill()
	d, err := ws.work(ctx, n, 5*b.cell)
	if err != nil {
		return err
	}
	lost := 0
	for _, w := range ws.all {
		lost += w.last.Lost
	}
	if d.N == 0 {
		return errors.New("four processes took nothing")
	}
	r.set([]float64{float64(lost) / float64(d.N)}, "%d lost, %d entries, %.0f/s", lost, d.N, d.Rate())
	return nil
}

// countBound counts the requests of producers that share a handle and an exact bound.
func (b *bench) countBound(ctx context.Context, v *service, r *row) error {
	const producers, n = 16, 1600
	c, err := v.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	q := zkq.NewLockingQueue(c, "/bound")
	defer q.Close()
	if err := q.Create(ctx, zkq.QueueConfig{MaxEntries: 2 * n}); err != nil {
		return err
	}
	put := func(n int) error {
		errs := make([]error, producers)
		var producing sync.WaitGroup
		for i := range errs {
			producing.Go(func() {
				for k := 0; k < n/producers && errs[i] == nil; k++ {
					_, errs[i] = q.Put(ctx, load.Value(0))
				}
			})
		}
		producing.Wait()
		return errors.Join(errs...)
	}
	if err := put(2 * producers); err != nil { // opens the lanes
		return err
	}
	before, err := v.requests(ctx)
	if err != nil {
		return err
	}
	pings, start := c.Pings.Load(), time.Now()
	if err := put(n); err != nil {
		return err
	}
	took := time.Since(start)
	after, err := v.requests(ctx)
	if err != nil {
		return err
	}
	requests := after - before - int(c.Pings.Load()-pings)
	r.set([]float64{float64(requests) / n}, "%d requests, %d puts, %.0f/s", requests, n, n/took.Seconds())
	return nil
}

// countWaiting counts what workers cost that wait.
func (b *bench) countWaiting(ctx context.Context, v *service, puts, idle *row) error {
	c, err := v.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	q := zkq.NewLockingQueue(c, "/q")
	defer q.Close()
	working, stop := context.WithCancel(ctx)
	defer stop()
	seen := make(chan struct{}, 1024)
	ended := make(chan error, 1)
	go func() {
		ended <- load.Work(working, q, 16, 1, func(*zkq.Held) { seen <- struct{}{} }, func(int) {})
	}()
	put := func(n int) error {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for range n {
			<-tick.C
			if _, err := q.Put(ctx, load.Value(0)); err != nil {
				return err
			}
		}
		for range n {
			select {
			case <-seen:
			case <-time.After(10 * time.Second):
				return errors.New("an entry that was put was not taken")
			}
		}
		return nil
	}
	counted := func(do func() error) (int, error) {
		before, err := v.requests(ctx)
		if err != nil {
			return 0, err
		}
		pings := c.Pings.Load()
		if err := do(); err != nil {
			return 0, err
		}
		time.Sleep(100 * time.Millisecond) // the last finish
		after, err := v.requests(ctx)
		return after - before - int(c.Pings.Load()-pings), err
	}
	if err := put(5); err != nil { // everyone waits, the queue's nodes are there
		return err
	}
	time.Sleep(time.Second)
	const n = 30
	k, err := counted(func() error { return put(n) })
	if err != nil {
		return err
	}
	puts.set([]float64{float64(k) / n}, "%d requests, %d entries, the puts among them", k, n)
	time.Sleep(time.Second)
	quiet := 10 * time.Second
	if b.quick {
		quiet = 4 * time.Second
	}
	k, err = counted(func() error {
		time.Sleep(quiet)
		return nil
	})
	if err != nil {
		return err
	}
	idle.set([]float64{float64(k) / quiet.Seconds()}, "%d requests in %v", k, quiet)
	stop()
	return <-ended
}
