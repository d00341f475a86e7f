package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/bulk"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/lock"
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

	bulk bulkSize

	// removeReady claims and removes an entry that no process holds; nil in the plain
	// layout, which has no locks.
	removeReady func(context.Context, coord.Session, string) error

	// removeAllReady does the same for entries as they were read, many in a commit. It returns
	// the names of those that it removed.
	removeAllReady func(context.Context, coord.Session, []coord.Node) ([]string, error)

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
		err = rm.removeFromDir(ctx, layout.DeadDir, name, false)
	case rm.delayed.isDelayedPut(name):
		err = rm.removeFromDir(ctx, layout.DelayedDir, name, false)
	case err == nil:
		err = rm.removeWhere(ctx, name, false, unlessHeld(force))
	}
	if err != nil {
		return fmt.Errorf("remove %s from %s: %w", name, rm.Root, err)
	}
	return nil
}

// unlessHeld returns which states of an entry allow its removal: all with force, otherwise all but
// that of a held one.
func unlessHeld(force bool) func(State) bool {
	return func(st State) bool { return force || st != StateHeld }
}

// removeWhere removes an entry, with its lock if it has one, if the entry's state is allowed;
// otherwise it returns [ErrHeld]. The commit is refused if the state changes in between. A
// ready entry is claimed first: kazoo's lock does not change the entry's node, so a plain
// removal would not notice it. unknown says that an earlier attempt got no answer.
func (rm *remover) removeWhere(ctx context.Context, name string, unknown bool, allowed func(State) bool) error {
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
		removals, err := rm.removalsOf(ctx, []coord.Node{n}, readFresh(s))
		if err != nil {
			return retry.Stop, err
		}
		ops, state := removals[0].ops, removals[0].state
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

// entryRemoval is how one entry is removed.
type entryRemoval struct {
	ops   []coord.Op // remove the entry, and its lock, unique key, history and index, if all are unchanged
	state State      // of the entry
}

// removalsOf returns the removals of entries that were read. read reads the nodes that belong to
// them: s.Read, or readFresh. A removal deletes the entry's lock at its fence, and the history is
// read after the lock. So if the lock is unchanged, the history is, too.
func (rm *remover) removalsOf(ctx context.Context, entries []coord.Node, read readFunc) ([]entryRemoval, error) {
	removals, names := make([]entryRemoval, len(entries)), make([]string, len(entries))
	for i, n := range entries {
		removals[i] = entryRemoval{[]coord.Op{coord.Delete(n.Path, n.Fence)}, StateReady}
		names[i] = path.Base(n.Path)
	}
	keys, err := rm.keys.dropKeys(ctx, entries, read)
	if err != nil {
		return nil, err
	}
	for i, ops := range keys {
		removals[i].ops = append(removals[i].ops, ops...)
	}
	if rm.Taken == "" {
		return removals, nil
	}
	locks, err := readWhere(ctx, read, names, func(_ int, name string) string { return path.Join(rm.Taken, name) })
	if err != nil {
		return nil, err
	}
	isLocked := func(i int) bool { return locks[i].Path != "" }
	past, err := readWhere(ctx, read, names, func(i int, name string) string {
		if !isLocked(i) {
			return ""
		}
		return path.Join(rm.Root, layout.HistoryDir, name)
	})
	if err != nil {
		return nil, err
	}
	index, err := readWhere(ctx, read, names, func(i int, name string) string {
		st := lock.Read(locks[i])
		if !isLocked(i) || st.Kind != lock.Resting {
			return ""
		}
		return path.Join(rm.Root, layout.DelayedDir, layout.DelayedName(st.Due, name))
	})
	if err != nil {
		return nil, err
	}
	for i := range removals {
		if isLocked(i) {
			removals[i].state = Entry{}.locked(locks[i]).State
		}
		for _, n := range []coord.Node{locks[i], past[i], index[i]} {
			if n.Path != "" {
				removals[i].ops = append(removals[i].ops, coord.Delete(n.Path, n.Fence))
			}
		}
	}
	return removals, nil
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
// of dead entries or of delayed ones. unknown says that an earlier attempt got no answer.
// [ErrNoEntry]: the entry is not there.
func (rm *remover) removeFromDir(ctx context.Context, dir, name string, unknown bool) error {
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
		key, err := rm.keys.dropKeys(ctx, []coord.Node{n}, readFresh(s))
		if err != nil {
			return retry.Stop, err
		}
		_, err = s.Commit(ctx, append(key[0], coord.Delete(n.Path, n.Fence))...)
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

// partOutcome is what a change of one entry came to.
type partOutcome[R any] struct {
	value R
	err   error
}

// manyInParts makes a change of many entries in parts, and yields the outcome of each, in the order
// of the names. An error that is not about one entry begins no other part. After what the parts
// under way came to it yields each entry whose outcome is unknown, and then the first other error.
// do returns an outcome for each name of a part.
func manyInParts[R any](b bulkSize, names []string, do func(part []string) []partOutcome[R], yield func(R, error) bool) {
	var hasFailed atomic.Bool
	var unknown, failed []partOutcome[R]
	for part := range inParts(b, names, func(part []string) []partOutcome[R] {
		if hasFailed.Load() {
			return nil
		}
		return do(part)
	}) {
		for _, o := range part {
			isOfEntry := o.err == nil || !errors.Is(o.err, ErrUnknown) && (errors.Is(o.err, ErrNoEntry) || errors.Is(o.err, ErrHeld))
			switch {
			case isOfEntry:
				if !yield(o.value, o.err) {
					return
				}
			case errors.Is(o.err, ErrUnknown):
				unknown = append(unknown, o)
				hasFailed.Store(true)
			case failed == nil:
				failed = append(failed, o)
				hasFailed.Store(true)
			}
		}
	}
	for _, o := range append(unknown, failed...) {
		if !yield(o.value, o.err) {
			return
		}
	}
}

// removeMany removes entries of any kind, as remove does, but many in a commit. The error of
// an outcome is nil for an entry that it removed.
func (rm *remover) removeMany(ctx context.Context, names []string, force bool) []partOutcome[string] {
	kinds := make(map[string][]string) // by directory
	errs := make(map[string]error, len(names))
	for _, name := range names {
		_, _, dead := layout.ParseDead(name)
		switch err := checkEntryName(name); {
		case dead && rm.Taken != "":
			kinds[layout.DeadDir] = append(kinds[layout.DeadDir], name)
		case rm.delayed.isDelayedPut(name):
			kinds[layout.DelayedDir] = append(kinds[layout.DelayedDir], name)
		case err != nil:
			errs[name] = err
		default:
			kinds[layout.EntriesDir] = append(kinds[layout.EntriesDir], name)
		}
	}
	note := func(names []string, of []error) {
		for i, name := range names {
			errs[name] = of[i]
		}
	}
	note(kinds[layout.EntriesDir], rm.removeAllWhere(ctx, kinds[layout.EntriesDir], unlessHeld(force)))
	for _, dir := range []string{layout.DelayedDir, layout.DeadDir} {
		note(kinds[dir], rm.removeAllFromDir(ctx, dir, kinds[dir]))
	}
	all := make([]partOutcome[string], len(names))
	for i, name := range names {
		if all[i].value = name; errs[name] != nil {
			all[i].err = fmt.Errorf("remove %s from %s: %w", name, rm.Root, errs[name])
		} else {
			errs[name] = ErrNoEntry // for a name that is given twice
		}
	}
	return all
}

// removeAllWhere is removeWhere for several entries, and returns the error of each. It removes
// them with few commits, as long as that removes some. Those that are left, because another
// process changed or holds them, are removed one by one, or not: that tells why.
func (rm *remover) removeAllWhere(ctx context.Context, names []string, allowed func(State) bool) []error {
	errs := make([]error, len(names))
	todo := make(map[string]int, len(names)) // which of the names are left
	for i, name := range names {
		todo[name] = i
	}
	inDoubt := make(map[string]bool) // an attempt to remove it got no answer
	var err error
	for progress := true; progress && err == nil && len(todo) > 1; {
		left := make([]string, 0, len(todo))
		for _, name := range names {
			if _, ok := todo[name]; ok {
				left = append(left, name)
			}
		}
		var removed []string
		err = rm.Do(ctx, func(ctx context.Context, s coord.Session) error {
			some, err := rm.removeTogether(ctx, s, left, allowed, inDoubt)
			removed = append(removed, some...)
			return err
		})
		for _, name := range removed {
			delete(todo, name)
		}
		progress = len(removed) > 0
	}
	for i, name := range names {
		if _, left := todo[name]; !left {
			continue
		}
		switch {
		case err == nil:
			errs[i] = rm.removeWhere(ctx, name, inDoubt[name], allowed)
		case inDoubt[name]:
			errs[i] = stillUnknown(err)
		default:
			errs[i] = err
		}
	}
	return errs
}

// removeTogether removes those of the entries that are as they were read, with few commits. It
// returns the names of those that it removed for certain, and adds to inDoubt those that it may
// have removed.
func (rm *remover) removeTogether(ctx context.Context, s coord.Session, names []string, allowed func(State) bool, inDoubt map[string]bool) (removed []string, err error) {
	nodes, err := readWhere(ctx, s.Read, names, func(_ int, name string) string { return path.Join(rm.Entries, name) })
	if err != nil {
		return nil, err
	}
	nodes = slices.DeleteFunc(nodes, func(n coord.Node) bool { return !isReadable(n) })
	removals, err := rm.removalsOf(ctx, nodes, s.Read)
	if err != nil {
		return nil, err
	}
	var ready []coord.Node
	var others []string
	var changes [][]coord.Op
	for i, n := range nodes {
		switch r, name := removals[i], path.Base(n.Path); {
		case !allowed(r.state):
		case r.state == StateReady && rm.removeAllReady != nil:
			ready = append(ready, n)
		case r.state == StateHeld:
			others, changes = append(others, name), append(changes, append(r.ops, rm.traces.leaveTrace(name)))
		default:
			others, changes = append(others, name), append(changes, r.ops)
		}
	}
	for i, o := range bulk.Commit(ctx, s.Limits(), bulk.Size, changes, s.Commit) {
		switch {
		case o.Err == nil:
			removed = append(removed, others[i])
		case errors.Is(o.Err, coord.ErrUnknown):
			inDoubt[others[i]] = true
		case !retry.IsRefused(o.Err) && err == nil:
			err = o.Err
		}
	}
	if len(removed) > 0 && allowed(StateHeld) {
		rm.traces.sweepTraces(ctx, s)
	}
	if err == nil && len(ready) > 0 {
		var some []string
		some, err = rm.removeAllReady(ctx, s, ready)
		removed = append(removed, some...)
	}
	return removed, err
}

// removeAllFromDir is removeFromDir for several nodes, with few commits, and returns the error of
// each.
func (rm *remover) removeAllFromDir(ctx context.Context, dir string, names []string) []error {
	errs := make([]error, len(names))
	if len(names) == 0 {
		return errs
	}
	outcomes := make([]error, len(names)) // of the shared commits; errUnavailable: not tried, or refused
	err := rm.Do(ctx, func(ctx context.Context, s coord.Session) error {
		for i := range outcomes {
			outcomes[i] = errUnavailable
		}
		nodes, err := readWhere(ctx, s.Read, names, func(_ int, name string) string { return path.Join(rm.Root, dir, name) })
		if err != nil {
			return err
		}
		keys, err := rm.keys.dropKeys(ctx, nodes, s.Read)
		if err != nil {
			return err
		}
		var of []int
		var changes [][]coord.Op
		for i, n := range nodes {
			if isReadable(n) {
				of, changes = append(of, i), append(changes, append(keys[i], coord.Delete(n.Path, n.Fence)))
			}
		}
		for i, o := range bulk.Commit(ctx, s.Limits(), bulk.Size, changes, s.Commit) {
			if outcomes[of[i]] = o.Err; retry.IsRefused(o.Err) {
				outcomes[of[i]] = errUnavailable
			}
		}
		return nil
	})
	for i, name := range names {
		switch isInDoubt := errors.Is(outcomes[i], coord.ErrUnknown); {
		case err != nil:
			errs[i] = err
		case isInDoubt, errors.Is(outcomes[i], errUnavailable), retry.NothingSent(outcomes[i]):
			errs[i] = rm.removeFromDir(ctx, dir, name, isInDoubt)
		default:
			errs[i] = outcomes[i]
		}
	}
	return errs
}

// purge removes the entries in a state, but of the dead it keeps so many of the newest. It calls
// yield with the number that each part removed, until yield returns false. An entry that leaves
// the state meanwhile, or that another process removes, does not count.
func (rm *remover) purge(ctx context.Context, state State, keep int, yield func(removed int) bool) error {
	names, puts, err := rm.namesIn(ctx, state)
	if err != nil {
		return err
	}
	parts := []struct {
		names  []string
		remove func(part []string) []error
	}{
		{names, func(part []string) []error {
			return rm.removeAllWhere(ctx, part, func(now State) bool { return now == state })
		}},
		{puts, func(part []string) []error { return rm.removeAllFromDir(ctx, layout.DelayedDir, part) }},
	}
	if state == StateDead {
		parts[0].names = names[:max(len(names)-keep, 0)]
		parts[0].remove = func(part []string) []error { return rm.removeAllFromDir(ctx, layout.DeadDir, part) }
	}
	for _, p := range parts {
		if err := rm.purgeNames(ctx, p.names, p.remove, yield); err != nil {
			return err
		}
	}
	if state == StateDead || rm.Taken == "" {
		return nil
	}
	return rm.Do(ctx, func(ctx context.Context, s coord.Session) error {
		rm.history.sweepHistories(ctx, s)
		return nil
	})
}

// purgeNames removes the named entries in parts, and yields how many each part removed. After an
// error it begins no other part. It returns errStop if yield returned false.
func (rm *remover) purgeNames(ctx context.Context, names []string, remove func(part []string) []error, yield func(removed int) bool) (err error) {
	var hasFailed atomic.Bool
	stopped := false
	for errs := range inParts(rm.bulk, names, func(part []string) []error {
		if hasFailed.Load() {
			return nil
		}
		return remove(part)
	}) {
		removed := 0
		for _, problem := range errs {
			switch {
			case problem == nil:
				removed++
			case errors.Is(problem, ErrUnknown), !errors.Is(problem, ErrNoEntry) && !errors.Is(problem, ErrHeld) && !errors.Is(problem, errUnreadable):
				if err == nil || errors.Is(problem, ErrUnknown) && !errors.Is(err, ErrUnknown) {
					err = problem
				}
				hasFailed.Store(true)
			}
		}
		if !stopped && removed > 0 && !yield(removed) {
			stopped = true
			hasFailed.Store(true)
		}
	}
	if stopped {
		return errStop
	}
	return err
}

// namesIn returns the names of the entries in a state, and of delayed puts if the state is that of
// delayed entries. The dead come with the oldest first.
func (rm *remover) namesIn(ctx context.Context, state State) (names, puts []string, err error) {
	err = rm.Do(ctx, func(ctx context.Context, s coord.Session) error {
		names, puts = nil, nil
		if state == StateDead {
			return rm.eachDead(ctx, s, func(name string) { names = append(names, name) })
		}
		// Locks are read before the names; each entry is removed only if it is still in the state.
		locks, err := rm.inspect.locks(ctx, s)
		if err != nil {
			return err
		}
		err = rm.inspect.eachName(ctx, s, func(name string) error {
			e := Entry{State: StateReady}
			if lk, ok := locks[name]; ok {
				e = e.locked(lk)
			}
			if e.State == state {
				names = append(names, name)
			}
			return nil
		})
		if err == nil && state == StateDelayed {
			err = rm.delayed.walkNames(ctx, s, func(name string) error { puts = append(puts, name); return nil })
		}
		return err
	})
	return names, puts, err
}

// eachDead calls f with the names of the dead entries, the oldest first.
func (rm *remover) eachDead(ctx context.Context, s coord.Session, f func(name string)) error {
	for page, err := range handle.Pages(ctx, s, path.Join(rm.Root, layout.DeadDir), coord.ListOptions{Limit: handle.NamesPage, Fresh: true}) {
		if err != nil {
			return err
		}
		for _, n := range page {
			name := path.Base(n.Path)
			if _, _, ok := layout.ParseDead(name); ok {
				f(name)
			}
		}
	}
	return nil
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
	var delayed []string // resting entries and delayed puts
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
	if err == nil {
		manyInParts(rm.bulk, delayed, func(part []string) []partOutcome[string] { return rm.removeMany(ctx, part, false) }, func(_ string, problem error) bool {
			if !errors.Is(problem, ErrNoEntry) && !errors.Is(problem, ErrHeld) || errors.Is(problem, ErrUnknown) {
				err = problem
			}
			return true
		})
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
	_ = bulk.Delete(ctx, s, slices.DeleteFunc(l.Nodes, func(n coord.Node) bool {
		ms, of, ok := layout.CutMillis(path.Base(n.Path))
		_, isEntry := priority.Parse(of)
		return !ok || !isEntry || time.Since(time.UnixMilli(ms)) < keepBroken
	}))
}
