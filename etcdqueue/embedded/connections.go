package embedded

import (
	"net"
	"sync"
)

// clientConns is the owner's listener, which knows the connections of its clients. When a
// connection ends, a process may have died.
type clientConns struct {
	*net.UnixListener
	onClose func()

	mu    sync.Mutex
	conns map[*clientConn]struct{}
}

// newClientConns returns the listener. onClose is called when a connection ends.
func newClientConns(l *net.UnixListener, left func()) *clientConns {
	return &clientConns{UnixListener: l, onClose: left, conns: make(map[*clientConn]struct{})}
}

// Accept implements [net.Listener].
func (c *clientConns) Accept() (net.Conn, error) {
	conn, err := c.AcceptUnix()
	if err != nil {
		return nil, err
	}
	one := &clientConn{UnixConn: conn, pid: peerPID(conn), all: c}
	c.mu.Lock()
	c.conns[one] = struct{}{}
	c.mu.Unlock()
	return one, nil
}

// closeStopped closes the connections of processes that are stopped. Such a process reads
// what was written to it when it is continued.
func (c *clientConns) closeStopped() {
	c.mu.Lock()
	var cut []*clientConn
	for one := range c.conns {
		if one.pid != 0 && isStopped(one.pid) {
			cut = append(cut, one)
		}
	}
	c.mu.Unlock()
	for _, one := range cut {
		one.Close()
	}
}

// clientConn is a connection from one process.
type clientConn struct {
	*net.UnixConn
	pid int
	all *clientConns
}

// Close closes the connection, and reports the end of the connection once.
func (c *clientConn) Close() error {
	c.all.mu.Lock()
	_, first := c.all.conns[c]
	delete(c.all.conns, c)
	c.all.mu.Unlock()
	if first {
		c.all.onClose()
	}
	return c.UnixConn.Close()
}
