package zkqueue

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/boottime"
)

// conn is one connection of a session. It sees each frame in both directions, and keeps
// from go-zookeeper the watch events and the answers to what it asked itself.
type conn struct {
	net.Conn
	s       *session
	server  server
	r       *bufio.Reader
	silence time.Duration // the longest wait for the next bytes

	// Only go-zookeeper's connecting goroutine uses these, before all others.
	asked    bool // the connect request was written
	admitted bool // and answered with a session

	ready []byte // what is left of a frame that was read whole and goes to go-zookeeper
	pass  int    // bytes left of a frame that goes to go-zookeeper
	out   []byte // what it wrote, changed

	writing sync.Mutex // one frame at a time

	mu    sync.Mutex
	sent  map[int32]request // by xid, what was not answered yet
	own   map[int32]answered
	asks  int32 // how many of our own
	ended bool

	greeted atomic.Bool // others may write
}

// request is what is remembered of a request until its answer comes.
type request struct {
	at time.Duration // before it was sent
	op int32
}

// answered is called with the answer to a request of our own, once, in the goroutine that
// reads.
type answered func(code int32, body []byte)

// The opcodes and reserved xids that a conn knows, and the types of watch events. Our own
// requests count down from the highest xid that is ours: the service takes any.
const (
	opCreate        = 1
	opDelete        = 2
	opExists        = 3
	opGetData       = 4
	opSetData       = 5
	opGetChildren   = 12
	opCheck         = 13
	opMulti         = 14
	opRemoveWatches = 18
	opMultiRead     = 22
	opAuth          = 100
	opAddWatch      = 106

	xidConnect = 0
	xidEvent   = -1
	xidAuth    = -4
	xidOwn     = -1001

	nodeCreated         = 1
	nodeDeleted         = 2
	nodeChildrenChanged = 4

	codeLost          = -4 // the connection was, before an answer came
	codeUnimplemented = -6
	codeNoNode        = -101
	codeNoAuth        = -102
	codeExpired       = -112
	codeMoved         = -118
)

const readBuffer = 64 << 10

func newConn(c net.Conn, s *session, to server, handshake time.Duration) *conn {
	return &conn{
		Conn: c, s: s, server: to, silence: handshake,
		r:    bufio.NewReaderSize(c, readBuffer),
		sent: make(map[int32]request),
		own:  make(map[int32]answered),
	}
}

// go-zookeeper's deadlines would wait ten times too long for the answer to a connect
// request; Read and Write set their own.

func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.read(p)
	if err != nil && !c.admitted {
		c.s.dialer.failed(c.server, noSession(err))
	}
	return n, err
}

func (c *conn) read(p []byte) (int, error) {
	for c.pass == 0 && len(c.ready) == 0 {
		if err := c.frame(); err != nil {
			return 0, err
		}
	}
	if len(c.ready) > 0 {
		n := copy(p, c.ready)
		c.ready = c.ready[n:]
		return n, nil
	}
	if err := c.wait(1); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p[:min(len(p), c.pass)])
	c.pass -= n
	return n, err
}

// wait bounds the wait for the next n bytes, if they are not here.
func (c *conn) wait(n int) error {
	if c.r.Buffered() >= n {
		return nil
	}
	return c.Conn.SetReadDeadline(time.Now().Add(c.silence))
}

func (c *conn) peek(n int) ([]byte, error) {
	if err := c.wait(n); err != nil {
		return nil, err
	}
	return c.r.Peek(n)
}

// headBytes is how much of a frame is looked at first: the header of a reply (xid, zxid,
// error), or what matters of a connect response.
const headBytes = 16

// mostBytes bounds a frame, since go-zookeeper makes room for whatever it is told.
// A listing of three million names is shorter.
const mostBytes = 128 << 20

type frameError uint32

func (e frameError) Error() string { return fmt.Sprintf("a frame of %d bytes", uint32(e)) }

// frame looks at the next frame. It takes what is ours, as all that answers nothing that
// go-zookeeper waits for, and lets the others pass.
func (c *conn) frame() error {
	head, err := c.peek(4)
	if err != nil {
		return err
	}
	length := int(binary.BigEndian.Uint32(head))
	if length < headBytes || length > mostBytes {
		return frameError(length)
	}
	if head, err = c.peek(4 + headBytes); err != nil {
		return err
	}
	if !c.admitted {
		return c.connected(length)
	}
	head = head[4:]
	xid, code := int32(binary.BigEndian.Uint32(head)), int32(binary.BigEndian.Uint32(head[12:]))
	switch {
	case xid == xidEvent:
		return c.event(length)
	case xid == xidAuth && code != 0:
		err := fmt.Errorf("user %q: %w", c.s.cfg.Username, coord.ErrAuth)
		c.s.dialer.failed(c.server, err)
		return err
	}
	c.mu.Lock()
	request, sent := c.sent[xid]
	delete(c.sent, xid)
	then, own := c.own[xid]
	delete(c.own, xid)
	c.mu.Unlock()
	if sent {
		c.s.deadline.Extend(request.at)
	}
	if xid >= 0 && request.op == opMulti && code == 0 {
		return c.multi(length)
	}
	if xid >= 0 {
		c.pass = 4 + length
		return nil
	}
	if !own || then == nil {
		return c.discard(4 + length)
	}
	if err := c.discard(4 + headBytes); err != nil {
		then(codeLost, nil)
		return err
	}
	body := make([]byte, length-headBytes)
	if err := c.fill(body); err != nil {
		then(codeLost, nil)
		return err
	}
	then(code, body)
	return nil
}

// multi reads the answer to a multi whole and checks it before go-zookeeper decodes it,
// which would end the process over one that is cut short. An answer that does not parse
// ends the connection: the outcome of everything on it is unknown.
func (c *conn) multi(length int) error {
	answer := make([]byte, 4+length)
	if err := c.fill(answer); err != nil {
		return err
	}
	if !wholeMulti(answer[4+headBytes:]) {
		return errMalformed
	}
	c.ready = answer
	return nil
}

// wholeMulti reports whether an answer to a multi can be decoded to its end.
func wholeMulti(b []byte) bool {
	for in := (&jute{b: b}); ; {
		op, done := in.part()
		switch {
		case in.short:
			return false
		case done:
			return len(in.b) == 0
		case op == opEnd:
			in.int32()
		case op == opCreate:
			in.bytes()
		case op == opSetData:
			in.stat()
		case op != opDelete && op != opCheck:
			return false
		}
	}
}

// fill reads all of b. Each part of it may take as long as a frame.
func (c *conn) fill(b []byte) error {
	for len(b) > 0 {
		if err := c.wait(1); err != nil {
			return err
		}
		n, err := c.r.Read(b)
		b = b[n:]
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) discard(n int) error {
	if err := c.wait(n); err != nil {
		return err
	}
	_, err := c.r.Discard(n)
	return err
}

// event takes a watch event: type, state, path.
func (c *conn) event(length int) error {
	if err := c.discard(4 + headBytes); err != nil {
		return err
	}
	length -= headBytes
	body, err := c.peek(min(length, readBuffer))
	if err != nil {
		return err
	}
	if length > readBuffer { // a path that long is rare
		body = make([]byte, length)
		if _, err := io.ReadFull(c.r, body); err != nil {
			return err
		}
		length = 0
	}
	if len(body) < 12 || len(body)-12 != int(binary.BigEndian.Uint32(body[8:])) {
		return errors.New("not an event of ZooKeeper")
	}
	c.s.dirs.event(c, int32(binary.BigEndian.Uint32(body)), body[12:])
	return c.discard(length)
}

// Close is the connection's end. What we asked and was not answered never will be.
func (c *conn) Close() error {
	c.mu.Lock()
	c.ended = true
	own := c.own
	c.own = nil
	c.mu.Unlock()
	for _, then := range own {
		if then != nil {
			then(codeLost, nil)
		}
	}
	return c.Conn.Close()
}

// noSession says what a connection came to that ended before it had a session.
func noSession(err error) error {
	var length frameError
	var op *net.OpError
	switch {
	case errors.As(err, &length) && length>>16 == 0x1503: // an alert of TLS
		return fmt.Errorf("the server speaks TLS: %w", coord.ErrTLS)
	case errors.As(err, &length):
		return fmt.Errorf("not a ZooKeeper server: %w", err)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return errors.New("the server closed the connection before it gave a session")
	case errors.As(err, &op) && op.Op == "remote error": // TLS 1.3 refuses a client late
		return fmt.Errorf("%w: %w", coord.ErrTLS, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("connected, but no answer")
	}
	return err
}

// connected reads the connect response: version, timeout, session.
func (c *conn) connected(length int) error {
	if length > 256 {
		return frameError(length)
	}
	hello, err := c.peek(4 + length)
	if err != nil {
		return err
	}
	c.ready = slices.Clone(hello)
	if err := c.discard(4 + length); err != nil {
		return err
	}
	head := c.ready[4:]
	timeout := time.Duration(int32(binary.BigEndian.Uint32(head[4:]))) * time.Millisecond
	id := int64(binary.BigEndian.Uint64(head[8:]))
	c.mu.Lock()
	at := c.sent[xidConnect].at
	delete(c.sent, xidConnect)
	c.mu.Unlock()
	if err := c.s.admit(id, timeout, at); err != nil {
		return err
	}
	c.admitted = true
	c.silence = timeout / 2
	return c.greet()
}

// greet sends what must come before the first request of a connection: who we are, the
// watches of the session, and a barrier, since the server may be behind the one whose
// watch events we saw. go-zookeeper is still reading the connect response, so that
// nobody else writes.
func (c *conn) greet() error {
	if c.s.cfg.Username != "" {
		credentials := []byte(c.s.cfg.Username + ":" + c.s.cfg.Password)
		body := binary.BigEndian.AppendUint32(nil, 0) // auth type, always 0
		body = appendBytes(body, []byte("digest"))
		body = appendBytes(body, credentials)
		if err := c.send(xidAuth, opAuth, body); err != nil {
			return err
		}
	}
	if err := c.s.dirs.attach(c); err != nil {
		return err
	}
	// Whether the server knows our watches must be known before anything else is sent: one
	// that does not ends the connection, and what it had not read would cost the answer.
	for !c.s.watches.known() && c.waits() {
		if err := c.frame(); err != nil {
			return err
		}
	}
	end := []byte{0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff} // type -1, done, error -1
	if err := c.ask(opMulti, end, nil); err != nil {
		return err
	}
	c.greeted.Store(true)
	return nil
}

// ask sends a request of our own; then, if not nil, is called with what comes of it. It
// need not be when ask returns an error.
func (c *conn) ask(op int32, body []byte, then answered) error {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return net.ErrClosed
	}
	xid := xidOwn - c.asks
	c.asks = (c.asks + 1) % (1 << 30)
	c.own[xid] = then
	c.mu.Unlock()
	err := c.send(xid, op, body)
	if err != nil {
		c.mu.Lock()
		delete(c.own, xid)
		c.mu.Unlock()
	}
	return err
}

// waits says that something of our own was not answered.
func (c *conn) waits() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.own) > 0
}

// addWatch asks for an event of each change to what is, or will be, beneath path.
func (c *conn) addWatch(path string, then answered) error {
	const recursive = 1
	return c.ask(opAddWatch, binary.BigEndian.AppendUint32(appendBytes(nil, []byte(path)), recursive), then)
}

func (c *conn) removeWatch(path string) error {
	const any = 3
	return c.ask(opRemoveWatches, binary.BigEndian.AppendUint32(appendBytes(nil, []byte(path)), any), nil)
}

func (c *conn) send(xid, op int32, body []byte) error {
	frame := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	frame = binary.BigEndian.AppendUint32(frame, uint32(xid))
	frame = binary.BigEndian.AppendUint32(frame, uint32(op))
	_, err := c.write(xid, op, append(frame, body...))
	return err
}

func appendBytes(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
}

func (c *conn) Write(p []byte) (int, error) {
	if len(p) < 12 || int(binary.BigEndian.Uint32(p)) != len(p)-4 {
		return 0, errors.New("zkqueue: go-zookeeper wrote something else than one frame")
	}
	if !c.asked {
		c.asked = true
		if err := c.s.alive(); err != nil {
			return 0, err
		}
		return c.write(xidConnect, 0, p)
	}
	xid := int32(binary.BigEndian.Uint32(p[4:]))
	op := int32(binary.BigEndian.Uint32(p[8:]))
	if err := c.s.maySend(); err != nil {
		return 0, err
	}
	if (op == opGetChildren || op == opExists) && len(p) > 17 && c.s.dirs.oneShot(c, op, p[16:len(p)-1]) {
		// The request's last byte asks for a watch. go-zookeeper would keep one more
		// channel for each, set them all again on each new connection, by a zxid that
		// may already be too late, and never let go of one that does not fire. Ours
		// end with their connection, and the server keeps one per path.
		c.out = append(c.out[:0], p...)
		c.out[len(c.out)-1] = 1
		return c.write(xid, op, c.out)
	}
	return c.write(xid, op, p)
}

// write notes when the frame went before it goes: the service may count a session's
// time from any moment after.
func (c *conn) write(xid, op int32, frame []byte) (int, error) {
	c.mu.Lock()
	if _, ok := c.sent[xid]; !ok { // pings share an xid: the oldest counts
		c.sent[xid] = request{boottime.Now(), op}
	}
	c.mu.Unlock()
	n, err := c.put(frame)
	if err != nil {
		c.Close() // the server may have a part of it
	}
	return n, err
}

func (c *conn) put(frame []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	return c.Conn.Write(frame)
}
