package zkq

import (
	"errors"
	"fmt"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/lane"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// Errors of arguments: nothing was changed, and in most cases nothing was sent.
var (
	// ErrInvalidName: the name is not allowed for a queue, or is not that of an entry.
	ErrInvalidName = errors.New("zkq: invalid name")
	// ErrInvalidPriority: the priority is not in the range 0 to 999.
	ErrInvalidPriority = priority.ErrRange
	// ErrTooLarge: a value or a batch exceeds a limit of the queue or the coordinator. The
	// error is a [*coord.LimitError], which names size and limit.
	ErrTooLarge = coord.ErrTooLarge
	// ErrInvalid: an argument is not allowed, a count below 1 for instance.
	ErrInvalid = coord.ErrInvalid
)

// Errors of a queue's state, and of the connection to its service.
var (
	// ErrEmpty: no entry can be taken now. The queue may hold entries that other workers
	// hold, or that are delayed.
	ErrEmpty = errors.New("zkq: queue is empty")
	// ErrNoEntry: no entry has that name.
	ErrNoEntry = errors.New("zkq: no such entry")
	// ErrHeld: a process holds the entry.
	ErrHeld = errors.New("zkq: entry is held")
	// ErrNotHeld: no process holds the entry, or the caller never held one.
	ErrNotHeld = errors.New("zkq: entry is not held")
	// ErrLockLost: the caller does not hold the entry any more. This call has not removed
	// the entry, and never will.
	ErrLockLost = lock.ErrLost
	// ErrAlreadyDone: this [Held] was finished before.
	ErrAlreadyDone = errors.New("zkq: already consumed or released")
	// ErrLayout: at that name stands the other of kazoo's two queues: a plain queue where a
	// locking one was asked for, or a locking one instead of a plain one.
	ErrLayout = handle.ErrLayout
	// ErrExhausted: on ZooKeeper a queue takes 2,147,483,647 puts in all, and has had them.
	// Nothing was put. Its entries can still be taken. Put into a queue of another name.
	ErrExhausted = coord.ErrExhausted
	// ErrClosed: the queue handle was closed.
	ErrClosed = handle.ErrClosed
	// ErrUnknown: the coordinator did not answer. The change may have been applied, or may
	// be applied later. The error of a put is an [*UnknownError], with a token for [Resolve].
	ErrUnknown = coord.ErrUnknown
	// ErrFull: the put would exceed the queue's bound ([QueueConfig]). Nothing was put.
	ErrFull = errors.New("zkq: queue is full")
	// ErrExists: another entry has this unique key. The error of a put is an
	// [*ExistsError], which names that entry. Nothing was put.
	ErrExists = errors.New("zkq: entry exists")
	// ErrConfig: the queue has another configuration, which was not changed. The error is a
	// [*ConfigError].
	ErrConfig = errors.New("zkq: queue has another configuration")
	// ErrTokenExpired: the service no longer stores whether the put of this token was
	// applied. It does so for a day, and only until the same producer puts again.
	ErrTokenExpired = lane.ErrExpired
	// ErrTokenVoid: [Resolve] found that the put of this token was not applied, and made sure
	// that it never will be.
	ErrTokenVoid = lane.ErrVoid
)

// Errors that one part of a queue returns to another. No user sees them.
var (
	// errUnavailable: an entry cannot be claimed, or not now, because another process holds
	// it or has removed it.
	errUnavailable = head.ErrUnavailable
	// errCleared: the entry had expired or was delivered too often, and this handle removed
	// it or moved it to the dead.
	errCleared = fmt.Errorf("entry is cleared away: %w", errUnavailable)
	// errBroken: an operator took an entry from its holder.
	errBroken = errors.New("its lock was broken by hand")
)

// counted returns a number with its noun: "1 entry", "2 entries".
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// errStop ends a walk whose caller needs no more of it.
var errStop = errors.New("stop")

// notStop returns the error of a walk, or nil if the walk's caller ended it.
func notStop(err error) error {
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// The kinds of calls, as messages about a busy service name them.
const (
	actPut       = "put"
	actTake      = "take"
	actFinish    = "finish"
	actUpdate    = "update"
	actRelease   = "release"
	actMove      = "move of due entries"
	actConfigure = "change of the configuration"
)
