package coordtest

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
)

// Store is a coordination service in memory. Each [Coordinator] that it opens is
// one client process. Its methods may be called from several goroutines.
type Store struct {
	mu       sync.Mutex
	st       state
	remotes  []*remote // in the order of their opening
	clients  []*Coordinator
	watchers map[string][]*subscription
	opened   int // clients so far
	sessions int // so far
	down     bool
	timer    *time.Timer
	observe  func(Applied)

	// simulated: a driver moves time and requests on, one step at a time, and is
	// told through wake that there is work.
	simulated bool
	wake      chan struct{}
	draw      func() bool // from the seed, within a step
	wakes     []func()    // what the step wakes, one after the other
}

// Applied is a commit that the service has applied, or the end of a session.
type Applied struct {
	Revision int64 // that of other commits, too, where one client's travelled together
	At       time.Time
	Session  string
	Client   string // the name of the client whose session it is

	// Expired says that the session ended and that Ops are the deletes of the
	// ephemeral nodes it left.
	Expired bool

	Ops     []coord.Op
	Results []coord.Result // nil when Expired
}

// remote is a session as the service keeps it.
type remote struct {
	id         string
	local      *session
	expires    time.Time // zero while its client is heard
	ephemerals map[string]bool
}

// NewStore returns an empty service, which counts as ZooKeeper does.
func NewStore() *Store {
	return &Store{st: newState(), watchers: map[string][]*subscription{}}
}

// NewEtcdStore returns an empty service, which counts as etcd does: fences are
// revisions, and sequential names of commits that overlap are not in the order of
// the commits.
func NewEtcdStore() *Store {
	s := NewStore()
	s.st.etcd = true
	return s
}

// Options are what a client asks for. The zero value does.
type Options struct {
	Name    string        // for reports; "": client-N
	Timeout time.Duration // of its sessions; 0: 10s
	Limits  coord.Limits  // zero: ZooKeeper's
}

// ZooKeeper's limits: a frame of a megabyte. A claim sends an entry's value again
// beside a lock, so a value stays some kilobytes below.
var defaultLimits = coord.Limits{ValueBytes: 1<<20 - 3<<10, CommitBytes: 1<<20 - 1, CommitOps: 128, Creates: 4096}

// Open returns a new client. It contacts nothing: the first
// [coord.Coordinator.Session] does.
func (s *Store) Open(o Options) *Coordinator {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	if o.Name == "" {
		o.Name = fmt.Sprintf("client-%d", s.opened)
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Limits == (coord.Limits{}) {
		o.Limits = defaultLimits
	}
	c := &Coordinator{
		store: s, name: o.Name, number: s.opened, timeout: o.Timeout, limits: o.Limits,
		opening: make(chan struct{}, 1), gone: make(chan struct{}),
		lagging: s.simulated, view: s.st.revision,
	}
	s.st.keepLog = s.st.keepLog || c.lagging
	s.clients = append(s.clients, c)
	return c
}

// Observe has f called with every change, in order, while the service stands
// still: f calls nothing of this package and does not write to what it is given.
func (s *Store) Observe(f func(Applied)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observe = f
}

// Expire ends the session now, as an administrator would, and reports whether
// there was one. Its client hears of it at once, or when it is connected again.
func (s *Store) Expire(session string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.remote(session)
	if r == nil {
		return false
	}
	s.end(r)
	s.arm()
	return true
}

// SetCounter sets the number that the next sequential node under dir gets. Those
// are ZooKeeper's: after [coord.LastNumber] every create is refused with
// [coord.ErrExhausted].
func (s *Store) SetCounter(dir string, n int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, changes := s.st.directory(nil, dir)
	d.creates = int64(n)
	s.signal(changes)
}

// Stop stops the service: every client loses its connection and no session ends
// at the service before [Store.Start], though clients give theirs up.
func (s *Store) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
}

func (s *Store) stop() {
	if s.down {
		return
	}
	s.down = true
	for _, c := range s.clients {
		c.disconnect()
	}
	s.arm()
}

// Start starts a stopped service with all that it knew. Timeouts of sessions
// begin anew.
func (s *Store) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start()
}

func (s *Store) start() {
	if !s.down {
		return
	}
	s.down = false
	for _, r := range s.remotes {
		r.expires = time.Now().Add(r.local.timeout)
	}
	for _, c := range s.clients {
		c.reconnect()
	}
	s.arm()
}

// Restart stops the service and starts it.
func (s *Store) Restart() {
	s.Stop()
	s.Start()
}

func (s *Store) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Store) remote(id string) *remote {
	for _, r := range s.remotes {
		if r.id == id {
			return r
		}
	}
	return nil
}

// open begins a session for c, which ends again unless c is heard.
func (s *Store) open(c *Coordinator) *session {
	s.sessions++
	l := &session{
		c: c, id: fmt.Sprintf("%016x", s.sessions), timeout: c.timeout, done: make(chan struct{}),
		commits: group.NewQueue(group.Limits{Commits: 16, Ops: c.limits.CommitOps, Bytes: c.limits.CommitBytes}),
	}
	s.remotes = append(s.remotes, &remote{
		id: l.id, local: l, expires: time.Now().Add(l.timeout), ephemerals: map[string]bool{},
	})
	c.view = s.st.revision
	c.seen = c.view
	return l
}

// commit does a batch on behalf of a session that the service still keeps.
func (s *Store) commit(r *remote, b *group.Batch) []group.Outcome {
	now := time.Now()
	batch := make([]*proposal, len(b.Commits))
	for i, c := range b.Commits {
		batch[i] = &proposal{ops: c.Ops, name: c.Caller.(*request).namer(now)}
	}
	changes, stopped := s.st.commit(r.id, now, batch)
	if stopped >= 0 {
		return group.Refused(len(batch), stopped, batch[stopped].err)
	}
	outcomes := make([]group.Outcome, len(batch))
	for i, c := range batch {
		if outcomes[i] = (group.Outcome{Results: c.results, Err: c.err}); c.err == nil {
			b.Commits[i].Caller.(*request).applied = s.st.revision
			s.applied(r, now, c)
		}
	}
	s.signal(changes)
	r.local.c.catchUp()
	return outcomes
}

// applied keeps account of who owns what, and tells the observer.
func (s *Store) applied(r *remote, now time.Time, c *proposal) {
	for i, op := range c.ops {
		switch op.Kind {
		case coord.KindEphemeral:
			r.ephemerals[c.results[i].Path] = true
		case coord.KindDelete, coord.KindReplace:
			for _, other := range s.remotes {
				delete(other.ephemerals, op.Path)
			}
		}
	}
	if s.observe != nil {
		s.observe(Applied{Revision: s.st.revision, At: now, Session: r.id, Client: r.local.c.name, Ops: c.ops, Results: c.results})
	}
}

// end ends a session at the service.
func (s *Store) end(r *remote) {
	s.remotes = slices.DeleteFunc(s.remotes, func(o *remote) bool { return o == r })
	paths := make([]string, 0, len(r.ephemerals))
	for path := range r.ephemerals {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	ops, changes := s.st.end(paths)
	if s.observe != nil {
		s.observe(Applied{Revision: s.st.revision, At: time.Now(), Session: r.id, Client: r.local.c.name, Expired: true, Ops: ops})
	}
	s.signal(changes)
	if c := r.local.c; c.connected() && !s.simulated {
		r.local.end()
	}
}

// signal tells the subscribers of the directories that changed, in the order of
// their subscriptions.
func (s *Store) signal(changes []change) {
	for _, ch := range changes {
		for _, sub := range s.watchers[ch.dir] {
			sub.session.c.notify(signal{revision: ch.revision, sub: sub})
		}
	}
	for _, c := range s.clients {
		if !c.lagging {
			c.catchUp()
		}
	}
}

// trim drops the membership changes that every lagging client has seen.
func (s *Store) trim() {
	s.st.keepLog = false
	view := int64(math.MaxInt64)
	for _, c := range s.clients {
		if c.lagging {
			s.st.keepLog = true
			view = min(view, c.oldest())
		}
	}
	s.st.forget(view)
}

// due returns the next end of a session by time: at its client, who gives it up
// early, or at the service.
func (s *Store) due() (at time.Time, l *session, r *remote) {
	for _, c := range s.clients {
		if o := c.session; o != nil && !o.over && !c.paused && !o.deadline.IsZero() && (at.IsZero() || o.deadline.Before(at)) {
			at, l = o.deadline, o
		}
	}
	if s.down {
		return at, l, nil
	}
	for _, o := range s.remotes {
		if !o.expires.IsZero() && (at.IsZero() || o.expires.Before(at)) {
			at, l, r = o.expires, nil, o
		}
	}
	return at, l, r
}

// tick ends the sessions whose time is over.
func (s *Store) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.expireNext() {
	}
	s.arm()
}

func (s *Store) expireNext() bool {
	at, l, r := s.due()
	switch {
	case at.IsZero() || time.Now().Before(at):
		return false
	case l != nil:
		l.end()
	default:
		s.end(r)
	}
	return true
}

// arm sets the timer for the next end. A simulator watches the clock itself.
func (s *Store) arm() {
	if s.simulated {
		return
	}
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if at, _, _ := s.due(); !at.IsZero() {
		s.timer = time.AfterFunc(time.Until(at), s.tick)
	}
}
