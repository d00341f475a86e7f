package zkq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/retry"
)

// A take passes through these files:
//
//   - locking.go: [LockingQueue.TakeN] waits until the queue is not paused;
//   - take.go: finishAndTake repeats the steps below until an entry is held;
//   - internal/head: [head.Head.Choose] waits for available entries and reserves some, so that
//     no other take of this handle tries them;
//   - exchange.go: an exchangeCommit claims them, and finishes others, in one commit of the
//     session;
//   - claim.go: settleClaim finds out what became of each claim, and clearIfSpent decides whether the
//     caller gets the entry;
//   - held.go and finish.go: the caller gets a [Held], and finishes it.
//
// A take that does not wait ([LockingQueue.TryTakeN]) chooses from a listing of its own
// (finder.tryTake and takeListed), so that it can say for certain that nothing was available.

// taker takes entries for a queue handle, and finishes others in the same commit. Spent entries
// (expired, or delivered too often) are not handed out: it clears them away where it meets them.
type taker struct {
	*claimer
	clearing *clearer
}

// maxLostChoices is how often a take that does not wait may lose its chosen entries to other
// processes. Then it finishes the caller's entries and takes nothing.
const maxLostChoices = 3

// finishAndTake consumes the entries of toFinish and takes up to n others, in one commit if
// possible. With wait it waits for the first of them. failed joins the errors of the entries
// that were not removed; err is the error of the taking. An entry that cannot be removed in the
// commit of the claims is removed before that commit, so that nothing is claimed while the
// outcome of a finish is unknown. A caller that gets entries gets no err, because the next take
// returns it again.
func (t *taker) finishAndTake(ctx context.Context, toFinish []*Held, n int, wait bool) (held []*Held, failed, err error) {
	lost := 0
	err, interrupted := t.Backoff(actTake).Do(ctx, nil, func() (retry.Decision, error) {
		if n == 0 || !wait && lost == maxLostChoices {
			return retry.Stop, nil
		}
		chosen, err := t.head.Choose(ctx, n, wait)
		if err != nil || len(chosen.Names) == 0 {
			return retry.Stop, err
		}
		progress := 0
		if chosen.IsSpent {
			// Clearing needs commits of its own, so finish these entries first.
			failed, toFinish = errors.Join(failed, t.consumeAll(ctx, toFinish)), nil
			progress, err = t.clearing.clear(ctx, chosen)
			chosen.Done()
		} else {
			x := t.newExchangeCommit(chosen, toFinish)
			if len(x.separate) > 0 { // they are finished first, and the next choice claims
				x.dropClaims()
			} else {
				held, err = x.commit(ctx)
			}
			chosen.Done()
			toFinish, progress = x.postponed, x.cleared+len(x.separate)
			failed = errors.Join(failed, x.failed, t.consumeAll(ctx, x.separate))
			if held = withLiveSession(held); len(held) > 0 {
				// The caller needs these more than the error, which will show again.
				return retry.Stop, nil
			}
			if x.failed != nil {
				return retry.Stop, err
			}
		}
		if progress == 0 { // other processes were faster
			lost++
		}
		switch {
		case err == nil:
			return retry.Now, nil
		case retry.NothingSent(err):
			t.Session(ctx) // the next choice returns the error of the session
			return retry.Now, err
		}
		return retry.LaterIfBusy(err), err
	})
	if interrupted != nil {
		err = retry.WithDeadline(ctx, err)
	}
	// The entries of toFinish are finished even if there is nothing to take.
	return held, errors.Join(failed, t.consumeAll(ctx, toFinish)), err
}

// consumeAll consumes entries, in one commit if possible, and joins the errors of those that were
// not removed. Entries that the commit left unfinished are consumed one by one.
func (t *taker) consumeAll(ctx context.Context, toFinish []*Held) error {
	var failed error
	if len(toFinish) > 1 {
		x := t.newExchangeCommit(head.Choice{Session: toFinish[0].lock.Session()}, toFinish)
		x.commit(ctx)
		toFinish, failed = x.unfinished(), x.failed
	}
	for _, h := range toFinish {
		failed = errors.Join(failed, consumeAlone(ctx, h))
	}
	return failed
}

// withLiveSession returns the entries whose session still lives, and marks the others as lost.
// Their session ended during the call, while the outcome of another claim or finish was still
// unknown. A caller could not finish them.
func withLiveSession(held []*Held) []*Held {
	var live []*Held
	for _, h := range held {
		if handle.IsOver(h.lock.Session()) {
			h.end(stateLost, false)
			continue
		}
		live = append(live, h)
	}
	return live
}

// takeListed takes up to n of the listed entries, in one commit if possible. It skips no
// available entry: if a claim is refused, or its outcome is unknown, takeListed returns what it
// has, and the caller lists again. It clears away spent entries, and returns how many in
// cleared. ahead is how many entries it reads at once, if that is more than it still wants.
func (t *taker) takeListed(ctx context.Context, s coord.Session, names []string, n, ahead int) (held []*Held, cleared int, err error) {
	for isLast := false; !isLast && len(names) > 0 && len(held) < n; {
		some := names[:min(len(names), max(n-len(held), ahead), head.MaxReadAhead)]
		paths := make([]string, len(some))
		for i, name := range some {
			paths[i] = path.Join(t.Entries, name)
		}
		nodes, err := s.Read(ctx, paths...)
		if err != nil {
			return withLiveSession(held), cleared, fmt.Errorf("read %s: %w", some[0], err)
		}
		chosen, passed, err := t.chooseListed(ctx, s, some, nodes, n-len(held), len(held) == 0)
		if err != nil {
			return withLiveSession(held), cleared, err
		}
		names, isLast = names[passed:], chosen.IsLast
		if chosen.IsSpent {
			k, err := t.clearing.clear(ctx, chosen)
			cleared += k
			if err != nil || k < len(chosen.Names) {
				return withLiveSession(held), cleared, err
			}
			continue
		}
		x := t.newExchangeCommit(chosen, nil)
		taken, err := x.commit(ctx)
		held, cleared = append(held, taken...), cleared+x.cleared
		if err != nil {
			return withLiveSession(held), cleared, err
		}
		isLast = isLast || len(taken) < len(chosen.Names)
	}
	return withLiveSession(held), cleared, nil
}

// chooseListed chooses up to n of the entries that were read, and reserves them. If the first
// readable one is spent, it chooses spent entries to clear away instead. passed is how many of
// names the choice is done with. An entry that was delivered before is chosen alone;
// canBeAlone says that the take has got nothing yet, so that this is possible.
func (t *taker) chooseListed(ctx context.Context, s coord.Session, names []string, nodes []coord.Node, n int, canBeAlone bool) (chosen head.Choice, passed int, err error) {
	chosen.Session = s
	for _, node := range nodes {
		if node.Unreadable {
			t.finder.skipUnreadable(node)
		}
	}
	first := slices.IndexFunc(nodes, isReadable)
	if first < 0 {
		return chosen, len(names), nil
	}
	if t.clearing.mayBeSpent(nodes[first]) {
		spent, err := t.clearing.findSpent(ctx, s, nodes)
		if err != nil {
			return chosen, 0, err
		}
		if spent[nodes[first].Path] {
			chosen = t.chooseSpent(s, names, nodes, spent)
		}
	}
	if chosen.IsSpent {
		return chosen, first, nil // the names are read again; by then the cleared nodes are gone
	}
	for i, node := range nodes {
		if len(chosen.Names) == n {
			break
		}
		if passed = i + 1; !isReadable(node) || len(chosen.Names) > 0 && hasExpired(node) {
			continue
		}
		cameBack := node.Changes > 0
		if chosen.IsLast = cameBack && (!canBeAlone || len(chosen.Names) > 0); chosen.IsLast {
			break
		}
		// Reserve waits for another goroutine's claim of this entry: no later entry may be
		// claimed before it.
		err := t.head.Claims.Reserve(ctx, names[i])
		if err != nil && !errors.Is(err, errUnavailable) {
			t.head.LetGo(chosen.Names)
			return head.Choice{}, 0, err
		}
		if err == nil {
			chosen.Names, chosen.Nodes = append(chosen.Names, names[i]), append(chosen.Nodes, node)
		}
		if chosen.IsLast = cameBack || err != nil; chosen.IsLast {
			break
		}
	}
	return chosen, passed, nil
}

// isReadable reports whether a node that was read exists and has a value for this process.
func isReadable(n coord.Node) bool { return n.Path != "" && !n.Unreadable }

// chooseSpent chooses and reserves spent entries that no other take of this handle clears away.
// If there is none, IsSpent is false: the caller then waits for the other take as for a claim.
func (t *taker) chooseSpent(s coord.Session, names []string, nodes []coord.Node, spent map[string]bool) head.Choice {
	chosen := head.Choice{Session: s}
	for i, node := range nodes {
		if spent[node.Path] && 2*len(chosen.Names) < s.Limits().CommitOps-1 && t.head.Claims.TryReserve(names[i]) {
			chosen.Names, chosen.Nodes = append(chosen.Names, names[i]), append(chosen.Nodes, node)
		}
	}
	chosen.IsSpent = len(chosen.Names) > 0
	return chosen
}

// errUnreadable says that an entry's access list keeps this process from reading it.
var errUnreadable = fmt.Errorf("its access list does not let this process read it: %w", coord.ErrForbidden)

// finder finds entries that are available now, for takes that do not wait. It skips entries
// whose access lists keep this process from reading them.
type finder struct {
	*handle.Handle
	lister     head.Lister
	restricted *head.Restricted // entries with access lists of their own, shared with the head
}

// claimFunc tries to claim listed entries, in take order. It returns how many it claimed, and
// how many spent ones it cleared away. ahead is how many entries it may read at once to find
// spent ones.
type claimFunc func(ctx context.Context, s coord.Session, names []string, ahead int) (got, cleared int, err error)

// tryTake lists entries and calls claim with them, until claim gets one or the queue is empty.
// n is how many entries the caller wants. It does not wait for new ones: [ErrEmpty] means that
// nothing was available at an instant during the call. It pauses after other processes were
// faster, but not after it has cleared spent entries away, since others may follow them.
func (fd *finder) tryTake(ctx context.Context, resting *head.Resting, n int, claim claimFunc) error {
	n = min(n, head.MaxWanted)
	return fd.Do(ctx, func(ctx context.Context, s coord.Session) error {
		ahead := 0
		var backoff retry.Backoff
		err, interrupted := backoff.Do(ctx, nil, func() (retry.Decision, error) {
			l, err := fd.lister.List(ctx, s, max(n, ahead)+resting.Len()+fd.restricted.Len(), coord.ListOptions{Fresh: true})
			if err != nil {
				return retry.Stop, err
			}
			names := slices.DeleteFunc(l.Names, func(name string) bool { return resting.Has(name) || fd.restricted.IsUnreadable(name) })
			got, cleared := 0, 0
			if len(names) > 0 {
				got, cleared, err = claim(ctx, s, names, ahead)
			}
			switch {
			case got > 0:
				return retry.Stop, nil // the next take returns an error that came after the first claim
			case err != nil:
				return retry.Stop, err
			case cleared > 0:
				backoff.Reset()
				ahead = head.MaxReadAhead
				return retry.Now, nil
			case len(names) > 0, !l.IsComplete:
				// Other processes were faster, or more entries rest than the listing
				// allowed for.
				return retry.Later, nil
			}
			if fd.Taken == "" {
				return retry.Stop, ErrEmpty
			}
			// The listing read the locks first, and then the entries. In between, one entry
			// may have been released, and the last free one claimed and removed: then the
			// queue was never empty. If the locks have not changed, it was.
			locks, err := s.List(ctx, fd.Taken, coord.ListOptions{Fresh: true})
			if err != nil {
				return retry.Stop, err
			}
			if locks.Stamp == l.Stamp {
				return retry.Stop, ErrEmpty
			}
			return retry.Now, nil
		})
		return cmp.Or(interrupted, err)
	})
}

// skipUnreadable has takes skip an entry that cannot be read, and warns of it once.
func (fd *finder) skipUnreadable(n coord.Node) {
	fd.restricted.Add(path.Base(n.Path), false)
	fd.WarnOnce(n.Path, "cannot be read, because its access list does not allow it: skipped; rm --force removes it")
}

// getRestricted is Get for a caller that can do without the node's value. Where an access list
// keeps this process from reading the node, it returns the node without its value, marked as
// Unreadable.
func getRestricted(ctx context.Context, s coord.Session, at string) (coord.Node, error) {
	n, err := s.Get(ctx, at)
	if !errors.Is(err, coord.ErrForbidden) {
		return n, err
	}
	nodes, readErr := s.Read(ctx, at)
	switch {
	case readErr != nil:
		return n, err
	case nodes[0].Path == "":
		return n, coord.ErrNotExist
	}
	return nodes[0], nil
}

// readFunc reads nodes, as [coord.Session].Read does.
type readFunc func(ctx context.Context, paths ...string) ([]coord.Node, error)

// readFresh returns a readFunc whose results are linearizable. It makes a request for each node.
func readFresh(s coord.Session) readFunc {
	return func(ctx context.Context, paths ...string) ([]coord.Node, error) {
		nodes := make([]coord.Node, len(paths))
		for i, at := range paths {
			n, err := getRestricted(ctx, s, at)
			switch {
			case err == nil:
				nodes[i] = n
			case !errors.Is(err, coord.ErrNotExist):
				return nil, err
			}
		}
		return nodes, nil
	}
}

// readWhere reads the node that pathOf returns for each item. Where that is "", or no node exists,
// the result has a node without a path.
func readWhere[T any](ctx context.Context, read readFunc, items []T, pathOf func(i int, item T) string) ([]coord.Node, error) {
	nodes := make([]coord.Node, len(items))
	var paths []string
	var of []int
	for i, item := range items {
		if at := pathOf(i, item); at != "" {
			paths, of = append(paths, at), append(of, i)
		}
	}
	if len(paths) == 0 {
		return nodes, nil
	}
	found, err := read(ctx, paths...)
	if err != nil {
		return nil, err
	}
	for i, n := range found {
		nodes[of[i]] = n
	}
	return nodes, nil
}
