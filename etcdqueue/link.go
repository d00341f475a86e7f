package etcdqueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
)

// link is the way to the cluster: one connection at a time, to any endpoint. A
// member that is gone, frozen or without a leader is left for the next one.
type link struct {
	endpoints []endpoint
	dial      dialFunc
	connected func() // called after the first byte of each connection

	mu       sync.Mutex
	next     int           // the endpoint to try first
	causes   []error       // why each endpoint was last left or not reached; nil while it answers
	current  *conn         // the newest connection
	hopeless chan struct{} // closed once every endpoint has refused for a reason that stays
}

func newLink(endpoints []endpoint, dial dialFunc, connected func()) *link {
	return &link{
		endpoints: endpoints,
		dial:      dial,
		connected: connected,
		next:      rand.IntN(len(endpoints)), // clients spread over the members
		causes:    make([]error, len(endpoints)),
		hopeless:  make(chan struct{}),
	}
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
			return l.adopt(nc, i), nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// try connects to one endpoint, and leaves time for the ones after it.
func (l *link) try(ctx context.Context, i, left int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left+1))
		defer cancel()
	}
	e := l.endpoints[i]
	if e.tls == nil && errors.Is(l.cause(i), io.EOF) && e.speaksTLS(ctx, l.dial) {
		err := fmt.Errorf("the server speaks TLS, and was not asked to: %w", coord.ErrTLS)
		l.blame(i, err)
		return nil, err
	}
	nc, err := e.connect(ctx, l.dial)
	if err != nil {
		l.blame(i, err)
	}
	return nc, err
}

func (l *link) adopt(nc net.Conn, i int) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = (i + 1) % len(l.endpoints) // whatever ends this connection, the next is another's turn
	l.current = &conn{Conn: nc, link: l, index: i}
	return l.current
}

func (l *link) cause(i int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.causes[i]
}

// blame keeps the reason why endpoint i is not used; nil: it answers.
func (l *link) blame(i int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, context.Canceled) {
		return
	}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded) {
		err = errNoAnswer // given up by us
	}
	l.causes[i] = err
	for _, c := range l.causes {
		if !errors.Is(c, coord.ErrTLS) {
			return
		}
	}
	select {
	case <-l.hopeless:
	default:
		close(l.hopeless)
	}
}

// explain says what is wrong with the way to the cluster, endpoint by endpoint;
// nil if one of them answers.
func (l *link) explain() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.current; c != nil && c.alive() {
		return nil
	}
	kind := coord.ErrUnreachable
	text := make([]string, len(l.endpoints))
	for i, e := range l.endpoints {
		cause := l.causes[i]
		switch {
		case cause == nil:
			cause = errNoAnswer
		case errors.Is(cause, coord.ErrTLS):
			kind = coord.ErrTLS
		}
		text[i] = e.name + ": " + strings.TrimSuffix(cause.Error(), ": "+coord.ErrTLS.Error())
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
			c.link.blame(c.index, wrong)
			c.Close()
			return 0, wrong
		}
		c.reads.Add(1)
		c.link.blame(c.index, nil)
		c.link.connected()
	case n > 0:
		c.reads.Add(1)
	}
	if err != nil {
		c.closed.Store(true)
		if c.reads.Load() == 0 || !errors.Is(err, net.ErrClosed) {
			if isTLS(err) {
				err = fmt.Errorf("%w: %w", err, coord.ErrTLS) // "certificate required" comes after the handshake
			}
			c.link.blame(c.index, err)
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
