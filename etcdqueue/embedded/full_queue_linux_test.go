package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// lockedBuffer is written by a logger and read by a test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestQueueNamesAFullDisk(t *testing.T) {
	dir := newDir(t)
	filler := start(t, "fill", dir, strconv.Itoa(28<<20))
	filler.expect("full")
	c, s := session(t, dir)
	var logged lockedBuffer
	q := zkq.NewLockingQueue(c, "jobs", zkq.LogTo(slog.New(slog.NewTextHandler(&logged, nil))))
	defer q.Close()
	value := make([]byte, 300_000)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	_, err := q.Put(ctx, value)
	cancel()
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, coord.ErrBusy) || errors.Is(err, zkq.ErrUnknown) {
		t.Fatalf("put: %v", err)
	}
	for _, words := range []string{"/jobs", "no space left", "ulimit -f"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q lacks %q", err, words)
		}
	}
	t.Log(err)
	put := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := q.Put(ctx, value)
		put <- err
	}()
	eventually(t, patience, "the wait is logged", func() bool { return strings.Contains(logged.String(), "put waits: ") })
	l, err := s.List(t.Context(), "/q/entries", coord.ListOptions{Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	removeAll(t, s, l.Nodes)
	if err := <-put; err != nil {
		t.Errorf("a put that waited: %v", err)
	}
	if !strings.Contains(logged.String(), "put goes on: ") {
		t.Errorf("logged %q", logged.String())
	}
	filler.rest()
}
