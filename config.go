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

// QueueConfig is what is stored with a queue, for all who use it.
type QueueConfig struct {
	// MaxEntries bounds the entries that are ready, held or delayed; 0 is no bound.
	MaxEntries int
	// MaxSize bounds each value, in bytes; 0 is no bound but [MaxValue].
	MaxSize int
	// Approximate lets puts that happen at once each count for itself: they may
	// exceed MaxEntries, by no more than they put. An exact bound is never exceeded
	// by handles that know that there is one, and lets one put through at a time.
	Approximate bool
	// Paused says that nothing is handed out: see [LockingQueue.Pause].
	Paused bool
}

// config is what a queue's configuration node holds, and where it stands.
type config struct {
	layout.Config

	path  string
	fence coord.Fence
	there bool
}

func (c config) public() QueueConfig {
	return QueueConfig{c.MaxEntries, c.MaxSize, c.Approximate, c.Paused}
}

// configAge is how old the configuration may be that a put goes by.
const configAge = 10 * time.Second

// settings is what a handle knows of its queue's configuration, which is stored with the queue.
// A put may go by a configuration that was read up to configAge ago; a mover watches for
// changes, and then what is known is never old. A pause ends the takes that wait.
type settings struct {
	*handle.Handle
	lanes lanes

	mu             sync.Mutex        // guards the fields below
	reading        handle.SharedCall // one goroutine reads the configuration, for all
	session        coord.Session     // in which current was read; nil: it must be read again
	readAt         time.Time         // when that read began
	current        config
	readCount      int            // reads that have begun so far
	lastExpired    int            // the number of the last read that may be out of date
	isWatched      bool           // the mover watches for changes, so current is never old
	isTaking       bool           // the handle takes: each new session reads the configuration first
	changed        chan struct{}  // closed when the configuration has changed; nil: nobody waits
	pauseCallbacks map[int]func() // called when the queue is paused
	callbackCount  int            // callbacks so far: it numbers them
}

// readConfig reads the configuration; there is none in a plain queue.
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
	c.fence, c.there = n.Fence, true
	var ok bool
	if c.Config, ok = layout.ParseConfig(n.Value); ok {
		return c, nil
	}
	return c, fmt.Errorf("%s holds %.60q, which is no configuration of this version: %w", c.path, n.Value, coord.ErrFormat)
}

// config is what was read of the configuration: in this session, and not too long ago.
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

// readUntil reads the configuration until what is known will do.
func (st *settings) readUntil(ctx context.Context, s coord.Session, enough func(*settings) bool) error {
	return st.reading.Until(ctx, st.Woke, func() bool { return enough(st) }, func() error {
		_, err := st.refreshConfig(ctx, s)
		return err
	})
}

// refreshConfig reads the configuration, and wakes the goroutines that wait for a change of it.
// Answers may overtake each other: one that comes after the answer to a later read is read
// again.
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
	if c.Paused {
		for _, f := range st.pauseCallbacks { // each ends a take of its own
			f()
		}
	}
	return true
}

// onPause has f called when the queue turns out to be paused, until end is called.
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

// followSession reads the configuration in a new session of a handle that takes: what was paused
// while the last one was lost is not handed out in this one.
func (st *settings) followSession(ctx context.Context, s coord.Session) error {
	err := st.readUntil(ctx, s, func(st *settings) bool { return !st.isTaking || st.session == s })
	if errors.Is(err, coord.ErrFormat) {
		return nil // a call that needs the configuration returns the error
	}
	return err
}

// startTaking notes that the handle takes. It forgets what was read before, unless the mover
// watches.
func (st *settings) startTaking() {
	st.mu.Lock()
	first := !st.isTaking
	st.isTaking = true
	st.mu.Unlock()
	if first {
		st.expireUnlessWatched()
	}
}

// expireUnlessWatched has the configuration read again before it is used, unless the mover
// watches for changes.
func (st *settings) expireUnlessWatched() {
	st.mu.Lock()
	kept := st.isWatched
	st.mu.Unlock()
	if !kept {
		st.expire()
	}
}

// expire has the configuration read again before it is used.
func (st *settings) expire() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.session, st.lastExpired = nil, st.readCount
}

// setWatched says whether the mover watches for changes.
func (st *settings) setWatched(yes bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.isWatched = yes
}

// changeSignal returns a channel that is closed when the configuration has changed.
func (st *settings) changeSignal() <-chan struct{} {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.changed == nil {
		st.changed = make(chan struct{})
	}
	return st.changed
}

// changeConfig changes the configuration in one commit, and again if another process changed
// it meanwhile. change sets the new values, or returns errUnchanged where they stand already.
// Handles that wait hear of the change at once: a watch does not tell that a node was written,
// so the commit creates a short-lived node among the workers, which they watch.
func (st *settings) changeConfig(ctx context.Context, change func(*config) error) error {
	unknown := false // an attempt was not answered, in this session or an earlier one
	err := st.Do(ctx, func(ctx context.Context, s coord.Session) error {
		var news []string // of attempts without an answer
		defer func() { st.dropNews(ctx, s, news) }()
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
				news = append(news, node)
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

// errUnchanged says that the configuration is what it is to be.
var errUnchanged = errors.New("done")

// dropNews removes what woke those who wait, or leaves it to the session.
func (st *settings) dropNews(ctx context.Context, s coord.Session, news []string) {
	for _, node := range news {
		if n, err := s.Get(ctx, node); err == nil {
			s.Commit(ctx, coord.Delete(n.Path, n.Fence))
		}
	}
}

func (st *settings) writeConfig(ctx context.Context, s coord.Session, c config, news string) error {
	value, err := c.Value()
	if err != nil {
		return err
	}
	ops := []coord.Op{coord.Create(c.path, value)}
	if c.there {
		ops[0] = coord.Set(c.path, value, c.fence)
	}
	ops = append(ops, coord.CreateEphemeral(news, []byte{}))
	// A put that was built with the old bounds is refused.
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

// ConfigError is an [ErrConfig]: the queue has another configuration than was asked for.
type ConfigError struct{ Want, Have QueueConfig }

func (e *ConfigError) Error() string {
	return fmt.Sprintf("%v: it has %v; asked for: %v", ErrConfig, e.Have, e.Want)
}

// Is reports that a ConfigError is [ErrConfig].
func (e *ConfigError) Is(target error) bool { return target == ErrConfig }

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
