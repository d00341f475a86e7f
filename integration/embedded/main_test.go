package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue/embedded"
)

// The test binary is also the producers and workers: with roleVariable set it
// plays a part until its standard input ends.
const (
	roleVariable    = "ZKQ_CRASH_TEST_ROLE"
	storeVariable   = "ZKQ_CRASH_TEST_STORE"
	journalVariable = "ZKQ_CRASH_TEST_JOURNAL"
	prefixVariable  = "ZKQ_CRASH_TEST_PREFIX"
	countVariable   = "ZKQ_CRASH_TEST_COUNT"
)

const queueName = "flow"

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		goleak.VerifyTestMain(m)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := play(ctx, role); err != nil {
		fmt.Fprintf(os.Stderr, "%s %s: %v\n", role, os.Getenv(prefixVariable), err)
		os.Exit(1)
	}
}

func open(ctx context.Context, dir string) (*embedded.Coordinator, error) {
	return embedded.Open(ctx, embedded.Config{
		Dir:            dir,
		ConnectTimeout: 2 * time.Minute, // many processes on few cores
	})
}

func play(ctx context.Context, role string) (err error) {
	j, err := openJournal(os.Getenv(journalVariable))
	if err != nil {
		return err
	}
	defer j.file.Close()
	c, err := open(ctx, os.Getenv(storeVariable))
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // its part was over before it began
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	q := zkq.NewLockingQueue(c, queueName)
	defer q.Close()
	if role == "worker" {
		return work(ctx, q, j)
	}
	count, err := strconv.Atoi(os.Getenv(countVariable))
	if err != nil {
		return err
	}
	return produce(ctx, q, j, os.Getenv(prefixVariable), count)
}

// putEvery is a producer's pace: entries are to flow as long as owners are killed.
const putEvery = time.Duration(kills) * time.Second * producers / entries * 9 / 10

// produce puts until count puts were acknowledged.
func produce(ctx context.Context, q *zkq.LockingQueue, j journal, prefix string, count int) error {
	pace := time.NewTicker(putEvery)
	defer pace.Stop()
	for i, acknowledged := 0, 0; acknowledged < count; i++ {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		value := fmt.Sprintf("%s.%d", prefix, i)
		if err := j.say("put %s", value); err != nil {
			return err
		}
		name, err := q.Put(ctx, []byte(value), zkq.WithPriority(i%3))
		switch {
		case err == nil:
			acknowledged++
			err = j.say("ack %s %s", value, name)
		case errors.Is(err, coord.ErrUnknown):
			err = j.say("unknown %s", value)
		default:
			err = errors.Join(err, j.say("refused %s", value))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hands take entries at once in a worker: one by one, or as many as batch.
const (
	hands = 4
	batch = 8
)

// work takes and finishes until ctx ends.
func work(ctx context.Context, q *zkq.LockingQueue, j journal) error {
	var all sync.WaitGroup
	errs := make([]error, hands)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for i := range hands {
		n := 1
		if i%2 == 1 {
			n = batch
		}
		all.Go(func() {
			defer stop()
			for ctx.Err() == nil {
				held, err := q.TakeN(ctx, n)
				if err != nil && ctx.Err() == nil {
					errs[i] = err
					return
				}
				for _, h := range held {
					if err := finish(h, j); err != nil {
						errs[i] = err
						return
					}
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func finish(h *zkq.Held, j journal) error {
	if err := j.say("take %s %d %s", h.Name, h.Token, h.Value); err != nil {
		return err
	}
	if err := j.say("finish %s %d sent", h.Name, h.Token); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	outcome := "ok"
	err := h.Consume(ctx)
	switch {
	case err == nil:
	case errors.Is(err, coord.ErrUnknown):
		outcome, err = "unknown", nil
	case errors.Is(err, zkq.ErrLockLost):
		outcome, err = "lost", nil
	default:
		outcome = "refused"
	}
	return errors.Join(err, j.say("finish %s %d %s", h.Name, h.Token, outcome))
}
