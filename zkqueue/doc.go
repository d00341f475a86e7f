// Package zkqueue is the driver that keeps zkq queues in ZooKeeper.
//
//	c, err := zkqueue.Open(ctx, zkqueue.Config{Servers: []string{"zk1:2181", "zk2:2181", "zk3:2181"}})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	q := zkq.NewLockingQueue(c, "/mail")
//
// It creates the nodes that kazoo creates: plain values that anyone may read and write, and
// directories as persistent nodes without data. It needs ZooKeeper 3.5 or later.
//
// # Cost of each call
//
// Commits that wait at the same time are merged into one multi. A Get, a Count and a
// listing with Fresh first commit an empty multi, because the server that answers a multi
// has applied everything that was answered before. ZooKeeper's sync would be cheaper, but
// the leader may answer a sync before it has applied what a follower has already answered.
//
// A watched directory is listed once per connection. From then on the server sends an event
// for each change below it, and listings come from the driver's memory without a request; a
// Fresh listing costs the empty multi. When the last watch of a directory ends, the driver
// gives its events up after one second. Directories that are not watched, and all
// directories of servers older than 3.6, are listed whole. Such a listing is kept until the
// one-shot watch that was set with it fires. The server holds at most one watch for each
// directory that was listed or watched.
//
// ZooKeeper sends no events for nodes that this user may not read. In a watched directory
// such a node may be listed after it was deleted, or may be missing, until the next
// connection.
//
// # How it uses go-zookeeper
//
// go-zookeeper sends queued requests on a new session after the old one has expired, waits
// up to ten session timeouts for a stopped server, and never drops a watch. So each session
// has a [zk.Conn] of its own. The dialer of that Conn refuses to connect once the session
// is over. Its connections read and write every frame: they know when the service was last
// heard, set the watches, take the events, and end a silent connection early. This relies
// on go-zookeeper v1.0.4 writing each request in one Write; a connection that sees anything
// else closes itself and says so.
package zkqueue

// For contributors: what the files hold, in the order in which a call meets them.
//
//	coordinator  Open, Close and the coordinator's one live session
//	config       the configuration and its checks
//	session      the session's life: connect, deadline, end, shutdown
//
// A commit is checked in commit.go and handed to a group.Runner, which merges it with the
// commits that wait at the same time. batch.go sends the batch and finds the outcome of each
// commit; payload.go bounds how much is merged; naming.go refuses a sequential node whose
// directory has no numbers left; errors.go says what an error means for the request.
//
// A read goes through request.go, which waits for a connection and repeats the request when
// the connection ends. read.go reads nodes, several at once by multiread.go and jute.go.
// list.go lists directories from cache.go, which knows the names of watched ones, and
// search.go finds what one transaction created.
//
// go-zookeeper is between those files and the network. It dials with dial.go, and its
// connections are conn.go's, which see every frame: replies move the session's deadline,
// watch events go to cache.go, and watch.go adds watches that go-zookeeper does not know.
