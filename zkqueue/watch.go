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
	dirs []*directory
	stop func() bool // its ctx need not tell us any more
}

// serverWatches is what a coordinator knows of the watches that its servers have.
type serverWatches struct{ kind atomic.Int32 }

const (
	watchesAll  = 1 // one that brings an event for each change beneath a path
	watchesOnce = 2 // only such as fire once: a server before 3.6 was met
)

func (w *serverWatches) known() bool    { return w.kind.Load() != 0 }
func (w *serverWatches) all() bool      { return w.kind.Load() == watchesAll }
func (w *serverWatches) oneShot() bool  { return w.kind.Load() == watchesOnce }
func (w *serverWatches) set(kind int32) { w.kind.Store(kind) }

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
	if err := s.alive(); err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	w, err := s.dirs.subscribe(ctx, dirs)
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	for _, d := range w.dirs {
		s.dirs.follow(d, w)
	}
	// What was answered to others before is seen by every read from here on: the connected
	// server may lag behind it.
	if err := s.barrier(ctx); err != nil {
		s.dirs.unsubscribe(w)
		return nil, fmt.Errorf("watch: %w", err)
	}
	for _, dir := range dirs {
		// From here on a change either has an event, or came before this listing was
		// kept, and then a new one is on its way with a signal after it.
		if err := s.dirs.list(ctx, dir, &page{limit: 1}); err != nil {
			s.dirs.unsubscribe(w)
			return nil, fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	return w.ch, nil
}

func (ds *directories) subscribe(ctx context.Context, dirs []string) (*watcher, error) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.over {
		return nil, ds.s.over
	}
	w := &watcher{ch: make(chan struct{}, 1)}
	w.stop = context.AfterFunc(ctx, func() { ds.unsubscribe(w) })
	for _, dir := range dirs {
		d := ds.at(dir)
		d.watchers = append(d.watchers, w)
		if d.idle != nil {
			d.idle.Stop()
			d.idle = nil
		}
		w.dirs = append(w.dirs, d)
	}
	return w, nil
}

func (ds *directories) unsubscribe(w *watcher) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	w.stop()
	for _, d := range w.dirs {
		d.watchers = slices.DeleteFunc(d.watchers, func(x *watcher) bool { return x == w })
		ds.idle(d)
	}
}

// linger is how long the events of a directory are still wanted when nobody watches it
// any more: who waits again and again asks for them once.
const linger = time.Second

// idle sees to it that a directory that nobody watches is not followed for long, with the
// lock held.
func (ds *directories) idle(d *directory) {
	if len(d.watchers) > 0 || d.follows == nil || d.idle != nil || ds.over {
		return
	}
	d.idle = time.AfterFunc(linger, func() { ds.leave(d) })
}

func (ds *directories) leave(d *directory) {
	ds.asking.Lock()
	defer ds.asking.Unlock()
	ds.mu.Lock()
	d.idle = nil
	c := d.follows
	if len(d.watchers) > 0 || c == nil || ds.over {
		ds.mu.Unlock()
		return
	}
	d.turn()
	ds.mu.Unlock()
	// Where this fails the connection does, and every watch of it.
	_ = c.removeWatch(d.whole)
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d.turning, d.follows = false, nil
	ds.move(d)
}

// turn begins the change from one kind of watch to the other, with the lock held. Until
// it is made the server may have either.
func (d *directory) turn() {
	d.turning = true
	d.unknown()
}

// follow asks for the events of a directory on the connection that stands, unless that
// was done. Those of a new connection are asked for when it is made, see attach. If w is
// the only one who watches, he has no listing yet that could be out of date.
func (ds *directories) follow(d *directory, w *watcher) {
	ds.asking.Lock()
	defer ds.asking.Unlock()
	ds.mu.Lock()
	c := ds.conn
	if c == nil || d.follows != nil || d.refused || ds.s.watches.oneShot() || ds.over {
		ds.mu.Unlock()
		return
	}
	first := len(d.watchers) == 1 && d.watchers[0] == w
	ds.mu.Unlock()
	_ = ds.ask(c, d, first)
}

// attach asks for the events of all watched directories on a new connection.
func (ds *directories) attach(c *conn) error {
	ds.asking.Lock()
	defer ds.asking.Unlock()
	ds.mu.Lock()
	ds.conn = c
	var watched []*directory
	for _, d := range ds.byPath {
		if len(d.watchers) > 0 && !d.refused {
			watched = append(watched, d)
		}
	}
	ds.mu.Unlock()
	if ds.s.watches.oneShot() {
		return nil
	}
	for _, d := range watched {
		if err := ds.ask(c, d, false); err != nil {
			return err
		}
	}
	return nil
}

// ask asks for the events of d. What the server does after this has them, so that
// listings that are asked for from then on can be kept up to date.
func (ds *directories) ask(c *conn, d *directory, first bool) error {
	ds.mu.Lock()
	d.turn()
	ds.mu.Unlock()
	err := c.addWatch(d.whole, func(code int32, _ []byte) { ds.answered(c, d, code) })
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d.turning = false
	if err == nil && ds.conn == c && !d.refused && !ds.s.watches.oneShot() {
		d.follows = c
	}
	if first {
		d.unknown()
		d.told = d.moves
	} else {
		ds.move(d)
	}
	ds.idle(d)
	return err
}

// answered takes the answer to addWatch. It comes before the answer to any listing that
// relies on it.
func (ds *directories) answered(c *conn, d *directory, code int32) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	switch {
	case code == 0:
		ds.s.watches.set(watchesAll)
	case c != ds.conn, code == codeLost, code == codeExpired, code == codeMoved:
	case code == codeUnimplemented:
		ds.s.watches.set(watchesOnce)
		for _, d := range ds.byPath {
			d.follows = nil
			ds.move(d)
		}
	default: // as where it may not be read
		d.refused, d.follows = true, nil
		ds.move(d)
	}
}

// lookout says whether a watch may be set that waits for the creation of d, with the lock
// held. Where it fired it would end a watch for all events of the same path: it is one
// kind of watch or the other.
func (ds *directories) lookout(d *directory) bool {
	return ds.s.watches.oneShot() || d.refused
}

// oneShot says whether a request for the children of a path, or for whether it exists,
// shall set a watch.
func (ds *directories) oneShot(c *conn, op int32, whole []byte) bool {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d := ds.byPath[string(whole)]
	if d == nil || c != ds.conn {
		return false
	}
	return ds.lookout(d) || op == opGetChildren && d.follows == nil && !d.turning
}

func (d *directory) signal() {
	for _, w := range d.watchers {
		select {
		case w.ch <- struct{}{}:
		default:
		}
	}
}

// perMember is how long a directory is left alone for each of its children after a
// listing, and mostRest the longest rest. Listing one child costs the server some
// hundred nanoseconds.
const (
	perMember = 5 * time.Microsecond
	mostRest  = 500 * time.Millisecond
)

// rest is how long the directory is left alone from now, with the lock held.
func (d *directory) rest() time.Duration {
	return min(time.Duration(d.members)*perMember, mostRest) - time.Since(d.listed)
}

// arm sees to it that a watched directory is listed again, with the lock held.
func (ds *directories) arm(d *directory) {
	if d.arming || ds.over || ds.s.run() != nil {
		return
	}
	d.arming = true
	wait := d.rest()
	if d.follows != nil {
		wait = 0 // once and for all
	}
	go func() {
		defer ds.s.running.Done()
		ds.rearm(d, wait)
	}()
}

func (ds *directories) rearm(d *directory, wait time.Duration) {
	for {
		if wait > 0 {
			select {
			case <-time.After(wait):
			case <-ds.s.done:
				return
			}
		}
		ds.follow(d, nil)
		err := ds.list(ds.s.quit, d.path, &page{limit: 1})
		if ds.s.alive() != nil {
			return
		}
		ds.mu.Lock()
		if err != nil {
			// Not ours to say: whoever waits shall look, and be told.
			d.signal()
		}
		if d.set != nil || len(d.watchers) == 0 {
			d.arming = false
			ds.mu.Unlock()
			return
		}
		wait = max(d.rest(), time.Millisecond)
		if err != nil {
			wait = mostRest
		}
		ds.mu.Unlock()
	}
}
