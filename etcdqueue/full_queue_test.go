package etcdqueue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
)

// heard is a Logger that keeps its warnings. Its Warn is used for the driver's too.
type heard struct {
	mu    sync.Mutex
	lines []string
}

func (h *heard) Debug(string, ...any) {}
func (h *heard) Info(string, ...any)  {}
func (h *heard) Error(string, ...any) {}
func (h *heard) Warn(m string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, fmt.Sprint(append([]any{m, " "}, args...)...))
}

// has reports whether one line has all the words.
func (h *heard) has(words ...string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, line := range h.lines {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

// await waits until one line has all the words.
func (h *heard) await(t *testing.T, words ...string) {
	t.Helper()
	for end := time.Now().Add(patience); !h.has(words...); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			h.mu.Lock()
			defer h.mu.Unlock()
			t.Fatalf("no line has %q: %q", words, h.lines)
		}
	}
}

// TestQueueNamesAFullEtcd fills an etcd up to its quota while a queue and a worker use it.
func TestQueueNamesAFullEtcd(t *testing.T) {
	endpoints := testetcd.StartFor(t, 1, testetcd.Options{Quota: 8 << 20}).Endpoints()
	admin, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	ctx := within(t, patience)
	drivers, queues, workers := &heard{}, &heard{}, &heard{}
	c := open(t, etcdqueue.Config{Endpoints: endpoints, Warn: func(m string) { drivers.Warn(m) }})
	q := zkq.NewLockingQueue(c, "q", zkq.LogTo(queues))
	defer q.Close()
	if _, err := q.Put(ctx, []byte("ready")); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = admin.Put(ctx, fmt.Sprint("/other/", time.Now().UnixNano()), strings.Repeat("x", 200_000))
	}
	if !strings.Contains(err.Error(), "space") {
		t.Fatal(err)
	}

	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	_, err = q.Put(short, []byte("x"))
	cancel()
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, coord.ErrBusy) || errors.Is(err, zkq.ErrUnknown) {
		t.Errorf("put: %v", err)
	}
	for _, words := range []string{"/q", "database space exceeded", "disarm its alarm"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q lacks %q", err, words)
		}
	}
	queues.await(t, "put waits", "/q", "space exceeded")

	worked := make(chan string, 8)
	second := zkq.NewLockingQueue(c, "q")
	defer second.Close()
	w := &zkq.Worker{Queue: second, Logger: workers, Handler: zkq.HandlerFunc(func(_ context.Context, h *zkq.Held) error {
		worked <- string(h.Value)
		return nil
	})}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(running) }()
	workers.await(t, "take waits", "/q", "space exceeded")

	// An operator makes room.
	if _, err := admin.Delete(ctx, "/other/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	status, err := admin.Status(ctx, endpoints[0])
	if err == nil {
		_, err = admin.Compact(ctx, status.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err == nil {
		_, err = admin.Defragment(ctx, endpoints[0])
	}
	if err == nil {
		_, err = admin.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := <-worked; got != "ready" {
		t.Errorf("worked on %q", got)
	}
	workers.await(t, "take goes on", "/q")
	if _, err := q.Put(ctx, []byte("after")); err != nil {
		t.Error(err)
	}
	queues.await(t, "put goes on", "/q")
	if got := <-worked; got != "after" {
		t.Errorf("worked on %q, which was refused", got)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
