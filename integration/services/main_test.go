package services_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/etcdqueue/embedded"
	"github.com/zkq/zkq/internal/testcoord"
	"github.com/zkq/zkq/internal/testetcd"
	"github.com/zkq/zkq/internal/testzk"
	"github.com/zkq/zkq/zkqueue"
)

// The servers that tests share, one test after the other.
var (
	zooKeepers testzk.Servers
	etcdServer = sync.OnceValues(func() (*testetcd.Cluster, error) { return testetcd.Start(1, testetcd.Options{}) })
	etcdStarts atomic.Bool
)

func TestMain(m *testing.M) {
	testetcd.Main()
	testcoord.Main(m, zooKeepers.Stop, stopEtcd)
}

// stopEtcd stops the etcd server if a test has started it.
func stopEtcd() {
	if etcdStarts.Load() {
		if c, err := etcdServer(); err == nil {
			c.Stop()
		}
	}
}

// place is where a test has a service to itself: a prefix, a chroot, or a store of its own.
type place struct {
	testing.TB
	ctx     context.Context
	service string
	url     string   // for the command
	servers []string // none: the embedded store
	prefix  string
	dir     string // of the embedded store
	store   *coordtest.Store
}

var places atomic.Int64

func newPlace(t *testing.T, service string) *place {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	t.Cleanup(cancel)
	return &place{TB: t, ctx: ctx, service: service, prefix: fmt.Sprintf("/zkqtest%d-%d", os.Getpid(), places.Add(1))}
}

// onEach runs a test on each service. The servers are shared, and counted: no test of this package is parallel.
func onEach(t *testing.T, test func(t *testing.T, p *place)) {
	t.Run("embedded", func(t *testing.T) {
		p := newPlace(t, "embedded")
		dir, err := os.MkdirTemp("", "zq") // a unix socket's path must be short
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		p.dir, p.prefix, p.url = dir, "", "local:"+dir
		test(t, p)
	})
	onServers(t, test)
}

// onServers leaves out the embedded store, whose client runs it.
func onServers(t *testing.T, test func(t *testing.T, p *place)) {
	t.Run("etcd", func(t *testing.T) {
		p := newPlace(t, "etcd")
		etcdStarts.Store(true)
		c, err := etcdServer()
		if err != nil {
			t.Fatal(err)
		}
		p.servers = c.Endpoints()
		p.url = "etcd://" + strings.Join(p.servers, ",") + p.prefix
		test(t, p)
	})
	t.Run("ZooKeeper", func(t *testing.T) {
		p := newPlace(t, "ZooKeeper")
		p.servers = zooKeepers.Single(t).Addresses()
		p.url = "zk://" + strings.Join(p.servers, ",") + p.prefix
		test(t, p)
	})
}

// open is a client of its own, which reaches the servers at these addresses.
func (p *place) open(servers []string, session time.Duration) (coord.Coordinator, error) {
	const patience = testcoord.Patience // the machine may be busy
	switch p.service {
	case "memory":
		return p.store.Open(coordtest.Options{}), nil
	case "embedded":
		return coordinator(embedded.Open(p.ctx, embedded.Config{Dir: p.dir, SessionTimeout: session, ConnectTimeout: patience}))
	case "etcd":
		return coordinator(etcdqueue.Open(p.ctx, etcdqueue.Config{Endpoints: servers, Prefix: p.prefix, SessionTimeout: session, ConnectTimeout: patience}))
	default:
		return coordinator(zkqueue.Open(p.ctx, zkqueue.Config{Servers: servers, Chroot: p.prefix, SessionTimeout: session, ConnectTimeout: patience}))
	}
}

func coordinator[C coord.Coordinator](c C, err error) (coord.Coordinator, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

// client is a coordinator until the test ends.
func (p *place) client() coord.Coordinator {
	p.Helper()
	return p.clientBy(p.servers, 0)
}

func (p *place) clientBy(servers []string, session time.Duration) coord.Coordinator {
	p.Helper()
	c, err := p.open(servers, session)
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { c.Close() })
	return c
}

func (p *place) session(c coord.Coordinator) coord.Session {
	p.Helper()
	s, err := c.Session(p.ctx)
	if err != nil {
		p.Fatal(err)
	}
	return s
}

func (p *place) commit(s coord.Session, ops ...coord.Op) []coord.Result {
	p.Helper()
	r, err := s.Commit(p.ctx, ops...)
	if err != nil {
		p.Fatal(err)
	}
	return r
}

func (p *place) put(q *zkq.LockingQueue, value string, opts ...zkq.PutOption) string {
	p.Helper()
	name, err := q.Put(p.ctx, []byte(value), opts...)
	if err != nil {
		p.Fatal(err)
	}
	return name
}

// locking is a handle until the test ends.
func (p *place) locking(c coord.Coordinator, name string, opts ...zkq.Option) *zkq.LockingQueue {
	q := zkq.NewLockingQueue(c, name, opts...)
	p.Cleanup(func() { q.Close() })
	return q
}

// link is a client's way to the servers, which can be cut.
type link interface {
	Cut()
	Heal()
	Addresses() []string
}

func (p *place) link() link {
	if p.service == "etcd" {
		return testetcd.NewLink(p, p.servers...)
	}
	return testzk.NewLink(p, p.servers...)
}

// watches is how many the service keeps, for all clients.
func (p *place) watches() int {
	p.Helper()
	var n int
	var err error
	switch p.service {
	case "etcd":
		n, err = testetcd.Watches(p.servers[0])
	case "ZooKeeper":
		n, err = testzk.Watches(p.servers[0])
	default:
		n, err = ownWatches()
	}
	if err != nil {
		p.Fatal(err)
	}
	return n
}

// ownWatches is how many watches the etcd in this process keeps.
func ownWatches() (int, error) {
	families, err := prometheus.DefaultGatherer.Gather()
	for _, f := range families {
		if f.GetName() == "etcd_debugging_mvcc_watcher_total" {
			return int(f.GetMetric()[0].GetGauge().GetValue()), nil
		}
	}
	return 0, fmt.Errorf("no count of watches: %w", err)
}

// nodes are all that stand in the place, except those that name its clients: what each holds, and the commit that wrote it.
func (p *place) nodes(s coord.Session) map[string]string {
	p.Helper()
	found := make(map[string]string)
	var walk func(dir string)
	walk = func(dir string) {
		names, err := s.List(p.ctx, dir, coord.ListOptions{Fresh: true})
		if err != nil {
			p.Fatal(err)
		}
		whole, err := s.List(p.ctx, dir, coord.ListOptions{Values: true, Fresh: true})
		if err != nil {
			p.Fatal(err)
		}
		for _, n := range whole.Nodes {
			found[n.Path] = fmt.Sprintf("%x by %d, %q", n.Fence, n.Revision, n.Value)
		}
		for _, n := range names.Nodes {
			if n.Path == "/zkq/sessions" {
				continue
			}
			if _, value := found[n.Path]; !value || p.service == "ZooKeeper" {
				if !value {
					found[n.Path] = "directory"
				}
				walk(n.Path)
			}
		}
	}
	walk("/")
	return found
}

// eventually polls until ok, or fails with what it was about.
func (p *place) eventually(most time.Duration, ok func() bool, about func() string) {
	p.Helper()
	for end := time.Now().Add(most); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			p.Fatalf("not within %v: %s", most, about())
		}
	}
}
