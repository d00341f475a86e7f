package testetcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Options configure the servers. The zero value does.
type Options struct {
	Quota         int64  // bytes; 0: etcd's default
	MaxTxnOps     uint   // 0: etcd's default
	Cert, Key, CA string // files: TLS for clients, which need a certificate if CA is set

	Peers     bool   // a link before each member, for Cluster.CutOff
	SnapCount uint64 // commits between two snapshots, and kept after one; 0: etcd's default
}

// Cluster is a cluster of processes.
type Cluster struct {
	Members []*Member
	dir     string
}

// The heartbeats of the servers. Short ones elect and expire quickly; three servers on a busy
// machine need longer ones.
const (
	singleTick  = 10 * time.Millisecond
	clusterTick = 50 * time.Millisecond
)

// patience is how long members may need to serve, on a machine that does other work.
const patience = 2 * time.Minute

// Start starts a cluster of n members. It returns when all serve.
func Start(n int, o Options) (*Cluster, error) {
	if os.Getenv(memberVariable) != "" {
		// Each process started for a member would otherwise start a cluster of its own.
		return nil, errors.New("testetcd: TestMain does not call testetcd.Main")
	}
	dir, err := os.MkdirTemp("", "zkq-etcd-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir}
	for i := range n {
		m := &Member{Name: fmt.Sprintf("m%d", i), Tick: clusterTick, Options: o}
		if n == 1 {
			m.Tick = singleTick
		}
		c.Members = append(c.Members, m)
	}
	for range 5 { // where ports cannot be reserved, another process may take one before its member does
		if err = c.create(); err == nil {
			return c, nil
		}
		c.kill()
	}
	c.Stop()
	return nil, err
}

// StartFor is [Start] for a test. The cluster is stopped when the test ends.
func StartFor(t testing.TB, n int, o Options) *Cluster {
	t.Helper()
	c, err := Start(n, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// create starts the cluster with new addresses and no data.
func (c *Cluster) create() error {
	var peers []string
	for _, m := range c.Members {
		if err := m.choosePlace(c.dir); err != nil {
			return err
		}
		if m.Peers {
			if err := m.addPeerProxy(); err != nil {
				return err
			}
		}
		peers = append(peers, m.Name+"="+m.Advertised)
	}
	for _, m := range c.Members {
		m.Cluster = strings.Join(peers, ",")
	}
	return c.Restart()
}

// Restart starts the members that do not run, with their data.
func (c *Cluster) Restart() error {
	var waits []chan error
	for _, m := range c.Members {
		if m.process != nil {
			continue
		}
		ready, err := m.launch()
		if err != nil {
			return err
		}
		m.Existing = true
		waits = append(waits, ready)
	}
	timeout := time.After(patience)
	for _, ready := range waits {
		select {
		case err := <-ready:
			if err != nil {
				return err
			}
		case <-timeout:
			return fmt.Errorf("etcd does not serve after %v", patience)
		}
	}
	return nil
}

// Endpoints returns the addresses of the members for clients.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.Members {
		all = append(all, strings.TrimPrefix(strings.TrimPrefix(m.Client, "http://"), "https://"))
	}
	return all
}

// Client returns an etcd client of the cluster. It is closed when the test ends.
func (c *Cluster) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// Leader returns the member that reports itself as the leader, or nil.
func (c *Cluster) Leader(ctx context.Context, client *clientv3.Client) *Member {
	for _, m := range c.Members {
		if leads, _ := m.status(ctx, client); leads {
			return m
		}
	}
	return nil
}

// Serves reports whether every member knows a leader.
func (c *Cluster) Serves(ctx context.Context, client *clientv3.Client) bool {
	for _, m := range c.Members {
		if _, serves := m.status(ctx, client); !serves {
			return false
		}
	}
	return true
}

func (m *Member) status(ctx context.Context, client *clientv3.Client) (leads, serves bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	status, err := client.Status(ctx, m.Client)
	if err != nil || len(status.Errors) > 0 {
		return false, false
	}
	return status.Leader == status.Header.MemberId, status.Leader != 0
}

func (c *Cluster) kill() {
	for _, m := range c.Members {
		m.Kill()
		if m.peers != nil {
			m.peers.Close()
			m.peers = nil
		}
		if m.release != nil {
			m.release()
			m.release = nil
		}
	}
}

// Stop kills the members and removes their data.
func (c *Cluster) Stop() {
	c.kill()
	os.RemoveAll(c.dir)
}
