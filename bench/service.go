package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/bench/load"
)

// service is a server of one of the two that zkq runs on.
type service struct {
	*process
	kind string

	number int // of the last root
	asked  int // how often ZooKeeper was asked for its count, which counts the question
}

// root is a part of the service that nothing has used.
func (v *service) root() string {
	v.number++
	return fmt.Sprintf("/bench%d", v.number)
}

func (v *service) open(ctx context.Context) (*load.Client, error) {
	return load.Open(ctx, v.kind, v.address, v.root())
}

// requests is how many requests the server has counted, but for those that ask for that.
func (v *service) requests(ctx context.Context) (int, error) {
	if v.kind == load.ZooKeeper {
		v.asked++
		n, err := zkRequests(v.address)
		return n - v.asked, err
	}
	return etcdRequests(ctx, v.address)
}

// events is how many messages the server has sent that answer no request: they tell clients of changes.
func (v *service) events(ctx context.Context) (int, error) {
	if v.kind == load.ZooKeeper {
		v.asked++
		return zkEvents(v.address)
	}
	return etcdEvents(ctx, v.address)
}

// warm works a new server warm: Java's first thousands of requests are slow ones.
func (b *bench) warm(ctx context.Context, v *service) error {
	c, err := v.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	warming := b.warming
	if v.kind == load.Etcd { // nothing is compiled while it runs
		warming /= 4
	}
	for end := time.Now().Add(warming); time.Now().Before(end); {
		if _, err := drainOnce(ctx, c, "warm", 1000, 1000, 16, 1, b.warming); err != nil {
			return fmt.Errorf("warm %s: %w", v.name, err)
		}
	}
	return nil
}

// drainOnce fills a queue up to a backlog and works off some of it, not longer than the limit.
func drainOnce(ctx context.Context, c *load.Client, name string, backlog, most, workers, batch int, limit time.Duration) (load.Done, error) {
	q := zkq.NewLockingQueue(c, name)
	defer q.Close()
	n, err := q.Len(ctx)
	if err != nil {
		return load.Done{}, err
	}
	if err := load.Fill(ctx, c, name, backlog-n); err != nil {
		return load.Done{}, err
	}
	return load.Drain(ctx, q, workers, batch, most, limit)
}

// drain works a queue off from a backlog to half of it, again and again.
func (b *bench) drain(ctx context.Context, c *load.Client, name string, backlog, workers, batch int) (load.Done, error) {
	return b.again(func() (load.Done, error) {
		return drainOnce(ctx, c, name, backlog, backlog/2, workers, batch, b.cell)
	})
}

// again measures something again and again until enough time has gone by, or for as long as the bench has for it.
func (b *bench) again(once func() (load.Done, error)) (load.Done, error) {
	var sum load.Done
	for sum.Took < b.cell/2 {
		d, err := once()
		if err != nil {
			return sum, err
		}
		if d.N == 0 {
			return sum, errors.New("nothing was taken")
		}
		sum.N += d.N
		sum.Took += d.Took
	}
	return sum, nil
}

// refill fills a queue up to a backlog, whatever takes from it.
func refill(ctx context.Context, c *load.Client, name string, backlog int) error {
	s, err := c.Session(ctx)
	if err != nil {
		return err
	}
	n, err := s.Count(ctx, name+"/entries")
	if err != nil {
		return err
	}
	return load.Fill(ctx, c, name, backlog-n)
}
