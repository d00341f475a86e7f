package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	leaving context.Context
	leaveUp context.CancelFunc
	done    chan struct{}

	mu      sync.Mutex
	owns    bool
	err     error         // why this process cannot run the store
	refused error         // why it may not connect to the process that does
	changed chan struct{} // closed and renewed when owns or err changes
}

// The lock is tried at these intervals: at once after a sign, then ever slower.
const (
	tryFirst = time.Millisecond
	tryLast  = 100 * time.Millisecond
)

// After the store could not be started the next attempt is made at these intervals: a
// start that fails may leave something behind in this process.
const (
	retryFirst = time.Second
	retryLast  = 30 * time.Second
)

func newKeeper(dir directory, warn func(string)) *keeper {
	k := &keeper{
		dir:     dir,
		warn:    warn,
		poked:   make(chan struct{}, 1),
		done:    make(chan struct{}),
		changed: make(chan struct{}),
	}
	k.leaving, k.leaveUp = context.WithCancel(context.Background())
	go k.run()
	return k
}

func (k *keeper) run() {
	defer close(k.done)
	pause, failed := tryFirst, retryFirst
	for {
		lock, err := lockFile(k.dir.lock())
		switch {
		case err == nil:
			err = k.own(lock)
			k.set(false, err)
		case errors.Is(err, errHeld):
			err = nil // another process can run the store, whatever was wrong here
			k.set(false, nil)
		default:
			err = unreachable(k.dir, err)
			k.set(false, err)
		}
		if broken := (*brokenError)(nil); errors.As(err, &broken) {
			<-k.leaving.Done()
			return
		}
		if err != nil {
			select {
			case <-k.leaving.Done():
				return
			case <-time.After(failed):
			}
			if failed = min(2*failed, retryLast); errors.As(err, new(*NoSpaceError)) {
				failed = retryFirst // until room is made
			}
			continue
		}
		failed = retryFirst
		select {
		case <-k.leaving.Done():
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
	s, err := startStore(k.leaving, k.dir, k.warn)
	if err != nil {
		return unreachable(k.dir, err)
	}
	k.set(true, nil)
	select {
	case <-k.leaving.Done():
		k.set(false, nil)
		if err := s.leave(); err != nil {
			return unreachable(k.dir, err)
		}
		return nil
	case err := <-s.failed():
		k.set(false, nil)
		k.warn(fmt.Sprintf("the store in %s stopped and is started again: %v", k.dir.path, err))
		return unreachable(k.dir, errors.Join(err, s.leave()))
	}
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
	return k.changed, cmp.Or(k.err, k.refused)
}

// refuse notes that this process may not connect to the store, or, with nil, that it may.
func (k *keeper) refuse(why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refused = why
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
			k.refuse(nil)
			return &ownerConn{Conn: conn, gone: k.poke}, nil
		}
		if errors.Is(err, fs.ErrPermission) { // no wait helps
			k.refuse(unreachable(k.dir, err))
		}
		changed, why := k.failure()
		if why != nil {
			return nil, why
		}
		k.poke()
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-k.leaving.Done():
			return nil, coord.ErrClosed
		case <-changed:
		case <-time.After(pause):
		}
	}
}

// leave ends the goroutine, and the store in order if it runs here. It waits for at
// most the limit: a disk may hang for ever, and the kernel frees the lock when the
// process ends.
func (k *keeper) leave(limit time.Duration) {
	k.leaveUp()
	select {
	case <-k.done:
	case <-time.After(limit):
		k.warn(fmt.Sprintf("the store in %s was not closed within %v: its disk may hang", k.dir.path, limit))
	}
}

const (
	leaveLimit  = farewell + 2*stopLimit // of a store that ran
	giveUpLimit = time.Second            // of one that did not start in time
)

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
