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

// errorClass is what an error of etcd's says about the request that met it.
type errorClass struct {
	// notApplied: a write that met the error was not applied, and will not be.
	notApplied bool

	// retryable: the same request may succeed if it is sent again.
	retryable bool

	// coordErr is the error of coord's that it stands for; nil if there is none.
	coordErr error

	// remedy is what an operator can do about it; "" if the error itself says so.
	remedy string
}

// errorTable classifies etcd's errors by their text, which is what the server sends. A
// request that met an error which is not here may have been applied. etcd checks a request
// from its log completely before it changes anything, except for space: see
// session.resolveNoSpace.
var errorTable = map[string]errorClass{
	// The request is malformed or too large.
	errorText(rpctypes.ErrGRPCEmptyKey):                {notApplied: true, coordErr: coord.ErrInvalid},
	errorText(rpctypes.ErrGRPCKeyNotFound):             {notApplied: true, coordErr: coord.ErrInvalid},
	errorText(rpctypes.ErrGRPCValueProvided):           {notApplied: true, coordErr: coord.ErrInvalid},
	errorText(rpctypes.ErrGRPCLeaseProvided):           {notApplied: true, coordErr: coord.ErrInvalid},
	errorText(rpctypes.ErrGRPCDuplicateKey):            {notApplied: true, coordErr: coord.ErrInvalid},
	errorText(rpctypes.ErrGRPCInvalidClientAPIVersion): {notApplied: true, coordErr: coord.ErrInvalid},
	errorText(rpctypes.ErrGRPCInvalidSortOption):       {notApplied: true, coordErr: coord.ErrInvalid},
	errorText(rpctypes.ErrGRPCTooManyOps):              {notApplied: true, coordErr: coord.ErrTooLarge},
	errorText(rpctypes.ErrGRPCRequestTooLarge):         {notApplied: true, coordErr: coord.ErrTooLarge},
	errorText(rpctypes.ErrGRPCLeaseTTLTooLarge):        {notApplied: true, coordErr: coord.ErrInvalid},
	errorText(rpctypes.ErrGRPCLeaseExist):              {notApplied: true, coordErr: coord.ErrExist},
	errorText(rpctypes.ErrGRPCCompacted):               {notApplied: true},
	errorText(rpctypes.ErrGRPCFutureRev):               {notApplied: true},

	// The session is over.
	errorText(rpctypes.ErrGRPCLeaseNotFound): {notApplied: true, coordErr: coord.ErrSessionLost},

	// Credentials. A token is checked before the request goes to the log, and the
	// revision of the rights before it is applied.
	errorText(rpctypes.ErrGRPCAuthFailed):           {notApplied: true, coordErr: coord.ErrAuth},
	errorText(rpctypes.ErrGRPCUserEmpty):            {notApplied: true, retryable: true, coordErr: coord.ErrAuth},
	errorText(rpctypes.ErrGRPCUserNotFound):         {notApplied: true, coordErr: coord.ErrAuth},
	errorText(rpctypes.ErrGRPCAuthNotEnabled):       {notApplied: true, coordErr: coord.ErrAuth},
	errorText(rpctypes.ErrGRPCInvalidAuthMgmt):      {notApplied: true, coordErr: coord.ErrAuth},
	errorText(rpctypes.ErrGRPCInvalidAuthToken):     {notApplied: true, retryable: true, coordErr: coord.ErrAuth},
	errorText(rpctypes.ErrGRPCAuthOldRevision):      {notApplied: true, retryable: true, coordErr: coord.ErrAuth},
	errorText(rpctypes.ErrGRPCPermissionDenied):     {notApplied: true, coordErr: coord.ErrForbidden},
	errorText(rpctypes.ErrGRPCPermissionNotGranted): {notApplied: true, coordErr: coord.ErrForbidden},
	errorText(rpctypes.ErrGRPCPermissionNotGiven):   {notApplied: true, coordErr: coord.ErrForbidden},
	errorText(rpctypes.ErrGRPCRoleNotFound):         {notApplied: true, coordErr: coord.ErrForbidden},
	errorText(rpctypes.ErrGRPCRoleNotGranted):       {notApplied: true, coordErr: coord.ErrForbidden},
	errorText(rpctypes.ErrGRPCRoleEmpty):            {notApplied: true, coordErr: coord.ErrForbidden},

	// The member did not accept the request. Every request requires a leader, which is checked
	// before anything else.
	errorText(rpctypes.ErrGRPCNoLeader):               {notApplied: true, retryable: true},
	errorText(rpctypes.ErrGRPCNotSupportedForLearner): {notApplied: true, retryable: true},
	errorText(rpctypes.ErrGRPCNotCapable):             {notApplied: true},
	errorText(rpctypes.ErrGRPCRequestTooManyRequests): {notApplied: true, coordErr: coord.ErrBusy},
	errorText(rpctypes.ErrGRPCCorrupt):                {notApplied: true, coordErr: coord.ErrBusy},
	"raft proposal dropped":                           {notApplied: true, retryable: true},

	// The member accepted the request and does not know its outcome.
	errorText(rpctypes.ErrGRPCTimeout):                    {retryable: true},
	errorText(rpctypes.ErrGRPCTimeoutDueToLeaderFail):     {retryable: true},
	errorText(rpctypes.ErrGRPCTimeoutDueToConnectionLost): {retryable: true},
	errorText(rpctypes.ErrGRPCTimeoutWaitAppliedIndex):    {retryable: true},
	errorText(rpctypes.ErrGRPCLeaderChanged):              {retryable: true},
	errorText(rpctypes.ErrGRPCNotLeader):                  {retryable: true},
	errorText(rpctypes.ErrGRPCStopped):                    {retryable: true},
	errorText(rpctypes.ErrGRPCUnhealthy):                  {retryable: true},
	errorText(rpctypes.ErrGRPCCanceled):                   {retryable: true},
	errorText(rpctypes.ErrGRPCDeadlineExceeded):           {retryable: true},
	"lease: not primary lessor":                           {retryable: true},

	// One request is applied and answered so: the one that uses up the space.
	errorText(rpctypes.ErrGRPCNoSpace): {coordErr: coord.ErrBusy, remedy: "compact and defragment etcd or raise its quota, then disarm its alarm"},
	errorText(diskfull.Err):            {notApplied: true, coordErr: coord.ErrBusy, remedy: "free space there, or raise its ulimit -f"},
}

// errorText returns the text that identifies an error of etcd's.
func errorText(err error) string { return status.Convert(err).Message() }

// classifyError looks an error up in errorTable. gRPC's own errors go by their code.
func classifyError(err error) errorClass {
	st := status.Convert(err)
	if v, ok := errorTable[st.Message()]; ok {
		return v
	}
	switch st.Code() {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.Aborted:
		return errorClass{retryable: true}
	case codes.Unauthenticated:
		return errorClass{notApplied: true, coordErr: coord.ErrAuth}
	case codes.PermissionDenied:
		return errorClass{notApplied: true, coordErr: coord.ErrForbidden}
	case codes.Unimplemented:
		return errorClass{notApplied: true, coordErr: coord.ErrUnreachable} // not an etcd server
	}
	return errorClass{}
}

// wrap returns err with the error of coord's that it stands for.
func (c errorClass) wrap(err error) error {
	err = errors.New(errorText(err))
	if c.remedy != "" {
		err = fmt.Errorf("%w; %s", err, c.remedy)
	}
	if c.coordErr != nil {
		return fmt.Errorf("%w: %w", err, c.coordErr)
	}
	return err
}

// unknownOutcome returns the error of a commit whose answer did not come, with the cause.
func unknownOutcome(why error) error { return fmt.Errorf("%w: %w", coord.ErrUnknown, why) }

// checkContext returns an error for a context that is nil or has ended.
func checkContext(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("nil context: %w", coord.ErrInvalid)
	}
	return ctx.Err()
}
