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
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/resolve"
)

// dialer is the way to the cluster: one connection at a time, to any endpoint. A
// member that is gone, frozen or without a leader is left for the next one.
type dialer struct {
	endpoints   []endpoint
	dial        dialFunc
	names       *resolve.Names
	onConnected func() // called after the first byte of each connection

	mu               sync.Mutex
	next             int             // the endpoint to try first
	states           []endpointState // to each endpoint
	current          *conn           // the newest connection
	permanentFailure chan struct{}   // closed once every server has refused for a reason that stays
}

// endpointState is what is known of an endpoint. A host name stands for as many servers as it has
// IP addresses.
type endpointState struct {
	servers []string         // when it was last looked up
	causes  map[string]error // why each server was last left or not reached; none while it answers
}

func newDialer(endpoints []endpoint, dial dialFunc, names *resolve.Names, connected func()) *dialer {
	l := &dialer{
		endpoints:        endpoints,
		dial:             dial,
		names:            names,
		onConnected:      connected,
		next:             rand.IntN(len(endpoints)), // clients spread over the members
		permanentFailure: make(chan struct{}),
	}
	for _, e := range endpoints {
		l.states = append(l.states, endpointState{[]string{e.address}, make(map[string]error)})
	}
	return l
}

var errNoAnswer = errors.New("no answer")

// dialAny returns a connection to the first endpoint that takes one.
func (l *dialer) dialAny(ctx context.Context) (net.Conn, error) {
	l.mu.Lock()
	first := l.next
	l.mu.Unlock()
	n := len(l.endpoints)
	var err error
	for k := range n {
		i := (first + k) % n
		var nc net.Conn
		if nc, err = l.dialEndpoint(ctx, i, n-k); err == nil {
			return nc, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// dialEndpoint connects to one endpoint, of several servers to the first that takes a connection,
// and leaves time for those after it.
func (l *dialer) dialEndpoint(ctx context.Context, i, left int) (net.Conn, error) {
	servers, err := l.lookUp(ctx, i, left)
	for k, server := range servers {
		var nc net.Conn
		if nc, err = l.dialServer(ctx, i, server, left+len(servers)-1-k); err == nil {
			return l.setCurrent(nc, i, server), nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// shareTime is ctx with its part of the time, where so many more must have theirs.
func shareTime(ctx context.Context, left int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left+1))
}

// lookUp finds the servers of endpoint i.
func (l *dialer) lookUp(ctx context.Context, i, left int) ([]string, error) {
	ctx, cancel := shareTime(ctx, left)
	defer cancel()
	e := l.endpoints[i]
	servers, err := e.resolveServers(ctx, l.names, l.dial)
	if err == nil {
		l.mu.Lock()
		l.states[i].servers = servers
		l.mu.Unlock()
		return servers, nil
	}
	l.mu.Lock()
	l.states[i].servers = []string{e.address}
	l.mu.Unlock()
	l.recordCause(i, e.address, err)
	return nil, err
}

// dialServer connects to one server of endpoint i.
func (l *dialer) dialServer(ctx context.Context, i int, server string, left int) (net.Conn, error) {
	ctx, cancel := shareTime(ctx, left)
	defer cancel()
	e := l.endpoints[i]
	l.names.Dialed(server)
	if e.tls == nil && errors.Is(l.cause(i, server), io.EOF) && e.speaksTLS(ctx, server, l.dial) {
		err := fmt.Errorf("the server speaks TLS, and was not asked to: %w", coord.ErrTLS)
		l.recordCause(i, server, err)
		return nil, err
	}
	nc, err := e.dial(ctx, server, l.dial)
	if err != nil {
		l.recordCause(i, server, err)
	}
	return nc, err
}

func (l *dialer) setCurrent(nc net.Conn, i int, server string) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = (i + 1) % len(l.endpoints) // whatever ends this connection, the next is another's turn
	l.current = &conn{Conn: nc, dialer: l, endpoint: i, server: server}
	return l.current
}

func (l *dialer) cause(i int, server string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.states[i].causes[server]
}

// recordCause keeps the reason why a server of endpoint i is not used; nil: it answers.
func (l *dialer) recordCause(i int, server string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, context.Canceled) {
		return
	}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded) {
		err = errNoAnswer // given up by us
	}
	w := l.states[i]
	if len(w.causes) > maxCauses {
		clear(w.causes)
	}
	w.causes[server] = err
	for _, w := range l.states {
		for _, server := range w.servers {
			if !errors.Is(w.causes[server], coord.ErrTLS) {
				return
			}
		}
	}
	select {
	case <-l.permanentFailure:
	default:
		close(l.permanentFailure)
	}
}

// maxCauses bounds what is kept of the servers of an endpoint.
const maxCauses = 100

// failureError says what is wrong with the way to the cluster, endpoint by endpoint;
// nil if one of them answers.
func (l *dialer) failureError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.current; c != nil && c.isLive() {
		return nil
	}
	kind := coord.ErrUnreachable
	var text []string
	for i, e := range l.endpoints {
		w := l.states[i]
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
	return &unreachableError{kind, strings.Join(text, "; ")}
}

// unreachableError names each endpoint that was tried and why it was not used.
type unreachableError struct {
	kind error
	text string
}

func (e *unreachableError) Error() string { return e.text + ": " + e.kind.Error() }
func (e *unreachableError) Unwrap() error { return e.kind }

// liveConn returns the connection if the server has answered on it and it is open.
func (l *dialer) liveConn() *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.current; c != nil && c.isLive() {
		return c
	}
	return nil
}

// noteNoLeader is told that the member has no leader. Elections pass; a member that
// stays so is cut off from the others, and is left.
func (l *dialer) noteNoLeader() {
	c := l.liveConn()
	if c == nil || len(l.endpoints) == 1 {
		return
	}
	now := time.Now().UnixNano()
	if !c.leaderlessSince.CompareAndSwap(0, now) && now-c.leaderlessSince.Load() > int64(time.Second) {
		c.Close()
	}
}

// noteLeader is told that a member with a leader has answered.
func (l *dialer) noteLeader() {
	l.mu.Lock()
	c := l.current
	l.mu.Unlock()
	if c != nil && c.leaderlessSince.Load() != 0 {
		c.leaderlessSince.Store(0)
	}
}
