package workload_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/zkq/zkq/internal/workload"
)

// held is an entry of a queue.
type held struct {
	of         *queue
	n          int
	isSeen     bool
	isFinished bool
}

func (h *held) Consume(ctx context.Context) error { return h.of.finish(ctx, h) }

// queue hands out entries without an end, and fails from failAt on.
type queue struct {
	t      *testing.T
	failAt int // 0: never

	mu    sync.Mutex
	taken []*held
}

var errFull = errors.New("full")

func (q *queue) TakeN(ctx context.Context, n int) (entries []*held, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for range n {
		if q.failAt > 0 && len(q.taken) >= q.failAt {
			return nil, errFull
		}
		h := &held{of: q, n: len(q.taken)}
		q.taken = append(q.taken, h)
		entries = append(entries, h)
	}
	return entries, nil
}

func (q *queue) Exchange(ctx context.Context, done []*held, n int) ([]*held, error) {
	for _, h := range done {
		if !h.isSeen {
			q.t.Errorf("entry %d was finished before it was seen", h.n)
		}
		if err := h.Consume(ctx); err != nil {
			return nil, err
		}
	}
	return q.TakeN(ctx, n)
}

func (q *queue) finish(ctx context.Context, h *held) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if h.isFinished {
		q.t.Errorf("entry %d was finished twice", h.n)
	}
	h.isFinished = true
	return ctx.Err()
}

func TestEveryEntryThatIsTakenIsFinishedOnceAndOnlyWholeBatchesCount(t *testing.T) {
	q := &queue{t: t}
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	counted := 0
	err := workload.TakeAndFinish(ctx, t.Context(), q, 3, 4, func(h *held) { h.isSeen = true }, func(k int) {
		mu.Lock()
		defer mu.Unlock()
		if counted += k; counted >= 100 {
			cancel()
		}
		if k != 4 {
			t.Errorf("a batch of %d was finished", k)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range q.taken {
		if !h.isFinished {
			t.Errorf("entry %d is still held", h.n)
		}
	}
	if left := len(q.taken) - counted; left < 0 || left > 3*4 {
		t.Errorf("%d entries were taken and %d counted: what three workers held at the end is not counted", len(q.taken), counted)
	}
}

func TestAnErrorEndsTheWork(t *testing.T) {
	q := &queue{t: t, failAt: 10}
	err := workload.TakeAndFinish(t.Context(), t.Context(), q, 1, 2, func(h *held) { h.isSeen = true }, func(int) {})
	if !errors.Is(err, errFull) {
		t.Errorf("error %v, want %v", err, errFull)
	}
	for _, h := range q.taken {
		if !h.isFinished {
			t.Errorf("entry %d is still held", h.n)
		}
	}
}

func TestInParallelRunsAllAndJoinsTheirErrors(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	meeting := make(chan struct{})
	err := workload.InParallel(2, func(i int) error {
		if i == 0 { // ends only if both run at a time
			<-meeting
			return first
		}
		close(meeting)
		return second
	})
	if !errors.Is(err, first) || !errors.Is(err, second) {
		t.Error(err)
	}
}
