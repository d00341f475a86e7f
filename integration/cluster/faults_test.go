//go:build cluster

package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/zkq/zkq/internal/testneed"
)

// fault is something that happens while queues are in use, and is over when do returns.
type fault struct {
	name string
	do   func(*trial)
}

// trial is one fault that happens to one service.
type trial struct {
	testing.TB
	*fleet
	from map[*process]time.Time // since when a client is asked to write: the fault, unless it could not
	calm time.Duration          // of use after the fault
}

// excuse asks nothing of the clients before now: until then no majority, or no way to it, was there.
func (t *trial) excuse(clients ...*process) {
	for _, p := range clients {
		t.from[p] = time.Now()
	}
}

func (t *trial) leader() *member    { return t.service.leader(t) }
func (t *trial) follower() *member  { return t.service.follower(t) }
func (t *trial) victim() *process   { return t.clients[1] }
func (t *trial) members() []*member { return t.service.members }

// beyond is longer than a session lives without its client.
func (t *trial) beyond() time.Duration { return t.service.session + 3*time.Second }

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
	t.calm = afterCut
}

// afterCut is how long members may take to notice that their connections to each other did not survive (etcd: 5 s). Until
// then the next fault would be the second at the same time, and three members stand one.
const afterCut = 6 * time.Second

func (t *trial) linkFor(d time.Duration, p *process, what func()) {
	what()
	time.Sleep(d)
	p.link.Heal()
	t.excuse(p)
}

var faults = []fault{
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
		t.calm = afterCut
		t.leader()
		t.excuse(t.clients...)
	}},
	{"all are killed", func(t *trial) {
		for _, m := range t.members() {
			m.kill(t)
		}
		for _, m := range t.members() {
			m.start(t)
		}
		t.leader()
		t.excuse(t.clients...)
	}},
	{"all are restarted, one by one", func(t *trial) {
		for _, m := range t.members() {
			m.restart(t)
			t.leader()
		}
	}},
	{"a client is cut off for 2 s", func(t *trial) { t.linkFor(2*time.Second, t.victim(), t.victim().link.Cut) }},
	{"a client is cut off beyond its session", func(t *trial) { t.linkFor(t.beyond(), t.victim(), t.victim().link.Cut) }},
	{"a client hears nothing for 2 s", func(t *trial) { t.linkFor(2*time.Second, t.victim(), t.victim().link.HoldReplies) }},
	{"a worker process is killed", func(t *trial) {
		t.victim().kill()
		time.Sleep(time.Second)
		t.launch(t, t.victim())
		t.excuse(t.victim())
	}},
	{"a worker process stands still beyond its session", func(t *trial) {
		t.victim().stop(t)
		time.Sleep(t.beyond())
		t.victim().cont(t)
		t.excuse(t.victim())
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
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "fault\tservice\tworst gap\tdrained in\tputs\tlost\tduplicated\twrongly removed\torphan locks\tunknown puts\tlate finishes refused\t")
	defer table.Flush()
	f := newFleet(t, s)
	var before balance
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) { before = f.endure(t, fault, before, table) })
		if !before.even() {
			return // what is broken would be found broken again
		}
	}
	f.end(t)
	if f.slow > 1 {
		t.Errorf("after %d of %d faults a client did not write within %v", f.slow, len(faults), s.bound)
	}
	if before.late == 0 {
		t.Error("no finish came too late: the faults did not try the fences")
	}
}

// endure is one fault: a second of use, the fault, two more seconds or six, then the queues are drained and the books compared.
func (f *fleet) endure(t *testing.T, fault fault, before balance, table *tabwriter.Writer) balance {
	f.service.leader(t)
	f.tell(t, "go")
	time.Sleep(time.Second)
	start := time.Now()
	happens := &trial{TB: t, fleet: f, from: make(map[*process]time.Time), calm: 2 * time.Second}
	for _, p := range f.clients {
		happens.from[p] = start
	}
	fault.do(happens)
	over := time.Now()
	var to time.Time
	// All must have written again, and go on for a while.
	for limit := over.Add(f.service.bound + 5*time.Second); ; time.Sleep(50 * time.Millisecond) {
		to = time.Now()
		if err := f.ledger.take(f.dir); err != nil {
			t.Fatal(err)
		}
		if to.After(limit) || to.After(over.Add(happens.calm)) && f.wrote(over) {
			break
		}
	}
	var worst time.Duration
	for _, p := range f.clients {
		g := f.ledger.gap(p.Name, happens.from[p], to)
		worst = max(worst, g)
	}
	switch bound := f.service.bound; {
	case worst > 2*bound:
		t.Errorf("a client did not write for %v, the bound is %v", worst, bound)
	case worst > bound:
		f.slow++ // once in all is the machine's doing
		t.Logf("a client did not write for %v, the bound is %v", worst, bound)
	}
	drained, locks := f.drain(t)
	if err := f.ledger.take(f.dir); err != nil {
		t.Fatal(err)
	}
	b := f.ledger.balance()
	fmt.Fprintf(table, "%s\t%s\t%.1f s\t%.1f s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", fault.name, f.service.name, worst.Seconds(), drained.Seconds(),
		b.puts-before.puts, len(b.lost), len(b.duplicated), len(b.wrong), len(locks), b.unknownPuts-before.unknownPuts, b.late-before.late)
	t.Logf("worst gap %v, drained in %v, %d puts, %d finishes, %d unknown puts", worst, drained, b.puts-before.puts,
		b.finishes-before.finishes, b.unknownPuts-before.unknownPuts)
	for what, list := range map[string][]string{
		"lost": b.lost, "duplicated": b.duplicated, "wrongly removed": b.wrong, "lock without an entry": locks,
	} {
		for _, one := range list {
			t.Errorf("%s: %s", what, one)
		}
	}
	if b.finishes == before.finishes {
		t.Error("nothing was finished meanwhile")
	}
	for _, n := range f.ledger.notes {
		t.Log(n)
	}
	f.ledger.notes = nil
	return b
}

// wrote says whether every client heard, since then, of a write that was applied.
func (f *fleet) wrote(since time.Time) bool {
	for _, p := range f.clients {
		acks := f.ledger.acks[p.Name]
		if len(acks) == 0 || acks[len(acks)-1].Before(since) {
			return false
		}
	}
	return true
}
