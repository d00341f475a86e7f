package zkqueue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
)

// multi is a commit as ZooKeeper is asked for it.
type multi struct {
	ops   []any
	owner []int // for each of ops, the coord.Op it is part of
	size  int   // of the frame, without its own length
}

// mostFrame is what ZooKeeper takes with its default jute.maxbuffer.
const mostFrame = 1<<20 - 1

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

// version is the version that a fence means. -1 would mean any to ZooKeeper, and what
// is no version at all must be refused by it, not by us: it knows if there is a node.
func version(f coord.Fence) int32 {
	if f < 0 || f > math.MaxInt32 {
		return math.MinInt32
	}
	return int32(f)
}

func (s *session) plan(ops []coord.Op) *multi {
	m := &multi{size: multiFrame}
	for i, op := range ops {
		path, at := s.whole(op.Path), version(op.Fence)
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
		for len(m.owner) < len(m.ops) {
			m.owner = append(m.owner, i)
		}
	}
	return m
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
	if err := s.alive(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil || len(ops) == 0 {
		return nil, err
	}
	if err := coord.CheckOps(limits, ops); err != nil {
		return nil, err
	}
	m := s.plan(ops)
	if m.size > mostFrame {
		return nil, &coord.LimitError{What: "commit", Unit: "bytes", Size: m.size, Limit: mostFrame}
	}
	// Each refusal for want of a directory makes one, unless others delete them as fast.
	for lacking := 0; ; {
		answers, err := s.send(ctx, m)
		if err == nil {
			return s.results(ops, m, answers), nil
		}
		at := failedOp(answers)
		if at < 0 || !lacksParent(m.ops[at], answers[at].Error) || lacking > len(ops) {
			return nil, s.refusal(ops, m, at, err)
		}
		lacking++
		if err := s.makeDirectory(ctx, parent(m.ops[at].(*zk.CreateRequest).Path)); err != nil {
			return nil, fmt.Errorf("directory of %s: %w", ops[m.owner[at]].Path, err)
		}
	}
}

// send sends m until there is an answer to it. The error is coord's.
func (s *session) send(ctx context.Context, m *multi) ([]zk.MultiResponse, error) {
	for {
		r := call(ctx, s, func(z *zk.Conn) ([]zk.MultiResponse, error) { return z.Multi(m.ops...) })
		switch {
		case r.err == nil:
			return r.value, nil
		case !r.handed:
			return nil, r.err
		case !r.answered:
			return nil, fmt.Errorf("%w: %w", coord.ErrUnknown, inFlight(r.err))
		}
		out, err := means(r.err)
		switch out {
		case refused:
			return r.value, err
		case expired:
			s.end(coord.ErrSessionLost)
			return nil, err
		case unknown:
			return nil, fmt.Errorf("%w: %w", coord.ErrUnknown, err)
		}
		// Ignored: the session has left that connection, or is over.
		if err := s.alive(); err != nil {
			return nil, err
		}
		time.Sleep(time.Millisecond)
	}
}

// inFlight keeps the promise that everything besides ErrUnknown was not applied, for
// those who look for a session's end first.
func inFlight(err error) error {
	if errors.Is(err, coord.ErrSessionLost) || errors.Is(err, coord.ErrClosed) {
		return errors.New("the session ended")
	}
	return err
}

// failedOp is the place of the first op that failed, or -1. The ops before it have no
// error, those after it a meaningless one.
func failedOp(answers []zk.MultiResponse) int {
	for i, a := range answers {
		if a.Error != nil {
			return i
		}
	}
	return -1
}

func lacksParent(op any, err error) bool {
	c, create := op.(*zk.CreateRequest)
	return create && errors.Is(err, zk.ErrNoNode) && parent(c.Path) != "/"
}

// refusal is the error of a commit that was certainly not applied, or err as it is.
func (s *session) refusal(ops []coord.Op, m *multi, at int, err error) error {
	if at < 0 {
		return err
	}
	i := m.owner[at]
	for _, kind := range []error{coord.ErrExist, coord.ErrNotExist, coord.ErrVersion} {
		if errors.Is(err, kind) {
			return &coord.Refusal{Index: i, Op: ops[i], Err: kind}
		}
	}
	return fmt.Errorf("%v %s (op %d): %w", ops[i].Kind, ops[i].Path, i, err)
}

func (s *session) results(ops []coord.Op, m *multi, answers []zk.MultiResponse) []coord.Result {
	results := make([]coord.Result, len(ops))
	var revision int64
	for j, a := range answers {
		i := m.owner[j]
		r := &results[i]
		switch ops[i].Kind {
		case coord.KindSequential:
			r.Path = a.String[len(s.cfg.Chroot):]
		case coord.KindCheck:
			r.Path, r.Fence = ops[i].Path, ops[i].Fence
		default:
			r.Path = ops[i].Path
		}
		if a.Stat != nil {
			r.Fence = coord.Fence(a.Stat.Version)
			revision = a.Stat.Mzxid
		}
	}
	for i := range results {
		results[i].Revision = revision // one transaction
	}
	return results
}

func parent(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return "/"
}

// makeDirectory makes the directory, and those above it, as kazoo's ensure_path does.
// That it is there already, or is made twice after a lost answer, is as good.
func (s *session) makeDirectory(ctx context.Context, whole string) error {
	for {
		_, err := read(ctx, s, func(z *zk.Conn) (string, error) {
			return z.Create(whole, []byte{}, 0, worldACL)
		})
		switch {
		case errors.Is(err, coord.ErrExist):
			return nil
		case !errors.Is(err, coord.ErrNotExist) || parent(whole) == "/":
			return err
		}
		if err := s.makeDirectory(ctx, parent(whole)); err != nil {
			return err
		}
	}
}
