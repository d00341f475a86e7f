package zkqueue

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/names"
)

// cachedDir is what the driver knows of one directory. It is in one of three states:
//
//	followed    servers since 3.6, while it is watched: an event tells of each change, and
//	            names is updated with it
//	one-shot    other directories: the last listing has set a watch that fires once, and names
//	            is dropped when it fires
//	unknown     names is nil: it was never listed, has changed since, or is being switched
//	            from one kind of watch to the other
//
// No names outlive the connection that brings their events.
type cachedDir struct {
	// Without the chroot.
	path string
	// With the chroot.
	fullPath string
	// Paths of the children; nil: not known, or changed since.
	names *names.Set
	// Of names, for coord.List.
	stamp uint64
	// Creates and deletes that names has, as the server counts them; -1: not known.
	changes int32
	// How often names became invalid.
	invalidations uint64
	// Invalidations when the watchers were last signalled.
	signalledAt uint64
	// The listing in flight.
	pending  *pendingListing
	watchers []*watcher

	// The connection that brings an event for each change.
	followedOn *conn
	// Between the two kinds of watch: the server may have either, so no names are kept.
	switching bool
	// The server refused to send events.
	watchRefused bool
	// Events that came while listings were in flight.
	missedEvents []childEvent
	// Listings in flight that need missedEvents.
	followedListings int
	// Ends following when the last watcher has left.
	idleTimer *time.Timer

	// A goroutine is about to list it again.
	relisting bool
	// When it was last listed.
	listedAt time.Time
	// Children at that time.
	memberCount int
}

// childEvent is the create or delete of a child.
type childEvent struct {
	path    string // without the chroot
	deleted bool
}

// pendingListing is a listing in flight. The other fields are set when done is closed, and
// names is then guarded by dirCache.mu.
type pendingListing struct {
	// Of the directory when the listing began.
	invalidations uint64
	// Changes that come meanwhile are added to it.
	followed bool
	// A watch may be set for the directory's creation.
	watchCreation bool
	// Nothing tells of the next change.
	unwatched bool
	done      chan struct{}
	names     *names.Set
	stamp     uint64
	changes   int32
	err       error
}

// page is a part of a directory's children, in the order of their names.
type page struct {
	after string // a path, or "" for the first page
	limit int    // 0: no limit
	fresh bool   // include everything that was answered to anyone before

	paths []string
	more  bool
	stamp uint64
}

// fill takes the page out of a directory's names.
func (p *page) fill(set *names.Set, stamp uint64) {
	p.paths, p.more = set.Page(p.after, p.limit)
	p.stamp = stamp
}

// dirCache holds the directories that a session has listed or watches. All methods whose
// names end in Locked are called with mu held.
//
// The events of a connection arrive in the order of the server's changes, and before the
// reply to anything that the server did later. So the names of a followed directory are
// exactly what the connected server had when the last reply arrived.
type dirCache struct {
	s *session
	// Held while watches are added or removed; acquired before mu.
	watchMu sync.Mutex

	mu sync.Mutex
	// By whole path.
	byPath map[string]*cachedDir
	// The connection that has a session.
	conn *conn
	// The last stamp that was made here.
	lastStamp uint64
	closed    bool
}

// newDirCache returns a cache without directories. Its stamps begin at a random number, so
// that the stamps of two sessions differ.
func newDirCache(s *session) dirCache {
	return dirCache{s: s, byPath: make(map[string]*cachedDir), lastStamp: rand.Uint64()}
}

// maxIdleDirs bounds the directories without watchers that are kept. When the watch of a
// dropped directory fires, it is ignored.
const maxIdleDirs = 1024

// dirLocked returns the directory, which it adds if need be.
func (ds *dirCache) dirLocked(path string) *cachedDir {
	fullPath := ds.s.fullPath(path)
	d := ds.byPath[fullPath]
	if d != nil {
		return d
	}
	if len(ds.byPath) >= maxIdleDirs {
		for _, old := range ds.byPath {
			if len(old.watchers) == 0 && old.followedOn == nil {
				delete(ds.byPath, old.fullPath)
				break
			}
		}
	}
	d = &cachedDir{path: path, fullPath: fullPath}
	ds.byPath[fullPath] = d
	return d
}

// list fills p with a part of the directory's children, from the names that are known or
// from a listing that began after the call did.
//
// A fresh page first waits for a barrier. Every change that was answered before then has
// had its event, so names that are still known are fresh too. The exception are children
// that this user may not read, for which the server sends no event: verify looks for them,
// once per call.
//
// Callers that need a listing at the same time share one. A listing that has become invalid
// meanwhile is not kept. It still answers the callers that waited for it, unless it was to
// be followed: such a one may lack this session's own changes.
func (ds *dirCache) list(ctx context.Context, path string, p *page) error {
	if err := ds.s.checkAlive(); err != nil {
		return err
	}
	if p.fresh {
		// After this every earlier change has reached names.
		if err := ds.s.barrier(ctx); err != nil {
			return err
		}
	}
	for checked := false; ; {
		ds.mu.Lock()
		d := ds.dirLocked(path)
		if p.fresh && !checked && d.canVerifyLocked() {
			checked = true
			ds.mu.Unlock()
			if err := ds.verify(ctx, d); err != nil {
				return err
			}
			continue
		}
		if d.names != nil {
			p.fill(d.names, d.stamp)
			ds.mu.Unlock()
			return nil
		}
		if listing := d.pending; listing != nil && d.mayShareLocked(listing, p) {
			ds.mu.Unlock()
			if found, err := ds.awaitListing(ctx, d, listing, p); found || err != nil {
				return err
			}
			continue // the other caller's context may have ended
		}
		listing := ds.beginListingLocked(d)
		ds.mu.Unlock()

		ds.fetch(ctx, d, listing)

		ds.mu.Lock()
		d.finishListingLocked(ds, listing)
		found := d.takePageLocked(listing, p)
		ds.mu.Unlock()
		close(listing.done)
		if found || listing.err != nil {
			return listing.err
		}
	}
}

// mayShareLocked reports whether a page may be filled from a listing that another caller
// began. Nothing may have become invalid since, and a page with everything that was answered
// before needs a listing that is followed: it shows this session's own changes.
func (d *cachedDir) mayShareLocked(listing *pendingListing, p *page) bool {
	return listing.invalidations == d.invalidations && (listing.followed || !p.fresh)
}

// beginListingLocked makes a listing of d the pending one. Its caller fetches it and then
// calls finishListingLocked.
func (ds *dirCache) beginListingLocked(d *cachedDir) *pendingListing {
	listing := &pendingListing{
		invalidations: d.invalidations,
		followed:      d.followedOn != nil && !d.switching,
		unwatched:     d.switching,
		watchCreation: ds.watchesCreationLocked(d),
		done:          make(chan struct{}),
	}
	d.pending = listing
	if listing.followed {
		d.followedListings++
	}
	return listing
}

// canVerifyLocked reports whether verify can check the names.
func (d *cachedDir) canVerifyLocked() bool {
	return d.names != nil && d.followedOn != nil && d.changes >= 0
}

// verify compares the changes of a followed directory with the server's own count. They
// differ if a child may not be read by this user, since the server sends no event for it.
// Such a directory is not followed any longer.
func (ds *dirCache) verify(ctx context.Context, d *cachedDir) error {
	stat, err := read(ctx, ds.s, func(z *zk.Conn) (*zk.Stat, error) {
		_, stat, err := z.Exists(d.fullPath)
		return stat, err
	})
	if err != nil {
		return err
	}
	ds.watchMu.Lock()
	defer ds.watchMu.Unlock()
	ds.mu.Lock()
	c := d.followedOn
	if c == nil || d.names == nil || d.changes < 0 || stat == nil || d.changes >= stat.Cversion {
		ds.mu.Unlock()
		return nil
	}
	d.watchRefused = true
	d.beginSwitchLocked()
	ds.mu.Unlock()
	_ = c.removeWatch(d.fullPath) // if this fails, the connection and all its watches end
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d.switching, d.followedOn = false, nil
	ds.invalidateLocked(d)
	return nil
}

// awaitListing waits for a listing that another caller began, and fills p from it if it
// can.
func (ds *dirCache) awaitListing(ctx context.Context, d *cachedDir, listing *pendingListing, p *page) (found bool, err error) {
	select {
	case <-listing.done:
	case <-ctx.Done():
		return false, ctx.Err()
	case <-ds.s.done:
		return false, ds.s.cause
	}
	if listing.err != nil {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		return false, ds.s.checkAlive()
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return d.takePageLocked(listing, p), nil
}

// takePageLocked fills p from a finished listing. A listing that was to be followed, and is
// not, may lack this session's own changes: then it reports false.
func (d *cachedDir) takePageLocked(listing *pendingListing, p *page) bool {
	if listing.err != nil || listing.followed && d.names != listing.names {
		return false
	}
	p.fill(listing.names, listing.stamp)
	if d.names == listing.names {
		p.stamp = d.stamp
	}
	return true
}

// finishListingLocked keeps the names of a listing unless they have become invalid. The
// watchers are signalled in either case, because in a directory that changes all the time
// no names would ever be kept.
func (d *cachedDir) finishListingLocked(ds *dirCache, listing *pendingListing) {
	if d.pending == listing {
		d.pending = nil
	}
	if listing.followed && listing.invalidations == d.invalidations {
		d.followedListings--
	}
	if listing.err != nil {
		return
	}
	d.listedAt, d.memberCount = time.Now(), listing.names.Len()
	signal := d.signalledAt < listing.invalidations
	d.signalledAt = max(d.signalledAt, listing.invalidations)
	if !listing.unwatched && listing.invalidations == d.invalidations {
		d.names, d.stamp, d.changes = listing.names, listing.stamp, listing.changes
		if len(d.missedEvents) > 0 {
			d.changes = -1 // the listing may have some of these changes already
		}
		for _, e := range d.missedEvents {
			d.applyLocked(ds, e)
		}
		signal = signal || len(d.missedEvents) > 0
	}
	if d.followedListings == 0 {
		d.missedEvents = nil
	}
	if signal {
		d.signal()
	}
}

// applyLocked makes a change, which names may have already.
func (d *cachedDir) applyLocked(ds *dirCache, e childEvent) {
	changed := false
	if e.deleted {
		changed = d.names.Remove(e.path)
	} else {
		changed = d.names.Add(e.path)
	}
	if d.changes >= 0 {
		d.changes++
	}
	if changed {
		ds.lastStamp++
		d.stamp = ds.lastStamp | 1<<63 // a zxid never has this bit
	}
}

// fetch reads the names from the server. A directory that does not exist is empty. Its
// creation is signalled by an event if the directory is followed, and otherwise by a watch
// that is set here if the listing may do so.
func (ds *dirCache) fetch(ctx context.Context, d *cachedDir, listing *pendingListing) {
	type children struct {
		names []string
		stat  *zk.Stat
	}
	for {
		l, err := read(ctx, ds.s, func(z *zk.Conn) (children, error) {
			names, stat, err := z.Children(d.fullPath)
			return children{names, stat}, err
		})
		if err == nil {
			// Pzxid is the transaction that last changed the children.
			listing.names, listing.stamp, listing.changes = d.childNames(l.names), uint64(l.stat.Pzxid), l.stat.Cversion
			return
		}
		if !errors.Is(err, coord.ErrNotExist) {
			listing.err = err
			return
		}
		// The directory does not exist.
		if !listing.watchCreation {
			listing.names, listing.unwatched = names.New(nil), !listing.followed
			return
		}
		// Children sets no watch on a directory that does not exist, but Exists does.
		there, err := read(ctx, ds.s, func(z *zk.Conn) (bool, error) {
			there, _, err := z.Exists(d.fullPath)
			return there, err
		})
		if err != nil {
			listing.err = err
			return
		}
		if !there {
			listing.names = names.New(nil)
			return
		}
	}
}

// childNames returns the set of the children's paths.
func (d *cachedDir) childNames(children []string) *names.Set {
	dir := strings.TrimSuffix(d.path, "/") + "/"
	if d.fullPath == "/" { // ZooKeeper's own nodes
		children = slices.DeleteFunc(children, func(name string) bool { return name == "zookeeper" })
	}
	for i, name := range children {
		children[i] = dir + name
	}
	return names.New(children)
}

// handleEvent takes a watch event from a connection. The event precedes the reply to
// anything that the server did later, so a commit of this session returns after its own
// events.
func (ds *dirCache) handleEvent(c *conn, kind int32, fullPath []byte) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if c != ds.conn || ds.closed {
		return
	}
	if d := ds.byPath[string(fullPath)]; d != nil && d.followedOn == nil {
		ds.invalidateLocked(d) // a one-shot watch has fired
	}
	if kind != nodeCreated && kind != nodeDeleted {
		return
	}
	// A recursive watch reports the path of the child, not that of the directory.
	up := max(bytes.LastIndexByte(fullPath, '/'), 0)
	if up == 0 {
		up = 1
	}
	d := ds.byPath[string(fullPath[:up])]
	if d == nil || d.followedOn == nil || d.fullPath == "/" && string(fullPath) == "/zookeeper" {
		return
	}
	// The event is applied now, added to the listing in flight, or makes an earlier listing
	// invalid.
	e := childEvent{string(fullPath[len(ds.s.cfg.Chroot):]), kind == nodeDeleted}
	switch {
	case d.names != nil:
		d.applyLocked(ds, e)
		d.signal()
	case d.followedListings > 0:
		d.missedEvents = append(d.missedEvents, e)
	default:
		ds.invalidateLocked(d)
	}
}

// invalidateLocked drops the names of a directory and, if it is watched, has it listed
// again.
func (ds *dirCache) invalidateLocked(d *cachedDir) {
	d.forgetLocked()
	if len(d.watchers) > 0 {
		ds.scheduleListingLocked(d)
	} else {
		d.signalledAt = d.invalidations
	}
}

// forgetLocked drops the names and everything that listings in flight would add to.
func (d *cachedDir) forgetLocked() {
	d.names, d.missedEvents, d.followedListings = nil, nil, 0
	d.invalidations++
}

// onDisconnect drops all names: the server has forgotten the connection's watches.
func (ds *dirCache) onDisconnect() {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.conn = nil
	for _, d := range ds.byPath {
		d.forgetLocked()
		d.followedOn = nil
	}
}

// onReconnect lists the watched directories again, and so signals their watchers.
func (ds *dirCache) onReconnect() {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for _, d := range ds.byPath {
		ds.invalidateLocked(d)
	}
}

// close signals all watchers for the last time.
func (ds *dirCache) close() {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.closed = true
	for _, d := range ds.byPath {
		d.signal()
		for _, w := range d.watchers {
			w.stop()
		}
		if d.idleTimer != nil {
			d.idleTimer.Stop()
		}
	}
	clear(ds.byPath)
}
