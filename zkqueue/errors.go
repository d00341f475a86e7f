package zkqueue

import (
	"errors"
	"fmt"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
)

// outcome is what an error of go-zookeeper says about the request that met it.
type outcome uint8

const (
	// unknown: it may have been applied. Everything that is not in the table.
	unknown outcome = iota
	// refused: the service, or go-zookeeper before it, would not do it.
	refused
	// unsent: the service never saw it, or saw it come by a connection that the
	// session had left, and ignored it.
	unsent
	// expired: the service had ended the session before.
	expired
)

// answers is what every error and error code of go-zookeeper v1.0.4 and ZooKeeper 3.9
// means. Codes that go-zookeeper does not know come as text.
var answers = []struct {
	err     error
	outcome outcome
	means   error
}{
	{zk.ErrNoNode, refused, coord.ErrNotExist},
	{zk.ErrNodeExists, refused, coord.ErrExist},
	{zk.ErrBadVersion, refused, coord.ErrVersion},
	{zk.ErrNoAuth, refused, coord.ErrForbidden},
	{zk.ErrAuthFailed, refused, coord.ErrAuth},
	{zk.ErrInvalidACL, refused, coord.ErrForbidden},
	{zk.ErrNotEmpty, refused, coord.ErrInvalid},
	{zk.ErrNoChildrenForEphemerals, refused, coord.ErrInvalid},
	{zk.ErrBadArguments, refused, coord.ErrInvalid},
	{zk.ErrInvalidPath, refused, coord.ErrInvalid},
	{zk.ErrInvalidFlags, refused, coord.ErrInvalid},
	{code(-5), refused, coord.ErrInvalid},   // marshalling error
	{code(-6), refused, coord.ErrForbidden}, // the server does not know it, or has it switched off
	{code(-119), refused, coord.ErrBusy},    // not read-only: the server has no quorum
	{code(-124), refused, coord.ErrAuth},    // the server wants SASL
	{code(-125), refused, errQuota},
	{code(-127), refused, coord.ErrBusy}, // throttled
	{zk.ErrNoServer, unsent, nil},        // from the queue, see dialer.Next
	{zk.ErrSessionMoved, unsent, nil},
	{zk.ErrSessionExpired, expired, coord.ErrSessionLost},
	{zk.ErrConnectionClosed, unknown, nil},
	{zk.ErrClosing, unknown, nil},
	{zk.ErrAPIError, unknown, nil},
	{zk.ErrShortBuffer, unknown, nil}, // from decoding: a request is measured before it is sent
	{errMalformed, unknown, nil},
	{code(-1), unknown, nil},   // system error
	{code(-2), unknown, nil},   // runtime inconsistency
	{code(-3), unknown, nil},   // data inconsistency
	{code(-4), unknown, nil},   // connection loss
	{code(-7), unknown, nil},   // operation timeout
	{code(-122), unknown, nil}, // request timeout
}

// errQuota is the refusal of a server that enforces quotas.
var errQuota = fmt.Errorf("%w: a quota of ZooKeeper is used up; setquota raises it", coord.ErrBusy)

// code is how go-zookeeper renders a code without a name.
type code int

func (c code) Error() string { return fmt.Sprintf("unknown error: %d", int(c)) }

// means says what became of the request that met err, and which of coord's errors
// that is, with err inside.
func means(err error) (outcome, error) {
	for _, a := range answers {
		c, byText := a.err.(code)
		if !errors.Is(err, a.err) && !(byText && err.Error() == c.Error()) {
			continue
		}
		if a.means == nil {
			return a.outcome, err
		}
		return a.outcome, fmt.Errorf("%w (%w)", a.means, err)
	}
	return unknown, err
}
