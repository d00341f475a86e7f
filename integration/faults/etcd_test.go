//go:build faults

package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zkq/zkq/internal/testetcd"
	"github.com/zkq/zkq/internal/testfleet"
	"github.com/zkq/zkq/internal/testproxy"
)

// etcd starts three members, which write a snapshot every few seconds and keep no more commits than from one to the next.
func etcd(t *testing.T) *service {
	c := testetcd.StartFor(t, 3, testetcd.Options{Peers: true, SnapCount: 500})
	admin := c.Client(t)
	s := &service{
		Config: testfleet.Config{
			Place: testfleet.Place{Service: testfleet.Etcd, Addresses: c.Endpoints(), Root: testfleet.NewRoot(), Session: 5 * time.Second},
			Bound: 5 * time.Second,
			Link:  func(t testing.TB) *testproxy.Link { return testetcd.NewLink(t, c.Endpoints()...).Link },
		},
		serve: func(t testing.TB) {
			if err := c.Restart(); err != nil {
				t.Fatal(err)
			}
			eventually(t, patience, "all members know a leader", func() bool { return c.Serves(context.Background(), admin) })
		},
		leads: func(testing.TB) member {
			if m := c.Leader(context.Background(), admin); m != nil {
				return m
			}
			return nil
		},
		cutOff: func(t testing.TB, m member, deaf bool) {
			if err := c.CutOff(within(t, patience), admin, m.(*testetcd.Member), deaf); err != nil {
				t.Fatal(err)
			}
		},
		heal: c.HealPeers,
	}
	for _, m := range c.Members {
		s.members = append(s.members, m)
	}
	w := watch(t, admin, s.Root)
	s.commits = func(t testing.TB) []testfleet.Commit { return w.take(t, admin) }
	s.own = []fault{{"all is compacted and defragmented", 0, func(t *trial) {
		// The watch has heard of all that was there before the fault.
		if _, err := admin.Compact(within(t, patience), w.heard(), clientv3.WithCompactPhysical()); err != nil {
			t.Fatal(err)
		}
		for _, m := range c.Members {
			if _, err := admin.Defragment(within(t, patience), m.Client); err != nil {
				t.Fatal(err)
			}
		}
	}}}
	return s
}

// watcher hears every event of a cluster from its first revision on.
type watcher struct {
	root string

	mu      sync.Mutex
	commits []testfleet.Commit // not taken yet
	last    int64
	err     error
}

func watch(t testing.TB, client *clientv3.Client, root string) *watcher {
	w := &watcher{root: root, last: 1}
	ctx, cancel := context.WithCancel(context.Background())
	responses := client.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(1))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r := range responses {
			w.add(r)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.err = errors.Join(w.err, errors.New("the watch has ended"))
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return w
}

func (w *watcher) add(r clientv3.WatchResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := r.Err(); err != nil {
		w.err = err
	}
	for _, e := range r.Events {
		switch revision := e.Kv.ModRevision; {
		case revision < w.last:
			w.err = fmt.Errorf("revision %d came after %d", revision, w.last)
		case revision > w.last || len(w.commits) == 0:
			w.commits = append(w.commits, testfleet.Commit{Revision: revision})
			w.last = revision
		}
		path, ours := strings.CutPrefix(string(e.Kv.Key), w.root)
		if !ours {
			continue
		}
		change := testfleet.Change{Path: path, Deleted: e.Type == clientv3.EventTypeDelete, Value: string(e.Kv.Value)}
		if e.Kv.Lease != 0 {
			change.Owner = fmt.Sprintf("%016x", e.Kv.Lease)
		}
		at := &w.commits[len(w.commits)-1]
		at.Changes = append(at.Changes, change)
	}
}

// heard is the revision up to which the watch has heard of everything.
func (w *watcher) heard() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

func (w *watcher) take(t testing.TB, client *clientv3.Client) []testfleet.Commit {
	t.Helper()
	now, err := client.Get(within(t, patience), "any")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the watch hears of what is committed", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.last >= now.Header.Revision || w.err != nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		t.Fatal(w.err)
	}
	taken := w.commits
	w.commits = nil
	return taken
}
