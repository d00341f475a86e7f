package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/go-zookeeper/zk"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zkq/zkq/bench/load"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/workload"
)

// ceiling is what takes and finishes would cost if they were nothing but their commits: loops that know beforehand which
// entries to claim, and what they will be, send just what a worker of ours sends, several entries in a commit as ours
// travel, while one session watches. What a queue has to do besides comes on top.
type ceiling struct {
	client  *load.Client // fills, lists and watches
	backlog int
	loops   int
	at      int // entries in a commit
	send    sendCommits
}

// sendCommits finishes entries and claims others, in one commit.
type sendCommits func(ctx context.Context, finish, claim []coord.Node) error

// The ceiling's queue.
const (
	ceilingQueue   = "/ceiling"
	ceilingEntries = ceilingQueue + "/entries"
	ceilingTaken   = ceilingQueue + "/taken"
)

// ceiling is that of so many workers at a backlog. 16 of ours travel some four to a commit.
func (b *bench) ceiling(ctx context.Context, v *service, workers, backlog int) (most *contender, end func(), err error) {
	k := &ceiling{backlog: backlog, loops: 1, at: 1}
	if workers > 1 {
		k.loops, k.at = 4, workers/4
	}
	root := v.root()
	var hangUp func()
	if k.client, err = load.Open(ctx, v.kind, v.address, root); err != nil {
		return nil, nil, err
	}
	if v.kind == load.Etcd {
		k.send, hangUp, err = etcdCommits(ctx, v.address, root)
	} else {
		k.send, hangUp, err = zkCommits(v.address, root)
	}
	if err != nil {
		k.client.Close()
		return nil, nil, err
	}
	most = &contender{name: "bare commits", run: func(ctx context.Context) (load.Done, error) {
		return b.again(func() (load.Done, error) { return k.drain(ctx) })
	}}
	return most, func() { hangUp(); k.client.Close() }, nil
}

// drain fills the queue up to its backlog and works it off to half of it. Only the latter is measured.
func (k *ceiling) drain(ctx context.Context) (load.Done, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := refill(ctx, k.client, ceilingQueue, k.backlog); err != nil {
		return load.Done{}, err
	}
	s, err := k.client.Session(ctx)
	if err != nil {
		return load.Done{}, err
	}
	if _, err := s.Watch(ctx, ceilingEntries, ceilingTaken); err != nil {
		return load.Done{}, err
	}
	l, err := s.List(ctx, ceilingEntries, coord.ListOptions{Limit: k.backlog / 2, Values: true})
	if err != nil {
		return load.Done{}, err
	}
	part := len(l.Nodes) / (k.loops * k.at) * k.at
	if part == 0 {
		return load.Done{}, fmt.Errorf("%d entries for %d loops", len(l.Nodes), k.loops)
	}
	begun := time.Now()
	err = workload.InParallel(k.loops, func(i int) error {
		mine := l.Nodes[i*part : (i+1)*part]
		var held []coord.Node
		for len(mine) > 0 {
			if err := k.send(ctx, held, mine[:k.at]); err != nil {
				return err
			}
			held, mine = mine[:k.at], mine[k.at:]
		}
		return k.send(ctx, held, nil)
	})
	return load.Done{N: k.loops * part, Took: time.Since(begun)}, err
}

// lockValue is as long as the value of a lock of zkq, which names its holder.
var lockValue = []byte("0123456789abcdef0123456789abcdef")

// lockOf is the lock of an entry.
func lockOf(root string, n coord.Node) string { return path.Join(root+ceilingTaken, path.Base(n.Path)) }

// zkCommits sends the commits to ZooKeeper.
func zkCommits(address, root string) (send sendCommits, end func(), err error) {
	conn, err := zkConn(address)
	if err != nil {
		return nil, nil, err
	}
	acl := zk.WorldACL(zk.PermAll)
	for _, dir := range []string{root, root + ceilingQueue, root + ceilingTaken} {
		if _, err := conn.Create(dir, nil, 0, acl); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			conn.Close()
			return nil, nil, err
		}
	}
	return func(_ context.Context, finish, claim []coord.Node) error {
		var ops []any
		for _, n := range finish { // what the claim left: all were changed once
			ops = append(ops, &zk.DeleteRequest{Path: root + n.Path, Version: 1},
				&zk.DeleteRequest{Path: lockOf(root, n), Version: 1})
		}
		for _, n := range claim {
			lock := lockOf(root, n)
			ops = append(ops, &zk.SetDataRequest{Path: root + n.Path, Data: n.Value, Version: 0},
				&zk.CreateRequest{Path: lock, Data: lockValue, Acl: acl, Flags: zk.FlagEphemeral},
				&zk.SetDataRequest{Path: lock, Data: lockValue, Version: 0})
		}
		_, err := conn.Multi(ops...)
		return err
	}, conn.Close, nil
}

// etcdCommits sends the commits to etcd: one for each entry, together in one transaction.
func etcdCommits(ctx context.Context, address, root string) (send sendCommits, end func(), err error) {
	e, err := etcdClient(address)
	if err != nil {
		return nil, nil, err
	}
	lease, err := e.Grant(ctx, 600)
	if err != nil {
		e.Close()
		return nil, nil, err
	}
	return func(ctx context.Context, finish, claim []coord.Node) error {
		var all []clientv3.Op
		for i := range max(len(finish), len(claim)) {
			var ifs []clientv3.Cmp
			var then []clientv3.Op
			if i < len(finish) {
				entry, lock := root+finish[i].Path, lockOf(root, finish[i])
				ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(entry), ">", int64(finish[i].Fence)),
					clientv3.Compare(clientv3.LeaseValue(lock), "=", lease.ID))
				then = append(then, clientv3.OpDelete(entry), clientv3.OpDelete(lock))
			}
			if i < len(claim) {
				entry, lock := root+claim[i].Path, lockOf(root, claim[i])
				ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(entry), "=", int64(claim[i].Fence)),
					clientv3.Compare(clientv3.CreateRevision(lock), "=", 0))
				then = append(then, clientv3.OpPut(entry, "", clientv3.WithIgnoreValue(), clientv3.WithIgnoreLease()),
					clientv3.OpPut(lock, string(lockValue), clientv3.WithLease(lease.ID)))
			}
			all = append(all, clientv3.OpTxn(ifs, then, nil))
		}
		r, err := e.Txn(ctx).Then(all...).Commit()
		if err != nil {
			return err
		}
		for _, one := range r.Responses {
			if !one.GetResponseTxn().Succeeded {
				return errors.New("a commit of the ceiling was refused")
			}
		}
		return nil
	}, func() { e.Close() }, nil
}
