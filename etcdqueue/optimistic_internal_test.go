package etcdqueue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/boottime"
	"github.com/zkq/zkq/internal/group"
	"github.com/zkq/zkq/internal/testetcd"
)

// openForTest returns a coordinator of its own, for as long as the test runs.
func openForTest(t *testing.T, cluster *testetcd.Cluster) (*Coordinator, coord.Session) {
	t.Helper()
	c, err := Open(t.Context(), Config{Endpoints: cluster.Endpoints(), Prefix: "/guess", SessionTimeout: 30 * time.Second, ConnectTimeout: time.Minute})
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

// countingKV counts the requests.
type countingKV struct {
	pb.KVClient
	reads, commits int
}

func (c *countingKV) Range(ctx context.Context, in *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
	c.reads++
	return c.KVClient.Range(ctx, in, opts...)
}

func (c *countingKV) Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
	c.commits++
	return c.KVClient.Txn(ctx, in, opts...)
}

func TestPutsInARowAreOneRequestEach(t *testing.T) {
	cluster := testetcd.StartFor(t, 1, testetcd.Options{})
	put := func(s coord.Session) string {
		t.Helper()
		r, err := s.Commit(t.Context(), coord.CreateSequential("/q/entries/entry-100-", nil))
		if err != nil {
			t.Fatal(err)
		}
		return r[0].Path
	}
	c, s := openForTest(t, cluster)
	n := &countingKV{KVClient: c.kv}
	c.kv = n
	const puts = 40
	slow := 0 // puts that a busy machine made so late that the revision was no longer recent
	for before := boottime.Now(); n.commits < puts; {
		put(s)
		now := boottime.Now()
		if now-before > maxRevisionAge {
			slow++
		}
		before = now
	}
	if most := puts + puts/4 + slow; n.commits+n.reads > most {
		t.Errorf("%d commits and %d reads for %d puts, of which %d were slow", n.commits, n.reads, puts, slow)
	}
	_, other := openForTest(t, cluster)
	put(other)
	last := put(other)
	*n = countingKV{KVClient: n.KVClient}
	if name := put(s); name <= last || n.commits+n.reads > 3 {
		t.Errorf("%s after %s, with %d commits and %d reads", name, last, n.commits, n.reads)
	}
}

func TestRefusalsMakeOptimisticNamesRare(t *testing.T) {
	var g optimisticNames
	queues := map[string]int64{"/q": 0}
	now := boottime.Now() + time.Hour // never old, however slow the machine is
	g.revisionShown(now)
	if g.allowed(queues) {
		t.Error("a name is optimistic although no revision was read")
	}
	for _, queue := range []string{"/q", "/other"} {
		g.recordRead(queue, &revisionRead{revision: 7, seq: 107}, now)
	}
	if o := g.offset("/q"); o != 100 {
		t.Errorf("offset %d", o)
	}
	commits := []*pendingCommit{{ops: []coord.Op{coord.CreateSequential("/q/entries/e-", nil)}}, {ops: []coord.Op{coord.Create("/other/a", nil)}}}
	miss := func() time.Duration {
		g.beginRequest()
		g.endRequest(commits, []group.Outcome{{Err: errNameTaken}, {Err: errNameTaken}})
		if g.allowed(queues) || !g.allowed(map[string]int64{"/other": 0}) {
			t.Error("a miss is held against one queue, and it is this")
		}
		return g.queues["/q"].pause
	}
	for want := firstPause; want < maxPause; want *= 2 {
		if pause := miss(); pause != want {
			t.Errorf("a pause of %v, want %v", pause, want)
		}
		if pause := miss(); pause != want {
			t.Errorf("what was under way beside it makes a pause of %v, want %v", pause, want)
		}
		g.queues["/q"].pausedUntil = boottime.Now() // it is over
	}
	if pause := miss(); pause != maxPause {
		t.Errorf("a pause of %v", pause)
	}
	g.queues["/q"].pausedUntil = boottime.Now() - maxPause
	if pause := miss(); pause != firstPause {
		t.Errorf("a pause of %v for one that is the first for long", pause)
	}
	g.queues["/q"].pausedUntil = 0
	g.beginRequest()
	g.endRequest(commits, []group.Outcome{{}, {Err: errNameTaken}})
	if !g.allowed(queues) {
		t.Error("a hit is held against the queue")
	}
}

func TestAnOldRevisionMakesNoOptimisticName(t *testing.T) {
	queues := map[string]int64{"/q": 0}
	for what, change := range map[string]func(*optimisticNames, time.Duration){
		"a revision":            func(g *optimisticNames, now time.Duration) { g.shownAt = now - maxRevisionAge - 1 },
		"an offset":             func(g *optimisticNames, now time.Duration) { g.queues["/q"].readAt = now - maxOffsetAge - 1 },
		"a request under way":   func(g *optimisticNames, now time.Duration) { g.requestSince = now - maxRevisionAge - 1 },
		"what was before it":    func(g *optimisticNames, _ time.Duration) { g.reset() },
		"a queue never read of": func(g *optimisticNames, _ time.Duration) { delete(g.queues, "/q") },
	} {
		var g optimisticNames
		now := boottime.Now() + time.Hour // never old, however slow the machine is
		g.recordRead("/q", &revisionRead{revision: 7, seq: 7}, now)
		if !g.allowed(queues) || !g.beginRequest() {
			t.Fatal("a name may be optimistic now")
		}
		g.endRequest(nil, nil)
		change(&g, boottime.Now())
		if g.allowed(queues) {
			t.Errorf("%s allows an optimistic name", what)
		}
		if g.beginRequest() && g.shownAt < now {
			t.Errorf("%s allows an optimistic name when it is sent", what)
		}
	}
}

// hangingKV does not answer the next put until free is closed.
type hangingKV struct {
	pb.KVClient
	next atomic.Bool
	hung chan struct{}
	free chan struct{}
}

func (h *hangingKV) Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
	names := func(c *pb.Compare) bool { return strings.Contains(string(c.Key), "/entries/") }
	if slices.ContainsFunc(in.Compare, names) && h.next.CompareAndSwap(true, false) {
		close(h.hung)
		<-h.free
	}
	return h.KVClient.Txn(ctx, in, opts...)
}

func TestAPutThatHangsHoldsUpNoOther(t *testing.T) {
	cluster := testetcd.StartFor(t, 1, testetcd.Options{})
	c, s := openForTest(t, cluster)
	h := &hangingKV{KVClient: c.kv, hung: make(chan struct{}), free: make(chan struct{})}
	c.kv = h
	put := func() {
		if _, err := s.Commit(t.Context(), coord.CreateSequential("/q/entries/entry-100-", nil)); err != nil {
			t.Error(err)
		}
	}
	put()
	put()
	h.next.Store(true)
	var first sync.WaitGroup
	first.Go(put)
	<-h.hung
	begun := time.Now()
	for range 5 {
		put()
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("five puts took %v beside one that hung", took)
	}
	close(h.free)
	first.Wait()
}

func TestNamesOfACommitSortWhateverIsReadBeside(t *testing.T) {
	c := &Coordinator{producer: "00000000"}
	c.revisions.observe(0, 1000)
	s := &session{c: c}
	queue := "/q"
	var reader sync.WaitGroup
	stop := make(chan struct{})
	c.optimistic.recordRead(queue, &revisionRead{revision: 5, seq: 5}, boottime.Now())
	reader.Go(func() {
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
				c.optimistic.recordRead(queue, &revisionRead{revision: 5, seq: 5 + i%2*1000}, boottime.Now())
				c.revisions.observe(0, 1000+i)
			}
		}
	})
	ops := slices.Repeat([]coord.Op{coord.CreateSequential("/q/entries/entry-100-", nil)}, 10)
	for range 5000 {
		named := s.completeNames(ops)
		if !slices.IsSortedFunc(named, func(a, b coord.Op) int { return cmp.Compare(a.Path, b.Path) }) {
			t.Errorf("%v", named)
			break
		}
	}
	close(stop)
	reader.Wait()
}

func TestQueuesThatAreKnownAreBounded(t *testing.T) {
	var g optimisticNames
	now := boottime.Now()
	for i := range maxQueues + 10 {
		g.recordRead(fmt.Sprint("/", i), &revisionRead{}, now)
	}
	if len(g.queues) != maxQueues {
		t.Errorf("%d queues", len(g.queues))
	}
	if g.recordRead("/new", &revisionRead{}, now+2*maxOffsetAge+1); len(g.queues) != 1 {
		t.Errorf("%d queues when all others are old", len(g.queues))
	}
}

func TestARestoredServiceIsBelieved(t *testing.T) {
	var s revisionTracker
	header := func(rev int64, cluster uint64) *pb.ResponseHeader {
		return &pb.ResponseHeader{Revision: rev, ClusterId: cluster}
	}
	s.observeAnswer(s.current(), header(100, 1))
	s.observe(0, 90) // a member that is behind
	begun := s.current()
	s.observe(0, 105) // what came while a request was under way
	if s.observeAnswer(begun, header(102, 1)) || s.current().rev != 105 {
		t.Errorf("%+v after an answer that was overtaken", s.current())
	}
	before := s.current()
	if !s.observeAnswer(before, header(7, 1)) || s.current().rev != 7 {
		t.Errorf("%+v of a service that went back to 7", s.current())
	}
	if s.observeAnswer(before, header(6, 1)) || s.current().rev != 7 {
		t.Error("the restore is told twice")
	}
	if s.observe(before.epoch, 105); s.current().rev != 7 {
		t.Error("what was shown before the restore counts after it")
	}
	if !s.observeAnswer(s.current(), header(200, 2)) {
		t.Error("another cluster is taken for the one before")
	}
}

// slowKV delays every request that is not a batch.
type slowKV struct{ pb.KVClient }

func (k slowKV) Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
	if len(in.Success) > 0 && in.Success[0].GetRequestTxn() == nil {
		time.Sleep(30 * time.Millisecond)
	}
	return k.KVClient.Txn(ctx, in, opts...)
}

// A batch that the service refuses is sent commit by commit. A caller that leaves before
// that is told that nothing was sent, so its commit must not be sent.
func TestACommitWhoseCallerLeftARefusedBatchIsNotSent(t *testing.T) {
	cluster := testetcd.StartFor(t, 1, testetcd.Options{MaxTxnOps: 8})
	c, s := openForTest(t, cluster)
	c.kv = slowKV{c.kv}
	var all sync.WaitGroup
	var unsent [40]bool
	for i := range unsent {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
			defer cancel()
			_, err := s.Commit(ctx, coord.Create(fmt.Sprint("/own/", i), nil))
			unsent[i] = err != nil && !errors.Is(err, coord.ErrUnknown)
		})
	}
	all.Wait()
	if err := c.Close(); err != nil { // and so nothing is under way
		t.Fatal(err)
	}
	_, s = openForTest(t, cluster)
	for i, unsent := range unsent {
		if _, err := s.Get(t.Context(), fmt.Sprint("/own/", i)); unsent && !errors.Is(err, coord.ErrNotExist) {
			t.Errorf("/own/%d was not sent, as its caller was told, and is there (%v)", i, err)
		}
	}
}
