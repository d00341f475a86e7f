// Package testfleet uses queues from processes that can be killed, stopped and cut off, and
// checks what happened to every entry. [Fleet] has the processes, [Ledger] has what they wrote
// down, [Trial] is a fault that happens to them.
package testfleet

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testproxy"
)

const (
	queueCount  = 16
	clientCount = 4 // each has one worker for each queue, so a queue has four workers
)

// Config is where a fleet works.
type Config struct {
	Place
	Bound time.Duration                      // time within which every client writes again after a fault
	Link  func(t testing.TB) *testproxy.Link // returns a client's link to the service; nil: no links
}

// Fleet is several client processes that use the same 16 queues. Each queue has two producers and
// four workers.
type Fleet struct {
	Config
	Clients []*Process
	Ledger  *Ledger
	Judge   func(testing.TB) (wrong []string) // called after each fault, when the queues are drained; may be nil

	dir        string // holds the journals
	names      []string
	slowFaults int // number of faults after which a client wrote later than the bound
}

// Process is a client process.
type Process struct {
	client
	Link *testproxy.Link // nil if the fleet has no links

	number  int
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers *bufio.Scanner
}

// New starts a fleet. It ends with the test.
func New(t testing.TB, cfg Config) *Fleet {
	t.Helper()
	f := &Fleet{Config: cfg, dir: t.TempDir(), Ledger: NewLedger()}
	for n := range queueCount {
		f.names = append(f.names, fmt.Sprintf("/q%d", n))
	}
	for n := range clientCount {
		p := &Process{number: n}
		if cfg.Link != nil {
			p.Link = cfg.Link(t)
		}
		f.Clients = append(f.Clients, p)
		f.Launch(t, p)
	}
	t.Cleanup(func() {
		for _, p := range f.Clients {
			p.Kill()
		}
	})
	return f
}

// Queues returns the names of the queues. Their indices are the numbers in the ledger.
func (f *Fleet) Queues() []string { return f.names }

// Launch starts the process of p as a new client, with a new name and journal.
func (f *Fleet) Launch(t testing.TB, p *Process) {
	t.Helper()
	p.client = client{Name: fmt.Sprintf("c%d-%d", p.number, time.Now().UnixMilli()), Place: f.Place, Queues: f.names}
	if p.Link != nil {
		p.Addresses = p.Link.Addresses()
	}
	p.Journal = filepath.Join(f.dir, p.Name+".journal")
	for n := range 2 * queueCount { // two clients put into each queue
		if n%clientCount == (p.number+n/queueCount)%clientCount {
			p.Puts = append(p.Puts, n%queueCount)
		}
	}
	config, err := json.Marshal(&p.client)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), clientVariable+"="+string(config))
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.answers = bufio.NewScanner(stdout)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.expect(t, "ready")
}

// expect waits for an answer of the client.
func (p *Process) expect(t testing.TB, want string) {
	t.Helper()
	late := time.AfterFunc(60*time.Second, func() { p.cmd.Process.Kill() })
	defer late.Stop()
	if !p.answers.Scan() || p.answers.Text() != want {
		t.Fatalf("client %s did not answer %q within 60 s, but %q", p.Name, want, p.answers.Text())
	}
}

// command sends a command to every client and waits for their answers.
func (f *Fleet) command(t testing.TB, what string) {
	t.Helper()
	for _, p := range f.Clients {
		if _, err := io.WriteString(p.stdin, what+"\n"); err != nil {
			t.Fatalf("client %s: %v", p.Name, err)
		}
	}
	for _, p := range f.Clients {
		p.expect(t, what)
	}
}

// PID returns the ID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill kills the process, also a stopped one.
func (p *Process) Kill() {
	if p.cmd != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		p.stdin.Close()
		p.cmd = nil
	}
}

// Stop stops the process until [Process.Continue].
func (p *Process) Stop(t testing.TB) { p.signal(t, syscall.SIGSTOP) }

// Continue lets a stopped process go on.
func (p *Process) Continue(t testing.TB) { p.signal(t, syscall.SIGCONT) }

func (p *Process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Leave ends the client in order: it finishes the entries that it holds first.
func (p *Process) Leave(t testing.TB) {
	t.Helper()
	p.stdin.Close()
	late := time.AfterFunc(30*time.Second, func() { p.cmd.Process.Kill() })
	defer late.Stop()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("client %s: %v", p.Name, err)
	}
	p.cmd = nil
}

// End ends all clients as [Process.Leave] does.
func (f *Fleet) End(t testing.TB) {
	for _, p := range f.Clients {
		p.Leave(t)
	}
}

// drain holds the producers back until all queues are empty and all workers idle. It returns how
// long that took, and the locks that are left.
func (f *Fleet) drain(t testing.TB) (took time.Duration, locks []string) {
	t.Helper()
	start := time.Now()
	f.command(t, "hold")
	t.Logf("the last put has ended after %v", time.Since(start))
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	// Without a link, and closed at once: the clients must run an embedded store.
	c, err := Open(ctx, f.Place)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, name := range f.names {
		q := zkq.NewLockingQueue(c, name)
		defer q.Close()
		if err := q.WaitEmpty(ctx); err != nil {
			stat, _ := q.Stat(context.Background())
			t.Fatalf("%s does not get empty: %v; %+v", name, err, stat)
		}
		if so := time.Since(start); so > 10*time.Second {
			t.Logf("%s is empty after %v", name, so)
		}
	}
	took = time.Since(start)
	s, err := c.Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range f.names {
		l, err := s.List(ctx, name+"/taken", coord.ListOptions{Fresh: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range l.Nodes {
			locks = append(locks, n.Path)
		}
	}
	f.command(t, "quiet")
	return took, locks
}
