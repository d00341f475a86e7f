package zkqueue

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
)

// watcher is one call of Watch.
type watcher struct {
	ch   chan struct{}
	dirs []*cachedDir
	stop func() bool // stops waiting for the end of its context
}

// watchSupport is which kind of watches the servers of a coordinator have. It is not known
// before the first answer.
type watchSupport struct{ kind atomic.Int32 }

const (
	recursiveWatches = 1 // addWatch: an event for each change below a path
	oneShotWatches   = 2 // a server older than 3.6 was met
)

func (w *watchSupport) known() bool   { return w.kind.Load() != 0 }
func (w *watchSupport) oneShot() bool { return w.kind.Load() == oneShotWatches }

// set notes the kind of watches that a server has.
func (w *watchSupport) set(kind int32) { w.kind.Store(kind) }

// Watch subscribes to directories; see [coord.Session]. It blocks until the service watches
// them. The channel receives after each change, and once when the session ends.
//
// On servers since 3.6 the directory is listed once and then followed by events. Older
// servers only have watches that fire once and are set again by listing the directory. In a
// small directory the driver does so at once; in a large one it waits, so that listings
// take no more than a few hundredths of the server's time.
func (s *session) Watch(ctx context.Context, dirs ...string) (<-chan struct{}, error) {
	if ctx == nil {
		return nil, fmt.Errorf("watch: no context: %w", coord.ErrInvalid)
	}
	for _, dir := range dirs {
		if err := coord.CheckDir(dir); err != nil {
			return nil, fmt.Errorf("watch: %w", err)
		}
	}
	if err := s.checkAlive(); err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	w, err := s.cache.subscribe(ctx, dirs)
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	for _, d := range w.dirs {
		s.cache.follow(d, w)
	}
	// Later reads must see everything that was answered to anyone before, and the connected server
	// may lag behind.
	if err := s.barrier(ctx); err != nil {
		s.cache.unsubscribe(w)
		return nil, fmt.Errorf("watch: %w", err)
	}
	for _, dir := range dirs {
		// From here on each change has an event, or came before this listing was kept; in that case
		// another listing is in flight, with a signal after it.
		if err := s.cache.list(ctx, dir, &page{limit: 1}); err != nil {
			s.cache.unsubscribe(w)
			return nil, fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	return w.ch, nil
}

// subscribe adds a watcher of the directories, which stays until ctx ends.
func (ds *dirCache) subscribe(ctx context.Context, dirs []string) (*watcher, error) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.closed {
		return nil, ds.s.cause
	}
	w := &watcher{ch: make(chan struct{}, 1)}
	w.stop = context.AfterFunc(ctx, func() { ds.unsubscribe(w) })
	for _, dir := range dirs {
		d := ds.dirLocked(dir)
		d.watchers = append(d.watchers, w)
		if d.idleTimer != nil {
			d.idleTimer.Stop()
			d.idleTimer = nil
		}
		w.dirs = append(w.dirs, d)
	}
	return w, nil
}

// unsubscribe removes a watcher.
func (ds *dirCache) unsubscribe(w *watcher) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	w.stop()
	for _, d := range w.dirs {
		d.watchers = slices.DeleteFunc(d.watchers, func(x *watcher) bool { return x == w })
		ds.startIdleTimerLocked(d)
	}
}

// unfollowAfter is how long a directory is followed after its last watcher has left. A
// caller that watches again and again asks the server only once.
const unfollowAfter = time.Second

// startIdleTimerLocked has a directory without watchers unfollowed later.
func (ds *dirCache) startIdleTimerLocked(d *cachedDir) {
	if len(d.watchers) > 0 || d.followedOn == nil || d.idleTimer != nil || ds.closed {
		return
	}
	d.idleTimer = time.AfterFunc(unfollowAfter, func() { ds.unfollow(d) })
}

// unfollow ends the events of a directory that still has no watchers.
func (ds *dirCache) unfollow(d *cachedDir) {
	ds.watchMu.Lock()
	defer ds.watchMu.Unlock()
	ds.mu.Lock()
	d.idleTimer = nil
	c := d.followedOn
	if len(d.watchers) > 0 || c == nil || ds.closed {
		ds.mu.Unlock()
		return
	}
	d.beginSwitchLocked()
	ds.mu.Unlock()
	// If this fails, the connection and all its watches end.
	_ = c.removeWatch(d.fullPath)
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d.switching, d.followedOn = false, nil
	ds.invalidateLocked(d)
}

// beginSwitchLocked begins the change from one kind of watch to the other. Until it is
// made, the server may have either.
func (d *cachedDir) beginSwitchLocked() {
	d.switching = true
	d.forgetLocked()
}

// follow asks for the events of a directory on the current connection, unless that is done;
// followAll does so for a new connection. A watcher w that is the directory's only one has
// no listing yet that could be stale, so it needs no signal.
func (ds *dirCache) follow(d *cachedDir, w *watcher) {
	ds.watchMu.Lock()
	defer ds.watchMu.Unlock()
	ds.mu.Lock()
	c := ds.conn
	if c == nil || d.followedOn != nil || d.watchRefused || ds.s.watches.oneShot() || ds.closed {
		ds.mu.Unlock()
		return
	}
	first := len(d.watchers) == 1 && d.watchers[0] == w
	ds.mu.Unlock()
	_ = ds.requestWatch(c, d, first)
}

// followAll asks for the events of all watched directories on a new connection.
func (ds *dirCache) followAll(c *conn) error {
	ds.watchMu.Lock()
	defer ds.watchMu.Unlock()
	ds.mu.Lock()
	ds.conn = c
	var watched []*cachedDir
	for _, d := range ds.byPath {
		if len(d.watchers) > 0 && !d.watchRefused {
			watched = append(watched, d)
		}
	}
	ds.mu.Unlock()
	if ds.s.watches.oneShot() {
		return nil
	}
	for _, d := range watched {
		if err := ds.requestWatch(c, d, false); err != nil {
			return err
		}
	}
	return nil
}

// requestWatch asks for the events of d. Listings that are requested afterwards can be kept
// up to date by them. If first, the watcher is not signalled.
func (ds *dirCache) requestWatch(c *conn, d *cachedDir, first bool) error {
	ds.mu.Lock()
	d.beginSwitchLocked()
	ds.mu.Unlock()
	// The reply may come before addWatch returns, and so before followedOn is set below:
	// watchReply marks a refusal in other fields, which are looked at here.
	err := c.addWatch(d.fullPath, func(code int32, _ []byte) { ds.watchReply(c, d, code) })
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d.switching = false
	if err == nil && ds.conn == c && !d.watchRefused && !ds.s.watches.oneShot() {
		d.followedOn = c
	}
	if first {
		d.forgetLocked()
		d.signalledAt = d.invalidations
	} else {
		ds.invalidateLocked(d)
	}
	ds.startIdleTimerLocked(d)
	return err
}

// watchReply takes the reply to addWatch. It precedes the reply to any listing that relies
// on the watch.
func (ds *dirCache) watchReply(c *conn, d *cachedDir, code int32) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	switch {
	case code == 0:
		ds.s.watches.set(recursiveWatches)
	// The connection is over, and onDisconnect forgets its watches.
	case c != ds.conn, code == codeLost, code == codeExpired, code == codeMoved:
	case code == codeUnimplemented:
		ds.s.watches.set(oneShotWatches)
		for _, d := range ds.byPath {
			d.followedOn = nil
			ds.invalidateLocked(d)
		}
	default: // for instance because this user may not read it
		d.watchRefused, d.followedOn = true, nil
		ds.invalidateLocked(d)
	}
}

// watchesCreationLocked reports whether a one-shot watch may wait for the creation of d.
// When such a watch fires, the server also drops a recursive watch on the same path, so a
// directory has one kind or the other.
func (ds *dirCache) watchesCreationLocked(d *cachedDir) bool {
	return ds.s.watches.oneShot() || d.watchRefused
}

// wantsOneShotWatch reports whether a request of go-zookeeper's for a path's children, or
// whether the path exists, is to set a watch.
func (ds *dirCache) wantsOneShotWatch(c *conn, op int32, fullPath []byte) bool {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d := ds.byPath[string(fullPath)]
	if d == nil || c != ds.conn {
		return false
	}
	return ds.watchesCreationLocked(d) || op == opGetChildren && d.followedOn == nil && !d.switching
}

// signal tells the watchers to look again. A watcher that has not received the last signal
// needs no other.
func (d *cachedDir) signal() {
	for _, w := range d.watchers {
		select {
		case w.ch <- struct{}{}:
		default:
		}
	}
}

// After a listing a directory is left alone for restPerMember per child, and for maxRest at
// most. Listing one child costs the server some hundred nanoseconds.
const (
	restPerMember = 5 * time.Microsecond
	maxRest       = 500 * time.Millisecond
)

// restLocked returns how long the directory is to be left alone from now on.
func (d *cachedDir) restLocked() time.Duration {
	return min(time.Duration(d.memberCount)*restPerMember, maxRest) - time.Since(d.listedAt)
}

// scheduleListingLocked has a watched directory listed again.
func (ds *dirCache) scheduleListingLocked(d *cachedDir) {
	if d.relisting || ds.closed || ds.s.addGoroutine() != nil {
		return
	}
	d.relisting = true
	wait := d.restLocked()
	if d.followedOn != nil {
		wait = 0 // events follow it from then on
	}
	go func() {
		defer ds.s.goroutines.Done()
		ds.relist(d, wait)
	}()
}

// relist lists a directory until its names are kept or its last watcher has left.
func (ds *dirCache) relist(d *cachedDir, wait time.Duration) {
	for {
		if wait > 0 {
			select {
			case <-time.After(wait):
			case <-ds.s.done:
				return
			}
		}
		ds.follow(d, nil)
		err := ds.list(ds.s.ctx, d.path, &page{limit: 1})
		if ds.s.checkAlive() != nil {
			return
		}
		ds.mu.Lock()
		if err != nil {
			// The watchers look for themselves, and get the error.
			d.signal()
		}
		if d.names != nil || len(d.watchers) == 0 {
			d.relisting = false
			ds.mu.Unlock()
			return
		}
		wait = max(d.restLocked(), time.Millisecond)
		if err != nil {
			wait = maxRest
		}
		ds.mu.Unlock()
	}
}
