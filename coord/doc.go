// Package coord is the contract a coordination service must meet to carry zkq's
// queues. zkqueue meets it with ZooKeeper, etcdqueue with etcd, and coordtest in
// memory. All of them pass the suite in coordtest/conformance. A program that uses
// queues only passes a [Coordinator] from a driver to package zkq.
//
// # Nodes
//
// A service keeps nodes: a path, a value of bytes, and a few numbers ([Node]).
// Paths are absolute, segments joined by single slashes ([CheckPath]); a driver
// puts its own prefix before them. Directories need not be made: a directory exists
// as soon as something was created in it, and one that does not exist lists as empty.
// An emptied directory may still appear in its parent's listing, or may not. A node
// that holds a value has no children.
//
// # Sessions
//
// Every call belongs to a [Session]. An ephemeral node lives as long as the session
// that created it. A session is over when the service says so, or when the local clock
// says that the service may have ended it. Then Done is closed and nothing more is sent.
//
// # Commits
//
// Every change is one [Session.Commit], all or nothing. It ends in exactly one of
// three ways, and a driver never guesses between them:
//
//   - applied: the error is nil;
//   - unknown: errors.Is(err, [ErrUnknown]). It was sent and no answer came. It
//     may have been applied, and may still be, as long as the service keeps the
//     session;
//   - not applied: every other error. Nothing was changed, and nothing of the commit
//     will be applied later. If the service refused it, the error is a [*Refusal]
//     around [ErrExist], [ErrNotExist] or [ErrVersion].
//
// # Waiting
//
// A watch is an empty signal, "look again". Subscribe, then read, then wait: in
// that order nothing is missed.
package coord
