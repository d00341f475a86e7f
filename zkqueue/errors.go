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
	// The request may have been applied. This holds for every error that is not in errorTable.
	outcomeUnknown outcome = iota
	// The service refused the request, or go-zookeeper did before it.
	outcomeRefused
	// The service never saw the request, or ignored it because it came on a connection that
	// the session had left.
	outcomeUnsent
	// The service had ended the session before the request came.
	outcomeExpired
)

// errorTable says what every error and error code of go-zookeeper v1.0.4 and ZooKeeper 3.9
// means. go-zookeeper renders a code that it does not know as text.
var errorTable = []struct {
	err     error
	outcome outcome
	means   error
}{
	{zk.ErrNoNode, outcomeRefused, coord.ErrNotExist},
	{zk.ErrNodeExists, outcomeRefused, coord.ErrExist},
	{zk.ErrBadVersion, outcomeRefused, coord.ErrVersion},
	{zk.ErrNoAuth, outcomeRefused, coord.ErrForbidden},
	{zk.ErrAuthFailed, outcomeRefused, coord.ErrAuth},
	{zk.ErrInvalidACL, outcomeRefused, coord.ErrForbidden},
	{zk.ErrNotEmpty, outcomeRefused, coord.ErrInvalid},
	{zk.ErrNoChildrenForEphemerals, outcomeRefused, coord.ErrInvalid},
	{zk.ErrBadArguments, outcomeRefused, coord.ErrInvalid},
	{zk.ErrInvalidPath, outcomeRefused, coord.ErrInvalid},
	{zk.ErrInvalidFlags, outcomeRefused, coord.ErrInvalid},
	{errorCode(-5), outcomeRefused, coord.ErrInvalid},   // marshalling error
	{errorCode(-6), outcomeRefused, coord.ErrForbidden}, // the server does not know it, or has it switched off
	{errorCode(-119), outcomeRefused, coord.ErrBusy},    // not read-only: the server has no quorum
	{errorCode(-124), outcomeRefused, coord.ErrAuth},    // the server wants SASL
	{errorCode(-125), outcomeRefused, errQuota},
	{errorCode(-127), outcomeRefused, coord.ErrBusy}, // throttled
	{zk.ErrNoServer, outcomeUnsent, nil},             // from the queue, see dialer.Next
	{zk.ErrSessionMoved, outcomeUnsent, nil},
	{zk.ErrSessionExpired, outcomeExpired, coord.ErrSessionLost},
	{zk.ErrConnectionClosed, outcomeUnknown, nil},
	{zk.ErrClosing, outcomeUnknown, nil},
	{zk.ErrAPIError, outcomeUnknown, nil},
	{zk.ErrShortBuffer, outcomeUnknown, nil}, // from decoding: a request is measured before it is sent
	{errMalformed, outcomeUnknown, nil},
	{errorCode(-1), outcomeUnknown, nil},   // system error
	{errorCode(-2), outcomeUnknown, nil},   // runtime inconsistency
	{errorCode(-3), outcomeUnknown, nil},   // data inconsistency
	{errorCode(-4), outcomeUnknown, nil},   // connection loss
	{errorCode(-7), outcomeUnknown, nil},   // operation timeout
	{errorCode(-122), outcomeUnknown, nil}, // request timeout
}

// errQuota is the refusal of a server that enforces quotas.
var errQuota = fmt.Errorf("%w: a quota of ZooKeeper is used up; setquota raises it", coord.ErrBusy)

// errorCode is an error code that go-zookeeper has no variable for.
type errorCode int

func (c errorCode) Error() string { return fmt.Sprintf("unknown error: %d", int(c)) }

// classify returns the outcome of the request that met err, and err wrapped in the error of
// coord's that it stands for.
func classify(err error) (outcome, error) {
	for _, a := range errorTable {
		c, byText := a.err.(errorCode)
		if !errors.Is(err, a.err) && !(byText && err.Error() == c.Error()) {
			continue
		}
		if a.means == nil {
			return a.outcome, err
		}
		return a.outcome, fmt.Errorf("%w (%w)", a.means, err)
	}
	return outcomeUnknown, err
}
