package etcdqueue

import (
	"cmp"
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

// defaultPort is etcd's port for clients.
const defaultPort = "2379"

// endpoint is one element of Config.Endpoints.
type endpoint struct {
	name             string // as configured
	network, address string // for a net.Dialer
	tls              *tls.Config
}

// parseEndpoint parses an address. The scheme decides whether it is encrypted; an address
// without a scheme is encrypted if there is a TLS configuration.
func parseEndpoint(s string, config *tls.Config) (endpoint, error) {
	e := endpoint{name: s, network: "tcp"}
	scheme, rest := cutScheme(s)
	host := ""
	switch scheme {
	case "unix", "unixs":
		if rest == "" {
			return e, fmt.Errorf("endpoint %q: no path: %w", s, coord.ErrInvalid)
		}
		e.network, e.address = "unix", rest
		host = path.Base(rest)
	case "", "http", "https":
		var port string
		var err error
		if host, port, err = splitHostPort(rest); err != nil {
			return e, fmt.Errorf("endpoint %q: %w", s, err)
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

// cutScheme splits "scheme://rest", and the short forms "unix:path" and "unixs:path". The
// scheme of "host:port" is "".
func cutScheme(s string) (scheme, rest string) {
	if scheme, rest, found := strings.Cut(s, "://"); found {
		return scheme, rest
	}
	if scheme, rest, found := strings.Cut(s, ":"); found && (scheme == "unix" || scheme == "unixs") {
		return scheme, rest
	}
	return "", s
}

// splitHostPort reads "host", "host:port" or "[IPv6]:port", with a slash after it or none.
func splitHostPort(s string) (host, port string, err error) {
	u, err := url.Parse("//" + s)
	if err != nil || u.Host == "" || u.User != nil || u.Path != "" && u.Path != "/" {
		return "", "", fmt.Errorf("want host:port: %w", coord.ErrInvalid)
	}
	host, port = u.Hostname(), cmp.Or(u.Port(), defaultPort)
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 || host == "" || strings.Contains(host, ":") && u.Host[0] != '[' {
		return "", "", fmt.Errorf("want host:port, with IPv6 addresses in brackets and ports from 1 to 65535: %w", coord.ErrInvalid)
	}
	return host, port, nil
}

// authority returns the HTTP/2 authority of requests to e.
func (e endpoint) authority() string {
	if e.network == "unix" {
		return "localhost"
	}
	return e.address
}

// dialFunc is the type of Config.Dial.
type dialFunc func(ctx context.Context, address string) (net.Conn, error)

// resolveServers returns the addresses that e stands for: those of its host name, first the
// one that was dialled longest ago. With Config.Dial it is e's own name.
func (e endpoint) resolveServers(ctx context.Context, names *resolve.Names, dial dialFunc) ([]string, error) {
	if dial != nil || e.network != "tcp" {
		return []string{e.address}, nil
	}
	return names.Servers(ctx, e.address)
}

// label returns e's name, and the address of the server if e stands for several.
func (e endpoint) label(server string, of int) string {
	if of == 1 {
		return e.name
	}
	return e.name + " (" + server + ")"
}

// dial connects to a server of e, with TLS if it is configured.
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
	return secure.Client(ctx, nc, e.tls, func() bool { return e.speaksPlain(ctx, server, dial) })
}

// speaksPlain reports whether a server without TLS listens at an endpoint that closed the
// connection during the TLS handshake. It sends only the preface of HTTP/2.
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

// speaksTLS reports whether a TLS server listens at an endpoint that closed a plain
// connection.
func (e endpoint) speaksTLS(ctx context.Context, server string, dial dialFunc) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	e.tls = nil
	nc, err := e.dial(ctx, server, dial)
	if err != nil {
		return false
	}
	defer nc.Close()
	// Only the handshake is made on this connection, so the certificate need not be trusted.
	err = tls.Client(nc, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).HandshakeContext(ctx)
	var op *net.OpError
	return err == nil || errors.As(err, &op) && op.Op == "remote error"
}
