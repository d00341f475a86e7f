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

// dirCache is what a watch knows of the names in its directory: those of a listing
// at some revision, and every event since. Whoever lists a watched directory once
// pays for that once; who does so again has the mirror made, and is answered from
// it from then on.
//
// A listing never shows less than one that was answered before it: all that the
// service answers before the mirror stands are linearizable, and while it is being
// made they are of the revision that it begins with. Nor does it show less than this
// process was told: it waits for the events of the process's own commits.
type dirCache struct {
	mu           sync.Mutex
	names        *names.Set               // nil until the mirror stands
	dirs         map[string]*subdirectory // directories among the names
	listedAt     int64                    // of the listing
	reached      int64                    // of the last event; 0: the mirror does not stand
	changedAt    int64                    // of the last change of the names
	ownRevision  int64                    // of the last answered commit of this process that changed the names
	advanced     chan struct{}            // closed when at changes; nil: no listing waits for that
	pendingLists int                      // listings that the service is being asked for
	hasAnswer    bool                     // it has answered one
	filling      *cacheFill               // of the first listing
	closed       bool                     // the watch is no more
	generation   int                      // how often it was dropped: what began to be read before does not count

	fillRequest chan struct{} // a token: somebody waits for the making to begin
}

// subdirectory is a directory, or both a directory and a node.
type subdirectory struct {
	keys int
	node bool
}

// cacheFill is the reading of the first listing.
type cacheFill struct {
	pinned chan struct{} // closed when rev is known, or the making is over
	rev    int64         // 0: there will be none
	done   chan struct{}
}

func newDirCache() *dirCache { return &dirCache{fillRequest: make(chan struct{}, 1)} }

// noteCommit is told of an answered commit of this process that changed the names.
func (m *dirCache) noteCommit(rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ownRevision = max(m.ownRevision, rev)
}

// requiredRevision is the revision that a listing which begins now has to reach.
func (m *dirCache) requiredRevision() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ownRevision
}

// page lists from the mirror, and says which revision that has reached; 0: it does
// not stand. If that is less than least it lists nothing, and returns a channel that
// is closed when the mirror has moved on.
func (m *dirCache) page(dir string, o coord.ListOptions, least int64) (l coord.List, at int64, moved <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names != nil && m.reached < least {
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

// wakeLocked lets the listings look again that wait for the mirror to move on.
func (m *dirCache) wakeLocked() {
	if m.advanced != nil {
		close(m.advanced)
		m.advanced = nil
	}
}

// changeStamp stamps the children that a directory has had since a revision.
func changeStamp(rev int64) uint64 {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(rev))
	h := fnv.New64a()
	h.Write(b[:])
	return max(1, h.Sum64())
}

// beginList is called for a listing while the mirror does not stand: with a making, the
// listing is to be of its revision; otherwise the service answers it as it is, and
// then answered must be called.
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

func (m *dirCache) endList(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pendingLists--
	m.hasAnswer = m.hasAnswer || err == nil
}

// beginFill returns what pin and stand want to be told of a reading that begins.
func (m *dirCache) beginFill() (drops int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.generation
}

// pinFill says what revision is being read.
func (m *dirCache) pinFill(drops int, rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.generation == drops && m.filling != nil && m.filling.rev == 0 {
		m.filling.rev = rev
		close(m.filling.pinned)
	}
}

// install puts what was read at rev in place, unless the mirror was dropped meanwhile:
// the service may have shown a later revision since.
func (m *dirCache) install(drops int, rev int64, nodes []string, dirs map[string]*subdirectory) {
	set := names.New(nodes)
	for name, d := range dirs {
		d.node = !set.Add(name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.generation != drops {
		return
	}
	m.names, m.dirs, m.listedAt, m.reached, m.changedAt = set, dirs, rev, rev, rev
	m.wakeLocked()
	m.endFillLocked()
}

// discard gives the mirror up. The next one is read from now on, and so holds whatever
// was answered before.
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

// endFillLocked ends the making, one way or the other.
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

// isFilled says whether there is something to be kept up.
func (m *dirCache) isFilled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.names != nil
}

// apply brings events into the mirror.
func (m *dirCache) apply(base int, events []*clientv3.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names == nil {
		return
	}
	for _, e := range events {
		gone := e.Type == clientv3.EventTypeDelete
		if e.Kv.ModRevision <= m.listedAt || !gone && !e.IsCreate() {
			continue
		}
		rest := e.Kv.Key[base:]
		if slash := bytes.IndexByte(rest, '/'); slash < 0 {
			m.applyNodeLocked(string(rest), gone)
		} else if !m.applyDescendantLocked(string(rest[:slash]), gone) {
			continue
		}
		m.changedAt = e.Kv.ModRevision
	}
	if n := len(events); n > 0 {
		m.reached = max(m.reached, events[n-1].Kv.ModRevision)
		m.wakeLocked()
	}
}

// applyNodeLocked has a node come or go.
func (m *dirCache) applyNodeLocked(name string, gone bool) {
	d := m.dirs[name]
	if d != nil {
		d.node = !gone
	}
	switch {
	case !gone:
		m.names.Add(name)
	case d == nil:
		m.names.Remove(name)
	}
}

// applyDescendantLocked has a key below the name come or go, and says whether the directory did.
func (m *dirCache) applyDescendantLocked(name string, gone bool) bool {
	d := m.dirs[name]
	switch {
	case d == nil && gone:
		return false
	case d == nil:
		m.dirs[name] = &subdirectory{keys: 1, node: !m.names.Add(name)}
		return true
	case !gone:
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

// fillCache reads the directory's names for the mirror, at one revision that is no older
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
		// It took so long that its revision is gone: begin again.
	}
}

func (w *dirWatch) readNames() error {
	var nodes []string
	dirs := make(map[string]*subdirectory)
	drops := w.cache.beginFill()
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
			w.cache.pinFill(drops, rev)
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
			w.cache.install(drops, rev, nodes, dirs)
			return nil
		}
		page = min(4*page, maxPageKeys)
	}
}
