//go:build faults

package faults

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq/internal/testfleet"
	"github.com/zkq/zkq/internal/testproxy"
	"github.com/zkq/zkq/internal/testshare"
)

// patience is how long a cluster may take to be whole again.
const patience = 60 * time.Second

// fault is something that happens while queues are in use, and is over when do returns.
type fault struct {
	name  string
	bound time.Duration // until every client writes again
	do    func(*trial)
}

// The bounds: by a majority at once, or after a member that stands still, or a link, was noticed; for others the service has its own.
const (
	afterKill  = 5 * time.Second
	afterPause = 8 * time.Second
)

// trial is one fault that happens to one service.
type trial struct {
	*testfleet.Trial
	service *service
}

func (t *trial) leader() member    { return t.service.leader(t) }
func (t *trial) follower() member  { return t.service.follower(t) }
func (t *trial) members() []member { return t.service.members }

func (t *trial) killFor(d time.Duration, m member) {
	m.Kill()
	time.Sleep(d)
	t.service.serve(t)
}

func (t *trial) pauseFor(d time.Duration, m member) {
	m.Pause()
	time.Sleep(d)
	m.Resume()
}

func (t *trial) cutFor(d time.Duration, m member, deaf bool) {
	t.service.cutOff(t, m, deaf)
	time.Sleep(d)
	t.service.heal()
}

// lose loses answers to what the clients send, so many for each.
func (t *trial) lose(n int, of func(request []byte) bool) {
	lost := func() (sum int) {
		for _, p := range t.Clients {
			sum += p.Link.AnswersLost()
		}
		return sum
	}
	before := lost()
	for _, p := range t.Clients {
		p.Link.LoseAnswers(n, of)
	}
	// An answer that is to be lost may be none: another fault of the connection takes it first.
	for end := time.Now().Add(8 * time.Second); lost() < before+n*len(t.Clients) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	if got := lost() - before; got < n*len(t.Clients)/2 {
		t.Errorf("only %d answers were lost, of %d", got, n*len(t.Clients))
	}
	for _, p := range t.Clients {
		p.Link.Heal()
	}
}

func locks(request []byte) bool { return bytes.Contains(request, []byte("/taken/")) }
func puts(request []byte) bool {
	return bytes.Contains(request, []byte("/entries/")) && !locks(request)
}

// eachFor does something to a link of every client, and heals it.
func (t *trial) eachFor(d time.Duration, do func(*testproxy.Link)) {
	for _, p := range t.Clients {
		do(p.Link)
	}
	time.Sleep(d)
	for _, p := range t.Clients {
		p.Link.Heal()
	}
}

var faults = []fault{
	{"the leader is killed", afterKill, func(t *trial) { t.killFor(1500*time.Millisecond, t.leader()) }},
	{"a follower is killed", afterKill, func(t *trial) { t.killFor(1500*time.Millisecond, t.follower()) }},
	{"a follower is away for many snapshots", 0, func(t *trial) { t.killFor(4*time.Second, t.follower()) }},
	{"the leader stands still for 1 s", afterPause, func(t *trial) { t.pauseFor(time.Second, t.leader()) }},
	{"the leader stands still for 6 s", afterPause, func(t *trial) { t.pauseFor(6*time.Second, t.leader()) }},
	{"a follower stands still for 6 s", afterPause, func(t *trial) { t.pauseFor(6*time.Second, t.follower()) }},
	{"the leader is cut off from its peers", 0, func(t *trial) { t.cutFor(4*time.Second, t.leader(), false) }},
	{"a follower is cut off from its peers", 0, func(t *trial) { t.cutFor(4*time.Second, t.follower(), false) }},
	{"the leader hears nothing from its peers", 0, func(t *trial) { t.cutFor(4*time.Second, t.leader(), true) }},
	{"a follower hears nothing from its peers", 0, func(t *trial) { t.cutFor(4*time.Second, t.follower(), true) }},
	{"all are cut off from each other", 0, func(t *trial) {
		for _, m := range t.members() {
			t.service.cutOff(t, m, false)
		}
		time.Sleep(3 * time.Second)
		t.service.heal()
		t.leader()
		t.IgnoreBefore(t.Clients...)
	}},
	{"all are killed", 0, func(t *trial) {
		for _, m := range t.members() {
			m.Kill()
		}
		t.leader()
		t.IgnoreBefore(t.Clients...)
	}},
	{"all are restarted, one by one", 0, func(t *trial) {
		for _, m := range t.members() {
			m.Terminate()
			t.leader()
		}
	}},
	{"the leader is killed while another stands still", 0, func(t *trial) {
		other := t.follower()
		other.Pause()
		leader := t.service.leads(t)
		if leader != nil {
			leader.Kill()
		}
		time.Sleep(time.Second)
		other.Resume()
		t.leader()
		t.IgnoreBefore(t.Clients...)
	}},
	{"a client is cut off for 1 s", 0, func(t *trial) { t.ApplyFor(time.Second, t.Victim(), t.Victim().Link.Cut) }},
	{"a client is cut off beyond its session", 0, func(t *trial) { t.ApplyFor(t.LongerThanSession(), t.Victim(), t.Victim().Link.Cut) }},
	{"a client's requests wait beyond its session", 0, func(t *trial) { t.ApplyFor(t.LongerThanSession(), t.Victim(), t.Victim().Link.HoldRequests) }},
	{"a client hears nothing for 2 s", 0, func(t *trial) { t.ApplyFor(2*time.Second, t.Victim(), t.Victim().Link.HoldReplies) }},
	{"answers to puts are lost", 0, func(t *trial) { t.lose(5, puts) }},
	{"answers to claims and finishes are lost", 0, func(t *trial) { t.lose(8, locks) }},
	{"connections are reset, again and again", 0, func(t *trial) {
		for range 8 {
			t.eachFor(250*time.Millisecond, (*testproxy.Link).Reset)
		}
	}},
	{"connections end in the middle of messages", 0, func(t *trial) {
		for n := range 6 {
			t.eachFor(250*time.Millisecond, func(l *testproxy.Link) { l.CutAfter(testproxy.Direction(n%2), 100+77*n) })
		}
	}},
	{"everything takes 200 ms longer", 0, func(t *trial) {
		t.eachFor(3*time.Second, func(l *testproxy.Link) {
			l.Delay(testproxy.Requests, 100*time.Millisecond)
			l.Delay(testproxy.Replies, 100*time.Millisecond)
		})
	}},
	{"a client's words are dropped for 1 s", 0, func(t *trial) {
		t.ApplyFor(time.Second, t.Victim(), func() { t.Victim().Link.Drop(testproxy.Requests) })
	}},
	{"a worker process is killed", 0, func(t *trial) {
		t.Victim().Kill()
		time.Sleep(time.Second)
		t.Launch(t, t.Victim())
		t.IgnoreBefore(t.Victim())
	}},
	{"a worker process stands still beyond its session", 0, func(t *trial) {
		t.Victim().Stop(t)
		time.Sleep(t.LongerThanSession())
		t.Victim().Continue(t)
		t.IgnoreBefore(t.Victim())
	}},
}

func TestQueuesSurviveFaults(t *testing.T) {
	rounds := 1
	if s := os.Getenv("ROUNDS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil || rounds < 1 {
			t.Fatalf("ROUNDS=%s: want a number from 1", s)
		}
	}
	var sums [3]testfleet.Sum
	// All three at a time.
	t.Run("of", func(t *testing.T) {
		for i, suffer := range []struct {
			name string
			once func(*testing.T) testfleet.Sum
		}{
			{testfleet.ZooKeeper, func(t *testing.T) testfleet.Sum { return survive(t, zooKeeper(t)) }},
			{testfleet.Etcd, func(t *testing.T) testfleet.Sum { return survive(t, etcd(t)) }},
			{testfleet.Embedded, surviveOwners},
		} {
			t.Run(suffer.name, func(t *testing.T) {
				t.Parallel()
				for round := range rounds {
					t.Run(fmt.Sprint(round+1), func(t *testing.T) { sums[i].Add(suffer.once(t)) })
				}
			})
		}
	})
	var all testfleet.Sum
	for _, s := range sums {
		all.Add(s)
	}
	fmt.Println(all)
	if want := rounds * (2*len(faults) + 1 + len(ownerFaults)); whole() && all.Faults != want {
		t.Errorf("%d faults happened, want %d", all.Faults, want)
	}
}

// whole reports whether every fault runs: neither -run nor a share selects some.
func whole() bool {
	return testshare.Whole() && !strings.Contains(flag.Lookup("test.run").Value.String(), "/")
}

// survive lets every fault happen to a cluster, and holds what it committed against what the clients were told.
func survive(t *testing.T, s *service) testfleet.Sum {
	f := testfleet.New(t, s.Config)
	judge := testfleet.NewReplay()
	f.Judge = func(t testing.TB) []string {
		for _, c := range s.commits(t) {
			judge.Apply(c)
		}
		v := judge.Check(f.Ledger, f.Queues())
		t.Logf("%d commits so far; of the unknown puts %d were applied and %d not, of the unknown finishes %d removed and %d did not",
			judge.Commits, v.Applied, v.Not, v.Removed, v.Old)
		return slices.Concat(judge.Wrong, v.Wrong, judge.Remaining())
	}
	var all []testfleet.Fault
	for _, list := range [][]fault{faults, s.own} {
		for _, one := range list {
			all = append(all, testfleet.Fault{Name: one.name, Bound: one.bound, Do: func(t *testfleet.Trial) { one.do(&trial{t, s}) }})
		}
	}
	sum := f.RunFaults(t, testshare.Of(t, all), func(t testing.TB) { s.leader(t) })
	if t.Failed() {
		return sum
	}
	f.End(t)
	if whole() && sum.Late == 0 {
		t.Error("no finish came too late: the faults did not try the fences")
	}
	return sum
}
