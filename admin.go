package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// BreakLock takes the entry from whoever holds it, at once: others can take it,
// and the holder's finish will say [ErrLockLost]. The holder hears of it within a
// second or so, but may be working still. [ErrNotHeld] if nobody holds it.
func (q *LockingQueue) BreakLock(ctx context.Context, name string) error {
	err := checkEntryName(name)
	if err == nil {
		var doubt coord.Node
		err = q.handle.Do(ctx, func(ctx context.Context, s coord.Session) error { return q.breakLock(ctx, s, name, &doubt) })
		if doubt.Path != "" && !errors.Is(err, ErrNoEntry) {
			err = stillUnknown(err)
		}
	}
	if err != nil {
		return fmt.Errorf("release %s of %s: %w", name, q.handle.Root, err)
	}
	return nil
}

// breakLock breaks the lock that is there. doubt is that of an attempt without an
// answer: when it is gone, the next holder's stays.
func (q *LockingQueue) breakLock(ctx context.Context, s coord.Session, name string, doubt *coord.Node) error {
	return repeat(ctx, s, func() (retry.Decision, error) {
		e, err := s.Get(ctx, path.Join(q.handle.Entries, name))
		if errors.Is(err, coord.ErrNotExist) {
			return retry.Stop, ErrNoEntry
		}
		if err != nil {
			return retry.Stop, err
		}
		l, err := s.Get(ctx, path.Join(q.handle.Taken, name))
		if errors.Is(err, coord.ErrNotExist) {
			if doubt.Path != "" {
				return retry.Stop, nil
			}
			return retry.Stop, ErrNotHeld
		}
		if err != nil {
			return retry.Stop, err
		}
		if doubt.Path != "" && l.Revision != doubt.Revision {
			return retry.Stop, nil
		}
		if lock.Read(l).Kind == lock.Aside {
			return retry.Stop, fmt.Errorf("it is delayed: %w", ErrNotHeld)
		}
		// The entry's fence tells this holder from the next, whose lock may
		// look the same.
		_, err = s.Commit(ctx, coord.Check(e.Path, e.Fence), coord.Delete(l.Path, l.Fence), q.traces.leaveTrace(name))
		switch {
		case err == nil:
			q.traces.sweepTraces(ctx, s)
			return retry.Stop, nil
		case errors.Is(err, coord.ErrUnknown):
			*doubt = l
		case !retry.IsRefused(err):
			return retry.Stop, err
		}
		return retry.Later, nil
	})
}

// Queues returns the names of all queues below the coordinator's prefix, in
// order: of both layouts, those that hold entries, or delayed ones; an emptied one may be named or
// not. It looks at every directory there is.
func Queues(ctx context.Context, c coord.Coordinator) ([]string, error) {
	if ctx == nil {
		return nil, fmt.Errorf("find queues: nil context: %w", ErrInvalid)
	}
	s, err := c.Session(ctx)
	if err != nil {
		return nil, err
	}
	queues, _, err := findQueues(ctx, s, "/")
	if err != nil {
		return nil, fmt.Errorf("find queues: %w", err)
	}
	return queues, nil
}

// findQueues are the queues at dir and below, in order. ours says that zkq made nodes in
// dir, as beside the entries of a queue.
func findQueues(ctx context.Context, s coord.Session, dir string) (queues []string, ours bool, err error) {
	found := false
	var below []string
	for after := ""; ; {
		l, err := s.List(ctx, dir, coord.ListOptions{After: after, Limit: handle.NamesPage})
		if err != nil {
			return nil, false, err
		}
		for _, n := range l.Nodes {
			name := path.Base(n.Path)
			after = name
			if _, entry := priority.Parse(name); entry || name == layout.EntriesDir {
				found = true
			} else if layout.IsOwn(path.Base(dir), name) {
				ours = true
			} else if _, err := CheckName(n.Path + "/x"); err == nil {
				below = append(below, n.Path)
			}
		}
		if !l.More {
			break
		}
	}
	for _, d := range below {
		more, inUse, err := findQueues(ctx, s, d)
		if err != nil {
			return nil, false, err
		}
		base := path.Base(d)
		found = found || inUse && (base == layout.WorkersDir || base == layout.DelayedDir)
		queues = append(queues, more...)
	}
	if _, err := CheckName(dir); found && err == nil {
		queues = append([]string{dir}, queues...)
	}
	return queues, ours, nil
}

// Create stores a configuration with the queue, before or after its first entry. It is no
// error where the same stands already; where another does, the error is a
// [*ConfigError] and that stands. What a handle has heard of it before, it goes by for
// some seconds. The queue stays paused if it is.
func (q *LockingQueue) Create(ctx context.Context, c QueueConfig) error {
	return q.configure(ctx, "create", c, false)
}

// Configure is Create, but puts the configuration in the place of another. After an
// [ErrUnknown] of either it may stand, or may still.
func (q *LockingQueue) Configure(ctx context.Context, c QueueConfig) error {
	return q.configure(ctx, "configure", c, true)
}

func (q *LockingQueue) configure(ctx context.Context, act string, want QueueConfig, replace bool) error {
	if want.MaxEntries < 0 || want.MaxSize < 0 || want.MaxSize > MaxValue {
		return fmt.Errorf("%s %s: MaxEntries %d, MaxSize %d: allowed are 0 and more, and a MaxSize of up to %d bytes: %w",
			act, q.handle.Root, want.MaxEntries, want.MaxSize, MaxValue, ErrInvalid)
	}
	err := q.settings.changeConfig(ctx, func(c *config) error {
		have := c.public()
		have.Paused = want.Paused
		switch {
		case have == want && c.there && (c.Paused || !want.Paused):
			return errUnchanged
		case have != want && have != (QueueConfig{Paused: want.Paused}) && !replace:
			return &ConfigError{Want: want, Have: c.public()}
		}
		c.MaxEntries, c.MaxSize, c.Approximate, c.Paused = want.MaxEntries, want.MaxSize, want.Approximate, c.Paused || want.Paused
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", act, q.handle.Root, err)
	}
	return nil
}

// Config returns what is stored with the queue, the zero value if nothing is.
func (q *LockingQueue) Config(ctx context.Context) (QueueConfig, error) {
	var c config
	err := q.handle.Do(ctx, func(ctx context.Context, s coord.Session) (err error) {
		c, err = q.settings.refreshConfig(ctx, s)
		return err
	})
	if err != nil {
		return QueueConfig{}, fmt.Errorf("configuration of %s: %w", q.handle.Root, err)
	}
	return c.public(), nil
}

// Requeue makes a dead entry ready again, behind those that are there and of its
// priority, as one that was never delivered. name is what Entries calls it, or what
// it was called before it died; the result is its new name, as [LockingQueue.Put]
// tells it: no name is given twice. [ErrNoEntry]: no dead entry has that name. It
// becomes one entry, or none, whatever answers are lost. It stands for no unique key any
// more, and does not expire. Errors are those of Put.
func (q *LockingQueue) Requeue(ctx context.Context, name string) (string, error) {
	_, _, dead := layout.ParseDead(name)
	if !dead {
		if err := checkEntryName(name); err != nil {
			return "", fmt.Errorf("requeue in %s: %w", q.handle.Root, err)
		}
	}
	for {
		var ops []coord.Op
		err := q.handle.Do(ctx, func(ctx context.Context, s coord.Session) (err error) {
			ops, err = q.rising(ctx, s, name)
			return err
		})
		var ready string
		if err == nil {
			err = q.handle.Bounded(ctx, func(ctx context.Context) (err error) {
				ready, err = q.rise(ctx, ops)
				return err
			})
		}
		switch {
		case err == nil:
			return ready, nil
		case !retry.IsRefused(err): // otherwise somebody else has it
			return "", fmt.Errorf("requeue %s in %s: %w", name, q.handle.Root, err)
		}
	}
}

// rising are the ops that make a dead entry ready.
func (q *LockingQueue) rising(ctx context.Context, s coord.Session, name string) ([]coord.Op, error) {
	at, err := q.dead.findDead(ctx, s, name)
	if err != nil {
		return nil, err
	}
	n, err := s.Get(ctx, at)
	if errors.Is(err, coord.ErrNotExist) {
		return nil, ErrNoEntry
	}
	if err != nil {
		return nil, err
	}
	_, parsed, _ := layout.ParseDead(path.Base(at))
	_, guard, err := q.puts.room(ctx, s, demand{entries: 1})
	if err != nil {
		return nil, err
	}
	_, body := layout.Unwrap(n.Value)
	ops := []coord.Op{
		coord.Delete(at, n.Fence),
		coord.CreateSequential(path.Join(q.handle.Entries, priority.Prefix(parsed.Priority)), layout.Requeued(body)),
	}
	return append(ops, guard...), nil
}

// rise commits them, once, and returns the entry's name.
func (q *LockingQueue) rise(ctx context.Context, ops []coord.Op) (string, error) {
	done, err := q.lanes.once(ctx, nil, ops)
	switch {
	case err != nil:
		return "", err
	case done.Results != nil:
		return path.Base(done.Results[1].Path), nil
	}
	return strings.Join(q.puts.namesOf(ctx, done.Revision, ops[1:2]), ""), nil
}

// PurgeDead removes the dead entries but for those that died last, keep of them, and
// returns how many it removed.
func (q *LockingQueue) PurgeDead(ctx context.Context, keep int) (int, error) {
	if keep < 0 {
		return 0, fmt.Errorf("purge %s: keep %d: allowed are 0 and more: %w", q.handle.Root, keep, ErrInvalid)
	}
	n, err := q.removal.purgeDead(ctx, keep)
	if err != nil {
		return n, fmt.Errorf("purge %s: %w", q.handle.Root, err)
	}
	return n, nil
}

// errPaused is ErrPaused, which is an ErrEmpty.
type errPaused struct{}

func (errPaused) Error() string        { return "zkq: queue is paused" }
func (errPaused) Is(target error) bool { return target == ErrEmpty }

// ErrPaused: nothing is handed out until somebody calls [LockingQueue.Resume]. It is an
// [ErrEmpty] too: nothing is there to be taken now.
var ErrPaused error = errPaused{}

// pauser has takes wait while the queue is paused. The pause is stored in the queue's
// configuration, so it holds for takes of every process.
type pauser struct {
	*handle.Handle
	settings  *settings
	log       Logger      // may be nil
	isWaiting atomic.Bool // a take waits for the end of a pause, and the log was told
}

// set pauses or resumes the queue.
func (p *pauser) set(ctx context.Context, act string, paused bool) error {
	err := p.settings.changeConfig(ctx, func(c *config) error {
		if c.Paused == paused {
			return errUnchanged
		}
		c.Paused = paused
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", act, p.Root, err)
	}
	return nil
}

// isPaused reports whether the queue is paused, by what this handle has heard last.
func (p *pauser) isPaused(ctx context.Context) (paused bool, err error) {
	err = p.Do(ctx, func(ctx context.Context, s coord.Session) error {
		c, err := p.settings.config(ctx, s)
		paused = c.Paused
		return err
	})
	return paused, err
}

// whileRunning runs take while the queue is not paused. A pause ends a take that waits, as the
// take's caller could end it, and the take begins again afterwards.
func (p *pauser) whileRunning(ctx context.Context, take func(context.Context) error) error {
	if ctx == nil {
		return fmt.Errorf("nil context: %w", ErrInvalid)
	}
	p.settings.startTaking()
	for {
		next := p.settings.changeSignal() // before the configuration is read
		paused, err := p.isPaused(ctx)
		if err != nil {
			return err
		}
		p.logWaiting(paused)
		if paused {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-p.Life.Done():
				return ErrClosed
			case <-next:
			}
			continue
		}
		taking, stop := context.WithCancelCause(ctx)
		ended := p.settings.onPause(func() { stop(ErrPaused) })
		err = take(taking)
		ended()
		stop(nil)
		if err == nil || ctx.Err() != nil || !errors.Is(context.Cause(taking), ErrPaused) {
			return err
		}
	}
}

// logWaiting logs once when takes begin to wait for the end of a pause, and once when they go
// on.
func (p *pauser) logWaiting(paused bool) {
	if p.log == nil || p.isWaiting.Swap(paused) == paused {
		return
	}
	if paused {
		p.log.Warn("queue is paused: nothing is handed out until it is resumed", "queue", p.Root)
	} else {
		p.log.Info("queue is resumed", "queue", p.Root)
	}
}
