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
)

// Watch implements [coord.Session]. However many subscribe to a directory, a
// coordinator has one watch on it.
func (s *session) Watch(user context.Context, dirs ...string) (<-chan struct{}, error) {
	for _, dir := range dirs {
		if err := coord.CheckDir(dir); err != nil {
			return nil, fmt.Errorf("watch: %w", err)
		}
	}
	ctx, cancel, err := s.call(user)
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	defer cancel()
	sub := &subscriber{ch: make(chan struct{}, 1)}
	var watches []*dirWatch
	leave := func() {
		for _, w := range watches {
			w.leave(sub)
		}
	}
	for _, dir := range dirs {
		w := s.c.hub.join(dir, sub)
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
			err = stopped(user, ctx)
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

// hub holds a coordinator's watches.
type hub struct {
	c  *Coordinator
	mu sync.Mutex
	by map[string]*dirWatch

	news []*dirWatch // whose subscribers are about to be told
}

func newHub(c *Coordinator) *hub { return &hub{c: c, by: make(map[string]*dirWatch)} }

// join subscribes to a directory; nil when the coordinator is closed.
func (h *hub) join(dir string, s *subscriber) *dirWatch {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.by[dir]
	if w == nil {
		w = &dirWatch{hub: h, dir: dir, base: h.c.base(dir), ready: make(chan struct{}), subs: make(map[*subscriber]bool), dirs: make(map[string]bool), mirror: newMirror(), renew: make(chan struct{}, 1)}
		w.ctx, w.cancel = context.WithCancel(h.c.ctx)
		if !h.c.spawn(w.run) {
			w.cancel()
			return nil
		}
		h.by[dir] = w
	}
	w.subs[s] = true
	return w
}

// watch returns the watch on a directory, if there is one.
func (h *hub) watch(dir string) *dirWatch {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.by[dir]
}

// signal tells every subscriber to look again: on a new connection.
func (h *hub) signal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.by {
		for s := range w.subs {
			s.signal()
		}
	}
}

// restart has every watch begin anew, after the service was restored: those that stand
// wait for revisions that are far away. What they had told is forgotten at once.
func (h *hub) restart() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.by {
		w.mirror.drop(false)
		w.acked, w.arrived, w.told = nil, 0, 0
		select {
		case w.renew <- struct{}{}:
		default:
		}
	}
}

// dirWatch is the watch on one directory. It ends with its last subscriber.
type dirWatch struct {
	hub    *hub
	dir    string
	base   string
	ctx    context.Context
	cancel context.CancelFunc
	ready  chan struct{} // closed when the service watches, or err says why it does not
	err    error

	subs    map[*subscriber]bool // under hub.mu
	acked   []int64              // under hub.mu: own commits that were signalled, and whose events have not come
	arrived int64                // under hub.mu: the revision of the last event
	told    int64                // under hub.mu: the same, when the last signal was sent
	dirs    map[string]bool      // directories below that are known to stand

	established bool          // the service has watched
	epoch       int           // of the service, when it was last asked to watch
	renew       chan struct{} // a token: the watch is to begin anew
	mirror      *mirror
}

func (w *dirWatch) leave(s *subscriber) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	delete(w.subs, s)
	if len(w.subs) == 0 {
		w.end()
	}
}

// end is called under hub.mu: whoever comes later begins another watch.
func (w *dirWatch) end() {
	w.cancel()
	if w.hub.by[w.dir] == w {
		delete(w.hub.by, w.dir)
	}
}

// signal tells the directory's subscribers to look again. What another watch has to
// say at the same moment, since one commit changed both directories, it tells with the
// same signal: it lets those go first who are ready to run, and waits for nobody else.
func (w *dirWatch) signal() {
	h := w.hub
	h.mu.Lock()
	h.news = append(h.news, w)
	first := len(h.news) == 1
	h.mu.Unlock()
	if !first {
		return // and is told
	}
	for range yields {
		runtime.Gosched()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	told := make(map[*subscriber]bool)
	for _, w := range h.news {
		for s := range w.subs {
			if !told[s] {
				told[s] = true
				s.signal()
			}
		}
	}
	for _, w := range h.news {
		w.told = w.arrived
	}
	clear(h.news)
	h.news = h.news[:0]
}

// committed is told of a commit before its caller is. What the caller does next sees
// the commit: the listings of the directories wait for its event, and their
// subscribers look again without waiting for it.
func (h *hub) committed(ops []coord.Op, results []coord.Result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.by) == 0 {
		return
	}
	told := make(map[*subscriber]bool)
	for i, op := range ops {
		if !creates(op) && op.Kind != coord.KindDelete {
			continue
		}
		dir, rev, direct := results[i].Path, results[i].Revision, true
		for dir != "/" {
			dir = parent(dir)
			if w := h.by[dir]; w != nil {
				w.mirror.committed(rev)
				if direct && !op.SignalLater && rev > w.told && !slices.Contains(w.acked, rev) {
					w.acked = append(w.acked, rev)
					for s := range w.subs {
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

// parent is the directory of a path.
func parent(path string) string {
	return path[:max(1, strings.LastIndexByte(path, '/'))]
}

// yields are enough for an event to get from the connection to its watch: twice as many
// make no difference, with none a claim is two signals.
const yields = 2

// run watches. The client takes a watch up again where a connection broke; where
// it cannot (the revision was compacted, the member lost its leader), run begins
// another and signals, since something may lie between.
func (w *dirWatch) run() {
	defer w.mirror.drop(true)
	var r retries
	for w.ctx.Err() == nil {
		watch, cancel := context.WithCancel(clientv3.WithRequireLeader(w.ctx))
		w.epoch = w.hub.c.shown.position().epoch
		w.follow(w.hub.c.client.Watch(watch, w.base, clientv3.WithRange(string(after(w.base))), clientv3.WithCreatedNotify()), &r)
		cancel()
		select {
		case <-time.After(20 * time.Millisecond):
		case <-w.ctx.Done():
		}
	}
}

// follow does what a watch's events ask for, until it breaks. Its channel is
// drained but while the mirror is made: what is not received piles up in the client.
func (w *dirWatch) follow(events clientv3.WatchChan, r *retries) {
	var wanted <-chan struct{}
	for {
		select {
		case resp, ok := <-events:
			if !ok {
				return
			}
			if resp.Created && !resp.Canceled {
				w.saw(resp)
				wanted = w.mirror.wanted
				w.begin()
			}
			if err := resp.Err(); err != nil {
				w.broken(err, r)
			}
			// The mirror first: a signal is received by those who list, and read.
			w.saw(resp)
			w.mirror.apply(len(w.base), resp.Events)
			if w.news(resp.Events) {
				w.signal()
			}
		case <-wanted:
			w.build()
		case <-w.renew:
			return
		}
	}
}

// saw notes how far the watch has come.
func (w *dirWatch) saw(resp clientv3.WatchResponse) {
	w.hub.c.shown.saw(w.epoch, resp.Header.Revision)
	if n := len(resp.Events); n > 0 {
		w.hub.c.shown.saw(w.epoch, resp.Events[n-1].Kv.ModRevision)
	}
}

// begin is called when the service watches: what comes from now on will be told,
// what came before may not have been.
func (w *dirWatch) begin() {
	if w.mirror.stands() {
		w.build()
	}
	clear(w.dirs)
	w.hub.mu.Lock()
	for s := range w.subs {
		s.signal()
	}
	w.acked, w.arrived, w.told = nil, 0, 0
	w.hub.mu.Unlock()
	if !w.established {
		w.established = true
		close(w.ready)
	}
}

// broken judges why a watch ended. One that has stood is begun again, whatever it
// was; meanwhile those who list may hear it from the service themselves.
func (w *dirWatch) broken(err error, r *retries) {
	switch v := w.hub.c.judge(err); {
	case !w.established:
		if !r.again(w.ctx, v) {
			w.fail(v.wrap(err))
		}
	case !v.again && !forgotten(err):
		w.mirror.drop(false)
	}
}

// fail ends a watch that the service will not take.
func (w *dirWatch) fail(err error) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	w.err = err
	close(w.ready)
	w.end()
}

// news says whether direct children came or went of which nobody was told. A
// directory comes with its first key and goes with its last; since others' keys are
// not counted, the first to come after any went is taken for one that brings it back.
func (w *dirWatch) news(events []*clientv3.Event) bool {
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
			news = news || (gone || e.IsCreate()) && !slices.Contains(w.acked, e.Kv.ModRevision)
		case gone:
			delete(w.dirs, name)
		case !w.dirs[name]:
			w.dirs[name] = true
			news = true
		}
	}
	w.arrived = events[len(events)-1].Kv.ModRevision
	w.acked = slices.DeleteFunc(w.acked, func(rev int64) bool { return rev <= w.arrived })
	return news
}
