package zkqueue_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testzk"
	"github.com/zkq/zkq/zkqueue"
)

// writers are goroutines that write until stop is called. It returns the longest time that
// one of them had no success.
type writers struct {
	t      *testing.T
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	last  []time.Time
	gap   time.Duration
	lost  int
	fails map[string]int
}

func startWriters(t *testing.T, c *testzk.Cluster, n int, session time.Duration) *writers {
	t.Helper()
	w := &writers{t: t, last: make([]time.Time, n), fails: make(map[string]int)}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	root := chroot(t)
	for i := range n {
		c := open(t, zkqueue.Config{Servers: c.Addresses(), Chroot: root, SessionTimeout: session})
		w.last[i] = time.Now()
		w.wg.Go(func() { w.run(ctx, c, i) })
	}
	return w
}

func (w *writers) run(ctx context.Context, c *zkqueue.Coordinator, i int) {
	for n := 0; ctx.Err() == nil; n++ {
		s, err := c.Session(ctx)
		if err == nil {
			_, err = s.Commit(ctx, coord.Create(fmt.Sprintf("/q/%d-%d", i, n), nil))
		}
		now := time.Now()
		w.mu.Lock()
		if err == nil {
			w.gap = max(w.gap, now.Sub(w.last[i]))
			w.last[i] = now
		} else if ctx.Err() == nil {
			w.fails[err.Error()]++
			if errors.Is(err, coord.ErrSessionLost) {
				w.lost++
			}
		}
		w.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
}

// awaitAll waits until every writer has had a success since the time.
func (w *writers) awaitAll(since time.Time, most time.Duration) {
	w.t.Helper()
	eventually(w.t, most, "every client writes again", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, at := range w.last {
			if at.Before(since) {
				return false
			}
		}
		return true
	})
}

func (w *writers) stop() {
	w.cancel()
	w.wg.Wait()
	w.t.Logf("longest gap %v, sessions lost %d, %v", w.gap, w.lost, w.fails)
}

// TestPausedLeaderCostsSeconds allows a busy machine several times what integration/faults measures
// (8 s). go-zookeeper alone would wait for the paused member for 40 s: ten times two thirds of the
// session timeout.
func TestPausedLeaderCostsSeconds(t *testing.T) {
	c := servers.Ensemble(t)
	w := startWriters(t, c, 4, 6*time.Second)
	defer w.stop()
	leader, err := c.Leader()
	if err != nil {
		t.Fatal(err)
	}
	if err := leader.Pause(); err != nil {
		t.Fatal(err)
	}
	defer leader.Resume()
	// What was answered before the pause took hold does not count.
	w.awaitAll(time.Now().Add(100*time.Millisecond), 30*time.Second)
}

func TestKilledLeaderCostsSeconds(t *testing.T) {
	c := servers.Ensemble(t)
	w := startWriters(t, c, 4, 40*time.Second) // longer than any election
	leader, err := c.Leader()
	if err != nil {
		t.Fatal(err)
	}
	leader.Kill()
	w.awaitAll(time.Now(), 30*time.Second)
	w.stop()
	if w.lost > 0 {
		t.Errorf("%d sessions were lost with the leader", w.lost)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
}

// TestReadsSeeWhatOthersWereTold reads on every member what was just written on another.
// Without a barrier followers return old values, and with a sync the leader does.
func TestReadsSeeWhatOthersWereTold(t *testing.T) {
	c := servers.Ensemble(t)
	root := chroot(t)
	var sessions []coord.Session
	for _, m := range c.Members {
		sessions = append(sessions, session(t, open(t, zkqueue.Config{Servers: []string{m.Address}, Chroot: root})))
	}
	commit(t, sessions[0], coord.Create("/q/n", nil))
	ctx := within(t, patience)
	// One kind of read at a time, as the barrier of one would serve the others too.
	reads := map[string]func(s coord.Session) (int, error){
		"get": func(s coord.Session) (int, error) {
			n, err := s.Get(ctx, "/q/n")
			return int(n.Fence), err
		},
		"list": func(s coord.Session) (int, error) {
			l, err := s.List(ctx, "/q/d", coord.ListOptions{Fresh: true})
			return len(l.Nodes), err
		},
		"count": func(s coord.Session) (int, error) { return s.Count(ctx, "/q/d") },
	}
	n := 0
	for name, read := range reads {
		for range 60 {
			commit(t, sessions[n%3], coord.Set("/q/n", nil, coord.Fence(n)), coord.Create(fmt.Sprintf("/q/d/%d", n), nil))
			n++
			var wg sync.WaitGroup
			for i, s := range sessions {
				wg.Go(func() {
					if got, err := read(s); err != nil || got != n {
						t.Errorf("%s on member %d: %d, %v; %d was committed", name, i, got, err, n)
					}
				})
			}
			wg.Wait()
		}
	}
}
