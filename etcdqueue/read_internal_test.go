package etcdqueue

import (
	"context"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testetcd"
)

// readRecorder records for each read of several nodes whether it was serializable.
type readRecorder struct {
	pb.KVClient
	serializable []bool
	behind       bool // the member that is asked is
}

func (a *readRecorder) Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
	if r := in.Success[0].GetRequestRange(); r != nil && len(in.Compare) == 0 {
		a.serializable = append(a.serializable, r.Serializable)
		answer, err := a.KVClient.Txn(ctx, in, opts...)
		if err == nil && r.Serializable && a.behind {
			answer.Header.Revision--
		}
		return answer, err
	}
	return a.KVClient.Txn(ctx, in, opts...)
}

func TestAReadIsSerializableUnlessTheMemberIsBehind(t *testing.T) {
	cluster := testetcd.StartFor(t, 1, testetcd.Options{})
	c, err := Open(t.Context(), Config{Endpoints: cluster.Endpoints(), Prefix: "/behind"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Commit(t.Context(), coord.Create("/q/a", []byte("v")))
	if err != nil {
		t.Fatal(err)
	}
	if shown := c.revisions.current().rev; shown < r[0].Revision {
		t.Errorf("a commit made revision %d, and %d was shown", r[0].Revision, shown)
	}
	a := &readRecorder{KVClient: c.kv}
	c.kv = a
	read := func(want ...bool) {
		t.Helper()
		a.serializable = nil
		nodes, err := s.Read(t.Context(), "/q/a", "/q/none")
		if err != nil || string(nodes[0].Value) != "v" || nodes[1].Path != "" {
			t.Fatalf("read %+v, %v", nodes, err)
		}
		if !slices.Equal(a.serializable, want) {
			t.Errorf("the requests were for the member alone: %v, want %v", a.serializable, want)
		}
	}
	read(true)
	a.behind = true
	read(true, false)
}
