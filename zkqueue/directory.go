package zkqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
)

// directory is what the driver knows of one directory. Every listing sets the
// server's one-shot watch, so that a listing stands until an event says that it may
// not, or the connection that would bring the event is gone.
type directory struct {
	path     string   // without the chroot
	whole    string   // with it
	listing  *listing // nil: not known, or changed since
	moves    uint64   // counts what made listings invalid
	told     uint64   // how many of these the watchers were signalled
	coming   *coming  // a listing on its way
	watchers []*watcher

	arming  bool // somebody sees to it that it is listed again
	listed  time.Time
	members int // when last listed
}

// listing is the children of a directory at one instant, in name order.
type listing struct {
	paths []string
	stamp uint64
}

type coming struct {
	moves   uint64
	done    chan struct{}
	listing *listing
	err     error
}

// directories are all that a session listed or watches.
type directories struct {
	s *session

	mu     sync.Mutex
	byPath map[string]*directory // by whole path
	over   bool
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
			if len(old.watchers) == 0 {
				delete(ds.byPath, old.whole)
				break
			}
		}
	}
	d = &directory{path: path, whole: whole}
	ds.byPath[whole] = d
	return d
}

// list returns the directory's listing: the one that stands, or one whose request is
// sent after the call began, or after everything that this session then knew.
func (ds *directories) list(ctx context.Context, path string, fresh bool) (*listing, error) {
	if err := ds.s.alive(); err != nil {
		return nil, err
	}
	if fresh {
		if err := ds.s.barrier(ctx); err != nil {
			return nil, err
		}
	}
	for {
		ds.mu.Lock()
		d := ds.at(path)
		if l := d.listing; l != nil && !fresh {
			ds.mu.Unlock()
			return l, nil
		}
		if c := d.coming; c != nil && c.moves == d.moves && !fresh {
			ds.mu.Unlock()
			select {
			case <-c.done:
				if c.err == nil {
					return c.listing, nil
				}
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				if err := ds.s.alive(); err != nil {
					return nil, err
				}
				continue // the other caller may merely have gone away
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-ds.s.done:
				return nil, ds.s.over
			}
		}
		c := &coming{moves: d.moves, done: make(chan struct{})}
		d.coming = c
		ds.mu.Unlock()

		c.listing, c.err = ds.fetch(ctx, d)

		ds.mu.Lock()
		if d.coming == c {
			d.coming = nil
		}
		if c.err == nil {
			d.came(c)
		}
		ds.mu.Unlock()
		close(c.done)
		return c.listing, c.err
	}
}

// came takes a listing, with the lock held. It stands if its watch has not fired. Its
// watchers are told even so: in a directory that changes all the time none would stand.
func (d *directory) came(c *coming) {
	d.listed, d.members = time.Now(), len(c.listing.paths)
	if c.moves == d.moves {
		d.listing = c.listing
	}
	if d.told < c.moves {
		d.told = c.moves
		d.signal()
	}
}

// fetch asks the server. Where there is no directory the watch is for its creation.
func (ds *directories) fetch(ctx context.Context, d *directory) (*listing, error) {
	type children struct {
		names []string
		stat  *zk.Stat
	}
	for {
		c, err := read(ctx, ds.s, func(z *zk.Conn) (children, error) {
			names, stat, err := z.Children(d.whole)
			return children{names, stat}, err
		})
		if err == nil {
			return d.newListing(c.names, c.stat), nil
		}
		if !errors.Is(err, coord.ErrNotExist) {
			return nil, err
		}
		there, err := read(ctx, ds.s, func(z *zk.Conn) (bool, error) {
			there, _, err := z.Exists(d.whole)
			return there, err
		})
		if err != nil {
			return nil, err
		}
		if !there {
			return &listing{}, nil
		}
	}
}

func (d *directory) newListing(names []string, stat *zk.Stat) *listing {
	dir := strings.TrimSuffix(d.path, "/") + "/"
	if d.whole == "/" { // the service's own nodes lie there
		names = slices.DeleteFunc(names, func(name string) bool { return name == "zookeeper" })
	}
	slices.Sort(names)
	for i, name := range names {
		names[i] = dir + name
	}
	// The commit that last changed the children.
	return &listing{paths: names, stamp: uint64(stat.Pzxid)}
}

// changed takes a watch event. It comes before the answer to anything that the server
// did later, and so before this session's commits know of their success.
func (ds *directories) changed(whole string) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if d := ds.byPath[whole]; d != nil {
		ds.move(d)
	}
}

// disconnected and reconnected: the server forgot a connection's watches.
func (ds *directories) disconnected() {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for _, d := range ds.byPath {
		d.listing = nil
		d.moves++
	}
}

func (ds *directories) reconnected() {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for _, d := range ds.byPath {
		ds.move(d)
	}
}

func (ds *directories) move(d *directory) {
	d.listing = nil
	d.moves++
	if len(d.watchers) > 0 {
		ds.arm(d)
	} else {
		d.told = d.moves
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
	err := ctx.Err()
	var all *listing
	if err == nil {
		all, err = s.dirs.list(ctx, dir, o.Fresh || o.Born != 0)
	}
	var l coord.List
	switch {
	case err != nil:
	case o.Born != 0:
		l, err = s.born(ctx, all, o)
	default:
		l, err = s.part(ctx, dir, all, o)
	}
	if err != nil {
		return coord.List{}, fmt.Errorf("list %s: %w", dir, err)
	}
	return l, nil
}

// part is what o asks for of a listing.
func (s *session) part(ctx context.Context, dir string, all *listing, o coord.ListOptions) (coord.List, error) {
	paths := all.paths
	if o.After != "" {
		if dir != "/" {
			dir += "/"
		}
		i, found := slices.BinarySearch(paths, dir+o.After)
		if found {
			i++
		}
		paths = paths[i:]
	}
	limit := len(paths)
	if o.Limit > 0 {
		limit = min(limit, o.Limit)
	}
	var l coord.List
	// What vanished meanwhile makes room for more.
	for len(paths) > 0 && len(l.Nodes) < limit {
		n := min(limit-len(l.Nodes), len(paths))
		if !o.Values {
			l.Nodes = make([]coord.Node, n)
			for i, path := range paths[:n] {
				l.Nodes[i].Path = path
			}
		} else {
			nodes, err := s.values(ctx, paths[:n])
			if err != nil {
				return coord.List{}, err
			}
			l.Nodes = append(l.Nodes, nodes...)
		}
		paths = paths[n:]
	}
	l.More = len(paths) > 0
	if !l.More && o.After == "" {
		l.Stamp = all.stamp
	}
	return l, nil
}

// readers is how many values a listing reads at a time.
const readers = 64

// values reads the nodes at paths, in their order, without those that are gone and
// those that are bare directories.
func (s *session) values(ctx context.Context, paths []string) ([]coord.Node, error) {
	found, err := each(ctx, paths, func(ctx context.Context, path string) (data, error) {
		return s.data(ctx, s.whole(path))
	})
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

// each asks for every path, several at a time; nil stands for what is gone.
func each[T any](ctx context.Context, paths []string, ask func(context.Context, string) (T, error)) ([]*T, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	found := make([]*T, len(paths))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(readers, len(paths)) {
		wg.Go(func() {
			for i := range next {
				v, err := ask(ctx, paths[i])
				switch {
				case err == nil:
					found[i] = &v
				case !errors.Is(err, coord.ErrNotExist):
					cancel(err)
				}
			}
		})
	}
	for i := range paths {
		next <- i
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return found, nil
}
