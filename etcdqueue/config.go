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

// Config says where the service is and how to speak with it.
type Config struct {
	// Endpoints are the addresses of the members: "127.0.0.1:2379",
	// "http://host:2379", "https://host:2379", "unix:///dir/sock" or
	// "unixs:///dir/sock". One connection is open at a time, to any of them.
	Endpoints []string

	// Prefix comes before every key: "" or "/a/b".
	Prefix string

	// Username and Password log in. The password appears in no error.
	Username, Password string

	// TLS encrypts the connections to endpoints without a scheme, and to https
	// and unixs; without it those two trust the system's certificates. The name
	// to expect is the endpoint's host, unless it sets one.
	TLS *tls.Config

	// SessionTimeout is how long the service keeps the ephemeral nodes of a
	// silent client: 0 means 10 s. etcd counts in whole seconds and has a least
	// value, so [coord.Session.Timeout] may be more.
	SessionTimeout time.Duration

	// ConnectTimeout is how long Open tries: 0 means 5 s.
	ConnectTimeout time.Duration

	// Warn is told, in a sentence, what works but should be changed. It may be
	// called from any goroutine. nil is silent.
	Warn func(string)

	// Dial makes the connections; nil means a net.Dialer. The address is as it
	// stands in Endpoints. Without it a host name is looked up at each dial, and each of
	// its IP addresses is a server of its own.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// LeaseHook is called with the ID of a session before it exists; what it
	// returns is called when the session is over or could not be had.
	LeaseHook func(id string) (end func(), err error)

	names *resolve.Names
}

// String renders the configuration without the password.
func (cfg Config) String() string {
	return fmt.Sprintf("etcd %s%s (user %q, TLS %t)", strings.Join(cfg.Endpoints, ","), cfg.Prefix, cfg.Username, cfg.TLS != nil)
}

// GoString is String, so that no verb shows the password.
func (cfg Config) GoString() string { return cfg.String() }

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

// check says what is wrong with the configuration.
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
		return nil, fmt.Errorf("timeout out of range: %w", coord.ErrInvalid)
	}
	if (cfg.Username == "") != (cfg.Password == "") {
		return nil, fmt.Errorf("a user name and a password go together: %w", coord.ErrInvalid)
	}
	return endpoints, nil
}
