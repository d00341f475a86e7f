// Package etcdqueue is the driver that keeps zkq queues in etcd.
//
//	c, err := etcdqueue.Open(ctx, etcdqueue.Config{Endpoints: []string{"localhost:2379"}})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	q := zkq.NewLockingQueue(c, "/mail")
//
// A node is a key: the configured prefix followed by the node's path. Ephemeral nodes are
// attached to the session's lease, and so is the key zkq/sessions/<lease>. Every commit
// compares that key, so a commit in flight when the lease ends is not applied.
//
// # Names of sequential nodes
//
// etcd has no counter per directory, and a counter in a key would make all producers wait
// for one another. So the driver completes the names itself:
//
//	entry-100-0000000000000004711-1767225600000-9f86d081-000000
//	          revision + offset   Unix ms       producer number
//
// The revision comes from a linearizable read that began after the commit was called. If
// put A was answered before put B began, then B reads a revision at which A's entry exists,
// and so B's name sorts after A's.
//
// A coordinator that learned a revision in the last 200 ms does without the read. The name
// is then optimistic: the commit also requires that no name exists which sorts after it. If
// that is refused, the driver reads the revision after all. An optimistic name may sort
// before the names of entries that have been removed already.
//
// The time in a name is only for people. The offset is the number "offset" in the JSON of
// the node <queue>/config: set it after you restored a queue into a cluster with a lower
// revision, so that new names sort last.
//
// # Versions
//
// etcd 3.6.9 and newer are supported. The driver works with older ones and warns about
// them: some may answer a read from the past after a pause, which can turn the order of two
// puts round.
package etcdqueue

// For contributors: what the files hold, in the order in which a call meets them.
//
//	coordinator  Open, Close and the coordinator's one live session
//	config       the configuration and its checks; endpoint parses addresses
//	session      the session's life: lease, heartbeats, deadline, end
//
// A commit is checked in commit.go. If it has sequential nodes, optimistic.go decides
// whether their names need a read of the revision; naming.go makes that read and the names.
// A group.Runner merges the commit with those that wait at the same time. batch.go sends the
// batch, bulk.go a commit that is too large for one, both by txn.go, which sends a
// transaction at most once. inflight.go stops waiting for an answer after an election, and
// errors.go says what an error means for the request.
//
// A read is repeated by request.go until it is answered. read.go reads nodes and list.go
// lists directories: those that watch.go watches from the names in cache.go.
//
// gRPC connects by dial.go, whose connections are conn.go's. health.go leaves a member that
// does not answer. revision.go notes the revision of every answer, and so notices a service
// that was restored from a backup.
