package zkqueue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
)

// multi is one transaction of ZooKeeper's: the ops of one commit, or of several merged
// commits. Its methods add one op each and count the bytes of the request, which must be
// known before it is sent: ZooKeeper closes the connection over a request that is too
// large.
type multi struct {
	ops  []any
	refs []opRef // which op of which commit each element of ops belongs to
	size int     // bytes of the request frame, without its length field
}

// opRef names one op of a batch of commits. A coord.Op can be two ops of ZooKeeper's.
type opRef struct{ commit, op int }

// send makes the request. It returns one response per op, or none if the request failed as
// a whole. Any other number of responses says nothing about the ops and is an error.
func (m *multi) send(z *zk.Conn) ([]zk.MultiResponse, error) {
	answers, err := z.Multi(m.ops...)
	if len(answers) != len(m.ops) && (err == nil || len(answers) > 0) {
		return nil, errMalformed
	}
	return answers, err
}

// maxFrame is the largest request in bytes that ZooKeeper accepts with the default
// jute.maxbuffer.
const maxFrame = 1<<20 - 1

// Sizes in bytes of a request's parts in ZooKeeper's encoding, without strings and data.
const (
	opHeader    = 4 + 1 + 4                                // type, done, error
	multiFrame  = 4 + 4 + opHeader                         // xid, opcode; the last header
	createFrame = opHeader + 4 + 4 + 4 + aclFrame + 4      // path, data, acl, flags
	aclFrame    = 4 + 4 + len("world") + 4 + len("anyone") // perms, scheme, id
	setFrame    = opHeader + 4 + 4 + 4                     // path, data, version
	checkFrame  = opHeader + 4 + 4                         // path, version; delete too
)

// worldACL is kazoo's default: every user may do everything.
var worldACL = zk.WorldACL(zk.PermAll)

// create adds the create of a node.
func (m *multi) create(path string, value []byte, flags int32) {
	if value == nil {
		value = []byte{} // kazoo would read nil as None, its "no entry"
	}
	m.ops = append(m.ops, &zk.CreateRequest{Path: path, Data: value, Acl: worldACL, Flags: flags})
	m.size += createFrame + len(path) + len(value)
}

// set adds a write of a node's value.
func (m *multi) set(path string, value []byte, version int32) {
	if value == nil {
		value = []byte{}
	}
	m.ops = append(m.ops, &zk.SetDataRequest{Path: path, Data: value, Version: version})
	m.size += setFrame + len(path) + len(value)
}

// delete adds the delete of a node.
func (m *multi) delete(path string, version int32) {
	m.ops = append(m.ops, &zk.DeleteRequest{Path: path, Version: version})
	m.size += checkFrame + len(path)
}

// check adds a comparison of a node's version.
func (m *multi) check(path string, version int32) {
	m.ops = append(m.ops, &zk.CheckVersionRequest{Path: path, Version: version})
	m.size += checkFrame + len(path)
}

// fenceVersion returns the version to compare for a fence. A fence that is no version must
// be refused by ZooKeeper, which knows whether the node exists, so it becomes a version
// that no node has. In particular it must not become -1, which ZooKeeper takes for any
// version.
func fenceVersion(f coord.Fence) int32 {
	if f < 0 || f > math.MaxInt32 {
		return math.MinInt32
	}
	return int32(f)
}

// newMulti returns one multi for all the commits. No path may occur in two of them.
func (s *session) newMulti(commits ...[]coord.Op) *multi {
	m := &multi{size: multiFrame}
	for c, ops := range commits {
		for i, op := range ops {
			s.addOp(m, op)
			for len(m.refs) < len(m.ops) {
				m.refs = append(m.refs, opRef{c, i})
			}
		}
	}
	return m
}

// addOp adds the ops of ZooKeeper's that make up op:
//
//	create       create
//	ephemeral    create without a value, then set, so that its version is 1
//	sequential   create with the flag "sequence"
//	set, touch   set at the fence's version
//	delete       delete at the fence's version
//	check        check of the fence's version
//	replace      delete at the fence's version, then create
func (s *session) addOp(m *multi, op coord.Op) {
	path, at := s.fullPath(op.Path), fenceVersion(op.Fence)
	switch op.Kind {
	case coord.KindCreate:
		m.create(path, op.Value, 0)
	case coord.KindEphemeral:
		// A second write gives the node version 1. A kazoo lock has version 0, so a delete at version
		// 1 never removes one.
		m.create(path, nil, zk.FlagEphemeral)
		m.set(path, op.Value, 0)
	case coord.KindSequential:
		m.create(path, op.Value, zk.FlagSequence)
	case coord.KindSet, coord.KindTouch:
		m.set(path, op.Value, at)
	case coord.KindDelete:
		m.delete(path, at)
	case coord.KindCheck:
		m.check(path, at)
	case coord.KindReplace:
		m.delete(path, at)
		m.create(path, op.Value, 0)
	}
}

// Commit applies all ops or none; see [coord.Session]. When ZooKeeper refuses a commit
// because a parent directory is missing, Commit creates the directory outside of the
// commit, as kazoo does, and sends the commit again. Other processes may see the empty
// directory.
func (s *session) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	results, err := s.commit(ctx, ops)
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return results, nil
}

// commit checks the ops and the session, and has the commit sent with those that wait at
// the same time.
func (s *session) commit(ctx context.Context, ops []coord.Op) ([]coord.Result, error) {
	if ctx == nil {
		return nil, fmt.Errorf("no context: %w", coord.ErrInvalid)
	}
	if err := s.checkAlive(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil || len(ops) == 0 {
		return nil, err
	}
	if err := coord.CheckOps(limits, ops); err != nil {
		return nil, err
	}
	if s.mayExceedFrame(ops) {
		if m := s.newMulti(ops); m.size > maxFrame {
			return nil, &coord.LimitError{What: "commit", Unit: "bytes", Size: m.size, Limit: maxFrame}
		}
	}
	// Everything that can be refused without a request has been refused by now.
	if err := s.checkCounters(ctx, ops); err != nil {
		return nil, err
	}
	results, err := s.group.Do(ctx, ops)
	if err == nil {
		s.advanceCounters(ops, results)
	}
	if err != nil && err == ctx.Err() && !s.connected() {
		err = fmt.Errorf("%w: %w", err, s.dialer.failureError())
	}
	return results, err
}

// mayExceedFrame estimates, from above, whether a commit is too large, so that most commits
// need not be encoded to be measured. An op is at most two of ZooKeeper's.
func (s *session) mayExceedFrame(ops []coord.Op) bool {
	size := multiFrame
	for _, op := range ops {
		size += 2*(createFrame+len(s.cfg.Chroot)+len(op.Path)) + len(op.Value)
	}
	return size > maxFrame
}

// hideSessionEnd removes the session's end from the error of a request that may have been
// applied: callers take an error with [coord.ErrSessionLost] for a promise that nothing was
// applied.
func hideSessionEnd(err error) error {
	if errors.Is(err, coord.ErrSessionLost) || errors.Is(err, coord.ErrClosed) {
		return errors.New("the session ended")
	}
	return err
}

// firstFailedOp returns the index of the first op with an error, or -1. Later ops carry an
// error too, but theirs means nothing.
func firstFailedOp(answers []zk.MultiResponse) int {
	for i, a := range answers {
		if a.Error != nil {
			return i
		}
	}
	return -1
}

// lacksParent reports whether err says that the parent of a node to create is missing.
func lacksParent(op any, err error) bool {
	c, create := op.(*zk.CreateRequest)
	return create && errors.Is(err, zk.ErrNoNode) && parentPath(c.Path) != "/"
}

// refusalError returns coord's error for a commit of which ZooKeeper refused op i.
func refusalError(ops []coord.Op, i int, err error) error {
	if errors.Is(err, coord.ErrExist) && ops[i].Kind == coord.KindSequential {
		// The counter of names has reached its end, and the node with the last number exists.
		return &coord.ExhaustedError{Dir: parentPath(ops[i].Path), Next: coord.LastNumber + 1}
	}
	for _, kind := range []error{coord.ErrExist, coord.ErrNotExist, coord.ErrVersion} {
		if errors.Is(err, kind) {
			return &coord.Refusal{Index: i, Op: ops[i], Err: kind}
		}
	}
	if errors.Is(err, coord.ErrForbidden) {
		return &coord.ForbiddenError{Index: i, Op: ops[i], Err: err}
	}
	return fmt.Errorf("%v %s (op %d): %w", ops[i].Kind, ops[i].Path, i, err)
}

// results returns the results of each commit of a multi that was applied.
func (s *session) results(commits [][]coord.Op, m *multi, answers []zk.MultiResponse) [][]coord.Result {
	results := make([][]coord.Result, len(commits))
	for c, ops := range commits {
		results[c] = make([]coord.Result, len(ops))
	}
	var revision int64 // one for the whole multi
	for j, a := range answers {
		if a.Stat != nil {
			revision = a.Stat.Mzxid
		}
		of := m.refs[j]
		op, r := &commits[of.commit][of.op], &results[of.commit][of.op]
		switch op.Kind {
		case coord.KindSequential:
			r.Path = strings.TrimPrefix(a.String, s.cfg.Chroot)
		case coord.KindCheck:
			r.Path, r.Fence = op.Path, op.Fence
		default:
			r.Path = op.Path
		}
		if a.Stat != nil {
			r.Fence = coord.Fence(a.Stat.Version)
		}
	}
	for _, of := range results {
		for i := range of {
			of[i].Revision = revision
		}
	}
	return results
}

// parentPath returns the directory of a path, "/" for a node at the top.
func parentPath(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return "/"
}

// createDirectory creates the directory and those above it, as kazoo's ensure_path does. A
// directory that exists already is no error, so the request may be repeated after a lost
// reply.
func (s *session) createDirectory(ctx context.Context, fullPath string) error {
	for {
		_, err := read(ctx, s, func(z *zk.Conn) (string, error) {
			return z.Create(fullPath, []byte{}, 0, worldACL)
		})
		switch {
		case errors.Is(err, coord.ErrExist):
			return nil
		case !errors.Is(err, coord.ErrNotExist) || parentPath(fullPath) == "/":
			return err
		}
		if err := s.createDirectory(ctx, parentPath(fullPath)); err != nil {
			return err
		}
	}
}
