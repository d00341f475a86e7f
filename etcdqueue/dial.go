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

// dialer connects to the cluster: one connection at a time, to any endpoint. A member that
// is gone, does not answer or has no leader is left for the next one.
//
// gRPC knows only one address, for which it calls dialAny. So the choice of the server is
// made here, where it is known what was wrong with each: gRPC's own errors would not say
// it.
type dialer struct {
	endpoints []endpoint
	dial      dialFunc
	names     *resolve.Names
	// Called after the first byte of each connection.
	onConnected func()

	mu sync.Mutex
	// The endpoint to try first.
	next int
	// Of each endpoint.
	states []endpointState
	// The newest connection.
	current *conn
	// Closed once every server has failed for a reason that does not pass.
	permanentFailure chan struct{}
}

// endpointState is what is known of an endpoint. A host name with several IP addresses
// stands for as many servers.
type endpointState struct {
	servers []string         // when it was last looked up
	causes  map[string]error // why each server was last left or not reached; none while it answers
}

// newDialer returns a dialer of the endpoints. onConnected is called without locks held.
func newDialer(endpoints []endpoint, dial dialFunc, names *resolve.Names, connected func()) *dialer {
	l := &dialer{
		endpoints:        endpoints,
		dial:             dial,
		names:            names,
		onConnected:      connected,
		next:             rand.IntN(len(endpoints)), // spreads the clients over the members
		permanentFailure: make(chan struct{}),
	}
	for _, e := range endpoints {
		l.states = append(l.states, endpointState{[]string{e.address}, make(map[string]error)})
	}
	return l
}

// errNoAnswer is the cause of a server that accepts connections and does not answer in
// time.
var errNoAnswer = errors.New("no answer")

// dialAny returns a connection to the first endpoint that accepts one.
func (d *dialer) dialAny(ctx context.Context) (net.Conn, error) {
	d.mu.Lock()
	first := d.next
	d.mu.Unlock()
	n := len(d.endpoints)
	var err error
	for k := range n {
		i := (first + k) % n
		var nc net.Conn
		if nc, err = d.dialEndpoint(ctx, i, n-k); err == nil {
			return nc, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// dialEndpoint connects to the first server of endpoint i that accepts a connection. It
// leaves time for the endpoints that remain.
func (d *dialer) dialEndpoint(ctx context.Context, i, remaining int) (net.Conn, error) {
	servers, err := d.lookUp(ctx, i, remaining)
	for k, server := range servers {
		var nc net.Conn
		if nc, err = d.dialServer(ctx, i, server, remaining+len(servers)-1-k); err == nil {
			return d.setCurrent(nc, i, server), nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// shareTime limits ctx to an equal share of the time left, if so many others need theirs.
func shareTime(ctx context.Context, others int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Until(deadline)/time.Duration(others+1))
}

// lookUp finds the servers of endpoint i.
func (d *dialer) lookUp(ctx context.Context, i, remaining int) ([]string, error) {
	ctx, cancel := shareTime(ctx, remaining)
	defer cancel()
	e := d.endpoints[i]
	servers, err := e.resolveServers(ctx, d.names, d.dial)
	if err == nil {
		d.mu.Lock()
		d.states[i].servers = servers
		d.mu.Unlock()
		return servers, nil
	}
	d.mu.Lock()
	d.states[i].servers = []string{e.address}
	d.mu.Unlock()
	d.recordCause(i, e.address, err)
	return nil, err
}

// dialServer connects to one server of endpoint i.
func (d *dialer) dialServer(ctx context.Context, i int, server string, remaining int) (net.Conn, error) {
	ctx, cancel := shareTime(ctx, remaining)
	defer cancel()
	e := d.endpoints[i]
	d.names.Dialed(server)
	// A server that closed a plain connection at once may expect TLS.
	if e.tls == nil && errors.Is(d.cause(i, server), io.EOF) && e.speaksTLS(ctx, server, d.dial) {
		err := fmt.Errorf("the server speaks TLS, but the endpoint is configured without it: %w", coord.ErrTLS)
		d.recordCause(i, server, err)
		return nil, err
	}
	nc, err := e.dial(ctx, server, d.dial)
	if err != nil {
		d.recordCause(i, server, err)
	}
	return nc, err
}

// setCurrent makes nc the current connection. The next dial begins with another endpoint,
// whatever ends this connection.
func (d *dialer) setCurrent(nc net.Conn, i int, server string) *conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next = (i + 1) % len(d.endpoints)
	d.current = &conn{Conn: nc, dialer: d, endpoint: i, server: server}
	return d.current
}

// cause returns what is wrong with a server of endpoint i, or nil.
func (d *dialer) cause(i int, server string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.states[i].causes[server]
}

// recordCause notes why a server of endpoint i is not used; nil means that it answers.
func (d *dialer) recordCause(i int, server string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(err, context.Canceled) {
		return
	}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded) {
		err = errNoAnswer // the driver stopped waiting
	}
	w := d.states[i]
	if len(w.causes) > maxCauses {
		clear(w.causes)
	}
	w.causes[server] = err
	// Waiting is of no use once every server of every endpoint has failed for its certificate
	// or for ours.
	for _, w := range d.states {
		for _, server := range w.servers {
			if !errors.Is(w.causes[server], coord.ErrTLS) {
				return
			}
		}
	}
	select {
	case <-d.permanentFailure:
	default:
		close(d.permanentFailure)
	}
}

// maxCauses bounds the servers of an endpoint whose causes are kept.
const maxCauses = 100

// failureError names each endpoint with its cause. It is nil if the current connection
// works.
func (d *dialer) failureError() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.current; c != nil && c.isLive() {
		return nil
	}
	kind := coord.ErrUnreachable
	var text []string
	for i, e := range d.endpoints {
		w := d.states[i]
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

// unreachableError names the endpoints that were tried and why each was not used.
type unreachableError struct {
	kind error
	text string
}

func (e *unreachableError) Error() string { return e.text + ": " + e.kind.Error() }
func (e *unreachableError) Unwrap() error { return e.kind }

// liveConn returns the current connection if the server has answered on it and it is open.
func (d *dialer) liveConn() *conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.current; c != nil && c.isLive() {
		return c
	}
	return nil
}

// noteNoLeader is called when the member reports that it has no leader. Elections pass; a
// member that has no leader for a second is cut off from the others, and is left.
func (d *dialer) noteNoLeader() {
	c := d.liveConn()
	if c == nil || len(d.endpoints) == 1 {
		return
	}
	now := time.Now().UnixNano()
	if !c.leaderlessSince.CompareAndSwap(0, now) && now-c.leaderlessSince.Load() > int64(time.Second) {
		c.Close()
	}
}

// noteLeader is called when a member with a leader has answered.
func (d *dialer) noteLeader() {
	d.mu.Lock()
	c := d.current
	d.mu.Unlock()
	if c != nil && c.leaderlessSince.Load() != 0 {
		c.leaderlessSince.Store(0)
	}
}
