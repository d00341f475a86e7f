package etcdqueue

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/secure"
)

// conn is a connection that knows whether anything is received on it.
type conn struct {
	net.Conn
	dialer          *dialer
	endpoint        int // index in dialer.endpoints
	server          string
	reads           atomic.Int64 // reads that returned data
	closed          atomic.Bool
	leaderlessSince atomic.Int64 // Unix ns; 0: the member has a leader
}

// isLive reports whether the server has answered and the connection is open.
func (c *conn) isLive() bool { return c.reads.Load() > 0 && !c.closed.Load() }

// Read notes what it receives. It refuses a server whose first byte is not HTTP/2's.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	switch {
	case n > 0 && c.reads.Load() == 0:
		if wrong := checkFirstByte(p[0]); wrong != nil {
			c.dialer.recordCause(c.endpoint, c.server, wrong)
			c.Close()
			return 0, wrong
		}
		c.reads.Add(1)
		c.dialer.recordCause(c.endpoint, c.server, nil)
		c.dialer.onConnected()
	case n > 0:
		c.reads.Add(1)
	}
	if err != nil {
		c.closed.Store(true)
		if c.reads.Load() == 0 || !errors.Is(err, net.ErrClosed) {
			err = secure.ReadError(err) // "certificate required" comes after the handshake
			c.dialer.recordCause(c.endpoint, c.server, err)
		}
	}
	return n, err
}

// Close closes the connection.
func (c *conn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

// checkFirstByte checks the first byte from a server. HTTP/2 begins with a short settings
// frame, and so with a zero; a TLS alert begins with 21.
func checkFirstByte(b byte) error {
	switch b {
	case 0:
		return nil
	case 21:
		return fmt.Errorf("the server speaks TLS, but the endpoint is configured without it: %w", coord.ErrTLS)
	}
	return errors.New("not an etcd server")
}
