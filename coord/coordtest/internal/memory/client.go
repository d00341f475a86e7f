package memory

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/liveness"
)

// Client is one client process of a [Service]. It implements [coord.Coordinator].
//
// A commit waits in unsent until it leaves in a batch; the batch is a request like a
// read. Requests and replies are held where a fault keeps them back, in order.
type Client struct {
	service *Service
	name    string
	number  int // distinguishes clients in names of sequential nodes, as etcd's driver does
	timeout time.Duration
	limits  coord.Limits
	openSem chan struct{} // one-token lock: held while a session is being opened
	closing chan struct{} // closed by Close

	// The rest is guarded by service.mu.
	isClosed  bool
	session   *session            // the last one; it may be over
	lastGiven map[string]*session // stepped: the session that each actor was given last

	isCut, holdsRequests, holdsReplies bool
	isPaused                           bool // stepped: the process stands still

	unsent     []*Request     // commits that wait in the queues of their sessions
	namesGiven int            // sequential nodes so far, as etcd's driver counts them
	requests   []*Request     // sent or waiting for the connection, not yet served
	replies    []*Request     // served, not yet answered
	faults     []plannedFault // of the next commits

	isLagging    bool
	signalDelay  time.Duration // 0: a signal comes as soon as it can
	listRevision int64         // the revision that listings show
	seenRevision int64         // the revision that listings with ListOptions.Seen show
	signals      []Signal      // not yet delivered, in order
}

var _ coord.Coordinator = (*Client)(nil)

// Session implements [coord.Coordinator].
func (c *Client) Session(ctx context.Context) (coord.Session, error) {
	if ctx == nil {
		return nil, fmt.Errorf("open a session without a context: %w", coord.ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for {
		current, err := c.currentSession()
		if current != nil && c.isNewTo(ctx, current) {
			AwaitTurn(ctx) // all calls that waited for this session are woken at one instant
			continue
		}
		if current != nil || err != nil {
			return current.orNil(), err
		}
		if c.service.isStepped {
			AwaitTurn(ctx)
			if err := ctx.Err(); err != nil { // the select below would choose at random
				return nil, c.wrapUnreachable(err)
			}
		}
		select {
		case c.openSem <- struct{}{}:
		case <-c.closing:
			return nil, coord.ErrClosed
		case <-ctx.Done():
			return nil, c.wrapUnreachable(ctx.Err())
		}
		err = c.openSession(ctx)
		<-c.openSem
		if err != nil {
			return nil, err
		}
	}
}

// Close implements [coord.Coordinator]. It does not wait for a service that it cannot
// reach.
func (c *Client) Close() error {
	s := c.service
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.isClosed {
		return nil
	}
	last := c.closeLocked()
	if last == nil {
		return nil
	}
	kept := s.findSessionLocked(last.id)
	switch {
	case kept == nil:
	case s.isStepped:
		c.requests = append(c.requests, &Request{session: last, Kind: "close", isSent: true, isAbandoned: true, apply: func(kept *serverSession) error {
			s.endSessionLocked(kept)
			return nil
		}})
	case c.RequestsPassLocked():
		s.endSessionLocked(kept)
	}
	s.armTimerLocked()
	return nil
}

// closeLocked ends the client's own process, and returns its last session. The service
// is not told.
func (c *Client) closeLocked() *session {
	c.isClosed = true
	close(c.closing)
	if c.session != nil {
		c.session.endLocked()
	}
	c.service.AnnounceWork()
	c.service.clients = slices.DeleteFunc(c.service.clients, func(o *Client) bool { return o == c })
	c.service.TrimHistoryLocked()
	return c.session
}

// currentSession returns the session that callers may use, or nil when there is none.
// The error is [coord.ErrClosed].
func (c *Client) currentSession() (*session, error) {
	c.service.mu.Lock()
	defer c.service.mu.Unlock()
	if c.isClosed {
		return nil, coord.ErrClosed
	}
	if current := c.session; current != nil && current.isChecked && current.checkAliveLocked() == nil {
		return current, nil
	}
	return nil, nil
}

// isNewTo reports whether the actor that the context names was not given this session
// before, and notes that it is given it now. It is false unless the service is stepped.
func (c *Client) isNewTo(ctx context.Context, given *session) bool {
	if !c.service.isStepped {
		return false
	}
	actor := actorOf(ctx)
	c.service.mu.Lock()
	defer c.service.mu.Unlock()
	if c.lastGiven == nil {
		c.lastGiven = make(map[string]*session)
	}
	known := c.lastGiven[actor] == given
	c.lastGiven[actor] = given
	return !known
}

// openSession opens a session unless there is one. A session that ends before it is
// checked is no error: the caller tries again.
func (c *Client) openSession(ctx context.Context) error {
	if current, err := c.currentSession(); current != nil || err != nil {
		return err
	}
	q := &Request{Kind: "open"}
	q.apply = func(*serverSession) error {
		q.openedSession = c.service.openSessionLocked(c)
		return nil
	}
	if err := c.call(ctx, q); err != nil {
		return c.wrapUnreachable(err)
	}
	opened := q.openedSession
	err := coord.CheckFormat(ctx, opened)
	c.service.mu.Lock()
	defer c.service.mu.Unlock()
	if err == nil {
		opened.isChecked = true
		return nil
	}
	opened.endLocked()
	if kept := c.service.findSessionLocked(opened.id); kept != nil && c.RequestsPassLocked() && !c.service.isStepped {
		c.service.endSessionLocked(kept)
	}
	c.service.armTimerLocked()
	if opened.isLost {
		return nil
	}
	return fmt.Errorf("open a session: %w", err)
}

// wrapUnreachable adds [coord.ErrUnreachable] to the error of a client that has no
// connection.
func (c *Client) wrapUnreachable(err error) error {
	c.service.mu.Lock()
	defer c.service.mu.Unlock()
	if c.isClosed || c.IsConnectedLocked() {
		return fmt.Errorf("open a session: %w", err)
	}
	return fmt.Errorf("open a session: %w: %w", coord.ErrUnreachable, err)
}

// IsConnectedLocked reports whether messages pass both ways.
func (c *Client) IsConnectedLocked() bool {
	return !c.isCut && !c.holdsRequests && !c.holdsReplies && !c.service.isStopped
}

// RequestsPassLocked reports whether what the client sends reaches the service.
func (c *Client) RequestsPassLocked() bool {
	return !c.isCut && !c.holdsRequests && !c.service.isStopped
}

// repliesPassLocked reports whether what the service sends reaches the client.
func (c *Client) repliesPassLocked() bool {
	return !c.isCut && !c.holdsReplies && !c.service.isStopped
}

// updateDeadlinesLocked sets when the session ends at the client and at the service,
// after a change of the connection. Heartbeats are not sent one by one: while they
// pass there is no deadline, and it is set when they cease to.
func (c *Client) updateDeadlinesLocked() {
	current := c.session
	if current == nil {
		return
	}
	now := time.Now()
	if c.IsConnectedLocked() && !c.isPaused {
		current.deadline = time.Time{}
	} else if current.deadline.IsZero() {
		current.deadline = now.Add(liveness.Trust(current.timeout))
	}
	kept := c.service.findSessionLocked(current.id)
	if kept == nil {
		return
	}
	if c.RequestsPassLocked() && !c.isPaused && !current.isOver {
		kept.expires = time.Time{}
	} else if kept.expires.IsZero() {
		kept.expires = now.Add(current.timeout)
	}
}

// disconnectLocked takes the connection away. Commits that were sent on it are
// unknown, reads go again on the next connection.
func (c *Client) disconnectLocked() {
	var unanswered []*Request
	replies := c.replies
	c.replies = nil
	for _, q := range replies {
		switch {
		case q.isLocal:
			c.replies = append(c.replies, q)
		case q.batch != nil:
			c.AnswerLaterLocked(q, coord.ErrUnknown)
		default:
			unanswered = append(unanswered, q)
		}
	}
	for _, q := range c.requests {
		if q.batch != nil {
			c.AnswerLaterLocked(q, coord.ErrUnknown)
		} else {
			unanswered = append(unanswered, q)
		}
	}
	for _, q := range unanswered {
		q.isSent = false
	}
	c.requests = unanswered
	c.updateDeadlinesLocked()
}

// reconnectLocked gives the connection back, unless another fault still keeps it away.
// The client learns here of a session that the service has ended. Every watch signals,
// for a change may have been missed.
func (c *Client) reconnectLocked() {
	if current := c.session; current != nil && current.checkAliveLocked() == nil && c.IsConnectedLocked() {
		if c.service.findSessionLocked(current.id) == nil {
			current.loseLocked()
		}
	}
	c.updateDeadlinesLocked()
	if c.IsConnectedLocked() {
		if c.session != nil {
			for _, sub := range c.session.subscriptions {
				c.queueSignalLocked(Signal{revision: c.service.state.revision, subscription: sub})
			}
		}
		if !c.isLagging {
			c.catchUpLocked()
		}
		c.deliverDueSignalsLocked()
	}
	c.passHeldLocked()
}
