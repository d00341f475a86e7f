// Package zkq is a distributed work queue for people who already run ZooKeeper
// or etcd and do not want to run a broker as well.
//
// It is kazoo's two queues, in Go, on either service: [Queue] hands an entry out
// at most once, [LockingQueue] at least once. Python workers with kazoo and Go
// workers with zkq may share a queue on ZooKeeper.
//
// A worker:
//
//	c, err := etcdqueue.Open(ctx, etcdqueue.Config{Endpoints: []string{"localhost:2379"}})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	q := zkq.NewLockingQueue(c, "mail")
//	defer q.Close()
//	w := &zkq.Worker{Queue: q, Handler: zkq.HandlerFunc(func(ctx context.Context, held *zkq.Held) error {
//		return send(ctx, held.Value)
//	})}
//	return w.Run(ctx)
//
// A mail that could not be sent rests for about a second, then for two, up to a minute, while
// the others go on; [Worker] has a bound for failures, concurrency and time. Who wants a loop
// of their own uses [LockingQueue.All] and gives back what failed with [Held.Fail] and [After]:
// without a pause it would be taken again at once.
//
// # What is promised
//
// An entry whose put returned without an error is there until exactly one finish
// removes it. A worker that lost its lock cannot remove it, whether or not it
// knows ([ErrLockLost]): every write of a holder is one commit that holds only
// for the state its own claim left. Entries are taken in the order (priority,
// put); what was released or fell to a dead worker goes back to its place. When
// an answer was lost the outcome is found out while the session lives, and said
// to be unknown ([ErrUnknown]) when it cannot be: never guessed.
//
// Delivery is at least once: a worker can die after the work and before the
// finish. Work that must not be repeated hands [Held.Token] to the store it
// writes to.
//
// # Limits
//
// A value has at most [MaxValue] bytes; ZooKeeper keeps all of them in memory.
// Package coord is the border to the services; coordtest has an in-memory one
// for tests, which needs no server.
package zkq
