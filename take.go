package zkq

import (
	"context"
	"slices"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/retry"
)

// claimer tries the entries of those names, in take order. It says how many it got, and how
// many spent ones it cleared away; of these it looks at up to ahead at once.
type claimer func(ctx context.Context, s coord.Session, names []string, ahead int) (got, cleared int, err error)

// finder finds entries that can be taken, and knows which this process may not touch.
type finder struct {
	*handle
	lister     head.Lister
	restricted *head.Restricted
}

// tryTake is one attempt to claim without waiting. ErrEmpty is said only when there
// was an instant during the call at which nothing was available. n is how many
// entries are wanted. It pauses where others were faster, and never after progress of its
// own: where spent entries were cleared away, more may stand behind them.
func (fd *finder) tryTake(ctx context.Context, resting *head.Resting, n int, claim claimer) error {
	n = min(n, head.MaxWanted)
	return fd.do(ctx, func(ctx context.Context, s coord.Session) error {
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
				return nil // what went wrong after the first will show again
			case err != nil:
				return err
			case cleared > 0:
				backoff.Reset()
				ahead = head.MaxReadAhead
				continue
			case len(names) > 0, !l.IsComplete:
				// Others were faster, or more is left alone than was when the
				// listing began.
				if err := backoff.Wait(ctx, nil, nil); err != nil {
					return err
				}
				continue
			}
			if fd.taken == "" {
				return ErrEmpty
			}
			// An entry that was released after the locks were read and claimed
			// before the entries were would make "empty" a lie: it is true if
			// the same locks stood all the time in between.
			locks, err := s.List(ctx, fd.taken, coord.ListOptions{Fresh: true})
			if err != nil {
				return err
			}
			if locks.Stamp == l.Stamp {
				return ErrEmpty
			}
		}
	})
}
