package zkqueue

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"github.com/go-zookeeper/zk"
)

// multiRead is a request for several nodes, which go-zookeeper does not know: multiRead,
// of ZooKeeper 3.6.
type multiRead struct{ fullPaths []string }

// An answer is bounded, since its values come in one frame.
const (
	maxReadNodes = 32
	maxReadBytes = 32 << 20
)

// multiReadSupport is what a session knows of how its servers read several nodes.
type multiReadSupport struct {
	failures     atomic.Int32 // requests in a row
	largestValue atomic.Int64 // value so far
}

// maxFailures in a row, and nodes are read one by one.
const maxFailures = 3

// nodesPerRequest is how many nodes may be asked for at once, so that what is known of the values
// fits into an answer.
func (r *multiReadSupport) nodesPerRequest() int {
	if r.failures.Load() >= maxFailures {
		return 1
	}
	return int(max(1, min(maxReadNodes, maxReadBytes/max(1, r.largestValue.Load()))))
}

func (r *multiReadSupport) noteValues(nodes []*data) {
	var most int64
	for _, d := range nodes {
		if d != nil {
			most = max(most, int64(len(d.value)))
		}
	}
	for n := r.largestValue.Load(); most > n && !r.largestValue.CompareAndSwap(n, most); n = r.largestValue.Load() {
	}
}

var (
	errMalformed      = errors.New("not an answer of ZooKeeper")
	errUnreadableNode = errors.New("one of several nodes may not be read")
)

// send makes the request once, on the connection that stands.
func (t *multiRead) send(s *session) ([]*data, error) {
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if err := s.checkAlive(); err != nil || c == nil || !c.preambleSent.Load() {
		return nil, zk.ErrConnectionClosed
	}
	type answer struct {
		code int32
		body []byte
	}
	ch := make(chan answer, 1)
	err := c.sendOwn(opMultiRead, t.encode(), func(code int32, body []byte) { ch <- answer{code, body} })
	if err != nil {
		return nil, zk.ErrConnectionClosed
	}
	var nodes []*data
	switch a := <-ch; a.code {
	case 0:
		nodes, err = t.parse(a.body)
	case codeUnimplemented:
		s.multiReads.failures.Store(maxFailures)
		return nil, errMalformed
	default: // of the whole there is none but that the connection is lost, or the session
		err = errMalformed
	}
	if errors.Is(err, errMalformed) {
		s.multiReads.failures.Add(1)
	} else {
		s.multiReads.failures.Store(0)
	}
	return nodes, err
}

// A part of the request, as of the answer, begins with type, done and error.
func appendPartHeader(b []byte, op int32) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(op))
	done := byte(0)
	if op == opEnd {
		done = 1
	}
	return append(b, done, 0xff, 0xff, 0xff, 0xff)
}

const opEnd = -1 // as the type in a part: the end, or an error

func (t *multiRead) encode() []byte {
	var b []byte
	for _, path := range t.fullPaths {
		b = appendBytes(appendPartHeader(b, opGetData), []byte(path))
		b = append(b, 0) // no watch
	}
	return appendPartHeader(b, opEnd)
}

// parse takes an answer: for each path its value and stat, or an error of its own.
func (t *multiRead) parse(b []byte) ([]*data, error) {
	in := &jute{rest: b}
	nodes := make([]*data, len(t.fullPaths))
	for i := range nodes {
		switch op, done := in.partHeader(); {
		case in.short, done:
			return nil, errMalformed
		case op == opEnd:
			switch code := in.int32(); {
			case in.short, code == 0:
				return nil, errMalformed
			case code == codeNoAuth:
				nodes[i] = &data{unreadable: true}
			case code != codeNoNode:
				return nil, errUnreadableNode
			}
		case op == opGetData:
			nodes[i] = &data{value: in.bytes(), stat: in.stat()}
		default:
			return nil, errMalformed
		}
	}
	if op, done := in.partHeader(); op != opEnd || !done || len(in.rest) > 0 {
		return nil, errMalformed
	}
	return nodes, nil
}
