package etcdqueue

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
)

// waitForReady are the options of calls that wait for a connection.
var waitForReady = []grpc.CallOption{grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(math.MaxInt32)}

// sentMark says whether a request may have reached the service.
type sentMark struct{ sent atomic.Bool }

// sentMarkKey is the key of a sentMark in a context.
type sentMarkKey struct{}

// withSentMark returns a context for one request, and the mark of that request.
func withSentMark(ctx context.Context) (context.Context, *sentMark) {
	e := new(sentMark)
	return context.WithValue(ctx, sentMarkKey{}, e), e
}

// sentMarker is a gRPC stats handler that sets sentMarks. Only gRPC knows whether a request
// that failed was sent: the code Unavailable can mean either.
type sentMarker struct{}

func (sentMarker) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (sentMarker) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (sentMarker) HandleConn(context.Context, stats.ConnStats)                       {}

// HandleRPC sets the mark of a request when its header or its message goes out.
func (sentMarker) HandleRPC(ctx context.Context, s stats.RPCStats) {
	e, ok := ctx.Value(sentMarkKey{}).(*sentMark)
	if !ok {
		return
	}
	switch s := s.(type) {
	case *stats.Begin:
		if s.IsTransparentRetryAttempt { // the server did not process the last attempt
			e.sent.Store(false)
		}
	case *stats.OutHeader, *stats.OutPayload:
		e.sent.Store(true)
	}
}

// joinContexts returns a context that ends with ctx, or with owner and owner's cause.
func joinContexts(ctx, owner context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(owner, func() { cancel(context.Cause(owner)) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
	}
}

// stopReason returns why nothing more may be sent with ctx, or nil. The error of the user's
// own context comes first.
func stopReason(user, ctx context.Context) error {
	if err := user.Err(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// retrier decides whether one request is sent again, and paces its attempts.
type retrier struct {
	backoff retry.Backoff
	auth    int // attempts that failed for a token that the service no longer knew
}

// newRetrier returns a retrier whose pauses grow by 5 ms with each attempt, up to 100 ms.
func newRetrier() *retrier {
	return &retrier{backoff: retry.Backoff{First: 5 * time.Millisecond, Max: 100 * time.Millisecond, Linear: true}}
}

// maxAuthRetries is how often a request is sent again because the service did not know its
// token any longer. The client fetches a new token in between.
const maxAuthRetries = 3

// decide returns how a request goes on after an error of that class: later, or not at all.
func (r *retrier) decide(class errorClass) retry.Decision {
	if !class.retryable {
		return retry.Stop
	}
	if class.coordErr == coord.ErrAuth {
		if r.auth++; r.auth > maxAuthRetries {
			return retry.Stop
		}
	}
	return retry.Later
}

// doRepeatable makes a request until it is answered. The request changes nothing, or may be
// made twice. user is the context of the caller, and ctx one that ends with it.
func (c *Coordinator) doRepeatable(user, ctx context.Context, f func(context.Context) error) error {
	r := newRetrier()
	var err error
	r.backoff.Repeat(ctx, nil, func() retry.Decision {
		if err = stopReason(user, ctx); err != nil {
			return retry.Stop
		}
		if err = f(clientv3.WithRequireLeader(ctx)); err == nil {
			c.dialer.noteLeader()
			return retry.Stop
		}
		if why := stopReason(user, ctx); why != nil {
			err = why
			return retry.Stop
		}
		class := c.classify(err)
		err = class.wrap(err)
		return r.decide(class)
	})
	return err
}

// classify classifies an error, and tells the dialer if the member has no leader.
func (c *Coordinator) classify(err error) errorClass {
	switch errorText(err) {
	case textNoLeader, textLearner:
		c.dialer.noteNoLeader()
	}
	return classifyError(err)
}
