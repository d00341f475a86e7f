package testzk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq/internal/testneed"
	"github.com/zkq/zkq/internal/testport"
)

// Options configure a cluster. The zero value does.
type Options struct {
	// Peers puts a link between each two members, for [Cluster.CutOff].
	Peers bool
	// SnapCount is the approximate number of transactions between two snapshots; 0: ZooKeeper's
	// default.
	SnapCount int
	// EnforceQuota has the members refuse requests beyond a hard limit of setquota.
	EnforceQuota bool
	// MaxBuffer is jute.maxbuffer, the largest request in bytes; 0: ZooKeeper's default.
	MaxBuffer int
}

// Cluster is a ZooKeeper service of one or more members.
type Cluster struct {
	Members []*Member

	mesh    *mesh    // nil without Peers
	logRead struct { // what Log has read
		to    int64
		nodes nodeSet
	}
	dir       string
	release   func()   // ends the reservation of the ports; may be nil
	addresses []string // of servers that this package did not start
}

// Start starts a cluster of n members. It returns when all serve.
func Start(n int) (*Cluster, error) { return StartWith(n, Options{}) }

// StartWith is [Start] with options.
func StartWith(n int, o Options) (*Cluster, error) {
	classpath, err := Classpath()
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		c, err := start(n, o, classpath)
		// Where ports cannot be reserved, another process may have taken one before the server did.
		if err == nil || try == 2 {
			return c, err
		}
	}
}

// StartFor is [StartWith] for a test. The cluster is stopped when the test ends. Without
// ZooKeeper on this machine the test cannot run.
func StartFor(t testing.TB, n int, o Options) *Cluster {
	t.Helper()
	c, err := StartWith(n, o)
	if errors.Is(err, errNoZooKeeper) {
		testneed.Missing(t, "ZooKeeper", "make deps")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop() })
	return c
}

func start(n int, o Options, classpath string) (*Cluster, error) {
	dir, err := os.MkdirTemp("", "zk")
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir}
	ports, release, err := testport.Reserve(3 * n)
	if err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	c.release = release
	quorum := func(i int) []string { // the ports for followers and for elections
		return []string{fmt.Sprintf("127.0.0.1:%d", ports[3*i+1]), fmt.Sprintf("127.0.0.1:%d", ports[3*i+2])}
	}
	seen := func(_, of int) []string { return quorum(of) }
	if o.Peers {
		if c.mesh, err = newMesh(n, quorum); err != nil {
			return nil, errors.Join(err, c.Stop())
		}
		seen = c.mesh.addressesFor
	}
	for i := range n {
		m := &Member{
			Address:       fmt.Sprintf("127.0.0.1:%d", ports[3*i]),
			number:        i,
			snapCount:     o.SnapCount,
			enforcesQuota: o.EnforceQuota,
			maxBuffer:     o.MaxBuffer,
			dir:           filepath.Join(dir, fmt.Sprint(i+1)),
			classpath:     classpath,
		}
		c.Members = append(c.Members, m)
		var peers strings.Builder
		for j := range n {
			a := quorum(j)
			if j != i {
				a = seen(i, j)
			}
			_, election, _ := strings.Cut(a[1], ":")
			if n > 1 {
				fmt.Fprintf(&peers, "server.%d=%s:%s\n", j+1, a[0], election)
			}
		}
		if err := m.prepare(i+1, ports[3*i], peers.String()); err != nil {
			return nil, errors.Join(err, c.Stop())
		}
	}
	if err := c.Start(); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// patience is how long a member may need to serve, on a machine that does other work.
const patience = 3 * time.Minute

// Start starts the members that do not run, and returns when all serve.
func (c *Cluster) Start() error {
	for _, m := range c.Members {
		if !m.isRunning() {
			if err := m.start(); err != nil {
				return err
			}
		}
	}
	for _, m := range c.Members {
		if err := m.awaitServing(patience); err != nil {
			return err
		}
	}
	return nil
}

// prepare writes the configuration and the ID of a member.
func (m *Member) prepare(id, port int, peers string) error {
	data := filepath.Join(m.dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(data, "myid"), []byte(fmt.Sprint(id)), 0o600); err != nil {
		return err
	}
	cfg := fmt.Sprintf(`tickTime=250
initLimit=40
syncLimit=8
minSessionTimeout=500
maxSessionTimeout=40000
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=*
clientPortAddress=127.0.0.1
clientPort=%d
dataDir=%s
%s`, port, data, peers)
	return os.WriteFile(filepath.Join(m.dir, "zoo.cfg"), []byte(cfg), 0o600)
}

// Stop kills the members and removes their data.
func (c *Cluster) Stop() error {
	for _, m := range c.Members {
		m.Kill()
	}
	if c.mesh != nil {
		c.mesh.close()
	}
	if c.release != nil {
		c.release()
	}
	if c.dir == "" {
		return nil
	}
	return os.RemoveAll(c.dir)
}

// Addresses returns the addresses of the members for clients.
func (c *Cluster) Addresses() []string {
	if c.Members == nil {
		return c.addresses
	}
	var as []string
	for _, m := range c.Members {
		as = append(as, m.Address)
	}
	return as
}

// Leader returns the leader, or the only member.
func (c *Cluster) Leader() (*Member, error) {
	if len(c.Members) == 1 {
		return c.Members[0], nil
	}
	for _, m := range c.Members {
		if m.IsLeader() {
			return m, nil
		}
	}
	return nil, errors.New("no leader")
}

// Servers keeps the clusters that the tests of a package share. The zero value is ready for
// use. TestMain calls [Servers.Stop].
type Servers struct {
	mu       sync.Mutex
	clusters map[int]*Cluster
}

// Single returns a cluster of one server: the one at ZKQ_TEST_ZOOKEEPER (host:port,...) if that
// is set, else a process. Without ZooKeeper on this machine the test cannot run.
func (s *Servers) Single(t testing.TB) *Cluster {
	t.Helper()
	if list := os.Getenv("ZKQ_TEST_ZOOKEEPER"); list != "" {
		return &Cluster{addresses: strings.Split(list, ",")}
	}
	return s.get(t, 1)
}

// Ensemble returns a cluster of three processes.
func (s *Servers) Ensemble(t testing.TB) *Cluster {
	t.Helper()
	return s.get(t, 3)
}

func (s *Servers) get(t testing.TB, n int) *Cluster {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clusters[n]; c != nil {
		return c
	}
	c, err := Start(n)
	if errors.Is(err, errNoZooKeeper) {
		testneed.Missing(t, "ZooKeeper", "make deps")
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.clusters == nil {
		s.clusters = make(map[int]*Cluster)
	}
	s.clusters[n] = c
	return c
}

// Stop stops all clusters that were started.
func (s *Servers) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clusters {
		c.Stop()
	}
	clear(s.clusters)
}
