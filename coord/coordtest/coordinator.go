package coordtest

import (
	"context"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest/internal/memory"
)

// Coordinator is one client of a [Store]; the service takes each for a process of its
// own. It implements [coord.Coordinator]. Its other methods cause the faults that may
// happen to a client. They have no effect on a closed one.
type Coordinator struct{ client *memory.Client }

var _ coord.Coordinator = (*Coordinator)(nil)

// Session implements [coord.Coordinator].
func (c *Coordinator) Session(ctx context.Context) (coord.Session, error) {
	return c.client.Session(ctx)
}

// Close implements [coord.Coordinator]. If the client cannot reach the service, Close
// returns at once, and the session ends at the service by its timeout.
func (c *Coordinator) Close() error { return c.client.Close() }

// Cut takes the client's connection away, both ways, until [Coordinator.Heal]. Calls
// wait. By the client's clock its session is over after five sixths of the session
// timeout; at the service it ends after the whole timeout.
func (c *Coordinator) Cut() { c.client.Cut() }

// Heal ends a [Coordinator.Cut] or a hold. Held messages are delivered. If the service
// ended the session meanwhile, the client learns of it now.
func (c *Coordinator) Heal() { c.client.Heal() }

// HoldRequests keeps back what the client sends, until [Coordinator.Heal] delivers it.
// A commit whose caller gave up long ago is applied then, if its session still stands.
func (c *Coordinator) HoldRequests() { c.client.HoldRequests() }

// HoldReplies keeps back what the service answers, until [Coordinator.Heal]. Commits
// are applied, and their callers wait. Heartbeats of the client arrive, so the service
// keeps the session; the client gets no answer to them and gives the session up.
func (c *Coordinator) HoldReplies() { c.client.HoldReplies() }

// DropReply loses the answer to the next commit. The commit is applied, or refused, and
// its error is [coord.ErrUnknown]. It, [Coordinator.DropRequest], [Coordinator.Refuse]
// and [Coordinator.Pass] may be called several times, each for one commit more.
func (c *Coordinator) DropReply() { c.client.DropReply() }

// DropRequest loses the next commit on its way. It is not applied, and its error is
// [coord.ErrUnknown], for the client cannot tell.
func (c *Coordinator) DropRequest() { c.client.DropRequest() }

// Refuse has the next commit end with err, for example [coord.ErrBusy]. It is certainly
// not applied.
func (c *Coordinator) Refuse(err error) { c.client.Refuse(err) }

// Pass lets the next commit through. A fault that is called after it happens to the
// second commit.
func (c *Coordinator) Pass() { c.client.Pass() }

// Expire ends the client's session at the service now and reports whether it had one.
func (c *Coordinator) Expire() bool { return c.client.Expire() }

// Lag lets the client's server fall behind until [Coordinator.CatchUp]: signals are
// kept back, and listings that are not fresh show the state of now. A commit of the
// client's own and a fresh listing bring it up to the present, where it stays behind
// again.
func (c *Coordinator) Lag() { c.client.Lag() }

// LagBy delays the client's signals by d, until [Coordinator.CatchUp]. Before the signal
// of a change, a listing of the watched directory with [coord.ListOptions].Seen does not
// show the change, not even one of the client's own commits. A real service shows those
// at once, except when the answer to the commit was lost; a queue must be safe then, too.
// All other reads are as in a [Coordinator.Lag]. Clients of a simulator cannot do this.
func (c *Coordinator) LagBy(d time.Duration) { c.client.LagBy(d) }

// CatchUp ends a [Coordinator.Lag] or [Coordinator.LagBy].
func (c *Coordinator) CatchUp() { c.client.CatchUp() }

// Crash kills the client's process. It sends nothing more. Its calls end with
// [coord.ErrClosed], or with [coord.ErrUnknown] if a commit was on its way. Its session
// ends at the service when the timeout has passed.
func (c *Coordinator) Crash() { c.client.Crash() }
