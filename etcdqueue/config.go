package etcdqueue

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/resolve"
)

// Config says where etcd is and how to connect to it. Only Endpoints is required.
type Config struct {
	// Endpoints are the addresses of the members: "127.0.0.1:2379", "http://host:2379",
	// "https://host:2379", "unix:///dir/sock" or "unixs:///dir/sock". The driver has one
	// connection at a time, to any of them.
	Endpoints []string

	// Prefix comes before every key: "" or "/a/b".
	Prefix string

	// Username and Password are the credentials; set both or neither. No error contains the
	// password.
	Username, Password string

	// TLS encrypts the connections to endpoints without a scheme, and to https and unixs. If
	// it is nil, https and unixs trust the system's certificates. A member needs a certificate
	// for the endpoint's host, or for TLS.ServerName if that is set.
	TLS *tls.Config

	// SessionTimeout is how long the service keeps the ephemeral nodes of a client that it
	// does not hear from; 0 means 10 s. etcd rounds it up to whole seconds and has a least
	// value, so [coord.Session.Timeout] may be more.
	SessionTimeout time.Duration

	// ConnectTimeout is the longest time that Open takes; 0 means 5 s.
	ConnectTimeout time.Duration

	// Warn is called with one sentence when something works but should be changed. It may be
	// called from any goroutine. nil drops the warnings.
	Warn func(string)

	// Dial makes the connections, below TLS; nil means a net.Dialer. The address is an element
	// of Endpoints. With nil, host names are looked up at each dial, and each IP address is a
	// server of its own.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// LeaseHook is called with the ID of a session before the session exists. The function
	// that it returns is called when the session is over or could not be opened.
	LeaseHook func(id string) (end func(), err error)

	names *resolve.Names
}

// String names the endpoints, the prefix and the user, but not the password.
func (cfg Config) String() string {
	return fmt.Sprintf("etcd %s%s (user %q, TLS %t)", strings.Join(cfg.Endpoints, ","), cfg.Prefix, cfg.Username, cfg.TLS != nil)
}

// GoString returns String, so that no verb of fmt prints the password.
func (cfg Config) GoString() string { return cfg.String() }

// setDefaults sets the fields that were left zero.
func (cfg *Config) setDefaults() {
	if cfg.SessionTimeout == 0 {
		cfg.SessionTimeout = defaultSessionTimeout
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	if cfg.Warn == nil {
		cfg.Warn = func(string) {}
	}
	if cfg.names == nil {
		cfg.names = new(resolve.Names)
	}
	if cfg.LeaseHook == nil {
		cfg.LeaseHook = func(string) (func(), error) { return func() {}, nil }
	}
}

// check returns the endpoints, or [coord.ErrInvalid].
func (cfg *Config) check() ([]endpoint, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, fmt.Errorf("no endpoints: %w", coord.ErrInvalid)
	}
	var endpoints []endpoint
	for _, s := range cfg.Endpoints {
		e, err := parseEndpoint(s, cfg.TLS)
		if err != nil {
			return nil, err
		}
		endpoints = append(endpoints, e)
	}
	if cfg.Prefix != "" {
		if err := coord.CheckPath(cfg.Prefix); err != nil {
			return nil, fmt.Errorf("prefix: %w", err)
		}
	}
	if cfg.SessionTimeout < 0 || cfg.ConnectTimeout < 0 || cfg.SessionTimeout > 24*time.Hour {
		return nil, fmt.Errorf("timeouts must not be negative, and the session timeout at most 24 h: %w", coord.ErrInvalid)
	}
	if (cfg.Username == "") != (cfg.Password == "") {
		return nil, fmt.Errorf("a user name and a password go together: %w", coord.ErrInvalid)
	}
	return endpoints, nil
}
