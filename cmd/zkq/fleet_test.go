package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fleet is a number of consumers of one place under a supervisor, which restarts those that end.
type fleet struct {
	*testing.T
	where string
	dir   string // of the files that they write
	logs  int

	session string // timeout: how long what a killed consumer held stays held
}

func newFleet(t *testing.T, where string) *fleet {
	return &fleet{T: t, where: where, dir: t.TempDir(), session: "10s"}
}

// member is one consumer, with a job log of its own.
type member struct {
	*zkqProcess
	log string
}

// start starts a consumer. Commands append lines to files in the directory they are started in.
func (f *fleet) start(args ...string) *member {
	f.Helper()
	f.logs++
	log := filepath.Join(f.dir, fmt.Sprint("log", f.logs))
	p := newProcess(f.T, f.where, "zkq", append([]string{"--session-timeout", f.session, "--log-level", "info", "consume", "--joblog", log}, args...)...)
	p.cmd.Dir = f.dir
	p.stdin.Close()
	p.start(f.T)
	return &member{p, log}
}

// send sends a signal to a consumer.
func (f *fleet) send(m *member, s syscall.Signal) {
	f.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		f.Fatal(err)
	}
}

// leave tells a consumer to end, which it does in order once it has begun.
func (f *fleet) leave(m *member) {
	f.Helper()
	m.says(f.T, "consumer started")
	f.send(m, syscall.SIGTERM)
	f.ended(m, exitDone)
}

// leaveAnyhow is leave for a consumer that a busy machine may have cost a session.
func (f *fleet) leaveAnyhow(m *member) {
	f.Helper()
	m.says(f.T, "consumer started")
	f.send(m, syscall.SIGTERM)
	if _, code := m.end(); code != exitDone && code != exitLockLost {
		f.Fatalf("exit %d: %s", code, &m.stderr)
	}
}

// ended demands the exit code of a consumer.
func (f *fleet) ended(m *member, want int) {
	f.Helper()
	if _, code := m.end(); code != want {
		f.Fatalf("exit %d, want %d: %s", code, want, &m.stderr)
	}
}

// lines are those of a file that commands wrote.
func (f *fleet) lines(name string) []string {
	b, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil && !os.IsNotExist(err) {
		f.Fatal(err)
	}
	return strings.Fields(string(b))
}

// attempts are the lines of job logs.
func (f *fleet) attempts(logs ...string) (as []attempt) {
	f.Helper()
	for _, log := range logs {
		b, err := os.ReadFile(log)
		if err != nil && !os.IsNotExist(err) {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if !strings.HasSuffix(line, "\n") {
				break // it is being written
			}
			var a attempt
			if err := json.Unmarshal([]byte(line), &a); err != nil {
				f.Fatalf("%s: %q: %v", log, line, err)
			}
			as = append(as, a)
		}
	}
	return as
}

func (f *fleet) all() (logs []string) {
	for i := range f.logs {
		logs = append(logs, filepath.Join(f.dir, fmt.Sprint("log", i+1)))
	}
	return logs
}

// until waits for something.
func (f *fleet) until(what string, is func() bool) {
	f.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.Fatalf("still not: %s", what)
		}
	}
}

func (f *fleet) zkq(args ...string) string {
	f.Helper()
	out, stderr, code := zkqAt(f.T, f.where, args...)
	if code != 0 {
		f.Fatalf("zkq %s: exit %d, %s", quoteLine(args), code, stderr)
	}
	return out
}

// rolls is how often a deployment is rolled.
const rolls = 20

// Each consumer is told to end, by SIGTERM, and another takes its place, while entries come in: no entry is lost, none
// is worked on twice, none has failed, and none was delivered in vain, or it would be dead.
func TestRolledDeploymentFinishesEachEntryOnceAtNoCost(t *testing.T) {
	onEvery(t, func(t *testing.T, b backend) {
		f := newFleet(t, b.past)
		f.session = "30s" // none is killed here, and a busy machine must end none
		start := func() *member {
			return f.start("-j", "2", "--read-ahead", "2", "--retries", "1", "--max-deliveries", "1", "roll", "--", "sh", "-c", `read v; sleep 0.02; echo "$v" >>done`)
		}
		running := []*member{start(), start()}
		f.until("both are there", func() bool { return strings.Count(f.zkq("workers", "roll"), "\n") == 2 })
		producer := startZkq(t, b.past, "put", "-l", "roll")
		put := 0
		load := func(n int) {
			for range n {
				put++
				fmt.Fprintln(producer.stdin, put)
			}
		}
		load(20)
		for i := range rolls {
			load(6)
			old := running[i%2]
			running[i%2] = start()
			f.leave(old)
			f.until("the next works", func() bool {
				if len(f.attempts(running[i%2].log)) > 0 {
					return true
				}
				if len(f.lines("done")) == put {
					load(2)
				}
				return false
			})
		}
		producer.stdin.Close()
		if _, code := producer.end(); code != 0 {
			t.Fatalf("put: exit %d, %s", code, &producer.stderr)
		}
		f.zkq("wait", "--timeout", "5m", "roll")
		for _, m := range running {
			f.leave(m)
		}
		if out := f.zkq("stat", "roll"); out != "roll\t0\t0\t0\t0\t0\t-\t-\t-\t-\n" {
			t.Errorf("left in the end: %s", out)
		}
		done := f.lines("done")
		slices.Sort(done)
		if twice := len(done) - len(slices.Compact(slices.Clone(done))); len(done) != put || twice > 0 {
			t.Errorf("%d were put, %d were done, %d of them twice", put, len(done), twice)
		}
		as := f.attempts(f.all()...)
		for _, a := range as {
			if a.Outcome != outcomeDone || a.Failures != 0 {
				t.Errorf("an attempt came to this: %+v", a)
			}
		}
		if len(as) != put {
			t.Errorf("%d attempts at %d entries", len(as), put)
		}
	})
}

// A command that kills its consumer must leave no process behind that could write to the consumer's stderr: its end is
// waited for.

// keep runs consumers of the same kind, and others in the place of those that are killed, until is says that it is
// enough; it returns how many were killed.
func (f *fleet) keep(n int, is func() bool, args ...string) (killed int) {
	f.Helper()
	var running []*member
	ended := make(chan int, n)
	start := func(i int) {
		m := f.start(args...)
		if i == len(running) {
			running = append(running, m)
		}
		running[i] = m
		go func() {
			m.cmd.Wait()
			ended <- i
		}()
	}
	for i := range n {
		start(i)
	}
	for deadline := time.Now().Add(3 * time.Minute); !is(); {
		if time.Now().After(deadline) {
			f.Fatalf("still not what was waited for; %d were killed; stat: %s", killed, f.zkq("stat"))
		}
		select {
		case i := <-ended:
			ws := running[i].cmd.ProcessState.Sys().(syscall.WaitStatus)
			if ws.Signal() != syscall.SIGKILL {
				f.Fatalf("a consumer ended by itself: %v: %s", ws, &running[i].stderr)
			}
			killed++
			start(i)
		case <-time.After(20 * time.Millisecond):
		}
	}
	for _, m := range running {
		m.cmd.Process.Signal(syscall.SIGTERM) // if it is not killed already
	}
	for range running {
		if running[<-ended].cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
			killed++
		}
	}
	return killed
}

func (f *fleet) entries(state, queue string) (es []entryRecord) {
	f.Helper()
	for line := range strings.Lines(f.zkq("-o", "json", "ls", "--state", state, queue)) {
		var e entryRecord
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			f.Fatal(err)
		}
		es = append(es, e)
	}
	return es
}

// One entry kills each worker that gets it: it is dead after as many deliveries as are allowed, and the others are done.
func TestPoisonIsDeadAfterItsDeliveriesAndOthersFlow(t *testing.T) {
	onEvery(t, func(t *testing.T, b backend) {
		f := newFleet(t, b.past)
		f.zkq("put", "-p", "0", "poison", "poison")
		var good []string
		for i := range 30 {
			good = append(good, fmt.Sprint("good", i))
		}
		f.zkq(append([]string{"put", "poison"}, good...)...)
		killed := f.keep(2, func() bool {
			return len(f.lines("done")) == len(good) && len(f.entries("dead", "poison")) == 1
		}, "--max-deliveries", "3", "poison", "--", "sh", "-c", `read v; if test "$v" = poison; then kill -9 $PPID; exec sleep 60; fi; sleep 0.02; echo "$v" >>done`)
		if killed != 3 {
			t.Errorf("it killed %d, and was allowed 3", killed)
		}
		if dead := f.entries("dead", "poison"); dead[0].Priority != 0 || dead[0].Deliveries != 3 || dead[0].Failures != 0 {
			t.Errorf("dead is %+v", dead)
		}
		done := f.lines("done")
		slices.Sort(done)
		slices.Sort(good)
		if !slices.Equal(done, good) {
			t.Errorf("done is %q", done)
		}
		if left := f.zkq("stat", "poison"); !strings.HasPrefix(left, "poison\t0\t0\t0\t1\t1\t") {
			t.Errorf("left: %s", left)
		}
	})
}

// Two entries always fail. The worker of one of them was killed besides, which is no failure: both are dead after
// three.
func TestFailuresAreCountedAndCrashesAreNot(t *testing.T) {
	onEvery(t, func(t *testing.T, b backend) {
		f := newFleet(t, b.past)
		f.zkq("put", "fails", "crashed", "bad", "good1", "good2", "good3")
		killed := f.keep(1, func() bool {
			return len(f.lines("done")) == 3 && len(f.entries("dead", "fails")) == 2
		}, "--retries", "3", "--backoff", "300ms", "fails", "--", "sh", "-c",
			`read v; if test "$v" = crashed && mkdir once; then kill -9 $PPID; exec sleep 60; fi; case "$v" in good*) echo "$v" >>done;; *) exit 9;; esac`)
		if killed != 1 {
			t.Errorf("%d were killed", killed)
		}
		begun := map[string][]time.Time{}
		rested := map[string][]time.Duration{}
		for _, a := range f.attempts(f.all()...) {
			// From one beginning to the next: an attempt's end is noted after the commit
			// that has the entry rest, which may take long.
			if before := begun[a.Name]; len(before) > 0 {
				rested[a.Name] = append(rested[a.Name], a.Start.Sub(before[len(before)-1]))
			}
			begun[a.Name] = append(begun[a.Name], a.Start)
			if a.Failures != len(begun[a.Name])-1 {
				t.Errorf("%s: attempt %d says %d failures", a.Name, len(begun[a.Name]), a.Failures)
			}
		}
		for _, e := range f.entries("dead", "fails") {
			_, name, _ := strings.Cut(e.Name, "-") // the time of death stands before it
			rests := rested[name]
			if len(rests) != 2 || rests[0] < 250*time.Millisecond || rests[1] < 550*time.Millisecond {
				t.Errorf("%s rested %v", name, rests)
			}
			if e.Failures != 3 || e.Deliveries != 3 && e.Deliveries != 4 || e.Reason != "exit status 9" {
				t.Errorf("dead is %+v", e)
			}
		}
	})
}
