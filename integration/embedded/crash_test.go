package embedded_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

const (
	producers = 4
	workers   = 2
	most      = 10 * time.Minute
)

// Every second the process that runs the store for all others is killed with -9,
// whether it puts or works, and another one takes its part.
func TestEveryAcknowledgedPutIsFinishedOnceWhileOwnersAreKilled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	f := newFleet(t, ctx)
	for i := range producers {
		f.start("producer", fmt.Sprint("p", i), entries/producers)
	}
	for i := range workers {
		f.start("worker", fmt.Sprint("w", i), 0)
	}
	flowed := 0 // kills after which there was something left to put
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for n := range kills {
		select {
		case <-every.C:
		case <-ctx.Done():
			t.Fatalf("%d owners killed in %v", n, most)
		}
		owner := f.owner()
		owner.cmd.Process.Kill()
		<-owner.exited
		delete(f.running, owner.cmd.Process.Pid)
		acknowledged := f.read(owner)
		if owner.count > acknowledged || owner.role == "worker" {
			f.start(owner.role, owner.slot, owner.count-acknowledged)
		}
		if f.producing() {
			flowed++
		}
	}
	if flowed < kills*3/4 {
		t.Errorf("after %d of %d kills nothing was left to put: this tested little", kills-flowed, kills)
	}
	f.drain()
	for _, wrong := range f.history.violations() {
		t.Error(wrong)
	}
	acks := len(f.history.names)
	t.Logf("%d owners killed, %d of them producers; %v", kills, f.producersKilled, f.history)
	if acks < entries {
		t.Errorf("%d puts were acknowledged, want %d", acks, entries)
	}
}

// fleet is all the processes of the test and what they said.
type fleet struct {
	t               *testing.T
	ctx             context.Context
	store, journals string
	running         map[int]*process // by pid
	started         int
	producersKilled int
	history         *history
}

type process struct {
	role, slot string
	count      int // puts to make
	journal    string
	cmd        *exec.Cmd
	stdin      io.Closer
	said       strings.Builder
	exited     chan struct{}
	err        error
}

func newFleet(t *testing.T, ctx context.Context) *fleet {
	dir, err := os.MkdirTemp("", "zkq") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &fleet{
		t: t, ctx: ctx, store: filepath.Join(dir, "s"), journals: t.TempDir(),
		running: map[int]*process{}, history: newHistory(),
	}
}

// start starts a process; after a kill, another in the same slot.
func (f *fleet) start(role, slot string, count int) {
	f.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	prefix := fmt.Sprintf("%s-%d", slot, f.started)
	f.started++
	p := &process{role: role, slot: slot, count: count, journal: filepath.Join(f.journals, prefix)}
	p.exited = make(chan struct{})
	p.cmd = exec.Command(exe)
	p.cmd.Env = append(os.Environ(), roleVariable+"="+role, storeVariable+"="+f.store,
		journalVariable+"="+p.journal, prefixVariable+"="+prefix, countVariable+"="+strconv.Itoa(count))
	p.cmd.Stderr = &p.said
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	p.stdin = stdin
	if err := p.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	f.t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.exited
	})
	f.running[p.cmd.Process.Pid] = p
}

// owner is the process that runs the store, by the store's own word.
func (f *fleet) owner() (owner *process) {
	f.t.Helper()
	f.until("one of the processes runs the store", func() bool {
		f.reap()
		text, _ := os.ReadFile(filepath.Join(f.store, "lock"))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		owner = f.running[pid]
		return owner != nil
	})
	if owner.role == "producer" {
		f.producersKilled++
	}
	return owner
}

// reap takes the processes that have ended by themselves: producers that are done.
func (f *fleet) reap() {
	f.t.Helper()
	for pid, p := range f.running {
		select {
		case <-p.exited:
			delete(f.running, pid)
			f.leave(p)
		default:
		}
	}
}

func (f *fleet) leave(p *process) {
	f.t.Helper()
	if p.err != nil {
		f.t.Fatalf("%s: %v: %s", p.slot, p.err, p.said.String())
	}
	f.read(p)
}

// read takes up what a process said, and returns how many of its puts were
// acknowledged.
func (f *fleet) read(p *process) int {
	f.t.Helper()
	text, err := os.ReadFile(p.journal)
	if err != nil {
		f.t.Fatalf("%s: %v: %s", p.slot, err, p.said.String())
	}
	acknowledged, err := f.history.add(string(text))
	if err != nil {
		f.t.Fatalf("%s: %v", p.journal, err)
	}
	return acknowledged
}

func (f *fleet) producing() bool {
	for _, p := range f.running {
		if p.role == "producer" {
			return true
		}
	}
	return false
}

// drain waits until everything is put and finished, and ends the workers.
func (f *fleet) drain() {
	f.t.Helper()
	f.until("the producers end", func() bool {
		f.reap()
		return !f.producing()
	})
	c, err := open(f.ctx, f.store)
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Session(f.ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	left := func(dir string) []coord.Node {
		l, err := s.List(f.ctx, "/"+queueName+"/"+dir, coord.ListOptions{Fresh: true})
		if err != nil {
			f.t.Fatal(err)
		}
		return l.Nodes
	}
	f.until("the queue is empty", func() bool {
		f.reap()
		return len(left("entries")) == 0
	})
	for _, p := range f.running {
		p.stdin.Close()
	}
	f.until("the workers end", func() bool {
		f.reap()
		return len(f.running) == 0
	})
	for _, dir := range []string{"entries", "taken"} {
		if nodes := left(dir); len(nodes) > 0 {
			f.t.Errorf("%d nodes are left in %s, the first is %s", len(nodes), dir, nodes[0].Path)
		}
	}
	q := zkq.NewLockingQueue(c, queueName)
	defer q.Close()
	if st, err := q.Stat(f.ctx); err != nil || st.Total() != 0 {
		f.t.Errorf("the queue's counts are %+v, %v", st, err)
	}
}

// until polls until f is true, and no longer than the whole test may take.
func (f *fleet) until(what string, ok func() bool) {
	f.t.Helper()
	for !ok() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-f.ctx.Done():
			f.t.Fatalf("not in time: %s; %v", what, f.history)
		}
	}
}
