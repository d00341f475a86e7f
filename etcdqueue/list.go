package etcdqueue

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/zkq/zkq/coord"
)

// The sizes of a listing's pages, in keys. A page with values also aims at pageBytes.
const (
	firstPageKeys  = 512
	maxPageKeys    = 8192
	valuesPageKeys = 64
	pageBytes      = 4 << 20
)

// List returns the direct children of dir; see [coord.Session]. With Seen, a watched
// directory is listed from memory where that is possible; otherwise the list is
// linearizable.
func (s *session) List(user context.Context, dir string, o coord.ListOptions) (coord.List, error) {
	if err := coord.CheckList(dir, o); err != nil {
		return coord.List{}, fmt.Errorf("list: %w", err)
	}
	var w *dirWatch
	if o.Seen {
		w = s.c.watches.find(dir)
	}
	var l coord.List
	var err error
	if w != nil {
		l, err = s.listSeen(user, w, o)
	} else {
		l, err = s.listAt(user, dir, o, 0)
	}
	if err != nil {
		return coord.List{}, fmt.Errorf("list %s: %w", dir, err)
	}
	return l, nil
}

// listAt lists the directory at a revision, or as it is now if rev is 0. The service may
// have dropped an old revision.
func (s *session) listAt(user context.Context, dir string, o coord.ListOptions, rev int64) (coord.List, error) {
	ctx, cancel, err := s.beginCall(user)
	if err != nil {
		return coord.List{}, err
	}
	defer cancel()
	for {
		l := &listing{s: s, user: user, ctx: ctx, base: s.c.dirPrefix(dir), o: o, rev: rev, page: firstPageKeys, dirs: make(map[string]bool)}
		if o.Values {
			l.page = valuesPageKeys
		}
		var err error
		if o.Born != 0 {
			err = l.readCreated()
		} else {
			err = l.readPages()
		}
		switch {
		case err == nil:
			return l.result(dir), nil
		case rev != 0 || !isRevisionUnavailable(err):
			return coord.List{}, err
		}
		// The listing took so long that its revision was compacted: begin again.
	}
}

// isRevisionUnavailable reports that a revision cannot be read: it was compacted, or the
// service was restored and has not reached it yet.
func isRevisionUnavailable(err error) bool {
	code := errorText(err)
	return code == errorText(rpctypes.ErrGRPCCompacted) || code == errorText(rpctypes.ErrGRPCFutureRev)
}

// listSeen lists a watched directory, from the cache if that is filled. The list includes
// all commits of this process that were answered before. If the event of such a commit does
// not come within half the session timeout, the cache is discarded and the service is
// asked.
func (s *session) listSeen(user context.Context, w *dirWatch, o coord.ListOptions) (coord.List, error) {
	required := w.cache.requiredRevision()
	var late <-chan time.Time
	for {
		if err := checkContext(user); err != nil {
			return coord.List{}, err
		}
		if err := s.checkAlive(); err != nil {
			return coord.List{}, err
		}
		l, reached, advanced := w.cache.page(w.dir, o, required)
		if advanced != nil {
			if late == nil {
				late = time.After(s.timeout / 2)
			}
			switch inTime, err := s.awaitChannel(user, advanced, late); {
			case err != nil:
				return coord.List{}, err
			case !inTime:
				w.cache.discard(false)
				required, late = w.cache.requiredRevision(), nil
			}
			continue
		}
		if reached != 0 {
			return s.listFilled(user, w, o, l, reached)
		}
		l, again, err := s.listUnfilled(user, w, o, required)
		if !again {
			return l, err
		}
	}
}

// listFilled returns the names that the cache has at the revision reached. Values are not in
// the cache: they are read from the service at that revision.
func (s *session) listFilled(user context.Context, w *dirWatch, o coord.ListOptions, names coord.List, reached int64) (coord.List, error) {
	if !o.Values {
		return names, nil
	}
	l, err := s.listAt(user, w.dir, o, reached)
	if err != nil && isRevisionUnavailable(err) { // the last event was long ago
		l, err = s.listAt(user, w.dir, o, 0)
	}
	return l, err
}

// listUnfilled asks the service, which answers the first listing of a directory as it is. A
// second one has the cache filled: it and all others until then are of the revision that the
// cache begins with. If that fails, again is true.
func (s *session) listUnfilled(user context.Context, w *dirWatch, o coord.ListOptions, required int64) (l coord.List, again bool, err error) {
	fill := w.cache.beginList()
	if fill == nil {
		l, err := s.listAt(user, w.dir, o, 0)
		w.cache.endList(err)
		return l, false, err
	}
	if _, err := s.awaitChannel(user, fill.pinned, nil); err != nil {
		return coord.List{}, false, err
	}
	if fill.rev == 0 {
		return coord.List{}, true, nil // the cache is not filled after all
	}
	if fill.rev >= required {
		if l, err := s.listAt(user, w.dir, o, fill.rev); err == nil || !isRevisionUnavailable(err) {
			return l, false, err
		}
	}
	if _, err := s.awaitChannel(user, fill.done, nil); err != nil {
		return coord.List{}, false, err
	}
	return coord.List{}, true, nil
}

// awaitChannel waits for done to be closed, and reports whether it was before late.
func (s *session) awaitChannel(user context.Context, done <-chan struct{}, late <-chan time.Time) (inTime bool, err error) {
	ctx, cancel, err := s.beginCall(user)
	if err != nil {
		return false, err
	}
	defer cancel()
	select {
	case <-done:
		return true, nil
	case <-late:
		return false, nil
	case <-ctx.Done():
		return false, stopReason(user, ctx)
	}
}

// listing reads the direct children of a directory, page by page, at one revision. Keys are
// read in the byte order of whole keys, in which the keys below "a" come after "a-b"; names
// are sorted in the byte order of names.
type listing struct {
	s         *session
	user, ctx context.Context
	base      string
	o         coord.ListOptions
	// Of the first page, and so of all.
	rev int64
	// Keys in the next page.
	page int

	found []child
	// Names of the directories found.
	dirs map[string]bool
	// The last key read, without base.
	last string
	// There are keys that were not read.
	more bool
}

// child is a node, or a directory with the first key in it.
type child struct {
	name string
	kv   *mvccpb.KeyValue
	dir  bool
}

// readPages reads the directory until its end or the limit.
func (l *listing) readPages() error {
	from := l.base
	if l.o.After != "" {
		from = l.base + l.o.After + "\x00"
	}
	for {
		size := l.page
		if l.o.Limit > 0 {
			// One key more than the limit shows whether there are more.
			size = min(size, l.o.Limit+1-len(l.found))
		}
		r, err := l.s.read(l.user, l.ctx, &pb.RangeRequest{Key: []byte(from), RangeEnd: prefixEnd(l.base), Limit: int64(size), KeysOnly: !l.o.Values, Revision: l.rev})
		if err != nil {
			return err
		}
		if l.rev == 0 {
			l.rev = r.Header.Revision
		}
		from = l.addPage(r.Kvs, from)
		switch {
		case !r.More:
			return nil
		case l.o.Limit > 0 && len(l.found) > l.o.Limit:
			l.more = true
			return l.addHiddenDirectories()
		}
		l.sizeNextPage(r)
	}
}

// readCreated reads the nodes that one commit created. They fit into one page, since they
// came in one request.
func (l *listing) readCreated() error {
	r, err := l.s.read(l.user, l.ctx, &pb.RangeRequest{
		Key: []byte(l.base), RangeEnd: prefixEnd(l.base), KeysOnly: !l.o.Values,
		MinCreateRevision: l.o.Born, MaxCreateRevision: l.o.Born,
	})
	if err != nil {
		return err
	}
	for _, kv := range r.Kvs {
		if name := string(kv.Key[len(l.base):]); !strings.Contains(name, "/") {
			l.found = append(l.found, child{name: name, kv: kv})
		}
	}
	return nil
}

// addPage adds the children in a page, and returns the key at which the next page begins.
func (l *listing) addPage(kvs []*mvccpb.KeyValue, from string) string {
	for _, kv := range kvs {
		rest := string(kv.Key[len(l.base):])
		l.last = rest
		name, _, deeper := strings.Cut(rest, "/")
		if !deeper {
			l.found = append(l.found, child{name: name, kv: kv})
			from = l.base + rest + "\x00"
			continue
		}
		l.addDirectory(name, kv)
		from = string(prefixEnd(l.base + name + "/"))
	}
	return from
}

// addDirectory adds a child that exists only because of the keys below it.
func (l *listing) addDirectory(name string, first *mvccpb.KeyValue) {
	if !l.o.Values && !l.dirs[name] && name > l.o.After {
		l.dirs[name] = true
		l.found = append(l.found, child{name: name, kv: first, dir: true})
	}
}

// sizeNextPage chooses the size of the next page.
func (l *listing) sizeNextPage(r *pb.RangeResponse) {
	if strings.Contains(l.last, "/") {
		l.page = firstPageKeys // most of the page was one directory's
		return
	}
	l.page = min(4*l.page, maxPageKeys)
	if l.o.Values {
		l.page = max(1, min(l.page, pageBytes*len(r.Kvs)/max(1, proto.Size(r))))
	}
}

// addHiddenDirectories adds directories whose names sort before the last key read, but
// whose keys sort after it. Their names are the beginnings of that key which are followed
// by a byte less than a slash.
func (l *listing) addHiddenDirectories() error {
	if l.o.Values {
		return nil // directories have no values
	}
	var names []string
	t := &pb.TxnRequest{}
	name, _, _ := strings.Cut(l.last, "/")
	for i := 1; i < len(name); i++ {
		if name[i] >= '/' || l.dirs[name[:i]] {
			continue
		}
		base := l.base + name[:i] + "/"
		names = append(names, name[:i])
		t.Success = append(t.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{
			Key: []byte(base), RangeEnd: prefixEnd(base), Limit: 1, KeysOnly: true, Revision: l.rev,
		}}})
	}
	for len(names) > 0 {
		n := min(len(names), maxOps)
		var r *pb.TxnResponse
		err := l.s.c.doRepeatable(l.user, l.ctx, func(ctx context.Context) (err error) {
			r, err = l.s.c.kv.Txn(ctx, &pb.TxnRequest{Success: t.Success[:n]}, waitForReady...)
			return err
		})
		if err != nil {
			return err
		}
		for i, answer := range r.Responses {
			if kvs := answer.GetResponseRange().Kvs; len(kvs) > 0 {
				l.addDirectory(names[i], kvs[0])
			}
		}
		names, t.Success = names[n:], t.Success[n:]
	}
	return nil
}

// result sorts the children and cuts the list at the limit.
func (l *listing) result(dir string) coord.List {
	slices.SortFunc(l.found, func(a, b child) int { return cmp.Compare(a.name, b.name) })
	l.found = slices.CompactFunc(l.found, func(a, b child) bool { return a.name == b.name })
	more := l.more
	if l.o.Limit > 0 && len(l.found) > l.o.Limit {
		l.found, more = l.found[:l.o.Limit], true
	}
	result := coord.List{Nodes: make([]coord.Node, len(l.found)), More: more}
	if dir == "/" {
		dir = ""
	}
	for i, f := range l.found {
		path := dir + "/" + f.name
		if f.dir {
			result.Nodes[i] = coord.Node{Path: path}
		} else {
			result.Nodes[i] = node(path, f.kv)
		}
	}
	if !more && l.o.After == "" && l.o.Born == 0 {
		result.Stamp = membershipStamp(l.found)
	}
	return result
}

// membershipStamp returns a hash of the names and of the revisions at which they were
// created; for a directory that is the revision of the first key in it. It is not 0.
func membershipStamp(found []child) uint64 {
	// The slash cannot be in a name, so it separates the two parts.
	h := fnv.New64a()
	var rev [8]byte
	for _, f := range found {
		h.Write([]byte(f.name))
		binary.BigEndian.PutUint64(rev[:], uint64(f.kv.CreateRevision))
		h.Write([]byte{'/'})
		h.Write(rev[:])
	}
	return max(1, h.Sum64())
}
