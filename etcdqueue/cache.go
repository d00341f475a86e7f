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
func (m *dirCache) noteCommit(rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ownRevision = max(m.ownRevision, rev)
}

// requiredRevision returns the revision that a listing must have if it begins now.
func (m *dirCache) requiredRevision() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ownRevision
}

// page returns a page of the names and the revision that the cache has reached, which is 0
// if the cache is not filled. If that is less than required, it returns no names, and a
// channel that is closed when the cache has advanced.
func (m *dirCache) page(dir string, o coord.ListOptions, required int64) (l coord.List, reached int64, advanced <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names != nil && m.reached < required {
		if m.advanced == nil {
			m.advanced = make(chan struct{})
		}
		return coord.List{}, m.reached, m.advanced
	}
	if m.names == nil || o.Values {
		return coord.List{}, m.reached, nil
	}
	if dir == "/" {
		dir = ""
	}
	page, more := m.names.Page(o.After, o.Limit)
	l = coord.List{Nodes: make([]coord.Node, len(page)), More: more}
	for i, name := range page {
		l.Nodes[i].Path = dir + "/" + name
	}
	if !more && o.After == "" {
		l.Stamp = changeStamp(m.changedAt)
	}
	return l, m.reached, nil
}

// wakeLocked wakes the listings that wait for the cache to advance.
func (m *dirCache) wakeLocked() {
	if m.advanced != nil {
		close(m.advanced)
		m.advanced = nil
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
func (m *dirCache) beginList() *cacheFill {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.filling == nil && m.hasAnswer && m.pendingLists == 0 && !m.closed {
		m.filling = &cacheFill{pinned: make(chan struct{}), done: make(chan struct{})}
		select {
		case m.fillRequest <- struct{}{}:
		default:
		}
	}
	if m.filling == nil {
		m.pendingLists++
	}
	return m.filling
}

// endList takes the outcome of a listing for which beginList returned nil.
func (m *dirCache) endList(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pendingLists--
	m.hasAnswer = m.hasAnswer || err == nil
}

// beginFill returns the generation that pinFill and install are called with.
func (m *dirCache) beginFill() (generation int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.generation
}

// pinFill makes known which revision is being read.
func (m *dirCache) pinFill(generation int, rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.generation == generation && m.filling != nil && m.filling.rev == 0 {
		m.filling.rev = rev
		close(m.filling.pinned)
	}
}

// install fills the cache with the listing at rev, unless it was discarded meanwhile: then
// the service may have shown a later revision.
func (m *dirCache) install(generation int, rev int64, nodes []string, dirs map[string]*subdirectory) {
	set := names.New(nodes)
	for name, d := range dirs {
		d.node = !set.Add(name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.generation != generation {
		return
	}
	m.names, m.dirs, m.listedAt, m.reached, m.changedAt = set, dirs, rev, rev, rev
	m.wakeLocked()
	m.endFillLocked()
}

// discard empties the cache. The next listing is read from now on, and so includes
// everything that was answered before.
func (m *dirCache) discard(ended bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.names, m.dirs, m.reached, m.hasAnswer = nil, nil, 0, false
	m.ownRevision = 0
	m.generation++
	m.closed = m.closed || ended
	m.wakeLocked()
	m.endFillLocked()
}

// endFillLocked ends the fill, whether or not it succeeded.
func (m *dirCache) endFillLocked() {
	if m.filling == nil {
		return
	}
	if m.filling.rev == 0 {
		close(m.filling.pinned)
	}
	close(m.filling.done)
	m.filling = nil
}

// isFilled reports whether there are names to keep up to date.
func (m *dirCache) isFilled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.names != nil
}

// apply makes the changes of events. base is the length of the directory's prefix.
func (m *dirCache) apply(base int, events []*clientv3.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names == nil {
		return
	}
	for _, e := range events {
		deleted := e.Type == clientv3.EventTypeDelete
		if e.Kv.ModRevision <= m.listedAt || !deleted && !e.IsCreate() {
			continue
		}
		rest := e.Kv.Key[base:]
		if slash := bytes.IndexByte(rest, '/'); slash < 0 {
			m.applyNodeLocked(string(rest), deleted)
		} else if !m.applyDescendantLocked(string(rest[:slash]), deleted) {
			continue
		}
		m.changedAt = e.Kv.ModRevision
	}
	if n := len(events); n > 0 {
		m.reached = max(m.reached, events[n-1].Kv.ModRevision)
		m.wakeLocked()
	}
}

// applyNodeLocked adds or removes a node.
func (m *dirCache) applyNodeLocked(name string, deleted bool) {
	d := m.dirs[name]
	if d != nil {
		d.node = !deleted
	}
	switch {
	case !deleted:
		m.names.Add(name)
	case d == nil:
		m.names.Remove(name)
	}
}

// applyDescendantLocked adds or removes a key below the name, and reports whether that made
// the directory come or go.
func (m *dirCache) applyDescendantLocked(name string, deleted bool) bool {
	d := m.dirs[name]
	switch {
	case d == nil && deleted:
		return false
	case d == nil:
		m.dirs[name] = &subdirectory{keys: 1, node: !m.names.Add(name)}
		return true
	case !deleted:
		d.keys++
		return false
	}
	if d.keys--; d.keys > 0 {
		return false
	}
	delete(m.dirs, name)
	if !d.node {
		m.names.Remove(name)
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
