package zkqueue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/zkqueue"
)

// TestAnEntryThatCannotBeReadStopsNothing has a producer put entries with an access list of
// its own among those of others. Entries that may not be read are left out and reported
// once; entries that may be read but not written are handed out.
func TestAnEntryThatCannotBeReadStopsNothing(t *testing.T) {
	t.Parallel()
	for _, plainLayout := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%v", plainLayout), func(t *testing.T) {
			t.Parallel()
			cfg := zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)}
			c := open(t, cfg)
			var mu sync.Mutex
			warned := make(map[string]int)
			warn := zkq.Warn(func(s string) {
				mu.Lock()
				defer mu.Unlock()
				warned[s]++
			})
			ctx := within(t, patience)
			dir := cfg.Chroot + "/jobs"
			type queue interface {
				Put(context.Context, []byte, ...zkq.PutOption) (string, error)
				Peek(context.Context, string) (zkq.Entry, error)
				Stat(context.Context) (zkq.Stat, error)
				Len(context.Context) (int, error)
				Purge(context.Context, zkq.State) (int, error)
				Remove(context.Context, string, bool) error
			}
			var q queue
			var take func() (string, error)
			if plainLayout {
				plain := zkq.NewQueue(c, "jobs", warn)
				defer plain.Close()
				q, take = plain, func() (string, error) {
					e, err := plain.TryGet(ctx)
					return string(e.Value), err
				}
			} else {
				dir += "/entries"
				locking := zkq.NewLockingQueue(c, "jobs", warn)
				defer locking.Close()
				waits := false
				q, take = locking, func() (string, error) {
					get := locking.TryTake
					if waits = !waits; waits {
						get = locking.Take
					}
					within, cancel := context.WithTimeout(ctx, 8*time.Second)
					defer cancel()
					h, err := get(within)
					if errors.Is(err, context.DeadlineExceeded) {
						err = zkq.ErrEmpty
					}
					if err != nil {
						return "", err
					}
					return string(h.Value), h.Consume(ctx)
				}
			}
			put := func(v string) {
				if _, err := q.Put(ctx, []byte(v)); err != nil {
					t.Fatal(err)
				}
			}
			put("first")
			if v, err := take(); v != "first" || err != nil {
				t.Fatalf("%q, %v", v, err)
			}
			z := plain(t)
			foreign := func(v string, world int32) string {
				acl := zk.DigestACL(zk.PermAll, "kazoo", "secret")
				if world != 0 {
					acl = append(acl, zk.WorldACL(world)...)
				}
				at, err := z.Create(dir+"/entry-100-", []byte(v), zk.FlagSequence, acl)
				if err != nil {
					t.Fatal(err)
				}
				return at[strings.LastIndexByte(at, '/')+1:]
			}
			secret := foreign("hidden", 0)
			put("a")
			foreign("readable", zk.PermRead)
			put("b")
			if e, err := q.Peek(ctx, ""); err != nil || string(e.Value) != "a" {
				t.Errorf("peek: %q, %v", e.Value, err)
			}
			if st, err := q.Stat(ctx); err != nil || st.Ready != 4 || st.Oldest.IsZero() {
				t.Errorf("stat: %+v, %v; want 4 ready", st, err)
			}
			var got []string
			for {
				v, err := take()
				if errors.Is(err, zkq.ErrEmpty) {
					break
				}
				if err != nil {
					t.Fatalf("after %q: %v", got, err)
				}
				got = append(got, v)
			}
			if want := []string{"a", "readable", "b"}; !slices.Equal(got, want) {
				t.Errorf("taken were %q, want %q", got, want)
			}
			if _, err := q.Peek(ctx, ""); !errors.Is(err, zkq.ErrEmpty) {
				t.Errorf("peek: %v, want ErrEmpty", err)
			}
			if n, err := q.Len(ctx); n != 1 || err != nil {
				t.Errorf("%d are left, %v; want the one that cannot be read", n, err)
			}
			if locking, ok := q.(*zkq.LockingQueue); ok {
				for e, err := range locking.Entries(ctx) {
					if err != nil || e.Name != secret || !e.Unreadable || e.State != zkq.StateReady {
						t.Errorf("%+v, %v", e, err)
					}
				}
				short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
				defer cancel()
				if err := locking.WaitEmpty(short); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("wait: %v, want the context's error", err)
				}
				worker, end := context.WithCancel(ctx)
				handled := make(chan struct{})
				run := make(chan error, 1)
				go func() {
					w := zkq.Worker{Queue: locking, Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error {
						close(handled)
						return nil
					})}
					run <- w.Run(worker)
				}()
				put("for the worker")
				select {
				case <-handled:
				case err := <-run:
					t.Errorf("Run: %v", err)
				}
				end()
				<-run
			}
			put("purged")
			if n, err := q.Purge(ctx, zkq.StateReady); n != 1 || err != nil {
				t.Errorf("purge: %d, %v", n, err)
			}
			if err := q.Remove(ctx, secret, false); !errors.Is(err, coord.ErrForbidden) {
				t.Errorf("remove: %v, want ErrForbidden", err)
			}
			if err := q.Remove(ctx, secret, true); err != nil {
				t.Errorf("remove by force: %v", err)
			}
			if n, err := q.Len(ctx); n != 0 || err != nil {
				t.Errorf("%d are left, %v", n, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(warned) != 1 {
				t.Errorf("warned of %v", warned)
			}
			for s, n := range warned {
				if n != 1 || !strings.Contains(s, secret) || !strings.Contains(s, "rm --force") {
					t.Errorf("%d times: %s", n, s)
				}
			}
		})
	}
}
