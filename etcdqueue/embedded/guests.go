package embedded

import (
	"net"
	"sync"
)

// guests are the connections to the store. Where one ends, a process may have
// died.
type guests struct {
	*net.UnixListener
	left func()

	mu    sync.Mutex
	conns map[*guest]struct{}
}

func newGuests(l *net.UnixListener, left func()) *guests {
	return &guests{UnixListener: l, left: left, conns: make(map[*guest]struct{})}
}

// Accept implements [net.Listener].
func (g *guests) Accept() (net.Conn, error) {
	conn, err := g.AcceptUnix()
	if err != nil {
		return nil, err
	}
	one := &guest{UnixConn: conn, pid: peer(conn), all: g}
	g.mu.Lock()
	g.conns[one] = struct{}{}
	g.mu.Unlock()
	return one, nil
}

// cutStopped closes the connections of processes that are stopped. What was
// written to them they find when they go on.
func (g *guests) cutStopped() {
	g.mu.Lock()
	var cut []*guest
	for one := range g.conns {
		if one.pid != 0 && stopped(one.pid) {
			cut = append(cut, one)
		}
	}
	g.mu.Unlock()
	for _, one := range cut {
		one.Close()
	}
}

type guest struct {
	*net.UnixConn
	pid int
	all *guests
}

func (c *guest) Close() error {
	c.all.mu.Lock()
	_, first := c.all.conns[c]
	delete(c.all.conns, c)
	c.all.mu.Unlock()
	if first {
		c.all.left()
	}
	return c.UnixConn.Close()
}
