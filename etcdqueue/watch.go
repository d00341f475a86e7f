package etcdqueue

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
)

// Watch subscribes to directories; see [coord.Session]. It blocks until the service watches
// them. The channel receives after each change, on a new connection, and once when the
// session ends. All subscribers of a directory share one watch of etcd's.
func (s *session) Watch(user context.Context, dirs ...string) (<-chan struct{}, error) {
	for _, dir := range dirs {
		if err := coord.CheckDir(dir); err != nil {
			return nil, fmt.Errorf("watch: %w", err)
		}
	}
	ctx, cancel, err := s.beginCall(user)
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	defer cancel()
	sub := &subscriber{ch: make(chan struct{}, 1)}
	var watches []*dirWatch
	leave := func() {
		for _, w := range watches {
			w.unsubscribe(sub)
		}
	}
	for _, dir := range dirs {
		w := s.c.watches.subscribe(dir, sub)
		if w == nil {
			leave()
			return nil, fmt.Errorf("watch %s: %w", dir, coord.ErrClosed)
		}
		watches = append(watches, w)
	}
	for _, w := range watches {
		select {
		case <-w.ready:
			err = w.err
		case <-ctx.Done():
			err = stopReason(user, ctx)
		}
		if err != nil {
			leave()
			return nil, fmt.Errorf("watch %s: %w", w.dir, err)
		}
	}
	stop := context.AfterFunc(s.ctx, sub.signal)
	context.AfterFunc(user, func() {
		stop()
		leave()
	})
	return sub.ch, nil
}

// subscriber is one call of Watch.
type subscriber struct{ ch chan struct{} }

// signal tells the subscriber to look again.
func (s *subscriber) signal() {
	select {
	case s.ch <- struct{}{}:
	default: // the last signal was not received yet
	}
}

// watchHub holds a coordinator's watches, one for each directory. They survive a session,
// so that the next one need not list the directories again.
type watchHub struct {
	c     *Coordinator
	mu    sync.Mutex
	byDir map[string]*dirWatch

	pendingSignals []*dirWatch // watches whose subscribers are about to be signalled
}

// newWatchHub returns a hub without watches.
func newWatchHub(c *Coordinator) *watchHub { return &watchHub{c: c, byDir: make(map[string]*dirWatch)} }

// subscribe adds a subscriber to a directory. It returns nil if the coordinator is closed.
func (h *watchHub) subscribe(dir string, s *subscriber) *dirWatch {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.byDir[dir]
	if w == nil {
		w = &dirWatch{hub: h, dir: dir, base: h.c.dirPrefix(dir), ready: make(chan struct{}), subscribers: make(map[*subscriber]bool), knownDirs: make(map[string]bool), cache: newDirCache(), renew: make(chan struct{}, 1)}
		w.ctx, w.cancel = context.WithCancel(h.c.ctx)
		if !h.c.startGoroutine(w.run) {
			w.cancel()
			return nil
		}
		h.byDir[dir] = w
	}
	w.subscribers[s] = true
	return w
}

// find returns the watch on a directory, or nil.
func (h *watchHub) find(dir string) *dirWatch {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.byDir[dir]
}

// signalAll tells every subscriber to look again, as on a new connection.
func (h *watchHub) signalAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.byDir {
		for s := range w.subscribers {
			s.signal()
		}
	}
}

// restart begins every watch anew after the service was restored: the old ones wait for
// revisions that are far in the future.
func (h *watchHub) restart() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.byDir {
		w.cache.discard(false)
		w.signalledCommits, w.arrived, w.signalledAt = nil, 0, 0
		select {
		case w.renew <- struct{}{}:
		default:
		}
	}
}

// dirWatch is the watch on one directory. It ends when its last subscriber leaves.
type dirWatch struct {
	hub    *watchHub
	dir    string
	base   string
	ctx    context.Context
	cancel context.CancelFunc
	// Closed when the service watches, or when err is set.
	ready chan struct{}
	// Why the service does not watch.
	err error

	// Guarded by hub.mu.
	subscribers map[*subscriber]bool
	// Guarded by hub.mu: own commits that were signalled and whose events have not come.
	signalledCommits []int64
	// Guarded by hub.mu: the revision of the last event.
	arrived int64
	// Guarded by hub.mu: arrived, when the last signal was sent.
	signalledAt int64
	// Subdirectories that are known to exist.
	knownDirs map[string]bool

	// The service has watched once.
	established bool
	// Of the service, when it was last asked to watch.
	epoch int
	// One token: begin the watch anew.
	renew chan struct{}
	cache *dirCache
}

// unsubscribe removes a subscriber, and ends the watch after the last.
func (w *dirWatch) unsubscribe(s *subscriber) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	delete(w.subscribers, s)
	if len(w.subscribers) == 0 {
		w.endLocked()
	}
}

// endLocked ends the watch; a later subscriber begins another. The caller holds hub.mu.
func (w *dirWatch) endLocked() {
	w.cancel()
	if w.hub.byDir[w.dir] == w {
		delete(w.hub.byDir, w.dir)
	}
}

// signalSubscribers tells the directory's subscribers to look again. One commit often
// changes two directories: a claim creates a lock, a finish deletes an entry and its lock.
// So the goroutine first yields to those that are ready to run, and a subscriber of both
// watches gets one signal. It does not wait for any event.
func (w *dirWatch) signalSubscribers() {
	h := w.hub
	h.mu.Lock()
	h.pendingSignals = append(h.pendingSignals, w)
	first := len(h.pendingSignals) == 1
	h.mu.Unlock()
	if !first {
		return // another goroutine sends the signals
	}
	for range schedulerYields {
		runtime.Gosched()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	signalled := make(map[*subscriber]bool)
	for _, w := range h.pendingSignals {
		for s := range w.subscribers {
			if !signalled[s] {
				signalled[s] = true
				s.signal()
			}
		}
	}
	for _, w := range h.pendingSignals {
		w.signalledAt = w.arrived
	}
	clear(h.pendingSignals)
	h.pendingSignals = h.pendingSignals[:0]
}

// noteCommit is called before a commit returns, so that the caller's next calls see the
// commit: listings of its directories wait for its event, and their subscribers look again
// at once.
func (h *watchHub) noteCommit(ops []coord.Op, results []coord.Result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.byDir) == 0 {
		return
	}
	signalled := make(map[*subscriber]bool)
	for i, op := range ops {
		if !createsNode(op) && op.Kind != coord.KindDelete {
			continue
		}
		// A commit changes the names in its own directory, and may create or empty those
		// above.
		dir, rev, direct := results[i].Path, results[i].Revision, true
		for dir != "/" {
			dir = parentPath(dir)
			if w := h.byDir[dir]; w != nil {
				w.cache.noteCommit(rev)
				// If the event has been signalled already there is nothing to add. Otherwise
				// the event, when it comes, is not signalled again.
				if direct && !op.SignalLater && rev > w.signalledAt && !slices.Contains(w.signalledCommits, rev) {
					w.signalledCommits = append(w.signalledCommits, rev)
					for s := range w.subscribers {
						if !signalled[s] {
							signalled[s] = true
							s.signal()
						}
					}
				}
			}
			direct = false
		}
	}
}

// parentPath returns the directory of a path.
func parentPath(path string) string {
	return path[:max(1, strings.LastIndexByte(path, '/'))]
}

// schedulerYields are enough for an event to get from the connection to its watch. Twice as
// many make no difference; without them a claim makes two signals.
const schedulerYields = 2

// rewatchAfter is the pause before a watch that ended is begun again.
const rewatchAfter = 20 * time.Millisecond

// run watches until the last subscriber leaves. The client resumes a watch after a broken
// connection. Where it cannot, because the revision was compacted or the member lost its
// leader, run begins another watch and signals, since changes may have been missed.
func (w *dirWatch) run() {
	defer w.cache.discard(true)
	r := newRetrier()
	backoff := retry.Backoff{First: rewatchAfter, Max: rewatchAfter}
	backoff.Repeat(w.ctx, nil, func() retry.Decision {
		if w.ctx.Err() != nil {
			return retry.Stop
		}
		// Without WithRequireLeader a member that is cut off from the others would stay
		// silent.
		watch, cancel := context.WithCancel(clientv3.WithRequireLeader(w.ctx))
		w.epoch = w.hub.c.revisions.current().epoch
		w.consumeEvents(w.hub.c.client.Watch(watch, w.base, clientv3.WithRange(string(prefixEnd(w.base))), clientv3.WithCreatedNotify()), r)
		cancel()
		return retry.Later
	})
}

// consumeEvents handles the events of one watch until it ends. It reads them all the time,
// except while the cache is filled, as the client buffers unread events without a bound.
func (w *dirWatch) consumeEvents(events clientv3.WatchChan, r *retrier) {
	var fillRequest <-chan struct{}
	for {
		select {
		case resp, ok := <-events:
			if !ok {
				return
			}
			if resp.Created && !resp.Canceled {
				w.noteRevision(resp)
				fillRequest = w.cache.fillRequest
				w.onEstablished()
			}
			if err := resp.Err(); err != nil {
				w.handleError(err, r)
			}
			// The cache first: a subscriber that is signalled lists and reads.
			w.noteRevision(resp)
			w.cache.apply(len(w.base), resp.Events)
			if w.hasUnannounced(resp.Events) {
				w.signalSubscribers()
			}
		case <-fillRequest:
			w.fillCache()
		case <-w.renew:
			return
		}
	}
}

// noteRevision notes the revision that the watch has reached.
func (w *dirWatch) noteRevision(resp clientv3.WatchResponse) {
	w.hub.c.revisions.observe(w.epoch, resp.Header.Revision)
	if n := len(resp.Events); n > 0 {
		w.hub.c.revisions.observe(w.epoch, resp.Events[n-1].Kv.ModRevision)
	}
}

// onEstablished is called when the service watches. Later changes will have events, earlier
// ones may not have had any.
func (w *dirWatch) onEstablished() {
	if w.cache.isFilled() {
		w.fillCache()
	}
	clear(w.knownDirs)
	w.hub.mu.Lock()
	for s := range w.subscribers {
		s.signal()
	}
	w.signalledCommits, w.arrived, w.signalledAt = nil, 0, 0
	w.hub.mu.Unlock()
	if !w.established {
		w.established = true
		close(w.ready)
	}
}

// handleError handles the end of a watch. A watch that was established is begun again,
// whatever the error; meanwhile listings get the error from the service.
func (w *dirWatch) handleError(err error, r *retrier) {
	switch class := w.hub.c.classify(err); {
	case !w.established:
		if r.decide(class) == retry.Stop {
			w.fail(class.wrap(err))
			return
		}
		_ = r.backoff.Wait(w.ctx, nil, nil) // run looks at the context before it watches again
	case !class.retryable && !isRevisionUnavailable(err):
		w.cache.discard(false)
	}
}

// fail ends a watch that the service refuses.
func (w *dirWatch) fail(err error) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	w.err = err
	close(w.ready)
	w.endLocked()
}

// hasUnannounced reports whether direct children came or went in events that were not
// signalled before. A directory comes with its first key and goes with its last. The keys
// of other processes are not counted, so the first create after any delete is taken for one
// that brings the directory back.
func (w *dirWatch) hasUnannounced(events []*clientv3.Event) bool {
	if len(events) == 0 {
		return false
	}
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	found := false
	for _, e := range events {
		name, _, deeper := strings.Cut(string(e.Kv.Key[len(w.base):]), "/")
		switch deleted := e.Type == clientv3.EventTypeDelete; {
		case !deeper:
			found = found || (deleted || e.IsCreate()) && !slices.Contains(w.signalledCommits, e.Kv.ModRevision)
		case deleted:
			delete(w.knownDirs, name)
		case !w.knownDirs[name]:
			w.knownDirs[name] = true
			found = true
		}
	}
	w.arrived = events[len(events)-1].Kv.ModRevision
	w.signalledCommits = slices.DeleteFunc(w.signalledCommits, func(rev int64) bool { return rev <= w.arrived })
	return found
}
