package zkq

import (
	"cmp"
	"context"
	"path"
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/member"
	"github.com/zkq/zkq/lock"
)

// WorkerInfo is a queue handle that takes from a queue.
type WorkerInfo struct {
	// Holder is its name in the locks of the entries that it holds.
	Holder string
	// Host and PID say where it runs. They are "" and 0 for a holder that is not
	// registered: a kazoo worker, or a single take.
	Host string
	PID  int
	// Started is when the handle began to take, by the clock of its host; zero if Host is
	// unknown.
	Started time.Time
	// Entries is how many entries it holds.
	Entries int
}

// listWorkers returns the members of a queue by host and process, and then other holders of
// entries.
func listWorkers(ctx context.Context, s coord.Session, membersDir, takenDir string) ([]WorkerInfo, error) {
	// A worker registers before it takes: in this order of looks no lock is seen without
	// its holder.
	locks, err := s.List(ctx, takenDir, coord.ListOptions{Values: true, Fresh: true})
	if err != nil {
		return nil, err
	}
	l, err := s.List(ctx, membersDir, coord.ListOptions{Values: true, Fresh: true})
	if err != nil {
		return nil, err
	}
	held := make(map[string]int)
	for _, n := range locks.Nodes {
		if st := lock.Read(n); st.Kind == lock.Held {
			held[st.Holder]++
		}
	}
	var workers []WorkerInfo
	for _, n := range l.Nodes {
		w, ok := member.Parse(n)
		if !ok {
			continue
		}
		holder := path.Base(n.Path)
		workers = append(workers, WorkerInfo{Holder: holder, Host: w.Host, PID: w.PID, Started: w.Started, Entries: held[holder]})
		delete(held, holder)
	}
	for holder, n := range held {
		workers = append(workers, WorkerInfo{Holder: holder, Entries: n})
	}
	slices.SortFunc(workers, func(a, b WorkerInfo) int {
		if (a.PID == 0) != (b.PID == 0) {
			return cmp.Compare(b.PID, a.PID)
		}
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.PID, b.PID), cmp.Compare(a.Holder, b.Holder))
	})
	return workers, nil
}
