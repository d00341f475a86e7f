package etcdqueue

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// oldServer is an etcd that only reports its version.
type oldServer struct {
	pb.UnimplementedMaintenanceServer
	version string
}

func (s *oldServer) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{Version: s.version, Leader: 1}, nil
}

func TestOldServersAreWarnedOfOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fake := &oldServer{version: "3.5.9"}
	server := grpc.NewServer()
	pb.RegisterMaintenanceServer(server, fake)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		server.Stop()
		<-served
	}()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{l.Addr().String()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var warned []string
	c := &Coordinator{client: client, warned: make(map[string]bool), cfg: Config{Warn: func(s string) { warned = append(warned, s) }}}
	for _, version := range []string{"3.5.9", "3.5.9", "3.7.3", "3.6.8", "3.5.9"} {
		fake.version = version
		c.checkMember(t.Context())
	}
	if len(warned) != 2 || !strings.Contains(warned[0], "3.5.9") || !strings.Contains(warned[1], "3.6.8") ||
		slices.ContainsFunc(warned, func(s string) bool { return !strings.Contains(s, "20418") }) {
		t.Errorf("%q", warned)
	}
}

func TestOutdatedServersAreNamed(t *testing.T) {
	for version, old := range map[string]bool{
		"3.4.23": true, "3.5.30": true, "3.6.0": true, "3.6.8": true, "3.6.9": false, "3.6.16": false,
		"3.7.0": false, "3.7.3": false, "3.8.0-alpha.0": false, "4.0.0": false, "2.3.8": true, "3.7.0-rc.1": false, "": false, "next": false,
	} {
		if why := versionWarning(version); (why != "") != old {
			t.Errorf("%s: %q", version, why)
		}
	}
}
