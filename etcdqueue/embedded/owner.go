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
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
)

// candidate runs the store whenever no other process does. One goroutine tries the lock at
// every sign that its holder has ended, and sometimes without one.
type candidate struct {
	dir  directory
	warn func(string)

	// One token: the owner may have ended.
	lockRequest chan struct{}
	// Set with lockRequest, for the pace of the attempts.
	ownerMayBeGone atomic.Bool
	ctx            context.Context
	cancel         context.CancelFunc
	done           chan struct{}

	mu sync.Mutex
	// This process runs the store.
	owns bool
	// Why this process cannot run the store.
	err error
	// Why it may not connect to the owner.
	connectErr error
	// Closed and replaced when owns or err changes.
	changed chan struct{}
}

// The lock is tried at once after a sign, and then at intervals that grow from the first to
// the second.
const (
	lockPollFirst = time.Millisecond
	lockPollMax   = 100 * time.Millisecond
)

// The pause after a failed start grows from restartFirst to restartMax, because a failed
// start may leave resources of this process in use.
const (
	restartFirst = time.Second
	restartMax   = 30 * time.Second
)

// newCandidate returns a candidate that tries the lock from now on.
func newCandidate(dir directory, warn func(string)) *candidate {
	k := &candidate{
		dir:         dir,
		warn:        warn,
		lockRequest: make(chan struct{}, 1),
		done:        make(chan struct{}),
		changed:     make(chan struct{}),
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	go k.run()
	return k
}

// run tries the lock and runs the store until stop is called.
func (c *candidate) run() {
	defer close(c.done)
	poll := retry.Backoff{First: lockPollFirst, Max: lockPollMax, Wake: c.lockRequest}
	restart := retry.Backoff{First: restartFirst, Max: restartMax}
	poll.Repeat(c.ctx, nil, func() retry.Decision {
		if c.ctx.Err() != nil {
			return retry.Stop
		}
		if c.ownerMayBeGone.Swap(false) {
			poll.Reset()
		}
		lock, err := lockFile(c.dir.lock())
		switch {
		case err == nil:
			err = c.runStore(lock)
			c.setState(false, err)
		case errors.Is(err, errLocked):
			err = nil // another process runs the store, so a failure in this one does not matter
			c.setState(false, nil)
		default:
			err = storeError(c.dir, err)
			c.setState(false, err)
		}
		if broken := (*brokenError)(nil); errors.As(err, &broken) {
			<-c.ctx.Done()
			return retry.Stop
		}
		if err == nil {
			restart.Reset()
			return retry.Later
		}
		_ = restart.Wait(c.ctx, nil, nil)
		if errors.As(err, new(*NoSpaceError)) {
			restart.Reset() // until there is space
		}
		return retry.Now
	})
}

// runStore runs the store until this process stops or the store fails. It frees the lock
// when nothing of the store is left. An etcd that gave up may keep its files until this
// process ends, and so would block the next owner: then the lock is kept too.
func (c *candidate) runStore(lock *fileLock) (err error) {
	defer func() {
		if broken := (*brokenError)(nil); !errors.As(err, &broken) {
			lock.release()
		}
	}()
	if err := lock.writePID(os.Getpid()); err != nil {
		return storeError(c.dir, err)
	}
	if err := c.dir.writeFormat(); err != nil {
		return err
	}
	s, err := startStore(c.ctx, c.dir, c.warn)
	if err != nil {
		return storeError(c.dir, err)
	}
	c.setState(true, nil)
	select {
	case <-c.ctx.Done():
		c.setState(false, nil)
		if err := s.stop(); err != nil {
			return storeError(c.dir, err)
		}
		return nil
	case err := <-s.failed():
		c.setState(false, nil)
		c.warn(fmt.Sprintf("the store in %s stopped and is started again: %v", c.dir.path, err))
		return storeError(c.dir, errors.Join(err, s.stop()))
	}
}

// setState notes whether this process runs the store, or why it cannot.
func (c *candidate) setState(owns bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owns == owns && c.err == nil && err == nil {
		return
	}
	c.owns, c.err = owns, err
	close(c.changed)
	c.changed = make(chan struct{})
}

// failure returns why this process cannot run the store, and a channel that is closed when
// that changes.
func (c *candidate) failure() (changed <-chan struct{}, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed, cmp.Or(c.err, c.connectErr)
}

// setConnectError notes why this process may not connect to the store, or with nil that it
// may.
func (c *candidate) setConnectError(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connectErr = why
}

// owner returns the process that runs the store, and whether it is this one.
func (c *candidate) owner() (pid int, self bool) {
	c.mu.Lock()
	owns := c.owns
	c.mu.Unlock()
	if owns {
		return os.Getpid(), true
	}
	return readPID(c.dir.lock()), false
}

// stoppedOwner returns the owner if it is another process and stopped, and otherwise 0.
func (c *candidate) stoppedOwner() int {
	if pid, self := c.owner(); pid != 0 && !self && isStopped(pid) {
		return pid
	}
	return 0
}

// retryLock has the lock tried at once: the owner may have ended.
func (c *candidate) retryLock() {
	c.ownerMayBeGone.Store(true)
	select {
	case c.lockRequest <- struct{}{}:
	default:
	}
}

// dial connects to the owner. It waits while there is none, because gRPC would wait longer
// after a refusal.
func (c *candidate) dial(ctx context.Context, _ string) (net.Conn, error) {
	var conn net.Conn
	backoff := retry.Backoff{First: lockPollFirst, Max: lockPollMax / 10}
	err, interrupted := backoff.Do(ctx, c.ctx.Done(), func() (_ retry.Decision, err error) {
		if conn, err = c.dir.dial(ctx); err == nil {
			c.setConnectError(nil)
			return retry.Stop, nil
		}
		if errors.Is(err, fs.ErrPermission) { // waiting does not help
			c.setConnectError(storeError(c.dir, err))
		}
		changed, why := c.failure()
		if why != nil {
			return retry.Stop, why
		}
		c.retryLock()
		backoff.Wake = changed
		return retry.Later, err
	})
	switch {
	case interrupted != nil && ctx.Err() != nil:
		return nil, errors.Join(ctx.Err(), err)
	case interrupted != nil:
		return nil, coord.ErrClosed
	case err != nil:
		return nil, err
	}
	return &ownerConn{Conn: conn, onEnd: c.retryLock}, nil
}

// stop ends the goroutine, and closes the store if it runs here. It waits up to the limit:
// a disk may hang for ever, and the kernel frees the lock when the process ends.
func (c *candidate) stop(limit time.Duration) {
	c.cancel()
	select {
	case <-c.done:
	case <-time.After(limit):
		c.warn(fmt.Sprintf("the store in %s was not closed within %v: its disk may hang", c.dir.path, limit))
	}
}

// How long candidate.stop waits.
const (
	stopTimeout   = drainTimeout + 2*etcdStopTimeout // for a store that ran
	giveUpTimeout = time.Second                      // for one that did not start in time
)

// ownerConn is a connection to the owner. Its end is a sign that the owner may have ended.
type ownerConn struct {
	net.Conn
	onEnd func()
}

// Read reports the end of the connection.
func (c *ownerConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.onEnd()
	}
	return n, err
}

// withOwnerChecks runs f, and ends it early when the store will not be reachable soon: the
// owner is stopped, and has been for several checks, so that an owner which is continued at
// once is not reported; or this process was to run the store and cannot.
func (c *candidate) withOwnerChecks(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var timer *time.Timer
	var blamed, times int
	mu.Lock()
	timer = time.AfterFunc(checkEvery, func() {
		mu.Lock()
		defer mu.Unlock()
		if pid := c.stoppedOwner(); pid == 0 || pid != blamed {
			blamed, times = pid, 0
		} else if times++; times == stoppedChecks {
			cancel(&StoppedOwnerError{Dir: c.dir.path, PID: pid})
			return
		}
		if _, why := c.failure(); why != nil {
			cancel(&failureError{why})
			return
		}
		if ctx.Err() == nil {
			timer.Reset(checkEvery)
		}
	})
	mu.Unlock()
	err := f(ctx)
	timer.Stop()
	if err == nil {
		return nil
	}
	switch cause := context.Cause(ctx).(type) {
	case *StoppedOwnerError:
		return cause
	case *failureError:
		return cause.error
	}
	if !errors.Is(err, coord.ErrUnreachable) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if pid := c.stoppedOwner(); pid != 0 {
		return &StoppedOwnerError{Dir: c.dir.path, PID: pid}
	}
	if _, why := c.failure(); why != nil {
		return why
	}
	if pid, self := c.owner(); pid != 0 && !self && isAlive(pid) {
		err = fmt.Errorf("run by process %d: %w", pid, err)
	}
	return storeError(c.dir, err)
}

// An owner that is stopped in this many checks in a row is reported.
const (
	checkEvery    = 50 * time.Millisecond
	stoppedChecks = 4
)

// failureError tells a candidate's failure from the end of a caller's context.
type failureError struct{ error }

// awaitOwning returns when this process runs the store or cannot.
func (c *candidate) awaitOwning(ctx context.Context) error {
	for {
		changed, err := c.failure()
		if _, self := c.owner(); self || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
