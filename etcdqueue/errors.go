package etcdqueue

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue/internal/diskfull"
)

// verdict is what an error of etcd says about the request that met it.
type verdict struct {
	// refused: a write that met it was not applied, and will not be.
	refused bool

	// again: the same request may fare better if it is sent once more.
	again bool

	// means is the error of coord's that it is; nil where there is none.
	means error

	// remedy is what an operator can do; "" where the error says it.
	remedy string
}

// answers is what each error of etcd's means for the request that met it; what is
// not here was perhaps applied. The text is what goes over the wire. Where a
// request passes through the log, etcd checks everything before it changes
// anything, but for space: see commit.resolve.
var answers = map[string]verdict{
	// The request is malformed or too large.
	text(rpctypes.ErrGRPCEmptyKey):                {refused: true, means: coord.ErrInvalid},
	text(rpctypes.ErrGRPCKeyNotFound):             {refused: true, means: coord.ErrInvalid},
	text(rpctypes.ErrGRPCValueProvided):           {refused: true, means: coord.ErrInvalid},
	text(rpctypes.ErrGRPCLeaseProvided):           {refused: true, means: coord.ErrInvalid},
	text(rpctypes.ErrGRPCDuplicateKey):            {refused: true, means: coord.ErrInvalid},
	text(rpctypes.ErrGRPCInvalidClientAPIVersion): {refused: true, means: coord.ErrInvalid},
	text(rpctypes.ErrGRPCInvalidSortOption):       {refused: true, means: coord.ErrInvalid},
	text(rpctypes.ErrGRPCTooManyOps):              {refused: true, means: coord.ErrTooLarge},
	text(rpctypes.ErrGRPCRequestTooLarge):         {refused: true, means: coord.ErrTooLarge},
	text(rpctypes.ErrGRPCLeaseTTLTooLarge):        {refused: true, means: coord.ErrInvalid},
	text(rpctypes.ErrGRPCLeaseExist):              {refused: true, means: coord.ErrExist},
	text(rpctypes.ErrGRPCCompacted):               {refused: true},
	text(rpctypes.ErrGRPCFutureRev):               {refused: true},

	// The session is over.
	text(rpctypes.ErrGRPCLeaseNotFound): {refused: true, means: coord.ErrSessionLost},

	// Credentials. A token is checked before the request goes to the log, and the
	// revision of the rights before it is applied.
	text(rpctypes.ErrGRPCAuthFailed):           {refused: true, means: coord.ErrAuth},
	text(rpctypes.ErrGRPCUserEmpty):            {refused: true, again: true, means: coord.ErrAuth},
	text(rpctypes.ErrGRPCUserNotFound):         {refused: true, means: coord.ErrAuth},
	text(rpctypes.ErrGRPCAuthNotEnabled):       {refused: true, means: coord.ErrAuth},
	text(rpctypes.ErrGRPCInvalidAuthMgmt):      {refused: true, means: coord.ErrAuth},
	text(rpctypes.ErrGRPCInvalidAuthToken):     {refused: true, again: true, means: coord.ErrAuth},
	text(rpctypes.ErrGRPCAuthOldRevision):      {refused: true, again: true, means: coord.ErrAuth},
	text(rpctypes.ErrGRPCPermissionDenied):     {refused: true, means: coord.ErrForbidden},
	text(rpctypes.ErrGRPCPermissionNotGranted): {refused: true, means: coord.ErrForbidden},
	text(rpctypes.ErrGRPCPermissionNotGiven):   {refused: true, means: coord.ErrForbidden},
	text(rpctypes.ErrGRPCRoleNotFound):         {refused: true, means: coord.ErrForbidden},
	text(rpctypes.ErrGRPCRoleNotGranted):       {refused: true, means: coord.ErrForbidden},
	text(rpctypes.ErrGRPCRoleEmpty):            {refused: true, means: coord.ErrForbidden},

	// The member did not take the request. Every request asks for a leader, which
	// is looked for before anything else.
	text(rpctypes.ErrGRPCNoLeader):               {refused: true, again: true},
	text(rpctypes.ErrGRPCNotSupportedForLearner): {refused: true, again: true},
	text(rpctypes.ErrGRPCNotCapable):             {refused: true},
	text(rpctypes.ErrGRPCRequestTooManyRequests): {refused: true, means: coord.ErrBusy},
	text(rpctypes.ErrGRPCCorrupt):                {refused: true, means: coord.ErrBusy},
	"raft proposal dropped":                      {refused: true, again: true},

	// It was taken, and the member does not know what became of it.
	text(rpctypes.ErrGRPCTimeout):                    {again: true},
	text(rpctypes.ErrGRPCTimeoutDueToLeaderFail):     {again: true},
	text(rpctypes.ErrGRPCTimeoutDueToConnectionLost): {again: true},
	text(rpctypes.ErrGRPCTimeoutWaitAppliedIndex):    {again: true},
	text(rpctypes.ErrGRPCLeaderChanged):              {again: true},
	text(rpctypes.ErrGRPCNotLeader):                  {again: true},
	text(rpctypes.ErrGRPCStopped):                    {again: true},
	text(rpctypes.ErrGRPCUnhealthy):                  {again: true},
	text(rpctypes.ErrGRPCCanceled):                   {again: true},
	text(rpctypes.ErrGRPCDeadlineExceeded):           {again: true},
	"lease: not primary lessor":                      {again: true},

	// One request is applied and answered so: the one that raises the alarm.
	text(rpctypes.ErrGRPCNoSpace): {means: coord.ErrBusy, remedy: "compact and defragment etcd or raise its quota, then disarm its alarm"},
	text(diskfull.Err):            {refused: true, means: coord.ErrBusy, remedy: "free space there, or raise its ulimit -f"},
}

func text(err error) string { return status.Convert(err).Message() }

// judge looks an error up. Those of gRPC itself go by their code.
func judge(err error) verdict {
	st := status.Convert(err)
	if v, ok := answers[st.Message()]; ok {
		return v
	}
	switch st.Code() {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.Aborted:
		return verdict{again: true}
	case codes.Unauthenticated:
		return verdict{refused: true, means: coord.ErrAuth}
	case codes.PermissionDenied:
		return verdict{refused: true, means: coord.ErrForbidden}
	case codes.Unimplemented:
		return verdict{refused: true, means: coord.ErrUnreachable} // no etcd
	}
	return verdict{}
}

// wrap gives an error of etcd's the meaning it has in coord.
func (v verdict) wrap(err error) error {
	err = errors.New(text(err))
	if v.remedy != "" {
		err = fmt.Errorf("%w; %s", err, v.remedy)
	}
	if v.means != nil {
		return fmt.Errorf("%w: %w", err, v.means)
	}
	return err
}

// unknown is the error of a commit whose answer did not come, for the reason why.
func unknown(why error) error { return fmt.Errorf("%w: %w", coord.ErrUnknown, why) }

// checkContext refuses what no call can wait with.
func checkContext(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("nil context: %w", coord.ErrInvalid)
	}
	return ctx.Err()
}
