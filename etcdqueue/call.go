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
)

// waiting are the options of calls that wait for a connection.
var waiting = []grpc.CallOption{grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(math.MaxInt32)}

// envelope says whether a request may have reached the service.
type envelope struct{ sent atomic.Bool }

type envelopeKey struct{}

// seal puts an envelope around the one request made with the context.
func seal(ctx context.Context) (context.Context, *envelope) {
	e := new(envelope)
	return context.WithValue(ctx, envelopeKey{}, e), e
}

// postmark marks envelopes. gRPC's own word is the only one there is on whether a
// request that failed was sent: an error code Unavailable may mean either.
type postmark struct{}

func (postmark) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (postmark) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (postmark) HandleConn(context.Context, stats.ConnStats)                       {}

func (postmark) HandleRPC(ctx context.Context, s stats.RPCStats) {
	e, ok := ctx.Value(envelopeKey{}).(*envelope)
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

// within returns a context that ends with ctx and, for its reason, with owner.
func within(ctx, owner context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(owner, func() { cancel(context.Cause(owner)) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
	}
}

// stopped is why no more may be sent with ctx: the user's own context speaks
// first; nil: go on.
func stopped(user, ctx context.Context) error {
	if err := user.Err(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// retries paces one request's attempts.
type retries struct{ n, auth int }

// maxAuth is how often a request is sent again because the service no longer
// knew its token: the client fetches a new one in between.
const maxAuth = 3

// again waits before another attempt, after err. False: there shall be none.
func (r *retries) again(ctx context.Context, v verdict) bool {
	if !v.again {
		return false
	}
	if v.means == coord.ErrAuth {
		if r.auth++; r.auth > maxAuth {
			return false
		}
	}
	r.n++
	pause := min(time.Duration(r.n)*5*time.Millisecond, 100*time.Millisecond)
	select {
	case <-time.After(pause):
		return true
	case <-ctx.Done():
		return true // the caller looks at ctx before it sends
	}
}

// ask makes a request that changes nothing, or may be made twice, until it is
// answered; user is the context that the caller knows, ctx the one within it.
func (c *Coordinator) ask(user, ctx context.Context, f func(context.Context) error) error {
	var r retries
	for {
		if err := stopped(user, ctx); err != nil {
			return err
		}
		err := f(clientv3.WithRequireLeader(ctx))
		if err == nil {
			c.link.served()
			return nil
		}
		if why := stopped(user, ctx); why != nil {
			return why
		}
		v := c.judge(err)
		if !r.again(ctx, v) {
			return v.wrap(err)
		}
	}
}

// judge looks an error up, and tells the link what it says of the member.
func (c *Coordinator) judge(err error) verdict {
	switch text(err) {
	case noLeader, learner:
		c.link.leaderless()
	}
	return judge(err)
}
