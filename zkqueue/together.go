package zkqueue

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
)

// together is a request for several nodes, which go-zookeeper does not know: multiRead,
// of ZooKeeper 3.6.
type together struct{ whole []string }

// An answer is bounded, since its values come in one frame.
const (
	mostTogether      = 32
	mostTogetherBytes = 32 << 20
)

// readers is how many requests of one call are under way at a time, where each is for one
// node. Where it is for several, answersAhead are.
const (
	readers      = 64
	answersAhead = 2
)

// serverReads is what a session knows of how its servers read several nodes.
type serverReads struct {
	failed  atomic.Int32 // requests in a row
	largest atomic.Int64 // value so far
}

// mostFailures in a row, and nodes are read one by one.
const mostFailures = 3

// many is how many nodes may be asked for at once, so that what is known of the values
// fits into an answer.
func (r *serverReads) many() int {
	if r.failed.Load() >= mostFailures {
		return 1
	}
	return int(max(1, min(mostTogether, mostTogetherBytes/max(1, r.largest.Load()))))
}

func (r *serverReads) saw(nodes []*data) {
	var most int64
	for _, d := range nodes {
		if d != nil {
			most = max(most, int64(len(d.value)))
		}
	}
	for n := r.largest.Load(); most > n && !r.largest.CompareAndSwap(n, most); n = r.largest.Load() {
	}
}

// found reads the nodes at paths, in their order; nil stands for what is gone.
func (s *session) found(ctx context.Context, paths []string) ([]*data, error) {
	many := s.reads.many()
	if len(paths) == 1 || many == 1 || !s.watches.all() { // servers that know the one know the other
		return s.singly(ctx, paths)
	}
	parts, err := each(ctx, slices.Collect(slices.Chunk(paths, many)), answersAhead, s.several)
	if err != nil {
		return nil, err
	}
	all := make([]*data, 0, len(paths))
	for _, part := range parts {
		all = append(all, *part...)
	}
	return all, nil
}

func (s *session) singly(ctx context.Context, paths []string) ([]*data, error) {
	found, err := each(ctx, paths, readers, func(ctx context.Context, path string) (data, error) {
		return s.allowedData(ctx, s.whole(path))
	})
	s.reads.saw(found)
	return found, err
}

// several reads at most mostTogether nodes at once; where that is not answered, one by one,
// which tells why.
func (s *session) several(ctx context.Context, paths []string) ([]*data, error) {
	t := together{whole: make([]string, len(paths))}
	for i, path := range paths {
		t.whole[i] = s.whole(path)
	}
	r := call(ctx, s, func(*zk.Conn) ([]*data, error) { return t.ask(s) })
	if r.err != nil && r.answered {
		return s.singly(ctx, paths)
	}
	for i, d := range r.value {
		if d == nil || !d.unreadable {
			continue
		}
		known, err := s.allowedData(ctx, t.whole[i])
		switch {
		case err == nil:
			*d = known
		case errors.Is(err, coord.ErrNotExist):
			r.value[i] = nil
		default:
			return nil, err
		}
	}
	s.reads.saw(r.value)
	return r.value, r.err
}

var (
	errMalformed = errors.New("not an answer of ZooKeeper")
	errSingly    = errors.New("one of several nodes may not be read")
)

// ask makes the request once, on the connection that stands.
func (t *together) ask(s *session) ([]*data, error) {
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if err := s.alive(); err != nil || c == nil || !c.greeted.Load() {
		return nil, zk.ErrConnectionClosed
	}
	type answer struct {
		code int32
		body []byte
	}
	ch := make(chan answer, 1)
	err := c.ask(opMultiRead, t.request(), func(code int32, body []byte) { ch <- answer{code, body} })
	if err != nil {
		return nil, zk.ErrConnectionClosed
	}
	var nodes []*data
	switch a := <-ch; a.code {
	case 0:
		nodes, err = t.parse(a.body)
	case codeUnimplemented:
		s.reads.failed.Store(mostFailures)
		return nil, errMalformed
	default: // of the whole there is none but that the connection is lost, or the session
		err = errMalformed
	}
	if errors.Is(err, errMalformed) {
		s.reads.failed.Add(1)
	} else {
		s.reads.failed.Store(0)
	}
	return nodes, err
}

// A part of the request, as of the answer, begins with type, done and error.
func appendPart(b []byte, op int32) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(op))
	done := byte(0)
	if op == opEnd {
		done = 1
	}
	return append(b, done, 0xff, 0xff, 0xff, 0xff)
}

const opEnd = -1 // as the type in a part: the end, or an error

func (t *together) request() []byte {
	var b []byte
	for _, path := range t.whole {
		b = appendBytes(appendPart(b, opGetData), []byte(path))
		b = append(b, 0) // no watch
	}
	return appendPart(b, opEnd)
}

// parse takes an answer: for each path its value and stat, or an error of its own.
func (t *together) parse(b []byte) ([]*data, error) {
	in := &jute{b: b}
	nodes := make([]*data, len(t.whole))
	for i := range nodes {
		switch op, done := in.part(); {
		case in.short, done:
			return nil, errMalformed
		case op == opEnd:
			switch code := in.int32(); {
			case in.short, code == 0:
				return nil, errMalformed
			case code == codeNoAuth:
				nodes[i] = &data{unreadable: true}
			case code != codeNoNode:
				return nil, errSingly
			}
		case op == opGetData:
			nodes[i] = &data{value: in.bytes(), stat: in.stat()}
		default:
			return nil, errMalformed
		}
	}
	if op, done := in.part(); op != opEnd || !done || len(in.b) > 0 {
		return nil, errMalformed
	}
	return nodes, nil
}

// jute reads what ZooKeeper writes. What is not there is zero, and short says so.
type jute struct {
	b     []byte
	short bool
}

func (j *jute) take(n int) []byte {
	if n < 0 || n > len(j.b) {
		j.short, j.b = true, nil
		return make([]byte, max(0, min(n, 8)))
	}
	b := j.b[:n]
	j.b = j.b[n:]
	return b
}

func (j *jute) int32() int32 { return int32(binary.BigEndian.Uint32(j.take(4))) }
func (j *jute) int64() int64 { return int64(binary.BigEndian.Uint64(j.take(8))) }

// bytes are a copy: of what was read with them much may be forgotten sooner.
func (j *jute) bytes() []byte {
	n := j.int32()
	if n < 0 { // null
		return nil
	}
	return slices.Clone(j.take(int(n)))
}

// part reads the type; the error is said again in what follows.
func (j *jute) part() (op int32, done bool) {
	op = j.int32()
	return op, j.take(1 + 4)[0] != 0
}

func (j *jute) stat() zk.Stat {
	return zk.Stat{
		Czxid: j.int64(), Mzxid: j.int64(), Ctime: j.int64(), Mtime: j.int64(),
		Version: j.int32(), Cversion: j.int32(), Aversion: j.int32(),
		EphemeralOwner: j.int64(), DataLength: j.int32(), NumChildren: j.int32(), Pzxid: j.int64(),
	}
}

// each asks for everything in of, several at a time; nil stands for what is gone.
func each[Q, T any](ctx context.Context, of []Q, readers int, ask func(context.Context, Q) (T, error)) ([]*T, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	found := make([]*T, len(of))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(readers, len(of)) {
		wg.Go(func() {
			for i := range next {
				v, err := ask(ctx, of[i])
				switch {
				case err == nil:
					found[i] = &v
				case !errors.Is(err, coord.ErrNotExist):
					cancel(err)
				}
			}
		})
	}
	for i := range of {
		next <- i
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return found, nil
}
