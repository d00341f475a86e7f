package zkqueue

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/resolve"
)

// Config says where ZooKeeper is and how to speak to it. Only Servers is needed.
type Config struct {
	// Servers are the members' addresses, host:port, IPv6 in brackets. One name may have
	// the addresses of all of them.
	Servers []string

	// Chroot is put before every path, "" or "/a/b". It is created when missing.
	Chroot string

	// Username and Password are sent as digest credentials, which go as they are:
	// without TLS they are refused unless every server is on this machine. ZooKeeper
	// takes any credentials; wrong ones show as [coord.ErrForbidden] on first use.
	Username, Password string

	// TLS, when not nil, encrypts. At least TLS 1.2; a server must have a certificate
	// for its name in Servers, unless TLS.ServerName gives another.
	TLS *tls.Config

	// SessionTimeout is asked for; the service bounds it, see [coord.Session]. 0 means
	// 10 s.
	SessionTimeout time.Duration

	// ConnectTimeout bounds Open. 0 means 5 s.
	ConnectTimeout time.Duration

	// Warn, when not nil, hears in a sentence of what works otherwise than asked for.
	Warn func(string)

	// Dial, when not nil, makes the connections; TLS is put on top of them. The address
	// is as it stands in Servers. Without it a host name is looked up at each dial, and
	// each of its IP addresses is a server of its own.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	names *resolve.Names
}

// String names the servers and not the password.
func (c Config) String() string {
	user := ""
	if c.Username != "" {
		user = c.Username + "@"
	}
	return "zk://" + user + strings.Join(c.Servers, ",") + c.Chroot
}

// GoString is String, so that %#v keeps the password too.
func (c Config) GoString() string { return c.String() }

func (c Config) checked() (Config, error) {
	if c.Chroot == "/" {
		c.Chroot = ""
	}
	if c.Chroot != "" {
		if err := coord.CheckPath(c.Chroot); err != nil {
			return c, fmt.Errorf("chroot: %w", err)
		}
	}
	if len(c.Servers) == 0 {
		return c, fmt.Errorf("no servers: %w", coord.ErrInvalid)
	}
	for _, server := range c.Servers {
		if err := c.checkServer(server); err != nil {
			return c, err
		}
	}
	if strings.Contains(c.Username, ":") || c.Username == "" && c.Password != "" {
		return c, fmt.Errorf("user name %q: must be given, without a colon: %w", c.Username, coord.ErrInvalid)
	}
	if c.SessionTimeout < 0 || c.ConnectTimeout < 0 || c.SessionTimeout > 24*time.Hour {
		return c, fmt.Errorf("timeout out of range: %w", coord.ErrInvalid)
	}
	if c.SessionTimeout == 0 {
		c.SessionTimeout = 10 * time.Second
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 5 * time.Second
	}
	if c.Warn == nil {
		c.Warn = func(string) {}
	}
	if c.names == nil {
		c.names = new(resolve.Names)
	}
	return c, nil
}

func (c Config) checkServer(server string) error {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return fmt.Errorf("server %q: %w: %w", server, coord.ErrInvalid, err)
	}
	if n, err := strconv.Atoi(port); host == "" || err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("server %q is not host:port: %w", server, coord.ErrInvalid)
	}
	if c.Username != "" && c.TLS == nil && host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("the password would go to %s unencrypted; use TLS: %w", server, coord.ErrInvalid)
	}
	return nil
}

// Coordinator keeps a session with ZooKeeper. It is a [coord.Coordinator].
type Coordinator struct {
	cfg   Config
	quit  context.Context
	close context.CancelFunc

	opening chan struct{} // holds one: who may open a session
	watches serverWatches
	width   width

	mu       sync.Mutex
	session  *session
	closed   bool
	sessions sync.WaitGroup // that are not gone yet
}

var _ coord.Coordinator = (*Coordinator)(nil)

// Open reaches the service and opens the first session. It returns within
// cfg.ConnectTimeout, at once when nobody listens at any address; the error then
// names each address with its cause: [coord.ErrUnreachable], [coord.ErrTLS],
// [coord.ErrAuth], [coord.ErrForbidden], [coord.ErrFormat]. [coord.ErrInvalid] means
// that cfg is wrong. ctx bounds Open alone.
func Open(ctx context.Context, cfg Config) (*Coordinator, error) {
	if ctx == nil {
		return nil, fmt.Errorf("open: no context: %w", coord.ErrInvalid)
	}
	cfg, err := cfg.checked()
	if err != nil {
		return nil, fmt.Errorf("open ZooKeeper: %w", err)
	}
	c := &Coordinator{cfg: cfg, opening: make(chan struct{}, 1)}
	c.quit, c.close = context.WithCancel(context.Background())
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.ConnectTimeout, errConnectTimeout)
	defer cancel()
	if _, err := c.open(ctx, false); err != nil {
		c.Close()
		return nil, fmt.Errorf("open %v: %w", cfg, err)
	}
	return c, nil
}

var errConnectTimeout = errors.New("connect timeout")

// Session returns the live session or opens a new one; see [coord.Coordinator].
func (c *Coordinator) Session(ctx context.Context) (coord.Session, error) {
	if ctx == nil {
		return nil, fmt.Errorf("session: no context: %w", coord.ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	if s, err := c.live(); s != nil || err != nil {
		return s, err
	}
	s, err := c.open(ctx, true)
	if err != nil {
		return nil, fmt.Errorf("session with %v: %w", c.cfg, err)
	}
	return s, nil
}

// live returns the session if there is one that is not over.
func (c *Coordinator) live() (coord.Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, coord.ErrClosed
	}
	if c.session == nil || c.session.alive() != nil {
		return nil, nil
	}
	return c.session, nil
}

// open opens a session, or finds that another caller has.
func (c *Coordinator) open(ctx context.Context, patient bool) (coord.Session, error) {
	select {
	case c.opening <- struct{}{}:
		defer func() { <-c.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		if s, err := c.live(); s != nil || err != nil {
			return s, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, err := c.start(ctx, patient)
		if errors.Is(err, coord.ErrSessionLost) {
			continue // it was over before it began
		}
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		c.session = s
		closed := c.closed
		c.mu.Unlock()
		if closed {
			s.end(coord.ErrClosed)
			return nil, coord.ErrClosed
		}
		return s, nil
	}
}

// start opens a session and looks at the layout there.
func (c *Coordinator) start(ctx context.Context, patient bool) (*session, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, coord.ErrClosed
	}
	c.sessions.Add(1)
	c.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.quit, cancel)()

	s := newSession(&c.cfg, &c.watches, &c.width, c.sessions.Done)
	err := s.begin(ctx, patient)
	if err == nil {
		err = coord.CheckFormat(ctx, s)
	}
	if err != nil {
		s.end(coord.ErrClosed)
		if c.quit.Err() != nil {
			err = coord.ErrClosed
		}
		return nil, err
	}
	return s, nil
}

// Close ends the session; see [coord.Coordinator].
func (c *Coordinator) Close() error {
	c.mu.Lock()
	c.closed = true
	s := c.session
	c.mu.Unlock()
	c.close()
	if s != nil {
		s.end(coord.ErrClosed)
	}
	gone := make(chan struct{})
	go func() {
		c.sessions.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(closeTimeout):
	}
	return nil
}
