package zkqueue

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/boottime"
)

// conn is one connection of a session. It sees each frame in both directions.
type conn struct {
	net.Conn
	s       *session
	address string
	r       *bufio.Reader
	in      frames
	silence time.Duration // the longest wait for the next bytes

	// Only go-zookeeper's connecting goroutine uses these, before all others.
	asked    bool // the connect request was written
	admitted bool // and answered with a session

	mu   sync.Mutex
	sent map[int32]time.Duration // when, by xid, what was not answered yet
	out  []byte
}

// The opcodes and reserved xids that a conn knows. go-zookeeper ignores replies to
// the xids that are ours.
const (
	opExists      = 3
	opGetChildren = 12
	opMulti       = 14
	opAuth        = 100

	xidConnect = 0
	xidAuth    = -4
	xidBarrier = -1001
)

const readBuffer = 64 << 10

func newConn(c net.Conn, s *session, address string, handshake time.Duration) *conn {
	return &conn{
		Conn: c, s: s, address: address, silence: handshake,
		r:    bufio.NewReaderSize(c, readBuffer),
		sent: make(map[int32]time.Duration),
	}
}

// go-zookeeper's deadlines would wait ten times too long for the answer to a connect
// request; Read and Write set their own.

func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

func (c *conn) Read(p []byte) (int, error) {
	if c.r.Buffered() == 0 {
		if err := c.Conn.SetReadDeadline(time.Now().Add(c.silence)); err != nil {
			return 0, err
		}
	}
	n, err := c.r.Read(p)
	if err == nil {
		err = c.in.feed(p[:n], c.received)
	}
	if err != nil {
		if !c.admitted {
			c.s.dialer.failed(c.address, noSession(err))
		}
		return 0, err
	}
	return n, nil
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

// received looks at a frame's first bytes before go-zookeeper gets them.
func (c *conn) received(length int, head [headBytes]byte) error {
	if !c.admitted {
		return c.connected(length, head)
	}
	xid := int32(binary.BigEndian.Uint32(head[:]))
	if xid == xidAuth && binary.BigEndian.Uint32(head[12:]) != 0 {
		err := fmt.Errorf("user %q: %w", c.s.cfg.Username, coord.ErrAuth)
		c.s.dialer.failed(c.address, err)
		return err
	}
	c.mu.Lock()
	at, ok := c.sent[xid]
	delete(c.sent, xid)
	c.mu.Unlock()
	if ok {
		c.s.heard(at)
	}
	return nil
}

// connected reads the connect response: version, timeout, session.
func (c *conn) connected(length int, head [headBytes]byte) error {
	if length > 256 {
		return frameError(length)
	}
	timeout := time.Duration(int32(binary.BigEndian.Uint32(head[4:]))) * time.Millisecond
	id := int64(binary.BigEndian.Uint64(head[8:]))
	c.mu.Lock()
	at := c.sent[xidConnect]
	delete(c.sent, xidConnect)
	c.mu.Unlock()
	if err := c.s.admit(id, timeout, at); err != nil {
		return err
	}
	c.admitted = true
	c.silence = timeout / 2
	return c.greet()
}

// greet sends what must come before the first request of a connection: who we are,
// and a barrier, since the server may be behind the one whose watch events we saw.
// go-zookeeper is still reading the connect response, so that nobody else writes.
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
	end := []byte{0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff} // type -1, done, error -1
	return c.send(xidBarrier, opMulti, end)
}

func (c *conn) send(xid, op int32, body []byte) error {
	frame := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	frame = binary.BigEndian.AppendUint32(frame, uint32(xid))
	frame = binary.BigEndian.AppendUint32(frame, uint32(op))
	_, err := c.write(xid, append(frame, body...))
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
		return c.write(xidConnect, p)
	}
	xid := int32(binary.BigEndian.Uint32(p[4:]))
	op := int32(binary.BigEndian.Uint32(p[8:]))
	if err := c.s.maySend(); err != nil {
		return 0, err
	}
	if op == opGetChildren || op == opExists {
		// The request's last byte asks for a watch. go-zookeeper would keep one more
		// channel for each, set them all again on each new connection, by a zxid that
		// may already be too late, and never let go of one that does not fire. Ours
		// end with their connection, and the server keeps one per path.
		c.out = append(c.out[:0], p...)
		c.out[len(c.out)-1] = 1
		return c.write(xid, c.out)
	}
	return c.write(xid, p)
}

// write notes when the frame went before it goes: the service may count a session's
// time from any moment after.
func (c *conn) write(xid int32, frame []byte) (int, error) {
	c.mu.Lock()
	if _, ok := c.sent[xid]; !ok { // pings share an xid: the oldest counts
		c.sent[xid] = boottime.Now()
	}
	c.mu.Unlock()
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	return c.Conn.Write(frame)
}

// frames finds where frames begin in a stream of bytes.
type frames struct {
	buf  [4 + headBytes]byte
	have int
	skip int // bytes left of the frame whose beginning was seen
}

// headBytes is how much of a frame is looked at: the header of a reply (xid, zxid,
// error), or what matters of a connect response.
const headBytes = 16

// mostBytes bounds a frame, since go-zookeeper makes room for whatever it is told.
// A listing of three million names is shorter.
const mostBytes = 128 << 20

type frameError uint32

func (e frameError) Error() string { return fmt.Sprintf("a frame of %d bytes", uint32(e)) }

// feed calls seen once for each frame as soon as its head has passed.
func (f *frames) feed(p []byte, seen func(length int, head [headBytes]byte) error) error {
	for len(p) > 0 {
		if f.skip > 0 {
			n := min(f.skip, len(p))
			f.skip -= n
			p = p[n:]
			continue
		}
		n := copy(f.buf[f.have:], p)
		f.have += n
		p = p[n:]
		if f.have >= 4 {
			if length := binary.BigEndian.Uint32(f.buf[:]); length < headBytes || length > mostBytes {
				return frameError(length)
			}
		}
		if f.have < len(f.buf) {
			continue
		}
		length := int(binary.BigEndian.Uint32(f.buf[:]))
		f.have, f.skip = 0, length-headBytes
		if err := seen(length, [headBytes]byte(f.buf[4:])); err != nil {
			return err
		}
	}
	return nil
}
