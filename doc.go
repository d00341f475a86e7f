// Package zkq is a distributed work queue for people who already run ZooKeeper or etcd and
// do not want to run a broker as well.
//
// Its queues are those of the Python library kazoo, in Go, on either service. Python
// workers with kazoo and Go workers with zkq may share a queue on ZooKeeper. The command
// zkq does all of this from a shell.
//
// # Connect
//
// A coordinator is the connection of a process to the service. Queues share it:
//
//	c, err := etcdqueue.Open(ctx, etcdqueue.Config{Endpoints: []string{"localhost:2379"}})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//
// Package zkqueue has the same for ZooKeeper. Package coord/coordtest has a service in
// memory, for tests and for the examples here.
//
// # Queue
//
// A [Queue] delivers an entry at most once: taking it removes it. Use it for events that
// may be lost with the worker that took them.
//
//	q := zkq.NewQueue(c, "events")
//	q.Put(ctx, []byte("disk full"))
//	e, err := q.Get(ctx) // waits for an entry
//
// # LockingQueue
//
// A [LockingQueue] delivers an entry at least once. A worker holds the entry under a lock
// while it works, and removes it when the work is done. When the worker dies, its lock
// goes with its session, and another worker takes the entry.
//
//	q := zkq.NewLockingQueue(c, "mail")
//	name, err := q.Put(ctx, mail, zkq.WithPriority(10))
//
//	held, err := q.Take(ctx)
//	if err := send(ctx, held.Value); err != nil {
//		return held.Fail(ctx, err.Error(), zkq.After(time.Minute))
//	}
//	return held.Consume(ctx)
//
// A put may also have a delay, a time to live or a unique key ([PutOption]). A queue may
// have a bound ([QueueConfig]). [Held] has the ways to finish an entry: Consume, Release,
// Fail, Bury and Forward.
//
// # Worker
//
// A [Worker] takes entries, calls a [Handler] with each, and finishes each by the error
// that the handler returns. It bounds concurrency, failures and time, and stops gently.
//
//	w := &zkq.Worker{Queue: q, Concurrency: 8, MaxFailures: 5, Handler: handler}
//	err := w.Run(ctx) // until ctx ends
//
// An entry whose handler failed rests for about a second, then for two, up to a minute,
// while the worker goes on with others. For a loop of your own, use [LockingQueue.All], and
// give back failed entries with [After]: without it, the same entry is taken again at once.
//
// # Typed
//
// [Typed] puts and handles values of a Go type instead of bytes, in JSON or by another
// [Codec]:
//
//	mails := zkq.Typed[Mail]{Queue: q}
//	mails.Put(ctx, Mail{To: "ann"})
//	w := &zkq.Worker{Queue: q, Handler: mails.Handler(send)} // send(ctx, Mail) error
//
// # Tokens
//
// A put may lose its answer, and a program may crash during a put. A [Token], stored before
// the put, names that put: the put can be made again and is applied once, or [Resolve] tells
// whether it was applied.
//
//	token, err := q.NewToken(ctx)
//	name, err := q.Put(ctx, order, zkq.WithToken(token))
//
// # Log
//
// Package retained has logs: entries that stay after they were read. Any number of readers
// go through all of them, each at its own pace.
//
// # What is promised
//
//   - An entry whose put returned without an error stays until exactly one finish removes
//     it.
//   - A worker that lost its lock cannot remove the entry, whether or not it knows
//     ([ErrLockLost]). Each write of a holder is one commit, which the service applies only
//     to the state that the holder's own claim left.
//   - Entries are taken in the order (priority, put). An entry that was released, or fell
//     to a dead worker, goes back to its place.
//   - When an answer was lost, the outcome is found out while the session lives. When it
//     cannot be, the error is [ErrUnknown]; it is never guessed.
//
// A worker can die after the work and before the finish, so the work may be done twice. If
// that must not be, hand [Held.Token], a fencing token, to the store that the work writes
// to. docs/guarantees.md has each promise with its conditions and tests.
//
// # Limits
//
// A value has at most [MaxValue] bytes. ZooKeeper keeps all values in memory.
package zkq
