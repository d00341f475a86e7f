package hostile

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testhook"
	"github.com/zkq/zkq/internal/testqueue"
)

// states puts n entries into a state each, and returns their values. All are handled by a process that holds what is to be
// held.
var states = map[zkq.State]func(env *testqueue.Env, n int){
	zkq.StateReady: func(env *testqueue.Env, n int) {
		putMany(env, n)
	},
	zkq.StateHeld: func(env *testqueue.Env, n int) {
		putMany(env, n)
		takeMany(env, n)
	},
	zkq.StateDelayed: func(env *testqueue.Env, n int) {
		putMany(env, n/2, zkq.WithDelay(time.Hour))
		putMany(env, n-n/2)
		for _, h := range takeMany(env, n-n/2) {
			env.Release(h, zkq.After(2*time.Hour))
		}
	},
	zkq.StateDead: func(env *testqueue.Env, n int) {
		putMany(env, n)
		for _, h := range takeMany(env, n) {
			env.Bury(h, "bad")
		}
	},
}

func putMany(env *testqueue.Env, n int, opts ...zkq.PutOption) []string {
	q, _ := env.Queue()
	values := make([][]byte, n)
	for i := range values {
		values[i] = fmt.Append(nil, i)
	}
	names, err := q.PutAll(env.Ctx, values, opts...)
	if err != nil {
		env.Fatal(err)
	}
	return names
}

func takeMany(env *testqueue.Env, n int) (held []*zkq.Held) {
	q, _ := env.Queue()
	for len(held) < n {
		some, err := q.TryTakeN(env.Ctx, n-len(held))
		if err != nil {
			env.Fatal(err)
		}
		held = append(held, some...)
	}
	return held
}

// total is how many entries of any state there are.
func total(env *testqueue.Env) int {
	q, _ := env.Queue()
	st, err := q.Stat(env.Ctx)
	if err != nil {
		env.Fatal(err)
	}
	return st.Total()
}

// fewest is how many entries share the requests of these tests.
const fewest = 600

// TestChangesOfManyCostFewRequests counts requests of the queue. The drivers divide a read of 60 nodes once more.
func TestChangesOfManyCostFewRequests(t *testing.T) {
	for state, prepare := range states {
		t.Run("purge "+string(state), func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				prepare(env, fewest)
				c := testqueue.NewCounter(env.Client())
				if n, err := env.QueueOn(c).Purge(env.Ctx, state); n != fewest || err != nil {
					t.Errorf("Purge = %d, %v", n, err)
				}
				if n := c.Count(); n > fewest/8 {
					t.Errorf("%d requests: %v", n, c.Requests)
				}
				s := env.Session(env.Client())
				for _, dir := range []string{"entries", "taken", "delayed", "dead", "attempts"} {
					if left := env.Children(s, "/jobs/"+dir); len(left) > 0 {
						t.Errorf("%d nodes are left, %s among them", len(left), left[0])
					}
				}
			})
		})
	}
	t.Run("rm", func(t *testing.T) {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			names := putMany(env, fewest)
			c := testqueue.NewCounter(env.Client())
			var removed []string
			for name, err := range env.QueueOn(c).RemoveAll(env.Ctx, names, false) {
				if err != nil {
					t.Error(err)
				}
				removed = append(removed, name)
			}
			if n := c.Count(); n > fewest/8 || !slices.Equal(removed, names) || total(env) > 0 {
				t.Errorf("%d removed with %d requests: %v", len(removed), n, c.Requests)
			}
		})
	})
	t.Run("requeue", func(t *testing.T) {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			states[zkq.StateDead](env, fewest)
			c := testqueue.NewCounter(env.Client())
			q := env.QueueOn(c)
			var names []string
			for r, err := range q.RequeueAll(env.Ctx) {
				if err != nil {
					t.Error(err)
				}
				names = append(names, r.Name)
			}
			if n := c.Count(); n > fewest/8 || len(names) != fewest {
				t.Errorf("%d requeued with %d requests: %v", len(names), n, c.Requests)
			}
			for i, e := range env.Entries(q) {
				if e.State != zkq.StateReady || !slices.Contains(names, e.Name) {
					t.Fatalf("entry %d is %+v", i, e)
				}
			}
		})
	})
}

// before calls f before the first commit of c that begins with an op of the kind in a directory.
func before(c *testqueue.Counter, kind coord.Kind, dir string, f func()) {
	once := sync.OnceFunc(f)
	c.Before(func(_ coord.Session, act, first string) {
		if act == "commit" && strings.HasPrefix(first, fmt.Sprint(kind, " /jobs/", dir)) {
			once()
		}
	})
}

// TestPurgeLeavesWhatAnotherProcessTook has another process take entries after the purge has read them and before it
// claims them.
func TestPurgeLeavesWhatAnotherProcessTook(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const n, others = 100, 7
		putMany(env, n)
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		var held []*zkq.Held
		before(c, coord.KindTouch, "entries", func() { held = takeMany(env, others) })
		if removed, err := q.Purge(env.Ctx, zkq.StateReady); removed != n-others || err != nil {
			t.Errorf("Purge = %d, %v: another process took %d of %d", removed, err, others, n)
		}
		for _, h := range held {
			env.Consume(h)
		}
		if left := total(env); left > 0 {
			t.Errorf("%d are left", left)
		}
	})
}

// TestPurgeLeavesWhatKazooTook is the same with a lock of kazoo's, which moves no fence.
func TestPurgeLeavesWhatKazooTook(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const n = 20
		names := putMany(env, n)
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		kazoo := env.Session(env.Client())
		before(c, coord.KindTouch, "entries", func() {
			env.Commit(kazoo, coord.CreateEphemeral("/jobs/taken/"+names[3], []byte("kazoo")))
		})
		if removed, err := q.Purge(env.Ctx, zkq.StateReady); removed != n-1 || err != nil {
			t.Errorf("Purge = %d, %v: kazoo took one of %d", removed, err, n)
		}
		env.Get(kazoo, "/jobs/entries/"+names[3])
	})
}

// TestPurgeRemovesWhatChangedAndIsReady has another process take and release entries after the purge has read them: their
// fences have moved, and they are ready.
func TestPurgeRemovesWhatChangedAndIsReady(t *testing.T) {
	for _, c := range []struct {
		state   zkq.State
		changed int
	}{{zkq.StateReady, 1}, {zkq.StateReady, 5}, {zkq.StateDead, 1}, {zkq.StateDead, 5}} {
		state := c.state
		change := func(env *testqueue.Env) {
			if state == zkq.StateReady {
				for _, h := range takeMany(env, c.changed) {
					env.Release(h)
				}
				return
			}
			s := env.Session(env.Client())
			for _, at := range env.Children(s, "/jobs/dead")[10 : 10+c.changed] {
				n := env.Get(s, at)
				env.Commit(s, coord.Set(n.Path, n.Value, n.Fence))
			}
		}
		t.Run(fmt.Sprint(state, " ", c.changed), func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				const n = 40
				states[state](env, n)
				c := testqueue.NewCounter(env.Client())
				q := env.QueueOn(c)
				kind, dir := coord.KindTouch, "entries"
				if state == zkq.StateDead {
					kind, dir = coord.KindDelete, "dead"
				}
				changed := false
				before(c, kind, dir, func() { change(env); changed = true })
				if removed, err := q.Purge(env.Ctx, state); removed != n || err != nil {
					t.Errorf("Purge = %d, %v of %d", removed, err, n)
				}
				if left := total(env); left > 0 || !changed {
					t.Errorf("%d are left; changed: %v", left, changed)
				}
			})
		})
	}
}

// TestLostAnswersOfABulkChange loses the answer to each commit of a purge or a requeue in turn. Nothing is lost, and nothing is
// done twice.
func TestLostAnswersOfABulkChange(t *testing.T) {
	const n = 10
	for how, lose := range testqueue.Losses {
		for state, prepare := range states {
			t.Run(fmt.Sprintf("purge %s, %s", state, how), func(t *testing.T) {
				eachCommit(t, lose, func(env *testqueue.Env) { prepare(env, n) }, func(t *testing.T, env *testqueue.Env, q *zkq.LockingQueue) {
					if removed, err := q.Purge(env.Ctx, state); removed != n || err != nil {
						t.Errorf("Purge = %d, %v", removed, err)
					}
					if left := total(env); left > 0 {
						t.Errorf("%d are left", left)
					}
				})
			})
		}
		t.Run("requeue, "+how, func(t *testing.T) {
			eachCommit(t, lose, func(env *testqueue.Env) { states[zkq.StateDead](env, n) }, func(t *testing.T, env *testqueue.Env, q *zkq.LockingQueue) {
				for r, err := range q.RequeueAll(env.Ctx) {
					if err != nil {
						t.Errorf("%v: %v", r, err)
					}
				}
				values := env.Values(q)
				slices.Sort(values)
				if len(values) != n || len(slices.Compact(values)) != n || total(env) != n {
					t.Errorf("ready afterwards: %q", values)
				}
			})
		})
	}
}

// TestAnOutageAfterALostAnswerLeavesTheChangeUnknown: the answer to a purge's second commit is lost, and the next commits
// fail. So some entries may be gone, and the error must not say that nothing was changed.
func TestAnOutageAfterALostAnswerLeavesTheChangeUnknown(t *testing.T) {
	const n = 120
	for state, prepare := range states {
		for name, lose := range map[string]func(*coordtest.Coordinator){
			"applied": (*coordtest.Coordinator).DropReply, "not applied": (*coordtest.Coordinator).DropRequest,
		} {
			t.Run(fmt.Sprint(state, ", ", name), func(t *testing.T) {
				testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
					prepare(env, n)
					client := env.Client()
					c := testqueue.NewCounter(client)
					q := env.QueueOn(c, testqueue.Settings(testhook.Settings{Bulk: n})) // one part after the other
					var commits atomic.Int32
					c.Before(func(_ coord.Session, act, _ string) {
						if act != "commit" {
							return
						}
						if n := commits.Add(1); n == 2 {
							lose(client)
						} else if n > 2 {
							client.Refuse(errors.New("the service is broken"))
						}
					})
					ctx, cancel := context.WithTimeout(env.Ctx, 10*time.Second)
					defer cancel()
					removed, err := q.Purge(ctx, state)
					left := total(env)
					if !errors.Is(err, zkq.ErrUnknown) && removed != n-left {
						t.Errorf("Purge = %d, %v; %d are gone", removed, err, n-left)
					}
				})
			})
		}
	}
}

// TestARequeueOfAllGoesOnAfterItsSessionEnded ends the session while the names of the dead are read.
func TestARequeueOfAllGoesOnAfterItsSessionEnded(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const n = 5000 // a page of names has 4,096
		for range 5 {
			states[zkq.StateDead](env, n/5)
		}
		client := env.Client()
		c := testqueue.NewCounter(client)
		q := env.QueueOn(c)
		lists := 0
		c.Before(func(_ coord.Session, act, path string) {
			if act == "list" && path == "/jobs/dead" {
				if lists++; lists == 2 {
					client.Expire()
				}
			}
		})
		requeued := 0
		for r, err := range q.RequeueAll(env.Ctx) {
			if err != nil {
				t.Fatalf("%v: %v", r, err)
			}
			requeued++
		}
		if requeued != n || lists < 3 {
			t.Errorf("%d of %d were requeued, with %d listings", requeued, n, lists)
		}
	})
}

// eachCommit runs change once for each of its commits, and loses the answer to that one. Two entries share a commit.
func eachCommit(t *testing.T, lose func(*coordtest.Coordinator), prepare func(*testqueue.Env), change func(*testing.T, *testqueue.Env, *zkq.LockingQueue)) {
	for lost, more := 1, true; more; lost++ {
		testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
			prepare(env)
			client := env.Client()
			c := testqueue.NewCounter(client)
			q := env.QueueOn(c, testqueue.Settings(testhook.Settings{Bulk: 4}))
			commits := 0
			c.Before(func(_ coord.Session, act, _ string) {
				if act == "commit" {
					if commits++; commits == lost {
						lose(client)
					}
				}
			})
			change(t, env, q)
			more = commits > lost
		})
	}
}

// TestARequeueOfManyKeepsTheBound requeues more than there is room for.
func TestARequeueOfManyKeepsTheBound(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		states[zkq.StateDead](env, 130)
		q, _ := env.Queue()
		env.Create(q, zkq.QueueConfig{MaxEntries: 70})
		requeued := 0
		var last error
		for _, err := range q.RequeueAll(env.Ctx) {
			if last = err; err == nil {
				requeued++
			}
		}
		st, err := q.Stat(env.Ctx)
		if err != nil || requeued != 70 || !errors.Is(last, zkq.ErrFull) || st.Ready != 70 || st.Dead != 60 {
			t.Errorf("%d requeued, then %v; %+v, %v", requeued, last, st, err)
		}
	})
}

// TestARequeueOfManyNeverExceedsTheBound has another process put while a commit of the requeue is about to be sent: its room
// is gone.
func TestARequeueOfManyNeverExceedsTheBound(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		states[zkq.StateDead](env, 10)
		c := testqueue.NewCounter(env.Client())
		q := env.QueueOn(c)
		env.Create(q, zkq.QueueConfig{MaxEntries: 10})
		put := sync.OnceFunc(func() { putMany(env, 4) })
		c.Before(func(_ coord.Session, act, first string) {
			if act == "commit" && strings.HasPrefix(first, fmt.Sprint(coord.KindSet, " /zkq/producers/")) {
				put()
			}
		})
		requeued := 0
		for _, err := range q.RequeueAll(env.Ctx) {
			if err == nil {
				requeued++
			}
		}
		if st, err := q.Stat(env.Ctx); err != nil || requeued != 6 || st.Ready != 10 || st.Dead != 4 {
			t.Errorf("%d requeued; %+v, %v", requeued, st, err)
		}
	})
}

// TestARequeueOfManyNamesEach requeues entries by the names that they have and had, and one that is not dead.
func TestARequeueOfManyNamesEach(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		had := putMany(env, 4)
		for _, h := range takeMany(env, 4) {
			env.Bury(h, "bad")
		}
		q, _ := env.Queue()
		dead := env.Children(env.Session(env.Client()), "/jobs/dead")
		names := []string{had[0], path.Base(dead[1]), "entry-100-0000009999", had[2], had[2], path.Base(dead[3])}
		var got []string
		for r, err := range q.RequeueAll(env.Ctx, names...) {
			got = append(got, r.Was)
			isMissing := len(got) == 3 || len(got) == 5
			if isMissing != errors.Is(err, zkq.ErrNoEntry) || !isMissing && (err != nil || r.Name == "") {
				t.Errorf("name %d: %+v, %v", len(got), r, err)
			}
		}
		if !slices.Equal(got, names) {
			t.Errorf("yielded %q of %q", got, names)
		}
		if values := env.Values(q); len(values) != 4 {
			t.Errorf("ready afterwards: %q", values)
		}
	})
}

// TestAPurgeOfHeldEntriesTellsEachHolder: the holder's finishes are refused, also one without an answer.
func TestAPurgeOfHeldEntriesTellsEachHolder(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const n = 30
		putMany(env, n)
		held := takeMany(env, n)
		q, _ := env.Queue()
		env.Purge(q, zkq.StateHeld, n)
		for _, h := range held {
			if err := h.Consume(env.Ctx); !errors.Is(err, zkq.ErrLockLost) {
				t.Errorf("Consume = %v", err)
			}
		}
		if traces := env.Children(env.Session(env.Client()), "/jobs/broken"); len(traces) != n {
			t.Errorf("%d traces of %d broken locks", len(traces), n)
		}
	})
}

// TestTheEndOfAPurgesLoopLeavesTheRest ends the loop after the first step.
func TestTheEndOfAPurgesLoopLeavesTheRest(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		putMany(env, 20)
		q, _ := env.Queue(testqueue.Settings(testhook.Settings{Bulk: 6}))
		for n, err := range q.PurgeInSteps(env.Ctx, zkq.StateReady, 0) {
			if n != 6 || err != nil {
				t.Errorf("a step of %d, %v", n, err)
			}
			break
		}
		if left := total(env); left != 14 {
			t.Errorf("%d are left", left)
		}
	})
}

// taker registers a process that takes, and returns its counter. It takes nothing as long as the queue is paused.
func taker(env *testqueue.Env) *testqueue.Counter {
	c := testqueue.NewCounter(env.Client())
	q := env.QueueOn(c)
	env.Register(q)
	ctx, stop := context.WithCancel(env.Ctx)
	var taking sync.WaitGroup
	taking.Go(func() {
		if h, err := q.Take(ctx); err == nil {
			env.Errorf("%s was taken from a paused queue", h.Name)
		}
	})
	env.Cleanup(func() { stop(); taking.Wait() })
	return c
}

// putDue puts n entries that are due in a second, half of them as delayed puts and half as entries that rest.
func putDue(env *testqueue.Env, n int) {
	putMany(env, n/2)
	for _, h := range takeMany(env, n/2) {
		env.Release(h, zkq.After(2*time.Second))
	}
	putMany(env, n-n/2, zkq.WithDelay(2*time.Second))
	q, _ := env.Queue()
	env.Pause(q)
}

// readyAfter returns how many entries are ready a while later.
func readyAfter(env *testqueue.Env, d time.Duration) int {
	q, _ := env.Queue()
	time.Sleep(d)
	st, err := q.Stat(env.Ctx)
	if err != nil {
		env.Fatal(err)
	}
	return st.Ready
}

// TestManyDueEntriesCostFewRequests counts the requests of the only taker.
func TestManyDueEntriesCostFewRequests(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const n = 1200
		putDue(env, n)
		c := taker(env)
		time.Sleep(time.Second)
		c.Reset()
		if ready := readyAfter(env, 1500*time.Millisecond); ready != n || c.Count() > n/8 {
			t.Errorf("%d of %d are ready, after %d requests: %v", ready, n, c.Count(), c.Requests)
		}
	})
}

// TestDueEntriesAreSharedByTheirTakers: no commit of several takers is refused, so no two of them tried the same entry.
func TestDueEntriesAreSharedByTheirTakers(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const n = 600
		putDue(env, n)
		var takers []*testqueue.Counter
		for range 4 {
			takers = append(takers, taker(env))
		}
		time.Sleep(time.Second)
		for _, c := range takers {
			c.Reset()
		}
		if ready := readyAfter(env, 1500*time.Millisecond); ready != n {
			t.Errorf("%d of %d are ready", ready, n)
		}
		for i, c := range takers {
			if commits := c.Count("commit"); commits > n/60 || commits < 2 || c.Count("get") > 4 {
				t.Errorf("taker %d sent %d commits: %v", i, commits, c.Requests)
			}
		}
	})
}

// TestDueEntriesOfAnOwnerThatDoesNothingAreMoved has a registered process that moves nothing.
func TestDueEntriesOfAnOwnerThatDoesNothingAreMoved(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const n = 600
		putDue(env, n)
		taker(env)
		idle, _ := env.Queue()
		env.Register(idle)
		if ready := readyAfter(env, 4500*time.Millisecond); ready != n {
			t.Errorf("%d of %d are ready two seconds and a half after they were due", ready, n)
		}
	})
}

// TestDueEntriesThatChangeAreMadeReadyAtOnce has another client write the nodes of delayed puts after the mover has read
// them: the shared commit is refused.
func TestDueEntriesThatChangeAreMadeReadyAtOnce(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		putMany(env, 10, zkq.WithDelay(2*time.Second))
		q, _ := env.Queue()
		env.Pause(q)
		c := taker(env)
		s := env.Session(env.Client())
		before(c, coord.KindDelete, "delayed", func() {
			for _, at := range env.Children(s, "/jobs/delayed")[3:6] {
				n := env.Get(s, at)
				env.Commit(s, coord.Set(n.Path, n.Value, n.Fence))
			}
		})
		if ready := readyAfter(env, 2500*time.Millisecond); ready != 10 {
			t.Errorf("%d of 10 are ready half a second after they were due", ready)
		}
	})
}
