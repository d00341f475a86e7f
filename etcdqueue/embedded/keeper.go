package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
)

// keeper runs the store whenever no other process does. One goroutine tries the
// lock at every sign that its holder is gone, and now and then without one.
type keeper struct {
	dir  directory
	warn func(string)

	poked   chan struct{}
	leaving chan struct{}
	done    chan struct{}
	once    sync.Once

	mu      sync.Mutex
	owns    bool
	err     error         // why this process cannot run the store
	changed chan struct{} // closed and renewed when owns or err changes
}

// The lock is tried at these intervals: at once after a sign, then ever slower.
const (
	tryFirst = time.Millisecond
	tryLast  = 100 * time.Millisecond
	retry    = time.Second // after the store could not be started
)

func newKeeper(dir directory, warn func(string)) *keeper {
	k := &keeper{
		dir:     dir,
		warn:    warn,
		poked:   make(chan struct{}, 1),
		leaving: make(chan struct{}),
		done:    make(chan struct{}),
		changed: make(chan struct{}),
	}
	go k.run()
	return k
}

func (k *keeper) run() {
	defer close(k.done)
	pause := tryFirst
	for {
		lock, err := lockFile(k.dir.lock())
		switch {
		case err == nil:
			err = k.own(lock)
			pause = tryFirst
			if err != nil {
				pause = retry
			}
			k.set(false, err)
			if broken := (*brokenError)(nil); errors.As(err, &broken) {
				<-k.leaving
				return
			}
		case !errors.Is(err, errHeld):
			pause = retry
			k.set(false, unreachable(k.dir, err))
		}
		select {
		case <-k.leaving:
			return
		case <-k.poked:
			pause = tryFirst
		case <-time.After(pause):
			pause = min(2*pause, max(pause, tryLast))
		}
	}
}

// own runs the store under the lock until this process leaves or the store stops
// by itself, and frees the lock when nothing of the store is left. A broken one is
// left only when this process ends, and its files block whoever opens them: then
// the lock stays.
func (k *keeper) own(lock *fileLock) (err error) {
	defer func() {
		if broken := (*brokenError)(nil); !errors.As(err, &broken) {
			lock.free()
		}
	}()
	if err := lock.writePID(os.Getpid()); err != nil {
		return unreachable(k.dir, err)
	}
	if err := k.dir.adopt(); err != nil {
		return err
	}
	s, err := startStore(k.dir, k.warn)
	if err != nil {
		return unreachable(k.dir, err)
	}
	k.set(true, nil)
	select {
	case <-k.leaving:
		k.set(false, nil)
		s.leave()
		return nil
	case err := <-s.failed():
		k.set(false, nil)
		s.leave()
		return unreachable(k.dir, err)
	}
}

func unreachable(dir directory, err error) error {
	return fmt.Errorf("run the store in %s: %w: %w", dir.path, coord.ErrUnreachable, err)
}

func (k *keeper) set(owns bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.owns == owns && k.err == nil && err == nil {
		return
	}
	k.owns, k.err = owns, err
	close(k.changed)
	k.changed = make(chan struct{})
}

// failure returns why this process cannot run the store, and what is closed when
// that changes.
func (k *keeper) failure() (changed <-chan struct{}, why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed, k.err
}

func (k *keeper) owner() (pid int, self bool) {
	k.mu.Lock()
	owns := k.owns
	k.mu.Unlock()
	if owns {
		return os.Getpid(), true
	}
	return readPID(k.dir.lock()), false
}

// stoppedOwner returns the owner if that is another process and stopped, else 0.
func (k *keeper) stoppedOwner() int {
	if pid, self := k.owner(); pid != 0 && !self && stopped(pid) {
		return pid
	}
	return 0
}

// poke says that the owner may be gone.
func (k *keeper) poke() {
	select {
	case k.poked <- struct{}{}:
	default:
	}
}

// dial connects to whoever runs the store. While nobody does it waits: a refusal
// would only make gRPC wait longer.
func (k *keeper) dial(ctx context.Context, _ string) (net.Conn, error) {
	for pause := tryFirst; ; pause = min(2*pause, tryLast/10) {
		conn, err := k.dir.dial(ctx)
		if err == nil {
			return &ownerConn{Conn: conn, gone: k.poke}, nil
		}
		changed, why := k.failure()
		if why != nil {
			return nil, why
		}
		k.poke()
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-k.leaving:
			return nil, coord.ErrClosed
		case <-changed:
		case <-time.After(pause):
		}
	}
}

// leave ends the goroutine, and the store in order if it runs here.
func (k *keeper) leave() {
	k.once.Do(func() { close(k.leaving) })
	<-k.done
}

// ownerConn is a connection to the owner; its end is a sign that the owner may be
// gone.
type ownerConn struct {
	net.Conn
	gone func()
}

func (c *ownerConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.gone()
	}
	return n, err
}
