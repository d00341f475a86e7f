//go:build headtohead

package headtohead

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/internal/testzk"
)

const (
	root        = "/work"
	queueCount  = 16
	clientCount = 4               // processes, each with a worker for each queue: four workers a queue
	session     = 3 * time.Second // of a client
)

// side is a kind of client.
type side struct {
	name    string
	command func(config string) *exec.Cmd
}

// fleet is a number of client processes of one side on the same queues, each by links of its own.
type fleet struct {
	t       testing.TB
	side    side
	cluster *testzk.Cluster
	dir     string // of the journals
	queues  []string
	clients []*process
	admin   *zk.Conn // by no link
	stuck   map[string]time.Time
	hung    int
	notes   []string
	history []testzk.Txn // so far
}

// process is a client that runs.
type process struct {
	number  int
	starts  int
	link    *testzk.Link
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers *bufio.Scanner
}

type nolog struct{}

func (nolog) Printf(string, ...any) {}

func newFleet(t testing.TB, s side) *fleet {
	c, err := testzk.Start(3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop() })
	admin, events, err := zk.Connect(c.Addresses(), 30*time.Second, zk.WithLogger(nolog{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		admin.Close()
		for range events {
		}
	})
	f := &fleet{t: t, side: s, cluster: c, dir: t.TempDir(), admin: admin, stuck: make(map[string]time.Time)}
	for n := range queueCount {
		f.queues = append(f.queues, fmt.Sprintf("/q%d", n))
	}
	for n := range clientCount {
		p := &process{number: n, link: testzk.NewLink(t, c.Addresses()...)}
		f.clients = append(f.clients, p)
		t.Cleanup(p.kill)
		f.launch(p)
	}
	return f
}

// launch starts a client's process, which is another client than the one before it.
func (f *fleet) launch(p *process) {
	f.t.Helper()
	p.starts++
	c := client{
		Name: fmt.Sprintf("c%d.%d", p.number, p.starts), Servers: p.link.Addresses(), Root: root, Session: session.Seconds(),
		Wait: 2, Hung: 15, Patient: 20, Pause: [2]float64{0.3, 0.6}, Work: [2]float64{0, 0.4}, Queues: f.queues,
	}
	c.Journal = filepath.Join(f.dir, c.Name+".journal")
	for n := range 2 * queueCount { // two clients put into each queue
		if n%clientCount == (p.number+n/queueCount)%clientCount {
			c.Puts = append(c.Puts, n%queueCount)
		}
	}
	config, err := json.Marshal(c)
	if err != nil {
		f.t.Fatal(err)
	}
	p.cmd = f.side.command(string(config))
	log, err := os.Create(filepath.Join(f.dir, c.Name+".log"))
	if err != nil {
		f.t.Fatal(err)
	}
	defer log.Close()
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		f.t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	p.answers = bufio.NewScanner(stdout)
	if err := p.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	if got := f.answer(p); got != "ready" {
		b, _ := os.ReadFile(log.Name())
		f.t.Fatalf("client %s says %q, and %s", c.Name, got, b)
	}
}

func (f *fleet) answer(p *process) string {
	late := time.AfterFunc(60*time.Second, func() { p.cmd.Process.Kill() })
	defer late.Stop()
	p.answers.Scan()
	return p.answers.Text()
}

// tell has every client do something, and waits until all have.
func (f *fleet) tell(what string) {
	f.t.Helper()
	for _, p := range f.clients {
		if got := f.order(p, what); got != what {
			f.t.Fatalf("client %d answers %q to %q", p.number, got, what)
		}
	}
}

func (f *fleet) order(p *process, what string) (answer string) {
	f.t.Helper()
	if _, err := io.WriteString(p.stdin, what+"\n"); err != nil {
		f.t.Fatalf("client %d: %v", p.number, err)
	}
	return f.answer(p)
}

// state is the sum of the clients'.
func (f *fleet) state() state {
	f.t.Helper()
	var sum state
	for _, p := range f.clients {
		var s state
		if err := json.Unmarshal([]byte(f.order(p, "state")), &s); err != nil {
			f.t.Fatalf("client %d: %v", p.number, err)
		}
		sum.Putting += s.Putting
		sum.Held += s.Held
		sum.Hung += s.Hung
	}
	return sum
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

func (p *process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// children of the queues' directories of that kind, as they are now. While the service does not answer there are none to see.
func (f *fleet) children(kind string) ([]string, error) {
	var all []string
	for _, q := range f.queues {
		dir := root + q + "/" + kind
		if _, err := f.admin.Sync(dir); err != nil && !errors.Is(err, zk.ErrNoNode) {
			return nil, err
		}
		names, _, err := f.admin.Children(dir)
		if err != nil && !errors.Is(err, zk.ErrNoNode) {
			return nil, err
		}
		for _, n := range names {
			all = append(all, path.Join(dir, n))
		}
	}
	slices.Sort(all)
	return all, nil
}

// drain holds the producers back until the queues are empty and the clients idle. What nothing happens to for longer than
// any session and any wait lasts, while no worker has it, is stuck.
func (f *fleet) drain() {
	f.t.Helper()
	f.tell("hold")
	const calm = 2*time.Second + session + time.Second
	var before string
	since, limit := time.Now(), time.Now().Add(time.Minute)
	for ; ; time.Sleep(100 * time.Millisecond) {
		s := f.state()
		entries, err := f.children("entries")
		if err != nil {
			continue // the connection of the test itself
		}
		entries = slices.DeleteFunc(entries, func(e string) bool { return !f.stuck[e].IsZero() })
		if s.Putting == 0 && s.Held == 0 && len(entries) == 0 {
			return
		}
		locks, err := f.children("taken")
		if err != nil {
			continue
		}
		now := fmt.Sprint(s, entries, locks)
		if now != before {
			before, since = now, time.Now()
		}
		if time.Since(since) > calm && s.Held == 0 && s.Putting == 0 || time.Now().After(limit) {
			for _, e := range entries {
				f.stuck[e] = time.Now()
				f.notes = append(f.notes, fmt.Sprintf("stuck: %s, locked %v", e, slices.Contains(locks, strings.Replace(e, "/entries/", "/taken/", 1))))
			}
			if time.Now().After(limit) {
				f.notes = append(f.notes, fmt.Sprintf("not idle after a minute: %+v", s))
			}
			return
		}
	}
}

// end closes the clients in order, waits until their sessions are over, and says which locks are left.
func (f *fleet) end() []string {
	f.t.Helper()
	for _, p := range f.clients {
		p.stdin.Close()
	}
	for _, p := range f.clients {
		late := time.AfterFunc(30*time.Second, func() { p.cmd.Process.Kill() })
		if err := p.cmd.Wait(); err != nil {
			f.notes = append(f.notes, fmt.Sprintf("client %d did not end in order: %v", p.number, err))
		}
		late.Stop()
		p.cmd = nil
	}
	for end := time.Now().Add(3 * session); ; time.Sleep(100 * time.Millisecond) {
		locks, err := f.children("taken")
		if err == nil && (len(locks) == 0 || time.Now().After(end)) {
			return locks
		}
		if time.Now().After(end.Add(time.Minute)) {
			f.t.Fatal(err)
		}
	}
}

// remember reads what ZooKeeper has committed since the last time. All members serve.
func (f *fleet) remember() {
	f.t.Helper()
	var last int64
	if n := len(f.history); n > 0 {
		last = f.history[n-1].Zxid
	}
	news, err := f.cluster.Log(last)
	if err != nil {
		f.t.Fatal(err)
	}
	f.history = append(f.history, news...)
}

// judge hears the witnesses.
func (f *fleet) judge() verdict {
	f.t.Helper()
	records, err := readJournals(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	f.remember()
	v, err := judge(root, f.queues, records, f.history)
	if err != nil {
		f.t.Fatal(err)
	}
	left, err := f.children("entries")
	if err != nil {
		f.t.Fatal(err)
	}
	if !slices.Equal(left, v.left) {
		f.t.Fatalf("by its log ZooKeeper has %q, and it has %q", v.left, left)
	}
	for e, at := range f.stuck {
		v.breaches = append(v.breaches, breach{stuck, at, e})
	}
	return v
}

// tail is the end of what the clients said on stderr, to explain a failure.
func (f *fleet) tail(most int) string {
	files, _ := filepath.Glob(filepath.Join(f.dir, "*.log"))
	var all bytes.Buffer
	for _, file := range files {
		b, _ := os.ReadFile(file)
		fmt.Fprintf(&all, "%s: %d bytes\n%s\n", filepath.Base(file), len(b), b[max(0, len(b)-most):])
	}
	return all.String()
}
