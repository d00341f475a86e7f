package etcdqueue

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/zkq/zkq/coord"
)

// describeTimeout is how long Describe waits for one member.
const describeTimeout = 2 * time.Second

// Describe implements [coord.Describer]. It asks each member for its status over a
// connection of its own, and blocks for a few seconds at most. A member that does not
// answer is listed with an error.
func (c *Coordinator) Describe(ctx context.Context) (coord.Service, error) {
	if err := checkContext(ctx); err != nil {
		return coord.Service{}, err
	}
	ctx, cancel := joinContexts(ctx, c.ctx)
	defer cancel()
	parts := make([][]coord.Server, len(c.dialer.endpoints))
	var asked sync.WaitGroup
	for i, e := range c.dialer.endpoints {
		asked.Go(func() { parts[i] = c.describeEndpoint(ctx, i, e) })
	}
	asked.Wait()
	if ctx.Err() != nil {
		return coord.Service{}, context.Cause(ctx)
	}
	return coord.Service{Name: "etcd", Servers: slices.Concat(parts...)}, nil
}

// describeEndpoint asks each server that endpoint i stands for.
func (c *Coordinator) describeEndpoint(ctx context.Context, i int, e endpoint) []coord.Server {
	lookup, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	servers, err := e.resolveServers(lookup, c.cfg.names, c.cfg.Dial)
	if err != nil {
		return []coord.Server{{Address: e.name, Err: err}}
	}
	slices.Sort(servers)
	described := make([]coord.Server, len(servers))
	var asked sync.WaitGroup
	for k, at := range servers {
		asked.Go(func() {
			described[k] = c.describeServer(ctx, e, at)
			described[k].Address = e.label(at, len(servers))
			now := c.dialer.liveConn()
			described[k].InUse = now != nil && now.endpoint == i && now.server == at
		})
	}
	asked.Wait()
	return described
}

// describeServer asks one server for its status.
func (c *Coordinator) describeServer(ctx context.Context, e endpoint, at string) coord.Server {
	var server coord.Server
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	var mu sync.Mutex
	var dialed error // the cause, which gRPC hides
	status, err := c.status(ctx, e, func(ctx context.Context, _ string) (net.Conn, error) {
		nc, err := e.dial(ctx, at, c.cfg.Dial)
		mu.Lock()
		defer mu.Unlock()
		dialed = err
		return nc, err
	})
	mu.Lock()
	defer mu.Unlock()
	switch {
	case err == nil:
		server.Version, server.Mode = status.Version, memberMode(status)
		if len(status.Errors) > 0 {
			server.Err = errors.New(strings.Join(status.Errors, "; "))
		}
	case dialed != nil:
		server.Err = dialed
	case ctx.Err() != nil:
		server.Err = errNoAnswer
	default:
		server.Err = err
	}
	return server
}

// status asks for the status with a client of its own.
func (c *Coordinator) status(ctx context.Context, e endpoint, dial dialFunc) (*pb.StatusResponse, error) {
	client, err := clientv3.New(clientv3.Config{
		Context:   ctx,
		Endpoints: []string{"http://zkq"},
		Username:  c.cfg.Username,
		Password:  c.cfg.Password,
		Logger:    zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(dial),
			grpc.WithAuthority(e.authority()),
		},
	})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return pb.NewMaintenanceClient(client.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
}

// memberMode returns the role of a member in the cluster.
func memberMode(s *pb.StatusResponse) string {
	switch {
	case s.IsLearner:
		return "learner"
	case s.Leader == 0:
		return "without a leader"
	case s.Header != nil && s.Leader == s.Header.MemberId:
		return "leader"
	}
	return "follower"
}
