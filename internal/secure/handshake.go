// Package secure makes TLS connections for both drivers, and says what is wrong where that
// fails.
package secure

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/zkq/zkq/coord"
)

// Client makes the handshake of a TLS client on conn, and closes conn if that fails. A server
// that closes the connection without an answer may be one without TLS: speaksPlain finds
// out, and is called for no other reason.
func Client(ctx context.Context, conn net.Conn, config *tls.Config, speaksPlain func() bool) (net.Conn, error) {
	c := tls.Client(conn, config)
	err := c.HandshakeContext(ctx)
	if err == nil {
		return c, nil
	}
	conn.Close()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("no answer to the TLS handshake: %w", err)
	}
	err = HandshakeError(err)
	if errors.As(err, new(*ClosedError)) && speaksPlain() {
		err = fmt.Errorf("the server does not speak TLS: %w", coord.ErrTLS)
	}
	return nil, err
}

// HandshakeError says why a TLS handshake failed. It is [coord.ErrTLS] only where the
// server's answer proves that the two ends do not fit. A server that closes the connection
// may not speak TLS, but a load balancer whose servers are away closes it too.
func HandshakeError(err error) error {
	var header tls.RecordHeaderError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fmt.Errorf("no answer to the TLS handshake: %w", err)
	case errors.As(err, &header):
		return fmt.Errorf("the server does not speak TLS: %w: %w", err, coord.ErrTLS)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return &ClosedError{err}
	}
	return ReadError(err)
}

// ReadError makes an error of a read [coord.ErrTLS] if it is about trust or encryption rather
// than the network. A TLS 1.3 server refuses a client's certificate after the handshake, so
// that the client's first read meets the refusal.
func ReadError(err error) error {
	if isTLS(err) {
		return fmt.Errorf("%w: %w", err, coord.ErrTLS)
	}
	return err
}

// ClosedError is a TLS handshake that the server ended without an answer.
type ClosedError struct{ Err error }

func (e *ClosedError) Error() string {
	return fmt.Sprintf("the server closed the connection during the TLS handshake; does it speak TLS? (%v)", e.Err)
}

func (e *ClosedError) Unwrap() error { return e.Err }

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
