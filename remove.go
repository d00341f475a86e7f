package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/priority"
)

// remover removes entries for an operator, in whatever state they are: ready, held, delayed
// or dead. It never takes an entry from a holder by accident: it claims a ready entry before
// it removes it. Where it removes a held entry on purpose, it leaves a trace.
type remover struct {
	*handle.Handle
	delayed *delayedPuts
	expiry  *lifetimes
	finder  *finder
	history *histories
	inspect *inspector
	keys    *keys
	traces  *traces

	// removeReady claims and removes an entry that no process holds; nil in the plain
	// layout, which has no locks.
	removeReady func(context.Context, coord.Session, string) error

	// clearReady removes expired entries if they are unchanged since they were read; nil in
	// the plain layout, where entries do not expire.
	clearReady func(context.Context, coord.Session, []coord.Node) error
}

// remove removes the entry, dead entry or delayed put of that name, as [base.Remove] says.
// [ErrNoEntry]: there is none. [ErrHeld]: a process holds it, and force is false.
func (rm *remover) remove(ctx context.Context, name string, force bool) error {
	_, _, dead := layout.ParseDead(name)
	err := checkEntryName(name)
	switch {
	case dead && rm.Taken != "":
		err = rm.removeFromDir(ctx, layout.DeadDir, name)
	case rm.delayed.isDelayedPut(name):
		err = rm.removeFromDir(ctx, layout.DelayedDir, name)
	case err == nil:
		err = rm.removeWhere(ctx, name, func(st State) bool { return force || st != StateHeld })
	}
	if err != nil {
		return fmt.Errorf("remove %s from %s: %w", name, rm.Root, err)
	}
	return nil
}

// removeWhere removes an entry, with its lock if it has one, if the entry's state is allowed;
// otherwise it returns [ErrHeld]. The commit is refused if the state changes in between. A
// ready entry is claimed first: kazoo's lock does not change the entry's node, so a plain
// removal would not notice it.
func (rm *remover) removeWhere(ctx context.Context, name string, allowed func(State) bool) error {
	unknown := false // an attempt was not answered, in this session or an earlier one
	err := rm.Do(ctx, func(ctx context.Context, s coord.Session) error {
		return rm.removeInSession(ctx, s, name, allowed, &unknown)
	})
	if unknown && !errors.Is(err, ErrHeld) {
		return stillUnknown(err)
	}
	return err
}

// removeInSession is removeWhere in session s. It tries again while other processes change the
// entry. It sets *unknown when an attempt got no answer: the entry's absence then counts as
// success.
func (rm *remover) removeInSession(ctx context.Context, s coord.Session, name string, allowed func(State) bool, unknown *bool) error {
	return repeat(ctx, s, func() (retry.Decision, error) {
		n, err := getRestricted(ctx, s, path.Join(rm.Entries, name))
		if errors.Is(err, coord.ErrNotExist) {
			if *unknown {
				return retry.Stop, nil
			}
			return retry.Stop, ErrNoEntry
		}
		if err != nil {
			return retry.Stop, err
		}
		ops, state, err := rm.removalOf(ctx, s, name, n)
		if err != nil {
			return retry.Stop, err
		}
		if !allowed(state) {
			return retry.Stop, ErrHeld
		}
		forced := allowed(StateReady) && allowed(StateHeld)
		if n.Unreadable && !forced {
			rm.finder.skipUnreadable(n)
			return retry.Stop, errUnreadable
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
			return retry.Stop, nil
		case errors.Is(err, coord.ErrUnknown):
			*unknown = true
		case !retry.IsRefused(err) && !errors.Is(err, errUnavailable) && !errors.Is(err, ErrLockLost):
			return retry.Stop, err
		}
		// The entry has changed, or the outcome is unknown: the next attempt reads it again.
		return retry.Later, nil
	})
}

// removalOf returns the ops that remove the entry n if it is unchanged, and the entry's state.
// The ops also remove what belongs to the entry: its lock, unique key, history and the index
// of a resting entry.
func (rm *remover) removalOf(ctx context.Context, s coord.Session, name string, n coord.Node) ([]coord.Op, State, error) {
	ops := []coord.Op{coord.Delete(n.Path, n.Fence)}
	key, err := rm.keys.dropKey(ctx, s, n)
	if err != nil || rm.Taken == "" {
		return append(ops, key...), StateReady, err
	}
	ops = append(ops, key...)
	lk, err := getRestricted(ctx, s, path.Join(rm.Taken, name))
	if errors.Is(err, coord.ErrNotExist) {
		return ops, StateReady, nil
	}
	if err != nil {
		return nil, "", err
	}
	past, err := rm.history.readHistory(ctx, s, name)
	if err != nil {
		return nil, "", err
	}
	index, err := rm.delayed.indexOps(ctx, s, lk)
	if err != nil {
		return nil, "", err
	}
	ops = append(append(ops, coord.Delete(lk.Path, lk.Fence)), past.removeOps()...)
	return append(ops, index...), Entry{}.locked(lk).State, nil
}

// repeat makes attempts, with pauses, until one decides to stop or the session ends. It returns
// the last attempt's error, or why no other attempt was made.
func repeat(ctx context.Context, s coord.Session, attempt func() (retry.Decision, error)) error {
	var backoff retry.Backoff
	err, interrupted := backoff.Do(ctx, s.Done(), attempt)
	if interrupted != nil {
		return interrupted
	}
	return err
}

// stillUnknown returns the error of an operation of which an earlier attempt got no answer.
// That attempt may have been applied, so any error becomes an [ErrUnknown].
func stillUnknown(err error) error {
	if err == nil || errors.Is(err, ErrUnknown) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// removeFromDir removes a dead entry or a delayed put, and its unique key. dir is the directory
// of dead entries or of delayed ones. [ErrNoEntry]: the entry is not there.
func (rm *remover) removeFromDir(ctx context.Context, dir, name string) error {
	unknown := false // an attempt was not answered, in this session or an earlier one
	err := rm.Do(ctx, func(ctx context.Context, s coord.Session) error {
		return rm.removeFromDirInSession(ctx, s, dir, name, &unknown)
	})
	if unknown {
		return stillUnknown(err)
	}
	return err
}

// removeFromDirInSession is removeFromDir in session s. It sets *unknown when an attempt got
// no answer: the node's absence then counts as success.
func (rm *remover) removeFromDirInSession(ctx context.Context, s coord.Session, dir, name string, unknown *bool) error {
	return repeat(ctx, s, func() (retry.Decision, error) {
		n, err := s.Get(ctx, path.Join(rm.Root, dir, name))
		switch {
		case errors.Is(err, coord.ErrNotExist) && *unknown:
			return retry.Stop, nil
		case errors.Is(err, coord.ErrNotExist):
			return retry.Stop, ErrNoEntry
		case err != nil:
			return retry.Stop, err
		}
		key, err := rm.keys.dropKey(ctx, s, n)
		if err != nil {
			return retry.Stop, err
		}
		_, err = s.Commit(ctx, append(key, coord.Delete(n.Path, n.Fence))...)
		switch {
		case err == nil:
			return retry.Stop, nil
		case errors.Is(err, coord.ErrUnknown):
			*unknown = true
		case !retry.IsRefused(err):
			return retry.Stop, err
		}
		return retry.Later, nil
	})
}

// purgeDead removes all dead entries but the newest, of which it keeps as many as keep says. It
// returns how many it removed. Entries that other processes remove meanwhile do not count.
func (rm *remover) purgeDead(ctx context.Context, keep int) (int, error) {
	var names []string // the oldest first
	err := rm.Do(ctx, func(ctx context.Context, s coord.Session) error {
		names = nil
		for after := ""; ; {
			l, err := s.List(ctx, path.Join(rm.Root, layout.DeadDir), coord.ListOptions{After: after, Limit: handle.NamesPage, Fresh: true})
			if err != nil {
				return err
			}
			for _, n := range l.Nodes {
				after = path.Base(n.Path)
				if _, _, ok := layout.ParseDead(after); ok {
					names = append(names, after)
				}
			}
			if !l.More {
				return nil
			}
		}
	})
	removed := 0
	for _, name := range names[:max(len(names)-keep, 0)] {
		if err != nil {
			break
		}
		if err = rm.removeFromDir(ctx, layout.DeadDir, name); err == nil {
			removed++
		} else if errors.Is(err, ErrNoEntry) {
			err = nil
		}
	}
	return removed, err
}

// purgeLater removes the delayed puts, and returns how many it removed.
func (rm *remover) purgeLater(ctx context.Context, s coord.Session) (removed int, err error) {
	var names []string
	err = rm.delayed.walkNames(ctx, s, func(name string) error { names = append(names, name); return nil })
	for _, name := range names {
		if err != nil {
			break
		}
		if err = rm.removeFromDir(ctx, layout.DelayedDir, name); err == nil {
			removed++
		} else if errors.Is(err, ErrNoEntry) {
			err = nil
		}
	}
	return removed, err
}

// removeExpired removes the expired entries that no process holds, delayed puts included. next
// is when to look again: when the next entry expires, or soon if an expired one is held. It is
// zero if no entry has a time to live.
func (rm *remover) removeExpired(ctx context.Context, s coord.Session) (next time.Time, err error) {
	locks, err := rm.inspect.locks(ctx, s)
	if err != nil {
		return next, err
	}
	var ready []coord.Node
	var delayed []string // resting entries and delayed puts, which are removed one by one
	err = rm.expiry.eachLifetime(ctx, s, locks, func(l lifetime) error {
		switch {
		case l.expires.IsZero():
		case l.isHeld && expired(l.expires):
			next = earlier(next, time.Now().Add(lookAtHeld))
		case !l.hasExpired():
			next = earlier(next, l.expires)
		case l.isDelayed:
			delayed = append(delayed, l.name)
		default:
			ready = append(ready, l.node)
		}
		return nil
	})
	if err == nil {
		err = rm.delayed.walk(ctx, func(e Entry) bool {
			switch {
			case e.expired():
				delayed = append(delayed, e.Name)
			case !e.Expires.IsZero():
				next = earlier(next, e.Expires)
			}
			return true
		})
	}
	if len(ready) > 0 && err == nil {
		err = rm.clearReady(ctx, s, ready)
	}
	for _, name := range delayed {
		if err != nil {
			break
		}
		if err = rm.remove(ctx, name, false); errors.Is(err, ErrNoEntry) || errors.Is(err, ErrHeld) {
			err = nil
		}
	}
	return next, err
}

// keepBroken is how long traces are kept: longer than the outcome of any finish is unknown.
const keepBroken = 24 * time.Hour

// traces records which entries an operator took from their holders. Suppose a finish got no
// answer and the entry is gone. Without a trace, the holder would conclude that its finish was
// applied. A trace is a node in layout.BrokenDir, named by its time and the entry.
type traces struct{ *handle.Handle }

// leaveTrace returns the op that leaves a trace, for the commit that takes an entry from its
// holder.
func (tr *traces) leaveTrace(name string) coord.Op {
	return coord.Create(path.Join(tr.Root, layout.BrokenDir, layout.BrokenName(time.Now(), name)), []byte{})
}

// wasBroken reports whether an operator took the entry from a holder after a revision.
func (tr *traces) wasBroken(ctx context.Context, s coord.Session, name string, after int64) (bool, error) {
	l, err := s.List(ctx, path.Join(tr.Root, layout.BrokenDir), coord.ListOptions{Fresh: true})
	if err != nil {
		return false, err
	}
	for _, n := range l.Nodes {
		if _, of, ok := strings.Cut(path.Base(n.Path), "-"); !ok || of != name {
			continue
		}
		trace, err := s.Get(ctx, n.Path)
		if errors.Is(err, coord.ErrNotExist) {
			continue // swept by another process: too old to matter here
		}
		if err != nil || trace.Revision > after {
			return err == nil, err
		}
	}
	return false, nil
}

// sweepTraces removes the traces that are older than keepBroken. A process that has left a
// trace calls it. After an error, the next such process removes the rest.
func (tr *traces) sweepTraces(ctx context.Context, s coord.Session) {
	l, err := s.List(ctx, path.Join(tr.Root, layout.BrokenDir), coord.ListOptions{Values: true, Limit: handle.NamesPage})
	if err != nil {
		return
	}
	for _, n := range l.Nodes {
		ms, of, ok := layout.CutMillis(path.Base(n.Path))
		if _, entry := priority.Parse(of); !ok || !entry || time.Since(time.UnixMilli(ms)) < keepBroken {
			continue
		}
		if _, err := s.Commit(ctx, coord.Delete(n.Path, n.Fence)); err != nil && !retry.IsRefused(err) {
			return
		}
	}
}
