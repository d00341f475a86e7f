package etcdqueue_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
)

// TestOpenWaitsForSpace opens a coordinator while etcd has no space, and frees it meanwhile.
func TestOpenWaitsForSpace(t *testing.T) {
	endpoints := testetcd.StartFor(t, 1, testetcd.Options{}).Endpoints()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := within(t, time.Minute)
	status, err := c.Status(ctx, endpoints[0])
	if err != nil {
		t.Fatal(err)
	}
	member := status.Header.MemberId
	alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: member, Alarm: pb.AlarmType_NOSPACE}
	if _, err := pb.NewMaintenanceClient(c.ActiveConnection()).Alarm(ctx, alarm); err != nil {
		t.Fatal(err)
	}
	_, err = etcdqueue.Open(ctx, etcdqueue.Config{Endpoints: endpoints, ConnectTimeout: time.Second})
	if !errors.Is(err, coord.ErrBusy) || !strings.Contains(err.Error(), "space") {
		t.Errorf("without space: %v", err)
	}
	told := &heard{}
	go func() {
		for !told.has("no new session", "space") && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		c.AlarmDisarm(context.Background(), &clientv3.AlarmMember{MemberID: member, Alarm: pb.AlarmType_NOSPACE})
	}()
	opened, err := etcdqueue.Open(ctx, etcdqueue.Config{Endpoints: endpoints, ConnectTimeout: 45 * time.Second, Warn: func(m string) { told.Warn(m) }})
	if err != nil {
		t.Fatalf("space was freed: %v", err)
	}
	opened.Close()
	told.await(t, "there is a session", "again")
}
