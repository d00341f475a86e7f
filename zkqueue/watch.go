package zkqueue

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
)

// watcher is one call of Watch.
type watcher struct {
	ch   chan struct{}
	dirs []*directory
	stop func() bool // its ctx need not tell us any more
}

// Watch subscribes to the directories; see [coord.Session].
//
// ZooKeeper's watches fire once and are set by listing the directory again. That is
// done at once in a small one, and in one with many children so seldom that the
// server is busy with it for no more than a few hundredths of the time.
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
	for _, dir := range dirs {
		// From here on a change either fires the watch of this listing, or came before
		// it was kept, and then a new one is on its way with a signal after it.
		if _, err := s.dirs.list(ctx, dir, false); err != nil {
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
	}
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
		_, err := ds.list(ds.s.quit, d.path, false)
		if ds.s.alive() != nil {
			return
		}
		ds.mu.Lock()
		if err != nil {
			// Not ours to say: whoever waits shall look, and be told.
			d.signal()
		}
		if d.listing != nil || len(d.watchers) == 0 {
			d.arming = false
			ds.mu.Unlock()
			return
		}
		wait = d.rest()
		if err != nil {
			wait = mostRest
		}
		ds.mu.Unlock()
	}
}
