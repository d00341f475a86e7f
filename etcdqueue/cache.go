package etcdqueue

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/fnv"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/names"
)

// dirCache holds the names in a watched directory: a listing at some revision, and every
// event since. Its states are
//
//	empty     the first listing of the directory is asked of the service
//	filling   a second listing has begun: dirWatch.fillCache reads the names at one revision,
//	          and all listings meanwhile are answered at that revision
//	filled    listings are answered from memory
//
// It becomes empty again when its watch has lost events, when an own commit's event does
// not come, and after a restore.
//
// Two promises hold. A listing never shows less than one that was answered before it: the
// answers of an empty cache are linearizable, and so is the read that fills it. And a
// listing never shows less than this process was told: it waits for the events of the
// process's own commits.
type dirCache struct {
	mu sync.Mutex
	// Nil until the cache is filled.
	names *names.Set
	// Directories among the names.
	dirs map[string]*subdirectory
	// Revision of the listing.
	listedAt int64
	// Revision of the last event; 0: not filled.
	reached int64
	// Revision of the last change of the names.
	changedAt int64
	// Of the last answered commit of this process that changed the names.
	ownRevision int64
	// Closed when reached changes; nil: no listing waits for that.
	advanced chan struct{}
	// Listings that the service is being asked for.
	pendingLists int
	// The service has answered one of them.
	hasAnswer bool
	// The first listing, while it is read.
	filling *cacheFill
	// The watch has ended.
	closed bool
	// How often the cache was discarded; a fill of an earlier generation does not count.
	generation int

	// One token: a listing waits for the cache to be filled.
	fillRequest chan struct{}
}

// subdirectory is a name that has keys below it, and may be a node too.
type subdirectory struct {
	keys int // below it
	node bool
}

// cacheFill is the reading of the first listing.
type cacheFill struct {
	pinned chan struct{} // closed when rev is known, or the fill has ended
	rev    int64         // 0: the fill has failed
	done   chan struct{}
}

// newDirCache returns a cache that is not filled.
func newDirCache() *dirCache { return &dirCache{fillRequest: make(chan struct{}, 1)} }

// noteCommit notes an answered commit of this process that changed the names.
func (c *dirCache) noteCommit(rev int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ownRevision = max(c.ownRevision, rev)
}

// requiredRevision returns the revision that a listing must have if it begins now.
func (c *dirCache) requiredRevision() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ownRevision
}

// page returns a page of the names and the revision that the cache has reached, which is 0
// if the cache is not filled. If that is less than required, it returns no names, and a
// channel that is closed when the cache has advanced.
func (c *dirCache) page(dir string, o coord.ListOptions, required int64) (l coord.List, reached int64, advanced <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names != nil && c.reached < required {
		if c.advanced == nil {
			c.advanced = make(chan struct{})
		}
		return coord.List{}, c.reached, c.advanced
	}
	if c.names == nil || o.Values {
		return coord.List{}, c.reached, nil
	}
	if dir == "/" {
		dir = ""
	}
	page, more := c.names.Page(o.After, o.Limit)
	l = coord.List{Nodes: make([]coord.Node, len(page)), More: more}
	for i, name := range page {
		l.Nodes[i].Path = dir + "/" + name
	}
	if !more && o.After == "" {
		l.Stamp = changeStamp(c.changedAt)
	}
	return l, c.reached, nil
}

// wakeLocked wakes the listings that wait for the cache to advance.
func (c *dirCache) wakeLocked() {
	if c.advanced != nil {
		close(c.advanced)
		c.advanced = nil
	}
}

// changeStamp returns the stamp of a directory whose children last changed at a revision.
func changeStamp(rev int64) uint64 {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(rev))
	h := fnv.New64a()
	h.Write(b[:])
	return max(1, h.Sum64())
}

// beginList is called for a listing while the cache is not filled. It returns the fill
// whose revision the listing must have. If it returns nil, the service answers the listing
// as it is, and endList must be called.
func (c *dirCache) beginList() *cacheFill {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.filling == nil && c.hasAnswer && c.pendingLists == 0 && !c.closed {
		c.filling = &cacheFill{pinned: make(chan struct{}), done: make(chan struct{})}
		select {
		case c.fillRequest <- struct{}{}:
		default:
		}
	}
	if c.filling == nil {
		c.pendingLists++
	}
	return c.filling
}

// endList takes the outcome of a listing for which beginList returned nil.
func (c *dirCache) endList(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pendingLists--
	c.hasAnswer = c.hasAnswer || err == nil
}

// beginFill returns the generation that pinFill and install are called with.
func (c *dirCache) beginFill() (generation int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// pinFill makes known which revision is being read.
func (c *dirCache) pinFill(generation int, rev int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation == generation && c.filling != nil && c.filling.rev == 0 {
		c.filling.rev = rev
		close(c.filling.pinned)
	}
}

// install fills the cache with the listing at rev, unless it was discarded meanwhile: then
// the service may have shown a later revision.
func (c *dirCache) install(generation int, rev int64, nodes []string, dirs map[string]*subdirectory) {
	set := names.New(nodes)
	for name, d := range dirs {
		d.node = !set.Add(name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation != generation {
		return
	}
	c.names, c.dirs, c.listedAt, c.reached, c.changedAt = set, dirs, rev, rev, rev
	c.wakeLocked()
	c.endFillLocked()
}

// discard empties the cache. The next listing is read from now on, and so includes
// everything that was answered before.
func (c *dirCache) discard(ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names, c.dirs, c.reached, c.hasAnswer = nil, nil, 0, false
	c.ownRevision = 0
	c.generation++
	c.closed = c.closed || ended
	c.wakeLocked()
	c.endFillLocked()
}

// endFillLocked ends the fill, whether or not it succeeded.
func (c *dirCache) endFillLocked() {
	if c.filling == nil {
		return
	}
	if c.filling.rev == 0 {
		close(c.filling.pinned)
	}
	close(c.filling.done)
	c.filling = nil
}

// isFilled reports whether there are names to keep up to date.
func (c *dirCache) isFilled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names != nil
}

// apply makes the changes of events. base is the length of the directory's prefix.
func (c *dirCache) apply(base int, events []*clientv3.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names == nil {
		return
	}
	for _, e := range events {
		deleted := e.Type == clientv3.EventTypeDelete
		if e.Kv.ModRevision <= c.listedAt || !deleted && !e.IsCreate() {
			continue
		}
		rest := e.Kv.Key[base:]
		if slash := bytes.IndexByte(rest, '/'); slash < 0 {
			c.applyNodeLocked(string(rest), deleted)
		} else if !c.applyDescendantLocked(string(rest[:slash]), deleted) {
			continue
		}
		c.changedAt = e.Kv.ModRevision
	}
	if n := len(events); n > 0 {
		c.reached = max(c.reached, events[n-1].Kv.ModRevision)
		c.wakeLocked()
	}
}

// applyNodeLocked adds or removes a node.
func (c *dirCache) applyNodeLocked(name string, deleted bool) {
	d := c.dirs[name]
	if d != nil {
		d.node = !deleted
	}
	switch {
	case !deleted:
		c.names.Add(name)
	case d == nil:
		c.names.Remove(name)
	}
}

// applyDescendantLocked adds or removes a key below the name, and reports whether that made
// the directory come or go.
func (c *dirCache) applyDescendantLocked(name string, deleted bool) bool {
	d := c.dirs[name]
	switch {
	case d == nil && deleted:
		return false
	case d == nil:
		c.dirs[name] = &subdirectory{keys: 1, node: !c.names.Add(name)}
		return true
	case !deleted:
		d.keys++
		return false
	}
	if d.keys--; d.keys > 0 {
		return false
	}
	delete(c.dirs, name)
	if !d.node {
		c.names.Remove(name)
	}
	return true
}

// fillCache reads the directory's names for the cache, at one revision that is no older
// than the watch.
func (w *dirWatch) fillCache() {
	for {
		err := w.readNames()
		switch {
		case err == nil:
			return
		case w.ctx.Err() != nil || !isRevisionUnavailable(err):
			w.cache.discard(false)
			return
		}
		// The listing took so long that its revision was compacted: begin again.
	}
}

// readNames reads the names page by page and installs them in the cache.
func (w *dirWatch) readNames() error {
	var nodes []string
	dirs := make(map[string]*subdirectory)
	generation := w.cache.beginFill()
	from, rev, page := w.base, int64(0), int64(firstPageKeys)
	for {
		var r *pb.RangeResponse
		err := w.hub.c.doRepeatable(w.ctx, w.ctx, func(ctx context.Context) (err error) {
			r, err = w.hub.c.kv.Range(ctx, &pb.RangeRequest{Key: []byte(from), RangeEnd: prefixEnd(w.base), Limit: page, KeysOnly: true, Revision: rev}, waitForReady...)
			return err
		})
		if err != nil {
			return err
		}
		if rev == 0 {
			rev = r.Header.Revision
			w.cache.pinFill(generation, rev)
		}
		for _, kv := range r.Kvs {
			rest := string(kv.Key[len(w.base):])
			name, _, deeper := strings.Cut(rest, "/")
			switch d := dirs[name]; {
			case !deeper:
				nodes = append(nodes, rest)
			case d == nil:
				dirs[name] = &subdirectory{keys: 1}
			default:
				d.keys++
			}
			from = w.base + rest + "\x00"
		}
		if !r.More {
			w.cache.install(generation, rev, nodes, dirs)
			return nil
		}
		page = min(4*page, maxPageKeys)
	}
}
