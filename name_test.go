package zkq_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testqueue"
)

// besides are the names of what stands beside a queue's entries, but for the entries and
// the locks themselves.
var besides = []string{"delayed", "dead", "broken", "attempts", "workers", "retained", "unique", "config", "count"}

func TestANameOfOursIsRefusedOnlyAsTheLastSegment(t *testing.T) {
	for _, name := range besides {
		for _, refused := range []string{name, "a/" + name} {
			if _, err := zkq.CheckName(refused); !errors.Is(err, zkq.ErrInvalidName) || !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
				t.Errorf("CheckName(%q) = %v", refused, err)
			}
		}
		for _, allowed := range []string{name + "/a", "a/" + name + "/b", "a/" + name + "/" + name + "s", "a/" + name + "/workers/b"} {
			if _, err := zkq.CheckName(allowed); err != nil {
				t.Errorf("CheckName(%q) = %v", allowed, err)
			}
		}
	}
	for _, name := range []string{"entries", "taken"} { // kazoo takes whatever lies below for entries and locks
		for _, refused := range []string{name, "a/" + name, name + "/a", "a/" + name + "/b"} {
			if _, err := zkq.CheckName(refused); !errors.Is(err, zkq.ErrInvalidName) {
				t.Errorf("CheckName(%q) = %v", refused, err)
			}
		}
	}
}

// A queue below a directory that is called as one of ours, and a queue above it, have nothing
// to do with each other, whatever both do. The configuration and the count are no
// directories: below those of a queue there is none, and below others a queue is like any.
func TestAQueueBelowADirectoryOfOursLeavesTheQueueAboveAlone(t *testing.T) {
	for _, dir := range besides {
		t.Run(dir, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				names := []string{"fleet", "fleet/" + dir + "/jobs"}
				if dir == "config" || dir == "count" {
					names[0] = "other"
				}
				var queues []*zkq.LockingQueue
				for i, name := range names {
					below := testqueue.Confine(b.client(), func(what string) { t.Error(what) }, name)
					queues = append(queues, zkq.NewLockingQueue(below, name))
					defer queues[i].Close()
				}
				for round := range 2 {
					for i, q := range queues {
						b.want(q.Register(b.ctx), nil)
						b.want(q.Configure(b.ctx, zkq.QueueConfig{MaxEntries: 5 + round}), nil)
						b.put(q, names[i], zkq.WithUnique("k"))
						b.put(q, names[i], zkq.WithDelay(time.Second), zkq.WithTTL(time.Hour))
					}
					time.Sleep(5 * time.Second)
					for i, q := range queues {
						for range 2 {
							start := time.Now()
							h := b.take(q)
							if string(h.Value) != names[i] || time.Since(start) > time.Second {
								t.Fatalf("%s gave an entry of %s, after %v", names[i], h.Value, time.Since(start))
							}
							b.fail(h, "no")
							b.want(b.take(q).Bury(b.ctx, "no"), nil)
						}
						st, err := q.Stat(b.ctx)
						if err != nil || st.Dead != 2 || st.Total() != 2 {
							t.Errorf("%s: %+v, %v", names[i], st, err)
						}
						if ws, err := q.Workers(b.ctx); err != nil || len(ws) != 1 {
							t.Errorf("%s has the workers %v, %v", names[i], ws, err)
						}
						if _, err := q.Purge(b.ctx, zkq.StateDead); err != nil {
							t.Error(err)
						}
						b.put(q, names[i])
					}
					found, err := zkq.Queues(b.ctx, b.client())
					want := []string{"/" + names[0], "/" + names[1]}
					if slices.Sort(want); err != nil || !slices.Equal(found, want) {
						t.Errorf("Queues = %v, %v", found, err)
					}
					for _, q := range queues {
						b.consume(b.take(q))
					}
				}
				b.want(queues[0].WaitEmpty(b.ctx), nil)
			})
		})
	}
}

// What is only registered, or only delayed, is a queue too.
func TestQueuesNamesWhatIsOnlyRegisteredOrDelayed(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := b.client()
		for _, name := range []string{"a/registered", "b/delayed/later"} {
			q := zkq.NewLockingQueue(c, name)
			defer q.Close()
			if strings.HasPrefix(name, "a") {
				b.want(q.Register(b.ctx), nil)
			} else {
				b.put(q, "x", zkq.WithDelay(time.Hour))
			}
		}
		b.commit(b.session(c), coord.Create("/c/workers/somebody", nil))
		found, err := zkq.Queues(b.ctx, c)
		if err != nil || !slices.Equal(found, []string{"/a/registered", "/b/delayed/later"}) {
			t.Errorf("Queues = %v, %v", found, err)
		}
	})
}

// A directory is no worker: nothing that falls due is left to it.
func TestWhatIsDueIsNotLeftToADirectoryAmongTheWorkers(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		b.commit(b.session(c), coord.Create("/jobs/workers/below", nil))
		b.want(q.Register(b.ctx), nil)
		for range 20 {
			b.put(q, "x", zkq.WithDelay(3*time.Second))
		}
		start := time.Now()
		for range 20 {
			b.consume(b.take(q))
		}
		if took := time.Since(start); took > 3500*time.Millisecond {
			t.Errorf("the last was taken after %v", took)
		}
	})
}
