// Package memory implements the coordination service behind package coordtest and
// its simulator.
//
// A [Service] runs in one of two modes. Normally a client's call is served at once, on
// the caller's goroutine, and timers of package time end sessions. A stepped service
// ([NewStepped]) does nothing by itself: what clients send waits until package sim
// takes the next step. The methods in step.go are those steps.
//
// One mutex, that of the Service, guards the service and all its clients. A method
// whose name ends in Locked is called with it held.
package memory

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
)

// Service is a coordination service in memory. Its clients are made by [Service.Open].
type Service struct {
	mu             sync.Mutex
	state          state
	sessions       []*serverSession // in the order of their opening
	clients        []*Client
	subscriptions  map[string][]*subscription // by directory
	clientsOpened  int
	sessionsOpened int
	isStopped      bool
	expiryTimer    *time.Timer // for the next end of a session; nil if none is due
	observer       func(Applied)

	// Of a stepped service only.
	isStepped bool
	work      chan struct{} // one token: a client has sent something since the last step
	drawBool  func() bool   // draws from the seed, within a step
	wakeups   []func()      // wake goroutines at the end of a step, one after the other
}

// Applied is coordtest.Applied, which documents it.
type Applied struct {
	Revision int64
	At       time.Time
	Session  string
	Client   string
	Expired  bool
	Ops      []coord.Op
	Results  []coord.Result
}

// serverSession is a session as the service keeps it. The service may keep one whose
// client has given it up, and the reverse.
type serverSession struct {
	id         string
	session    *session        // the client's end
	expires    time.Time       // zero while the client's heartbeats arrive
	ephemerals map[string]bool // paths of the nodes that end with the session
}

// New returns an empty service that counts as etcd or as ZooKeeper does.
func New(etcd bool) *Service {
	return &Service{state: newState(etcd), subscriptions: map[string][]*subscription{}}
}

// NewStepped returns an empty service that is moved on step by step. It calls drawBool
// within a step where a read may or may not see the latest state.
func NewStepped(etcd bool, drawBool func() bool) *Service {
	s := New(etcd)
	s.isStepped, s.work, s.drawBool = true, make(chan struct{}, 1), drawBool
	return s
}

// defaultLimits are ZooKeeper's: a frame of a megabyte. A claim sends an entry's value
// again beside a lock, so a value stays some kilobytes below.
var defaultLimits = coord.Limits{ValueBytes: 1<<20 - 3<<10, CommitBytes: 1<<20 - 1, CommitOps: 128, Creates: 4096}

// Open returns a new client. Zero values mean: the name client-N, a timeout of 10 s,
// ZooKeeper's limits.
func (s *Service) Open(name string, timeout time.Duration, limits coord.Limits) *Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clientsOpened++
	if name == "" {
		name = fmt.Sprintf("client-%d", s.clientsOpened)
	}
	if timeout <= 0 {
		timeout = 10 * time.Second
	}
	if limits == (coord.Limits{}) {
		limits = defaultLimits
	}
	c := &Client{
		service: s, name: name, number: s.clientsOpened, timeout: timeout, limits: limits,
		openSem: make(chan struct{}, 1), closing: make(chan struct{}),
		isLagging: s.isStepped, listRevision: s.state.revision,
	}
	s.state.keepsHistory = s.state.keepsHistory || c.isLagging
	s.clients = append(s.clients, c)
	return c
}

// Observe has f called, under the service's lock, with every change from now on.
func (s *Service) Observe(f func(Applied)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observer = f
}

// Expire ends the session at the service and reports whether there was one.
func (s *Service) Expire(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	expired := s.findSessionLocked(id)
	if expired == nil {
		return false
	}
	s.endSessionLocked(expired)
	s.armTimerLocked()
	return true
}

// SetCounter sets the number that the next sequential node under dir gets.
func (s *Service) SetCounter(dir string, n int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, changes := s.state.directory(nil, dir)
	d.creates = int64(n)
	s.signalLocked(changes)
}

// Stop stops the service: every client loses its connection, and no session ends at
// the service.
func (s *Service) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.StopLocked()
}

// StopLocked is [Service.Stop].
func (s *Service) StopLocked() {
	if s.isStopped {
		return
	}
	s.isStopped = true
	for _, c := range s.clients {
		c.disconnectLocked()
	}
	s.armTimerLocked()
}

// Start starts a stopped service with its state. Timeouts of sessions begin anew.
func (s *Service) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.StartLocked()
}

// StartLocked is [Service.Start].
func (s *Service) StartLocked() {
	if !s.isStopped {
		return
	}
	s.isStopped = false
	for _, kept := range s.sessions {
		kept.expires = time.Now().Add(kept.session.timeout)
	}
	for _, c := range s.clients {
		c.reconnectLocked()
	}
	s.armTimerLocked()
}

// findSessionLocked returns the session that the service keeps under the id, or nil.
func (s *Service) findSessionLocked(id string) *serverSession {
	for _, kept := range s.sessions {
		if kept.id == id {
			return kept
		}
	}
	return nil
}

// openSessionLocked begins a session for c. It expires unless heartbeats of c follow.
func (s *Service) openSessionLocked(c *Client) *session {
	s.sessionsOpened++
	opened := &session{
		client: c, id: fmt.Sprintf("%016x", s.sessionsOpened), timeout: c.timeout, done: make(chan struct{}),
		commits: group.NewQueue(group.Limits{Commits: 16, Ops: c.limits.CommitOps, Bytes: c.limits.CommitBytes}),
	}
	s.sessions = append(s.sessions, &serverSession{
		id: opened.id, session: opened, expires: time.Now().Add(opened.timeout), ephemerals: map[string]bool{},
	})
	c.listRevision = s.state.revision
	c.seenRevision = c.listRevision
	return opened
}

// commitLocked applies a batch of commits for a session that the service still keeps,
// and returns the outcome of each.
func (s *Service) commitLocked(by *serverSession, b *group.Batch) []group.Outcome {
	now := time.Now()
	proposals := make([]*proposal, len(b.Commits))
	for i, c := range b.Commits {
		proposals[i] = &proposal{ops: c.Ops, nameSequential: c.Caller.(*Request).namer(now)}
	}
	changes, refused := s.state.commit(by.id, now, proposals)
	if refused >= 0 {
		return group.Refused(len(proposals), refused, proposals[refused].err)
	}
	outcomes := make([]group.Outcome, len(proposals))
	for i, p := range proposals {
		if outcomes[i] = (group.Outcome{Results: p.results, Err: p.err}); p.err == nil {
			b.Commits[i].Caller.(*Request).appliedRevision = s.state.revision
			s.recordAppliedLocked(by, now, p)
		}
	}
	s.signalLocked(changes)
	by.session.client.catchUpLocked()
	return outcomes
}

// recordAppliedLocked updates which session owns which node, and calls the observer.
func (s *Service) recordAppliedLocked(by *serverSession, now time.Time, p *proposal) {
	for i, op := range p.ops {
		switch op.Kind {
		case coord.KindEphemeral:
			by.ephemerals[p.results[i].Path] = true
		case coord.KindDelete, coord.KindReplace:
			for _, owner := range s.sessions {
				delete(owner.ephemerals, op.Path)
			}
		}
	}
	if s.observer != nil {
		s.observer(Applied{Revision: s.state.revision, At: now, Session: by.id, Client: by.session.client.name, Ops: p.ops, Results: p.results})
	}
}

// endSessionLocked ends a session at the service and removes its ephemeral nodes. A
// connected client learns of it at once; in a stepped service that is another step.
func (s *Service) endSessionLocked(ended *serverSession) {
	s.sessions = slices.DeleteFunc(s.sessions, func(o *serverSession) bool { return o == ended })
	paths := make([]string, 0, len(ended.ephemerals))
	for path := range ended.ephemerals {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	ops, changes := s.state.removeEphemerals(paths)
	if s.observer != nil {
		s.observer(Applied{Revision: s.state.revision, At: time.Now(), Session: ended.id, Client: ended.session.client.name, Expired: true, Ops: ops})
	}
	s.signalLocked(changes)
	if c := ended.session.client; c.IsConnectedLocked() && !s.isStepped {
		ended.session.endLocked()
	}
}

// signalLocked queues a signal for each subscription of a changed directory, in the
// order of the subscriptions.
func (s *Service) signalLocked(changes []change) {
	for _, changed := range changes {
		for _, sub := range s.subscriptions[changed.dir] {
			sub.session.client.queueSignalLocked(Signal{revision: changed.revision, subscription: sub})
		}
	}
	for _, c := range s.clients {
		if !c.isLagging {
			c.catchUpLocked()
		}
	}
}

// TrimHistoryLocked drops the history that every lagging client has seen.
func (s *Service) TrimHistoryLocked() {
	s.state.keepsHistory = false
	oldest := int64(math.MaxInt64)
	for _, c := range s.clients {
		if c.isLagging {
			s.state.keepsHistory = true
			oldest = min(oldest, c.oldestRevisionLocked())
		}
	}
	s.state.forgetHistory(oldest)
}

// nextExpiryLocked returns the next end of a session by time. It is either an end at
// the client (local), which gives a session up early, or one at the service (kept).
func (s *Service) nextExpiryLocked() (at time.Time, local *session, kept *serverSession) {
	for _, c := range s.clients {
		if o := c.session; o != nil && !o.isOver && !c.isPaused && !o.deadline.IsZero() && (at.IsZero() || o.deadline.Before(at)) {
			at, local = o.deadline, o
		}
	}
	if s.isStopped {
		return at, local, nil
	}
	for _, o := range s.sessions {
		if !o.expires.IsZero() && (at.IsZero() || o.expires.Before(at)) {
			at, local, kept = o.expires, nil, o
		}
	}
	return at, local, kept
}

// expireDue ends the sessions whose time is over.
func (s *Service) expireDue() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.ExpireNextLocked() {
	}
	s.armTimerLocked()
}

// ExpireNextLocked ends the next session whose time is over. It reports whether there
// was one.
func (s *Service) ExpireNextLocked() bool {
	at, local, kept := s.nextExpiryLocked()
	switch {
	case at.IsZero() || time.Now().Before(at):
		return false
	case local != nil:
		local.endLocked()
	default:
		s.endSessionLocked(kept)
	}
	return true
}

// armTimerLocked sets the timer for the next end of a session. A stepped service has
// none: package sim watches the clock.
func (s *Service) armTimerLocked() {
	if s.isStepped {
		return
	}
	if s.expiryTimer != nil {
		s.expiryTimer.Stop()
		s.expiryTimer = nil
	}
	if at, _, _ := s.nextExpiryLocked(); !at.IsZero() {
		s.expiryTimer = time.AfterFunc(time.Until(at), s.expireDue)
	}
}
