package etcdqueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/resolve"
	"github.com/zkq/zkq/internal/secure"
)

// link is the way to the cluster: one connection at a time, to any endpoint. A
// member that is gone, frozen or without a leader is left for the next one.
type link struct {
	endpoints []endpoint
	dial      dialFunc
	names     *resolve.Names
	connected func() // called after the first byte of each connection

	mu       sync.Mutex
	next     int           // the endpoint to try first
	ways     []way         // to each endpoint
	current  *conn         // the newest connection
	hopeless chan struct{} // closed once every server has refused for a reason that stays
}

// way is what is known of an endpoint. A host name stands for as many servers as it has
// IP addresses.
type way struct {
	servers []string         // when it was last looked up
	causes  map[string]error // why each server was last left or not reached; none while it answers
}

func newLink(endpoints []endpoint, dial dialFunc, names *resolve.Names, connected func()) *link {
	l := &link{
		endpoints: endpoints,
		dial:      dial,
		names:     names,
		connected: connected,
		next:      rand.IntN(len(endpoints)), // clients spread over the members
		hopeless:  make(chan struct{}),
	}
	for _, e := range endpoints {
		l.ways = append(l.ways, way{[]string{e.address}, make(map[string]error)})
	}
	return l
}

var errNoAnswer = errors.New("no answer")

// connect returns a connection to the first endpoint that takes one.
func (l *link) connect(ctx context.Context) (net.Conn, error) {
	l.mu.Lock()
	first := l.next
	l.mu.Unlock()
	n := len(l.endpoints)
	var err error
	for k := range n {
		i := (first + k) % n
		var nc net.Conn
		if nc, err = l.try(ctx, i, n-k); err == nil {
			return nc, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// try connects to one endpoint, of several servers to the first that takes a connection,
// and leaves time for those after it.
func (l *link) try(ctx context.Context, i, left int) (net.Conn, error) {
	servers, err := l.look(ctx, i, left)
	for k, server := range servers {
		var nc net.Conn
		if nc, err = l.reach(ctx, i, server, left+len(servers)-1-k); err == nil {
			return l.adopt(nc, i, server), nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// share is ctx with its part of the time, where so many more must have theirs.
func share(ctx context.Context, left int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left+1))
}

// look finds the servers of endpoint i.
func (l *link) look(ctx context.Context, i, left int) ([]string, error) {
	ctx, cancel := share(ctx, left)
	defer cancel()
	e := l.endpoints[i]
	servers, err := e.servers(ctx, l.names, l.dial)
	if err == nil {
		l.mu.Lock()
		l.ways[i].servers = servers
		l.mu.Unlock()
		return servers, nil
	}
	l.mu.Lock()
	l.ways[i].servers = []string{e.address}
	l.mu.Unlock()
	l.blame(i, e.address, err)
	return nil, err
}

// reach connects to one server of endpoint i.
func (l *link) reach(ctx context.Context, i int, server string, left int) (net.Conn, error) {
	ctx, cancel := share(ctx, left)
	defer cancel()
	e := l.endpoints[i]
	l.names.Dialed(server)
	if e.tls == nil && errors.Is(l.cause(i, server), io.EOF) && e.speaksTLS(ctx, server, l.dial) {
		err := fmt.Errorf("the server speaks TLS, and was not asked to: %w", coord.ErrTLS)
		l.blame(i, server, err)
		return nil, err
	}
	nc, err := e.connect(ctx, server, l.dial)
	if err != nil {
		l.blame(i, server, err)
	}
	return nc, err
}

func (l *link) adopt(nc net.Conn, i int, server string) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = (i + 1) % len(l.endpoints) // whatever ends this connection, the next is another's turn
	l.current = &conn{Conn: nc, link: l, index: i, server: server}
	return l.current
}

func (l *link) cause(i int, server string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ways[i].causes[server]
}

// blame keeps the reason why a server of endpoint i is not used; nil: it answers.
func (l *link) blame(i int, server string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, context.Canceled) {
		return
	}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded) {
		err = errNoAnswer // given up by us
	}
	w := l.ways[i]
	if len(w.causes) > maxCauses {
		clear(w.causes)
	}
	w.causes[server] = err
	for _, w := range l.ways {
		for _, server := range w.servers {
			if !errors.Is(w.causes[server], coord.ErrTLS) {
				return
			}
		}
	}
	select {
	case <-l.hopeless:
	default:
		close(l.hopeless)
	}
}

// maxCauses bounds what is kept of the servers of an endpoint.
const maxCauses = 100

// explain says what is wrong with the way to the cluster, endpoint by endpoint;
// nil if one of them answers.
func (l *link) explain() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.current; c != nil && c.alive() {
		return nil
	}
	kind := coord.ErrUnreachable
	var text []string
	for i, e := range l.endpoints {
		w := l.ways[i]
		for _, server := range slices.Sorted(slices.Values(w.servers)) {
			cause := w.causes[server]
			switch {
			case cause == nil:
				cause = errNoAnswer
			case errors.Is(cause, coord.ErrTLS):
				kind = coord.ErrTLS
			}
			text = append(text, e.label(server, len(w.servers))+": "+strings.TrimSuffix(cause.Error(), ": "+coord.ErrTLS.Error()))
		}
	}
	return &unreachable{kind, strings.Join(text, "; ")}
}

// unreachable names each endpoint that was tried and why it was not used.
type unreachable struct {
	kind error
	text string
}

func (e *unreachable) Error() string { return e.text + ": " + e.kind.Error() }
func (e *unreachable) Unwrap() error { return e.kind }

// live returns the connection if the server has answered on it and it is open.
func (l *link) live() *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.current; c != nil && c.alive() {
		return c
	}
	return nil
}

// leaderless is told that the member has no leader. Elections pass; a member that
// stays so is cut off from the others, and is left.
func (l *link) leaderless() {
	c := l.live()
	if c == nil || len(l.endpoints) == 1 {
		return
	}
	now := time.Now().UnixNano()
	if !c.alone.CompareAndSwap(0, now) && now-c.alone.Load() > int64(time.Second) {
		c.Close()
	}
}

// served is told that a member with a leader has answered.
func (l *link) served() {
	l.mu.Lock()
	c := l.current
	l.mu.Unlock()
	if c != nil && c.alone.Load() != 0 {
		c.alone.Store(0)
	}
}

// conn is a connection that knows whether anything comes back on it.
type conn struct {
	net.Conn
	link   *link
	index  int
	server string
	reads  atomic.Int64 // reads that brought something
	closed atomic.Bool
	alone  atomic.Int64 // since when the member has had no leader, Unix ns; 0: it has one
}

func (c *conn) alive() bool { return c.reads.Load() > 0 && !c.closed.Load() }

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	switch {
	case n > 0 && c.reads.Load() == 0:
		if wrong := notHTTP2(p[0]); wrong != nil {
			c.link.blame(c.index, c.server, wrong)
			c.Close()
			return 0, wrong
		}
		c.reads.Add(1)
		c.link.blame(c.index, c.server, nil)
		c.link.connected()
	case n > 0:
		c.reads.Add(1)
	}
	if err != nil {
		c.closed.Store(true)
		if c.reads.Load() == 0 || !errors.Is(err, net.ErrClosed) {
			if secure.IsTLS(err) {
				err = fmt.Errorf("%w: %w", err, coord.ErrTLS) // "certificate required" comes after the handshake
			}
			c.link.blame(c.index, c.server, err)
		}
	}
	return n, err
}

func (c *conn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

// notHTTP2 judges the first byte of a server. HTTP/2 begins with a short settings
// frame, so with a zero; a TLS alert with 21.
func notHTTP2(b byte) error {
	switch b {
	case 0:
		return nil
	case 21:
		return fmt.Errorf("the server speaks TLS, and was not asked to: %w", coord.ErrTLS)
	}
	return errors.New("the server is no etcd")
}
