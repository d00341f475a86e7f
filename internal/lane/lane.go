// Package lane commits exactly once.
//
// A lane is a line of commits that follow one another, and a node that counts them. Each
// commit in a lane also writes that node, at the fence that the commit before it left. So
// a commit can be sent again until there is an answer: the service applies it at most
// once. Afterwards the node tells any process whether it was applied.
//
// A token names one commit: its lane and its number there. [Resolve] tells what became of
// it.
package lane

import (
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
)

var (
	// ErrExpired: the service no longer knows what became of a commit.
	ErrExpired = errors.New("zkq: token expired")
	// ErrVoid: the commit was resolved as not applied, and never will be applied.
	ErrVoid = errors.New("zkq: token is void")

	// errUnusable: a lane cannot be used any more, and nothing was committed in it.
	errUnusable = errors.New("lane cannot be used")
)

// UnknownError is the error of a commit that got no answer while there was time. The
// service may have applied it, or may still.
type UnknownError struct {
	Token string
	Err   error
}

func (e *UnknownError) Error() string {
	if errors.Is(e.Err, coord.ErrUnknown) {
		return fmt.Sprintf("%v (token %s)", e.Err, e.Token)
	}
	return fmt.Sprintf("%v (token %s): %v", coord.ErrUnknown, e.Token, e.Err)
}

// Unwrap makes it a [coord.ErrUnknown], and its cause.
func (e *UnknownError) Unwrap() []error { return []error{coord.ErrUnknown, e.Err} }

// lane is a lane of this process. Only one goroutine uses it at a time, so it has at most one
// commit under way.
type lane struct {
	name  string
	n     uint64      // of the last commit whose outcome is known
	fence coord.Fence // of the node, after that commit
	wrote time.Time   // a time before the node's last write, by which its age is judged
}

// Path returns the path of a lane's node.
func Path(name string) string { return path.Join(layout.ProducersDir, name) }

func (l *lane) path() string { return Path(l.name) }

// advance notes that the outcome of commit n is known. began is when the write began that
// decided it, f the fence that it left.
func (l *lane) advance(n uint64, f coord.Fence, began time.Time) {
	// Round strips the monotonic clock, which stands still while the machine sleeps.
	l.n, l.fence, l.wrote = n, f, began.Round(0)
}
