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

// Watch implements [coord.Session]. However many subscribe to a directory, a
// coordinator has one watch on it.
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
	over := context.AfterFunc(s.ctx, sub.signal)
	context.AfterFunc(user, func() {
		over()
		leave()
	})
	return sub.ch, nil
}

// subscriber is one call of Watch.
type subscriber struct{ ch chan struct{} }

func (s *subscriber) signal() {
	select {
	case s.ch <- struct{}{}:
	default: // there is one that was not received yet
	}
}

// watchHub holds a coordinator's watches.
type watchHub struct {
	c     *Coordinator
	mu    sync.Mutex
	byDir map[string]*dirWatch

	pendingSignals []*dirWatch // whose subscribers are about to be told
}

func newWatchHub(c *Coordinator) *watchHub { return &watchHub{c: c, byDir: make(map[string]*dirWatch)} }

// subscribe subscribes to a directory; nil when the coordinator is closed.
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

// find returns the watch on a directory, if there is one.
func (h *watchHub) find(dir string) *dirWatch {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.byDir[dir]
}

// signalAll tells every subscriber to look again: on a new connection.
func (h *watchHub) signalAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.byDir {
		for s := range w.subscribers {
			s.signal()
		}
	}
}

// restart has every watch begin anew, after the service was restored: those that stand
// wait for revisions that are far away. What they had told is forgotten at once.
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

// dirWatch is the watch on one directory. It ends with its last subscriber.
type dirWatch struct {
	hub    *watchHub
	dir    string
	base   string
	ctx    context.Context
	cancel context.CancelFunc
	ready  chan struct{} // closed when the service watches, or err says why it does not
	err    error

	subscribers      map[*subscriber]bool // under hub.mu
	signalledCommits []int64              // under hub.mu: own commits that were signalled, and whose events have not come
	arrived          int64                // under hub.mu: the revision of the last event
	signalledAt      int64                // under hub.mu: the same, when the last signal was sent
	knownDirs        map[string]bool      // directories below that are known to stand

	established bool          // the service has watched
	epoch       int           // of the service, when it was last asked to watch
	renew       chan struct{} // a token: the watch is to begin anew
	cache       *dirCache
}

func (w *dirWatch) unsubscribe(s *subscriber) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	delete(w.subscribers, s)
	if len(w.subscribers) == 0 {
		w.endLocked()
	}
}

// endLocked is called under hub.mu: whoever comes later begins another watch.
func (w *dirWatch) endLocked() {
	w.cancel()
	if w.hub.byDir[w.dir] == w {
		delete(w.hub.byDir, w.dir)
	}
}

// signalSubscribers tells the directory's subscribers to look again. What another watch has to
// say at the same moment, since one commit changed both directories, it tells with the
// same signal: it lets those go first who are ready to run, and waits for nobody else.
func (w *dirWatch) signalSubscribers() {
	h := w.hub
	h.mu.Lock()
	h.pendingSignals = append(h.pendingSignals, w)
	first := len(h.pendingSignals) == 1
	h.mu.Unlock()
	if !first {
		return // and is told
	}
	for range schedulerYields {
		runtime.Gosched()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	told := make(map[*subscriber]bool)
	for _, w := range h.pendingSignals {
		for s := range w.subscribers {
			if !told[s] {
				told[s] = true
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

// noteCommit is told of a commit before its caller is. What the caller does next sees
// the commit: the listings of the directories wait for its event, and their
// subscribers look again without waiting for it.
func (h *watchHub) noteCommit(ops []coord.Op, results []coord.Result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.byDir) == 0 {
		return
	}
	told := make(map[*subscriber]bool)
	for i, op := range ops {
		if !createsNode(op) && op.Kind != coord.KindDelete {
			continue
		}
		dir, rev, direct := results[i].Path, results[i].Revision, true
		for dir != "/" {
			dir = parentPath(dir)
			if w := h.byDir[dir]; w != nil {
				w.cache.noteCommit(rev)
				if direct && !op.SignalLater && rev > w.signalledAt && !slices.Contains(w.signalledCommits, rev) {
					w.signalledCommits = append(w.signalledCommits, rev)
					for s := range w.subscribers {
						if !told[s] {
							told[s] = true
							s.signal()
						}
					}
				}
			}
			direct = false
		}
	}
}

// parentPath is the directory of a path.
func parentPath(path string) string {
	return path[:max(1, strings.LastIndexByte(path, '/'))]
}

// schedulerYields are enough for an event to get from the connection to its watch: twice as many
// make no difference, with none a claim is two signals.
const schedulerYields = 2

// rewatchAfter is the pause before a watch that ended is begun again.
const rewatchAfter = 20 * time.Millisecond

// run watches. The client takes a watch up again where a connection broke; where
// it cannot (the revision was compacted, the member lost its leader), run begins
// another and signals, since something may lie between.
func (w *dirWatch) run() {
	defer w.cache.discard(true)
	r := newRetrier()
	backoff := retry.Backoff{First: rewatchAfter, Max: rewatchAfter}
	for w.ctx.Err() == nil {
		watch, cancel := context.WithCancel(clientv3.WithRequireLeader(w.ctx))
		w.epoch = w.hub.c.revisions.current().epoch
		w.consumeEvents(w.hub.c.client.Watch(watch, w.base, clientv3.WithRange(string(prefixEnd(w.base))), clientv3.WithCreatedNotify()), r)
		cancel()
		_ = backoff.Wait(w.ctx, nil, nil) // the loop looks at the context
	}
}

// consumeEvents does what a watch's events ask for, until it breaks. Its channel is
// drained but while the mirror is made: what is not received piles up in the client.
func (w *dirWatch) consumeEvents(events clientv3.WatchChan, r *retrier) {
	var wanted <-chan struct{}
	for {
		select {
		case resp, ok := <-events:
			if !ok {
				return
			}
			if resp.Created && !resp.Canceled {
				w.noteRevision(resp)
				wanted = w.cache.fillRequest
				w.onEstablished()
			}
			if err := resp.Err(); err != nil {
				w.handleError(err, r)
			}
			// The mirror first: a signal is received by those who list, and read.
			w.noteRevision(resp)
			w.cache.apply(len(w.base), resp.Events)
			if w.hasUnannounced(resp.Events) {
				w.signalSubscribers()
			}
		case <-wanted:
			w.fillCache()
		case <-w.renew:
			return
		}
	}
}

// noteRevision notes how far the watch has come.
func (w *dirWatch) noteRevision(resp clientv3.WatchResponse) {
	w.hub.c.revisions.observe(w.epoch, resp.Header.Revision)
	if n := len(resp.Events); n > 0 {
		w.hub.c.revisions.observe(w.epoch, resp.Events[n-1].Kv.ModRevision)
	}
}

// onEstablished is called when the service watches: what comes from now on will be told,
// what came before may not have been.
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

// handleError judges why a watch ended. One that has stood is begun again, whatever it
// was; meanwhile those who list may hear it from the service themselves.
func (w *dirWatch) handleError(err error, r *retrier) {
	switch v := w.hub.c.classify(err); {
	case !w.established:
		if !r.waitForRetry(w.ctx, v) {
			w.fail(v.wrap(err))
		}
	case !v.retryable && !isRevisionUnavailable(err):
		w.cache.discard(false)
	}
}

// fail ends a watch that the service will not take.
func (w *dirWatch) fail(err error) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	w.err = err
	close(w.ready)
	w.endLocked()
}

// hasUnannounced says whether direct children came or went of which nobody was told. A
// directory comes with its first key and goes with its last; since others' keys are
// not counted, the first to come after any went is taken for one that brings it back.
func (w *dirWatch) hasUnannounced(events []*clientv3.Event) bool {
	if len(events) == 0 {
		return false
	}
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	news := false
	for _, e := range events {
		name, _, deeper := strings.Cut(string(e.Kv.Key[len(w.base):]), "/")
		switch gone := e.Type == clientv3.EventTypeDelete; {
		case !deeper:
			news = news || (gone || e.IsCreate()) && !slices.Contains(w.signalledCommits, e.Kv.ModRevision)
		case gone:
			delete(w.knownDirs, name)
		case !w.knownDirs[name]:
			w.knownDirs[name] = true
			news = true
		}
	}
	w.arrived = events[len(events)-1].Kv.ModRevision
	w.signalledCommits = slices.DeleteFunc(w.signalledCommits, func(rev int64) bool { return rev <= w.arrived })
	return news
}
