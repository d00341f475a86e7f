package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/zkq/zkq/bench/load"
)

// etcd starts a server with etcd's defaults. Its process is this program, which links the server of the version that our
// client has.
func (b *bench) etcd(ctx context.Context, slow bool) (*service, error) {
	s, err := b.start(ctx, slow, system{"etcd", func(port int, dir string) (command, error) {
		peer, err := freePort()
		return command{role: "etcd", args: []string{dir, strconv.Itoa(port), strconv.Itoa(peer)}}, err
	}, func(ctx context.Context, address string) error {
		_, err := etcdRequests(ctx, address)
		if err != nil {
			return err
		}
		c, err := etcdClient(address)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Get(ctx, "/")
		return err
	}})
	if err != nil {
		return nil, err
	}
	v := &service{process: s, kind: load.Etcd}
	return v, b.warm(ctx, v)
}

// etcdRole is etcd's process.
func etcdRole(args []string) error {
	cfg := embed.NewConfig()
	cfg.Dir = args[0] + "/data"
	cfg.LogLevel, cfg.LogOutputs = "error", []string{"stderr"}
	at := func(port string) []url.URL { return []url.URL{{Scheme: "http", Host: "127.0.0.1:" + port}} }
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = at(args[1]), at(args[1])
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = at(args[2]), at(args[2])
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	return <-e.Err()
}

func etcdClient(address string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{address}, Logger: zap.NewNop()})
}

// etcdRequests is how many messages the server has received but heartbeats: those that keep leases alive, and the ones by
// which the driver sees, where nothing else is said, that the member is there.
func etcdRequests(ctx context.Context, address string) (int, error) {
	return etcdMessages(ctx, address, "grpc_server_msg_received_total", func(method string) bool {
		return !strings.Contains(method, `"LeaseKeepAlive"`) && !strings.Contains(method, `"Status"`)
	})
}

// etcdEvents is how many messages of watches the server has sent. The few that say that a watch has begun or ended are
// among them.
func etcdEvents(ctx context.Context, address string) (int, error) {
	return etcdMessages(ctx, address, "grpc_server_msg_sent_total", func(method string) bool { return strings.Contains(method, `"Watch"`) })
}

// etcdMessages adds up a counter of the server over the methods that match.
func etcdMessages(ctx context.Context, address, counter string, matches func(method string) bool) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	total, found := 0, false
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, counter+"{") {
			continue
		}
		found = true
		if !matches(line) {
			continue
		}
		n, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, err
		}
		total += int(n)
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	io.Copy(io.Discard, answer.Body)
	if !found {
		return 0, fmt.Errorf("etcd does not count messages")
	}
	return total, nil
}

// role is this process's work if it is a server, and does not return then.
func role() {
	var err error
	switch os.Getenv(roleVariable) {
	case "":
		return
	case "etcd":
		err = etcdRole(os.Args[1:])
	case "nats":
		err = natsRole(os.Args[1:])
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
