package main

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/workload"
)

// benchHeader is the number of bytes at the start of a value that hold the time of its
// put.
const benchHeader = 8

// value returns a value of the measured size that starts with the time of its put.
func (b *bench) value(now time.Time) []byte {
	v := make([]byte, b.size)
	binary.BigEndian.PutUint64(v, uint64(now.UnixNano()))
	return v
}

// putAt returns the time that value stored; zero if v is too short.
func putAt(v []byte) time.Time {
	if len(v) < benchHeader {
		return time.Time{}
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(v)))
}

// puts measures single puts by b.workers putters.
func (b *bench) puts(ctx context.Context) (benchRecord, error) {
	if err := b.clean(ctx); err != nil {
		return benchRecord{}, err
	}
	var left atomic.Int64
	left.Store(int64(b.entries))
	took := make([][]time.Duration, b.workers)
	begun := time.Now()
	end := begun.Add(b.share)
	err := workload.InParallel(b.workers, func(i int) error {
		for (len(took[i]) == 0 || time.Now().Before(end)) && ctx.Err() == nil && left.Add(-1) >= 0 {
			now := time.Now()
			if _, err := b.queue.Put(ctx, b.value(now)); err != nil {
				return err
			}
			took[i] = append(took[i], time.Since(now))
		}
		return nil
	})
	r := benchRecord{Processes: 1, Workers: b.workers, Batch: 1, Seconds: time.Since(begun).Seconds()}
	r.times(slices.Concat(took...))
	return r, err
}

// times records the number of entries and the percentiles of their times.
func (r *benchRecord) times(took []time.Duration) {
	r.Entries = len(took)
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	at := func(percent int) *float64 {
		f := float64(took[min(len(took)*percent/100, len(took)-1)]) / float64(time.Millisecond)
		return &f
	}
	r.P50, r.P99 = at(50), at(99)
}

// fill puts entries until the queue holds backlog of them or the time is up. It
// returns the number of entries in the queue.
func (b *bench) fill(ctx context.Context, backlog int, by time.Time) (int, error) {
	n, err := b.queue.Len(ctx)
	if err != nil {
		return 0, err
	}
	const putters = 4
	per := max(1, min(100, 64<<10/b.size)) // entries per commit
	var mu sync.Mutex
	err = workload.InParallel(putters, func(int) error {
		for {
			mu.Lock()
			k := min(per, backlog-n)
			if k > 0 {
				n += k
			}
			mu.Unlock()
			if k <= 0 || ctx.Err() != nil || time.Now().After(by) {
				return nil
			}
			values := make([][]byte, k)
			for i := range values {
				values[i] = b.value(time.Now())
			}
			if _, err := b.queue.PutAll(ctx, values); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return 0, err
	}
	return b.queue.Len(ctx)
}

// takes fills the queue to a backlog and measures how fast workers take and finish half
// of it.
func (b *bench) takes(ctx context.Context, backlog, workers, batch int) (benchRecord, error) {
	r := benchRecord{Processes: 1, Workers: workers, Batch: batch}
	var err error
	if r.Backlog, err = b.fill(ctx, backlog, time.Now().Add(b.share/2)); err != nil {
		return r, err
	}
	working, cancel := context.WithTimeout(ctx, b.share/2+benchPatience)
	defer cancel()
	var n, last atomic.Int64
	begun := time.Now()
	end := begun.Add(b.share / 2)
	over := time.AfterFunc(b.share/2, func() {
		if n.Load() > 0 {
			cancel()
		}
	})
	defer over.Stop()
	err = takeAndFinish(working, b.queue, workers, batch, func(*zkq.Held) {}, func(k int) {
		last.Store(int64(time.Since(begun)))
		if n.Add(int64(k)) >= int64((r.Backlog+1)/2) || time.Now().After(end) {
			cancel()
		}
	})
	r.Entries, r.Seconds = int(n.Load()), time.Duration(last.Load()).Seconds()
	if err == nil && r.Entries == 0 {
		err = errNothingTaken
	}
	return r, err
}

// takeAndFinish is [workload.TakeAndFinish] of entries that are purged at the end.
func takeAndFinish(ctx context.Context, q *zkq.LockingQueue, workers, batch int, see func(*zkq.Held), finished func(int)) error {
	settled, cancel := extendContext(ctx, forever, benchPatience) // calls that have begun may finish
	defer cancel()
	return workload.TakeAndFinish(ctx, settled, q, workers, batch, see, finished)
}

// endToEnd measures putters and workers that run at the same time.
func (b *bench) endToEnd(ctx context.Context) (benchRecord, error) {
	if err := b.clean(ctx); err != nil {
		return benchRecord{}, err
	}
	r := benchRecord{Processes: 1, Workers: b.workers, Batch: 1}
	return b.flow(ctx, r, func(ctx context.Context, put func() error) error {
		var left atomic.Int64
		left.Store(int64(b.entries))
		end := time.Now().Add(b.share / 2)
		return workload.InParallel(b.workers, func(int) error {
			for first := true; (first || time.Now().Before(end)) && ctx.Err() == nil && left.Add(-1) >= 0; first = false {
				if err := put(); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// latency measures the time from put to worker at 100 puts a second, with idle workers.
func (b *bench) latency(ctx context.Context) (benchRecord, error) {
	if err := b.clean(ctx); err != nil {
		return benchRecord{}, err
	}
	r := benchRecord{Processes: 1, Workers: b.workers, Batch: 1}
	return b.flow(ctx, r, func(ctx context.Context, put func() error) error {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		var all sync.WaitGroup
		defer all.Wait()
		errs := make(chan error, 1)
		end := time.Now().Add(b.share * 3 / 4)
		for n := 0; n < b.entries && (n == 0 || time.Now().Before(end)); n++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			case err := <-errs:
				return err
			}
			all.Go(func() {
				if err := put(); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			})
		}
		return nil
	})
}

// flow measures the time from each put to its worker. feed calls its argument once for
// each entry to put. flow returns when feed has returned and all entries are finished.
func (b *bench) flow(ctx context.Context, r benchRecord, feed func(context.Context, func() error) error) (benchRecord, error) {
	working, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	var took []time.Duration
	put, finished := 0, 0
	fed, all := false, make(chan struct{})
	closeIfDone := func() { // closes all when every entry is finished; mu must be held
		if fed && finished == put && all != nil {
			close(all)
			all = nil
		}
	}
	done := all
	ended := make(chan error, 1)
	go func() {
		ended <- takeAndFinish(working, b.queue, b.workers, 1, func(h *zkq.Held) {
			d := time.Since(putAt(h.Value))
			mu.Lock()
			defer mu.Unlock()
			took = append(took, d)
		}, func(k int) {
			mu.Lock()
			defer mu.Unlock()
			finished += k
			closeIfDone()
		})
	}()
	begun := time.Now()
	err := feed(working, func() error {
		if _, err := b.queue.Put(ctx, b.value(time.Now())); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		put++
		return nil
	})
	mu.Lock()
	fed = true
	closeIfDone()
	mu.Unlock()
	if err == nil {
		patience := time.NewTimer(b.share + benchPatience)
		defer patience.Stop()
		select {
		case <-done:
		case err = <-ended:
			ended <- nil
		case <-ctx.Done():
		case <-patience.C:
			err = errors.New("not every entry that was put was taken")
		}
	}
	r.Seconds = time.Since(begun).Seconds()
	stop()
	if worked := <-ended; err == nil {
		err = worked
	}
	mu.Lock()
	defer mu.Unlock()
	r.times(took)
	if err == nil && r.Entries == 0 {
		err = errNothingTaken
	}
	return r, err
}

// countingCoordinator counts the commits of its sessions that were refused because
// another process changed a node first.
type countingCoordinator struct {
	coord.Coordinator
	lost atomic.Int64 // the refused commits

	mu   sync.Mutex // guards last
	last *countingSession
}

// countingSession is a session that counts its refused commits in its coordinator.
type countingSession struct {
	coord.Session
	of *countingCoordinator
}

func newCountingCoordinator(c coord.Coordinator) *countingCoordinator {
	return &countingCoordinator{Coordinator: c}
}

// Session returns the same wrapper until the driver has a new session: callers compare
// sessions.
func (c *countingCoordinator) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil || c.last.Session != s {
		c.last = &countingSession{s, c}
	}
	return c.last, nil
}

// Commit counts the commit if a node's version or existence made it impossible.
func (s *countingSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	r, err := s.Session.Commit(ctx, ops...)
	if errors.Is(err, coord.ErrVersion) || errors.Is(err, coord.ErrExist) || errors.Is(err, coord.ErrNotExist) {
		s.of.lost.Add(1)
	}
	return r, err
}
