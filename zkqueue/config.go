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
