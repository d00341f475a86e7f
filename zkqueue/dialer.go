package zkqueue

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zkq/zkq/coord"
)

// dialer chooses and reaches the servers of one session, as go-zookeeper's
// HostProvider and Dialer. It refuses when the session is over, and remembers why
// each address was of no use.
type dialer struct {
	s         *session
	addresses []string
	handshake time.Duration // bounds a dial, and again the answer to a connect request
	refused   chan struct{} // holds one: a cause was added

	park   sync.Once
	parked chan struct{} // closed when a dial was refused because the session is over

	mu       sync.Mutex
	next     int
	failures int       // since the last session granted
	last     time.Time // the last dial began
	causes   map[string]error
}

// leastHandshake is given to a server even where a short session timeout and many
// servers leave it less.
const leastHandshake = 500 * time.Millisecond

func newDialer(s *session) *dialer {
	addresses := slices.Clone(s.cfg.Servers)
	rand.Shuffle(len(addresses), func(i, j int) {
		addresses[i], addresses[j] = addresses[j], addresses[i]
	})
	// All others must be tried before the session is over, though one hangs.
	each := min(s.cfg.ConnectTimeout, s.cfg.SessionTimeout/2) / time.Duration(len(addresses))
	return &dialer{
		s: s, addresses: addresses, handshake: max(each, min(leastHandshake, s.cfg.ConnectTimeout)),
		refused: make(chan struct{}, 1), parked: make(chan struct{}), causes: make(map[string]error),
	}
}

// Init, Len, Next and Connected are go-zookeeper's HostProvider. Names are looked up
// at each dial. Next says that all servers were tried only once dial has refused:
// go-zookeeper then drops its queue and looks whether it was closed.

func (d *dialer) Init([]string) error { return nil }

func (d *dialer) Len() int { return len(d.addresses) }

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

func (d *dialer) Connected() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures = 0
	clear(d.causes)
}

// dial is go-zookeeper's Dialer.
func (d *dialer) dial(_, address string, _ time.Duration) (net.Conn, error) {
	if err := d.pause(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(d.s.quit, d.handshake)
	defer cancel()
	c, err := d.s.cfg.connect(ctx, address)
	if err != nil {
		d.failed(address, err)
		return nil, err
	}
	conn := newConn(c, d.s, address, d.handshake)
	if err := d.s.adopt(conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// pause spaces the dials: all servers are tried at once, then ever more slowly.
func (d *dialer) pause() error {
	d.mu.Lock()
	wait := 10 * time.Millisecond
	if laps := d.failures / len(d.addresses); laps > 0 {
		wait = min(wait<<min(laps, 8), 250*time.Millisecond)
		if d.failures%len(d.addresses) != 0 {
			wait = 10 * time.Millisecond
		}
	}
	wait -= time.Since(d.last)
	d.mu.Unlock()
	select {
	case <-d.s.quit.Done():
		// See session.wind: now go-zookeeper's Close queues its request, and when we
		// return the queue is dropped.
		d.park.Do(func() { close(d.parked) })
		time.Sleep(10 * time.Millisecond)
		return coord.ErrClosed
	case <-time.After(wait):
	}
	d.mu.Lock()
	d.last = time.Now()
	d.mu.Unlock()
	return nil
}

// connect dials a server and shakes hands.
func (c *Config) connect(ctx context.Context, address string) (net.Conn, error) {
	dial := c.Dial
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			var nd net.Dialer
			return nd.DialContext(ctx, "tcp", address)
		}
	}
	nc, err := dial(ctx, address)
	if err != nil || c.TLS == nil {
		return nc, err
	}
	cfg := c.TLS.Clone()
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(address)
	}
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, tlsFailure(err)
	}
	return tc, nil
}

// tlsFailure tells a server without TLS, or one that does not trust us, from one that
// hangs or is gone.
func tlsFailure(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("the server closed the connection during the TLS handshake; does it speak TLS? %w: %w", coord.ErrTLS, err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fmt.Errorf("no answer to the TLS handshake: %w", err)
	}
	return fmt.Errorf("%w: %w", coord.ErrTLS, err)
}

// failed notes why an address was of no use.
func (d *dialer) failed(address string, err error) {
	d.mu.Lock()
	d.failures++
	d.causes[address] = err
	d.mu.Unlock()
	select {
	case d.refused <- struct{}{}:
	default:
	}
}

// why joins what is known of each address under [coord.ErrUnreachable], or under the
// one reason that they share.
func (d *dialer) why() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.all(func(err error) bool { return errors.Is(err, coord.ErrTLS) }); err != nil {
		return err
	}
	var b strings.Builder
	for i, address := range d.addresses {
		if i > 0 {
			b.WriteString("; ")
		}
		if cause := d.causes[address]; cause != nil {
			fmt.Fprintf(&b, "%s: %v", address, cause)
		} else {
			fmt.Fprintf(&b, "%s: no answer yet", address)
		}
	}
	return fmt.Errorf("%w: %s", coord.ErrUnreachable, b.String())
}

// hopeless returns an error when no address will do, whatever the patience: wrong
// trust and credentials do not mend by waiting. Without patience, an address where
// nobody listens will not do either.
func (d *dialer) hopeless(patient bool) error {
	d.mu.Lock()
	for _, cause := range d.causes {
		if errors.Is(cause, coord.ErrAuth) {
			d.mu.Unlock()
			return cause
		}
	}
	err := d.all(func(err error) bool { return errors.Is(err, coord.ErrTLS) })
	impatient := !patient && d.all(nobody) != nil
	d.mu.Unlock()
	if err == nil && impatient {
		err = d.why()
	}
	return err
}

// all returns the cause of some address, with its name, if those of all are such.
func (d *dialer) all(such func(error) bool) error {
	for _, address := range d.addresses {
		if cause := d.causes[address]; cause == nil || !such(cause) {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", d.addresses[0], d.causes[d.addresses[0]])
}

// nobody reports that there is no listener, or no such host.
func nobody(err error) bool {
	var dns *net.DNSError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, coord.ErrTLS) ||
		errors.As(err, &dns) && dns.IsNotFound
}
