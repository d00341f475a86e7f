package zkq

import (
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

// errUnreadable says that an entry's access list keeps this process from reading it.
var errUnreadable = fmt.Errorf("its access list does not let this process read it: %w", coord.ErrForbidden)

// finder finds entries that are available now, and remembers which of them this process may
// not touch.
type finder struct {
	*handle.Handle
	lister     head.Lister
	restricted *head.Restricted
}

// claimFunc tries to claim listed entries, in take order. It returns how many it got, and how
// many spent ones it cleared away; of these it looks at up to ahead at once.
type claimFunc func(ctx context.Context, s coord.Session, names []string, ahead int) (got, cleared int, err error)

// tryTake lists entries and has claim try them, without waiting for new ones; n is how many
// are wanted. [ErrEmpty] means that nothing was available at an instant during the call. It
// pauses where other processes are faster. It does not pause after progress of its own: more
// entries may stand behind spent ones that were cleared away.
func (fd *finder) tryTake(ctx context.Context, resting *head.Resting, n int, claim claimFunc) error {
	n = min(n, head.MaxWanted)
	return fd.Do(ctx, func(ctx context.Context, s coord.Session) error {
		ahead := 0
		for backoff := new(retry.Backoff); ; {
			l, err := fd.lister.List(ctx, s, max(n, ahead)+resting.Len()+fd.restricted.Len(), coord.ListOptions{Fresh: true})
			if err != nil {
				return err
			}
			names := slices.DeleteFunc(l.Names, func(name string) bool { return resting.Has(name) || fd.restricted.IsUnreadable(name) })
			got, cleared := 0, 0
			if len(names) > 0 {
				got, cleared, err = claim(ctx, s, names, ahead)
			}
			switch {
			case got > 0:
				return nil // an error after the first will show again
			case err != nil:
				return err
			case cleared > 0:
				backoff.Reset()
				ahead = head.MaxReadAhead
				continue
			case len(names) > 0, !l.IsComplete:
				// Other processes were faster, or more entries rest than when the
				// listing began.
				if err := backoff.Wait(ctx, nil, nil); err != nil {
					return err
				}
				continue
			}
			if fd.Taken == "" {
				return ErrEmpty
			}
			// An entry that was released after the locks were read, and claimed before
			// the entries were, would make "empty" a lie. It is true if the same locks
			// stood all the time in between.
			locks, err := s.List(ctx, fd.Taken, coord.ListOptions{Fresh: true})
			if err != nil {
				return err
			}
			if locks.Stamp == l.Stamp {
				return ErrEmpty
			}
		}
	})
}

// skipUnreadable has takes skip an entry that cannot be read, and warns of it once.
func (fd *finder) skipUnreadable(n coord.Node) {
	fd.restricted.Add(path.Base(n.Path), false)
	fd.WarnOnce(n.Path, "cannot be read, because its access list does not allow it: skipped; rm --force removes it")
}

// getRestricted reads a node whose value is not needed, if it may not be read.
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
