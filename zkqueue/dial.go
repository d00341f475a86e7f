package zkqueue

import (
	"context"
	"crypto/tls"
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
	"github.com/zkq/zkq/internal/secure"
)

// dialer chooses and dials the servers of one session. It is go-zookeeper's HostProvider
// and Dialer. It refuses to dial once the session is over, so go-zookeeper cannot open
// another one, and it remembers what was wrong with each server, for the errors of calls
// that wait.
type dialer struct {
	s *session
	// As configured; each stands for one or more servers.
	addresses []string
	// For one attempt at every server.
	handshakeBudget time.Duration
	// One token: a cause was added.
	newCause chan struct{}

	parkOnce sync.Once
	// Closed when a dial was refused because the session is over.
	parked chan struct{}

	mu   sync.Mutex
	next int
	// Since a session was last granted.
	failures int
	// When the last dial began.
	lastDial time.Time
	// Of each address, when it was last looked up.
	servers map[string][]server
	// Why each server was of no use.
	causes map[server]error
}

// server is one server of an address. A host name with several IP addresses stands for as
// many servers.
type server struct {
	address     string // as configured; TLS expects a certificate for its host
	dialAddress string // the address to dial
}

// String names the address, and the IP address where the host name has several.
func (s server) String() string {
	if s.dialAddress == s.address {
		return s.address
	}
	return s.address + " (" + s.dialAddress + ")"
}

// minHandshake is the least time for one server, even if the session timeout is short and
// the servers are many.
const minHandshake = 500 * time.Millisecond

// newDialer returns the dialer of a session. Its addresses are in random order, so that the
// clients of an ensemble spread over its members.
func newDialer(s *session) *dialer {
	addresses := slices.Clone(s.cfg.Servers)
	rand.Shuffle(len(addresses), func(i, j int) {
		addresses[i], addresses[j] = addresses[j], addresses[i]
	})
	return &dialer{
		s: s, addresses: addresses,
		handshakeBudget: min(s.cfg.ConnectTimeout, s.cfg.SessionTimeout/2),
		newCause:        make(chan struct{}, 1), parked: make(chan struct{}),
		servers: make(map[string][]server), causes: make(map[server]error),
	}
}

// Init, Len, Next and Connected implement go-zookeeper's HostProvider. Next says that all
// servers were tried only after dial has refused because the session is over: go-zookeeper then
// drops its queue and looks whether it was closed.

func (d *dialer) Init([]string) error { return nil }

func (d *dialer) Len() int { return len(d.addresses) }

// Next returns the address to dial next, and whether go-zookeeper is to take a pause.
func (d *dialer) Next() (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	address := d.addresses[d.next%len(d.addresses)]
	d.next++
	select {
	case <-d.parked:
		return address, true
	default:
		return address, false
	}
}

// Connected is called when the service has granted the session to a connection.
func (d *dialer) Connected() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures = 0
	clear(d.causes)
}

// serverCountLocked returns how many servers are known.
func (d *dialer) serverCountLocked() int {
	n := 0
	for _, address := range d.addresses {
		n += max(1, len(d.servers[address]))
	}
	return n
}

// handshakeTimeout bounds a dial, and then the wait for the connect response. It leaves
// time to try every other server before the session expires, even if one server hangs.
func (d *dialer) handshakeTimeout() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(d.handshakeBudget/time.Duration(d.serverCountLocked()), min(minHandshake, d.s.cfg.ConnectTimeout))
}

// dial implements go-zookeeper's Dialer.
func (d *dialer) dial(_, address string, _ time.Duration) (net.Conn, error) {
	if err := d.waitTurn(); err != nil {
		return nil, err
	}
	to, err := d.chooseServer(address)
	if err != nil {
		d.noteFailure(server{address, address}, err)
		return nil, err
	}
	timeout := d.handshakeTimeout()
	ctx, cancel := context.WithTimeout(d.s.ctx, timeout)
	defer cancel()
	c, err := d.s.cfg.dialServer(ctx, to)
	if err != nil {
		d.noteFailure(to, err)
		return nil, err
	}
	conn := newConn(c, d.s, to, timeout)
	if err := d.s.setConn(conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// chooseServer looks an address up and returns the server that was dialled longest ago.
func (d *dialer) chooseServer(address string) (server, error) {
	ctx, cancel := context.WithTimeout(d.s.ctx, d.handshakeTimeout())
	defer cancel()
	servers, err := d.s.cfg.resolveServers(ctx, address)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.servers[address] = servers
	if err != nil {
		return server{}, err
	}
	d.s.cfg.names.Dialed(servers[0].dialAddress)
	return servers[0], nil
}

// resolveServers returns the servers that an address stands for. With Config.Dial it is the
// address itself, which is not looked up.
func (c *Config) resolveServers(ctx context.Context, address string) ([]server, error) {
	if c.Dial != nil {
		return []server{{address, address}}, nil
	}
	found, err := c.names.Servers(ctx, address)
	if err != nil {
		return nil, err
	}
	if len(found) == 1 {
		// A single server keeps the configured name, and the dial looks it up again.
		return []server{{address, address}}, nil
	}
	servers := make([]server, len(found))
	for i, at := range found {
		servers[i] = server{address, at}
	}
	return servers, nil
}

// waitTurn spaces the dials: each server is tried once without delay, then all of them at
// growing intervals.
func (d *dialer) waitTurn() error {
	d.mu.Lock()
	// A lap is one failure of each server. The pause is between laps, so that one dead server
	// does not delay the dial of the next.
	wait := 10 * time.Millisecond
	n := d.serverCountLocked()
	if laps := d.failures / n; laps > 0 {
		wait = min(wait<<min(laps, 8), 250*time.Millisecond)
		if d.failures%n != 0 {
			wait = 10 * time.Millisecond
		}
	}
	wait -= time.Since(d.lastDial)
	d.mu.Unlock()
	select {
	case <-d.s.ctx.Done():
		// See session.shutDown: go-zookeeper's Close can queue its request now, and drops the queue
		// when this function returns.
		d.parkOnce.Do(func() { close(d.parked) })
		time.Sleep(10 * time.Millisecond)
		return coord.ErrClosed
	case <-time.After(wait):
	}
	d.mu.Lock()
	d.lastDial = time.Now()
	d.mu.Unlock()
	return nil
}

// dialServer connects to a server, with TLS if it is configured.
func (c *Config) dialServer(ctx context.Context, to server) (net.Conn, error) {
	dial := c.Dial
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			var nd net.Dialer
			return nd.DialContext(ctx, "tcp", address)
		}
	}
	nc, err := dial(ctx, to.dialAddress)
	if err != nil || c.TLS == nil {
		return nc, err
	}
	// The certificate is checked against the configured name, also where the name stands for
	// several IP addresses.
	cfg := c.TLS.Clone()
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(to.address)
	}
	return secure.Client(ctx, nc, cfg, func() bool { return speaksPlain(ctx, dial, to.dialAddress) })
}

// speaksPlain reports whether a ZooKeeper without TLS listens at the address. It sends only
// a four-letter word that changes nothing. A server that has the word switched off says so.
func speaksPlain(ctx context.Context, dial func(context.Context, string) (net.Conn, error), address string) bool {
	nc, err := dial(ctx, address)
	if err != nil {
		return false
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	answer := make([]byte, len("srvr"))
	if _, err := io.WriteString(nc, "srvr"); err != nil {
		return false
	}
	_, err = io.ReadFull(nc, answer)
	return err == nil && (string(answer) == "srvr" || strings.EqualFold(string(answer), "zook") || string(answer) == "This")
}

// noteFailure notes what was wrong with a server.
func (d *dialer) noteFailure(s server, err error) {
	d.mu.Lock()
	d.failures++
	d.causes[s] = err
	d.mu.Unlock()
	select {
	case d.newCause <- struct{}{}:
	default:
	}
}

// allServersLocked returns the servers that are known.
func (d *dialer) allServersLocked() []server {
	var all []server
	for _, address := range d.addresses {
		servers := slices.Clone(d.servers[address])
		if len(servers) == 0 {
			servers = []server{{address, address}}
		}
		slices.SortFunc(servers, func(a, b server) int { return strings.Compare(a.dialAddress, b.dialAddress) })
		all = append(all, servers...)
	}
	return all
}

// failureError names each server with its cause. It is [coord.ErrTLS] if all servers have
// that cause, and [coord.ErrUnreachable] otherwise.
func (d *dialer) failureError() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.sharedCauseLocked(isTLS); err != nil {
		return err
	}
	var b strings.Builder
	for i, s := range d.allServersLocked() {
		if i > 0 {
			b.WriteString("; ")
		}
		if cause := d.causes[s]; cause != nil {
			fmt.Fprintf(&b, "%v: %v", s, cause)
		} else {
			fmt.Fprintf(&b, "%v: no answer yet", s)
		}
	}
	return fmt.Errorf("%w: %s", coord.ErrUnreachable, b.String())
}

// permanentError returns an error if the first session cannot be opened: no server listens
// at any address, or all servers refuse our certificates or credentials. After the first
// session such errors are not permanent: servers restart, and certificates and passwords
// are renewed.
func (d *dialer) permanentError() error {
	d.mu.Lock()
	for _, cause := range d.causes {
		if errors.Is(cause, coord.ErrAuth) {
			d.mu.Unlock()
			return cause
		}
	}
	err := d.sharedCauseLocked(isTLS)
	absent := d.sharedCauseLocked(func(err error) bool { return isTLS(err) || resolve.Absent(err) }) != nil
	d.mu.Unlock()
	if err == nil && absent {
		err = d.failureError()
	}
	return err
}

// isTLS reports whether a cause is about trust or encryption.
func isTLS(err error) bool { return errors.Is(err, coord.ErrTLS) }

// sharedCauseLocked returns the cause of one server, with its name, if every server has a
// cause that matches; otherwise nil.
func (d *dialer) sharedCauseLocked(such func(error) bool) error {
	servers := d.allServersLocked()
	for _, s := range servers {
		if cause := d.causes[s]; cause == nil || !such(cause) {
			return nil
		}
	}
	return fmt.Errorf("%v: %w", servers[0], d.causes[servers[0]])
}
