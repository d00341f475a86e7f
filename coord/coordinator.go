package coord

import (
	"context"
	"time"
)

// Coordinator is a connection to a coordination service. Its methods may be
// called from several goroutines.
type Coordinator interface {
	// Session returns the live session. If the last one is over it opens a new
	// one, which has no ephemeral nodes yet. It blocks until the service answers
	// or ctx ends. Its errors say what was not reached and why: [ErrUnreachable],
	// [ErrAuth], [ErrForbidden], [ErrTLS], [ErrFormat]; after Close, [ErrClosed].
	Session(ctx context.Context) (Session, error)

	// Close ends the session at the service, so that its ephemeral nodes are
	// removed at once, and returns when every goroutine of the driver has ended. If
	// the service cannot be reached it gives up after at most two seconds; the
	// nodes are removed when the session times out. A second Close does nothing
	// and returns nil.
	Close() error
}

// Session is a lease on the service: it lives as long as heartbeats pass. Its methods
// may be called from several goroutines. All of them return [ErrSessionLost] once the
// session is over and [ErrClosed] once its coordinator is closed. They compare the
// deadline with the clock at each call, because timers are late in a process that was
// stopped for a while.
//
// While the connection is broken, calls wait for it until ctx ends. Reads that lost
// their connection are sent again. A commit is sent again only when it is certain
// that the service never received it.
type Session interface {
	// ID returns the [Node.Owner] of this session's ephemeral nodes.
	ID() string

	// Timeout returns the timeout that the service granted, which may differ from
	// what was asked for. When a client falls silent, its ephemeral nodes are
	// removed after this time and at most one tick of the service.
	Timeout() time.Duration

	// Done returns a channel that is closed when the session is over. Either the
	// service said so, or Timeout less a sixth has passed since the client *sent*
	// the last heartbeat that was answered. So the holder of a lock learns of its
	// loss before another client can take it. No promise about a queue may depend
	// on that; fences protect a queue.
	Done() <-chan struct{}

	// Limits returns how large values and commits may be.
	Limits() Limits

	// Get returns the node at path as it was at some instant during the call. The
	// session's own writes are included. It returns [ErrNotExist] if there is none.
	Get(ctx context.Context, path string) (Node, error)

	// List returns the direct children of dir in name order (byte order).
	List(ctx context.Context, dir string, o ListOptions) (List, error)

	// Read returns the nodes at the paths, in their order. A node that does not exist
	// has an empty Path. Read costs less than as many Gets, and its result may be
	// older: it includes the session's own answered commits and all changes that
	// received signals announced, but it may lag behind commits of other clients.
	Read(ctx context.Context, paths ...string) ([]Node, error)

	// Count returns the number of nodes in dir at some instant during the call. It
	// is for directories without subdirectories: deeper nodes may be counted too.
	Count(ctx context.Context, dir string) (int, error)

	// Watch subscribes to the directories, from its return until ctx ends. A signal
	// comes
	//
	//   - after every creation or deletion of a direct child, by any client;
	//   - after anything that may have hidden such a change, for example a new
	//     connection;
	//   - when the session is over.
	//
	// A write to an existing child need not signal. A signal may come without a
	// change, and one signal may stand for several changes. The channel holds one
	// signal and is never closed. A change after the receipt of a signal brings
	// another signal.
	//
	// Every read that begins after a signal was received shows the change that the
	// signal announced. Every read that begins after Watch returned shows all
	// changes before that. The signal of this session's own commit comes before
	// Commit returns, with two exceptions: everything it changed in the directories
	// is marked [Op].SignalLater, or the server's watches fire once (ZooKeeper
	// before 3.6). The end of ctx frees what the Watch uses.
	Watch(ctx context.Context, dirs ...string) (<-chan struct{}, error)

	// Commit applies all ops or none; see the package comment for the ways in which
	// it can end. The results are in the order of the ops. No two ops may name the
	// same path ([ErrInvalid]), and conditions refer to the state before the commit.
	// Values and commits beyond [Limits] are refused before they are sent
	// ([*LimitError]). A commit without ops is applied without being sent. If ctx
	// ends after the commit was sent, the error is both [ErrUnknown] and that of
	// ctx.
	Commit(ctx context.Context, ops ...Op) ([]Result, error)
}

// Fence identifies one state of one node. Each write to the node gives it another
// fence, and a write that is conditioned on an older fence is refused. A fence never
// repeats while the node exists. A node that was deleted and created again may get the
// fences of its earlier life, so code that relies on fences must never create a name
// twice. Fences can be compared for equality only. (ZooKeeper: the version of the node;
// etcd: its modification revision.)
type Fence int64

// Node is a node as one read saw it.
type Node struct {
	Path  string
	Value []byte // never nil from Get
	Fence Fence

	// Changes counts the writes since the creation: 0 for a node that was only
	// created, 1 after one Set or Touch. (Writes of the driver itself to a new
	// ephemeral node are not counted.)
	Changes int64

	// Revision is the commit that last wrote the node, as in [Result.Revision].
	Revision int64

	// Born is the revision of the commit that created the node. Nodes that one commit
	// created have the same, also after later writes. After a Replace it is the revision
	// of that commit or an earlier one.
	Born int64

	// Unreadable means that the credentials do not allow reading the node's value. Value is
	// empty then; numbers, times and Owner are known. Read and List return such nodes, so
	// that one of them does not hide all others; Get returns [ErrForbidden].
	Unreadable bool

	// Owner is the ID of the session that an ephemeral node belongs to; "" for a
	// persistent node.
	Owner string

	// Created and Modified are times by the service's clock. They are zero if the
	// service keeps none (etcd).
	Created, Modified time.Time
}

// ListOptions are what to list. The zero value lists all names, as cheaply as possible.
type ListOptions struct {
	// After leaves out the names up to and including this one.
	After string

	// Limit is the largest number of children to return; 0 means all.
	Limit int

	// Values asks for complete nodes. Without it only [Node.Path] is certain to be
	// set. A child that was deleted meanwhile is left out, and so is a directory
	// that holds no value.
	Values bool

	// Fresh asks for a linearizable listing: it includes every commit, of any
	// client, that was answered before the call began. Without Fresh a listing
	// includes this session's own commits and all that received signals announced,
	// but may lag behind other clients.
	Fresh bool

	// Seen allows a listing that includes only this session's own answered commits
	// and what signals announced that were received before the call. Within a
	// session, such listings of one directory never go back in time. For a watched
	// directory the driver need not ask the service; it may wait until the watch
	// has reported the session's own commits. Not with Fresh or Born.
	Seen bool

	// Born, when not 0, lists only nodes that [CreateSequential] created in the
	// commit of this revision, also if they were written since. Other nodes of that
	// commit may be listed or not. With it a put whose answer was lost finds the
	// names of its entries: the revision is the [Node.Revision] of another node that
	// the same commit wrote. The listing is always fresh. Not with After or Limit.
	Born int64
}

// List is a listing.
type List struct {
	Nodes []Node

	// More means that Limit cut the listing short.
	More bool

	// Stamp identifies the names of a whole listing, one neither cut by Limit nor
	// begun by After. Two whole listings of a directory with the same Stamp have the
	// same children, and each of those existed all the time in between. (Others may
	// have been created and deleted.) Stamps can be compared for equality only.
	Stamp uint64
}

// Limits are the largest sizes that a session's service accepts. Drivers check them
// before they send anything.
type Limits struct {
	ValueBytes  int // the largest value of one node
	CommitBytes int // all paths and values of a commit, framing included
	CommitOps   int // ops in a commit
	Creates     int // ops in a commit of persistent creates and at most [MaxBeside] others; at least CommitOps
}
