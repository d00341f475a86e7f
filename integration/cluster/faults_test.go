//go:build cluster

package cluster

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/zkq/zkq/internal/testfleet"
	"github.com/zkq/zkq/internal/testneed"
	"github.com/zkq/zkq/internal/testshare"
)

// faults are what happens to a cluster while queues are in use.
func (s *service) faults() []testfleet.Fault {
	var all []testfleet.Fault
	for _, f := range faults {
		all = append(all, testfleet.Fault{Name: f.name, Do: func(t *testfleet.Trial) { f.do(&trial{t, s}) }})
	}
	return all
}

// trial is one fault that happens to one service.
type trial struct {
	*testfleet.Trial
	service *service
}

func (t *trial) leader() *member    { return t.service.leader(t) }
func (t *trial) follower() *member  { return t.service.follower(t) }
func (t *trial) members() []*member { return t.service.members }

func (t *trial) killFor(d time.Duration, m *member) {
	m.kill(t)
	time.Sleep(d)
	m.start(t)
}

func (t *trial) pauseFor(d time.Duration, m *member) {
	m.pause(t)
	time.Sleep(d)
	m.resume(t)
}

func (t *trial) cutFor(d time.Duration, m *member, deaf bool) {
	heal := m.cut(t, t.members(), deaf)
	time.Sleep(d)
	heal()
	t.Calm = afterCut
}

// afterCut is how long members may take to notice that their connections to each other did not survive (etcd: 5 s). Until
// then the next fault would be the second at the same time, and three members stand one.
const afterCut = 6 * time.Second

var faults = []struct {
	name string
	do   func(*trial)
}{
	{"the leader is killed", func(t *trial) { t.killFor(2*time.Second, t.leader()) }},
	{"a follower is killed", func(t *trial) { t.killFor(2*time.Second, t.follower()) }},
	{"the leader stands still for 10 s", func(t *trial) { t.pauseFor(10*time.Second, t.leader()) }},
	{"a follower stands still for 8 s", func(t *trial) { t.pauseFor(8*time.Second, t.follower()) }},
	{"the leader stands still for 1 s", func(t *trial) { t.pauseFor(time.Second, t.leader()) }},
	{"the leader is cut off from its peers", func(t *trial) { t.cutFor(8*time.Second, t.leader(), false) }},
	{"a follower is cut off from its peers", func(t *trial) { t.cutFor(8*time.Second, t.follower(), false) }},
	{"the leader hears nothing from its peers", func(t *trial) { t.cutFor(8*time.Second, t.leader(), true) }},
	{"all are cut off from each other", func(t *trial) {
		var heals []func()
		for _, m := range t.members() {
			heals = append(heals, m.cut(t, t.members(), false))
		}
		time.Sleep(4 * time.Second)
		for _, heal := range heals {
			heal()
		}
		t.Calm = afterCut
		t.leader()
		t.IgnoreBefore(t.Clients...)
	}},
	{"all are killed", func(t *trial) {
		for _, m := range t.members() {
			m.kill(t)
		}
		for _, m := range t.members() {
			m.start(t)
		}
		t.leader()
		t.IgnoreBefore(t.Clients...)
	}},
	{"all are restarted, one by one", func(t *trial) {
		for _, m := range t.members() {
			m.restart(t)
			t.leader()
		}
	}},
	{"a client is cut off for 2 s", func(t *trial) { t.ApplyFor(2*time.Second, t.Victim(), t.Victim().Link.Cut) }},
	{"a client is cut off beyond its session", func(t *trial) { t.ApplyFor(t.LongerThanSession(), t.Victim(), t.Victim().Link.Cut) }},
	{"a client hears nothing for 2 s", func(t *trial) { t.ApplyFor(2*time.Second, t.Victim(), t.Victim().Link.HoldReplies) }},
	{"a worker process is killed", func(t *trial) {
		t.Victim().Kill()
		time.Sleep(time.Second)
		t.Launch(t, t.Victim())
		t.IgnoreBefore(t.Victim())
	}},
	{"a worker process stands still beyond its session", func(t *trial) {
		t.Victim().Stop(t)
		time.Sleep(t.LongerThanSession())
		t.Victim().Continue(t)
		t.IgnoreBefore(t.Victim())
	}},
}

func TestZooKeeperQueuesSurviveFaults(t *testing.T) { survive(t, zooKeeper(t)) }
func TestEtcdQueuesSurviveFaults(t *testing.T)      { survive(t, etcd(t)) }

// survive lets every fault happen while 16 queues are in use, each with two producers and four workers in four processes, and
// checks after each what became of every entry so far.
func survive(t *testing.T, s *service) {
	if os.Geteuid() != 0 {
		testneed.Missing(t, "the right to cut members off", "run as root")
	}
	for _, program := range []string{"nsenter", "iptables"} {
		if _, err := exec.LookPath(program); err != nil {
			testneed.Missing(t, program, "install it (Debian: util-linux, iptables)")
		}
	}
	for _, m := range s.members {
		m.restore(t)
	}
	s.leader(t)
	t.Cleanup(func() {
		for _, m := range s.members {
			m.restore(t)
		}
	})
	f := testfleet.New(t, testfleet.Config{Place: s.place(), Bound: s.bound, Link: s.clientLink})
	sum := f.RunFaults(t, testshare.Of(t, s.faults()), func(t testing.TB) { s.leader(t) })
	if t.Failed() {
		return
	}
	f.End(t)
	if testshare.Whole() && sum.Late == 0 {
		t.Error("no finish came too late: the faults did not try the fences")
	}
}
