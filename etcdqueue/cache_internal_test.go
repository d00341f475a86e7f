package etcdqueue

import (
	"context"
	"errors"
	"fmt"
	"path"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testetcd"
)

// openWatching returns a session that watches a directory, with the cache filled.
func openWatching(t *testing.T, dir string) (*Coordinator, coord.Session, <-chan struct{}) {
	t.Helper()
	cluster := testetcd.StartFor(t, 1, testetcd.Options{})
	c, err := Open(t.Context(), Config{Endpoints: cluster.Endpoints(), SessionTimeout: 10 * time.Second, ConnectTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	signal, err := s.Watch(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		listSeenNames(t, s, dir)
	}
	return c, s, signal
}

func listSeenNames(t *testing.T, s coord.Session, dir string) map[string]bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l, err := s.List(ctx, dir, coord.ListOptions{Seen: true})
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, n := range l.Nodes {
		names[path.Base(n.Path)] = true
	}
	return names
}

// TestAProcessSeesItsOwnCommitsAtOnce looks right after each commit: there is a signal, and
// a listing from the cache shows the commit.
func TestAProcessSeesItsOwnCommitsAtOnce(t *testing.T) {
	c, s, signal := openWatching(t, "/q")
	unseen, unsignalled := 0, 0
	for i := range 200 {
		select {
		case <-signal:
		default:
		}
		name := fmt.Sprintf("%03d", i)
		if _, err := s.Commit(t.Context(), coord.Create("/q/"+name, nil)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-signal:
		default:
			unsignalled++
		}
		if !listSeenNames(t, s, "/q")[name] {
			unseen++
		}
	}
	if unseen > 0 || unsignalled > 0 {
		t.Errorf("of 200 commits %d were not seen and %d not signalled when they were answered", unseen, unsignalled)
	}
	if !c.watches.find("/q").cache.isFilled() {
		t.Error("the mirror does not stand: the service was asked")
	}
}

// TestListingsDoNotWaitForAnEventForEver makes a listing wait for an event that never
// comes. The service answers it after half the session timeout; before that, the end of its
// context or of its session ends it.
func TestListingsDoNotWaitForAnEventForEver(t *testing.T) {
	c, s, _ := openWatching(t, "/q")
	if _, err := s.Commit(t.Context(), coord.Create("/q/a", nil)); err != nil {
		t.Fatal(err)
	}
	never := func() { c.watches.find("/q").cache.noteCommit(1 << 40) }
	never()
	if names := listSeenNames(t, s, "/q"); !names["a"] || len(names) != 1 {
		t.Errorf("seen after the wait: %v", names)
	}
	list := func(ctx context.Context) error {
		_, err := s.List(ctx, "/q", coord.ListOptions{Seen: true})
		return err
	}
	neverAgain := func() {
		for !c.watches.find("/q").cache.isFilled() {
			if err := list(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		never()
	}
	neverAgain()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := list(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after its context ended: %v", err)
	}
	neverAgain()
	time.AfterFunc(50*time.Millisecond, func() { c.Close() })
	if err := list(t.Context()); !errors.Is(err, coord.ErrClosed) {
		t.Errorf("after the coordinator was closed: %v", err)
	}
}

// TestAnAdvancingCacheWakesWaitingListings checks for each way in which a cache advances
// that the channel returned by page is closed.
func TestAnAdvancingCacheWakesWaitingListings(t *testing.T) {
	event := func(rev int64) []*clientv3.Event {
		return []*clientv3.Event{{Type: clientv3.EventTypePut, Kv: &mvccpb.KeyValue{Key: []byte("/q/b"), CreateRevision: rev, ModRevision: rev}}}
	}
	for name, move := range map[string]func(*dirCache){
		"an event":        func(m *dirCache) { m.apply(len("/q/"), event(7)) },
		"another listing": func(m *dirCache) { m.install(m.beginFill(), 7, nil, nil) },
		"the end":         func(m *dirCache) { m.discard(true) },
	} {
		m := newDirCache()
		m.install(m.beginFill(), 5, []string{"a"}, nil)
		m.noteCommit(7)
		l, at, moved := m.page("/q", coord.ListOptions{Seen: true}, m.requiredRevision())
		if at != 5 || moved == nil || len(l.Nodes) > 0 {
			t.Fatalf("%s: a mirror at 5 lists %v at %d though 7 was committed", name, l.Nodes, at)
		}
		move(m)
		select {
		case <-moved:
		default:
			t.Errorf("%s wakes nobody", name)
		}
		if _, _, moved = m.page("/q", coord.ListOptions{Seen: true}, m.requiredRevision()); moved != nil {
			t.Errorf("%s: a listing still waits", name)
		}
	}
}

// TestADiscardedCacheDoesNotComeBack: a listing that began before the cache was discarded
// may be older than what the service has answered since.
func TestADiscardedCacheDoesNotComeBack(t *testing.T) {
	m := newDirCache()
	reading := m.beginFill()
	m.discard(false)
	m.install(reading, 5, []string{"a"}, nil)
	if m.isFilled() {
		t.Error("it does")
	}
}
