package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
)

// Request is one message of a client to the service, and the call that waits for its
// answer. A commit is different: the call waits in its session's queue, and the batch
// that carries it, perhaps with others, is a Request of its own without a caller.
type Request struct {
	Kind  string     // for reports
	Actor string     // the goroutine that called, by the name [WithActor] gave it
	Paths []string   // of a read
	Ops   []coord.Op // of a commit, never nil there; of a batch, all of its commits' ops

	// NotBefore is when package sim serves the request at the earliest. A stepped
	// service only keeps it.
	NotBefore time.Time

	session *session // nil: the request opens one
	isNew   bool     // stepped: sent since the last step, and not yet in its order

	// Of a commit.
	commit          *group.Commit // its place in the session's queue
	revisionAtCall  int64         // the service's revision at the call
	knownRevision   int64         // the one the client's listings showed then
	results         []coord.Result
	appliedRevision int64

	// Of a batch.
	batch    *group.Batch
	outcomes []group.Outcome // set by apply

	// apply does the work at the service, for the session that the service keeps.
	apply         func(*serverSession) error
	openedSession *session // of a request that opens one

	isSent      bool // if its connection ends, the outcome of a commit is unknown
	isAbandoned bool // the caller has gone
	isLocal     bool // the answer comes from the client itself and needs no connection
	isAnswered  bool
	err         error
	done        chan struct{} // closed when the request is answered
}

// call sends q and waits for its answer, for the end of ctx, or for the end of the
// session or the client.
func (c *Client) call(ctx context.Context, q *Request) error {
	ended := c.closing
	if q.session != nil {
		ended = q.session.done
	}
	if c.service.isStepped {
		ended = nil // a step ends the waiting calls one by one: see CallToEndLocked
	}
	q.done = make(chan struct{})
	q.Actor = actorOf(ctx)
	c.service.mu.Lock()
	for !c.service.isStepped && c.service.ExpireNextLocked() {
		// The timer may be late; a session whose time is over must not be used.
	}
	if err := c.checkCallLocked(ctx, q); err != nil {
		c.service.mu.Unlock()
		return err
	}
	if q.commit != nil {
		c.enqueueCommitLocked(q)
	} else {
		c.submitLocked(q)
	}
	c.service.armTimerLocked()
	c.service.mu.Unlock()
	select {
	case <-q.done:
	case <-ctx.Done():
	case <-ended:
	}
	c.service.mu.Lock()
	defer c.service.mu.Unlock()
	return c.outcomeLocked(ctx, q)
}

// checkCallLocked returns why q cannot be sent: the client is closed, the session is
// over, or ctx has ended.
func (c *Client) checkCallLocked(ctx context.Context, q *Request) error {
	if c.isClosed {
		return coord.ErrClosed
	}
	if q.session != nil {
		if err := q.session.checkAliveLocked(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// submitLocked serves q at once if it can, and queues it otherwise.
func (c *Client) submitLocked(q *Request) {
	q.isSent = !c.isCut && !c.service.isStopped
	if !c.service.isStepped && c.RequestsPassLocked() && len(c.requests) == 0 {
		c.serveLocked(q)
		return
	}
	q.isNew = true
	c.requests = append(c.requests, q)
	c.service.AnnounceWork()
}

// enqueueCommitLocked lets q wait for its batch. In a stepped service q enters the
// session's queue only with the next step, in an order that the scheduler does not
// decide.
func (c *Client) enqueueCommitLocked(q *Request) {
	q.revisionAtCall, q.knownRevision = c.service.state.revision, c.listRevision
	c.unsent = append(c.unsent, q)
	if c.service.isStepped {
		q.isNew = true
		c.service.AnnounceWork()
		return
	}
	q.session.commits.Add(q.commit)
	c.passHeldLocked()
}

// sendAllLocked sends all commits that wait.
func (c *Client) sendAllLocked() {
	for _, q := range slices.Clone(c.unsent) {
		for b := q.session.commits.Next(); b != nil; b = q.session.commits.Next() {
			c.sendBatchLocked(q.session, b)
		}
	}
}

// sendBatchLocked puts a batch on its way.
func (c *Client) sendBatchLocked(by *session, b *group.Batch) {
	q := &Request{session: by, Kind: "commit", batch: b, isSent: true}
	if len(b.Commits) > 1 {
		q.Kind = "commits"
	}
	for _, member := range b.Commits {
		call := member.Caller.(*Request)
		call.isSent = true
		q.Ops = append(q.Ops, call.Ops...)
		c.unsent = slices.DeleteFunc(c.unsent, func(o *Request) bool { return o == call })
		q.Actor = call.Actor
	}
	q.apply = func(kept *serverSession) error {
		q.outcomes = c.service.commitLocked(kept, b)
		return nil
	}
	c.requests = append(c.requests, q)
}

// answerBatchLocked calls answer for each commit of a batch, in order. A commit that
// was not tried because another of the batch was refused waits again instead. A caller
// that has gone was told already that the outcome is unknown.
func (c *Client) answerBatchLocked(q *Request, outcomes []group.Outcome, answer func(*Request, error)) {
	for i, member := range q.batch.Commits {
		call := member.Caller.(*Request)
		switch outcome := outcomes[i]; {
		case outcome.Again() && call.HasCaller():
			call.isSent = false
			c.unsent = append(c.unsent, call)
		case outcome.Again():
			outcomes[i].Err = nil
		default:
			call.results = outcome.Results
			answer(call, outcome.Err)
		}
	}
	q.session.commits.Requeue(q.batch, outcomes)
}

// sharedOutcome returns the outcomes of a batch whose commits all end with err.
func (q *Request) sharedOutcome(err error) []group.Outcome {
	outcomes := make([]group.Outcome, len(q.batch.Commits))
	for i := range outcomes {
		outcomes[i].Err = err
	}
	return outcomes
}

// IsBatch reports whether q carries commits.
func (q *Request) IsBatch() bool { return q.batch != nil }

// HasCaller reports whether a caller waits for q, or for a commit of it.
func (q *Request) HasCaller() bool {
	if q.batch == nil {
		return !q.isAnswered && !q.isAbandoned
	}
	return slices.ContainsFunc(q.batch.Commits, func(m *group.Commit) bool { return m.Caller.(*Request).HasCaller() })
}

// namer names sequential nodes as etcd's driver does. A name begins with the revision
// that the client knew when the commit was called, so it may sort before a name that
// stands already. If a name with the prefix stands that does not sort before it, the
// service's revision at the call is used; names may be out of order even then.
func (q *Request) namer(now time.Time) func(dir, prefix string) string {
	c, revision := q.session.client, q.knownRevision
	return func(dir, prefix string) string {
		c.namesGiven++
		name := func() string {
			return fmt.Sprintf("%s%019d-%013d-%08x-%06d", prefix, revision, now.UnixMilli(), c.number, c.namesGiven)
		}
		if d := c.service.state.dirs[dir]; d != nil {
			i, _ := slices.BinarySearch(d.names, name())
			if i < len(d.names) && strings.HasPrefix(d.names[i], prefix) {
				revision = q.revisionAtCall
			}
		}
		return name()
	}
}

// outcomeLocked returns how q ended for its caller, which stops waiting now.
func (c *Client) outcomeLocked(ctx context.Context, q *Request) error {
	if q.isAnswered {
		return q.err
	}
	q.isAbandoned = true
	c.replies = slices.DeleteFunc(c.replies, func(o *Request) bool { return o == q })
	err := c.checkCallLocked(ctx, q)
	if q.commit != nil && q.isSent {
		if errors.Is(err, ctx.Err()) {
			return fmt.Errorf("%w: %w", coord.ErrUnknown, err)
		}
		return coord.ErrUnknown
	}
	c.withdrawLocked(q)
	return err
}

// withdrawLocked removes a call that was not sent.
func (c *Client) withdrawLocked(q *Request) {
	isIt := func(o *Request) bool { return o == q }
	c.requests = slices.DeleteFunc(c.requests, isIt)
	if q.commit != nil {
		c.unsent = slices.DeleteFunc(c.unsent, isIt)
		q.session.commits.Remove(q.commit)
	}
}

// passHeldLocked lets through, in order, what the connection kept back. In a stepped
// service each reply and each request is a step.
func (c *Client) passHeldLocked() {
	if c.repliesPassLocked() && !c.service.isStepped {
		replies := c.replies
		c.replies = nil
		for _, q := range replies {
			c.AnswerLocked(q, q.err)
		}
	}
	if !c.service.isStopped && !c.isCut {
		for _, q := range c.requests {
			q.isSent = true
		}
	}
	if c.service.isStepped {
		return
	}
	for {
		if !c.service.isStopped && !c.isCut {
			c.sendAllLocked()
		}
		if len(c.requests) == 0 || !c.RequestsPassLocked() {
			return
		}
		q := c.requests[0]
		c.requests = c.requests[1:]
		c.serveLocked(q)
	}
}

// serveLocked lets q arrive at the service, with the fault that was planned for it.
func (c *Client) serveLocked(q *Request) {
	f := plannedFault{applies: true}
	if q.batch != nil && len(c.faults) > 0 {
		f = c.faults[0]
		c.faults = c.faults[1:]
	}
	err := f.err
	if f.applies {
		err = c.service.ApplyLocked(q)
	}
	if f.err != nil {
		c.AnswerLaterLocked(q, f.err)
		if errors.Is(f.err, coord.ErrUnknown) {
			c.reconnectLocked()
		}
		return
	}
	if !c.repliesPassLocked() || c.service.isStepped {
		q.err = err
		c.replies = append(c.replies, q)
		return
	}
	c.AnswerLocked(q, err)
}

// ApplyLocked does q at the service, unless its session is over there.
func (s *Service) ApplyLocked(q *Request) error {
	if q.session == nil {
		return q.apply(nil)
	}
	if kept := s.findSessionLocked(q.session.id); kept != nil {
		return q.apply(kept)
	}
	return coord.ErrSessionLost
}

// AnswerLaterLocked ends q with an error that the client finds out by itself, without
// the service. In a stepped service the caller is told in a step of its own.
func (c *Client) AnswerLaterLocked(q *Request, err error) {
	if q.batch != nil {
		c.answerBatchLocked(q, q.sharedOutcome(err), c.AnswerLaterLocked)
		return
	}
	if c.service.isStepped && !q.isAnswered && !q.isAbandoned {
		q.err, q.isLocal = err, true
		c.replies = append(c.replies, q)
		return
	}
	c.AnswerLocked(q, err)
}

// AnswerLocked ends q and wakes its caller. Of a batch it wakes the first caller that
// still waits; in a stepped service the others are told in steps of their own.
func (c *Client) AnswerLocked(q *Request, err error) {
	if q.batch != nil {
		answer, outcomes := c.AnswerLocked, q.outcomes
		if err != nil {
			outcomes = q.sharedOutcome(err)
		}
		c.answerBatchLocked(q, outcomes, func(call *Request, err error) {
			isFirst := call.HasCaller()
			answer(call, err)
			if isFirst {
				answer = c.AnswerLaterLocked
			}
		})
		return
	}
	if q.isAnswered || q.isAbandoned {
		return
	}
	if errors.Is(err, coord.ErrSessionLost) {
		q.session.loseLocked()
	}
	if q.openedSession != nil && err == nil {
		c.session = q.openedSession
		c.updateDeadlinesLocked()
	}
	q.isAnswered, q.err = true, err
	if q.commit != nil && err == nil && c.service.isStepped && c.showOwnCommitLocked(q) {
		c.service.wakeLaterLocked(func() { close(q.done) })
		return
	}
	close(q.done)
}
