package zkq

import (
	"context"
	"errors"
	"path"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/priority"
)

// A trace in layout.BrokenDir says that an entry was taken from its holder by hand. Without
// it, a holder whose finish was not answered, and whose entry is gone, would take another
// holder's finish for its own.

// keepBroken is how long traces are kept: longer than any finish is in doubt.
const keepBroken = 24 * time.Hour

// traces are the traces of the entries that were taken from their holders.
type traces struct{ *handle.Handle }

// leaveTrace is the op to commit together with taking an entry from its holder.
func (tr *traces) leaveTrace(name string) coord.Op {
	return coord.Create(path.Join(tr.Root, layout.BrokenDir, layout.BrokenName(time.Now(), name)), []byte{})
}

// wasBroken says whether an entry was taken from a holder by hand after a revision.
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
			continue // swept, and older than any doubt
		}
		if err != nil || trace.Revision > after {
			return err == nil, err
		}
	}
	return false, nil
}

// sweepTraces removes the traces that nobody can need any more. Whoever leaves one
// sweeps; what goes wrong is left for the next.
func (tr *traces) sweepTraces(ctx context.Context, s coord.Session) {
	l, err := s.List(ctx, path.Join(tr.Root, layout.BrokenDir), coord.ListOptions{Values: true, Limit: namesPage})
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
