// Package integration has the tests that need programs from outside: a real ZooKeeper,
// and the real kazoo beside zkq on the same queues.
package integration_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/internal/testcoord"
	"github.com/zkq/zkq/internal/testzk"
	"github.com/zkq/zkq/zkqueue"
)

var servers testzk.Servers

// holderEnv makes the test's program a worker that takes one entry and keeps it.
const holderEnv = "ZKQ_TEST_HOLDER"

func TestMain(m *testing.M) {
	if where := os.Getenv(holderEnv); where != "" {
		if err := hold(where); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	testcoord.Main(m, servers.Stop)
}

// hold takes an entry, prints its name, and keeps it until stdin ends.
func hold(where string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, root, _ := strings.Cut(where, "/")
	c, err := zkqueue.Open(ctx, zkqueue.Config{Servers: strings.Split(list, ","), Chroot: "/" + root, SessionTimeout: 2 * time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	q := zkq.NewLockingQueue(c, queueName)
	defer q.Close()
	h, err := q.Take(ctx)
	if err != nil {
		return err
	}
	fmt.Println(h.Name)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// queueName is the queue of every test, each in a chroot of its own.
const queueName = "jobs"

// bench is a place on a real ZooKeeper that no other test uses.
type bench struct {
	testing.TB
	ctx     context.Context
	servers []string
	chroot  string
}

var chroots atomic.Int64

func newBench(t testing.TB) *bench {
	t.Helper()
	return benchOn(t, servers.Single(t))
}

func benchOn(t testing.TB, c *testzk.Cluster) *bench {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	name := strings.NewReplacer("/", "_", " ", "_", "#", "_").Replace(t.Name())
	return &bench{TB: t, ctx: ctx, servers: c.Addresses(), chroot: fmt.Sprintf("/zkqtest/%d-%d-%s", os.Getpid(), chroots.Add(1), name)}
}

// client is a session of its own.
func (b *bench) client() *zkqueue.Coordinator {
	b.Helper()
	return b.clientBy(b.servers)
}

// clientBy reaches the servers at other addresses.
func (b *bench) clientBy(addresses []string) *zkqueue.Coordinator {
	b.Helper()
	c, err := zkqueue.Open(b.ctx, zkqueue.Config{Servers: addresses, Chroot: b.chroot})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

func (b *bench) locking(opts ...zkq.Option) *zkq.LockingQueue {
	b.Helper()
	q := zkq.NewLockingQueue(b.client(), queueName, opts...)
	b.Cleanup(func() { q.Close() })
	return q
}

func (b *bench) simple(opts ...zkq.Option) *zkq.Queue {
	b.Helper()
	q := zkq.NewQueue(b.client(), queueName, opts...)
	b.Cleanup(func() { q.Close() })
	return q
}

// putter is either queue.
type putter interface {
	Put(context.Context, []byte, ...zkq.PutOption) (string, error)
	Len(context.Context) (int, error)
}

func (b *bench) put(q putter, value []byte, opts ...zkq.PutOption) string {
	b.Helper()
	name, err := q.Put(b.ctx, value, opts...)
	if err != nil {
		b.Fatal(err)
	}
	return name
}

func (b *bench) take(q *zkq.LockingQueue) *zkq.Held {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	h, err := q.Take(ctx)
	if err != nil {
		b.Fatal(err)
	}
	return h
}

func (b *bench) consume(h *zkq.Held) {
	b.Helper()
	if err := h.Consume(b.ctx); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) release(h *zkq.Held) {
	b.Helper()
	if err := h.Release(b.ctx); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) get(q *zkq.Queue) []byte {
	b.Helper()
	e, err := q.TryGet(b.ctx)
	if err != nil {
		b.Fatal(err)
	}
	return e.Value
}

// empty demands that nothing can be taken.
func (b *bench) empty(q *zkq.LockingQueue) {
	b.Helper()
	if h, err := q.TryTake(b.ctx); !errors.Is(err, zkq.ErrEmpty) {
		b.Fatalf("TryTake = %v, %v; want ErrEmpty", h, err)
	}
}

// lens demands that both sides count n.
func (b *bench) lens(q putter, k *kazoo, n int) {
	b.Helper()
	ours, err := q.Len(b.ctx)
	if err != nil {
		b.Fatal(err)
	}
	if theirs := k.len(); ours != n || theirs != n {
		b.Fatalf("zkq counts %d, kazoo %d, want %d", ours, theirs, n)
	}
}

func (b *bench) lost(err error) {
	b.Helper()
	if !errors.Is(err, zkq.ErrLockLost) {
		b.Fatalf("error %v, want ErrLockLost", err)
	}
}

// holder is a zkq worker in a process of its own, which holds the entry of that name.
type holder struct {
	cmd  *exec.Cmd
	name string
}

func (b *bench) holder() *holder {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holderEnv+"="+strings.Join(b.servers, ",")+b.chroot)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "entry-") {
		b.Fatalf("the worker says %q: %v", line, err)
	}
	return &holder{cmd: cmd, name: strings.TrimSpace(line)}
}

// kill is kill -9.
func (h *holder) kill() { h.cmd.Process.Kill() }

// zookeeper is a client that knows nothing of queues, below the test's chroot.
type zookeeper struct {
	b *bench
	c *zk.Conn
}

type nolog struct{}

func (nolog) Printf(string, ...any) {}

func (b *bench) zookeeper() *zookeeper {
	b.Helper()
	c, events, err := zk.Connect(b.servers, 30*time.Second, zk.WithLogger(nolog{}))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		c.Close()
		for range events {
		}
	})
	return &zookeeper{b: b, c: c}
}

func (z *zookeeper) create(path, value string) {
	z.b.Helper()
	if _, err := z.c.Create(z.b.chroot+path, []byte(value), 0, zk.WorldACL(zk.PermAll)); err != nil {
		z.b.Fatalf("create %s: %v", path, err)
	}
}

func (z *zookeeper) remove(path string) {
	z.b.Helper()
	if err := z.c.Delete(z.b.chroot+path, -1); err != nil {
		z.b.Fatalf("delete %s: %v", path, err)
	}
}

// read is a node as the server has it; ok is false where there is none.
func (z *zookeeper) read(path string) (value string, stat zk.Stat, ok bool) {
	z.b.Helper()
	if _, err := z.c.Sync("/"); err != nil {
		z.b.Fatal(err)
	}
	v, st, err := z.c.Get(z.b.chroot + path)
	if errors.Is(err, zk.ErrNoNode) {
		return "", zk.Stat{}, false
	}
	if err != nil {
		z.b.Fatalf("get %s: %v", path, err)
	}
	return string(v), *st, true
}

// children of a directory, which is there.
func (z *zookeeper) children(path string) []string {
	z.b.Helper()
	if _, err := z.c.Sync("/"); err != nil {
		z.b.Fatal(err)
	}
	names, _, err := z.c.Children(z.b.chroot + path)
	if err != nil {
		z.b.Fatalf("children of %s: %v", path, err)
	}
	return names
}

// lockOf demands a lock on the entry, and returns its holder and its version.
func (z *zookeeper) lockOf(name string) (holder string, version int32) {
	z.b.Helper()
	value, stat, ok := z.read("/" + queueName + "/taken/" + name)
	if !ok || stat.EphemeralOwner == 0 {
		z.b.Fatalf("no lock on %s (there: %v)", name, ok)
	}
	return value, stat.Version
}
