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
	stop func() bool // its ctx need not tell us any more
}

// watchSupport is what a coordinator knows of the watches that its servers have.
type watchSupport struct{ kind atomic.Int32 }

const (
	recursiveWatches = 1 // one that brings an event for each change beneath a path
	oneShotWatches   = 2 // only such as fire once: a server before 3.6 was met
)

func (w *watchSupport) known() bool     { return w.kind.Load() != 0 }
func (w *watchSupport) recursive() bool { return w.kind.Load() == recursiveWatches }
func (w *watchSupport) oneShot() bool   { return w.kind.Load() == oneShotWatches }
func (w *watchSupport) set(kind int32)  { w.kind.Store(kind) }

// Watch subscribes to the directories; see [coord.Session].
//
// The server is asked for an event of each change beneath a directory, and the directory
// listed once. Servers before 3.6 have only watches that fire once and are set by listing
// the directory again. That is done at once in a small one, and in one with many children
// so seldom that the server is busy with it for no more than a few hundredths of the time.
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
	// What was answered to others before is seen by every read from here on: the connected
	// server may lag behind it.
	if err := s.barrier(ctx); err != nil {
		s.cache.unsubscribe(w)
		return nil, fmt.Errorf("watch: %w", err)
	}
	for _, dir := range dirs {
		// From here on a change either has an event, or came before this listing was
		// kept, and then a new one is on its way with a signal after it.
		if err := s.cache.list(ctx, dir, &page{limit: 1}); err != nil {
			s.cache.unsubscribe(w)
			return nil, fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	return w.ch, nil
}

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

func (ds *dirCache) unsubscribe(w *watcher) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	w.stop()
	for _, d := range w.dirs {
		d.watchers = slices.DeleteFunc(d.watchers, func(x *watcher) bool { return x == w })
		ds.startIdleTimerLocked(d)
	}
}

// unfollowAfter is how long the events of a directory are still wanted when nobody watches it
// any more: who waits again and again asks for them once.
const unfollowAfter = time.Second

// startIdleTimerLocked sees to it that a directory that nobody watches is not followed for long, with the
// lock held.
func (ds *dirCache) startIdleTimerLocked(d *cachedDir) {
	if len(d.watchers) > 0 || d.followedOn == nil || d.idleTimer != nil || ds.closed {
		return
	}
	d.idleTimer = time.AfterFunc(unfollowAfter, func() { ds.unfollow(d) })
}

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
	// Where this fails the connection does, and every watch of it.
	_ = c.removeWatch(d.fullPath)
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d.switching, d.followedOn = false, nil
	ds.invalidateLocked(d)
}

// beginSwitchLocked begins the change from one kind of watch to the other, with the lock held. Until
// it is made the server may have either.
func (d *cachedDir) beginSwitchLocked() {
	d.switching = true
	d.forgetLocked()
}

// follow asks for the events of a directory on the connection that stands, unless that
// was done. Those of a new connection are asked for when it is made, see attach. If w is
// the only one who watches, he has no listing yet that could be out of date.
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

// requestWatch asks for the events of d. What the server does after this has them, so that
// listings that are asked for from then on can be kept up to date.
func (ds *dirCache) requestWatch(c *conn, d *cachedDir, first bool) error {
	ds.mu.Lock()
	d.beginSwitchLocked()
	ds.mu.Unlock()
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

// watchReply takes the answer to addWatch. It comes before the answer to any listing that
// relies on it.
func (ds *dirCache) watchReply(c *conn, d *cachedDir, code int32) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	switch {
	case code == 0:
		ds.s.watches.set(recursiveWatches)
	case c != ds.conn, code == codeLost, code == codeExpired, code == codeMoved:
	case code == codeUnimplemented:
		ds.s.watches.set(oneShotWatches)
		for _, d := range ds.byPath {
			d.followedOn = nil
			ds.invalidateLocked(d)
		}
	default: // as where it may not be read
		d.watchRefused, d.followedOn = true, nil
		ds.invalidateLocked(d)
	}
}

// watchesCreationLocked says whether a watch may be set that waits for the creation of d, with the lock
// held. Where it fired it would end a watch for all events of the same path: it is one
// kind of watch or the other.
func (ds *dirCache) watchesCreationLocked(d *cachedDir) bool {
	return ds.s.watches.oneShot() || d.watchRefused
}

// wantsOneShotWatch says whether a request for the children of a path, or for whether it exists,
// shall set a watch.
func (ds *dirCache) wantsOneShotWatch(c *conn, op int32, whole []byte) bool {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d := ds.byPath[string(whole)]
	if d == nil || c != ds.conn {
		return false
	}
	return ds.watchesCreationLocked(d) || op == opGetChildren && d.followedOn == nil && !d.switching
}

func (d *cachedDir) signal() {
	for _, w := range d.watchers {
		select {
		case w.ch <- struct{}{}:
		default:
		}
	}
}

// restPerMember is how long a directory is left alone for each of its children after a
// listing, and mostRest the longest rest. Listing one child costs the server some
// hundred nanoseconds.
const (
	restPerMember = 5 * time.Microsecond
	maxRest       = 500 * time.Millisecond
)

// restLocked is how long the directory is left alone from now, with the lock held.
func (d *cachedDir) restLocked() time.Duration {
	return min(time.Duration(d.memberCount)*restPerMember, maxRest) - time.Since(d.listedAt)
}

// scheduleListingLocked sees to it that a watched directory is listed again, with the lock held.
func (ds *dirCache) scheduleListingLocked(d *cachedDir) {
	if d.relisting || ds.closed || ds.s.addGoroutine() != nil {
		return
	}
	d.relisting = true
	wait := d.restLocked()
	if d.followedOn != nil {
		wait = 0 // once and for all
	}
	go func() {
		defer ds.s.goroutines.Done()
		ds.relist(d, wait)
	}()
}

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
			// Not ours to say: whoever waits shall look, and be told.
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
