package coordtest

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

// state is what the service keeps: a state machine without clock, lock or
// sessions of its own. It counts as ZooKeeper does, which promises the least:
// fences are versions and meet again in a name's next life, a sequence number is
// the count of creates under the parent, commits that travel together are applied
// all or none, an emptied directory stays.
//
// With etcd it counts as etcd and its driver do: fences are revisions, a sequential
// name was chosen before its commit was sent, each commit of a batch is refused for
// itself, and none sees what another of the batch does.
type state struct {
	etcd     bool
	revision int64
	nodes    map[string]*node
	dirs     map[string]*dir
	stamps   uint64

	// log and past hold what some lagging client has yet to see: membership changes,
	// and nodes as they were.
	log     []change
	past    []version
	keepLog bool
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
	changes           int64
	revision          int64 // of the commit that last wrote it
	born              int64 // of the commit that created it
	named             bool  // by the service, as CreateSequential asks
	owner             string
	created, modified time.Time
}

type dir struct {
	names   []string // sorted: nodes and directories
	creates int64    // so far, of any kind
	stamp   uint64   // of the last membership change
}

type change struct {
	revision int64
	dir      string
	name     string
	added    bool
	before   uint64 // the directory's stamp
}

func newState() state {
	return state{nodes: map[string]*node{}, dirs: map[string]*dir{"/": {}}}
}

func split(path string) (parent, name string) {
	i := strings.LastIndexByte(path, '/')
	if i == 0 {
		return "/", path[1:]
	}
	return path[:i], path[i+1:]
}

func join(parent, name string) string {
	if parent == "/" {
		return "/" + name
	}
	return parent + "/" + name
}

// proposal is a commit that travels with others.
type proposal struct {
	ops  []coord.Op
	name func(dir, prefix string) string // etcd's: names a sequential node

	paths   []string // of the ops
	results []coord.Result
	err     error
}

// commit applies a batch for the session. It says which commit was refused, when
// that kept the others from being applied; else -1.
func (st *state) commit(session string, now time.Time, batch []*proposal) (changes []change, stopped int) {
	whole := planner{st: st}
	applied := 0
	for i, c := range batch {
		p := &whole
		if st.etcd {
			p = &planner{st: st}
		}
		if c.paths, c.err = p.plan(c); c.err == nil {
			applied++
		} else if !st.etcd {
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

func (st *state) apply(session string, now time.Time, c *proposal, changes []change) ([]coord.Result, []change) {
	results := make([]coord.Result, len(c.ops))
	for i, op := range c.ops {
		path := c.paths[i]
		r := coord.Result{Path: path, Fence: op.Fence}
		st.remember(path)
		switch op.Kind {
		case coord.KindCreate, coord.KindSequential, coord.KindEphemeral:
			n := &node{value: clone(op.Value), revision: st.revision, born: st.revision, created: now, modified: now}
			switch op.Kind {
			case coord.KindSequential:
				n.named = true
			case coord.KindEphemeral:
				// A plain client's ephemeral node stands at 0: ours was written once.
				n.owner, n.fence = session, 1
				r.Revision = st.revision
			}
			st.fence(n)
			changes = st.add(changes, path, n)
			r.Fence = n.fence
		case coord.KindSet, coord.KindTouch:
			n := st.nodes[path]
			n.value, n.revision, n.modified = clone(op.Value), st.revision, now
			n.fence++
			n.changes++
			st.fence(n)
			r.Fence, r.Revision = n.fence, st.revision
		case coord.KindDelete:
			changes = st.remove(changes, path)
			r.Fence = 0
		case coord.KindReplace:
			n := st.nodes[path]
			if st.etcd {
				n.value, n.revision, n.owner = clone(op.Value), st.revision, ""
				n.changes++
			} else {
				*n = node{value: clone(op.Value), revision: st.revision, born: st.revision, created: now, modified: now}
			}
			st.fence(n)
			r.Fence = n.fence
		}
		if st.etcd {
			r.Revision = st.revision
		}
		results[i] = r
	}
	return results, changes
}

// fence gives a node that was just written etcd's fence.
func (st *state) fence(n *node) {
	if st.etcd {
		n.fence = coord.Fence(st.revision)
		n.created, n.modified = time.Time{}, time.Time{}
	}
}

// plan names the node of each op, or refuses the first op that cannot be.
func (p *planner) plan(c *proposal) ([]string, error) {
	paths := make([]string, len(c.ops))
	for i, op := range c.ops {
		path, err := op.Path, error(nil)
		switch op.Kind {
		case coord.KindCreate, coord.KindEphemeral, coord.KindSequential:
			path, err = p.create(op, c.name)
		default:
			err = p.st.check(op)
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

func (st *state) check(op coord.Op) error {
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

// planner follows the creates of commits without doing them.
type planner struct {
	st      *state
	creates map[string]int64
	nodes   map[string]bool
	dirs    map[string]bool
}

func (p *planner) create(op coord.Op, named func(dir, prefix string) string) (string, error) {
	parent, name := split(op.Path)
	if err := p.directory(parent); err != nil {
		return "", err
	}
	n := p.next(parent)
	switch {
	case op.Kind == coord.KindSequential && p.st.etcd:
		name = named(parent, name)
	case op.Kind == coord.KindSequential && n > coord.LastNumber:
		return "", &coord.ExhaustedError{Dir: parent, Next: n}
	case op.Kind == coord.KindSequential:
		name = fmt.Sprintf("%s%010d", name, n)
	}
	path := join(parent, name)
	if p.st.nodes[path] != nil || p.st.dirs[path] != nil || p.nodes[path] || p.dirs[path] {
		return "", coord.ErrExist
	}
	if p.nodes == nil {
		p.nodes = map[string]bool{}
	}
	p.nodes[path] = true
	return path, nil
}

func (p *planner) directory(path string) error {
	if p.st.dirs[path] != nil || p.dirs[path] {
		return nil
	}
	if p.st.nodes[path] != nil || p.nodes[path] {
		return fmt.Errorf("create a child of %s, which holds a value: %w", path, coord.ErrInvalid)
	}
	parent, _ := split(path)
	if err := p.directory(parent); err != nil {
		return err
	}
	p.next(parent)
	if p.dirs == nil {
		p.dirs = map[string]bool{}
	}
	p.dirs[path] = true
	return nil
}

// next is the number of the next create in dir, which is thereby counted.
func (p *planner) next(dir string) int64 {
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

// afterCreate is what a directory has counted after one more create. ZooKeeper's
// counter stops at its last number.
func afterCreate(n int64) int64 {
	return min(n+1, math.MaxInt32)
}

// directory returns the directory at path, made with all above it.
func (st *state) directory(changes []change, path string) (*dir, []change) {
	if d := st.dirs[path]; d != nil {
		return d, changes
	}
	parent, name := split(path)
	up, changes := st.directory(changes, parent)
	changes = st.insert(changes, up, parent, name)
	d := &dir{}
	st.dirs[path] = d
	return d, changes
}

func (st *state) add(changes []change, path string, n *node) []change {
	parent, name := split(path)
	d, changes := st.directory(changes, parent)
	st.nodes[path] = n
	return st.insert(changes, d, parent, name)
}

func (st *state) insert(changes []change, d *dir, path, name string) []change {
	d.creates = afterCreate(d.creates)
	d.names = insert(d.names, name)
	return st.record(changes, d, path, name, true)
}

func (st *state) remove(changes []change, path string) []change {
	parent, name := split(path)
	d := st.dirs[parent]
	delete(st.nodes, path)
	d.names = remove(d.names, name)
	return st.record(changes, d, parent, name, false)
}

func (st *state) record(changes []change, d *dir, path, name string, added bool) []change {
	c := change{revision: st.revision, dir: path, name: name, added: added, before: d.stamp}
	st.stamps++
	d.stamp = st.stamps
	if st.keepLog {
		st.log = append(st.log, c)
	}
	return append(changes, c)
}

// remember keeps the node at path as it is before this revision's commit.
func (st *state) remember(path string) {
	if !st.keepLog {
		return
	}
	v := version{revision: st.revision, path: path}
	if n := st.nodes[path]; n != nil {
		was := *n
		v.node = &was
	}
	st.past = append(st.past, v)
}

// at returns the node at path as it was at the revision.
func (st *state) at(path string, view int64) (coord.Node, bool) {
	n := st.nodes[path]
	for i := len(st.past) - 1; i >= 0 && st.past[i].revision > view; i-- {
		if st.past[i].path == path {
			n = st.past[i].node
		}
	}
	return n.node(path)
}

// end removes what a session left behind and says what it was.
func (st *state) end(paths []string) ([]coord.Op, []change) {
	st.revision++
	var ops []coord.Op
	var changes []change
	for _, path := range paths {
		ops = append(ops, coord.Delete(path, st.nodes[path].fence))
		st.remember(path)
		changes = st.remove(changes, path)
	}
	return ops, changes
}

// names returns the children of path as they were at the revision, and the stamp
// of that. The caller does not write to them.
func (st *state) names(path string, view int64) ([]string, uint64) {
	d := st.dirs[path]
	if d == nil {
		return nil, 0
	}
	names, stamp := d.names, d.stamp
	copied := false
	for i := len(st.log) - 1; i >= 0 && st.log[i].revision > view; i-- {
		c := st.log[i]
		if c.dir != path {
			continue
		}
		if !copied {
			names, copied = slices.Clone(names), true
		}
		if c.added {
			names = remove(names, c.name)
		} else {
			names = insert(names, c.name)
		}
		stamp = c.before
	}
	return names, stamp
}

// forget drops the log up to the revision.
func (st *state) forget(view int64) {
	i := 0
	for i < len(st.log) && st.log[i].revision <= view {
		i++
	}
	st.log = slices.Delete(st.log, 0, i)
	for i = 0; i < len(st.past) && st.past[i].revision <= view; {
		i++
	}
	st.past = slices.Delete(st.past, 0, i)
}

func (st *state) node(path string) (coord.Node, bool) { return st.nodes[path].node(path) }

func (n *node) node(path string) (coord.Node, bool) {
	if n == nil {
		return coord.Node{}, false
	}
	return coord.Node{
		Path: path, Value: clone(n.value), Fence: n.fence, Changes: n.changes,
		Revision: n.revision, Born: n.born, Owner: n.owner, Created: n.created, Modified: n.modified,
	}, true
}

func (st *state) list(path string, o coord.ListOptions, view int64) coord.List {
	names, stamp := st.names(path, view)
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
		n := coord.Node{Path: join(path, name)}
		if made := st.nodes[n.Path]; o.Born != 0 && (made == nil || !made.named || made.born != o.Born) {
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

func insert(names []string, name string) []string {
	if len(names) == 0 || names[len(names)-1] < name {
		return append(names, name)
	}
	i, found := slices.BinarySearch(names, name)
	if found {
		return names
	}
	return slices.Insert(names, i, name)
}

func remove(names []string, name string) []string {
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

// clone is bytes.Clone, but never nil.
func clone(b []byte) []byte {
	return append([]byte{}, b...)
}
