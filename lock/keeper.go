package lock

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
)

// lookEvery bounds what a keeper costs: one listing of the locks a second, and
// only while they change.
const lookEvery = time.Second

// Keeper notices that locks of one directory are lost. It watches the directory once
// per session, however many locks there are. It notices the loss of a session at once,
// and the removal of a single lock within about a second. Its methods may be called
// from several goroutines. A Keeper must not be copied.
type Keeper struct {
	dir string

	mu       sync.Mutex
	isClosed bool
	watches  []*sessionWatch // one for each session with locks
	running  sync.WaitGroup  // the goroutines of the watches
}

// sessionWatch is what a keeper does for the locks of one session. It has a goroutine,
// which ends with the session or the keeper.
type sessionWatch struct {
	session  coord.Session
	stop     context.CancelFunc
	locks    []*watchedLock // guarded by Keeper.mu
	requests chan struct{}  // one token: check the locks although nothing changed
}

// watchedLock is a lock and the function that ends its context.
type watchedLock struct {
	lock *Lock
	lose context.CancelCauseFunc
}

// requestCheck has the goroutine check the locks once more.
func (w *sessionWatch) requestCheck() {
	select {
	case w.requests <- struct{}{}:
	default:
	}
}

// NewKeeper returns a keeper for the locks in dir.
func NewKeeper(dir string) *Keeper { return &Keeper{dir: dir} }

// Context returns a context that ends when the lock is lost, with [ErrLost] as its
// cause, or with parent. It has ended already if the session is over or the keeper is
// closed. The caller calls the function when it needs the context no more.
func (k *Keeper) Context(parent context.Context, l *Lock) (context.Context, context.CancelFunc) {
	ctx, lose := context.WithCancelCause(parent)
	watched := &watchedLock{lock: l, lose: lose}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.isClosed || isOver(l.session) {
		lose(ErrLost)
		return ctx, func() {}
	}
	w := k.watchLocked(l.session)
	w.locks = append(w.locks, watched)
	w.requestCheck()
	return ctx, func() {
		lose(context.Canceled)
		k.mu.Lock()
		defer k.mu.Unlock()
		w.locks = slices.DeleteFunc(w.locks, func(o *watchedLock) bool { return o == watched })
	}
}

// Close ends the contexts of all locks with [ErrLost], and returns when the keeper's
// goroutines have ended. It does not give the locks back.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.isClosed = true
	for _, w := range k.watches {
		w.stop()
	}
	k.mu.Unlock()
	k.running.Wait()
}

// watchLocked returns the watch of a session. It starts one if there is none.
func (k *Keeper) watchLocked(s coord.Session) *sessionWatch {
	for _, w := range k.watches {
		if w.session == s {
			return w
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &sessionWatch{session: s, stop: stop, requests: make(chan struct{}, 1)}
	k.watches = append(k.watches, w)
	k.running.Add(1)
	go func() {
		defer k.running.Done()
		defer k.loseAll(w)
		k.run(ctx, w)
	}()
	return w
}

// run checks the locks whenever their directory changed, until the session is over or
// the keeper is closed.
func (k *Keeper) run(ctx context.Context, w *sessionWatch) {
	changed, err := w.session.Watch(ctx, k.dir)
	if err != nil {
		changed = nil // Done still reports the end of the session
	}
	for {
		select {
		case <-ctx.Done():
		case <-w.session.Done():
		case <-changed:
		case <-w.requests: // the lock may have been lost before the watch began
		}
		if ctx.Err() != nil || isOver(w.session) {
			return
		}
		// One check answers both, whichever woke this goroutine.
		discardSignal(changed)
		discardSignal(w.requests)
		k.check(ctx, w)
		pause := time.NewTimer(lookEvery)
		select {
		case <-ctx.Done():
		case <-w.session.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// check ends the contexts of the locks that are gone or belong to another holder now.
// It reads each lock that the listing lacks once more, for a listing may lag.
func (k *Keeper) check(ctx context.Context, w *sessionWatch) {
	k.mu.Lock()
	locks := slices.Clone(w.locks)
	k.mu.Unlock()
	if len(locks) == 0 {
		return
	}
	list, err := w.session.List(ctx, k.dir, coord.ListOptions{Values: true})
	if err != nil {
		w.requestCheck()
		return
	}
	listed := make(map[string]coord.Node, len(list.Nodes))
	for _, n := range list.Nodes {
		listed[n.Path] = n
	}
	for _, watched := range locks {
		if n, ok := listed[watched.lock.path]; ok && watched.lock.isNode(n) || watched.lock.isReleasing.Load() {
			continue
		}
		held, err := watched.lock.Holds(ctx)
		switch {
		case err != nil:
			w.requestCheck()
		case !held && !watched.lock.isReleasing.Load():
			watched.lose(ErrLost)
		}
	}
}

// Lose ends the context of a lock that its holder knows to be lost.
func (k *Keeper) Lose(l *Lock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.watches {
		for _, watched := range w.locks {
			if watched.lock == l {
				watched.lose(ErrLost)
			}
		}
	}
}

// loseAll ends a watch and the contexts of its locks.
func (k *Keeper) loseAll(w *sessionWatch) {
	w.stop()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watches = slices.DeleteFunc(k.watches, func(o *sessionWatch) bool { return o == w })
	for _, watched := range w.locks {
		watched.lose(ErrLost)
	}
	w.locks = nil
}

func discardSignal(signals <-chan struct{}) {
	select {
	case <-signals:
	default:
	}
}

func isOver(s coord.Session) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}
