package etcdqueue

import (
	"context"
	"errors"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
	"github.com/zkq/zkq/internal/testetcd"
)

// told counts requests.
type told struct {
	pb.KVClient
	reads, commits int
}

func (c *told) Range(ctx context.Context, in *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
	c.reads++
	return c.KVClient.Range(ctx, in, opts...)
}

func (c *told) Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
	c.commits++
	return c.KVClient.Txn(ctx, in, opts...)
}

func TestPutsInARowAreOneRequestEach(t *testing.T) {
	cluster := testetcd.StartFor(t, 1, testetcd.Options{})
	open := func() (*Coordinator, coord.Session) {
		c, err := Open(t.Context(), Config{Endpoints: cluster.Endpoints(), Prefix: "/guess"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		s, err := c.Session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c, s
	}
	put := func(s coord.Session) string {
		t.Helper()
		r, err := s.Commit(t.Context(), coord.CreateSequential("/q/entries/entry-100-", nil))
		if err != nil {
			t.Fatal(err)
		}
		return r[0].Path
	}
	c, s := open()
	n := &told{KVClient: c.kv}
	c.kv = n
	const puts = 40
	for range puts {
		put(s)
	}
	// Now and then the machine has something else to do for longer than a guess is good.
	if n.commits < puts || n.commits+n.reads > puts+puts/4 {
		t.Errorf("%d commits and %d reads for %d puts", n.commits, n.reads, puts)
	}
	_, other := open()
	put(other)
	last := put(other)
	*n = told{KVClient: n.KVClient}
	if name := put(s); name <= last || n.commits+n.reads > 3 {
		t.Errorf("%s after %s, with %d commits and %d reads", name, last, n.commits, n.reads)
	}
}

func TestMissesMakeGuessesRare(t *testing.T) {
	var g guesses
	queues := map[string]int64{"/q": 0}
	if g.may(queues) {
		t.Error("it guesses what it never read")
	}
	g.read("/q", &round{revision: 7, seq: 107})
	if o := g.offset("/q"); o != 100 {
		t.Errorf("offset %d", o)
	}
	guess := []*commit{{ops: []coord.Op{coord.CreateSequential("/q/entries/e-", nil)}}, {ops: []coord.Op{coord.Create("/q/a", nil)}}}
	reads := func() (n int) {
		for !g.may(queues) {
			n++
		}
		return n
	}
	for _, want := range []int{1, 3, 7, 15, 31, 63, 63} {
		g.judge(guess, []group.Outcome{{Err: errTaken}, {}})
		if n := reads(); n != want {
			t.Errorf("%d reads after a miss, want %d", n, want)
		}
	}
	for range 6 {
		g.judge(guess, []group.Outcome{{}, {Err: errors.New("other")}})
		g.judge(guess[1:], []group.Outcome{{Err: errTaken}}) // for a guard of its own
	}
	g.judge(guess, []group.Outcome{{Err: errTaken}, {}})
	if n := reads(); n != 1 {
		t.Errorf("%d reads after a miss among many hits", n)
	}
}

func TestARestoredServiceIsBelieved(t *testing.T) {
	var s shown
	s.saw(100)
	s.saw(90) // a member that is behind
	s.restart(101, 100)
	if rev := s.rev.Load(); rev != 100 {
		t.Errorf("revision %d", rev)
	}
	s.saw(105)
	s.restart(102, 100) // what came meanwhile
	if rev := s.rev.Load(); rev != 105 {
		t.Errorf("revision %d", rev)
	}
	if s.restart(7, 105); s.rev.Load() != 7 {
		t.Errorf("revision %d of a service that went back to 7", s.rev.Load())
	}
}
