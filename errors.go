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

// What a queue refuses before anything is sent.
var (
	// ErrInvalidName: a queue or entry name that cannot be one.
	ErrInvalidName = errors.New("zkq: invalid name")
	// ErrInvalidPriority: outside 0 to 999.
	ErrInvalidPriority = priority.ErrRange
	// ErrTooLarge: a value, or a batch, beyond what the coordinator takes. The
	// error is a [*coord.LimitError], which names size and limit.
	ErrTooLarge = coord.ErrTooLarge
	// ErrInvalid: an argument that makes no sense, a count below 1 for instance.
	ErrInvalid = coord.ErrInvalid
)

// What a queue answers.
var (
	// ErrEmpty: nothing is there to be taken now.
	ErrEmpty = errors.New("zkq: queue is empty")
	// ErrNoEntry: no entry of that name.
	ErrNoEntry = errors.New("zkq: no such entry")
	// ErrHeld: somebody works on the entry.
	ErrHeld = errors.New("zkq: entry is held")
	// ErrNotHeld: nobody holds the entry, or the caller never held one.
	ErrNotHeld = errors.New("zkq: entry is not held")
	// ErrLockLost: the caller does not hold the entry any more. It was not
	// removed by this call, and never will be.
	ErrLockLost = lock.ErrLost
	// ErrAlreadyDone: this handle was consumed or released before.
	ErrAlreadyDone = errors.New("zkq: already consumed or released")
	// ErrLayout: the path holds the other of kazoo's two queues.
	ErrLayout = handle.ErrLayout
	// ErrExhausted: on ZooKeeper a queue takes 2,147,483,647 puts in all, and has had them.
	// Nothing was put. What stands can be taken; use a queue of another name.
	ErrExhausted = coord.ErrExhausted
	// ErrClosed: the queue handle was closed.
	ErrClosed = handle.ErrClosed
	// ErrUnknown: the coordinator did not answer, and the change may have been
	// made, or may still be. That of a put is an [*UnknownError].
	ErrUnknown = coord.ErrUnknown
	// ErrFull: the queue holds as many entries as it takes. Nothing was put.
	ErrFull = errors.New("zkq: queue is full")
	// ErrExists: an entry of this unique key is there. That of a put is an
	// [*ExistsError]. Nothing was put.
	ErrExists = errors.New("zkq: entry exists")
	// ErrConfig: the queue has another configuration. The error is a [*ConfigError].
	ErrConfig = errors.New("zkq: queue has another configuration")
	// ErrTokenExpired: what became of a put is not known any more.
	ErrTokenExpired = lane.ErrExpired
	// ErrTokenVoid: the put of this token was resolved as not applied, and never
	// will be.
	ErrTokenVoid = lane.ErrVoid
)

// What one part of a queue tells another.
var (
	// errUnavailable: an entry cannot be claimed, or not now, because another process holds
	// it or has removed it.
	errUnavailable = head.ErrUnavailable
	// errCleared: an entry was spent, and this handle cleared it away.
	errCleared = fmt.Errorf("entry is cleared away: %w", errUnavailable)
	// errBroken: an operator took an entry from its holder.
	errBroken = errors.New("its lock was broken by hand")
)

// counted is a number and the noun for it.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// errStop ends a walk that somebody has seen enough of.
var errStop = errors.New("stop")

func notStop(err error) error {
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
