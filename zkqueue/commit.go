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

// multi is a commit as ZooKeeper is asked for it.
type multi struct {
	ops  []any
	refs []opRef // of each of ops
	size int     // of the frame, without its own length
}

// opRef is the coord.Op that an op of a multi is part of.
type opRef struct{ commit, op int }

// send sends the multi. An answer has a part for each op, or none where the request
// failed as a whole; any other tells nothing about the ops.
func (m *multi) send(z *zk.Conn) ([]zk.MultiResponse, error) {
	answers, err := z.Multi(m.ops...)
	if len(answers) != len(m.ops) && (err == nil || len(answers) > 0) {
		return nil, errMalformed
	}
	return answers, err
}

// maxFrame is what ZooKeeper takes with its default jute.maxbuffer.
const maxFrame = 1<<20 - 1

// What jute makes of a request.
const (
	opHeader    = 4 + 1 + 4                                // type, done, error
	multiFrame  = 4 + 4 + opHeader                         // xid, opcode; the last header
	createFrame = opHeader + 4 + 4 + 4 + aclFrame + 4      // path, data, acl, flags
	aclFrame    = 4 + 4 + len("world") + 4 + len("anyone") // perms, scheme, id
	setFrame    = opHeader + 4 + 4 + 4                     // path, data, version
	checkFrame  = opHeader + 4 + 4                         // path, version; delete too
)

// worldACL is kazoo's default: anyone may do anything.
var worldACL = zk.WorldACL(zk.PermAll)

func (m *multi) create(path string, value []byte, flags int32) {
	if value == nil {
		value = []byte{} // nil would come back to kazoo as None, its "nothing there"
	}
	m.ops = append(m.ops, &zk.CreateRequest{Path: path, Data: value, Acl: worldACL, Flags: flags})
	m.size += createFrame + len(path) + len(value)
}

func (m *multi) set(path string, value []byte, version int32) {
	if value == nil {
		value = []byte{}
	}
	m.ops = append(m.ops, &zk.SetDataRequest{Path: path, Data: value, Version: version})
	m.size += setFrame + len(path) + len(value)
}

func (m *multi) delete(path string, version int32) {
	m.ops = append(m.ops, &zk.DeleteRequest{Path: path, Version: version})
	m.size += checkFrame + len(path)
}

func (m *multi) check(path string, version int32) {
	m.ops = append(m.ops, &zk.CheckVersionRequest{Path: path, Version: version})
	m.size += checkFrame + len(path)
}

// fenceVersion is the version that a fence means. -1 would mean any to ZooKeeper, and what
// is no version at all must be refused by it, not by us: it knows if there is a node.
func fenceVersion(f coord.Fence) int32 {
	if f < 0 || f > math.MaxInt32 {
		return math.MinInt32
	}
	return int32(f)
}

// newMulti is one multi for commits whose paths differ.
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

func (s *session) addOp(m *multi, op coord.Op) {
	path, at := s.fullPath(op.Path), fenceVersion(op.Fence)
	switch op.Kind {
	case coord.KindCreate:
		m.create(path, op.Value, 0)
	case coord.KindEphemeral:
		// A second write puts it at version 1, where no kazoo lock stands.
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

// Commit applies the ops, all or nothing; see [coord.Session]. Missing directories are
// made as kazoo makes them, outside of the commit, when it was refused for want of
// them.
func (s *session) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	results, err := s.commit(ctx, ops)
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return results, nil
}

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

// mayExceedFrame says that a commit must be measured: no op is more than two of ZooKeeper's.
func (s *session) mayExceedFrame(ops []coord.Op) bool {
	size := multiFrame
	for _, op := range ops {
		size += 2*(createFrame+len(s.cfg.Chroot)+len(op.Path)) + len(op.Value)
	}
	return size > maxFrame
}

// hideSessionEnd keeps the promise that everything besides ErrUnknown was not applied, for
// those who look for a session's end first.
func hideSessionEnd(err error) error {
	if errors.Is(err, coord.ErrSessionLost) || errors.Is(err, coord.ErrClosed) {
		return errors.New("the session ended")
	}
	return err
}

// firstFailedOp is the place of the first op that failed, or -1. The ops before it have no
// error, those after it a meaningless one.
func firstFailedOp(answers []zk.MultiResponse) int {
	for i, a := range answers {
		if a.Error != nil {
			return i
		}
	}
	return -1
}

func lacksParent(op any, err error) bool {
	c, create := op.(*zk.CreateRequest)
	return create && errors.Is(err, zk.ErrNoNode) && parentPath(c.Path) != "/"
}

// refusalError is the error of a commit whose op i was refused.
func refusalError(ops []coord.Op, i int, err error) error {
	if errors.Is(err, coord.ErrExist) && ops[i].Kind == coord.KindSequential {
		// The counter has stopped, and the node of its last number stands.
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

// results are those of each commit of a multi that was applied.
func (s *session) results(commits [][]coord.Op, m *multi, answers []zk.MultiResponse) [][]coord.Result {
	results := make([][]coord.Result, len(commits))
	for c, ops := range commits {
		results[c] = make([]coord.Result, len(ops))
	}
	var revision int64 // one transaction
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

func parentPath(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return "/"
}

// createDirectory makes the directory, and those above it, as kazoo's ensure_path does.
// That it is there already, or is made twice after a lost answer, is as good.
func (s *session) createDirectory(ctx context.Context, whole string) error {
	for {
		_, err := read(ctx, s, func(z *zk.Conn) (string, error) {
			return z.Create(whole, []byte{}, 0, worldACL)
		})
		switch {
		case errors.Is(err, coord.ErrExist):
			return nil
		case !errors.Is(err, coord.ErrNotExist) || parentPath(whole) == "/":
			return err
		}
		if err := s.createDirectory(ctx, parentPath(whole)); err != nil {
			return err
		}
	}
}
