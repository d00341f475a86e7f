package services_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// `make soak` asks for more.
var cycles = flag.Int("cycles", 3_000/scale, "how often TestCyclesLeaveNothing puts, takes and consumes an entry, on each service")

// hands is how many goroutines go through cycles at once, each with batches of batch: those of a service that syncs its
// disk share the syncs.
const (
	hands = 16
	batch = 10
)

// use is what a process and its service have in use.
type use struct {
	heap             uint64
	goroutines, open int // open files, -1 where the system does not tell
	watches          int
}

func (u use) String() string {
	return fmt.Sprintf("heap %d KiB, %d goroutines, %d open files, %d watches", u.heap>>10, u.goroutines, u.open, u.watches)
}

func (p *place) use() use {
	p.Helper()
	runtime.GC()
	runtime.GC() // empties the pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return use{heap: m.HeapAlloc, goroutines: runtime.NumGoroutine(), open: openFiles(), watches: p.watches()}
}

func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries)
}

// grown is what the heap may have grown to. In the embedded store's process it has the store's log besides, which is cut
// every 1,000 entries to the last 2,000.
func (p *place) grown(before uint64) uint64 {
	most := before + before/20
	if p.service == "embedded" {
		most += 3 << 19
	}
	return most
}

// revision is how many requests have changed the service, which is etcd.
func (p *place) revision(s coord.Session) int64 {
	p.Helper()
	r, err := s.Commit(p.ctx, coord.Create("/revision", nil))
	if err == nil {
		_, err = s.Commit(p.ctx, coord.Delete("/revision", r[0].Fence))
	}
	if err != nil {
		p.Fatal(err)
	}
	return r[0].Revision
}

// flat waits until what is in use is no more than before, and fails if that takes too long.
func (p *place) flat(before use) use {
	p.Helper()
	var now use
	p.eventually(time.Minute, func() bool {
		p.forget()
		now = p.use()
		// ZooKeeper has one for each directory that was looked at, and some are looked at now and then only.
		files, watches := before.open, before.watches+hands
		if p.service == "embedded" {
			files += 2 // the store writes several logs and snapshots in turn
		}
		return now.heap <= p.grown(before.heap) && now.goroutines <= before.goroutines && now.open <= files && now.watches <= watches
	}, func() string { return fmt.Sprintf("before: %v; now: %v", before, now) })
	return now
}

// forget compacts the store in this process, which would do so by itself every few seconds: old revisions are no growth.
func (p *place) forget() {
	p.Helper()
	if p.service != "embedded" {
		return
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + p.dir + "/sock"}, Logger: zap.NewNop()})
	if err != nil {
		p.Fatal(err)
	}
	defer c.Close()
	r, err := c.Get(p.ctx, "/")
	if err == nil {
		_, err = c.Compact(p.ctx, r.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		p.Fatal(err)
	}
}

// cycle has n entries put, taken and consumed, by all hands on queues of their own.
func (p *place) cycle(queues []*zkq.LockingQueue, n int) {
	p.Helper()
	var all sync.WaitGroup
	errs := make([]error, len(queues))
	for i, q := range queues {
		all.Go(func() {
			for done := 0; done < n/len(queues) && errs[i] == nil; done += batch {
				errs[i] = p.batch(q, i)
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		p.Fatal(err)
	}
}

func (p *place) batch(q *zkq.LockingQueue, i int) error {
	if _, err := q.PutAll(p.ctx, make([][]byte, batch), zkq.WithPriority(i)); err != nil {
		return err
	}
	for left := batch; left > 0; {
		held, err := q.TakeN(p.ctx, left)
		if err != nil {
			return err
		}
		for _, h := range held {
			_, done := h.Context(p.ctx)
			defer done()
			if err := h.Consume(p.ctx); err != nil {
				return err
			}
		}
		left -= len(held)
	}
	return nil
}

// handles are a queue for each hand.
func handles(c coord.Coordinator) []*zkq.LockingQueue {
	queues := make([]*zkq.LockingQueue, hands)
	for i := range queues {
		queues[i] = zkq.NewLockingQueue(c, fmt.Sprintf("jobs/%d", i))
	}
	return queues
}

func closeAll(t testing.TB, queues []*zkq.LockingQueue) {
	t.Helper()
	for _, q := range queues {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
}

// names are the paths of nodes.
func names(nodes map[string]string) []string { return slices.Sorted(maps.Keys(nodes)) }

// TestCyclesLeaveNothing compares what is in use after a tenth of the cycles with what is after all of them.
func TestCyclesLeaveNothing(t *testing.T) {
	tenth := max(*cycles/10, hands*batch) // all hands have work
	onEach(t, func(t *testing.T, p *place) {
		c := p.client()
		queues := handles(c)
		p.cycle(queues, hands) // makes the directories
		closeAll(t, queues)
		s := p.session(c)
		base := names(p.nodes(s))

		queues = handles(c)
		begun := time.Now()
		p.cycle(queues, tenth)
		if p.service == "embedded" { // which is in this process, and keeps the last 2,000 requests in memory
			for first := p.revision(s); p.revision(s) < first+3000; {
				p.cycle(queues, hands*batch)
			}
		}
		p.forget()
		before := p.use()
		t.Logf("after a tenth of %d cycles, %v: %v", 10*tenth, time.Since(begun).Round(time.Millisecond), before)
		p.cycle(queues, 9*tenth)
		t.Logf("at the end, %v: %v", time.Since(begun).Round(time.Millisecond), p.flat(before))

		closeAll(t, queues)
		if left := names(p.nodes(s)); !slices.Equal(left, base) {
			t.Errorf("%d nodes before, now %d: %q", len(base), len(left), left)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if p.service != "embedded" { // which is gone
			p.eventually(time.Minute, func() bool { return p.watches() == 0 }, func() string { return fmt.Sprintf("%d watches are left", p.watches()) })
		}
	})
}

// TestLostConnectionsLeaveNothing cuts a client off again and again while it works.
func TestLostConnectionsLeaveNothing(t *testing.T) {
	cuts := max(*cycles/250, 10)
	onServers(t, func(t *testing.T, p *place) {
		l := p.link()
		c := p.clientBy(l.Addresses(), 0)
		queues := handles(c)
		p.cycle(queues, hands)
		before := p.use()
		ctx, stop := context.WithCancel(p.ctx)
		var all sync.WaitGroup
		var unknown, finished atomic.Int64
		for i, q := range queues {
			all.Go(func() {
				for ctx.Err() == nil {
					err := p.batch(q, i)
					switch {
					case err == nil:
						finished.Add(batch)
					case errors.Is(err, zkq.ErrUnknown):
						unknown.Add(1)
					default:
						t.Error(err)
						return
					}
				}
			})
		}
		for range cuts {
			// Until all hands have worked again: else this would be one long cut.
			target := finished.Load() + hands*batch
			p.eventually(time.Minute, func() bool { return finished.Load() >= target }, func() string { return "no worker works again" })
			l.Cut()
			l.Heal()
		}
		stop()
		all.Wait()
		for _, q := range queues { // what was put without an answer
			for {
				held, err := q.TryTakeN(p.ctx, batch)
				if errors.Is(err, zkq.ErrEmpty) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				for _, h := range held {
					if err := h.Consume(p.ctx); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		t.Logf("%d cuts, %d entries finished, %d calls unknown; before: %v, after: %v", cuts, finished.Load(), unknown.Load(), before, p.flat(before))
		closeAll(t, queues)
	})
}
