// Package etcdqueue keeps zkq queues in etcd.
//
//	c, err := etcdqueue.Open(ctx, etcdqueue.Config{Endpoints: []string{"localhost:2379"}})
//
// A node is a key: the configured prefix and the node's path. Ephemeral nodes
// hang on the session's lease, and so does the key zkq/sessions/<lease>, which
// every commit compares: what is on its way when the lease ends is not applied.
//
// The service chooses the names of sequential nodes without a counter, at which
// producers would meet:
//
//	entry-100-0000000000000004711-1767225600000-9f86d081-000000
//	          revision + offset   Unix ms       producer number
//
// The revision is that of a linearizable read begun after the commit was called.
// If put A was answered before put B began, B reads a revision at which A's entry
// stands, and its name sorts behind. Where the coordinator was shown a revision a
// moment ago it does without the read: the commit carries the condition that no
// name stands which does not sort before, and if it is refused for that, it reads
// after all. Such a name may sort before those of entries that are gone. The time
// only informs. The offset is a
// number of that name in the JSON of the node <queue>/config: whoever restores a
// queue into a cluster with a lower revision sets it so that new names sort last.
//
// etcd 3.6.9 and newer are supported. Older ones work, but some may answer a read
// from the past after a pause, and then the order of two puts may be turned.
package etcdqueue
