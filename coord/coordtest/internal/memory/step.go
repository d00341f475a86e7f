package memory

import (
	"cmp"
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
)

// This file has the steps of a stepped service. Package sim chooses among them; it
// holds the lock from the first look to the end of the step.

// Lock locks the service and all its clients.
func (s *Service) Lock() { s.mu.Lock() }

// Unlock ends a [Service.Lock].
func (s *Service) Unlock() { s.mu.Unlock() }

// Work holds a token when a client may have sent something since the last step.
func (s *Service) Work() <-chan struct{} { return s.work }

// AnnounceWork leaves a token in [Service.Work].
func (s *Service) AnnounceWork() {
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// IsStoppedLocked reports whether the service is stopped.
func (s *Service) IsStoppedLocked() bool { return s.isStopped }

// NextExpiryLocked returns when the next session ends, at its client or at the
// service; zero if none is due to end.
func (s *Service) NextExpiryLocked() time.Time {
	at, _, _ := s.nextExpiryLocked()
	return at
}

// wakeLaterLocked keeps wake for the end of this step. A commit's signals and its answer
// wake several goroutines of one client. Each must come to rest before the next is
// woken, or the scheduler would decide which of them is first.
func (s *Service) wakeLaterLocked(wake func()) { s.wakeups = append(s.wakeups, wake) }

// TakeWakeups returns the functions that wake goroutines at the end of a step, and
// forgets them.
func (s *Service) TakeWakeups() []func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	wakeups := s.wakeups
	s.wakeups = nil
	return wakeups
}

// Name returns the client's name.
func (c *Client) Name() string { return c.name }

// IsClosedLocked reports whether the client was closed or has crashed.
func (c *Client) IsClosedLocked() bool { return c.isClosed }

// IsCutLocked reports whether the client's connection is cut.
func (c *Client) IsCutLocked() bool { return c.isCut }

// IsPausedLocked reports whether the client's process stands still.
func (c *Client) IsPausedLocked() bool { return c.isPaused }

// IsSpentLocked reports whether the client is closed and no step concerns it any more.
func (c *Client) IsSpentLocked() bool {
	return c.isClosed && len(c.replies)+len(c.signals)+len(c.unsent) == 0 &&
		(len(c.requests) == 0 || c.isCut && !slices.ContainsFunc(c.requests, (*Request).HasCaller))
}

// OrderNewLocked gives what the client's goroutines sent since the last step an order
// that the scheduler does not decide. A paused client's requests get notBefore.
func (c *Client) OrderNewLocked(notBefore time.Time) {
	first := slices.IndexFunc(c.unsent, func(q *Request) bool { return q.isNew })
	if first >= 0 {
		slices.SortStableFunc(c.unsent[first:], compareRequests)
		for _, q := range c.unsent[first:] {
			q.isNew = false
			q.session.commits.Add(q.commit)
		}
	}
	i := len(c.requests)
	for i > 0 && c.requests[i-1].isNew {
		i--
		c.requests[i].isNew = false
		if c.isPaused {
			c.requests[i].NotBefore = notBefore
		}
	}
	if len(c.requests)-i > 1 {
		slices.SortStableFunc(c.requests[i:], compareRequests)
	}
}

func compareRequests(a, b *Request) int {
	if n := cmp.Compare(a.Actor, b.Actor); n != 0 {
		return n
	}
	return cmp.Or(
		cmp.Compare(a.Kind, b.Kind),
		slices.Compare(a.Paths, b.Paths),
		slices.CompareFunc(a.Ops, b.Ops, func(a, b coord.Op) int {
			return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Fence, b.Fence), cmp.Compare(string(a.Value), string(b.Value)))
		}),
	)
}

// RequestsLocked returns the requests that were not served yet, in order.
func (c *Client) RequestsLocked() []*Request { return c.requests }

// TakeRequestLocked removes the first request from those that were not served yet.
func (c *Client) TakeRequestLocked() *Request {
	q := c.requests[0]
	c.requests = slices.Delete(c.requests, 0, 1)
	return q
}

// HoldReplyLocked keeps the answer to q on its way; err is what the service said.
func (c *Client) HoldReplyLocked(q *Request, err error) {
	q.err = err
	c.replies = append(c.replies, q)
}

// NextReplyLocked returns the first answer that can reach its caller, or nil.
func (c *Client) NextReplyLocked() *Request {
	for _, q := range c.replies {
		if q.isLocal || c.repliesPassLocked() {
			return q
		}
	}
	return nil
}

// DeliverReplyLocked delivers a held answer and returns the error in it.
func (c *Client) DeliverReplyLocked(q *Request) error {
	c.replies = slices.DeleteFunc(c.replies, func(o *Request) bool { return o == q })
	c.AnswerLocked(q, q.err)
	return q.err
}

// Outcomes returns how each commit of a served batch ended; nil for other requests.
func (q *Request) Outcomes() []group.Outcome { return q.outcomes }

// NextSignalLocked returns the first signal that waits and can be delivered, or nil.
func (c *Client) NextSignalLocked() *Signal {
	if len(c.signals) > 0 && (c.IsConnectedLocked() || c.signals[0].IsLast) {
		return &c.signals[0]
	}
	return nil
}

// ShowPresentLocked lets the client's listings show the present state, ahead of the
// signals that announce it.
func (c *Client) ShowPresentLocked() {
	c.listRevision = c.service.state.revision
	c.seenRevision = c.listRevision
}

// CanLearnOfExpiryLocked reports whether the service ended the client's session and
// the connected client does not know it yet.
func (c *Client) CanLearnOfExpiryLocked() bool {
	return c.session != nil && !c.session.isOver && c.IsConnectedLocked() && !c.HasSessionLocked()
}

// LearnOfExpiryLocked tells the client that its session is over.
func (c *Client) LearnOfExpiryLocked() { c.session.loseLocked() }

// HasSessionLocked reports whether the service keeps the client's session.
func (c *Client) HasSessionLocked() bool {
	return c.session != nil && c.service.findSessionLocked(c.session.id) != nil
}

// ExpireLocked ends the client's session at the service, which must have one.
func (c *Client) ExpireLocked() {
	c.service.endSessionLocked(c.service.findSessionLocked(c.session.id))
}

// Sendable is a stream of a session whose commits can be sent in a batch.
type Sendable struct {
	session *session
	stream  group.Stream
}

// SendableLocked returns the streams whose commits can be sent now.
func (c *Client) SendableLocked() []Sendable {
	if c.isCut || c.service.isStopped || c.isClosed {
		return nil
	}
	i := slices.IndexFunc(c.unsent, func(q *Request) bool { return !q.session.isOver })
	if i < 0 {
		return nil
	}
	var sendable []Sendable
	by := c.unsent[i].session
	for _, stream := range []group.Stream{group.Changes, group.Claims} {
		if by.commits.Waits(stream) {
			sendable = append(sendable, Sendable{by, stream})
		}
	}
	return sendable
}

// SendLocked sends a batch of a stream's commits. It returns how many it sent and how
// many of the session wait on.
func (c *Client) SendLocked(from Sendable) (sent, waiting int) {
	b := from.session.commits.Take(from.stream)
	c.sendBatchLocked(from.session, b)
	return len(b.Commits), from.session.commits.Len()
}

// CallToEndLocked returns a call that waits although its session or its client is
// over, or nil.
func (c *Client) CallToEndLocked() *Request {
	isVain := func(q *Request) bool {
		return q.HasCaller() && (c.isClosed || q.session != nil && q.session.isOver)
	}
	for _, q := range c.requests {
		switch {
		case !isVain(q):
		case q.batch == nil:
			return q
		default:
			for _, member := range q.batch.Commits {
				if call := member.Caller.(*Request); call.HasCaller() {
					return call
				}
			}
		}
	}
	if i := slices.IndexFunc(c.unsent, isVain); i >= 0 {
		return c.unsent[i]
	}
	return nil
}

// EndCallLocked ends a call that [Client.CallToEndLocked] returned, and returns its
// error. A batch that was sent stays on its way.
func (c *Client) EndCallLocked(q *Request) error {
	err := coord.ErrUnknown
	if q.commit == nil || !q.isSent {
		c.withdrawLocked(q)
		if err = coord.ErrSessionLost; c.isClosed {
			err = coord.ErrClosed
		}
	}
	c.AnswerLocked(q, err)
	return err
}

// CutLocked cuts the client's connection.
func (c *Client) CutLocked() {
	c.isCut = true
	c.disconnectLocked()
}

// HealLocked ends a cut or a hold.
func (c *Client) HealLocked() {
	c.isCut, c.holdsRequests, c.holdsReplies = false, false, false
	c.reconnectLocked()
}

// PauseLocked stops the client's process: heartbeats cease, and its own deadlines do
// not pass before [Client.ResumeLocked].
func (c *Client) PauseLocked() {
	c.isPaused = true
	c.updateDeadlinesLocked()
}

// ResumeLocked lets a paused process go on.
func (c *Client) ResumeLocked() {
	c.isPaused = false
	c.reconnectLocked()
}
