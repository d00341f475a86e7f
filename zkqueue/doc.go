// Package zkqueue keeps zkq queues in ZooKeeper.
//
//	c, err := zkqueue.Open(ctx, zkqueue.Config{Servers: []string{"zk1:2181", "zk2:2181", "zk3:2181"}})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	q := zkq.NewLockingQueue(c, "/mail")
//
// Nodes are what kazoo would have made: plain values, readable and writable by
// anyone, directories as persistent nodes without data. ZooKeeper 3.5 and later.
//
// # What costs what
//
// Commits that wait at the same time are one multi. A Get, a Fresh listing and a Count first commit nothing: an
// empty multi, which is answered by a server that has applied all before it. ZooKeeper's
// sync would be cheaper, and is not enough on the leader.
//
// A watched directory is listed once for each connection. After that the server sends an
// event of each change beneath it, and every listing is made of what the driver has: it
// costs nothing, and a Fresh one no more than the empty multi. The events of a directory
// that nobody watches any more are given up after a second. Servers before 3.6 cannot do
// that, and of other directories it is not asked for: there a listing is the whole
// directory, kept until the child watch that came with it fires, and each directory that
// was listed or watched has at most one watch at the server, until the next change in it.
//
// A node that this user may not read has no events: in a watched directory it may be
// listed after its end, or not be listed, until the next connection.
//
// # How it uses go-zookeeper
//
// go-zookeeper moves its queued requests to a new session when the old one has
// expired, waits up to ten session timeouts for a server that is stopped, and keeps
// its watches for ever. So each session has a [zk.Conn] of its own, whose dialer
// refuses once the session is over, and whose connections see every frame: they know
// when the service was last heard, set the watches, take the events, and end silence
// early. That leans on go-zookeeper writing each request in one Write, as v1.0.4 does; a
// connection that sees anything else closes itself and says so.
package zkqueue
