//go:build headtohead

package headtohead

import (
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zkq/zkq/internal/testcoord"
	"github.com/zkq/zkq/internal/testneed"
)

// clientVariable holds the configuration of a client that this program is to be.
const clientVariable = "ZKQ_HEADTOHEAD_CLIENT"

//go:embed worker.py
var worker string

func TestMain(m *testing.M) {
	if config := os.Getenv(clientVariable); config != "" {
		os.Exit(zkqClientMain(config))
	}
	testcoord.Main(m)
}

func ours() side {
	return side{"zkq", func(config string) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), clientVariable+"="+config)
		return cmd
	}}
}

// theirs is kazoo's, run by a Python that has it.
func theirs(t testing.TB) side {
	for _, python := range []string{os.Getenv("ZKQ_TEST_PYTHON"), "python3", "/usr/bin/python3"} {
		if python == "" {
			continue
		}
		version, err := exec.Command(python, "-c", "import kazoo.version; print(kazoo.version.__version__)").Output()
		if err == nil {
			return side{"kazoo " + strings.TrimSpace(string(version)), func(config string) *exec.Cmd {
				return exec.Command(python, "-c", worker, config)
			}}
		}
	}
	testneed.Missing(t, "kazoo", "make deps")
	return side{}
}

// fault is something that happens while the queues are in use, and is over when do returns. The victim is another client
// each time.
type fault struct {
	name  string
	times int
	do    func(f *fleet, victim *process)
}

// beyond is longer than a session lives without its client.
const beyond = session + 1500*time.Millisecond

var faults = []fault{
	{"the leader is killed", 5, func(f *fleet, _ *process) { f.killMembers(f.leader()) }},
	{"a follower is killed", 4, func(f *fleet, _ *process) { f.killMembers(f.follower()) }},
	{"the leader stands still for 4 s", 4, func(f *fleet, _ *process) { f.pauseMember(f.leader()) }},
	{"a follower stands still for 4 s", 3, func(f *fleet, _ *process) { f.pauseMember(f.follower()) }},
	{"all members are killed", 3, func(f *fleet, _ *process) { f.killMembers(0, 1, 2) }},
	{"a client is cut off for 1 s", 4, func(_ *fleet, p *process) {
		p.link.Cut()
		time.Sleep(time.Second)
		p.link.Heal()
	}},
	{"a client is cut off beyond its session", 6, func(_ *fleet, p *process) {
		p.link.Cut()
		time.Sleep(beyond)
		p.link.Heal()
	}},
	{"the answers to six writes are lost, one by one", 4, func(_ *fleet, p *process) {
		before := p.link.AnswersLost()
		p.link.LoseAnswers(6, nil)
		for end := time.Now().Add(10 * time.Second); p.link.AnswersLost() < before+6 && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		p.link.LoseAnswers(0, nil)
	}},
	{"half a second's answers are lost", 3, func(_ *fleet, p *process) {
		p.link.HoldReplies()
		time.Sleep(500 * time.Millisecond)
		p.link.Kill()
		p.link.Heal()
	}},
	{"a session ends while requests wait", 4, func(f *fleet, p *process) {
		p.link.Cut()
		time.Sleep(500 * time.Millisecond)
		if there, err := p.link.Expire(); err != nil || !there {
			f.t.Fatalf("end the session of client %d: %v, %v", p.number, there, err)
		}
		p.link.Heal()
	}},
	{"a worker process is killed", 4, func(f *fleet, p *process) {
		p.kill()
		time.Sleep(500 * time.Millisecond)
		f.launch(p)
		f.order(p, "go")
	}},
	{"a worker process stands still beyond its session", 6, func(f *fleet, p *process) {
		p.signal(f.t, syscall.SIGSTOP)
		time.Sleep(beyond)
		p.signal(f.t, syscall.SIGCONT)
	}},
}

func (f *fleet) leader() int {
	f.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for n, m := range f.cluster.Members {
			if m.IsLeader() {
				return n
			}
		}
	}
	f.t.Fatal("no leader within 30 s")
	return 0
}

func (f *fleet) follower() int { return (f.leader() + 1) % len(f.cluster.Members) }

func (f *fleet) killMembers(numbers ...int) {
	f.t.Helper()
	for _, n := range numbers {
		f.cluster.Members[n].Kill()
	}
	time.Sleep(time.Second)
	if err := f.cluster.Start(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) pauseMember(n int) {
	f.t.Helper()
	m := f.cluster.Members[n]
	if err := m.Pause(); err != nil {
		f.t.Fatal(err)
	}
	time.Sleep(4 * time.Second)
	if err := m.Resume(); err != nil {
		f.t.Fatal(err)
	}
	f.leader()
}

// trial is one fault that happened.
type trial struct {
	fault    int
	from, to time.Time
	hung     int // workers, more than before
}

// endure lets all faults happen, those of each kind spread over the whole.
func (f *fleet) endure(rounds int) []trial {
	var trials []trial
	f.drain()
	for round := range rounds {
		for n, fault := range faults {
			if fault.times <= round {
				continue
			}
			tr := trial{fault: n, from: time.Now()}
			f.tell("go")
			time.Sleep(500 * time.Millisecond)
			fault.do(f, f.clients[len(trials)%clientCount])
			time.Sleep(1500 * time.Millisecond)
			f.drain()
			f.remember()
			now := f.state().Hung
			tr.to, tr.hung = time.Now(), max(0, now-f.hung)
			f.hung = now
			trials = append(trials, tr)
			f.t.Logf("%s: %s: %.1f s, %d stuck so far, %d hung", f.side.name, fault.name, tr.to.Sub(tr.from).Seconds(), len(f.stuck), now)
		}
	}
	return trials
}

var kinds = []string{putLost, putTwice, finishedTwice, wronglyEnded, orphanLock, stuck, hung}

// count is how many breaches of a kind happened from one time to another.
func (v verdict) count(kind string, from, to time.Time) int {
	n := 0
	for _, b := range v.breaches {
		if b.kind == kind && !b.at.Before(from) && b.at.Before(to) {
			n++
		}
	}
	return n
}

// sum is what one run comes to.
type sum struct {
	side    side
	verdict verdict
	byFault []map[string]int // breaches of each kind
	total   map[string]int
	locks   int // left after all sessions ended
}

func run(t *testing.T, s side, rounds int) sum {
	f := newFleet(t, s)
	trials := f.endure(rounds)
	f.drain()
	r := sum{side: s, total: make(map[string]int)}
	locks := f.end()
	r.locks = len(locks)
	r.verdict = f.judge()
	for range faults {
		r.byFault = append(r.byFault, make(map[string]int))
	}
	for i, tr := range trials {
		until := tr.to
		if i == len(trials)-1 {
			until = time.Now()
		}
		for _, kind := range kinds {
			n := r.verdict.count(kind, tr.from, until)
			if kind == hung {
				n = tr.hung
			}
			r.byFault[tr.fault][kind] += n
			r.total[kind] += n
		}
	}
	for _, b := range r.verdict.breaches {
		t.Logf("%s: %s: %s: %s", s.name, b.at.Format("15:04:05.000"), b.kind, b.text)
	}
	for _, n := range append(f.notes, locks...) {
		t.Logf("%s: %s", s.name, n)
	}
	if t.Failed() || os.Getenv("ZKQ_HEADTOHEAD_LOGS") != "" {
		t.Log(f.tail(4000))
	}
	return r
}

func (r sum) breached() bool {
	n := r.locks
	for _, kind := range kinds {
		n += r.total[kind]
	}
	return n > 0
}

var most = flag.Int("rounds", 7, "how often a fault of each kind may happen, at most")

// TestFaultsThatCostKazooItsPromisesCostZkqNone prints the table of docs/deep.md.
func TestFaultsThatCostKazooItsPromisesCostZkqNone(t *testing.T) {
	var sums []sum
	for _, s := range []side{theirs(t), ours()} {
		if !t.Run(s.name, func(t *testing.T) { sums = append(sums, run(t, s, *most)) }) {
			return
		}
	}
	table(sums)
	if sums[1].breached() {
		t.Error("zkq broke a promise")
	}
	if !sums[0].breached() {
		t.Error("kazoo broke none: then the faults do not bite")
	}
}

// table prints a row for each fault; where nothing was broken there is a dash.
func table(sums []sum) {
	fmt.Print("\n| fault | times |")
	for _, r := range sums {
		fmt.Printf(" %s |", r.side.name)
	}
	fmt.Print("\n| --- | --- | --- | --- |\n")
	text := func(counts map[string]int) string {
		var parts []string
		for _, kind := range kinds {
			if n := counts[kind]; n > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", n, kind))
			}
		}
		if parts == nil {
			return "–"
		}
		return strings.Join(parts, ", ")
	}
	for n, f := range faults {
		fmt.Printf("| %s | %d |", f.name, f.times)
		for _, r := range sums {
			fmt.Printf(" %s |", text(r.byFault[n]))
		}
		fmt.Println()
	}
	row := func(name string, of func(sum) any) {
		fmt.Printf("| %s | |", name)
		for _, r := range sums {
			fmt.Printf(" %v |", of(r))
		}
		fmt.Println()
	}
	for _, kind := range kinds {
		row("**"+kind+"**", func(r sum) any { return r.total[kind] })
	}
	row("locks left when all sessions had ended", func(r sum) any { return r.locks })
	row("acknowledged puts", func(r sum) any { return r.verdict.puts })
	row("puts of unknown outcome", func(r sum) any { return r.verdict.unknownPuts })
	row("acknowledged finishes", func(r sum) any { return r.verdict.finishes })
	row("finishes refused, the entry being another's", func(r sum) any { return r.verdict.late })
	row("finishes of unknown outcome", func(r sum) any { return r.verdict.unknownFinishes })
	row("entries left in the queues", func(r sum) any { return len(r.verdict.left) })
	fmt.Println()
}
