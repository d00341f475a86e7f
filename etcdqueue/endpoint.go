package etcdqueue

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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

// connect dials e and shakes hands.
func (e endpoint) connect(ctx context.Context, dial dialFunc) (net.Conn, error) {
	var nc net.Conn
	var err error
	if dial != nil {
		nc, err = dial(ctx, e.name)
	} else {
		nc, err = new(net.Dialer).DialContext(ctx, e.network, e.address)
	}
	if err != nil || e.tls == nil {
		return nc, err
	}
	c := tls.Client(nc, e.tls)
	if err := c.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, handshakeError(ctx, err)
	}
	return c, nil
}

// handshakeError tells a handshake that failed from one that was cut short.
func handshakeError(ctx context.Context, err error) error {
	var header tls.RecordHeaderError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("no answer to the TLS handshake: %w", err)
	case errors.As(err, &header):
		return fmt.Errorf("the server does not speak TLS: %w: %w", err, coord.ErrTLS)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the server closed the connection in the TLS handshake (does it speak TLS?): %w: %w", err, coord.ErrTLS)
	case isTLS(err):
		return fmt.Errorf("%w: %w", err, coord.ErrTLS)
	}
	return err
}

// isTLS says whether err is about trust or encryption rather than the network.
func isTLS(err error) bool {
	var verification *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	var op *net.OpError
	return errors.As(err, &verification) || errors.As(err, &unknown) || errors.As(err, &host) ||
		errors.As(err, &invalid) || errors.As(err, &alert) ||
		errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error") ||
		strings.HasPrefix(err.Error(), "tls: ")
}

// speaksTLS asks whether there is a TLS server at an endpoint that was spoken to
// in plain text and hung up.
func (e endpoint) speaksTLS(ctx context.Context, dial dialFunc) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	e.tls = nil
	nc, err := e.connect(ctx, dial)
	if err != nil {
		return false
	}
	defer nc.Close()
	// Nothing is sent on this connection but the greeting, whoever answers it.
	err = tls.Client(nc, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).HandshakeContext(ctx)
	var op *net.OpError
	return err == nil || errors.As(err, &op) && op.Op == "remote error"
}
