package zkqueue_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testzk"
	"github.com/zkq/zkq/zkqueue"
)

// TestPutBeyondAnEnforcedQuotaNamesIt sets a hard limit of nodes below a queue.
func TestPutBeyondAnEnforcedQuotaNamesIt(t *testing.T) {
	cluster := testzk.StartFor(t, 1, testzk.Options{EnforceQuota: true})
	c := open(t, zkqueue.Config{Servers: cluster.Addresses()})
	q := zkq.NewLockingQueue(c, "q")
	defer q.Close()
	ctx := within(t, patience)
	if _, err := q.Put(ctx, []byte("first")); err != nil {
		t.Fatal(err)
	}
	admin, _, err := zk.Connect(cluster.Addresses(), 30*time.Second, zk.WithLogInfo(false))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	limits := "/zookeeper/quota/q/zookeeper_limits"
	for _, node := range []string{"/zookeeper/quota/q", limits, "/zookeeper/quota/q/zookeeper_stats"} {
		data := ""
		switch node {
		case limits:
			data = "count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=4"
		case "/zookeeper/quota/q/zookeeper_stats":
			data = "count=0,bytes=0=;byteHardLimit=-1;countHardLimit=-1"
		}
		if _, err := admin.Create(node, []byte(data), 0, zk.WorldACL(zk.PermAll)); err != nil {
			t.Fatal(err)
		}
	}
	for err == nil {
		var short context.Context
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		_, err = q.Put(short, []byte("more"))
		cancel()
	}
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, coord.ErrBusy) || errors.Is(err, zkq.ErrUnknown) {
		t.Fatalf("put: %v", err)
	}
	for _, words := range []string{"/q", "quota", "setquota"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q lacks %q", err, words)
		}
	}
	t.Log(err)
	// It is raised, and the same handle puts on.
	if _, err := admin.Set(limits, []byte("count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=1000"), -1); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Put(ctx, []byte("after")); err != nil {
		t.Error(err)
	}
}
