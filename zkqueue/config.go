package zkqueue

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/resolve"
)

// Config says where ZooKeeper is and how to connect to it. Only Servers is required.
type Config struct {
	// Servers are the addresses of the ensemble's members, each host:port with an IPv6 address
	// in brackets. A host name with several IP addresses stands for as many servers.
	Servers []string

	// Chroot comes before every path: "" or "/a/b". It is created if it is missing.
	Chroot string

	// Username and Password are sent as digest credentials. ZooKeeper receives them in plain
	// text, so without TLS they are refused unless every server is on this machine. ZooKeeper
	// accepts any credentials: wrong ones show as [coord.ErrForbidden] on first use.
	Username, Password string

	// TLS encrypts the connections if it is not nil. The version is at least TLS 1.2. Each
	// server needs a certificate for its host name in Servers, or for TLS.ServerName if that
	// is set.
	TLS *tls.Config

	// SessionTimeout is the session timeout to ask for; 0 means 10 s. The service may grant
	// another one, which [coord.Session] reports.
	SessionTimeout time.Duration

	// ConnectTimeout is the longest time that Open takes; 0 means 5 s.
	ConnectTimeout time.Duration

	// Warn is called with one sentence when something works, but not as asked for. It may be
	// called from any goroutine. nil drops the warnings.
	Warn func(string)

	// Dial makes the connections, below TLS. The address is an element of Servers. With nil,
	// host names are looked up at each dial, and each IP address is a server of its own.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	names *resolve.Names
}

// String names the servers and the user, but not the password.
func (c Config) String() string {
	user := ""
	if c.Username != "" {
		user = c.Username + "@"
	}
	return "zk://" + user + strings.Join(c.Servers, ",") + c.Chroot
}

// GoString returns String, so that %#v does not print the password.
func (c Config) GoString() string { return c.String() }

// withDefaults returns the configuration with its defaults, or [coord.ErrInvalid].
func (c Config) withDefaults() (Config, error) {
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
		return c, fmt.Errorf("user name %q: want a name without a colon: %w", c.Username, coord.ErrInvalid)
	}
	if c.SessionTimeout < 0 || c.ConnectTimeout < 0 || c.SessionTimeout > 24*time.Hour {
		return c, fmt.Errorf("timeouts must not be negative, and the session timeout at most 24 h: %w", coord.ErrInvalid)
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

// checkServer checks one address, and that no password goes over a network in plain text.
func (c Config) checkServer(server string) error {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return fmt.Errorf("server %q: %w: %w", server, coord.ErrInvalid, err)
	}
	if n, err := strconv.Atoi(port); host == "" || err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("server %q is not host:port: %w", server, coord.ErrInvalid)
	}
	if c.Username != "" && c.TLS == nil && host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("the password would be sent to %s unencrypted; use TLS: %w", server, coord.ErrInvalid)
	}
	return nil
}
