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

// Keeper notices that locks of one directory are lost. It watches the directory
// once per session, however many locks there are. The loss of a session is
// noticed at once, the removal of a single lock within a second or so. A Keeper
// must not be copied.
type Keeper struct {
	dir string

	mu      sync.Mutex
	closed  bool
	watches []*keeping
	running sync.WaitGroup
}

// keeping is what a keeper does for one session.
type keeping struct {
	session coord.Session
	stop    context.CancelFunc
	kept    []*kept
	more    chan struct{} // holds one: look though nothing changed
}

type kept struct {
	lock *Lock
	lose context.CancelCauseFunc
}

// again has the keeper look once more.
func (w *keeping) again() {
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// NewKeeper returns a keeper for the locks in dir.
func NewKeeper(dir string) *Keeper { return &Keeper{dir: dir} }

// Context returns a context that ends when the lock is lost, with [ErrLost] as
// its cause, or with parent. The caller cancels it when it is done with it.
func (k *Keeper) Context(parent context.Context, l *Lock) (context.Context, context.CancelFunc) {
	ctx, lose := context.WithCancelCause(parent)
	one := &kept{lock: l, lose: lose}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || over(l.session) {
		lose(ErrLost)
		return ctx, func() {}
	}
	w := k.watch(l.session)
	w.kept = append(w.kept, one)
	w.again()
	return ctx, func() {
		lose(context.Canceled)
		k.mu.Lock()
		defer k.mu.Unlock()
		w.kept = slices.DeleteFunc(w.kept, func(o *kept) bool { return o == one })
	}
}

// Close forgets all locks, ends their contexts with ErrLost, and returns when
// the keeper's goroutines have ended.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.closed = true
	for _, w := range k.watches {
		w.stop()
	}
	k.mu.Unlock()
	k.running.Wait()
}

// watch returns what is done for a session, starting it if need be.
func (k *Keeper) watch(s coord.Session) *keeping {
	for _, w := range k.watches {
		if w.session == s {
			return w
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &keeping{session: s, stop: stop, more: make(chan struct{}, 1)}
	k.watches = append(k.watches, w)
	k.running.Add(1)
	go func() {
		defer k.running.Done()
		defer k.forget(w)
		k.run(ctx, w)
	}()
	return w
}

// run looks at the locks whenever their directory changed, until the session is
// over or the keeper closed.
func (k *Keeper) run(ctx context.Context, w *keeping) {
	changed, err := w.session.Watch(ctx, k.dir)
	if err != nil {
		changed = nil // what is left is the end of the session, which Done tells
	}
	for {
		select {
		case <-ctx.Done():
		case <-w.session.Done():
		case <-changed:
		case <-w.more: // it may have been lost before the watch could tell
		}
		if ctx.Err() != nil || over(w.session) {
			return
		}
		// One look answers both, whichever woke us.
		drain(changed)
		drain(w.more)
		k.look(ctx, w)
		pause := time.NewTimer(lookEvery)
		select {
		case <-ctx.Done():
		case <-w.session.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// look ends the contexts of the locks that are gone, or are somebody else's now.
func (k *Keeper) look(ctx context.Context, w *keeping) {
	k.mu.Lock()
	locks := slices.Clone(w.kept)
	k.mu.Unlock()
	if len(locks) == 0 {
		return
	}
	list, err := w.session.List(ctx, k.dir, coord.ListOptions{Values: true})
	if err != nil {
		w.again()
		return
	}
	there := make(map[string]coord.Node, len(list.Nodes))
	for _, n := range list.Nodes {
		there[n.Path] = n
	}
	for _, o := range locks {
		if n, ok := there[o.lock.path]; ok && o.lock.is(n) || o.lock.settling.Load() {
			continue
		}
		held, err := o.lock.Holds(ctx)
		switch {
		case err != nil:
			w.again()
		case !held && !o.lock.settling.Load():
			o.lose(ErrLost)
		}
	}
}

// Lose ends the contexts of a lock of which its holder knows that it is lost.
func (k *Keeper) Lose(l *Lock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.watches {
		for _, o := range w.kept {
			if o.lock == l {
				o.lose(ErrLost)
			}
		}
	}
}

// forget ends what was done for a session: its locks are lost.
func (k *Keeper) forget(w *keeping) {
	w.stop()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watches = slices.DeleteFunc(k.watches, func(o *keeping) bool { return o == w })
	for _, o := range w.kept {
		o.lose(ErrLost)
	}
	w.kept = nil
}

func drain(c <-chan struct{}) {
	select {
	case <-c:
	default:
	}
}

func over(s coord.Session) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}
