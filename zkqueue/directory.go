package zkqueue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/names"
)

// directory is what the driver knows of one directory. Where it is watched, an event
// tells of each change, and the set follows. Elsewhere, and at servers that know nothing
// of such watches, each listing sets a watch that fires once, so that the set stands
// until it does. No set outlives the connection that brings its events.
type directory struct {
	path     string     // without the chroot
	whole    string     // with it
	set      *names.Set // of the children's paths; nil: not known, or changed since
	stamp    uint64     // of the set
	changes  int32      // creations and deletions that the set knows of, as the server counts them; -1: unclear
	moves    uint64     // counts what made sets invalid
	told     uint64     // how many of these the watchers were signalled
	coming   *coming    // a listing on its way
	watchers []*watcher

	follows *conn       // brings an event for each change
	turning bool        // from one kind of watch to the other: nothing stands
	refused bool        // the server would not have that
	missed  []event     // that came while listings were on their way
	fetches int         // listings on their way that these must be added to
	idle    *time.Timer // ends what nobody watches any more

	arming  bool // somebody sees to it that it is listed again
	listed  time.Time
	members int // when last listed
}

// event is the creation or deletion of a child.
type event struct {
	path    string // without the chroot
	deleted bool
}

// coming is a listing on its way. Its set is guarded by the directories' lock once done
// is closed.
type coming struct {
	moves   uint64
	follows bool // what changes until it has come is added
	lookout bool // a watch may be set for the creation of the directory
	loose   bool // nothing will tell of the next change
	done    chan struct{}
	set     *names.Set
	stamp   uint64
	changes int32
	err     error
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

func (p *page) take(set *names.Set, stamp uint64) {
	p.paths, p.more = set.Page(p.after, p.limit)
	p.stamp = stamp
}

// directories are all that a session listed or watches.
type directories struct {
	s      *session
	asking sync.Mutex // one at a time adds and removes watches, before mu

	mu     sync.Mutex
	byPath map[string]*directory // by whole path
	conn   *conn                 // that has a session
	stamps uint64                // the last one of our own
	over   bool
}

func newDirectories(s *session) directories {
	return directories{s: s, byPath: make(map[string]*directory), stamps: rand.Uint64()}
}

// mostIdle is how many directories that nobody watches are kept. A watch that was set
// for one that is forgotten fires into nothing.
const mostIdle = 1024

// at returns the directory, with the lock held.
func (ds *directories) at(path string) *directory {
	whole := ds.s.whole(path)
	d := ds.byPath[whole]
	if d != nil {
		return d
	}
	if len(ds.byPath) >= mostIdle {
		for _, old := range ds.byPath {
			if len(old.watchers) == 0 && old.follows == nil {
				delete(ds.byPath, old.whole)
				break
			}
		}
	}
	d = &directory{path: path, whole: whole}
	ds.byPath[whole] = d
	return d
}

// list takes a page of the directory's children: of the set that stands, or of a listing
// whose request is sent after the call began, or after everything that this session then
// knew.
func (ds *directories) list(ctx context.Context, path string, p *page) error {
	if err := ds.s.alive(); err != nil {
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
		d := ds.at(path)
		if d.set != nil && p.fresh && !checked && d.follows != nil && d.changes >= 0 {
			checked = true
			ds.mu.Unlock()
			if err := ds.check(ctx, d); err != nil {
				return err
			}
			continue
		}
		if d.set != nil {
			p.take(d.set, d.stamp)
			ds.mu.Unlock()
			return nil
		}
		if c := d.coming; c != nil && c.moves == d.moves && (c.follows || !p.fresh) {
			ds.mu.Unlock()
			if found, err := ds.share(ctx, d, c, p); found || err != nil {
				return err
			}
			continue // the other caller may merely have gone away
		}
		c := &coming{
			moves: d.moves, follows: d.follows != nil && !d.turning, loose: d.turning,
			lookout: ds.lookout(d), done: make(chan struct{}),
		}
		d.coming = c
		if c.follows {
			d.fetches++
		}
		ds.mu.Unlock()

		ds.fetch(ctx, d, c)

		ds.mu.Lock()
		d.came(ds, c)
		found := d.found(c, p)
		ds.mu.Unlock()
		close(c.done)
		if found || c.err != nil {
			return c.err
		}
	}
}

// check compares what events told of a followed directory with the server's count of its
// changes. The server sends no event of a child that this session may not read: where there
// are such, the directory is not followed any more.
func (ds *directories) check(ctx context.Context, d *directory) error {
	stat, err := read(ctx, ds.s, func(z *zk.Conn) (*zk.Stat, error) {
		_, stat, err := z.Exists(d.whole)
		return stat, err
	})
	if err != nil {
		return err
	}
	ds.asking.Lock()
	defer ds.asking.Unlock()
	ds.mu.Lock()
	c := d.follows
	if c == nil || d.set == nil || d.changes < 0 || stat == nil || d.changes >= stat.Cversion {
		ds.mu.Unlock()
		return nil
	}
	d.refused = true
	d.turn()
	ds.mu.Unlock()
	_ = c.removeWatch(d.whole) // where this fails the connection does, and every watch of it
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d.turning, d.follows = false, nil
	ds.move(d)
	return nil
}

// share waits for a listing that another caller asked for.
func (ds *directories) share(ctx context.Context, d *directory, c *coming, p *page) (found bool, err error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		return false, ctx.Err()
	case <-ds.s.done:
		return false, ds.s.over
	}
	if c.err != nil {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		return false, ds.s.alive()
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return d.found(c, p), nil
}

// found takes the page of what came, with the lock held. What was to be followed and is
// not may lack this session's own changes.
func (d *directory) found(c *coming, p *page) bool {
	if c.err != nil || c.follows && d.set != c.set {
		return false
	}
	p.take(c.set, c.stamp)
	if d.set == c.set {
		p.stamp = d.stamp
	}
	return true
}

// came takes a listing, with the lock held. It stands if nothing has made it invalid. Its
// watchers are told even so: in a directory that changes all the time none would stand.
func (d *directory) came(ds *directories, c *coming) {
	if d.coming == c {
		d.coming = nil
	}
	if c.follows && c.moves == d.moves {
		d.fetches--
	}
	if c.err != nil {
		return
	}
	d.listed, d.members = time.Now(), c.set.Len()
	tell := d.told < c.moves
	d.told = max(d.told, c.moves)
	if !c.loose && c.moves == d.moves {
		d.set, d.stamp, d.changes = c.set, c.stamp, c.changes
		if len(d.missed) > 0 {
			d.changes = -1 // which of these the listing has is not known
		}
		for _, e := range d.missed {
			d.apply(ds, e)
		}
		tell = tell || len(d.missed) > 0
	}
	if d.fetches == 0 {
		d.missed = nil
	}
	if tell {
		d.signal()
	}
}

// apply makes a change that may be in the set already, with the lock held.
func (d *directory) apply(ds *directories, e event) {
	changed := false
	if e.deleted {
		changed = d.set.Remove(e.path)
	} else {
		changed = d.set.Add(e.path)
	}
	if d.changes >= 0 {
		d.changes++
	}
	if changed {
		ds.stamps++
		d.stamp = ds.stamps | 1<<63 // no transaction has such a number
	}
}

// fetch asks the server. A directory that is not there is empty: of one that is followed
// there will be an event, and elsewhere the watch is for its creation, where it may.
func (ds *directories) fetch(ctx context.Context, d *directory, c *coming) {
	type children struct {
		names []string
		stat  *zk.Stat
	}
	for {
		l, err := read(ctx, ds.s, func(z *zk.Conn) (children, error) {
			names, stat, err := z.Children(d.whole)
			return children{names, stat}, err
		})
		if err == nil {
			// The commit that last changed the children.
			c.set, c.stamp, c.changes = d.newSet(l.names), uint64(l.stat.Pzxid), l.stat.Cversion
			return
		}
		if !errors.Is(err, coord.ErrNotExist) {
			c.err = err
			return
		}
		if !c.lookout {
			c.set, c.loose = names.New(nil), !c.follows
			return
		}
		there, err := read(ctx, ds.s, func(z *zk.Conn) (bool, error) {
			there, _, err := z.Exists(d.whole)
			return there, err
		})
		if err != nil {
			c.err = err
			return
		}
		if !there {
			c.set = names.New(nil)
			return
		}
	}
}

func (d *directory) newSet(children []string) *names.Set {
	dir := strings.TrimSuffix(d.path, "/") + "/"
	if d.whole == "/" { // the service's own nodes lie there
		children = slices.DeleteFunc(children, func(name string) bool { return name == "zookeeper" })
	}
	for i, name := range children {
		children[i] = dir + name
	}
	return names.New(children)
}

// event takes a watch event of a connection. It comes before the answer to anything that
// the server did later, and so before this session's commits know of their success.
func (ds *directories) event(c *conn, kind int32, whole []byte) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if c != ds.conn || ds.over {
		return
	}
	if d := ds.byPath[string(whole)]; d != nil && d.follows == nil {
		ds.move(d) // a watch has fired
	}
	if kind != nodeCreated && kind != nodeDeleted {
		return
	}
	up := max(bytes.LastIndexByte(whole, '/'), 0)
	if up == 0 {
		up = 1
	}
	d := ds.byPath[string(whole[:up])]
	if d == nil || d.follows == nil || d.whole == "/" && string(whole) == "/zookeeper" {
		return
	}
	e := event{string(whole[len(ds.s.cfg.Chroot):]), kind == nodeDeleted}
	switch {
	case d.set != nil:
		d.apply(ds, e)
		d.signal()
	case d.fetches > 0:
		d.missed = append(d.missed, e)
	default:
		ds.move(d)
	}
}

// move says that what is known of the directory may not be so any more, with the lock
// held.
func (ds *directories) move(d *directory) {
	d.unknown()
	if len(d.watchers) > 0 {
		ds.arm(d)
	} else {
		d.told = d.moves
	}
}

func (d *directory) unknown() {
	d.set, d.missed, d.fetches = nil, nil, 0
	d.moves++
}

// disconnected and reconnected: the server forgot a connection's watches.
func (ds *directories) disconnected() {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.conn = nil
	for _, d := range ds.byPath {
		d.unknown()
		d.follows = nil
	}
}

func (ds *directories) reconnected() {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for _, d := range ds.byPath {
		ds.move(d)
	}
}

// end signals all watchers for the last time.
func (ds *directories) end() {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.over = true
	for _, d := range ds.byPath {
		d.signal()
		for _, w := range d.watchers {
			w.stop()
		}
		if d.idle != nil {
			d.idle.Stop()
		}
	}
	clear(ds.byPath)
}

// List returns the direct children of dir; see [coord.Session].
func (s *session) List(ctx context.Context, dir string, o coord.ListOptions) (coord.List, error) {
	if err := coord.CheckList(dir, o); err != nil {
		return coord.List{}, fmt.Errorf("list: %w", err)
	}
	if ctx == nil {
		return coord.List{}, fmt.Errorf("list %s: no context: %w", dir, coord.ErrInvalid)
	}
	p := page{limit: o.Limit, fresh: o.Fresh || o.Born != 0}
	if o.Values {
		p.limit = 0 // what vanishes makes room for more
	}
	if o.After != "" {
		p.after = strings.TrimSuffix(dir, "/") + "/" + o.After
	}
	err := ctx.Err()
	if err == nil {
		err = s.dirs.list(ctx, dir, &p)
	}
	var l coord.List
	switch {
	case err != nil:
	case o.Born != 0:
		l, err = s.born(ctx, p.paths, o)
	case o.Values:
		l, err = s.part(ctx, p.paths, o)
	default:
		l.Nodes, l.More = make([]coord.Node, len(p.paths)), p.more
		for i, path := range p.paths {
			l.Nodes[i].Path = path
		}
	}
	if err != nil {
		return coord.List{}, fmt.Errorf("list %s: %w", dir, err)
	}
	if !l.More && o.After == "" && o.Born == 0 {
		l.Stamp = p.stamp
	}
	return l, nil
}

// part reads the nodes at paths until there are as many as o asks for.
func (s *session) part(ctx context.Context, paths []string, o coord.ListOptions) (coord.List, error) {
	limit := len(paths)
	if o.Limit > 0 {
		limit = min(limit, o.Limit)
	}
	var l coord.List
	for len(paths) > 0 && len(l.Nodes) < limit {
		n := min(limit-len(l.Nodes), len(paths))
		nodes, err := s.values(ctx, paths[:n])
		if err != nil {
			return coord.List{}, err
		}
		l.Nodes = append(l.Nodes, nodes...)
		paths = paths[n:]
	}
	l.More = len(paths) > 0
	return l, nil
}

// values reads the nodes at paths, in their order, without those that are gone and
// those that are bare directories.
func (s *session) values(ctx context.Context, paths []string) ([]coord.Node, error) {
	found, err := s.found(ctx, paths)
	if err != nil {
		return nil, err
	}
	nodes := make([]coord.Node, 0, len(paths))
	for i, d := range found {
		if d == nil || len(d.value) == 0 && d.stat.NumChildren > 0 {
			continue
		}
		nodes = append(nodes, d.node(paths[i]))
	}
	return nodes, nil
}
