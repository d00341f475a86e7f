package simulation

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testhook"
	"github.com/zkq/zkq/internal/testqueue"
)

// watchFleet is a fleet of members that each wait for entries with some workers.
type watchFleet struct {
	*testqueue.Env
	clients  []*coordtest.Coordinator
	counters []*testqueue.Counter
	busy     atomic.Int32                           // workers with an entry
	work     func(ctx context.Context, h *zkq.Held) // called by a worker that took an entry
}

// newWatchFleet starts a fleet, of which two are to watch an idle queue, and lets it come to rest.
func newWatchFleet(env *testqueue.Env, size, workers int, work func(context.Context, *zkq.Held)) *watchFleet {
	f := &watchFleet{Env: env, work: work}
	for i := range size {
		c := env.Client()
		f.clients = append(f.clients, c)
		f.counters = append(f.counters, testqueue.NewCounter(c))
		q := env.QueueOn(f.counters[i], zkq.Holder(fmt.Sprintf("%032x", 100+i)), testqueue.Settings(testhook.Settings{Watchers: 2}))
		env.Register(q)
		for range workers {
			go func() {
				for {
					h, err := q.Take(env.Ctx)
					if err != nil {
						return
					}
					f.busy.Add(1)
					f.work(env.Ctx, h)
					h.Consume(env.Ctx)
					f.busy.Add(-1)
				}
			}()
		}
	}
	f.rest()
	return f
}

// rest lets the fleet come to rest.
func (f *watchFleet) rest() {
	time.Sleep(5 * time.Second)
	synctest.Wait()
}

// onDuty returns the indices of the members on duty.
func (f *watchFleet) onDuty(observer *coordtest.Coordinator) (members []int) {
	for _, at := range f.Children(f.Session(observer), "/jobs/watchers") {
		n := 0
		if _, err := fmt.Sscanf(at, "/jobs/watchers/%x", &n); err != nil {
			f.Fatalf("%s is among the watchers", at)
		}
		members = append(members, n-100)
	}
	return members
}

// eventually waits until isTrue is true.
func (f *watchFleet) eventually(within time.Duration, what string, isTrue func() bool) {
	f.Helper()
	for end := time.Now().Add(within); !isTrue(); time.Sleep(within / 100) {
		if time.Now().After(end) {
			f.Fatalf("within %v not: %s", within, what)
		}
	}
}

func passing(context.Context, *zkq.Held) {}

// held returns the work of an entry that is held until the context ends or the time is over.
func heldFor(d time.Duration) func(context.Context, *zkq.Held) {
	return func(ctx context.Context, _ *zkq.Held) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
}

func TestOfManyIdleMembersAFewHearOfAnEntry(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		f := newWatchFleet(env, 12, 1, passing)
		producer, observer := env.Queue()
		if got := f.onDuty(observer); len(got) != 2 {
			t.Fatalf("%v are on duty, of a fleet of which 2 should be", got)
		}
		for _, c := range f.counters {
			c.Reset()
		}
		for range 20 {
			env.Put(producer, "x")
			time.Sleep(50 * time.Millisecond)
		}
		synctest.Wait()
		heard := 0
		for _, c := range f.counters {
			if c.Count("list", "read") > 0 { // each signal has a listing made
				heard++
			}
		}
		if n := len(env.Entries(producer)); heard > 2 || n > 0 {
			t.Errorf("%d members heard of entries, and %d are left", heard, n)
		}
	})
}

func TestSmallFleetsAllWatchWithoutANode(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		f := newWatchFleet(env, 2, 1, passing)
		_, observer := env.Queue()
		if got := f.onDuty(observer); len(got) != 0 {
			t.Errorf("%v are on duty, of a fleet in which all watch", got)
		}
		for i, c := range f.counters {
			if n := c.Count("watch"); n > 3 { // of the head, and two of the mover
				t.Errorf("member %d began %d watches", i, n)
			}
		}
	})
}

func TestOthersWatchWhenThoseOnDutyDie(t *testing.T) {
	for what, harm := range map[string]func(c *coordtest.Coordinator){
		"crash":  func(c *coordtest.Coordinator) { c.Crash() },
		"expire": func(c *coordtest.Coordinator) { c.Expire() },
		"cut":    func(c *coordtest.Coordinator) { c.Cut() },
	} {
		t.Run(what, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				f := newWatchFleet(env, 12, 1, passing)
				producer, observer := env.Queue()
				for range 4 {
					for _, member := range f.onDuty(observer) {
						harm(f.clients[member])
					}
					env.Put(producer, "x")
					// The sessions last for six seconds, and another second is allowed.
					f.eventually(7*time.Second, "the entry is taken", func() bool { return len(env.Entries(producer)) == 0 })
					time.Sleep(time.Second)
				}
			})
		})
	}
}

func TestAMemberWithoutAFreePlaceIsOffDuty(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		f := newWatchFleet(env, 6, 1, heldFor(time.Minute))
		producer, observer := env.Queue()
		watching := make([]int, 6)
		for i, c := range f.counters {
			watching[i] = c.Watches()
		}
		// One entry after the other finds a member that is free.
		for n := range 6 {
			env.Put(producer, "x")
			f.eventually(time.Second, "a member takes the entry", func() bool { return f.busy.Load() == int32(n+1) })
		}
		f.rest()
		if got := f.onDuty(observer); len(got) != 0 {
			t.Errorf("%v are on duty, and all are busy", got)
		}
		for i, c := range f.counters {
			if got := c.Watches(); got != watching[i]-1 {
				t.Errorf("member %d has %d watches when it is busy, and had %d", i, got, watching[i])
			}
		}
		env.Put(producer, "x")
		time.Sleep(time.Minute)
		f.eventually(time.Second, "the last entry is taken", func() bool { return f.busy.Load() == 1 })
	})
}

func TestAllJoinWhenThereIsWorkForAll(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		f := newWatchFleet(env, 12, 4, heldFor(2*time.Second))
		producer, observer := env.Queue()
		values := make([][]byte, 64)
		for range 5 {
			if _, err := producer.PutAll(env.Ctx, values); err != nil {
				t.Fatal(err)
			}
		}
		f.eventually(300*time.Millisecond, "every worker has an entry", func() bool { return f.busy.Load() == 48 })
		f.eventually(time.Minute, "all entries are done", func() bool { return len(env.Entries(producer)) == 0 && f.busy.Load() == 0 })
		f.rest()
		f.rest()
		if got := f.onDuty(observer); len(got) != 2 {
			t.Errorf("%v are on duty when the fleet is idle again", got)
		}
	})
}

func TestAClosedMemberIsOffDuty(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		f := newWatchFleet(env, 4, 1, passing)
		_, observer := env.Queue()
		q := env.QueueOn(f.clients[0], zkq.Holder(fmt.Sprintf("%032x", 1)), testqueue.Settings(testhook.Settings{Watchers: 5}))
		for range 2 {
			env.QueueOn(f.clients[0], testqueue.Settings(testhook.Settings{Watchers: 5})).Register(env.Ctx)
		}
		env.Register(q)
		ended := make(chan error)
		go func() {
			_, err := q.Take(env.Ctx)
			ended <- err
		}()
		f.rest()
		at := fmt.Sprintf("/jobs/watchers/%032x", 1)
		env.Get(env.Session(observer), at)
		q.Close()
		if err := <-ended; err == nil {
			t.Error("the take of a closed handle took something")
		}
		for _, name := range env.Children(env.Session(observer), "/jobs/watchers") {
			if name == at {
				t.Error("a closed handle is on duty, and its session lives")
			}
		}
	})
}
