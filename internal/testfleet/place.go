package testfleet

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/etcdqueue/embedded"
	"github.com/zkq/zkq/zkqueue"
)

// Place is a part of a coordination service that no other test uses.
type Place struct {
	Service   string   // one of the constants below
	Addresses []string // of the embedded store: its directory
	Root      string
	Session   time.Duration // the timeout that clients ask for
}

// The services of a Place.
const (
	ZooKeeper = "zookeeper"
	Etcd      = "etcd"
	Embedded  = "embedded"
)

var roots atomic.Int64

// NewRoot returns a root that no other test has used, in this run or an earlier one.
func NewRoot() string {
	return fmt.Sprintf("/fleet/%d-%d-%d", time.Now().UnixMilli(), os.Getpid(), roots.Add(1))
}

// Open returns a client of the service at p.
func Open(ctx context.Context, p Place) (coord.Coordinator, error) {
	const patience = 20 * time.Second
	switch p.Service {
	case ZooKeeper:
		return zkqueue.Open(ctx, zkqueue.Config{Servers: p.Addresses, Chroot: p.Root, SessionTimeout: p.Session, ConnectTimeout: patience})
	case Etcd:
		return etcdqueue.Open(ctx, etcdqueue.Config{Endpoints: p.Addresses, Prefix: p.Root, SessionTimeout: p.Session, ConnectTimeout: patience})
	case Embedded:
		return embedded.Open(ctx, embedded.Config{Dir: p.Addresses[0], SessionTimeout: p.Session, ConnectTimeout: patience})
	}
	return nil, fmt.Errorf("no service %q", p.Service)
}
