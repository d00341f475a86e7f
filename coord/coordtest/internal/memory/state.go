package memory

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
)

// state holds the nodes. It is a state machine without clock, lock or sessions of its
// own.
//
// It counts as ZooKeeper does, which promises the least: a fence is a version and is
// given again to the next node of the same path; a sequence number is the count of
// creates under the parent; commits that travel together are applied all or none; an
// emptied directory stays.
//
// With countsLikeEtcd it counts as etcd and its driver do: a fence is a revision; a
// sequential name is chosen before the commit is sent; each commit of a batch is applied
// or refused by itself, and none sees the changes of another.
type state struct {
	countsLikeEtcd bool
	revision       int64
	nodes          map[string]*node
	dirs           map[string]*dir
	lastStamp      uint64

	// What lagging clients have yet to see. Both are in the order of revisions, and
	// empty unless keepsHistory is set.
	changes      []change  // of membership
	oldVersions  []version // of nodes
	keepsHistory bool
}

// version is a node as it was before the commit of a revision.
type version struct {
	revision int64
	path     string
	node     *node // nil: there was none
}

type node struct {
	value             []byte
	fence             coord.Fence
	changes           int64  // writes since it was created
	revision          int64  // of the commit that wrote it last
	createdRevision   int64  // of the commit that created it
	isSequential      bool   // created by CreateSequential
	owner             string // the session that an ephemeral node ends with
	created, modified time.Time
}

type dir struct {
	names   []string // sorted: nodes and directories
	creates int64    // so far, of any kind
	stamp   uint64   // of the last change of membership
}

// change is a name that was added to a directory or removed from it.
type change struct {
	revision    int64
	dir         string
	name        string
	isAdded     bool
	stampBefore uint64 // of the directory
}

func newState(etcd bool) state {
	return state{countsLikeEtcd: etcd, nodes: map[string]*node{}, dirs: map[string]*dir{"/": {}}}
}

func splitPath(path string) (parent, name string) {
	i := strings.LastIndexByte(path, '/')
	if i == 0 {
		return "/", path[1:]
	}
	return path[:i], path[i+1:]
}

func joinPath(parent, name string) string {
	if parent == "/" {
		return "/" + name
	}
	return parent + "/" + name
}

// proposal is one commit of a batch.
type proposal struct {
	ops            []coord.Op
	nameSequential func(dir, prefix string) string // as etcd's driver does

	paths   []string // of the ops, in their order
	results []coord.Result
	err     error
}

// commit applies a batch for the session. When a refused commit keeps the others from
// being applied, refused is its index; else it is -1.
func (st *state) commit(session string, now time.Time, batch []*proposal) (changes []change, refused int) {
	shared := planner{st: st}
	applied := 0
	for i, c := range batch {
		p := &shared
		if st.countsLikeEtcd {
			p = &planner{st: st}
		}
		if c.paths, c.err = p.plan(c); c.err == nil {
			applied++
		} else if !st.countsLikeEtcd {
			return nil, i
		}
	}
	if applied > 0 {
		st.revision++
	}
	for _, c := range batch {
		if c.err == nil {
			c.results, changes = st.apply(session, now, c, changes)
		}
	}
	return changes, -1
}

// apply does a commit that was planned, and appends its changes of membership.
func (st *state) apply(session string, now time.Time, c *proposal, changes []change) ([]coord.Result, []change) {
	results := make([]coord.Result, len(c.ops))
	for i, op := range c.ops {
		path := c.paths[i]
		r := coord.Result{Path: path, Fence: op.Fence}
		st.keepOldVersion(path)
		switch op.Kind {
		case coord.KindCreate, coord.KindSequential, coord.KindEphemeral:
			n := &node{value: cloneValue(op.Value), revision: st.revision, createdRevision: st.revision, created: now, modified: now}
			switch op.Kind {
			case coord.KindSequential:
				n.isSequential = true
			case coord.KindEphemeral:
				// ZooKeeper's driver creates the node and writes it once, so its version is 1.
				n.owner, n.fence = session, 1
				r.Revision = st.revision
			}
			st.setEtcdFence(n)
			changes = st.addNode(changes, path, n)
			r.Fence = n.fence
		case coord.KindSet, coord.KindTouch:
			n := st.nodes[path]
			n.value, n.revision, n.modified = cloneValue(op.Value), st.revision, now
			n.fence++
			n.changes++
			st.setEtcdFence(n)
			r.Fence, r.Revision = n.fence, st.revision
		case coord.KindDelete:
			changes = st.removeNode(changes, path)
			r.Fence = 0
		case coord.KindReplace:
			n := st.nodes[path]
			if st.countsLikeEtcd {
				n.value, n.revision, n.owner = cloneValue(op.Value), st.revision, ""
				n.changes++
			} else {
				*n = node{value: cloneValue(op.Value), revision: st.revision, createdRevision: st.revision, created: now, modified: now}
			}
			st.setEtcdFence(n)
			r.Fence = n.fence
		}
		if st.countsLikeEtcd {
			r.Revision = st.revision
		}
		results[i] = r
	}
	return results, changes
}

// setEtcdFence gives a node that was just written etcd's fence. Times go, for etcd keeps
// none. It does nothing when the state counts as ZooKeeper does.
func (st *state) setEtcdFence(n *node) {
	if st.countsLikeEtcd {
		n.fence = coord.Fence(st.revision)
		n.created, n.modified = time.Time{}, time.Time{}
	}
}

// plan returns the path of each op's node, or refuses the first op that cannot be done.
func (p *planner) plan(c *proposal) ([]string, error) {
	paths := make([]string, len(c.ops))
	for i, op := range c.ops {
		path, err := op.Path, error(nil)
		switch op.Kind {
		case coord.KindCreate, coord.KindEphemeral, coord.KindSequential:
			path, err = p.planCreate(op, c.nameSequential)
		default:
			err = p.st.checkOp(op)
		}
		if errors.Is(err, coord.ErrInvalid) || errors.Is(err, coord.ErrExhausted) {
			return nil, err
		} else if err != nil {
			return nil, &coord.Refusal{Index: i, Op: op, Err: err}
		}
		paths[i] = path
	}
	return paths, nil
}

// checkOp returns why an op on an existing node is refused.
func (st *state) checkOp(op coord.Op) error {
	n := st.nodes[op.Path]
	switch {
	case n == nil:
		return coord.ErrNotExist
	case n.fence != op.Fence:
		return coord.ErrVersion
	case op.Kind == coord.KindTouch && !bytes.Equal(n.value, op.Value):
		return fmt.Errorf("touch %s with another value than it has: %w", op.Path, coord.ErrInvalid)
	case op.Kind == coord.KindReplace && n.owner == "":
		return fmt.Errorf("replace %s, which is persistent: %w", op.Path, coord.ErrInvalid)
	}
	return nil
}

// planner notes the creates of commits that are not applied yet, so that a later op
// finds the names that an earlier one takes.
type planner struct {
	st      *state
	creates map[string]int64
	nodes   map[string]bool
	dirs    map[string]bool
}

// planCreate returns the path of the node that op creates, and notes it.
func (p *planner) planCreate(op coord.Op, nameSequential func(dir, prefix string) string) (string, error) {
	parent, name := splitPath(op.Path)
	if err := p.planDirectory(parent); err != nil {
		return "", err
	}
	n := p.nextNumber(parent)
	switch {
	case op.Kind == coord.KindSequential && p.st.countsLikeEtcd:
		name = nameSequential(parent, name)
	case op.Kind == coord.KindSequential && n > coord.LastNumber:
		return "", &coord.ExhaustedError{Dir: parent, Next: n}
	case op.Kind == coord.KindSequential:
		name = fmt.Sprintf("%s%010d", name, n)
	}
	path := joinPath(parent, name)
	if p.st.nodes[path] != nil || p.st.dirs[path] != nil || p.nodes[path] || p.dirs[path] {
		return "", coord.ErrExist
	}
	if p.nodes == nil {
		p.nodes = map[string]bool{}
	}
	p.nodes[path] = true
	return path, nil
}

// planDirectory notes the creation of path and all above it, where they are missing.
func (p *planner) planDirectory(path string) error {
	if p.st.dirs[path] != nil || p.dirs[path] {
		return nil
	}
	if p.st.nodes[path] != nil || p.nodes[path] {
		return fmt.Errorf("create a child of %s, which holds a value: %w", path, coord.ErrInvalid)
	}
	parent, _ := splitPath(path)
	if err := p.planDirectory(parent); err != nil {
		return err
	}
	p.nextNumber(parent)
	if p.dirs == nil {
		p.dirs = map[string]bool{}
	}
	p.dirs[path] = true
	return nil
}

// nextNumber returns the number of the next create in dir, and counts that create.
func (p *planner) nextNumber(dir string) int64 {
	n, ok := p.creates[dir]
	if !ok {
		if d := p.st.dirs[dir]; d != nil {
			n = d.creates
		}
	}
	if p.creates == nil {
		p.creates = map[string]int64{}
	}
	p.creates[dir] = afterCreate(n)
	return n
}

// afterCreate returns what a directory has counted after one more create. ZooKeeper's
// counter stops at its last number.
func afterCreate(n int64) int64 {
	return min(n+1, math.MaxInt32)
}

// directory returns the directory at path. It makes it, and all above it, if necessary.
func (st *state) directory(changes []change, path string) (*dir, []change) {
	if d := st.dirs[path]; d != nil {
		return d, changes
	}
	parent, name := splitPath(path)
	up, changes := st.directory(changes, parent)
	changes = st.addName(changes, up, parent, name)
	d := &dir{}
	st.dirs[path] = d
	return d, changes
}

func (st *state) addNode(changes []change, path string, n *node) []change {
	parent, name := splitPath(path)
	d, changes := st.directory(changes, parent)
	st.nodes[path] = n
	return st.addName(changes, d, parent, name)
}

func (st *state) addName(changes []change, d *dir, path, name string) []change {
	d.creates = afterCreate(d.creates)
	d.names = insertName(d.names, name)
	return st.recordChange(changes, d, path, name, true)
}

func (st *state) removeNode(changes []change, path string) []change {
	parent, name := splitPath(path)
	d := st.dirs[parent]
	delete(st.nodes, path)
	d.names = removeName(d.names, name)
	return st.recordChange(changes, d, parent, name, false)
}

func (st *state) recordChange(changes []change, d *dir, path, name string, added bool) []change {
	c := change{revision: st.revision, dir: path, name: name, isAdded: added, stampBefore: d.stamp}
	st.lastStamp++
	d.stamp = st.lastStamp
	if st.keepsHistory {
		st.changes = append(st.changes, c)
	}
	return append(changes, c)
}

// keepOldVersion keeps the node at path as it is before this revision's commit.
func (st *state) keepOldVersion(path string) {
	if !st.keepsHistory {
		return
	}
	v := version{revision: st.revision, path: path}
	if n := st.nodes[path]; n != nil {
		copied := *n
		v.node = &copied
	}
	st.oldVersions = append(st.oldVersions, v)
}

// nodeAt returns the node at path as it was at the revision.
func (st *state) nodeAt(path string, revision int64) (coord.Node, bool) {
	n := st.nodes[path]
	for i := len(st.oldVersions) - 1; i >= 0 && st.oldVersions[i].revision > revision; i-- {
		if st.oldVersions[i].path == path {
			n = st.oldVersions[i].node
		}
	}
	return n.toNode(path)
}

// removeEphemerals removes the nodes at the paths, and returns the ops that did it.
func (st *state) removeEphemerals(paths []string) ([]coord.Op, []change) {
	st.revision++
	var ops []coord.Op
	var changes []change
	for _, path := range paths {
		ops = append(ops, coord.Delete(path, st.nodes[path].fence))
		st.keepOldVersion(path)
		changes = st.removeNode(changes, path)
	}
	return ops, changes
}

// namesAt returns the children of path as they were at the revision, and the stamp of
// that membership. The caller does not write to them.
func (st *state) namesAt(path string, revision int64) ([]string, uint64) {
	d := st.dirs[path]
	if d == nil {
		return nil, 0
	}
	names, stamp := d.names, d.stamp
	copied := false
	for i := len(st.changes) - 1; i >= 0 && st.changes[i].revision > revision; i-- {
		c := st.changes[i]
		if c.dir != path {
			continue
		}
		if !copied {
			names, copied = slices.Clone(names), true
		}
		if c.isAdded {
			names = removeName(names, c.name)
		} else {
			names = insertName(names, c.name)
		}
		stamp = c.stampBefore
	}
	return names, stamp
}

// forgetHistory drops the history up to the revision.
func (st *state) forgetHistory(revision int64) {
	i := 0
	for i < len(st.changes) && st.changes[i].revision <= revision {
		i++
	}
	st.changes = slices.Delete(st.changes, 0, i)
	for i = 0; i < len(st.oldVersions) && st.oldVersions[i].revision <= revision; {
		i++
	}
	st.oldVersions = slices.Delete(st.oldVersions, 0, i)
}

func (st *state) node(path string) (coord.Node, bool) { return st.nodes[path].toNode(path) }

func (n *node) toNode(path string) (coord.Node, bool) {
	if n == nil {
		return coord.Node{}, false
	}
	return coord.Node{
		Path: path, Value: cloneValue(n.value), Fence: n.fence, Changes: n.changes,
		Revision: n.revision, Born: n.createdRevision, Owner: n.owner, Created: n.created, Modified: n.modified,
	}, true
}

func (st *state) list(path string, o coord.ListOptions, revision int64) coord.List {
	names, stamp := st.namesAt(path, revision)
	var l coord.List
	if o.After != "" {
		i, found := slices.BinarySearch(names, o.After)
		if found {
			i++
		}
		names = names[i:]
	}
	for _, name := range names {
		if o.Limit > 0 && len(l.Nodes) == o.Limit {
			l.More = true
			break
		}
		n := coord.Node{Path: joinPath(path, name)}
		if made := st.nodes[n.Path]; o.Born != 0 && (made == nil || !made.isSequential || made.createdRevision != o.Born) {
			continue
		}
		if o.Values {
			var ok bool
			if n, ok = st.node(n.Path); !ok {
				continue
			}
		}
		l.Nodes = append(l.Nodes, n)
	}
	if !l.More && o.After == "" && o.Born == 0 {
		l.Stamp = stamp
	}
	return l
}

func insertName(names []string, name string) []string {
	if len(names) == 0 || names[len(names)-1] < name {
		return append(names, name)
	}
	i, found := slices.BinarySearch(names, name)
	if found {
		return names
	}
	return slices.Insert(names, i, name)
}

func removeName(names []string, name string) []string {
	if len(names) > 0 && names[0] == name {
		names[0] = ""
		return names[1:]
	}
	i, found := slices.BinarySearch(names, name)
	if !found {
		return names
	}
	return slices.Delete(names, i, i+1)
}

// cloneValue is bytes.Clone, but never returns nil.
func cloneValue(b []byte) []byte {
	return append([]byte{}, b...)
}
