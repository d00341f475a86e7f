package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/bench/load"
	"github.com/zkq/zkq/internal/testzk"
)

// zookeeper starts a server as its administrator's guide has it: every transaction synced, 2 s ticks, its own defaults.
func (b *bench) zookeeper(ctx context.Context, slow bool) (*service, error) {
	s, err := b.start(ctx, slow, system{"zookeeper", func(port int, dir string) (command, error) {
		classpath, err := testzk.Classpath()
		if err != nil {
			return command{}, fmt.Errorf("%w: make deps (%w)", errMissing, err)
		}
		cfg := filepath.Join(dir, "zoo.cfg")
		config := fmt.Sprintf("tickTime=2000\ninitLimit=10\nsyncLimit=5\nmaxClientCnxns=0\nadmin.enableServer=false\n"+
			"4lw.commands.whitelist=*\nclientPortAddress=127.0.0.1\nclientPort=%d\ndataDir=%s\n", port, filepath.Join(dir, "data"))
		return command{from: "default-jre-headless", args: []string{
			"java", "-Xms1g", "-Xmx2g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", classpath,
			"org.apache.zookeeper.server.quorum.QuorumPeerMain", cfg,
		}}, os.WriteFile(cfg, []byte(config), 0o600)
	}, func(_ context.Context, address string) error {
		answer, err := testzk.Ask(address, "srvr")
		if err == nil && !strings.Contains(answer, "Mode:") {
			err = fmt.Errorf("srvr: %.100q", answer)
		}
		return err
	}})
	if err != nil {
		return nil, err
	}
	v := &service{process: s, kind: load.ZooKeeper}
	return v, b.warm(ctx, v)
}

// zkConn is a plain client of ZooKeeper.
func zkConn(address string) (*zk.Conn, error) {
	c, events, err := zk.Connect([]string{address}, 10*time.Second, zk.WithLogger(quiet{}), zk.WithLogInfo(false))
	if err != nil {
		return nil, err
	}
	for timeout := time.After(10 * time.Second); ; {
		select {
		case e := <-events:
			if e.State == zk.StateHasSession {
				return c, nil
			}
		case <-timeout:
			c.Close()
			return nil, fmt.Errorf("no session with ZooKeeper")
		}
	}
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

// zkRequests is how many packets the server has received, this question among them.
func zkRequests(address string) (int, error) {
	counts, err := zkCounts(address, "zk_packets_received")
	return counts[0], err
}

// zkEvents is how many packets the server has sent that answer no request.
func zkEvents(address string) (int, error) {
	counts, err := zkCounts(address, "zk_packets_sent", "zk_packets_received")
	return counts[0] - counts[1], err
}

// zkCounts returns counters of the server.
func zkCounts(address string, names ...string) ([]int, error) {
	counts := make([]int, len(names))
	answer, err := testzk.Ask(address, "mntr")
	if err != nil {
		return counts, err
	}
	for i, name := range names {
		_, rest, found := strings.Cut("\n"+answer, "\n"+name+"\t")
		value, _, _ := strings.Cut(rest, "\n")
		if counts[i], err = strconv.Atoi(strings.TrimSpace(value)); !found || err != nil {
			return counts, fmt.Errorf("mntr does not count packets: %.100q", answer)
		}
	}
	return counts, nil
}
