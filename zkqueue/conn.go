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
	"github.com/zkq/zkq/internal/secure"
)

// conn is one connection of a session. It sits between go-zookeeper and the network, and
// reads and writes whole frames. It keeps watch events, and the replies to requests of its
// own, from go-zookeeper; and it notes when the service was heard, which moves the
// session's deadline.
//
// Only one goroutine of go-zookeeper's reads. Several goroutines write, each a whole frame.
type conn struct {
	net.Conn
	s      *session
	server server
	reader *bufio.Reader
	// The longest wait for the next bytes.
	readTimeout time.Duration

	// The connect request was written; before that only one goroutine uses conn.
	connectSent bool
	// And was answered with a session.
	hasSession bool

	// The rest of a frame that was read whole and goes to go-zookeeper.
	buffered []byte
	// Bytes left of a frame that go-zookeeper reads as it comes.
	passThrough int
	// A request of go-zookeeper's, changed.
	rewritten []byte

	// Held for one frame.
	writeMu sync.Mutex

	mu sync.Mutex
	// Requests without a reply, by xid.
	requests map[int32]request
	// Callbacks for replies to requests that zkq sends itself, past go-zookeeper, by xid.
	ownRequests map[int32]replyFunc
	// Own requests so far.
	ownCount int32
	closed   bool

	// Other goroutines may write.
	preambleSent atomic.Bool
}

// request is what is kept of a request until its reply comes.
type request struct {
	sentAt time.Duration // by boottime, before the first byte was written
	op     int32
}

// replyFunc is called once with the reply to a request of our own, in the goroutine that
// reads. code is codeLost if there will be no reply.
type replyFunc func(code int32, body []byte)

// Opcodes, reserved xids, types of watch events and error codes. Our own requests have xids
// from firstOwnXid downwards: the service accepts any, and go-zookeeper ignores those that
// it does not know.
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

	xidConnect  = 0
	xidEvent    = -1
	xidAuth     = -4
	firstOwnXid = -1001

	nodeCreated         = 1
	nodeDeleted         = 2
	nodeChildrenChanged = 4

	codeLost          = -4 // the connection ended before the reply
	codeUnimplemented = -6
	codeNoNode        = -101
	codeNoAuth        = -102
	codeExpired       = -112
	codeMoved         = -118
)

// readBuffer holds most frames. Larger ones are read in parts.
const readBuffer = 64 << 10

// newConn returns the connection to a server, which must answer the connect request within
// the handshake timeout.
func newConn(c net.Conn, s *session, to server, handshake time.Duration) *conn {
	return &conn{
		Conn: c, s: s, server: to, readTimeout: handshake,
		reader:      bufio.NewReaderSize(c, readBuffer),
		requests:    make(map[int32]request),
		ownRequests: make(map[int32]replyFunc),
	}
}

// go-zookeeper sets deadlines that are ten times too long for the reply to a connect request.
// So they are ignored; conn sets its own for each read and write.

func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// Read returns frames to go-zookeeper. A failure before the connection has a session is
// what was wrong with the server.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.readPassed(p)
	if err != nil && !c.hasSession {
		c.s.dialer.noteFailure(c.server, explainNoSession(err))
	}
	return n, err
}

// readPassed returns the next bytes of frames that are meant for go-zookeeper.
func (c *conn) readPassed(p []byte) (int, error) {
	for c.passThrough == 0 && len(c.buffered) == 0 {
		if err := c.nextFrame(); err != nil {
			return 0, err
		}
	}
	if len(c.buffered) > 0 {
		n := copy(p, c.buffered)
		c.buffered = c.buffered[n:]
		return n, nil
	}
	if err := c.awaitBytes(1); err != nil {
		return 0, err
	}
	n, err := c.reader.Read(p[:min(len(p), c.passThrough)])
	c.passThrough -= n
	return n, err
}

// awaitBytes sets the read deadline unless the next n bytes are in the buffer.
func (c *conn) awaitBytes(n int) error {
	if c.reader.Buffered() >= n {
		return nil
	}
	return c.Conn.SetReadDeadline(time.Now().Add(c.readTimeout))
}

// peek returns the next n bytes without taking them.
func (c *conn) peek(n int) ([]byte, error) {
	if err := c.awaitBytes(n); err != nil {
		return nil, err
	}
	return c.reader.Peek(n)
}

// headerBytes is how much of each frame is looked at first: the header of a reply (xid,
// zxid, error), or the start of a connect response.
const headerBytes = 16

// maxReplyFrame bounds a frame from the service, since go-zookeeper allocates what the
// length says. A listing of three million names is shorter.
const maxReplyFrame = 128 << 20

// frameError is a frame with an impossible length.
type frameError uint32

func (e frameError) Error() string { return fmt.Sprintf("a frame of %d bytes", uint32(e)) }

// nextFrame reads the next frame's header. It handles watch events and the replies to our
// own requests; every other frame goes to go-zookeeper. After the connect response each
// frame from the service is
//
//	length 4 | xid 4 | zxid 8 | error 4 | body
//
// where length counts what follows it. A watch event has xid -1, the reply to the
// credentials -4, a ping -2.
func (c *conn) nextFrame() error {
	head, err := c.peek(4)
	if err != nil {
		return err
	}
	length := int(binary.BigEndian.Uint32(head))
	if length < headerBytes || length > maxReplyFrame {
		return frameError(length)
	}
	if head, err = c.peek(4 + headerBytes); err != nil {
		return err
	}
	if !c.hasSession {
		return c.connectResponse(length)
	}
	head = head[4:]
	xid, code := int32(binary.BigEndian.Uint32(head)), int32(binary.BigEndian.Uint32(head[12:]))
	switch {
	case xid == xidEvent:
		return c.watchEvent(length)
	case xid == xidAuth && code != 0:
		err := fmt.Errorf("user %q: %w", c.s.cfg.Username, coord.ErrAuth)
		c.s.dialer.noteFailure(c.server, err)
		return err
	}
	c.mu.Lock()
	request, sent := c.requests[xid]
	delete(c.requests, xid)
	reply, own := c.ownRequests[xid]
	delete(c.ownRequests, xid)
	c.mu.Unlock()
	// Any reply shows that the service knew the session when it read the request.
	if sent {
		c.s.deadline.Extend(request.sentAt)
	}
	if xid >= 0 && request.op == opMulti && code == 0 {
		return c.bufferMulti(length)
	}
	if xid >= 0 {
		c.passThrough = 4 + length
		return nil
	}
	// The reply to a ping, or to a request of our own whose reply is not needed.
	if !own || reply == nil {
		return c.discard(4 + length)
	}
	if err := c.discard(4 + headerBytes); err != nil {
		reply(codeLost, nil)
		return err
	}
	body := make([]byte, length-headerBytes)
	if err := c.readFull(body); err != nil {
		reply(codeLost, nil)
		return err
	}
	reply(code, body)
	return nil
}

// bufferMulti reads the answer to a multi whole and checks it. go-zookeeper would panic
// over one that is cut short. Such an answer ends the connection, and the outcome of all
// its requests is unknown.
func (c *conn) bufferMulti(length int) error {
	answer := make([]byte, 4+length)
	if err := c.readFull(answer); err != nil {
		return err
	}
	if !isCompleteMulti(answer[4+headerBytes:]) {
		return errMalformed
	}
	c.buffered = answer
	return nil
}

// isCompleteMulti reports whether an answer to a multi can be decoded to its end.
func isCompleteMulti(b []byte) bool {
	for in := (&jute{rest: b}); ; {
		op, done := in.partHeader()
		switch {
		case in.short:
			return false
		case done:
			return len(in.rest) == 0
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

// readFull fills b. The read deadline starts anew with each part of it.
func (c *conn) readFull(b []byte) error {
	for len(b) > 0 {
		if err := c.awaitBytes(1); err != nil {
			return err
		}
		n, err := c.reader.Read(b)
		b = b[n:]
		if err != nil {
			return err
		}
	}
	return nil
}

// discard skips the next n bytes.
func (c *conn) discard(n int) error {
	if err := c.awaitBytes(n); err != nil {
		return err
	}
	_, err := c.reader.Discard(n)
	return err
}

// watchEvent reads a watch event and passes it to the cache. Its body is
//
//	type 4 | state 4 | length of path 4 | path
func (c *conn) watchEvent(length int) error {
	if err := c.discard(4 + headerBytes); err != nil {
		return err
	}
	length -= headerBytes
	body, err := c.peek(min(length, readBuffer))
	if err != nil {
		return err
	}
	if length > readBuffer { // the path is longer than the buffer
		body = make([]byte, length)
		if _, err := io.ReadFull(c.reader, body); err != nil {
			return err
		}
		length = 0
	}
	if len(body) < 12 || len(body)-12 != int(binary.BigEndian.Uint32(body[8:])) {
		return errors.New("malformed watch event")
	}
	c.s.cache.handleEvent(c, int32(binary.BigEndian.Uint32(body)), body[12:])
	return c.discard(length)
}

// Close closes the connection. Requests of our own without a reply get codeLost.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closed = true
	pending := c.ownRequests
	c.ownRequests = nil
	c.mu.Unlock()
	for _, reply := range pending {
		if reply != nil {
			reply(codeLost, nil)
		}
	}
	return c.Conn.Close()
}

// explainNoSession says why a connection ended before it had a session.
func explainNoSession(err error) error {
	var length frameError
	switch {
	case errors.As(err, &length) && length>>16 == 0x1503: // the length and type of a TLS alert
		return fmt.Errorf("the server speaks TLS: %w", coord.ErrTLS)
	case errors.As(err, &length):
		return fmt.Errorf("not a ZooKeeper server: %w", err)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return errors.New("the server closed the connection before it granted a session")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("connected, but no answer")
	}
	return secure.ReadError(err)
}

// connectResponse reads the connect response, gives it to the session and keeps it for
// go-zookeeper. The frame is
//
//	length 4 | version 4 | timeout in ms 4 | session 8 | password
//
// A session of 0 means that the session which was asked for has expired.
func (c *conn) connectResponse(length int) error {
	if length > 256 {
		return frameError(length)
	}
	hello, err := c.peek(4 + length)
	if err != nil {
		return err
	}
	c.buffered = slices.Clone(hello)
	if err := c.discard(4 + length); err != nil {
		return err
	}
	head := c.buffered[4:]
	timeout := time.Duration(int32(binary.BigEndian.Uint32(head[4:]))) * time.Millisecond
	id := int64(binary.BigEndian.Uint64(head[8:]))
	c.mu.Lock()
	sentAt := c.requests[xidConnect].sentAt
	delete(c.requests, xidConnect)
	c.mu.Unlock()
	if err := c.s.takeGrant(id, timeout, sentAt); err != nil {
		return err
	}
	c.hasSession = true
	c.readTimeout = timeout / 2
	return c.sendPreamble()
}

// sendPreamble sends what must come before the first request of a connection: the
// credentials, the session's watches, and a multi that changes nothing. The multi is a
// barrier, since this server may be behind the one whose watch events the session saw last.
// No other goroutine writes yet, because go-zookeeper is still reading the connect
// response.
func (c *conn) sendPreamble() error {
	if c.s.cfg.Username != "" {
		credentials := []byte(c.s.cfg.Username + ":" + c.s.cfg.Password)
		body := binary.BigEndian.AppendUint32(nil, 0) // auth type, which is always 0
		body = appendBytes(body, []byte("digest"))
		body = appendBytes(body, credentials)
		if err := c.writeRequest(xidAuth, opAuth, body); err != nil {
			return err
		}
	}
	if err := c.s.cache.followAll(c); err != nil {
		return err
	}
	// A server that does not know addWatch closes the connection, and requests that it had not
	// read would go without an answer. So find out before anything else is sent.
	for !c.s.watches.known() && c.hasOwnPending() {
		if err := c.nextFrame(); err != nil {
			return err
		}
	}
	end := []byte{0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff} // type -1, done, error -1
	if err := c.sendOwn(opMulti, end, nil); err != nil {
		return err
	}
	c.preambleSent.Store(true)
	return nil
}

// sendOwn sends a request of our own. reply, if not nil, is called with the answer, but not
// necessarily when sendOwn returns an error.
func (c *conn) sendOwn(op int32, body []byte, reply replyFunc) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	xid := firstOwnXid - c.ownCount
	c.ownCount = (c.ownCount + 1) % (1 << 30)
	c.ownRequests[xid] = reply
	c.mu.Unlock()
	err := c.writeRequest(xid, op, body)
	if err != nil {
		c.mu.Lock()
		delete(c.ownRequests, xid)
		c.mu.Unlock()
	}
	return err
}

// hasOwnPending reports whether a request of our own has no reply yet.
func (c *conn) hasOwnPending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ownRequests) > 0
}

// addWatch asks for an event for each change at or below path.
func (c *conn) addWatch(path string, reply replyFunc) error {
	const recursive = 1
	return c.sendOwn(opAddWatch, binary.BigEndian.AppendUint32(appendBytes(nil, []byte(path)), recursive), reply)
}

// removeWatch ends all watches on path.
func (c *conn) removeWatch(path string) error {
	const any = 3
	return c.sendOwn(opRemoveWatches, binary.BigEndian.AppendUint32(appendBytes(nil, []byte(path)), any), nil)
}

// writeRequest sends a request that go-zookeeper does not know of.
func (c *conn) writeRequest(xid, op int32, body []byte) error {
	frame := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	frame = binary.BigEndian.AppendUint32(frame, uint32(xid))
	frame = binary.BigEndian.AppendUint32(frame, uint32(op))
	_, err := c.writeTracked(xid, op, append(frame, body...))
	return err
}

// Write sends one frame of go-zookeeper's, unless the session is over.
func (c *conn) Write(p []byte) (int, error) {
	if len(p) < 12 || int(binary.BigEndian.Uint32(p)) != len(p)-4 {
		return 0, errors.New("zkqueue: go-zookeeper wrote something other than one frame")
	}
	if !c.connectSent {
		c.connectSent = true
		if err := c.s.checkAlive(); err != nil {
			return 0, err
		}
		return c.writeTracked(xidConnect, 0, p)
	}
	xid := int32(binary.BigEndian.Uint32(p[4:]))
	op := int32(binary.BigEndian.Uint32(p[8:]))
	if err := c.s.checkSend(); err != nil {
		return 0, err
	}
	if (op == opGetChildren || op == opExists) && len(p) > 17 && c.s.cache.wantsOneShotWatch(c, op, p[16:len(p)-1]) {
		// The last byte of the request asks for a watch. go-zookeeper would keep a channel for each
		// such request, set all of them again on each connection from a zxid that may be too late,
		// and never drop one that does not fire. Our watches end with the connection, and the server
		// keeps one per path.
		c.rewritten = append(c.rewritten[:0], p...)
		c.rewritten[len(c.rewritten)-1] = 1
		return c.writeTracked(xid, op, c.rewritten)
	}
	return c.writeTracked(xid, op, p)
}

// writeTracked notes the time and sends the frame. The time is taken first, because the
// service may count the session timeout from any moment after.
func (c *conn) writeTracked(xid, op int32, frame []byte) (int, error) {
	c.mu.Lock()
	if _, ok := c.requests[xid]; !ok { // all pings have the same xid: the oldest counts
		c.requests[xid] = request{boottime.Now(), op}
	}
	c.mu.Unlock()
	n, err := c.writeFrame(frame)
	if err != nil {
		c.Close() // the server may have received a part of the frame
	}
	return n, err
}

// writeFrame writes one frame.
func (c *conn) writeFrame(frame []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.readTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(frame)
}
