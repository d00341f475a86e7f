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

type sentMarkKey struct{}

// withSentMark puts an envelope around the one request made with the context.
func withSentMark(ctx context.Context) (context.Context, *sentMark) {
	e := new(sentMark)
	return context.WithValue(ctx, sentMarkKey{}, e), e
}

// sentMarker marks envelopes. gRPC's own word is the only one there is on whether a
// request that failed was sent: an error code Unavailable may mean either.
type sentMarker struct{}

func (sentMarker) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (sentMarker) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (sentMarker) HandleConn(context.Context, stats.ConnStats)                       {}

func (sentMarker) HandleRPC(ctx context.Context, s stats.RPCStats) {
	e, ok := ctx.Value(sentMarkKey{}).(*sentMark)
	if !ok {
		return
	}
	switch s := s.(type) {
	case *stats.Begin:
		if s.IsTransparentRetryAttempt { // the server said that it left the last attempt alone
			e.sent.Store(false)
		}
	case *stats.OutHeader, *stats.OutPayload:
		e.sent.Store(true)
	}
}

// joinContexts returns a context that ends with ctx and, for its reason, with owner.
func joinContexts(ctx, owner context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(owner, func() { cancel(context.Cause(owner)) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
	}
}

// stopReason is why no more may be sent with ctx: the user's own context speaks
// first; nil: go on.
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

func newRetrier() *retrier {
	return &retrier{backoff: retry.Backoff{First: 5 * time.Millisecond, Max: 100 * time.Millisecond, Linear: true}}
}

// maxAuthRetries is how often a request is sent again because the service no longer
// knew its token: the client fetches a new one in between.
const maxAuthRetries = 3

// waitForRetry waits before another attempt, after err. False: there shall be none.
func (r *retrier) waitForRetry(ctx context.Context, v errorClass) bool {
	if !v.retryable {
		return false
	}
	if v.coordErr == coord.ErrAuth {
		if r.auth++; r.auth > maxAuthRetries {
			return false
		}
	}
	_ = r.backoff.Wait(ctx, nil, nil) // the caller looks at ctx before it sends
	return true
}

// doRepeatable makes a request that changes nothing, or may be made twice, until it is
// answered; user is the context that the caller knows, ctx the one within it.
func (c *Coordinator) doRepeatable(user, ctx context.Context, f func(context.Context) error) error {
	r := newRetrier()
	for {
		if err := stopReason(user, ctx); err != nil {
			return err
		}
		err := f(clientv3.WithRequireLeader(ctx))
		if err == nil {
			c.dialer.noteLeader()
			return nil
		}
		if why := stopReason(user, ctx); why != nil {
			return why
		}
		v := c.classify(err)
		if !r.waitForRetry(ctx, v) {
			return v.wrap(err)
		}
	}
}

// classify looks an error up, and tells the link what it says of the member.
func (c *Coordinator) classify(err error) errorClass {
	switch errorText(err) {
	case textNoLeader, textLearner:
		c.dialer.noteNoLeader()
	}
	return classifyError(err)
}
