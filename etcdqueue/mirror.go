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

// mirror is what a watch knows of the names in its directory: those of a listing
// at some revision, and every event since. Whoever lists a watched directory once
// pays for that once; who does so again has the mirror made, and is answered from
// it from then on.
//
// A listing never shows less than one that was answered before it: all that the
// service answers before the mirror stands are linearizable, and while it is being
// made they are of the revision that it begins with. Nor does it show less than this
// process was told: it waits for the events of the process's own commits.
type mirror struct {
	mu     sync.Mutex
	set    *names.Set        // nil until the mirror stands
	below  map[string]*below // directories among the names
	rev    int64             // of the listing
	at     int64             // of the last event; 0: the mirror does not stand
	last   int64             // of the last change of the names
	own    int64             // of the last answered commit of this process that changed the names
	moved  chan struct{}     // closed when at changes; nil: no listing waits for that
	asking int               // listings that the service is being asked for
	asked  bool              // it has answered one
	making *making           // of the first listing
	ended  bool              // the watch is no more
	drops  int               // how often it was dropped: what began to be read before does not count

	wanted chan struct{} // a token: somebody waits for the making to begin
}

// below is a directory, or both a directory and a node.
type below struct {
	keys int
	node bool
}

// making is the reading of the first listing.
type making struct {
	pinned chan struct{} // closed when rev is known, or the making is over
	rev    int64         // 0: there will be none
	over   chan struct{}
}

func newMirror() *mirror { return &mirror{wanted: make(chan struct{}, 1)} }

// committed is told of an answered commit of this process that changed the names.
func (m *mirror) committed(rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.own = max(m.own, rev)
}

// least is the revision that a listing which begins now has to reach.
func (m *mirror) least() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.own
}

// page lists from the mirror, and says which revision that has reached; 0: it does
// not stand. If that is less than least it lists nothing, and returns a channel that
// is closed when the mirror has moved on.
func (m *mirror) page(dir string, o coord.ListOptions, least int64) (l coord.List, at int64, moved <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.set != nil && m.at < least {
		if m.moved == nil {
			m.moved = make(chan struct{})
		}
		return coord.List{}, m.at, m.moved
	}
	if m.set == nil || o.Values {
		return coord.List{}, m.at, nil
	}
	if dir == "/" {
		dir = ""
	}
	page, more := m.set.Page(o.After, o.Limit)
	l = coord.List{Nodes: make([]coord.Node, len(page)), More: more}
	for i, name := range page {
		l.Nodes[i].Path = dir + "/" + name
	}
	if !more && o.After == "" {
		l.Stamp = standing(m.last)
	}
	return l, m.at, nil
}

// wakeLocked lets the listings look again that wait for the mirror to move on.
func (m *mirror) wakeLocked() {
	if m.moved != nil {
		close(m.moved)
		m.moved = nil
	}
}

// standing stamps the children that a directory has had since a revision.
func standing(rev int64) uint64 {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(rev))
	h := fnv.New64a()
	h.Write(b[:])
	return max(1, h.Sum64())
}

// ask is called for a listing while the mirror does not stand: with a making, the
// listing is to be of its revision; otherwise the service answers it as it is, and
// then answered must be called.
func (m *mirror) ask() *making {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.making == nil && m.asked && m.asking == 0 && !m.ended {
		m.making = &making{pinned: make(chan struct{}), over: make(chan struct{})}
		select {
		case m.wanted <- struct{}{}:
		default:
		}
	}
	if m.making == nil {
		m.asking++
	}
	return m.making
}

func (m *mirror) answered(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asking--
	m.asked = m.asked || err == nil
}

// begin returns what pin and stand want to be told of a reading that begins.
func (m *mirror) begin() (drops int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.drops
}

// pin says what revision is being read.
func (m *mirror) pin(drops int, rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.drops == drops && m.making != nil && m.making.rev == 0 {
		m.making.rev = rev
		close(m.making.pinned)
	}
}

// stand puts what was read at rev in place, unless the mirror was dropped meanwhile:
// the service may have shown a later revision since.
func (m *mirror) stand(drops int, rev int64, nodes []string, dirs map[string]*below) {
	set := names.New(nodes)
	for name, d := range dirs {
		d.node = !set.Add(name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.drops != drops {
		return
	}
	m.set, m.below, m.rev, m.at, m.last = set, dirs, rev, rev, rev
	m.wakeLocked()
	m.made()
}

// drop gives the mirror up. The next one is read from now on, and so holds whatever
// was answered before.
func (m *mirror) drop(ended bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set, m.below, m.at, m.asked = nil, nil, 0, false
	m.own = 0
	m.drops++
	m.ended = m.ended || ended
	m.wakeLocked()
	m.made()
}

// made ends the making, one way or the other.
func (m *mirror) made() {
	if m.making == nil {
		return
	}
	if m.making.rev == 0 {
		close(m.making.pinned)
	}
	close(m.making.over)
	m.making = nil
}

// stands says whether there is something to be kept up.
func (m *mirror) stands() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.set != nil
}

// apply brings events into the mirror.
func (m *mirror) apply(base int, events []*clientv3.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.set == nil {
		return
	}
	for _, e := range events {
		gone := e.Type == clientv3.EventTypeDelete
		if e.Kv.ModRevision <= m.rev || !gone && !e.IsCreate() {
			continue
		}
		rest := e.Kv.Key[base:]
		if slash := bytes.IndexByte(rest, '/'); slash < 0 {
			m.node(string(rest), gone)
		} else if !m.deeper(string(rest[:slash]), gone) {
			continue
		}
		m.last = e.Kv.ModRevision
	}
	if n := len(events); n > 0 {
		m.at = max(m.at, events[n-1].Kv.ModRevision)
		m.wakeLocked()
	}
}

// node has a node come or go.
func (m *mirror) node(name string, gone bool) {
	d := m.below[name]
	if d != nil {
		d.node = !gone
	}
	switch {
	case !gone:
		m.set.Add(name)
	case d == nil:
		m.set.Remove(name)
	}
}

// deeper has a key below the name come or go, and says whether the directory did.
func (m *mirror) deeper(name string, gone bool) bool {
	d := m.below[name]
	switch {
	case d == nil && gone:
		return false
	case d == nil:
		m.below[name] = &below{keys: 1, node: !m.set.Add(name)}
		return true
	case !gone:
		d.keys++
		return false
	}
	if d.keys--; d.keys > 0 {
		return false
	}
	delete(m.below, name)
	if !d.node {
		m.set.Remove(name)
	}
	return true
}

// build reads the directory's names for the mirror, at one revision that is no older
// than the watch.
func (w *dirWatch) build() {
	for {
		err := w.readNames()
		switch {
		case err == nil:
			return
		case w.ctx.Err() != nil || !forgotten(err):
			w.mirror.drop(false)
			return
		}
		// It took so long that its revision is gone: begin again.
	}
}

func (w *dirWatch) readNames() error {
	var nodes []string
	dirs := make(map[string]*below)
	drops := w.mirror.begin()
	from, rev, page := w.base, int64(0), int64(firstPage)
	for {
		var r *pb.RangeResponse
		err := w.hub.c.ask(w.ctx, w.ctx, func(ctx context.Context) (err error) {
			r, err = w.hub.c.kv.Range(ctx, &pb.RangeRequest{Key: []byte(from), RangeEnd: after(w.base), Limit: page, KeysOnly: true, Revision: rev}, waiting...)
			return err
		})
		if err != nil {
			return err
		}
		if rev == 0 {
			rev = r.Header.Revision
			w.mirror.pin(drops, rev)
		}
		for _, kv := range r.Kvs {
			rest := string(kv.Key[len(w.base):])
			name, _, deeper := strings.Cut(rest, "/")
			switch d := dirs[name]; {
			case !deeper:
				nodes = append(nodes, rest)
			case d == nil:
				dirs[name] = &below{keys: 1}
			default:
				d.keys++
			}
			from = w.base + rest + "\x00"
		}
		if !r.More {
			w.mirror.stand(drops, rev, nodes, dirs)
			return nil
		}
		page = min(4*page, largePage)
	}
}
