package zkq

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// QueueConfig is the configuration that is stored with a queue. It holds for every process
// that uses the queue with zkq; kazoo's clients do not read it.
type QueueConfig struct {
	// MaxEntries is the highest allowed number of ready, held and delayed entries. A put
	// beyond it returns [ErrFull]. 0 means no bound.
	MaxEntries int

	// MaxSize is the highest allowed size of a value, in bytes. A larger one is refused with
	// [ErrTooLarge]. 0 means that only [MaxValue] bounds it.
	MaxSize int

	// Approximate makes a bound cheaper: puts do not wait for each other. Puts at the same
	// time may then exceed MaxEntries, by no more than they put. Otherwise handles that know
	// the bound never exceed it, and the service applies their puts one after the other.
	Approximate bool

	// Paused means that the queue hands out nothing: see [LockingQueue.Pause].
	Paused bool
}

// config is the content of a queue's configuration node, and what a commit needs to replace
// that node in the state in which it was read.
type config struct {
	layout.Config

	path   string      // of the node
	fence  coord.Fence // of the node as it was read
	exists bool        // the node does
}

// public returns the part of the configuration that users set.
func (c config) public() QueueConfig {
	return QueueConfig{c.MaxEntries, c.MaxSize, c.Approximate, c.Paused}
}

// configAge is how long a put may use a configuration that was read before.
const configAge = 10 * time.Second

// settings is what a handle knows of its queue's configuration, which is stored with the
// queue. A put may use a configuration that was read up to configAge ago. In a handle that
// takes, the mover watches for changes and reads the configuration after each. A pause that
// such a read finds ends the takes that wait.
//
// Reads are numbered in the order in which they begin. The answer to a read counts only if no
// later read has been answered, and nothing expired it: a slow answer never replaces a newer
// one.
type settings struct {
	*handle.Handle
	lanes lanes

	mu             sync.Mutex        // guards the fields below
	reading        handle.SharedCall // one goroutine reads the configuration, for all
	session        coord.Session     // in which current was read; nil: it must be read again
	readAt         time.Time         // when that read began
	current        config            // what that read returned
	readCount      int               // reads that have begun so far
	lastExpired    int               // the number of the last read that may be out of date
	isWatched      bool              // the mover watches for changes, so current is never old
	isTaking       bool              // the handle takes: each new session reads the configuration first
	changed        chan struct{}     // closed when the configuration has changed; nil: no goroutine waits
	pauseCallbacks map[int]func()    // called when the queue is paused
	callbackCount  int               // callbacks so far: it numbers them
}

// readConfig reads the configuration node. Without a node it returns a config that does not
// exist; a plain queue never has one. The error is [coord.ErrFormat] if this version cannot
// read the node's content.
func (st *settings) readConfig(ctx context.Context, s coord.Session) (config, error) {
	c := config{path: path.Join(st.Root, layout.ConfigNode)}
	if st.Taken == "" {
		return c, nil
	}
	n, err := s.Get(ctx, c.path)
	if errors.Is(err, coord.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	c.fence, c.exists = n.Fence, true
	var ok bool
	if c.Config, ok = layout.ParseConfig(n.Value); ok {
		return c, nil
	}
	return c, fmt.Errorf("%s holds %.60q, which is no configuration of this version: %w", c.path, n.Value, coord.ErrFormat)
}

// config returns the configuration as this handle knows it. It reads the configuration if the
// handle has not read it in this session, or if the last read is too old.
func (st *settings) config(ctx context.Context, s coord.Session) (config, error) {
	if st.Taken == "" {
		return config{}, nil
	}
	var now config
	err := st.readUntil(ctx, s, func(st *settings) bool {
		now = st.current
		return st.session == s && (st.isWatched || time.Since(st.readAt) < configAge)
	})
	return now, err
}

// readUntil reads the configuration until enough returns true, which it calls with mu held.
// Goroutines that need a read at the same time share one.
func (st *settings) readUntil(ctx context.Context, s coord.Session, enough func(*settings) bool) error {
	return st.reading.Until(ctx, st.Woke, func() bool { return enough(st) }, func() error {
		_, err := st.refreshConfig(ctx, s)
		return err
	})
}

// refreshConfig reads the configuration, stores it for this handle, and wakes the goroutines
// that wait for a change of it. Answers may overtake each other: if a later read was answered
// first, refreshConfig reads again.
func (st *settings) refreshConfig(ctx context.Context, s coord.Session) (config, error) {
	for {
		n, at := st.nextRead(), time.Now()
		c, err := st.readConfig(ctx, s)
		if err != nil || st.storeRead(s, n, at, c) {
			return c, err
		}
	}
}

// nextRead returns the number of a read that begins now.
func (st *settings) nextRead() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.readCount++
	return st.readCount
}

// storeRead stores what read n returned, which began at a time. It reports false, and stores
// nothing, if the answer may be out of date.
func (st *settings) storeRead(s coord.Session, n int, at time.Time, c config) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if n <= st.lastExpired {
		return false
	}
	if st.changed != nil && st.current.public() != c.public() {
		close(st.changed)
		st.changed = nil
	}
	st.session, st.readAt, st.current, st.lastExpired = s, at, c, n
	// A callback only cancels a context, so it may be called with mu held.
	if c.Paused {
		for _, f := range st.pauseCallbacks {
			f()
		}
	}
	return true
}

// onPause registers f. It is called with mu held whenever a read finds the queue paused,
// until the caller calls end.
func (st *settings) onPause(f func()) (end func()) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.pauseCallbacks == nil {
		st.pauseCallbacks = make(map[int]func())
	}
	st.callbackCount++
	n := st.callbackCount
	st.pauseCallbacks[n] = f
	return func() {
		st.mu.Lock()
		defer st.mu.Unlock()
		delete(st.pauseCallbacks, n)
	}
}

// followSession reads the configuration in each new session of a handle that takes, before the
// session is used. So a queue that was paused while the handle had no session hands out
// nothing in the new one.
func (st *settings) followSession(ctx context.Context, s coord.Session) error {
	err := st.readUntil(ctx, s, func(st *settings) bool { return !st.isTaking || st.session == s })
	if errors.Is(err, coord.ErrFormat) {
		return nil // a call that needs the configuration returns the error
	}
	return err
}

// startTaking notes that the handle takes. The first take reads the configuration anew,
// unless the mover watches: a pause must not be up to configAge late.
func (st *settings) startTaking() {
	st.mu.Lock()
	first := !st.isTaking
	st.isTaking = true
	st.mu.Unlock()
	if first {
		st.expireUnlessWatched()
	}
}

// expireUnlessWatched makes the next use of the configuration read it again, unless the mover
// watches for changes.
func (st *settings) expireUnlessWatched() {
	st.mu.Lock()
	kept := st.isWatched
	st.mu.Unlock()
	if !kept {
		st.expire()
	}
}

// expire makes the next use of the configuration read it again. Reads that are under way do
// not count.
func (st *settings) expire() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.session, st.lastExpired = nil, st.readCount
}

// setWatched stores whether the mover watches for changes.
func (st *settings) setWatched(yes bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.isWatched = yes
}

// changeSignal returns a channel that is closed when a read finds that the configuration has
// changed since the last one.
func (st *settings) changeSignal() <-chan struct{} {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.changed == nil {
		st.changed = make(chan struct{})
	}
	return st.changed
}

// changeConfig changes the configuration in one commit. It reads the configuration and calls
// change, which sets the new values, or returns errUnchanged if they are stored already. If
// another process changed the configuration meanwhile, it does both again.
//
// Handles that wait learn of the change at once. A watch does not report that a node was
// written, so the commit also creates a short-lived node among the workers, which they watch:
// the signal node.
//
// If an attempt got no answer and no later one shows that the change is stored, the error is
// [ErrUnknown].
func (st *settings) changeConfig(ctx context.Context, change func(*config) error) error {
	unknown := false // an attempt was not answered, in this session or an earlier one
	err := st.Do(ctx, func(ctx context.Context, s coord.Session) error {
		var signals []string // signal nodes that an attempt created, or may have created
		defer func() { st.removeSignals(ctx, s, signals) }()
		backoff := st.Backoff(actConfigure)
		err, interrupted := backoff.Do(ctx, s.Done(), func() (retry.Decision, error) {
			c, err := st.readConfig(ctx, s)
			if err != nil {
				return retry.Stop, err
			}
			if err := change(&c); err != nil {
				if errors.Is(err, errUnchanged) {
					st.expire()
					return retry.Stop, nil
				}
				return retry.Stop, err
			}
			sum := sha256.Sum256([]byte("news " + st.lanes.ID()))
			node := path.Join(st.Root, layout.WorkersDir, hex.EncodeToString(sum[:16]))
			err = st.writeConfig(ctx, s, c, node)
			if err == nil || errors.Is(err, coord.ErrUnknown) {
				signals = append(signals, node)
			}
			if err == nil {
				st.expire()
				backoff.Succeeded()
				return retry.Stop, nil
			}
			if !retry.IsRefused(err) && !errors.Is(err, coord.ErrUnknown) && !errors.Is(err, coord.ErrBusy) {
				return retry.Stop, err
			}
			unknown = unknown || errors.Is(err, coord.ErrUnknown)
			return retry.Later, err
		})
		if interrupted != nil {
			return retry.BusyUntil(interrupted, err)
		}
		return err
	})
	if unknown {
		return stillUnknown(err)
	}
	return err
}

// errUnchanged says that the wanted configuration is stored already.
var errUnchanged = errors.New("done")

// removeSignals removes signal nodes. They are ephemeral: a node that it cannot remove goes
// with the session.
func (st *settings) removeSignals(ctx context.Context, s coord.Session, signals []string) {
	for _, node := range signals {
		if n, err := s.Get(ctx, node); err == nil {
			s.Commit(ctx, coord.Delete(n.Path, n.Fence))
		}
	}
}

// writeConfig commits c in place of the node that was read, creates the signal node, and moves
// the fence of the count, by which puts keep an exact bound. The commit is refused if the
// configuration or the count has changed since it was read.
func (st *settings) writeConfig(ctx context.Context, s coord.Session, c config, signal string) error {
	value, err := c.Value()
	if err != nil {
		return err
	}
	ops := []coord.Op{coord.Create(c.path, value)}
	if c.exists {
		ops[0] = coord.Set(c.path, value, c.fence)
	}
	ops = append(ops, coord.CreateEphemeral(signal, []byte{}))
	// The count's fence moves, so that a put that read the former bound is refused.
	n, err := s.Get(ctx, path.Join(st.Root, layout.CountNode))
	switch {
	case err == nil:
		ops = append(ops, coord.Touch(n.Path, n.Value, n.Fence))
	case errors.Is(err, coord.ErrNotExist) && c.MaxEntries > 0 && !c.Approximate:
		ops = append(ops, coord.Create(path.Join(st.Root, layout.CountNode), []byte{}))
	case !errors.Is(err, coord.ErrNotExist):
		return err
	}
	_, err = s.Commit(ctx, ops...)
	return err
}

// ConfigError is the [ErrConfig] of [LockingQueue.Create]: the queue has the configuration
// Have, and the caller wanted to create Want.
type ConfigError struct{ Want, Have QueueConfig }

func (e *ConfigError) Error() string {
	return fmt.Sprintf("%v: it has %v; asked for: %v", ErrConfig, e.Have, e.Want)
}

// Is reports that a ConfigError is [ErrConfig].
func (e *ConfigError) Is(target error) bool { return target == ErrConfig }

// String describes the bounds in words. It says nothing about a pause.
func (c QueueConfig) String() string {
	text := "any number of entries"
	if c.MaxEntries > 0 {
		text = "at most " + counted(c.MaxEntries, "entry", "entries")
	}
	if c.Approximate {
		text += " (approximately)"
	}
	if c.MaxSize > 0 {
		text += ", values of at most " + counted(c.MaxSize, "byte", "bytes")
	}
	return text
}
