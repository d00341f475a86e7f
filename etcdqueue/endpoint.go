package etcdqueue

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/resolve"
	"github.com/zkq/zkq/internal/secure"
)

const defaultPort = "2379"

// endpoint is one address of the cluster.
type endpoint struct {
	name             string // as it stands in the configuration
	network, address string // what a net.Dialer wants
	tls              *tls.Config
}

// parseEndpoint reads an address. The scheme decides whether it is encrypted; an
// address without one is encrypted if there is a configuration for it.
func parseEndpoint(s string, config *tls.Config) (endpoint, error) {
	e := endpoint{name: s, network: "tcp"}
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		scheme, rest, found = strings.Cut(s, ":")
		if !found || scheme != "unix" && scheme != "unixs" {
			scheme, rest = "", s
		}
	}
	host := ""
	switch scheme {
	case "unix", "unixs":
		if rest == "" {
			return e, fmt.Errorf("endpoint %q: no path: %w", s, coord.ErrInvalid)
		}
		e.network, e.address = "unix", rest
		host = path.Base(rest)
	case "", "http", "https":
		u, err := url.Parse("//" + rest)
		if err != nil || u.Host == "" || u.User != nil || u.Path != "" && u.Path != "/" {
			return e, fmt.Errorf("endpoint %q: want host:port: %w", s, coord.ErrInvalid)
		}
		host = u.Hostname()
		port := u.Port()
		if port == "" {
			port = defaultPort
		}
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 || host == "" || strings.Contains(host, ":") && u.Host[0] != '[' {
			return e, fmt.Errorf("endpoint %q: want host:port, with IPv6 addresses in brackets and ports from 1 to 65535: %w", s, coord.ErrInvalid)
		}
		e.address = net.JoinHostPort(host, port)
	default:
		return e, fmt.Errorf("endpoint %q: scheme %q: want http, https, unix or unixs: %w", s, scheme, coord.ErrInvalid)
	}
	if config == nil && (scheme == "https" || scheme == "unixs") {
		config = &tls.Config{}
	}
	if config != nil && scheme != "http" {
		e.tls = config.Clone()
		e.tls.NextProtos = []string{"h2"}
		if e.tls.ServerName == "" {
			e.tls.ServerName = host
		}
	}
	return e, nil
}

// authority is the name that HTTP/2 requests to e carry.
func (e endpoint) authority() string {
	if e.network == "unix" {
		return "localhost"
	}
	return e.address
}

type dialFunc func(ctx context.Context, address string) (net.Conn, error)

// resolveServers are the addresses that e stands for: those of its host name, first those that
// were dialled longest ago. Who makes connections otherwise is given e's own name.
func (e endpoint) resolveServers(ctx context.Context, names *resolve.Names, dial dialFunc) ([]string, error) {
	if dial != nil || e.network != "tcp" {
		return []string{e.address}, nil
	}
	return names.Servers(ctx, e.address)
}

// label is e's name, and beside it one of its servers where there are several.
func (e endpoint) label(server string, of int) string {
	if of == 1 {
		return e.name
	}
	return e.name + " (" + server + ")"
}

// dial dials a server of e and shakes hands.
func (e endpoint) dial(ctx context.Context, server string, dial dialFunc) (net.Conn, error) {
	var nc net.Conn
	var err error
	if dial != nil {
		nc, err = dial(ctx, e.name)
	} else {
		nc, err = new(net.Dialer).DialContext(ctx, e.network, server)
	}
	if err != nil || e.tls == nil {
		return nc, err
	}
	c := tls.Client(nc, e.tls)
	if err := c.HandshakeContext(ctx); err != nil {
		nc.Close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no answer to the TLS handshake: %w", err)
		}
		err = secure.HandshakeError(err)
		if errors.As(err, new(*secure.ClosedError)) && e.speaksPlain(ctx, server, dial) {
			err = fmt.Errorf("the server does not speak TLS: %w", coord.ErrTLS)
		}
		return nil, err
	}
	return c, nil
}

// speaksPlain asks whether a server without TLS is at an endpoint that closed the
// connection in the TLS handshake. Nothing is sent but the greeting of HTTP/2.
func (e endpoint) speaksPlain(ctx context.Context, server string, dial dialFunc) bool {
	e.tls = nil
	nc, err := e.dial(ctx, server, dial)
	if err != nil {
		return false
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	const noSettings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	if _, err := io.WriteString(nc, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+noSettings); err != nil {
		return false
	}
	first := make([]byte, 1)
	_, err = io.ReadFull(nc, first)
	return err == nil && checkFirstByte(first[0]) == nil
}

// speaksTLS asks whether there is a TLS server at an endpoint that was spoken to
// in plain text and hung up.
func (e endpoint) speaksTLS(ctx context.Context, server string, dial dialFunc) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	e.tls = nil
	nc, err := e.dial(ctx, server, dial)
	if err != nil {
		return false
	}
	defer nc.Close()
	// Nothing is sent on this connection but the greeting, whoever answers it.
	err = tls.Client(nc, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).HandshakeContext(ctx)
	var op *net.OpError
	return err == nil || errors.As(err, &op) && op.Op == "remote error"
}
