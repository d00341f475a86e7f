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
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				names := []string{"fleet", "fleet/" + dir + "/jobs"}
				if dir == "config" || dir == "count" {
					names[0] = "other"
				}
				var queues []*zkq.LockingQueue
				for i, name := range names {
					below := testqueue.Confine(env.Client(), func(what string) { t.Error(what) }, name)
					queues = append(queues, zkq.NewLockingQueue(below, name))
					defer queues[i].Close()
				}
				for round := range 2 {
					for i, q := range queues {
						env.WantErr(q.Register(env.Ctx), nil)
						env.WantErr(q.Configure(env.Ctx, zkq.QueueConfig{MaxEntries: 5 + round}), nil)
						env.Put(q, names[i], zkq.WithUnique("k"))
						env.Put(q, names[i], zkq.WithDelay(time.Second), zkq.WithTTL(time.Hour))
					}
					time.Sleep(5 * time.Second)
					for i, q := range queues {
						for range 2 {
							start := time.Now()
							h := env.Take(q)
							if string(h.Value) != names[i] || time.Since(start) > time.Second {
								t.Fatalf("%s gave an entry of %s, after %v", names[i], h.Value, time.Since(start))
							}
							env.Fail(h, "no")
							env.WantErr(env.Take(q).Bury(env.Ctx, "no"), nil)
						}
						st, err := q.Stat(env.Ctx)
						if err != nil || st.Dead != 2 || st.Total() != 2 {
							t.Errorf("%s: %+v, %v", names[i], st, err)
						}
						if ws, err := q.Workers(env.Ctx); err != nil || len(ws) != 1 {
							t.Errorf("%s has the workers %v, %v", names[i], ws, err)
						}
						if _, err := q.Purge(env.Ctx, zkq.StateDead); err != nil {
							t.Error(err)
						}
						env.Put(q, names[i])
					}
					found, err := zkq.Queues(env.Ctx, env.Client())
					want := []string{"/" + names[0], "/" + names[1]}
					if slices.Sort(want); err != nil || !slices.Equal(found, want) {
						t.Errorf("Queues = %v, %v", found, err)
					}
					for _, q := range queues {
						env.Consume(env.Take(q))
					}
				}
				env.WantErr(queues[0].WaitEmpty(env.Ctx), nil)
			})
		})
	}
}

// What is only registered, or only delayed, is a queue too.
func TestQueuesNamesWhatIsOnlyRegisteredOrDelayed(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := env.Client()
		for _, name := range []string{"a/registered", "b/delayed/later"} {
			q := zkq.NewLockingQueue(c, name)
			defer q.Close()
			if strings.HasPrefix(name, "a") {
				env.WantErr(q.Register(env.Ctx), nil)
			} else {
				env.Put(q, "x", zkq.WithDelay(time.Hour))
			}
		}
		env.Commit(env.Session(c), coord.Create("/c/workers/somebody", nil))
		found, err := zkq.Queues(env.Ctx, c)
		if err != nil || !slices.Equal(found, []string{"/a/registered", "/b/delayed/later"}) {
			t.Errorf("Queues = %v, %v", found, err)
		}
	})
}

// A directory is no worker: nothing that falls due is left to it.
func TestWhatIsDueIsNotLeftToADirectoryAmongTheWorkers(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		env.Commit(env.Session(c), coord.Create("/jobs/workers/below", nil))
		env.WantErr(q.Register(env.Ctx), nil)
		for range 20 {
			env.Put(q, "x", zkq.WithDelay(3*time.Second))
		}
		start := time.Now()
		for range 20 {
			env.Consume(env.Take(q))
		}
		if took := time.Since(start); took > 3500*time.Millisecond {
			t.Errorf("the last was taken after %v", took)
		}
	})
}
