package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/bench/load"
	"github.com/zkq/zkq/internal/workload"
)

// pipe is a queue of any system. A value that put has returned for is stored durably. work has 16 workers take values one
// at a time, shows each to see, and acknowledges it durably; it returns once ctx has ended.
type pipe interface {
	put(ctx context.Context, putter int, value []byte) error // each putter one at a time
	work(ctx context.Context, see func(value []byte)) error
	close()
}

const (
	putters     = 16
	pipeWorkers = 16
)

// ours is a pipe of zkq.
type ours struct {
	client *load.Client
	queue  *zkq.LockingQueue
}

func newOurs(ctx context.Context, v *service) (pipe, error) {
	c, err := v.open(ctx)
	if err != nil {
		return nil, err
	}
	return &ours{c, zkq.NewLockingQueue(c, "/pipe")}, nil
}

func (p *ours) put(ctx context.Context, _ int, value []byte) error {
	_, err := p.queue.Put(ctx, value)
	return err
}

func (p *ours) work(ctx context.Context, see func([]byte)) error {
	return load.Work(ctx, p.queue, pipeWorkers, 1, func(h *zkq.Held) { see(h.Value) }, func(int) {})
}

func (p *ours) close() {
	p.queue.Close()
	p.client.Close()
}

// stream is a pipe with its workers at work; it knows which values are under way.
type stream struct {
	pipe
	stop  context.CancelFunc
	ended chan error

	mu      sync.Mutex
	waiting map[int]time.Time // when the put of each was called
	took    []time.Duration   // from that to its worker
	seen    chan struct{}     // closed when nothing is waited for
	bad     error
}

// newStream starts the workers and sees a few values through, so that what is done only once is done.
func newStream(ctx context.Context, p pipe) (*stream, error) {
	working, stop := context.WithCancel(ctx)
	s := &stream{pipe: p, stop: stop, ended: make(chan error, 1), waiting: make(map[int]time.Time)}
	go func() { s.ended <- p.work(working, s.see) }()
	if _, err := s.burst(ctx, 8*putters); err != nil {
		return nil, errors.Join(err, s.end())
	}
	return s, nil
}

// end stops the workers.
func (s *stream) end() error {
	s.stop()
	return <-s.ended
}

// expect says which values are to come.
func (s *stream) expect(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range n {
		s.waiting[i] = time.Time{}
	}
	s.seen, s.took = make(chan struct{}), nil
}

func (s *stream) put(ctx context.Context, putter, i int) error {
	s.mu.Lock()
	s.waiting[i] = time.Now()
	s.mu.Unlock()
	return s.pipe.put(ctx, putter, load.Value(i))
}

func (s *stream) see(value []byte) {
	i, err := load.Number(value)
	s.mu.Lock()
	defer s.mu.Unlock()
	begun, ok := s.waiting[i]
	if err == nil && !ok {
		err = fmt.Errorf("value %d came twice", i)
	}
	if err != nil {
		s.bad = err
		return
	}
	delete(s.waiting, i)
	s.took = append(s.took, time.Since(begun))
	if len(s.waiting) == 0 {
		close(s.seen)
	}
}

// wait returns when every value has come.
func (s *stream) wait(ctx context.Context) error {
	select {
	case <-s.seen:
	case err := <-s.ended:
		s.ended <- err
		return fmt.Errorf("the workers ended: %w", err)
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Minute):
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Errorf("%d values did not come", len(s.waiting))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bad
}

// burst has all putters put n values as fast as they can, and measures until the last has come to a worker.
func (s *stream) burst(ctx context.Context, n int) (load.Done, error) {
	n = max(n/putters, 1) * putters
	s.expect(n)
	begun := time.Now()
	err := workload.InParallel(putters, func(p int) error {
		for i := p; i < n; i += putters {
			if err := s.put(ctx, p, i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return load.Done{}, err
	}
	err = s.wait(ctx)
	return load.Done{N: n, Took: time.Since(begun)}, err
}

// flow is the whole way through a pipe, at full speed for about a measurement's time.
func (b *bench) flow(name string, open func(context.Context) (pipe, error)) *contender {
	rate := 0.0
	return &contender{name: name, run: func(ctx context.Context) (load.Done, error) {
		p, err := open(ctx)
		if err != nil {
			return load.Done{}, err
		}
		defer p.close()
		s, err := newStream(ctx, p)
		if err != nil {
			return load.Done{}, err
		}
		if rate == 0 { // how many fit
			d, err := s.burst(ctx, 20*putters)
			if err != nil {
				return d, errors.Join(err, s.end())
			}
			rate = d.Rate()
		}
		d, err := s.burst(ctx, min(int(rate*b.cell.Seconds()), 20_000))
		if err == nil {
			rate = d.Rate()
		}
		return d, errors.Join(err, s.end())
	}}
}

// paced puts 100 values a second and returns how long each was under way to its worker, in order.
func (s *stream) paced(ctx context.Context, n int) ([]time.Duration, error) {
	s.expect(n)
	errs := make(chan error, n)
	turns := make([]sync.Mutex, putters)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := range n {
		<-tick.C
		go func() {
			turns[i%putters].Lock()
			defer turns[i%putters].Unlock()
			errs <- s.put(ctx, i%putters, i)
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			return nil, err
		}
	}
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return slices.Sorted(slices.Values(s.took)), nil
}
