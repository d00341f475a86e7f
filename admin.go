package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// remove is [base.Remove].
func (rm *remover) remove(ctx context.Context, name string, force bool) error {
	_, _, dead := layout.ParseDead(name)
	err := checkEntryName(name)
	switch {
	case dead && rm.Taken != "":
		err = rm.removeBeside(ctx, layout.DeadDir, name)
	case rm.delayed.isLater(name):
		err = rm.removeBeside(ctx, layout.DelayedDir, name)
	case err == nil:
		err = rm.removeWhere(ctx, name, func(st State) bool { return force || st != StateHeld })
	}
	if err != nil {
		return fmt.Errorf("remove %s from %s: %w", name, rm.Root, err)
	}
	return nil
}

// removeWhere deletes an entry, and its lock if it has one, in a state that is
// allowed: the state it was read in, and no other. One that nobody holds is held
// first, so that it is not taken from a kazoo worker whose lock came in between.
func (rm *remover) removeWhere(ctx context.Context, name string, allowed func(State) bool) error {
	unknown := false // an attempt was not answered, in this session or an earlier one
	err := rm.Do(ctx, func(ctx context.Context, s coord.Session) error {
		return rm.removeIn(ctx, s, name, allowed, &unknown)
	})
	if unknown && !errors.Is(err, ErrHeld) {
		return stillUnknown(err)
	}
	return err
}

// remover removes entries by hand, whatever state they are in.
type remover struct {
	*handle.Handle
	delayed *delayedPuts
	expiry  *lifetimes
	finder  *finder
	history *histories
	inspect *inspector
	keys    *keys
	traces  *traces

	// removeReady removes an entry that nobody holds; nil in the plain layout, where
	// there is nothing to hold.
	removeReady func(context.Context, coord.Session, string) error

	// clearReady removes entries that have expired, as they were read; nil in the plain
	// layout, where none do.
	clearReady func(context.Context, coord.Session, []coord.Node) error
}

// stillUnknown is what is left of an error after an attempt without an answer.
func stillUnknown(err error) error {
	if err == nil || errors.Is(err, ErrUnknown) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// removeIn is removeWhere in one session.
func (rm *remover) removeIn(ctx context.Context, s coord.Session, name string, allowed func(State) bool, unknown *bool) error {
	for backoff := new(retry.Backoff); ; {
		n, err := getRestricted(ctx, s, path.Join(rm.Entries, name))
		if errors.Is(err, coord.ErrNotExist) {
			if *unknown {
				return nil
			}
			return ErrNoEntry
		}
		if err != nil {
			return err
		}
		ops := []coord.Op{coord.Delete(n.Path, n.Fence)}
		key, err := rm.keys.dropKey(ctx, s, n)
		if err != nil {
			return err
		}
		ops = append(ops, key...)
		state := StateReady
		if rm.Taken != "" {
			lk, err := getRestricted(ctx, s, path.Join(rm.Taken, name))
			switch {
			case err == nil:
				state = Entry{}.locked(lk).State
				ops = append(ops, coord.Delete(lk.Path, lk.Fence))
				a, err := rm.history.readHistory(ctx, s, name)
				if err != nil {
					return err
				}
				ops = append(ops, a.forget()...)
				index, err := rm.delayed.delayedIndex(ctx, s, lk)
				if err != nil {
					return err
				}
				ops = append(ops, index...)
			case !errors.Is(err, coord.ErrNotExist):
				return err
			}
		}
		if !allowed(state) {
			return ErrHeld
		}
		forced := allowed(StateReady) && allowed(StateHeld)
		if n.Unreadable && !forced {
			rm.finder.skipUnreadable(n)
			return errUnreadable
		}
		if state == StateHeld {
			ops = append(ops, rm.traces.leaveTrace(name))
		}
		if state == StateReady && rm.removeReady != nil && !n.Unreadable {
			err = rm.removeReady(ctx, s, name)
		} else {
			_, err = s.Commit(ctx, ops...)
		}
		switch {
		case err == nil:
			if state == StateHeld {
				rm.traces.sweepTraces(ctx, s)
			}
			return nil
		case errors.Is(err, coord.ErrUnknown):
			*unknown = true
		case !retry.IsRefused(err) && !errors.Is(err, errUnavailable) && !errors.Is(err, ErrLockLost):
			return err
		}
		// It changed, or nobody knows: look again.
		if err := backoff.Wait(ctx, s.Done(), nil); err != nil {
			return err
		}
	}
}

// Purge removes the entries that are in the state when it comes by, and returns
// how many it removed. Entries put meanwhile may stay. Holders of entries removed
// as [StateHeld] get [ErrLockLost]. The queue itself stays.
func (b *base) Purge(ctx context.Context, state State) (int, error) {
	removed := 0
	_, err := ParseState(string(state))
	if err != nil {
		return 0, fmt.Errorf("purge %s: %w", b.handle.Root, err)
	}
	if state == StateDead {
		removed, err = b.removal.purgeDead(ctx, 0)
	} else {
		err = b.handle.Do(ctx, func(ctx context.Context, s coord.Session) error {
			locks, err := b.inspect.locks(ctx, s)
			if err != nil {
				return err
			}
			var names []string
			err = b.inspect.eachName(ctx, s, func(name string) error {
				e := Entry{State: StateReady}
				if lk, ok := locks[name]; ok {
					e = e.locked(lk)
				}
				if e.State == state {
					names = append(names, name)
				}
				return nil
			})
			for _, name := range names {
				if err != nil {
					break
				}
				err = b.removal.removeWhere(ctx, name, func(now State) bool { return now == state })
				switch {
				case err == nil:
					removed++
				case errors.Is(err, ErrNoEntry), errors.Is(err, ErrHeld), errors.Is(err, errUnreadable):
					err = nil
				}
			}
			if err == nil && state == StateDelayed {
				var later int
				later, err = b.removal.purgeLater(ctx, s)
				removed += later
			}
			if err == nil && b.handle.Taken != "" {
				b.history.sweepHistories(ctx, s)
			}
			return err
		})
	}
	if err != nil {
		return removed, fmt.Errorf("purge %s: %w", b.handle.Root, err)
	}
	return removed, nil
}

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
	for backoff := new(retry.Backoff); ; {
		e, err := s.Get(ctx, path.Join(q.handle.Entries, name))
		if errors.Is(err, coord.ErrNotExist) {
			return ErrNoEntry
		}
		if err != nil {
			return err
		}
		l, err := s.Get(ctx, path.Join(q.handle.Taken, name))
		if errors.Is(err, coord.ErrNotExist) {
			if doubt.Path != "" {
				return nil
			}
			return ErrNotHeld
		}
		if err != nil {
			return err
		}
		if doubt.Path != "" && l.Revision != doubt.Revision {
			return nil
		}
		if lock.Read(l).Kind == lock.Aside {
			return fmt.Errorf("it is delayed: %w", ErrNotHeld)
		}
		// The entry's fence tells this holder from the next, whose lock may
		// look the same.
		_, err = s.Commit(ctx, coord.Check(e.Path, e.Fence), coord.Delete(l.Path, l.Fence), q.traces.leaveTrace(name))
		switch {
		case err == nil:
			q.traces.sweepTraces(ctx, s)
			return nil
		case errors.Is(err, coord.ErrUnknown):
			*doubt = l
		case !retry.IsRefused(err):
			return err
		}
		if err := backoff.Wait(ctx, s.Done(), nil); err != nil {
			return err
		}
	}
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
		l, err := s.List(ctx, dir, coord.ListOptions{After: after, Limit: namesPage})
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
