// Package head knows the head of a queue: which entries a handle may claim next, and in
// which order. The queue's own package claims them.
//
// A [Head] is kept by a standing watch and one listing. Takes call [Head.Choose], one after
// the other, and then claim side by side what they chose. [Claims] are the claims in
// flight, [Suppressed] and [Resting] the entries that are not chosen for a while.
package head

import (
	"context"
	"path"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/member"
	"github.com/zkq/zkq/internal/retry"
)

// DefaultWindow is how many available entries a head wants to know of at least. Members share
// out half as many among them; a large fleet shares more, up to mostShared.
const (
	DefaultWindow = 64
	mostShared    = 2048
)

// MaxWanted caps the number of entries that a caller wants, so that sums of it cannot overflow.
const MaxWanted = 1 << 28

// Config is what a head needs to know of its queue and of the handle that takes from it.
type Config struct {
	Lister

	Session    func(context.Context) (coord.Session, error) // the live session of the handle
	Woke       func(context.Context)                        // called by a goroutine that has waited for another: a simulator orders them
	Backoff    func() *retry.Backoff                        // a new one for each Choose
	Restricted *Restricted                                  // nil: a new set

	Strict bool // every choice lists afresh, and the most urgent entry is claimed first
	Window int  // twice how many entries the members of a small fleet share out

	// The rest is of the locking layout; nil in the plain one.

	Registry    *member.Registry
	MembersDir  string
	WatchersDir string
	Watchers    int        // how many idle members watch the queue, if there are more; 0: all
	Holder      string     // this handle among the members
	HeldCount   func() int // how many entries the handle holds

	// A spent entry has expired or was delivered too often: it is cleared away and not
	// handed out. HasExpired and MayBeSpent judge an entry as it was read; FindSpent returns the
	// paths of those that are spent.
	HasExpired func(coord.Node) bool
	MayBeSpent func(coord.Node) bool
	FindSpent  func(context.Context, coord.Session, []coord.Node) (map[string]bool, error)

	// SkipUnreadable adds an entry that may not be read to Restricted, and warns of it.
	SkipUnreadable func(coord.Node)
}

// Head is what a handle knows of the head of its queue: entries that no process holds, in
// take order, and the values of the first. The watch begins before the first listing: a
// signal makes the listing stale, and nothing is chosen from a stale one.
type Head struct {
	Config
	Claims     *Claims
	Suppressed *Suppressed
	Resting    *Resting

	sem chan struct{} // one-token lock of a choice; guards the fields below

	session       coord.Session
	changed       <-chan struct{} // signals of the watch: something that it covers has changed
	unwatch       context.CancelFunc
	readAhead     readAhead
	fairness      fairness
	patience      patience
	ranks         member.Ranks // among the members that share out the head, if this handle is one of them
	watched       scope        // what the watch tells of
	duty          duty         // which members watch the queue
	isListed      bool         // there was no signal since the last listing
	mustListFresh bool         // the next listing has to be up to date when it is made
	isComplete    bool         // ready was all that was available, not just the first entries
	ready         []string     // what is left of the last listing
	firstInDoubt  string       // when ready was listed; see [Claims.FirstInDoubt]
	listedWindow  int          // how many entries could be shared out when ready was listed
	isHeldBack    bool         // the last choice ended before an entry that waits for a claim in doubt
	isShort       bool         // the last choice wanted to know more entries than were listed
	isLeft        bool         // the last choice left all entries to other members
	opensAt       time.Time    // when this handle may take the first of these
	watchedUntil  time.Time    // until then no signal was pending
	changedAt     time.Time    // when the last signal came, or half way between when it may have come

	mu      *sync.Mutex   // guards waiting, Claims, Suppressed, Resting and Restricted; held for a look or a change only
	waiting chan struct{} // closed while the goroutine with sem waits for entries
}

// New returns the head of a queue. Nothing is watched or listed before the first Choose.
func New(c Config) *Head {
	if c.Restricted == nil {
		c.Restricted = NewRestricted()
	}
	mu := c.Restricted.mu
	h := &Head{
		ranks:      member.Ranks{Me: c.Holder},
		Config:     c,
		Claims:     newClaims(mu, c.Woke),
		Suppressed: newSuppressed(mu),
		Resting:    newResting(mu),
		mu:         mu,
		readAhead:  readAhead{nodes: make(map[string]coord.Node)},
		sem:        make(chan struct{}, 1),
		waiting:    make(chan struct{}),
	}
	h.duty.most = c.Watchers
	h.duty.life, h.duty.end = context.WithCancel(context.Background())
	h.duty.mark.path, h.duty.call.path = path.Join(c.WatchersDir, c.Holder), path.Join(c.WatchersDir, layout.CallNode)
	return h
}

// Choice is what a take may claim. Its entries are reserved in [Head.Claims]: no other take
// of the handle tries for them.
type Choice struct {
	Session coord.Session
	Names   []string
	Nodes   []coord.Node // as they were read
	IsSpent bool         // the entries are to be cleared away, and none is to be handed out
	IsLast  bool         // entries behind these are not to be claimed before the next choice

	number  int64
	started time.Time
	done    func()
}

// Done must be called when the claims of the choice have been answered, with success or not.
func (c *Choice) Done() { c.done() }

// Choose picks up to n entries. If none is available and wait is true, it waits for the
// first; otherwise it returns an empty choice.
func (h *Head) Choose(ctx context.Context, n int, wait bool) (Choice, error) {
	h.arrive()
	defer h.depart()
	if !h.enter(ctx, wait) {
		return Choice{}, ctx.Err()
	}
	leave := sync.OnceFunc(func() { <-h.sem })
	var c Choice
	err, interrupted := h.Backoff().Do(ctx, nil, func() (retry.Decision, error) {
		h.mustListFresh = h.mustListFresh || h.Strict
		err := h.refresh(ctx, n, wait)
		if err == nil && !h.duty.isAsleep {
			c, err = h.pick(ctx, n)
		}
		again := false
		if err == nil && wait && len(c.Names) == 0 && !h.mustLookAgain() {
			again, err = h.settleDuty(ctx)
		}
		switch {
		case retry.NothingSent(err):
			return retry.Now, err
		case err != nil:
			return retry.LaterIfBusy(err), err
		case len(c.Names) > 0:
			return retry.Stop, nil
		case again, h.mustLookAgain():
		case !wait:
			return retry.Stop, nil
		default:
			h.wait(ctx)
		}
		return retry.Now, nil
	})
	if interrupted != nil {
		err = retry.WithDeadline(ctx, err)
	}
	if err != nil || len(c.Names) == 0 {
		leave()
		return Choice{}, err
	}
	c.done = func() {
		if h.fairness.answer(c.number); !c.IsSpent {
			h.patience.noteRoundTrip(time.Since(c.started))
		}
		leave()
	}
	if !h.Strict { // a strict take lets no other choose before its claim is answered
		leave()
	}
	return c, nil
}

// mustLookAgain reports whether there may be more to choose from than was found.
func (h *Head) mustLookAgain() bool {
	switch {
	case h.duty.isAsleep:
		return false
	case len(h.ready) > 0 && !h.isLeft: // some of the entries were gone
		return true
	case h.isLeft && h.isShort:
		h.isListed = false
		return true
	case h.Suppressed.anyLost(), !h.isComplete && !h.isHeldBack && !h.isLeft:
		// Other processes took all that was listed: the next listing must show that.
		h.isListed, h.mustListFresh = false, true
		return true
	}
	return false
}

// enter waits for sem. A caller that does not want to wait for entries does not wait for
// one that does, either: it reports false.
func (h *Head) enter(ctx context.Context, wait bool) bool {
	h.mu.Lock()
	waiting := h.waiting
	h.mu.Unlock()
	if wait {
		waiting = nil
	}
	if ctx.Err() != nil {
		return false
	}
	select {
	case h.sem <- struct{}{}:
		return true
	default:
	}
	entered := false
	select {
	case h.sem <- struct{}{}:
		entered = true
	case <-waiting:
	case <-ctx.Done():
	}
	h.Woke(ctx)
	if entered && ctx.Err() != nil {
		<-h.sem
		return false
	}
	return entered
}

// refresh brings the listing up to date with every signal that has arrived. A handle that
// sleeps lists nothing.
func (h *Head) refresh(ctx context.Context, n int, wait bool) error {
	if err := h.watch(ctx); err != nil {
		return err
	}
	isStale := h.takeSignals() || h.Strict
	if isStale && h.watched.members {
		if err := h.listMembers(ctx); err != nil {
			return err
		}
	}
	if h.duty.isAsleep {
		if err := h.wake(ctx, wait); err != nil || h.duty.isAsleep {
			return err
		}
	}
	if isStale {
		return h.list(ctx, n)
	}
	return nil
}

// watch subscribes in the live session, before anything is listed in it.
func (h *Head) watch(ctx context.Context) error {
	s, err := h.Session(ctx)
	if err != nil {
		return err
	}
	isMember := false
	if h.Registry != nil {
		h.Registry.RegisterAgain(ctx, s)
		isMember = h.Registry.IsRegistered(s)
	}
	if s == h.session && isMember == h.watched.members {
		return nil
	}
	err = h.subscribe(ctx, s, scope{queue: true, members: isMember, duties: isMember && h.duty.isLarge})
	switch {
	case err == nil:
		h.duty.isAsleep, h.duty.awakeUntil = false, time.Now().Add(stayAwake)
		return nil
	case ctx.Err() == nil && retry.NothingSent(err):
		return h.watch(ctx)
	}
	return err
}

// subscribe begins another watch, and ends the one before. What was known is forgotten.
func (h *Head) subscribe(ctx context.Context, s coord.Session, what scope) error {
	if s != h.session {
		h.endWatch()
	}
	watching, unwatch := context.WithCancel(context.Background())
	var dirs []string
	if what.queue {
		dirs = append(dirs, h.Entries)
	}
	if what.queue && h.Taken != "" {
		dirs = append(dirs, h.Taken)
	}
	if what.members {
		dirs = append(dirs, h.MembersDir)
	}
	if what.duties {
		dirs = append(dirs, h.WatchersDir)
	}
	stop := context.AfterFunc(ctx, unwatch) // ctx bounds the call, not the watch
	changed, err := s.Watch(watching, dirs...)
	if !stop() || err != nil {
		unwatch()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	h.endWatch()
	h.session, h.changed, h.unwatch, h.watched = s, changed, unwatch, what
	h.Suppressed.clear()
	return nil
}

// Close ends the watch. The handle is closed: the goroutine that has sem is about to leave.
func (h *Head) Close() {
	h.duty.end()
	h.sem <- struct{}{}
	h.endWatch()
	<-h.sem
}

// endWatch ends the watch, and forgets everything that it kept up to date. But a handle that polls
// now and then goes on being patient where it was: else it would never come to the end of that.
func (h *Head) endWatch() {
	if h.unwatch != nil {
		h.unwatch()
	}
	h.session, h.changed, h.unwatch, h.watched = nil, nil, nil, scope{}
	h.isListed, h.isLeft, h.ready, h.watchedUntil = false, false, nil, time.Time{}
	h.ranks.SetMembers(nil)
	clear(h.readAhead.nodes)
}

// takeSignals reports whether the listing is stale, and takes the signals that say so: one
// listing answers all of them.
func (h *Head) takeSignals() (isStale bool) {
	now := time.Now()
	if h.watchedUntil.IsZero() {
		h.watchedUntil = now // what the first listing shows counts as new
		h.changedAt = now
	}
	select {
	case <-h.changed:
		h.isListed = false
		h.changedAt = h.watchedUntil.Add(now.Sub(h.watchedUntil) / 2)
	default:
	}
	h.watchedUntil = now
	select {
	case <-h.Resting.changed:
		h.isListed = false
	default:
	}
	return !h.isListed
}

// list makes the listing anew. It asks for more than n entries: n must remain when this handle
// skips those that it holds, claims or has given back.
func (h *Head) list(ctx context.Context, n int) error {
	isFresh := h.mustListFresh
	before := h.Suppressed.lastNumber()
	inDoubt := h.Claims.FirstInDoubt() // its end signals, and what is listed below may be older
	h.listedWindow = 0
	if h.watched.members {
		h.listedWindow = h.windowOf(len(h.duty.everyone), n)
	}
	want := max(DefaultWindow, 2*min(n, MaxWanted), h.listedWindow) + h.Resting.Len() + h.Claims.Len() + h.Suppressed.Len() + 2*h.heldCount() + h.Restricted.Len()
	// A listing that need not be fresh is what the signals announced. That costs no request
	// where the driver follows them.
	l, err := h.List(ctx, h.session, want, coord.ListOptions{Fresh: isFresh, Seen: !isFresh})
	if err != nil {
		return err
	}
	if h.watched.members {
		h.ranks.SetMembers(h.sharers(len(l.Names)))
		h.noteAvailable(ctx, l.Names)
	}
	h.Suppressed.reconcile(&l, before, isFresh)
	h.readAhead.reconcile(&l)
	h.patience.reconcile(&l)
	h.ready, h.isComplete, h.isListed, h.mustListFresh, h.firstInDoubt = l.Names, l.IsComplete, true, false, inDoubt
	return nil
}

// wait returns when an entry may have become available, or when ctx or the session has ended.
// The caller finds out which.
func (h *Head) wait(ctx context.Context) {
	h.mu.Lock()
	close(h.waiting)
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		h.waiting = make(chan struct{})
		h.mu.Unlock()
	}()
	var due <-chan time.Time
	at, ok := h.nextLook()
	if ok {
		t := time.NewTimer(time.Until(at))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-h.session.Done():
	case <-h.changed:
		h.isListed = false
		h.changedAt = time.Now()
	case <-h.Resting.changed: // other entries rest now
		h.isListed = false
	case <-due:
		h.isListed = false
	}
	h.watchedUntil = time.Now()
	if h.Resting.prune() {
		h.isListed = false
	}
}

// nextLook returns when a caller that waits has to look again, even if no signal comes.
func (h *Head) nextLook() (at time.Time, ok bool) {
	if h.duty.isAsleep { // it lists nothing: a time of an entry would stay in the past
		return h.duty.lookAt, !h.duty.lookAt.IsZero()
	}
	at, ok = h.Resting.next()
	if claimed, some := h.Suppressed.nextClaimed(); some && (!ok || claimed.Before(at)) {
		at, ok = claimed, true
	}
	if look := h.duty.lookAt; !look.IsZero() && (!ok || look.Before(at)) {
		at, ok = look, true
	}
	if h.isLeft && !h.opensAt.IsZero() && (!ok || h.opensAt.Before(at)) {
		at, ok = h.opensAt, true
	}
	return at, ok
}

// heldCount returns how many entries the handle holds: none in the plain layout.
func (h *Head) heldCount() int {
	if h.HeldCount == nil {
		return 0
	}
	return h.HeldCount()
}
