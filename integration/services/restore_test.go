package services_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
)

// TestTakeGoesOnAfterEtcdWasRestored puts etcd back to an older state under a process that waits in Take: the entries
// that are there again are handed out, to this take and to a new handle, and puts work. A session that lasts longer than
// the restore is in the older state, too.
func TestTakeGoesOnAfterEtcdWasRestored(t *testing.T) {
	for name, session := range map[string]time.Duration{"the session ends": 2 * time.Second, "the session was restored": time.Minute} {
		t.Run(name, func(t *testing.T) {
			cluster := testetcd.StartFor(t, 1, testetcd.Options{})
			member := cluster.Members[0]
			p := newPlace(t, "etcd")
			open := func() coord.Coordinator {
				c, err := etcdqueue.Open(p.ctx, etcdqueue.Config{Endpoints: cluster.Endpoints(), SessionTimeout: session, ConnectTimeout: 30 * time.Second})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			}
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			c := open()
			q, feeder := p.locking(c, "jobs"), p.locking(open(), "jobs")
			consume := func(n int) (values []string) {
				t.Helper()
				ctx, cancel := context.WithTimeout(p.ctx, 3*time.Minute)
				defer cancel()
				for range n {
					h, err := q.Take(ctx)
					if err != nil {
						t.Fatalf("after %q: %v", values, err)
					}
					values = append(values, string(h.Value))
					if err := h.Consume(ctx); err != nil {
						t.Fatalf("consume %s: %v", h.Value, err)
					}
				}
				return values
			}
			p.put(feeder, "first")
			consume(1) // the view is made
			want := []string{"a", "b", "c", "d", "e"}
			for _, v := range want {
				p.put(feeder, v)
			}

			member.Terminate()
			restore, err := member.Backup()
			must(err)
			must(cluster.Restart())

			consume(len(want))
			for i := range 50 { // the service gets far ahead of its backup
				p.put(feeder, fmt.Sprint("later ", i))
			}
			consume(50)
			type taken struct {
				h   *zkq.Held
				err error
			}
			waiting := make(chan taken, 1)
			go func() {
				ctx, cancel := context.WithTimeout(p.ctx, 3*time.Minute)
				defer cancel()
				h, err := q.Take(ctx)
				waiting <- taken{h, err}
			}()
			select {
			case got := <-waiting:
				t.Fatalf("an empty queue handed out %+v", got)
			case <-time.After(100 * time.Millisecond):
			}

			member.Terminate()
			must(restore())
			must(cluster.Restart())

			got := <-waiting
			if got.err != nil {
				t.Fatalf("the take that waited while etcd was restored: %v", got.err)
			}
			values := []string{string(got.h.Value)}
			must(got.h.Consume(p.ctx))
			values = append(values, consume(len(want)-1)...)
			if slices.Sort(values); !slices.Equal(values, want) {
				t.Errorf("taken after the restore: %q, want %q", values, want)
			}
			other := p.locking(c, "jobs")
			name := p.put(q, "new")
			h, err := other.TryTake(p.ctx)
			if err != nil || h.Name != name {
				t.Fatalf("a new handle took %+v, %v", h, err)
			}
			must(h.Consume(p.ctx))
			p.put(feeder, "newer")
			if got := consume(1); got[0] != "newer" {
				t.Errorf("taken last: %q", got)
			}
		})
	}
}
