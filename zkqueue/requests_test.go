package zkqueue_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"github.com/zkq/zkq/zkqueue"
)

// The opcodes of requests.
const (
	opGetData     = 4
	opGetChildren = 12
	opMulti       = 14
	opMultiRead   = 22
	opAddWatch    = 106
)

// requests counts the requests of a coordinator by opcode.
type requests struct {
	mu sync.Mutex
	n  map[uint32]int
}

// count returns cfg with connections that count their requests.
func count(cfg zkqueue.Config) (zkqueue.Config, *requests) {
	r := &requests{n: make(map[uint32]int)}
	dial := dialOf(cfg)
	cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
		c, err := dial(ctx, address)
		return &requestConn{Conn: c, seen: func(op uint32, _ []byte) []byte {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.n[op]++
			return nil
		}}, err
	}
	return cfg, r
}

func (r *requests) of(op uint32) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n[op]
}

// old returns cfg with servers that behave as before 3.6.
func old(cfg zkqueue.Config) zkqueue.Config { return refusing(cfg, opAddWatch, -6) }

// refusing returns cfg with servers that answer a kind of request with an error, and then
// close the connection.
func refusing(cfg zkqueue.Config, what uint32, code int32) zkqueue.Config {
	dial := dialOf(cfg)
	cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
		c, err := dial(ctx, address)
		return &requestConn{Conn: c, seen: func(op uint32, frame []byte) []byte {
			if op != what {
				return nil
			}
			answer := binary.BigEndian.AppendUint32(nil, 16)
			answer = append(answer, frame[4:8]...)
			answer = append(answer, 0, 0, 0, 0, 0, 0, 0, 0)
			return binary.BigEndian.AppendUint32(answer, uint32(code))
		}}, err
	}
	return cfg
}

func dialOf(cfg zkqueue.Config) func(context.Context, string) (net.Conn, error) {
	if cfg.Dial != nil {
		return cfg.Dial
	}
	return func(ctx context.Context, address string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}
}

// requestConn passes each request to seen. The result of seen is the last thing that comes
// from the server.
type requestConn struct {
	net.Conn
	seen  func(op uint32, frame []byte) (last []byte)
	asked bool

	mu   sync.Mutex
	last []byte
}

func (c *requestConn) Write(p []byte) (int, error) {
	if !c.asked {
		c.asked = true // the connect request has no opcode
		return c.Conn.Write(p)
	}
	if last := c.seen(binary.BigEndian.Uint32(p[8:]), p); last != nil {
		c.mu.Lock()
		c.last = last
		c.mu.Unlock()
		c.Conn.Close()
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *requestConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n == 0 && err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.last) > 0 {
			n = copy(p, c.last)
			c.last = c.last[n:]
			return n, nil
		}
		err = io.EOF
	}
	return n, err
}

func (c *requestConn) SetReadDeadline(t time.Time) error {
	err := c.Conn.SetReadDeadline(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.last) > 0 {
		return nil
	}
	return err
}
