package head

import (
	"context"
	"path"

	"github.com/zkq/zkq/coord"
)

// MaxReadAhead is for how many entries at most values are read in one request.
const MaxReadAhead = 64

const (
	maxReadAheadBytes = 4 << 20
	minEntryBytes     = 4 << 10 // an entry counts for no less
)

// readAhead holds entries that were read before they are chosen. A handle that takes only
// once reads only what it takes; one that goes on taking soon reads as many as it may.
type readAhead struct {
	nodes      map[string]coord.Node
	entryBytes int // average size of the entries that were read lately
	lastRead   int // how many entries the last request wanted
}

// read reads the first n of the entries. If one of these was not read before, the request reads
// later ones too, more with each request. missing are the names that do not exist.
func (a *readAhead) read(ctx context.Context, dir string, s coord.Session, names []string, n int) (missing []string, err error) {
	n = min(n, len(names))
	if a.hasAll(names[:n]) {
		return nil, nil
	}
	a.lastRead = min(max(16*a.lastRead, n), MaxReadAhead)
	most := max(n, min(a.lastRead, maxReadAheadBytes/max(a.entryBytes, minEntryBytes)))
	var paths, wanted []string
	for _, name := range names[:min(most, len(names))] {
		if _, ok := a.nodes[name]; !ok {
			paths, wanted = append(paths, path.Join(dir, name)), append(wanted, name)
		}
	}
	nodes, err := s.Read(ctx, paths...)
	if err != nil {
		return nil, err
	}
	sum := 0
	for i, node := range nodes {
		if node.Path == "" {
			missing = append(missing, wanted[i])
			continue
		}
		a.nodes[wanted[i]] = node
		sum += len(node.Value)
	}
	a.entryBytes = max(sum/len(nodes), a.entryBytes/2)
	return missing, nil
}

// has reports whether the entry was read ahead and is still unchanged, as far as is known.
func (a *readAhead) has(name string) bool {
	_, ok := a.nodes[name]
	return ok
}

func (a *readAhead) hasAll(names []string) bool {
	for _, name := range names {
		if !a.has(name) {
			return false
		}
	}
	return true
}

// reconcile forgets entries that the listing does not show as free: they have changed hands
// since they were read.
func (a *readAhead) reconcile(l *Listing) {
	for name := range a.nodes {
		if isFree, _ := l.find(name); !isFree {
			delete(a.nodes, name)
		}
	}
}
