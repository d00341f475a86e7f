package secure_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/secure"
)

// handshake is the error of a TLS handshake with a server that gives this answer, if any, and
// closes.
func handshake(t *testing.T, answer string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	defer func() { <-served }()
	go func() {
		defer close(served)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.Read(make([]byte, 16<<10))
		io.WriteString(c, answer)
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return secure.HandshakeError(tls.Client(c, &tls.Config{ServerName: "zk"}).HandshakeContext(t.Context()))
}

func TestAClosedHandshakeProvesNothing(t *testing.T) {
	if err := handshake(t, ""); errors.Is(err, coord.ErrTLS) || !errors.As(err, new(*secure.ClosedError)) {
		t.Errorf("closed: %v, want a ClosedError that is no ErrTLS", err)
	}
	for name, answer := range map[string]string{"no TLS": "HTTP/1.1 400 Bad Request\r\n\r\n", "an alert": "\x15\x03\x03\x00\x02\x02\x28"} {
		if err := handshake(t, answer); !errors.Is(err, coord.ErrTLS) {
			t.Errorf("%s: %v, want ErrTLS", name, err)
		}
	}
}
