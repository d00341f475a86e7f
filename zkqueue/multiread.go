package zkqueue

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"github.com/go-zookeeper/zk"
)

// multiRead is a request for several nodes at once. ZooKeeper has it since 3.6, and
// go-zookeeper does not. The request and the answer are a row of parts, each with a header
// (type 4 | done 1 | error 4) and, in the answer, either the node's value and metadata or
// the node's own error. The last part has the type -1 and done set.
type multiRead struct{ fullPaths []string }

// The values of an answer come in one frame, so one request is bounded in nodes and in
// bytes.
const (
	maxReadNodes = 32
	maxReadBytes = 32 << 20
)

// multiReadSupport is what a session has learned about its servers' answers to multiRead.
type multiReadSupport struct {
	failures     atomic.Int32 // in a row
	largestValue atomic.Int64 // bytes of the largest value read so far
}

// maxFailures is how many failures in a row end the use of multiRead.
const maxFailures = 3

// nodesPerRequest returns how many nodes to ask for at once, so that the answer is not too
// large if every value is as large as the largest so far.
func (r *multiReadSupport) nodesPerRequest() int {
	if r.failures.Load() >= maxFailures {
		return 1
	}
	return int(max(1, min(maxReadNodes, maxReadBytes/max(1, r.largestValue.Load()))))
}

// noteValues notes the largest value among nodes.
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

// errMalformed is an answer that cannot be decoded, and errUnreadableNode an answer of
// which a part has another error than that its node is missing or forbidden.
var (
	errMalformed      = errors.New("malformed answer")
	errUnreadableNode = errors.New("one of the nodes cannot be read")
)

// send makes the request on the current connection, without a retry.
func (m *multiRead) send(s *session) ([]*data, error) {
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
	err := c.sendOwn(opMultiRead, m.encode(), func(code int32, body []byte) { ch <- answer{code, body} })
	if err != nil {
		return nil, zk.ErrConnectionClosed
	}
	var nodes []*data
	switch a := <-ch; a.code {
	case 0:
		nodes, err = m.parse(a.body)
	case codeUnimplemented:
		s.multiReads.failures.Store(maxFailures)
		return nil, errMalformed
	default: // an error of the whole answer: the connection or the session ended
		err = errMalformed
	}
	if errors.Is(err, errMalformed) {
		s.multiReads.failures.Add(1)
	} else {
		s.multiReads.failures.Store(0)
	}
	return nodes, err
}

// appendPartHeader begins a part of a request, as of an answer: type, done and error.
func appendPartHeader(b []byte, op int32) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(op))
	done := byte(0)
	if op == opEnd {
		done = 1
	}
	return append(b, done, 0xff, 0xff, 0xff, 0xff)
}

const opEnd = -1 // the type of the last part, and of a part that is an error

// encode returns the request's body.
func (m *multiRead) encode() []byte {
	var b []byte
	for _, path := range m.fullPaths {
		b = appendBytes(appendPartHeader(b, opGetData), []byte(path))
		b = append(b, 0) // no watch
	}
	return appendPartHeader(b, opEnd)
}

// parse returns one element per path: the node's data, or nil if it does not exist. A node
// that may not be read has the mark unreadable.
func (m *multiRead) parse(b []byte) ([]*data, error) {
	in := &jute{rest: b}
	nodes := make([]*data, len(m.fullPaths))
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
