package coord

import (
	"errors"
	"fmt"
)

// Outcomes of a read or a commit.
var (
	// ErrNotExist: there is no node at the path.
	ErrNotExist = errors.New("coord: no such node")
	// ErrExist: there is a node at the path already.
	ErrExist = errors.New("coord: node exists")
	// ErrVersion: the node has another fence than the op expected.
	ErrVersion = errors.New("coord: node has changed")
	// ErrUnknown: the commit was sent and no answer came. It may have been applied,
	// and may still be.
	ErrUnknown = errors.New("coord: outcome unknown")
)

// The end of a session or a coordinator.
var (
	// ErrSessionLost: the session is over. Its ephemeral nodes are removed or soon
	// will be. Nothing was sent.
	ErrSessionLost = errors.New("coord: session lost")
	// ErrClosed: the coordinator was closed by its user.
	ErrClosed = errors.New("coord: closed")
)

// Failures of the service or of the connection. Nothing was changed.
var (
	// ErrUnreachable: no address answered.
	ErrUnreachable = errors.New("coord: unreachable")
	// ErrAuth: the service did not accept the credentials.
	ErrAuth = errors.New("coord: not authenticated")
	// ErrForbidden: the credentials do not allow the operation.
	ErrForbidden = errors.New("coord: not allowed")
	// ErrTLS: client and service did not agree on a trusted encryption.
	ErrTLS = errors.New("coord: TLS")
	// ErrFormat: the service holds a layout newer than this program knows.
	ErrFormat = errors.New("coord: unknown layout")
	// ErrExhausted: a directory has used up the numbers for names of sequential
	// nodes. The error is an [*ExhaustedError].
	ErrExhausted = errors.New("coord: numbers are used up")
	// ErrBusy: the service is overloaded or out of space. Try again later.
	ErrBusy = errors.New("coord: service is busy or full")
)

// Errors of the caller. Nothing was sent.
var (
	// ErrInvalid: a malformed path or commit.
	ErrInvalid = errors.New("coord: invalid")
	// ErrTooLarge: a value or commit beyond [Limits]. The error is a [*LimitError].
	ErrTooLarge = errors.New("coord: too large")
)

// Refusal names the op of a commit that the service refused. Err is [ErrExist],
// [ErrNotExist] or [ErrVersion]. If the service would refuse several ops, it names the
// first.
type Refusal struct {
	Index int
	Op    Op
	Err   error
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("%v %s (op %d): %v", r.Op.Kind, r.Op.Path, r.Index, r.Err)
}

func (r *Refusal) Unwrap() error { return r.Err }

// ForbiddenError names the op of a commit that the credentials do not allow.
type ForbiddenError struct {
	Index int
	Op    Op
	Err   error // the service's
}

func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("%v %s (op %d): %v", e.Op.Kind, e.Op.Path, e.Index, e.Err)
}

// Unwrap returns [ErrForbidden] and the service's error.
func (e *ForbiddenError) Unwrap() []error { return []error{ErrForbidden, e.Err} }

// LastNumber is the last number in a sequential name on ZooKeeper. The server's counter
// goes one further and stops, so that number would be given twice.
const LastNumber = 2147483646

// ExhaustedError names the directory that has no numbers left, and the number that would
// be the next. Nothing was changed.
type ExhaustedError struct {
	Dir  string
	Next int64
}

func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("this queue has used up its numbers: the next in %s would be %d, and the last is %d; use a queue of another name", e.Dir, e.Next, int64(LastNumber))
}

// Is reports that it is [ErrExhausted].
func (e *ExhaustedError) Is(target error) bool { return target == ErrExhausted }

// LimitError says what was too large, how large it was, and the largest size allowed.
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
