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

// Options are what servers may be started with.
type Options struct {
	Quota         int64  // bytes; 0: etcd's own
	MaxTxnOps     uint   // 0: etcd's own
	Cert, Key, CA string // files: TLS for clients, who must show a certificate if CA is set

	Peers     bool   // a link before each member, so that it can be cut off from the others
	SnapCount uint64 // commits between two snapshots, and kept after one; 0: etcd's own
}

// Cluster is a cluster of processes.
type Cluster struct {
	Members []*Member
	dir     string
}

// ticks are the servers' heartbeats: short ones elect and expire quickly, but
// three servers on a busy machine need some air.
const (
	aloneTick   = 10 * time.Millisecond
	clusterTick = 50 * time.Millisecond
)

// Start starts a cluster of n members, which serves when Start returns.
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
			m.Tick = aloneTick
		}
		c.Members = append(c.Members, m)
	}
	for range 5 { // another process may take a port before its member does
		if err = c.found(); err == nil {
			return c, nil
		}
		c.kill()
	}
	c.Stop()
	return nil, err
}

// StartFor is Start for a test, which stops the cluster.
func StartFor(t testing.TB, n int, o Options) *Cluster {
	t.Helper()
	c, err := Start(n, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// found starts the cluster with new addresses and no data.
func (c *Cluster) found() error {
	var peers []string
	for _, m := range c.Members {
		if err := m.place(c.dir); err != nil {
			return err
		}
		if m.Peers {
			if err := m.link(); err != nil {
				return err
			}
		}
		peers = append(peers, m.Name+"="+m.Seen)
	}
	for _, m := range c.Members {
		m.Cluster = strings.Join(peers, ",")
	}
	return c.Restart()
}

// Restart starts the members that do not run, with the data that they had.
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
	timeout := time.After(30 * time.Second)
	for _, ready := range waits {
		select {
		case err := <-ready:
			if err != nil {
				return err
			}
		case <-timeout:
			return fmt.Errorf("etcd does not serve after 30 s")
		}
	}
	return nil
}

// Endpoints are the clients' addresses of the members.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.Members {
		all = append(all, strings.TrimPrefix(strings.TrimPrefix(m.Client, "http://"), "https://"))
	}
	return all
}

// Client is a plain client of the cluster, until the test ends.
func (c *Cluster) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// Leader is the member that says it leads, or nil.
func (c *Cluster) Leader(ctx context.Context, client *clientv3.Client) *Member {
	for _, m := range c.Members {
		if leads, _ := m.status(ctx, client); leads {
			return m
		}
	}
	return nil
}

// Serves says whether every member knows a leader.
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
	}
}

// Stop ends the cluster and removes what it kept.
func (c *Cluster) Stop() {
	c.kill()
	os.RemoveAll(c.dir)
}
