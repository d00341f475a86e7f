package head

import (
	"context"
	"path"
	"slices"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/priority"
)

// Lister lists the available entries of a queue.
type Lister struct {
	Entries string // directory of the entries
	Taken   string // directory of the locks; "" in the plain layout

	// EntryNames returns the names of those nodes that are entries.
	EntryNames func([]coord.Node) []string
}

// Listing is the head of a queue at some instant.
type Listing struct {
	Names      []string // entries that no process holds, in take order
	IsComplete bool     // no available entry is missing
	Stamp      uint64   // of the locks, which were read before the entries

	locks map[string]bool
	last  string // the last name that was listed, of an incomplete listing
}

// find reports whether the listing shows the entry as free, or as locked.
func (l *Listing) find(name string) (isFree, isLocked bool) {
	_, isFree = slices.BinarySearch(l.Names, name)
	return isFree, l.locks[name]
}

// covers reports whether the entry would have been listed.
func (l *Listing) covers(name string) bool { return l.IsComplete || name <= l.last }

// List lists entries that no process holds, in take order: at least want of them if there
// are as many. It reads the locks before the entries. So it misses an entry whose lock was
// given back in between, rather than offer one that is held; the signal of that change
// makes the caller list again.
func (q *Lister) List(ctx context.Context, s coord.Session, want int, o coord.ListOptions) (Listing, error) {
	var l Listing
	if q.Taken != "" {
		locks, err := s.List(ctx, q.Taken, o)
		if err != nil {
			return l, err
		}
		l.locks = make(map[string]bool, len(locks.Nodes))
		for _, n := range locks.Nodes {
			l.locks[path.Base(n.Path)] = true
		}
		l.Stamp = locks.Stamp
	}
	// Ranges of names that no entry can have are skipped, however many foreign nodes they hold.
	after, more := priority.Beyond("")
	for limit := want + len(l.locks); ; limit *= 2 {
		o.After, o.Limit = after, limit
		page, err := s.List(ctx, q.Entries, o)
		if err != nil {
			return l, err
		}
		free := slices.DeleteFunc(q.EntryNames(page.Nodes), func(name string) bool { return l.locks[name] })
		if l.Names == nil {
			l.Names = free
		} else {
			l.Names = append(l.Names, free...)
		}
		if page.More {
			after = path.Base(page.Nodes[len(page.Nodes)-1].Path)
			l.last = after
			if _, isEntry := priority.Parse(after); !isEntry {
				after, more = priority.Beyond(after)
			}
		}
		if l.IsComplete = !page.More || !more; l.IsComplete || len(l.Names) >= want {
			return l, nil
		}
	}
}
