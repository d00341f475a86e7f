//go:build cluster

package cluster

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
)

const (
	queueCount  = 16
	clientCount = 4 // of each, one worker for each queue: four workers a queue
)

// fleet is a number of client processes that use the same queues of a service, each by a link of its own.
type fleet struct {
	service *service
	root    string
	dir     string // of the journals
	names   []string
	clients []*process
	ledger  *ledger
	at      coord.Coordinator // the test's own, by no link
	queues  []*zkq.LockingQueue
	slow    int // faults after which a client wrote later than the bound
}

// process is a client that runs.
type process struct {
	client
	number  int
	link    link
	began   time.Time
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers *bufio.Scanner
}

func newFleet(t testing.TB, s *service) *fleet {
	f := &fleet{service: s, root: newRoot(), dir: t.TempDir(), ledger: newLedger()}
	for n := range queueCount {
		f.names = append(f.names, fmt.Sprintf("/q%d", n))
	}
	c, err := open(within(t, 30*time.Second), s.name, s.addresses(), f.root, s.session)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	f.at = c
	for _, name := range f.names {
		q := zkq.NewLockingQueue(c, name)
		t.Cleanup(func() { q.Close() })
		f.queues = append(f.queues, q)
	}
	for n := range clientCount {
		p := &process{number: n, link: s.link(t, s.addresses()...)}
		f.clients = append(f.clients, p)
		f.launch(t, p)
	}
	t.Cleanup(func() {
		for _, p := range f.clients {
			p.kill()
		}
	})
	return f
}

// launch starts a client's process, which is another client than the one before it.
func (f *fleet) launch(t testing.TB, p *process) {
	t.Helper()
	p.began = time.Now()
	p.client = client{
		Name: fmt.Sprintf("c%d-%d", p.number, p.began.UnixMilli()), Service: f.service.name, Addresses: p.link.Addresses(), Root: f.root,
		Session: f.service.session, Queues: f.names,
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

// expect waits for an answer of the client's.
func (p *process) expect(t testing.TB, want string) {
	t.Helper()
	late := time.AfterFunc(60*time.Second, func() { p.cmd.Process.Kill() })
	defer late.Stop()
	if !p.answers.Scan() || p.answers.Text() != want {
		t.Fatalf("client %s did not answer %q within 60 s, but %q", p.Name, want, p.answers.Text())
	}
}

// tell has every client do something, and waits until all have.
func (f *fleet) tell(t testing.TB, what string) {
	t.Helper()
	for _, p := range f.clients {
		if _, err := io.WriteString(p.stdin, what+"\n"); err != nil {
			t.Fatalf("client %s: %v", p.Name, err)
		}
	}
	for _, p := range f.clients {
		p.expect(t, what)
	}
}

// kill ends the process, also one that is stopped.
func (p *process) kill() {
	if p.cmd != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		p.stdin.Close()
		p.cmd = nil
	}
}

func (p *process) stop(t testing.TB) { p.signal(t, syscall.SIGSTOP) }
func (p *process) cont(t testing.TB) { p.signal(t, syscall.SIGCONT) }

func (p *process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// end closes the clients in order.
func (f *fleet) end(t testing.TB) {
	for _, p := range f.clients {
		p.stdin.Close()
		late := time.AfterFunc(30*time.Second, func() { p.cmd.Process.Kill() })
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("client %s: %v", p.Name, err)
		}
		late.Stop()
		p.cmd = nil
	}
}

// drain holds the producers back until all queues are empty and all workers idle. It reports the locks that are left.
func (f *fleet) drain(t testing.TB) (took time.Duration, locks []string) {
	t.Helper()
	start := time.Now()
	f.tell(t, "hold")
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, q := range f.queues {
		if err := q.WaitEmpty(ctx); err != nil {
			stat, _ := q.Stat(context.Background())
			t.Fatalf("%s does not get empty: %v; %+v", q.Name(), err, stat)
		}
	}
	took = time.Since(start)
	s, err := f.at.Session(ctx)
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
	f.tell(t, "quiet")
	return took, locks
}
