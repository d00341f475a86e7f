//go:build faults

package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testfleet"
	"github.com/zkq/zkq/internal/testproxy"
)

// TestFigures measures what is promised in numbers, on both services.
func TestFigures(t *testing.T) {
	for i, start := range []func(*testing.T) *service{zooKeeper, etcd} {
		t.Run([]string{testfleet.ZooKeeper, testfleet.Etcd}[i], func(t *testing.T) {
			s := start(t)
			s.Session = 3 * time.Second
			for _, figure := range []struct {
				name string
				test func(*testing.T, *service)
			}{
				{"waiters are woken within 50 ms", wakes},
				{"stale fences are refused", staleFences},
				{"entries of killed workers are claimable again in time", claimableAgain},
				{"holders are told before others have their entries", toldBefore},
			} {
				t.Run(figure.name, func(t *testing.T) { figure.test(t, s) })
			}
		})
	}
}

// open returns a client, by a link if there is one.
func (s *service) open(t testing.TB, l *testproxy.Link) coord.Coordinator {
	t.Helper()
	p := s.Place
	if l != nil {
		p.Addresses = l.Addresses()
	}
	c, err := testfleet.Open(within(t, patience), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func queue(t testing.TB, c coord.Coordinator, name string) *zkq.LockingQueue {
	q := zkq.NewLockingQueue(c, name)
	t.Cleanup(func() { q.Close() })
	return q
}

func fill(t testing.TB, q *zkq.LockingQueue, n int) {
	t.Helper()
	for i := range n {
		if _, err := q.Put(within(t, patience), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
}

// wakes: 16 waiters in four clients, entries one at a time; from the put's return to the take's.
func wakes(t *testing.T, s *service) {
	const puts, waiters, bound = 200, 16, 50 * time.Millisecond
	var clients []coord.Coordinator
	for range 4 {
		clients = append(clients, s.open(t, nil))
	}
	for try := 1; ; try++ {
		ctx, cancel := context.WithCancel(context.Background())
		taken := make(chan time.Time, waiters)
		var running sync.WaitGroup
		for n := range waiters {
			q := queue(t, clients[n%len(clients)], "/wakes")
			running.Go(func() {
				for {
					held, err := q.Take(ctx)
					if err != nil {
						return
					}
					taken <- time.Now()
					if err := held.Consume(context.Background()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		putter := queue(t, clients[0], "/wakes")
		var took []time.Duration
		stalled := 0
		for range puts {
			time.Sleep(rand.N(50 * time.Millisecond)) // a putter's pace
			fill(t, putter, 1)
			put := time.Now()
			select {
			case at := <-taken:
				took = append(took, max(at.Sub(put), 0))
			case <-time.After(10 * time.Second):
				stalled++
			}
		}
		cancel()
		running.Wait()
		slices.Sort(took)
		if stalled > 0 {
			t.Fatalf("%d of %d entries were there and nobody woke within 10 s", stalled, puts)
		}
		p50, p99 := took[len(took)/2], took[len(took)*99/100]
		fmt.Printf("%s: %d wakes, p50 %v, p99 %v, worst %v\n", s.Service, len(took), p50, p99, took[len(took)-1])
		if p99 <= bound {
			return
		}
		if try == 3 { // other work on the machine is no waiter's fault, but not for ever
			t.Fatalf("p99 is %v, the bound is %v", p99, bound)
		}
	}
}

// staleFences: a lock is broken and its entry claimed again, while the first holder finishes it.
func staleFences(t *testing.T, s *service) {
	const tries, atOnce = 600, 20
	first, second, admin := s.open(t, nil), s.open(t, nil), s.open(t, nil)
	var refused, accepted atomic.Int64
	var running sync.WaitGroup
	for n := range atOnce {
		name := fmt.Sprintf("/stale%d", n)
		one, two, breaker := queue(t, first, name), queue(t, second, name), queue(t, admin, name)
		running.Go(func() {
			for try := range tries / atOnce {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				if err := race(ctx, one, two, breaker, try%2 == 0, &refused, &accepted); err != nil {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	running.Wait()
	fmt.Printf("%s: %d finishes with stale fences, %d accepted\n", s.Service, refused.Load()+accepted.Load(), accepted.Load())
	if accepted.Load() > 0 || refused.Load() < tries {
		t.Errorf("%d refused, %d accepted; want %d and 0", refused.Load(), accepted.Load(), tries)
	}
}

func race(ctx context.Context, one, two, breaker *zkq.LockingQueue, consume bool, refused, accepted *atomic.Int64) error {
	name, err := one.Put(ctx, []byte("value"))
	if err != nil {
		return err
	}
	old, err := one.Take(ctx)
	if err != nil {
		return err
	}
	if err := breaker.BreakLock(ctx, name); err != nil {
		return err
	}
	stale := make(chan error, 1)
	go func() {
		time.Sleep(rand.N(8 * time.Millisecond)) // before, while and after the other claims it
		if consume {
			stale <- old.Consume(ctx)
		} else {
			stale <- old.Release(ctx)
		}
	}()
	held, err := two.Take(ctx)
	if err != nil {
		return err
	}
	switch err := <-stale; {
	case err == nil:
		accepted.Add(1)
	case errors.Is(err, zkq.ErrLockLost):
		refused.Add(1)
	default:
		return fmt.Errorf("a stale finish: %w", err)
	}
	if held.Name != name {
		return fmt.Errorf("took %s, want %s", held.Name, name)
	}
	if err := held.Consume(ctx); err != nil {
		return fmt.Errorf("the holder's finish: %w", err)
	}
	return nil
}

// claimableAgain: worker processes that hold an entry are killed.
func claimableAgain(t *testing.T, s *service) {
	const kills = 20
	bound := s.Session + time.Second
	if s.Service == testfleet.ZooKeeper {
		bound += zooKeeperTick
	}
	c := s.open(t, nil)
	q := queue(t, c, "/killed")
	fill(t, q, kills)
	var holders []*testfleet.Holder
	for range kills {
		holders = append(holders, testfleet.Hold(t, s.Place, "/killed"))
	}
	var mu sync.Mutex
	killed := make(map[string]time.Time)
	var worst time.Duration
	for _, h := range holders {
		h.Kill()
		killed[h.Name] = time.Now()
	}
	ctx := within(t, patience)
	var running sync.WaitGroup
	for range kills {
		running.Go(func() {
			held, err := q.Take(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			after := time.Since(killed[held.Name])
			worst = max(worst, after)
			if after > bound {
				t.Errorf("%s was claimable %v after the kill, the bound is %v", held.Name, after, bound)
			}
			if err := held.Consume(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	fmt.Printf("%s: %d workers killed, entries claimable again after %v at most; T is %v\n", s.Service, kills, worst, s.Session)
}

// toldBefore: holders are cut off, and another takes their entries as soon as it can.
func toldBefore(t *testing.T, s *service) {
	const holders = 10
	c := s.open(t, nil)
	q := queue(t, c, "/told")
	fill(t, q, holders)
	told := make([]chan time.Time, holders)
	byName := make(map[string]chan time.Time)
	var links []*testproxy.Link
	for n := range holders {
		l := s.Link(t)
		held, err := queue(t, s.open(t, l), "/told").Take(within(t, patience))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := held.Context(context.Background())
		t.Cleanup(cancel)
		told[n] = make(chan time.Time, 1)
		byName[held.Name] = told[n]
		context.AfterFunc(ctx, func() { told[n] <- time.Now() })
		links = append(links, l)
	}
	for n, l := range links {
		if n%2 == 0 {
			l.Cut()
		} else {
			l.HoldRequests()
		}
	}
	cut := time.Now()
	least := time.Hour
	for range holders {
		held, err := q.Take(within(t, patience))
		at := time.Now()
		if err != nil {
			t.Fatal(err)
		}
		select {
		case when := <-byName[held.Name]:
			least = min(least, at.Sub(when))
			if when.Sub(cut) > s.Session {
				t.Errorf("%s: its holder was told %v after it was cut off, T is %v", held.Name, when.Sub(cut), s.Session)
			}
		default:
			t.Errorf("%s was taken, and its holder does not know", held.Name)
		}
		if err := held.Consume(within(t, patience)); err != nil {
			t.Error(err)
		}
	}
	fmt.Printf("%s: %d holders cut off, told %v before another had the entry, or earlier\n", s.Service, holders, least)
}
