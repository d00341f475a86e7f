//go:build faults

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
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
			t.Parallel()
			s := start(t)
			s.Session = 3 * time.Second
			for _, figure := range []struct {
				name string
				test func(*testing.T, *service)
			}{
				{"unknown puts are resolved right", unknownPuts},
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

// fill puts n entries.
func fill(t testing.TB, q *zkq.LockingQueue, n int) {
	t.Helper()
	for i := range n {
		if _, err := q.Put(within(t, patience), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
}

// unknownPuts: answers to puts are lost, and what became of each is asked for by another client, as by a program that comes
// back after a crash. What was committed is the judge.
func unknownPuts(t *testing.T, s *service) {
	const unknown, atOnce, queueName = 300, 8, "/unknown"
	resolver := s.open(t, nil)
	fill(t, queue(t, resolver, queueName), 1) // or the first commit of all would be refused, for there is no such queue
	s.commits(t)                              // commits before this line do not count
	var mu sync.Mutex
	said := make(map[string]bool) // whether the value was put, by Resolve
	var running sync.WaitGroup
	for n := range atOnce {
		link := s.Link(t)
		q := queue(t, s.open(t, link), queueName)
		running.Go(func() {
			for try := 0; ; try++ {
				mu.Lock()
				enough := len(said) >= unknown
				mu.Unlock()
				if enough || t.Failed() {
					return
				}
				value := fmt.Sprintf("unknown/%d/%d", n, try)
				token, err := q.NewToken(within(t, patience))
				if err != nil {
					t.Error(err)
					return
				}
				meant := func(request []byte) bool { return bytes.Contains(request, []byte(value)) }
				switch try % 3 {
				case 0, 1: // applied, and the answer is lost
					link.LoseAnswers(1, meant)
				case 2: // lost on its way, or applied, or applied later
					link.CutAfter(testproxy.Requests, rand.N(400))
				}
				// The context ends with the connection, so that the library cannot ask for itself.
				ctx, cancel := context.WithCancel(context.Background())
				before := link.Dials()
				watch := make(chan struct{})
				go func() {
					defer close(watch)
					for ctx.Err() == nil && link.Dials() == before {
						time.Sleep(time.Millisecond)
					}
					cancel()
				}()
				giveUp := time.AfterFunc(5*time.Second, cancel)
				_, err = q.Put(ctx, []byte(value), zkq.WithToken(token))
				cancel()
				giveUp.Stop()
				<-watch
				link.Heal()
				var u *zkq.UnknownError
				if !errors.As(err, &u) {
					continue // answered after all
				}
				if u.Token != token {
					t.Errorf("the token of an unknown put is %s, was %s", u.Token, token)
				}
				o, err := zkq.Resolve(within(t, patience), resolver, token)
				if err != nil {
					t.Errorf("%s: %v", value, err)
					return
				}
				mu.Lock()
				said[value] = o.Applied
				mu.Unlock()
			}
		})
	}
	running.Wait()
	there := make(map[string]int)
	for _, c := range s.commits(t) {
		for _, change := range c.Changes {
			if strings.HasPrefix(change.Path, queueName+"/entries/") && !change.Deleted {
				there[change.Value]++
			}
		}
	}
	var applied, not int
	for value, was := range said {
		want := 0
		if was {
			applied++
			want = 1
		} else {
			not++
		}
		if there[value] != want {
			t.Errorf("%s was applied, says Resolve: %v; it was put %d times", value, was, there[value])
		}
	}
	fmt.Printf("%s: %d unknown puts resolved right, %d of them applied and %d not\n", s.Service, len(said), applied, not)
	if len(said) < unknown || applied < unknown/4 {
		t.Errorf("%d unknown puts, %d of them applied; want %d and a good part", len(said), applied, unknown)
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
