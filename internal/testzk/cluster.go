package testzk

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq/internal/testneed"
)

// Options are what a cluster may be started with.
type Options struct {
	// Peers puts a link between each two members, so that they can be cut off from each other.
	Peers bool
	// SnapCount is how many transactions there are between two snapshots, about; 0: ZooKeeper's own.
	SnapCount int
	// EnforceQuota has the members refuse what exceeds a hard limit of setquota.
	EnforceQuota bool
	// MaxBuffer is jute.maxbuffer, the largest request in bytes; 0: ZooKeeper's own.
	MaxBuffer int
}

// Cluster is a ZooKeeper of one or more members.
type Cluster struct {
	Members []*Member

	mesh *mesh    // nil without Peers
	read struct { // by Log
		to    int64
		nodes nodes
	}
	dir       string
	addresses []string // of servers that are not ours
}

// Start runs a cluster of n members until Stop.
func Start(n int) (*Cluster, error) { return StartWith(n, Options{}) }

// StartWith is Start with options.
func StartWith(n int, o Options) (*Cluster, error) {
	classpath, err := Classpath()
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		c, err := start(n, o, classpath)
		// Somebody may have taken a port between our look and the server's.
		if err == nil || try == 2 {
			return c, err
		}
	}
}

// StartFor is StartWith for a test, which stops the cluster.
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
	ports, err := freePorts(3 * n)
	if err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	quorum := func(i int) []string { // the addresses that its peers know: for the leader's followers, and for elections
		return []string{fmt.Sprintf("127.0.0.1:%d", ports[3*i+1]), fmt.Sprintf("127.0.0.1:%d", ports[3*i+2])}
	}
	seen := func(_, of int) []string { return quorum(of) }
	if o.Peers {
		if c.mesh, err = newMesh(n, quorum); err != nil {
			return nil, errors.Join(err, c.Stop())
		}
		seen = c.mesh.seen
	}
	for i := range n {
		m := &Member{
			Address:   fmt.Sprintf("127.0.0.1:%d", ports[3*i]),
			number:    i,
			snapCount: o.SnapCount,
			quota:     o.EnforceQuota,
			maxBuffer: o.MaxBuffer,
			dir:       filepath.Join(dir, fmt.Sprint(i+1)),
			classpath: classpath,
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

// Start runs the members that do not run and returns when all serve.
func (c *Cluster) Start() error {
	for _, m := range c.Members {
		if !m.runs() {
			if err := m.start(); err != nil {
				return err
			}
		}
	}
	for _, m := range c.Members {
		if err := m.wait(60 * time.Second); err != nil {
			return err
		}
	}
	return nil
}

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

// Stop ends the members and removes what they wrote.
func (c *Cluster) Stop() error {
	for _, m := range c.Members {
		m.Kill()
	}
	if c.mesh != nil {
		c.mesh.close()
	}
	if c.dir == "" {
		return nil
	}
	return os.RemoveAll(c.dir)
}

// Addresses are the members', for clients.
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

// Leader is the member that leads, or the only one.
func (c *Cluster) Leader() (*Member, error) {
	if len(c.Members) == 1 {
		return c.Members[0], nil
	}
	for _, m := range c.Members {
		if m.Leads() {
			return m, nil
		}
	}
	return nil, errors.New("no leader")
}

// freePorts are n ports where nobody listened a moment ago.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// Servers keeps clusters that the tests of a package share. Its zero value is ready;
// TestMain calls Stop.
type Servers struct {
	mu   sync.Mutex
	kept map[int]*Cluster
}

// Single is a ZooKeeper of one server: the one at ZKQ_TEST_ZOOKEEPER (host:port,...)
// if that is set, else a process. Where neither is to be had, the test cannot run.
func (s *Servers) Single(t testing.TB) *Cluster {
	t.Helper()
	if list := os.Getenv("ZKQ_TEST_ZOOKEEPER"); list != "" {
		return &Cluster{addresses: strings.Split(list, ",")}
	}
	return s.get(t, 1)
}

// Ensemble is a ZooKeeper of three processes.
func (s *Servers) Ensemble(t testing.TB) *Cluster {
	t.Helper()
	return s.get(t, 3)
}

func (s *Servers) get(t testing.TB, n int) *Cluster {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.kept[n]; c != nil {
		return c
	}
	c, err := Start(n)
	if errors.Is(err, errNoZooKeeper) {
		testneed.Missing(t, "ZooKeeper", "make deps")
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.kept == nil {
		s.kept = make(map[int]*Cluster)
	}
	s.kept[n] = c
	return c
}

// Stop ends all that were started.
func (s *Servers) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.kept {
		c.Stop()
	}
	clear(s.kept)
}
