package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/bench/load"
	"github.com/zkq/zkq/internal/workload"
)

// fleetSizes are how many processes take from one queue. Each has fleetWorkers workers.
var fleetSizes = []int{1, 4, 16, 64, 128}

const (
	fleetWorkers = 4
	fleetBacklog = 5000
	trickleEvery = 20 * time.Millisecond
)

// fleetGroup shows how the cost of an entry grows with the number of processes. Each size has a row for a backlog that is
// drained, and one for a trickle while all workers wait. Their value is the requests per entry; their notes hold the rest.
func (b *bench) fleetGroup(prefix string) group {
	at := prefix + "-fleet-"
	var rows []*row
	for _, size := range fleetSizes {
		name := fmt.Sprintf("%s%d-", at, size)
		says := fmt.Sprintf("requests per entry, %d processes with %d workers", size, fleetWorkers)
		rows = append(rows, shown(name+"drain", "", says+", a backlog"), shown(name+"trickle", "", says+", 50 puts a second"))
		if size == 64 {
			rows[len(rows)-2] = atMost(name+"drain", 1, "", says+", a backlog")
			rows[len(rows)-1] = atMost(name+"trickle", 5, "", says+", 50 puts a second")
			rows = append(rows,
				atMost(name+"drain-lost", 0.1, "", "lost claims per entry, a backlog"),
				atMost(name+"trickle-lost", 0.1, "", "lost claims per entry, 50 puts a second"),
				atMost(name+"trickle-events", 60, "", "events per entry, 50 puts a second"))
		}
	}
	rows = append(rows,
		atLeast(at+"64-4-drain-rate", 0.7, " ×", "rate of 64 processes against 4, a backlog"),
		atMost(at+"64-1-trickle-p50", 2, " ×", "median from put to handler, 64 processes against 1"),
		atMost(at+"128-64-drain-cost", 1.2, " ×", "requests per entry, 128 processes against 64, a backlog"),
		atMost(at+"128-64-trickle-cost", 1.2, " ×", "requests per entry, 128 processes against 64, 50 puts a second"))
	rows = slices.DeleteFunc(rows, func(r *row) bool { return b.only != nil && !b.only.MatchString(r.Name) })
	return group{
		says:    "cost against the number of processes: " + prefix,
		rows:    rows,
		measure: func(ctx context.Context, b *bench, r map[string]*row) error { return b.measureFleet(ctx, prefix, r) },
	}
}

// fleetCost is what a load cost a fleet of some size.
type fleetCost struct {
	load.Done
	lost, requests, events float64       // per entry
	processor              time.Duration // of all clients, per entry
	p50                    time.Duration // from put to handler; 0: not measured
}

func (c fleetCost) note() string {
	s := fmt.Sprintf("%.2f lost, %.1f events, %v of the clients' processor", c.lost, c.events, c.processor.Round(time.Microsecond))
	if c.p50 > 0 {
		return fmt.Sprintf("%s per entry, put to handler p50 %v", s, c.p50.Round(100*time.Microsecond))
	}
	return fmt.Sprintf("%s per entry, %.0f/s", s, c.Rate())
}

// measureFleet measures each size that a row asks for. The sizes take turns, so that their ratios are of one server.
func (b *bench) measureFleet(ctx context.Context, prefix string, r map[string]*row) error {
	at := prefix + "-fleet-"
	wants := func(size int) bool {
		for name := range r {
			if slices.Contains(strings.Split(strings.TrimPrefix(name, at), "-"), fmt.Sprint(size)) {
				return true
			}
		}
		return false
	}
	v, err := b.starter(prefix)(ctx, false)
	if err != nil {
		return err
	}
	rounds := b.rounds
	if b.quick {
		rounds = 1
	}
	drains, trickles := map[int][]fleetCost{}, map[int][]fleetCost{}
	for round := range rounds {
		sizes := slices.Clone(fleetSizes)
		if round%2 == 1 {
			slices.Reverse(sizes)
		}
		for _, size := range sizes {
			if !wants(size) {
				continue
			}
			drain, trickle, err := b.runFleet(ctx, v, size)
			if err != nil {
				return fmt.Errorf("%d processes: %w", size, err)
			}
			b.progress("%s%d: drain %s, %.2f requests; trickle %s, %.2f requests", at, size, drain.note(), drain.requests, trickle.note(), trickle.requests)
			drains[size], trickles[size] = append(drains[size], drain), append(trickles[size], trickle)
		}
	}
	for _, size := range fleetSizes {
		name := fmt.Sprintf("%s%d-", at, size)
		for load, costs := range map[string][]fleetCost{"drain": drains[size], "trickle": trickles[size]} {
			if len(costs) > 0 {
				setFleet(r[name+load], costs, costs[len(costs)-1].note(), func(c fleetCost) float64 { return c.requests })
				setFleet(r[name+load+"-lost"], costs, "", func(c fleetCost) float64 { return c.lost })
				setFleet(r[name+load+"-events"], costs, "", func(c fleetCost) float64 { return c.events })
			}
		}
	}
	rate := func(c fleetCost) float64 { return c.Rate() }
	requests := func(c fleetCost) float64 { return c.requests }
	compareFleets(r[at+"64-4-drain-rate"], drains[64], drains[4], rate)
	compareFleets(r[at+"64-1-trickle-p50"], trickles[64], trickles[1], func(c fleetCost) float64 { return c.p50.Seconds() })
	compareFleets(r[at+"128-64-drain-cost"], drains[128], drains[64], requests)
	compareFleets(r[at+"128-64-trickle-cost"], trickles[128], trickles[64], requests)
	return nil
}

// setFleet gives a row one figure of each round. A nil row was not asked for.
func setFleet(r *row, costs []fleetCost, note string, figure func(fleetCost) float64) {
	if r == nil {
		return
	}
	var values []float64
	for _, c := range costs {
		values = append(values, figure(c))
	}
	if note == "" {
		note = fmt.Sprintf("%d entries", costs[0].N)
	}
	r.set(values, "%s", note)
}

// compareFleets gives a row the ratio of two sizes, round by round.
func compareFleets(r *row, some, others []fleetCost, figure func(fleetCost) float64) {
	if r == nil {
		return
	}
	var ratios []float64
	for i := range some {
		ratios = append(ratios, figure(some[i])/figure(others[i]))
	}
	r.set(ratios, "")
}

// fleet is the processes that take from one queue, each a client with a session and a view of its own.
type fleet struct {
	service *service
	clients []*load.Client
	queues  []*zkq.LockingQueue
	putter  *load.Client // a process of its own, which takes nothing
}

// runFleet has processes drain a backlog, and then wait for entries that come one by one.
func (b *bench) runFleet(ctx context.Context, v *service, size int) (drain, trickle fleetCost, err error) {
	f := &fleet{service: v, clients: make([]*load.Client, size), queues: make([]*zkq.LockingQueue, size)}
	defer f.close()
	root := v.root()
	if f.putter, err = load.Open(ctx, v.kind, v.address, root); err != nil {
		return drain, trickle, err
	}
	if err := load.Fill(ctx, f.putter, "/q", fleetBacklog); err != nil {
		return drain, trickle, err
	}
	err = workload.InParallel(size, func(i int) (err error) {
		f.clients[i], err = load.Open(ctx, v.kind, v.address, root)
		return err
	})
	if err != nil {
		return drain, trickle, err
	}
	if err := f.open(ctx, "/q"); err != nil {
		return drain, trickle, err
	}
	if drain, err = f.drain(ctx, 20*b.cell); err != nil {
		return drain, trickle, err
	}
	if err := f.open(ctx, "/t"); err != nil {
		return drain, trickle, err
	}
	puts := 250
	if b.quick {
		puts = 150
	}
	trickle, err = f.trickle(ctx, puts)
	return drain, trickle, err
}

// open has all clients leave the queue before and register with another.
func (f *fleet) open(ctx context.Context, name string) error {
	return workload.InParallel(len(f.clients), func(i int) error {
		if f.queues[i] != nil {
			f.queues[i].Close()
		}
		f.queues[i] = zkq.NewLockingQueue(f.clients[i], name)
		return f.queues[i].Register(ctx)
	})
}

func (f *fleet) close() {
	for i, c := range f.clients {
		if f.queues[i] != nil {
			f.queues[i].Close()
		}
		if c != nil {
			c.Close()
		}
	}
	if f.putter != nil {
		f.putter.Close()
	}
}

// work has all workers take and finish entries until ctx ends.
func (f *fleet) work(ctx context.Context, see func(*zkq.Held), finished func(int)) error {
	return workload.InParallel(len(f.queues), func(i int) error {
		return load.Work(ctx, f.queues[i], fleetWorkers, 1, see, finished)
	})
}

// drain takes the backlog, but not longer than the limit.
func (f *fleet) drain(ctx context.Context, limit time.Duration) (cost fleetCost, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var n, last atomic.Int64
	begun := time.Now()
	cost, err = f.count(func() (int, error) {
		err := f.work(ctx, func(*zkq.Held) {}, func(k int) {
			last.Store(int64(time.Since(begun)))
			if n.Add(int64(k)) >= fleetBacklog {
				cancel()
			}
		})
		return int(n.Load()), err
	})
	cost.Took = time.Duration(last.Load())
	return cost, err
}

// trickle puts entries one by one while all workers wait.
func (f *fleet) trickle(ctx context.Context, puts int) (cost fleetCost, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	begun := make([]time.Time, puts)
	took := make([]time.Duration, 0, puts)
	seen := make(chan struct{}, 4*puts)
	measured := false
	see := func(h *zkq.Held) {
		number, _ := load.Number(h.Value)
		mu.Lock()
		if measured {
			took = append(took, time.Since(begun[number]))
		}
		mu.Unlock()
		seen <- struct{}{}
	}
	ended := make(chan error, 1)
	go func() { ended <- f.work(ctx, see, func(int) {}) }()
	put := func(n int) error {
		q := zkq.NewLockingQueue(f.putter, "/t")
		defer q.Close()
		tick := time.NewTicker(trickleEvery)
		defer tick.Stop()
		failed := make(chan error, n)
		for i := range n {
			<-tick.C
			mu.Lock()
			begun[i] = time.Now()
			mu.Unlock()
			go func() { // a slow put does not make the trickle slower
				_, err := q.Put(ctx, load.Value(i))
				failed <- err
			}()
		}
		for range n {
			if err := <-failed; err != nil {
				return err
			}
		}
		for range n {
			select {
			case <-seen:
			case <-time.After(30 * time.Second):
				return errors.New("an entry that was put was not taken")
			}
		}
		return nil
	}
	if err := put(20); err != nil { // all wait, and the queue's nodes are there
		return cost, err
	}
	time.Sleep(time.Second)
	measured = true
	cost, err = f.count(func() (int, error) {
		err := put(puts)
		time.Sleep(200 * time.Millisecond) // the last finish
		return puts, err
	})
	cancel()
	if ended := <-ended; err == nil {
		err = ended
	}
	if len(took) > 0 {
		slices.Sort(took)
		cost.p50 = took[len(took)/2]
	}
	return cost, err
}

// count counts what a load cost for each of its entries. do returns their number.
func (f *fleet) count(do func() (int, error)) (cost fleetCost, err error) {
	before, err := f.counters()
	if err != nil {
		return cost, err
	}
	n, err := do()
	if err != nil {
		return cost, err
	}
	after, err := f.counters()
	if err == nil && n == 0 {
		err = errors.New("nothing was taken")
	}
	per := func(after, before int) float64 { return float64(after-before) / float64(n) }
	return fleetCost{
		Done: load.Done{N: n}, lost: per(after.lost, before.lost), requests: per(after.requests, before.requests),
		events: per(after.events, before.events), processor: (after.processor - before.processor) / time.Duration(max(n, 1)),
	}, err
}

// fleetCounters are what was counted so far, by the server and by the clients.
type fleetCounters struct {
	lost, requests, events int
	processor              time.Duration // of this process
}

func (f *fleet) counters() (c fleetCounters, err error) {
	pings := int(f.putter.Pings.Load())
	for _, k := range f.clients {
		c.lost += int(k.Lost.Load())
		pings += int(k.Pings.Load())
	}
	if c.events, err = f.service.events(context.Background()); err != nil {
		return c, err
	}
	c.requests, err = f.service.requests(context.Background())
	c.requests -= pings
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) == nil {
		c.processor = time.Duration(used.Utime.Nano() + used.Stime.Nano())
	}
	return c, err
}
