package coordtest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/liveness"
)

// Coordinator is one client of a [Store], in a process of its own as far as the
// service can tell. Besides the contract it has the faults that may happen to
// such a client; each is without effect on a closed one.
type Coordinator struct {
	store   *Store
	name    string
	number  int
	timeout time.Duration
	limits  coord.Limits
	opening chan struct{} // holds one token while a session is being opened
	gone    chan struct{} // closed by Close

	// The rest is guarded by store.mu.
	closed  bool
	session *session            // the last one
	met     map[string]*session // by whom: the last that each was given, in a simulator

	cut, holdRequests, holdReplies bool
	paused                         bool // by a simulator: the process stands still

	unsent  []*request // commits that wait in the queues of their sessions
	named   int        // sequential nodes so far, as etcd's driver counts them
	queue   []*request // not yet arrived
	replies []*request // arrived, not yet answered
	faults  []fault    // of the next commits

	lagging bool
	delay   time.Duration // of each signal; 0: signals come as soon as they can
	view    int64         // the revision that listings have reached
	seen    int64         // the one that listings of what was seen have reached
	signals []signal      // not yet delivered, in order
}

var _ coord.Coordinator = (*Coordinator)(nil)

// Session implements [coord.Coordinator].
func (c *Coordinator) Session(ctx context.Context) (coord.Session, error) {
	if ctx == nil {
		return nil, fmt.Errorf("open a session without a context: %w", coord.ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for {
		l, err := c.live()
		if l != nil && c.meets(ctx, l) {
			InTurn(ctx) // the same that is open for one is open for all who waited
			continue
		}
		if l != nil || err != nil {
			return l.orNil(), err
		}
		if c.store.simulated {
			InTurn(ctx)
			if err := ctx.Err(); err != nil { // a select with two ways open draws by itself
				return nil, c.unreachable(err)
			}
		}
		select {
		case c.opening <- struct{}{}:
		case <-c.gone:
			return nil, coord.ErrClosed
		case <-ctx.Done():
			return nil, c.unreachable(ctx.Err())
		}
		err = c.open(ctx)
		<-c.opening
		if err != nil {
			return nil, err
		}
	}
}

// Close implements [coord.Coordinator]. A client that cannot reach the service
// does not wait for it.
func (c *Coordinator) Close() error {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.closed {
		return nil
	}
	l := c.leave()
	if l == nil {
		return nil
	}
	r := s.remote(l.id)
	switch {
	case r == nil:
	case s.simulated:
		c.queue = append(c.queue, &request{session: l, kind: "close", sent: true, abandoned: true, apply: func(r *remote) error {
			s.end(r)
			return nil
		}})
	case c.requestsReach():
		s.end(r)
	}
	s.arm()
	return nil
}

// leave closes c as far as its own process goes.
func (c *Coordinator) leave() *session {
	c.closed = true
	close(c.gone)
	if c.session != nil {
		c.session.end()
	}
	c.store.nudge()
	c.store.clients = slices.DeleteFunc(c.store.clients, func(o *Coordinator) bool { return o == c })
	c.store.trim()
	return c.session
}

func (c *Coordinator) live() (*session, error) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.closed {
		return nil, coord.ErrClosed
	}
	if l := c.session; l != nil && l.checked && l.alive() == nil {
		return l, nil
	}
	return nil, nil
}

// meets says whether the session is new to whom the context names: in a simulator each
// of those who were waiting for it goes on at an instant of its own.
func (c *Coordinator) meets(ctx context.Context, l *session) bool {
	if !c.store.simulated {
		return false
	}
	actor, _ := ctx.Value(actorKey{}).(string)
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.met == nil {
		c.met = make(map[string]*session)
	}
	known := c.met[actor] == l
	c.met[actor] = l
	return !known
}

func (c *Coordinator) open(ctx context.Context) error {
	if l, err := c.live(); l != nil || err != nil {
		return err
	}
	q := &request{kind: "open"}
	q.apply = func(*remote) error {
		q.opened = c.store.open(c)
		return nil
	}
	if err := c.do(ctx, q); err != nil {
		return c.unreachable(err)
	}
	l := q.opened
	err := coord.CheckFormat(ctx, l)
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if err == nil {
		l.checked = true
		return nil
	}
	l.end()
	if r := c.store.remote(l.id); r != nil && c.requestsReach() && !c.store.simulated {
		c.store.end(r)
	}
	c.store.arm()
	if l.lost {
		return nil // a session that ended meanwhile is no reason not to open another
	}
	return fmt.Errorf("open a session: %w", err)
}

func (c *Coordinator) unreachable(err error) error {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.closed || c.connected() {
		return fmt.Errorf("open a session: %w", err)
	}
	return fmt.Errorf("open a session: %w: %w", coord.ErrUnreachable, err)
}

func (c *Coordinator) connected() bool {
	return !c.cut && !c.holdRequests && !c.holdReplies && !c.store.down
}

func (c *Coordinator) requestsReach() bool {
	return !c.cut && !c.holdRequests && !c.store.down
}

func (c *Coordinator) repliesReach() bool {
	return !c.cut && !c.holdReplies && !c.store.down
}

// hear sets both ends of the session's time by what the connection lets through:
// heartbeats go all the time, until they do not.
func (c *Coordinator) hear() {
	l := c.session
	if l == nil {
		return
	}
	now := time.Now()
	if c.connected() && !c.paused {
		l.deadline = time.Time{}
	} else if l.deadline.IsZero() {
		l.deadline = now.Add(liveness.Trust(l.timeout))
	}
	r := c.store.remote(l.id)
	if r == nil {
		return
	}
	if c.requestsReach() && !c.paused && !l.over {
		r.expires = time.Time{}
	} else if r.expires.IsZero() {
		r.expires = now.Add(l.timeout)
	}
}

// disconnect takes the connection away: what was sent on it is not answered.
func (c *Coordinator) disconnect() {
	var again []*request
	replies := c.replies
	c.replies = nil
	for _, q := range replies {
		switch {
		case q.local:
			c.replies = append(c.replies, q)
		case q.batch != nil:
			c.answer(q, coord.ErrUnknown)
		default:
			again = append(again, q)
		}
	}
	for _, q := range c.queue {
		if q.batch != nil {
			c.answer(q, coord.ErrUnknown)
		} else {
			again = append(again, q)
		}
	}
	for _, q := range again {
		q.sent = false
	}
	c.queue = again
	c.hear()
}

// reconnect gives the connection back, if nothing else keeps it away.
func (c *Coordinator) reconnect() {
	if l := c.session; l != nil && l.alive() == nil && c.connected() {
		if c.store.remote(l.id) == nil {
			l.lose()
		}
	}
	c.hear()
	if c.connected() {
		for l := c.session; l != nil && len(l.subs) > 0; l = nil {
			for _, sub := range l.subs {
				c.notify(signal{revision: c.store.st.revision, sub: sub})
			}
		}
		if !c.lagging {
			c.catchUp()
		}
		c.deliverDue()
	}
	c.pump()
}
