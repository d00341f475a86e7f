package coord

import (
	"context"
	"time"
)

// Coordinator is a connection to a coordination service. Its methods may be
// called from several goroutines.
type Coordinator interface {
	// Session returns the live session. When the last one is over it opens a
	// new one, which starts without any ephemeral node. It waits until the
	// service answers or ctx ends; what it could not reach, and why, is in the
	// error: [ErrUnreachable], [ErrAuth], [ErrForbidden], [ErrTLS], [ErrFormat].
	// After Close: [ErrClosed].
	Session(ctx context.Context) (Session, error)

	// Close ends the session in order, so that its ephemeral nodes go at once,
	// and returns when every goroutine of the driver has ended. Where the
	// service cannot be reached it gives up after at most two seconds and the
	// nodes go when the session times out. A second Close does nothing and
	// returns nil.
	Close() error
}

// Session is one life with the service. Its methods may be called from several
// goroutines. All of them return [ErrSessionLost] once the session is over and
// [ErrClosed] once its coordinator is closed; they compare the deadline with the
// clock at each call, since a process that was stopped wakes with its timers late.
//
// While the connection is away, calls wait for it until ctx ends. Reads that lost
// their connection are sent again; a commit is sent again only when it is certain
// that the service never saw it.
type Session interface {
	// ID is the [Node.Owner] of this session's ephemeral nodes.
	ID() string

	// Timeout is what the service granted, not what was asked for: an ephemeral
	// node outlives its silent client by no more than this and a tick.
	Timeout() time.Duration

	// Done is closed when the session is over: the service said so, or too long
	// passed since the *sending* of the last heartbeat it answered
	// (Timeout less a sixth), so that a holder hears of it before others do.
	// No promise about the queue may depend on it: fences do that work.
	Done() <-chan struct{}

	// Limits says what a value and a commit may measure.
	Limits() Limits

	// Get returns the node at path as some instant during the call had it, own
	// writes included. [ErrNotExist] when there is none.
	Get(ctx context.Context, path string) (Node, error)

	// List returns the direct children of dir in name order (byte order).
	List(ctx context.Context, dir string, o ListOptions) (List, error)

	// Read returns the nodes at the paths, in their order; one that is not there has
	// an empty Path. Each is as some instant had it that was no earlier than what
	// received signals announced and this session's own answered commits; it may lag
	// behind others. It costs less than as many Gets.
	Read(ctx context.Context, paths ...string) ([]Node, error)

	// Count returns the number of nodes in dir, fresh. It is for directories
	// without directories in them: nodes that lie deeper may be counted too.
	Count(ctx context.Context, dir string) (int, error)

	// Watch subscribes to the directories: from its return until ctx ends there
	// is at least one signal after every creation or deletion of a direct child,
	// by anybody, and one after anything that may have hidden such a change (a
	// new connection) and one when the session is over. Writes to a standing
	// child need not signal. Signals may come for nothing and several
	// changes may share one; the channel holds one, is never closed, and a
	// change after the receipt of a signal brings another.
	//
	// A change that a signal announced is seen by every read that begins after
	// the signal was received, and a change that came before Watch returned by
	// every read that begins after that. The signal of this session's own commit
	// comes before Commit returns, unless all that it changed in the directories is
	// marked [Op].SignalLater, or the server's watches fire once (ZooKeeper before
	// 3.6). What a Watch costs ends with its ctx.
	Watch(ctx context.Context, dirs ...string) (<-chan struct{}, error)

	// Commit applies the ops, all or nothing; see the package comment for how it
	// ends. The results stand in the order of the ops. All ops must name pairwise
	// different paths, and their conditions mean the state before the commit;
	// anything else is refused before it is sent ([ErrInvalid]), as are values
	// and commits beyond [Limits] ([*LimitError]). A commit without ops is
	// applied without being sent. When ctx ends after the sending the outcome is
	// ErrUnknown, and the error is also the context's.
	Commit(ctx context.Context, ops ...Op) ([]Result, error)
}

// Fence names one state of one node: each write to the node moves it on, and a
// write conditioned on an older fence is refused. A fence never repeats while
// the name lives. A node that was deleted and created again may meet the fences
// of its earlier life: whoever relies on fences never creates a name twice. The
// numbers mean nothing beyond equality (ZooKeeper: the version; etcd: the
// modification revision).
type Fence int64

// Node is a node as one read saw it.
type Node struct {
	Path  string
	Value []byte // never nil from Get
	Fence Fence

	// Changes counts the writes since the creation: 0 for a node that was only
	// created, 1 after one Set or Touch. (An ephemeral node starts at 0 too,
	// whatever its driver writes to stamp it.)
	Changes int64

	// Revision is the commit that last wrote the node, as in [Result.Revision].
	Revision int64

	// Born is the commit that created the node: nodes that came in one commit have the
	// same, whoever wrote them since. Of one that a Replace made it is that commit or an
	// earlier one.
	Born int64

	// Unreadable says that the node stands and that its value may not be read: then Value
	// is empty, and only the numbers, times and Owner are known. Read and List leave it to
	// the caller, so that one such node hides no other; Get is [ErrForbidden].
	Unreadable bool

	// Owner is the ID of the session whose ephemeral node this is; "" for a
	// persistent node.
	Owner string

	// Created and Modified are the service's own times, zero where it keeps
	// none (etcd).
	Created, Modified time.Time
}

// ListOptions says what to list. The zero value lists all names, cheaply.
type ListOptions struct {
	// After leaves out the names up to and including this one.
	After string

	// Limit is the largest number of children to return; 0 means all.
	Limit int

	// Values reads the nodes whole. Without it only [Node.Path] is certain.
	// A child deleted meanwhile is left out, and so is a bare directory.
	Values bool

	// Fresh demands every change whose commit was answered, to anyone, before
	// the call began. Without it a listing holds this session's own changes and
	// all that a received signal announced, but may lag behind others.
	Fresh bool

	// Seen is content with this session's own answered commits and with what the
	// signals that were received before the call announced. Such listings of one
	// directory never go back in time within a session. Of a directory that is
	// watched they need not ask the service, but may wait for its watch to tell of
	// the own commits. Not with Fresh or Born.
	Seen bool

	// Born, when not 0, leaves only what [CreateSequential] made in the commit of
	// this revision and is still there, however often it was written since; other
	// nodes of that commit may be listed or not. It tells a putter whose answer
	// was lost what its entries are called, by the [Node.Revision] of a node that
	// the same commit wrote last. It is always Fresh, and goes with neither After
	// nor Limit: what one commit creates is one listing.
	Born int64
}

// List is a listing.
type List struct {
	Nodes []Node

	// More says that Limit cut the listing short.
	More bool

	// Stamp identifies the membership of a whole listing (neither cut by Limit
	// nor begun by After): two whole listings of a directory with the same Stamp
	// have the same children, and each of them stood at every instant between.
	// (Others may have come and gone.) It means nothing beyond equality.
	Stamp uint64
}

// Limits are the sizes that a session's service takes. They are checked before
// anything is sent.
type Limits struct {
	ValueBytes  int // the largest value of one node
	CommitBytes int // all paths and values of a commit, framing included
	CommitOps   int // ops in a commit
	Creates     int // ops in a commit of persistent creates and no more than [MaxBeside] others: at least CommitOps
}
