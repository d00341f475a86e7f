package head

import (
	"context"
	"errors"
	"path"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/member"
	"github.com/zkq/zkq/internal/retry"
)

// DefaultWatchers is how many of many idle members watch a queue.
const DefaultWatchers = 4

const (
	// stayAwake is how long a handle watches the queue after its first look, a call, or a
	// backlog, before it leaves the queue to the members on duty.
	stayAwake = time.Second

	// A handle into which no caller has come for fullAfter has no free place: it gives up its
	// duty. After unwatchAfter it also ends its watch. The next caller begins another one.
	fullAfter    = 100 * time.Millisecond
	unwatchAfter = time.Second

	// A vacant duty is taken by one member after the other, in an order of their own:
	// takeoverStep apart, and all of them within takeoverSpan.
	takeoverStep = 5 * time.Millisecond
	takeoverSpan = 400 * time.Millisecond

	// A member on duty calls all others when it sees more than backlogPerWatcher available
	// entries for each member on duty, or when an entry stays the first for leftoverAfter.
	backlogPerWatcher = 8
	leftoverAfter     = 500 * time.Millisecond
	callFor           = time.Second            // the node of a call stands for so long
	backlogPause      = 200 * time.Millisecond // from a call to the next one for a backlog, and callStep more for each member before
	callStep          = 2 * time.Millisecond
	callPause         = 5 * time.Second // and to one because an entry is left; it doubles while one is
	longestCallPause  = 10 * time.Minute

	dutyRetry   = 250 * time.Millisecond // before a node that was not written is tried again
	retireLimit = 2 * time.Second        // for one attempt to give up a duty
)

// scope is what the watch of a head covers.
type scope struct {
	queue   bool // the entries and their locks
	members bool
	duties  bool
}

// duty is a handle's part in watching a queue that has more members than should watch it.
// Events cost the service and every process that gets them, and of many idle processes only
// one takes an entry.
//
// A member that waits for entries and watches the queue says so by an ephemeral node in
// layout.WatchersDir: it is on duty. The others sleep: they watch only the members and that
// directory. A handle may sleep only while as many others as config says are on duty. So no
// death loses the queue: with a session its duty goes, which wakes the sleepers, and one of
// them takes it. A handle without a free place gives up its duty in the same way.
//
// One node in the directory is a call: while it stands no handle sleeps. A member on duty
// makes it when there is more to do than the members on duty can do.
//
// [Head.sem] guards the fields that say nothing else.
type duty struct {
	most int // how many members are to be on duty; 0: every handle watches, and none is on duty

	isLarge  bool     // the queue has more members than most
	everyone []string // all members, in order
	onDuty   []string // the members on duty, in order
	isCalled bool     // the node of a call stands

	isAsleep   bool
	awakeUntil time.Time
	takeoverAt time.Time // when this handle takes a vacant duty; zero: none was vacant
	lookAt     time.Time // when a waiting caller has to look at all this again; zero: after a signal

	mark ephemeral // says that this handle is on duty
	call ephemeral
	ends time.Time // of the call

	first     string        // the first available entry, when the queue was last listed
	leftSince time.Time     // since when it has been the first
	calledAt  time.Time     // of the last call, or of the last attempt
	pause     time.Duration // before another call because an entry is left

	life    context.Context // ends with the handle
	end     context.CancelFunc
	hasLeft bool        // Leave was called
	retires atomic.Bool // retire is to be called; needs no lock

	// Guarded by [Head.mu].
	callers  int
	departed time.Time   // when the last caller left
	timer    *time.Timer // calls [Head.retire]
}

// arrive counts a caller of Choose.
func (h *Head) arrive() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.duty.callers++
}

// depart counts a caller of Choose that leaves. After the last one the handle may have no
// free place: if no other caller comes, it gives up its duty.
func (h *Head) depart() {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := &h.duty
	if d.callers--; d.callers == 0 && d.retires.Load() {
		d.departed = time.Now()
		h.retireAfterLocked(fullAfter)
	}
}

// retireAfterLocked has retire called later.
func (h *Head) retireAfterLocked(after time.Duration) {
	if d := &h.duty; d.timer == nil {
		d.timer = time.AfterFunc(after, h.retire)
	} else {
		d.timer.Reset(after)
	}
}

// retire gives up the duty of a handle into which no caller has come for a while. After some
// more time it ends the watch too. If that cannot be done, it is tried again.
func (h *Head) retire() {
	d := &h.duty
	select {
	case h.sem <- struct{}{}:
		defer func() { <-h.sem }()
	default:
		return // a caller is here; depart calls again
	}
	h.mu.Lock()
	isWanted, idle := d.callers > 0, time.Since(d.departed)
	h.mu.Unlock()
	if isWanted || d.life.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(d.life, retireLimit)
	defer cancel()
	d.mark.remove(ctx)
	d.endCall(ctx)
	if idle >= unwatchAfter && d.isLarge {
		h.endWatch()
	}
	if d.life.Err() == nil && (d.mark.mayExist() || d.call.mayExist() || d.isLarge && h.session != nil) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.retireAfterLocked(max(unwatchAfter-idle, fullAfter))
	}
}

// Leave removes the handle's nodes among the watchers. The handle is closed. A node that it
// cannot remove before ctx ends is removed in the background, by the end of the session at
// the latest.
func (h *Head) Leave(ctx context.Context) {
	d := &h.duty
	h.sem <- struct{}{}
	hasLeft := d.hasLeft
	d.hasLeft = true
	<-h.sem
	if hasLeft {
		return
	}
	for _, e := range []*ephemeral{&d.mark, &d.call} {
		if e.remove(ctx); !e.mayExist() {
			continue
		}
		backoff := retry.Backoff{First: dutyRetry}
		go backoff.Do(context.Background(), e.session.Done(), func() (retry.Decision, error) {
			trying, cancel := context.WithTimeout(context.Background(), retireLimit)
			defer cancel()
			if e.remove(trying); e.mayExist() {
				return retry.Later, nil
			}
			return retry.Stop, nil
		})
	}
}

// listMembers brings up to date who the members are and which of them are on duty. In a queue
// with many members it begins to watch the duties.
func (h *Head) listMembers(ctx context.Context) (err error) {
	d := &h.duty
	for {
		if d.everyone, err = member.List(ctx, h.session, h.MembersDir); err != nil {
			return err
		}
		d.isLarge = d.most > 0 && !h.Strict && len(d.everyone) > d.most
		d.retires.Store(d.isLarge || d.mark.mayExist() || d.call.mayExist())
		if !d.isLarge || h.watched.duties {
			break
		}
		// Who left or came before this watch is in the next listing.
		if err = h.subscribe(ctx, h.session, scope{queue: h.watched.queue, members: true, duties: true}); err != nil {
			return err
		}
	}
	d.onDuty, d.isCalled = nil, false
	if !h.watched.duties {
		return nil
	}
	l, err := h.session.List(ctx, h.WatchersDir, coord.ListOptions{Seen: true})
	if err != nil {
		return err
	}
	for _, n := range l.Nodes {
		switch name := path.Base(n.Path); {
		case name == layout.CallNode:
			d.isCalled, d.calledAt = true, time.Now() // if there are many to call, one call is enough
		case layout.IsHolder(name):
			d.onDuty = append(d.onDuty, name)
		}
	}
	return nil
}

// sharers returns the members that share out the head of the queue. While little is available,
// the members on duty do, since the others sleep.
func (h *Head) sharers(available int) []string {
	d := &h.duty
	if _, isOnDuty := slices.BinarySearch(d.onDuty, h.Holder); isOnDuty && d.isLarge && available <= backlogPerWatcher*d.most {
		return d.onDuty
	}
	return d.everyone
}

// wake decides whether a handle that sleeps watches the queue again, and begins the watch. wait
// is false for a caller that does not wait for entries.
func (h *Head) wake(ctx context.Context, wait bool) error {
	d := &h.duty
	d.lookAt = time.Time{}
	isSubstitute := false
	switch {
	case !wait, d.isCalled, !d.isLarge:
		d.awakeUntil = time.Now().Add(stayAwake)
	case slices.Contains(d.onDuty, h.Holder): // an attempt without an answer made the node
	case d.mayTakeOver(h.Holder):
		isSubstitute = true
	default:
		d.lookAt = d.takeoverAt
		return nil
	}
	if err := h.subscribe(ctx, h.session, scope{queue: true, members: true, duties: true}); err != nil {
		return err
	}
	d.isAsleep = false
	if isSubstitute {
		h.takeDuty(ctx) // it is tried again before the handle waits
	}
	return nil
}

// takeDuty creates the node that says that this handle is on duty, and reports whether it
// exists.
func (h *Head) takeDuty(ctx context.Context) bool {
	d := &h.duty
	if !d.mark.create(ctx, h.session) {
		return false
	}
	if i, found := slices.BinarySearch(d.onDuty, h.Holder); !found {
		d.onDuty = slices.Insert(d.onDuty, i, h.Holder)
	}
	return true
}

// mayTakeOver reports whether a duty is vacant and it is this handle's turn to take it. The
// order in which members come changes with those on duty.
func (d *duty) mayTakeOver(me string) bool {
	if len(d.onDuty) >= d.most {
		d.takeoverAt = time.Time{}
		return false
	}
	now := time.Now()
	if d.takeoverAt.IsZero() {
		salt := ""
		for _, name := range d.onDuty {
			salt += name
		}
		step := min(takeoverStep, takeoverSpan/time.Duration(len(d.everyone)))
		d.takeoverAt = now.Add(time.Duration(member.Before(d.everyone, me, salt)) * step)
	}
	return !now.Before(d.takeoverAt)
}

// settleDuty decides what a handle does that found nothing to take and is about to wait: it
// takes a duty, goes on watching, or sleeps. again says that it must look once more before it
// waits.
func (h *Head) settleDuty(ctx context.Context) (again bool, err error) {
	d := &h.duty
	if d.isAsleep {
		return false, nil
	}
	d.lookAt = time.Time{}
	if !d.isLarge || !h.watched.duties {
		return false, nil
	}
	now := time.Now()
	rank, isOnDuty := slices.BinarySearch(d.onDuty, h.Holder)
	switch {
	case d.mark.isRefused(h.session): // it watches without a node
	case isOnDuty && rank < d.most && d.mark.isMade(h.session):
	case isOnDuty && !d.mark.isMade(h.session), !isOnDuty && d.mayTakeOver(h.Holder):
		if !h.takeDuty(ctx) {
			d.lookAt = now.Add(dutyRetry)
		}
	case len(d.onDuty) < d.most:
		d.lookAt = d.takeoverAt
	case d.isCalled:
	case now.Before(d.awakeUntil):
		d.lookAt = d.awakeUntil
	case d.mark.remove(ctx):
		if err := h.subscribe(ctx, h.session, scope{members: true, duties: true}); err != nil {
			return false, err
		}
		d.isAsleep = true
		return true, nil // a duty may have become vacant before this watch
	default:
		d.lookAt = now.Add(dutyRetry)
	}
	if d.first != "" {
		d.lookBy(d.leftSince.Add(leftoverAfter))
		if !now.Before(d.leftSince.Add(leftoverAfter)) {
			d.lookBy(d.calledAt.Add(max(d.pause, callPause)))
		}
	}
	if d.call.mayExist() {
		d.lookBy(d.ends)
	}
	return false, nil
}

// lookBy has a waiting caller look again at that time, unless it is to look before.
func (d *duty) lookBy(at time.Time) {
	if at.After(time.Now()) && (d.lookAt.IsZero() || at.Before(d.lookAt)) {
		d.lookAt = at
	}
}

// noteAvailable takes the available entries that a listing has shown. It calls the sleeping
// members if they are needed, and ends a call that has stood long enough.
func (h *Head) noteAvailable(ctx context.Context, available []string) {
	d := &h.duty
	d.endCall(ctx)
	if !d.isLarge || !h.watched.duties {
		return
	}
	now := time.Now()
	if len(available) == 0 {
		d.first, d.pause = "", 0
		return
	}
	if d.first != available[0] {
		d.first, d.leftSince = available[0], now
	}
	isBacklog := len(available) > backlogPerWatcher*d.most
	if isBacklog {
		d.awakeUntil = now.Add(stayAwake)
	}
	before, _ := slices.BinarySearch(d.everyone, h.Holder) // all see the end of a call at once
	pause := backlogPause + time.Duration(before)*callStep
	if !isBacklog {
		pause = max(d.pause, callPause)
		if now.Before(d.leftSince.Add(leftoverAfter)) {
			return
		}
	}
	if d.isCalled || d.call.isRefused(h.session) || now.Before(d.calledAt.Add(pause)) {
		return
	}
	d.calledAt, d.ends = now, now.Add(callFor)
	if d.call.create(ctx, h.session) {
		d.isCalled = true
		if !isBacklog {
			d.pause = min(max(2*d.pause, callPause), longestCallPause)
		}
	}
}

// endCall removes the node of a call that has stood long enough.
func (d *duty) endCall(ctx context.Context) {
	if d.call.mayExist() && !time.Now().Before(d.ends) {
		d.call.remove(ctx)
	}
}

// ephemeral is a node of a handle among the watchers.
type ephemeral struct {
	path string

	// The session in which the node may exist; nil: it does not.
	session coord.Session
	// Of the node; 0: not known.
	fence coord.Fence
	// An attempt to create the node was not answered, and may still be applied.
	isDoubtful bool
	// The session in which the service forbids the node.
	forbidden coord.Session
}

// mayExist reports whether the node may exist.
func (e *ephemeral) mayExist() bool { return e.session != nil }

// isMade reports whether the node was created in the session, and not removed.
func (e *ephemeral) isMade(s coord.Session) bool { return e.session == s && e.fence != 0 }

// isRefused reports whether the service forbids the node in the session.
func (e *ephemeral) isRefused(s coord.Session) bool { return e.forbidden == s }

// create creates the node, and reports whether it exists for certain and is this session's. A
// node of the same name may be there: from an attempt without an answer, or from an earlier
// session of this handle, which the service has not ended yet.
func (e *ephemeral) create(ctx context.Context, s coord.Session) bool {
	if e.session != s {
		e.isDoubtful = false
	}
	e.session, e.fence = s, 0
	for range 2 {
		results, err := s.Commit(ctx, coord.CreateEphemeral(e.path, nil))
		if err == nil {
			e.fence = results[0].Fence
			return true
		}
		if errors.Is(err, coord.ErrForbidden) {
			e.forbidden = s
		}
		if !retry.IsRefused(err) {
			e.isDoubtful = e.isDoubtful || errors.Is(err, coord.ErrUnknown)
			if !e.isDoubtful {
				e.session = nil
			}
			return false
		}
		n, err := s.Get(ctx, e.path)
		switch {
		case err == nil && n.Owner == s.ID():
			e.fence = n.Fence
			return true
		case err == nil && path.Base(e.path) != layout.CallNode:
			s.Commit(ctx, coord.Delete(e.path, n.Fence))
		case err == nil: // another member has called
			if !e.isDoubtful {
				e.session = nil
			}
			return false
		}
	}
	return false
}

// remove removes the node, and reports whether it was gone at some instant of the call. After an
// attempt in doubt the node may come back; then mayExist goes on to be true.
func (e *ephemeral) remove(ctx context.Context) bool {
	for range 3 {
		if e.session == nil {
			return true
		}
		select {
		case <-e.session.Done():
			e.session, e.fence, e.isDoubtful = nil, 0, false
			return true
		default:
		}
		if e.fence == 0 {
			n, err := e.session.Get(ctx, e.path)
			switch {
			case errors.Is(err, coord.ErrNotExist), err == nil && n.Owner != e.session.ID():
				e.forget()
				return true
			case err != nil:
				return false
			}
			e.fence = n.Fence
		}
		_, err := e.session.Commit(ctx, coord.Delete(e.path, e.fence))
		switch {
		case err == nil:
			e.forget()
			return true
		case retry.IsRefused(err):
			e.fence = 0
		default:
			return false
		}
	}
	return false
}

// forget notes that the node is gone.
func (e *ephemeral) forget() {
	e.fence = 0
	if !e.isDoubtful {
		e.session = nil
	}
}
