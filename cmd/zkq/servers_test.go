package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq/internal/testetcd"
	"github.com/zkq/zkq/internal/testzk"
)

// zkqProcess is a zkq on its way, at a coordinator.
type zkqProcess struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr said
}

// said is what a process wrote so far.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// says waits until a process has written something to its standard error.
func (p *zkqProcess) says(t *testing.T, what string) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !strings.Contains(p.stderr.String(), what); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never said %q: %s", what, &p.stderr)
		}
	}
}

func startZkq(t *testing.T, coordinator string, args ...string) *zkqProcess {
	t.Helper()
	return startCommand(t, coordinator, "zkq", args...)
}

// startCommand starts one that may run zkq itself.
func startCommand(t *testing.T, coordinator, name string, args ...string) *zkqProcess {
	t.Helper()
	p := newProcess(t, coordinator, name, args...)
	p.start(t)
	return p
}

func newProcess(t *testing.T, coordinator, name string, args ...string) *zkqProcess {
	t.Helper()
	p := &zkqProcess{cmd: exec.Command(name, args...)}
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, variablePrefix) })
	p.cmd.Env = append(p.cmd.Env, "ZKQ_COORDINATOR="+coordinator, patience, goRace+"="+quickExit)
	p.cmd.Stderr = &p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdout = bufio.NewReader(stdout)
	return p
}

func (p *zkqProcess) start(t *testing.T) {
	t.Helper()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	overdue := time.AfterFunc(6*time.Minute, func() { p.cmd.Process.Kill() })
	t.Cleanup(func() {
		overdue.Stop()
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
}

// end returns what else it said, and its exit code.
func (p *zkqProcess) end() (stdout string, code int) {
	rest, _ := io.ReadAll(p.stdout)
	p.cmd.Wait()
	return string(rest), p.cmd.ProcessState.ExitCode()
}

// zkqAt runs a zkq to its end.
func zkqAt(t *testing.T, coordinator string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	p := startZkq(t, coordinator, args...)
	p.stdin.Close()
	stdout, code = p.end()
	return stdout, p.stderr.String(), code
}

// link is a client's way to a server.
type link interface {
	Cut()
	Heal()
	Addresses() []string
	Dials() int
}

// onBoth runs a test at etcd and at ZooKeeper, by a link and past it, beside each other.
func onBoth(t *testing.T, test func(t *testing.T, l link, by, past string)) {
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		servers := etcdServer(t).Endpoints()
		l := testetcd.NewLink(t, servers...)
		test(t, l, place("etcd", l.Addresses()), place("etcd", servers))
	})
	t.Run("ZooKeeper", func(t *testing.T) {
		t.Parallel()
		servers := zooKeepers.Single(t).Addresses()
		l := testzk.NewLink(t, servers...)
		test(t, l, place("zk", l.Addresses()), place("zk", servers))
	})
}

// place is a URL whose prefix no other test uses.
func place(scheme string, addresses []string) string {
	return fmt.Sprintf("%s://%s/zkqtest%d", scheme, strings.Join(addresses, ","), os.Getpid())
}

func TestPutWithoutAnAnswerExitsWith8(t *testing.T) {
	onBoth(t, func(t *testing.T, l link, by, past string) {
		// The first line is answered, so that what is held is the answer to the second.
		p := startZkq(t, by, "--session-timeout", "10s", "--connect-timeout", "10s", "put", "-l", "unanswered")
		fmt.Fprintln(p.stdin, "first")
		name, err := p.stdout.ReadString('\n')
		if err != nil || !strings.HasPrefix(name, "entry-100-") {
			t.Fatalf("%q, %v: %s", name, err, &p.stderr)
		}
		second := strings.Repeat("x", 40_000)
		switch l := l.(type) {
		case *testetcd.Link:
			l.HoldRepliesAfter(len(second) / 2) // a put reads before it writes
		case *testzk.Link:
			l.HoldReplies()
		}
		fmt.Fprintln(p.stdin, second)
		p.stdin.Close()
		for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
			if out, _, _ := zkqAt(t, past, "stat", "unanswered"); strings.HasPrefix(out, "unanswered\t2\t") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the second was not put")
			}
		}
		l.Cut() // the answer is lost
		stdout, code := p.end()
		if code != exitUnknown || stdout != "" {
			t.Errorf("exit %d, printed %q; %s", code, stdout, &p.stderr)
		}
		for _, says := range []string{"zkq: put unanswered at " + by, "outcome unknown", "the first entry was put", "zkq: hint: no answer came: zkq resolve "} {
			if !strings.Contains(p.stderr.String(), says) {
				t.Errorf("stderr does not say %q: %s", says, &p.stderr)
			}
		}
		out, _, code := zkqAt(t, past, "resolve", token(t, p.stderr.String()))
		if code != 0 || out != "applied\t2\n" {
			t.Errorf("resolve: exit %d, %q", code, out)
		}
		// What may have been put was put, once.
		if out, _, code := zkqAt(t, past, "get", "-n", "5", "unanswered"); code != 0 || out != "first\n"+second+"\n" {
			t.Errorf("get: exit %d, %d bytes", code, len(out))
		}
	})
}

// token is the one that a put left in its hint.
func token(t *testing.T, stderr string) string {
	t.Helper()
	_, rest, ok := strings.Cut(stderr, "zkq resolve ")
	token, _, _ := strings.Cut(rest, " ")
	if !ok || token == "" {
		t.Fatalf("no token: %s", stderr)
	}
	return token
}

func TestPutThatNeverArrivedIsResolvedAsNotApplied(t *testing.T) {
	// At etcd a put reads before it writes, so what is held here is not the put.
	servers := zooKeepers.Single(t).Addresses()
	l := testzk.NewLink(t, servers...)
	by, past := place("zk", l.Addresses()), place("zk", servers)
	p := startZkq(t, by, "--session-timeout", "10s", "--connect-timeout", "10s", "put", "-l", "neverthere")
	fmt.Fprintln(p.stdin, "first")
	if name, err := p.stdout.ReadString('\n'); err != nil {
		t.Fatalf("%q, %v: %s", name, err, &p.stderr)
	}
	l.HoldRequests()
	fmt.Fprintln(p.stdin, "second")
	p.stdin.Close()
	if stdout, code := p.end(); code != exitUnknown || stdout != "" {
		t.Fatalf("exit %d, printed %q; %s", code, stdout, &p.stderr)
	}
	for range 2 {
		out, stderr, code := zkqAt(t, past, "resolve", token(t, p.stderr.String()))
		if code != exitNothing || out != "" || !strings.Contains(stderr, "was not applied, and never will be") {
			t.Errorf("resolve: exit %d, %q, %s", code, out, stderr)
		}
	}
	l.Heal() // what was held comes too late
	if out, _, code := zkqAt(t, past, "get", "-n", "5", "neverthere"); code != 0 || out != "first\n" {
		t.Errorf("get: exit %d, %q", code, out)
	}
}

func TestCutOffCommandsExitWith5(t *testing.T) {
	onBoth(t, func(t *testing.T, l link, by, past string) {
		l.Cut()
		for _, args := range [][]string{{"put", "cut", "v"}, {"get", "cut"}, {"consume", "--drain", "cut"}, {"stat"}, {"doctor"}} {
			stdout, stderr, code := zkqAt(t, by, append([]string{"--connect-timeout", "1s"}, args...)...)
			if code != exitUnreachable || stdout != "" || !strings.Contains(stderr, l.Addresses()[0]) {
				t.Errorf("%v: exit %d, %q, %q", args, code, stdout, stderr)
			}
		}
		l.Heal()
		if out, _, code := zkqAt(t, past, "ls", "cut"); code != 0 || out != "" {
			t.Errorf("ls: exit %d, %q", code, out)
		}
	})
}

func TestDoctorNamesTheServerThatDoesNotAnswer(t *testing.T) {
	onBoth(t, func(t *testing.T, _ link, _, past string) {
		scheme, rest, _ := strings.Cut(past, "://")
		stdout, stderr, code := zkqAt(t, scheme+"://127.0.0.1:1,"+rest, "-o", "json", "doctor")
		var x examination
		if err := json.Unmarshal([]byte(stdout), &x); err != nil || code != 0 {
			t.Fatalf("exit %d, %v, %q, %q", code, err, stdout, stderr)
		}
		dead, living := x.Servers[0], x.Servers[1]
		if dead.InUse || dead.Version != "" || !strings.Contains(dead.Error, "refused") {
			t.Errorf("the dead server is %+v", dead)
		}
		if !living.InUse || living.Version == "" || living.Mode == "" || living.Error != "" {
			t.Errorf("the living server is %+v", living)
		}
		if len(x.Fix) != 1 || !strings.Contains(x.Fix[0], "127.0.0.1:1") {
			t.Errorf("to fix: %q", x.Fix)
		}
		if tells := scheme == "zk"; (x.Skew != nil) != tells || tells && (*x.Skew > 1 || *x.Skew < -1) {
			t.Errorf("the clocks of one machine are %v apart", x.Skew)
		}
	})
}
