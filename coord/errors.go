package coord

import (
	"errors"
	"fmt"
)

// How a read or a commit was answered.
var (
	// ErrNotExist: there is no node at the path.
	ErrNotExist = errors.New("coord: no such node")
	// ErrExist: there is a node at the path already.
	ErrExist = errors.New("coord: node exists")
	// ErrVersion: the node stands at another fence than the op expected.
	ErrVersion = errors.New("coord: node has changed")
	// ErrUnknown: the commit was sent and its answer never came. It may have
	// been applied, or may still be.
	ErrUnknown = errors.New("coord: outcome unknown")
)

// What ends a session or a coordinator.
var (
	// ErrSessionLost: the session is over; its ephemeral nodes are gone or will
	// be. Nothing was sent.
	ErrSessionLost = errors.New("coord: session lost")
	// ErrClosed: the coordinator was closed by its user.
	ErrClosed = errors.New("coord: closed")
)

// What the service, or the way to it, will not do. Nothing was changed.
var (
	// ErrUnreachable: no address answered.
	ErrUnreachable = errors.New("coord: unreachable")
	// ErrAuth: the service did not accept the credentials.
	ErrAuth = errors.New("coord: not authenticated")
	// ErrForbidden: the credentials do not allow the operation.
	ErrForbidden = errors.New("coord: not allowed")
	// ErrTLS: the two ends found no common, trusted encryption.
	ErrTLS = errors.New("coord: TLS")
	// ErrFormat: the service holds a layout newer than this program knows.
	ErrFormat = errors.New("coord: unknown layout")
	// ErrExhausted: a directory has used up the numbers that complete the names of
	// sequential nodes; the error is an [*ExhaustedError].
	ErrExhausted = errors.New("coord: numbers are used up")
	// ErrBusy: the service asks to come again later, or is out of space.
	ErrBusy = errors.New("coord: service is busy or full")
)

// What is refused before anything is sent.
var (
	// ErrInvalid: a malformed path or commit.
	ErrInvalid = errors.New("coord: invalid")
	// ErrTooLarge: beyond [Limits]; the error is a [*LimitError].
	ErrTooLarge = errors.New("coord: too large")
)

// Refusal says which op of a commit the service refused, and why: Err is
// [ErrExist], [ErrNotExist] or [ErrVersion]. Where several would be refused it
// names the first.
type Refusal struct {
	Index int
	Op    Op
	Err   error
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("%v %s (op %d): %v", r.Op.Kind, r.Op.Path, r.Index, r.Err)
}

func (r *Refusal) Unwrap() error { return r.Err }

// ForbiddenError says for which op of a commit the credentials do not suffice.
type ForbiddenError struct {
	Index int
	Op    Op
	Err   error // the service's
}

func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("%v %s (op %d): %v", e.Op.Kind, e.Op.Path, e.Index, e.Err)
}

// Unwrap makes it [ErrForbidden], and what the service said.
func (e *ForbiddenError) Unwrap() []error { return []error{ErrForbidden, e.Err} }

// LastNumber is the last number that completes a name on ZooKeeper. The counter goes one
// further and stops there, so that a name would be given twice.
const LastNumber = 2147483646

// ExhaustedError says which directory has no numbers left, and which would be the next.
// Nothing was changed.
type ExhaustedError struct {
	Dir  string
	Next int64
}

func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("this queue has used up its numbers: the next in %s would be %d, and the last is %d; use a queue of another name", e.Dir, e.Next, int64(LastNumber))
}

// Is reports that it is [ErrExhausted].
func (e *ExhaustedError) Is(target error) bool { return target == ErrExhausted }

// LimitError says what was too large and what would have been taken.
type LimitError struct {
	What  string
	Unit  string
	Size  int
	Limit int
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s: %d %s, the limit is %d", e.What, e.Size, e.Unit, e.Limit)
}

// Is reports that a LimitError is [ErrTooLarge].
func (e *LimitError) Is(target error) bool { return target == ErrTooLarge }
