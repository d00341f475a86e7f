// Package load is what the bench does to a queue of ours: fill it, work it off, and count what that cost.
package load

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/workload"
	"github.com/zkq/zkq/zkqueue"
)

// The services.
const (
	ZooKeeper = "ZooKeeper"
	Etcd      = "etcd"
)

// Size is how many bytes each value has.
const Size = 100

// Open returns a client of a service, which counts what it sends.
func Open(ctx context.Context, service, address, root string) (*Client, error) {
	const patience = 30 * time.Second
	k := &Client{}
	var err error
	switch service {
	case ZooKeeper:
		k.Coordinator, err = zkqueue.Open(ctx, zkqueue.Config{Servers: []string{address}, Chroot: root, ConnectTimeout: patience, Dial: k.dial})
	case Etcd:
		k.Coordinator, err = etcdqueue.Open(ctx, etcdqueue.Config{Endpoints: []string{address}, Prefix: root, ConnectTimeout: patience})
	default:
		err = fmt.Errorf("no service %q", service)
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// Value is the value with a number in it.
func Value(n int) []byte {
	b := make([]byte, Size)
	for i := range b {
		b[i] = '.'
	}
	copy(b, fmt.Sprintf("%012d", n))
	return b
}

// Number is the number in a value.
func Number(value []byte) (n int, err error) {
	if len(value) != Size {
		return 0, fmt.Errorf("a value of %d bytes", len(value))
	}
	for _, c := range value[:12] {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("the value %q is none of ours", value)
		}
		n = 10*n + int(c-'0')
	}
	return n, nil
}

// Fill puts n entries, many in a commit.
func Fill(ctx context.Context, c coord.Coordinator, name string, n int) error {
	const batch, hands = 100, 4 // 128 is etcd's default
	q := zkq.NewLockingQueue(c, name)
	defer q.Close()
	var next atomic.Int64
	return workload.InParallel(hands, func(int) error {
		for {
			from := int(next.Add(batch)) - batch
			if from >= n {
				return nil
			}
			var values [][]byte
			for i := from; i < min(from+batch, n); i++ {
				values = append(values, Value(i))
			}
			if _, err := q.PutAll(ctx, values); err != nil {
				return fmt.Errorf("fill %s: %w", name, err)
			}
		}
	})
}

// Done is how many entries were worked off, and how long that took.
type Done struct {
	N    int
	Took time.Duration
}

// Rate is entries per second.
func (d Done) Rate() float64 {
	if d.Took <= 0 {
		return 0
	}
	return float64(d.N) / d.Took.Seconds()
}

// Drain has workers take and finish entries, batch at a time, until there were most of them or the time is over.
func Drain(ctx context.Context, q *zkq.LockingQueue, workers, batch, most int, limit time.Duration) (Done, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var n atomic.Int64
	var last atomic.Int64
	begun := time.Now()
	err := Work(ctx, q, workers, batch, func(*zkq.Held) {}, func(k int) {
		last.Store(int64(time.Since(begun)))
		if n.Add(int64(k)) >= int64(most) {
			cancel()
		}
	})
	return Done{N: int(n.Load()), Took: time.Duration(last.Load())}, err
}

// Work is [workload.TakeAndFinish]. What is held when ctx ends comes to its end.
func Work(ctx context.Context, q *zkq.LockingQueue, workers, batch int, see func(*zkq.Held), finished func(int)) error {
	return workload.TakeAndFinish(ctx, context.WithoutCancel(ctx), q, workers, batch, see, finished)
}
