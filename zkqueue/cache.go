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

// cachedDir is what the driver knows of one directory. Where it is watched, an event
// tells of each change, and the set follows. Elsewhere, and at servers that know nothing
// of such watches, each listing sets a watch that fires once, so that the set stands
// until it does. No set outlives the connection that brings its events.
type cachedDir struct {
	path          string          // without the chroot
	fullPath      string          // with it
	names         *names.Set      // of the children's paths; nil: not known, or changed since
	stamp         uint64          // of the set
	changes       int32           // creations and deletions that the set knows of, as the server counts them; -1: unclear
	invalidations uint64          // counts what made sets invalid
	signalledAt   uint64          // how many of these the watchers were signalled
	pending       *pendingListing // a listing on its way
	watchers      []*watcher

	followedOn       *conn        // brings an event for each change
	switching        bool         // from one kind of watch to the other: nothing stands
	watchRefused     bool         // the server would not have that
	missedEvents     []childEvent // that came while listings were on their way
	followedListings int          // listings on their way that these must be added to
	idleTimer        *time.Timer  // ends what nobody watches any more

	relisting   bool // somebody sees to it that it is listed again
	listedAt    time.Time
	memberCount int // when last listed
}

// childEvent is the creation or deletion of a child.
type childEvent struct {
	path    string // without the chroot
	deleted bool
}

// pendingListing is a listing on its way. Its set is guarded by the directories' lock once done
// is closed.
type pendingListing struct {
	invalidations uint64
	followed      bool // what changes until it has come is added
	watchCreation bool // a watch may be set for the creation of the directory
	unwatched     bool // nothing will tell of the next change
	done          chan struct{}
	names         *names.Set
	stamp         uint64
	changes       int32
	err           error
}

// page is what a caller wants of a directory's children, in name order.
type page struct {
	after string // "" or a path
	limit int    // 0: all
	fresh bool

	paths []string
	more  bool
	stamp uint64
}

func (p *page) fill(set *names.Set, stamp uint64) {
	p.paths, p.more = set.Page(p.after, p.limit)
	p.stamp = stamp
}

// dirCache are all that a session listed or watches.
type dirCache struct {
	s       *session
	watchMu sync.Mutex // one at a time adds and removes watches, before mu

	mu        sync.Mutex
	byPath    map[string]*cachedDir // by whole path
	conn      *conn                 // that has a session
	lastStamp uint64                // the last one of our own
	closed    bool
}

func newDirCache(s *session) dirCache {
	return dirCache{s: s, byPath: make(map[string]*cachedDir), lastStamp: rand.Uint64()}
}

// maxIdleDirs is how many directories that nobody watches are kept. A watch that was set
// for one that is forgotten fires into nothing.
const maxIdleDirs = 1024

// dirLocked returns the directory, with the lock held.
func (ds *dirCache) dirLocked(path string) *cachedDir {
	whole := ds.s.fullPath(path)
	d := ds.byPath[whole]
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
	d = &cachedDir{path: path, fullPath: whole}
	ds.byPath[whole] = d
	return d
}

// list takes a page of the directory's children: of the set that stands, or of a listing
// whose request is sent after the call began, or after everything that this session then
// knew.
func (ds *dirCache) list(ctx context.Context, path string, p *page) error {
	if err := ds.s.checkAlive(); err != nil {
		return err
	}
	if p.fresh {
		// Whatever changed before has changed the set when this is answered.
		if err := ds.s.barrier(ctx); err != nil {
			return err
		}
	}
	for checked := false; ; {
		ds.mu.Lock()
		d := ds.dirLocked(path)
		if d.names != nil && p.fresh && !checked && d.followedOn != nil && d.changes >= 0 {
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
		if c := d.pending; c != nil && c.invalidations == d.invalidations && (c.followed || !p.fresh) {
			ds.mu.Unlock()
			if found, err := ds.awaitListing(ctx, d, c, p); found || err != nil {
				return err
			}
			continue // the other caller may merely have gone away
		}
		c := &pendingListing{
			invalidations: d.invalidations, followed: d.followedOn != nil && !d.switching, unwatched: d.switching,
			watchCreation: ds.watchesCreationLocked(d), done: make(chan struct{}),
		}
		d.pending = c
		if c.followed {
			d.followedListings++
		}
		ds.mu.Unlock()

		ds.fetch(ctx, d, c)

		ds.mu.Lock()
		d.finishListingLocked(ds, c)
		found := d.takePageLocked(c, p)
		ds.mu.Unlock()
		close(c.done)
		if found || c.err != nil {
			return c.err
		}
	}
}

// verify compares what events told of a followed directory with the server's count of its
// changes. The server sends no event of a child that this session may not read: where there
// are such, the directory is not followed any more.
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
	_ = c.removeWatch(d.fullPath) // where this fails the connection does, and every watch of it
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d.switching, d.followedOn = false, nil
	ds.invalidateLocked(d)
	return nil
}

// awaitListing waits for a listing that another caller asked for.
func (ds *dirCache) awaitListing(ctx context.Context, d *cachedDir, c *pendingListing, p *page) (found bool, err error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		return false, ctx.Err()
	case <-ds.s.done:
		return false, ds.s.cause
	}
	if c.err != nil {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		return false, ds.s.checkAlive()
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return d.takePageLocked(c, p), nil
}

// takePageLocked takes the page of what came, with the lock held. What was to be followed and is
// not may lack this session's own changes.
func (d *cachedDir) takePageLocked(c *pendingListing, p *page) bool {
	if c.err != nil || c.followed && d.names != c.names {
		return false
	}
	p.fill(c.names, c.stamp)
	if d.names == c.names {
		p.stamp = d.stamp
	}
	return true
}

// finishListingLocked takes a listing, with the lock held. It stands if nothing has made it invalid. Its
// watchers are told even so: in a directory that changes all the time none would stand.
func (d *cachedDir) finishListingLocked(ds *dirCache, c *pendingListing) {
	if d.pending == c {
		d.pending = nil
	}
	if c.followed && c.invalidations == d.invalidations {
		d.followedListings--
	}
	if c.err != nil {
		return
	}
	d.listedAt, d.memberCount = time.Now(), c.names.Len()
	tell := d.signalledAt < c.invalidations
	d.signalledAt = max(d.signalledAt, c.invalidations)
	if !c.unwatched && c.invalidations == d.invalidations {
		d.names, d.stamp, d.changes = c.names, c.stamp, c.changes
		if len(d.missedEvents) > 0 {
			d.changes = -1 // which of these the listing has is not known
		}
		for _, e := range d.missedEvents {
			d.applyLocked(ds, e)
		}
		tell = tell || len(d.missedEvents) > 0
	}
	if d.followedListings == 0 {
		d.missedEvents = nil
	}
	if tell {
		d.signal()
	}
}

// applyLocked makes a change that may be in the set already, with the lock held.
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
		d.stamp = ds.lastStamp | 1<<63 // no transaction has such a number
	}
}

// fetch asks the server. A directory that is not there is empty: of one that is followed
// there will be an event, and elsewhere the watch is for its creation, where it may.
func (ds *dirCache) fetch(ctx context.Context, d *cachedDir, c *pendingListing) {
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
			// The commit that last changed the children.
			c.names, c.stamp, c.changes = d.childNames(l.names), uint64(l.stat.Pzxid), l.stat.Cversion
			return
		}
		if !errors.Is(err, coord.ErrNotExist) {
			c.err = err
			return
		}
		if !c.watchCreation {
			c.names, c.unwatched = names.New(nil), !c.followed
			return
		}
		there, err := read(ctx, ds.s, func(z *zk.Conn) (bool, error) {
			there, _, err := z.Exists(d.fullPath)
			return there, err
		})
		if err != nil {
			c.err = err
			return
		}
		if !there {
			c.names = names.New(nil)
			return
		}
	}
}

func (d *cachedDir) childNames(children []string) *names.Set {
	dir := strings.TrimSuffix(d.path, "/") + "/"
	if d.fullPath == "/" { // the service's own nodes lie there
		children = slices.DeleteFunc(children, func(name string) bool { return name == "zookeeper" })
	}
	for i, name := range children {
		children[i] = dir + name
	}
	return names.New(children)
}

// handleEvent takes a watch event of a connection. It comes before the answer to anything that
// the server did later, and so before this session's commits know of their success.
func (ds *dirCache) handleEvent(c *conn, kind int32, whole []byte) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if c != ds.conn || ds.closed {
		return
	}
	if d := ds.byPath[string(whole)]; d != nil && d.followedOn == nil {
		ds.invalidateLocked(d) // a watch has fired
	}
	if kind != nodeCreated && kind != nodeDeleted {
		return
	}
	up := max(bytes.LastIndexByte(whole, '/'), 0)
	if up == 0 {
		up = 1
	}
	d := ds.byPath[string(whole[:up])]
	if d == nil || d.followedOn == nil || d.fullPath == "/" && string(whole) == "/zookeeper" {
		return
	}
	e := childEvent{string(whole[len(ds.s.cfg.Chroot):]), kind == nodeDeleted}
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

// invalidateLocked says that what is known of the directory may not be so any more, with the lock
// held.
func (ds *dirCache) invalidateLocked(d *cachedDir) {
	d.forgetLocked()
	if len(d.watchers) > 0 {
		ds.scheduleListingLocked(d)
	} else {
		d.signalledAt = d.invalidations
	}
}

func (d *cachedDir) forgetLocked() {
	d.names, d.missedEvents, d.followedListings = nil, nil, 0
	d.invalidations++
}

// onDisconnect and reconnected: the server forgot a connection's watches.
func (ds *dirCache) onDisconnect() {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.conn = nil
	for _, d := range ds.byPath {
		d.forgetLocked()
		d.followedOn = nil
	}
}

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
