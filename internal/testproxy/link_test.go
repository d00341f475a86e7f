package testproxy_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/zkq/zkq/internal/testproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers every byte with the same byte.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

func dial(t *testing.T, l *testproxy.Link) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	say(t, c, "hello")
	hear(t, c, "hello")
	return c
}

func say(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c net.Conn, s string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, len(s))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != s {
		t.Fatalf("heard %q, %v; want %q", b, err, s)
	}
}

// silent says that nothing is heard for a while: long enough for what was not held.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("heard %d bytes, %v", n, err)
	}
}

func TestHeldBytesArriveAfterTheHeal(t *testing.T) {
	for _, d := range []testproxy.Direction{testproxy.Requests, testproxy.Replies} {
		l := testproxy.NewFor(t, nil, echo(t))
		c := dial(t, l)
		l.Hold(d)
		say(t, c, "held")
		silent(t, c)
		l.Heal()
		hear(t, c, "held")
	}
}

func TestDroppedBytesNeverArriveAndEndTheConnection(t *testing.T) {
	l := testproxy.NewFor(t, nil, echo(t))
	c := dial(t, l)
	l.Drop(testproxy.Replies)
	say(t, c, "dropped")
	silent(t, c)
	l.Heal()
	gone(t, c)
	dial(t, l)
}

// gone waits for the connection's end, and hears nothing before it.
func gone(t *testing.T, c net.Conn) error {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := c.Read(make([]byte, 1))
	if n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("heard %d bytes, %v; want the end", n, err)
	}
	return err
}

func TestDelayedBytesComeLater(t *testing.T) {
	l := testproxy.NewFor(t, nil, echo(t))
	c := dial(t, l)
	const by = 150 * time.Millisecond
	l.Delay(testproxy.Requests, by)
	start := time.Now()
	say(t, c, "late")
	hear(t, c, "late")
	if took := time.Since(start); took < by {
		t.Errorf("answered after %v, want at least %v", took, by)
	}
}

func TestConnectionEndsAfterSoManyBytes(t *testing.T) {
	l := testproxy.NewFor(t, nil, echo(t))
	c := dial(t, l)
	l.CutAfter(testproxy.Replies, 6)
	say(t, c, "whole")
	hear(t, c, "whole")
	say(t, c, "half")
	hear(t, c, "h")
	gone(t, c)
	dial(t, l)
}

func TestResetIsAReset(t *testing.T) {
	l := testproxy.NewFor(t, nil, echo(t))
	c := dial(t, l)
	l.Reset()
	if err := gone(t, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}

func TestCutEndsAndRefusesConnectionsUntilTheHeal(t *testing.T) {
	l := testproxy.NewFor(t, nil, echo(t))
	c := dial(t, l)
	l.Cut()
	gone(t, c)
	again, err := net.Dial("tcp", l.Addresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	gone(t, again)
	l.Heal()
	dial(t, l)
}

// letters is a protocol of single letters: an upper case one begins a transaction, its answer is the same letter.
type letters struct{ meant map[byte]bool }

func (p *letters) Requests(b []byte, meant func([]byte) bool) []byte {
	for _, c := range b {
		if c < 'a' && meant([]byte{c}) {
			p.meant[c] = true
		}
	}
	return b
}

func (p *letters) Replies(b []byte, lose func() bool) ([]byte, bool) {
	for i, c := range b {
		if p.meant[c] && lose() {
			return b[:i], true
		}
	}
	return b, false
}

func (p *letters) Dialer() string { return "l" }

func TestOnlyTheAnswersMeantAreLost(t *testing.T) {
	l := testproxy.NewFor(t, func() testproxy.Protocol { return &letters{map[byte]bool{}} }, echo(t))
	c := dial(t, l)
	l.LoseAnswers(1, func(request []byte) bool { return bytes.Equal(request, []byte("B")) })
	say(t, c, "aAbBc")
	hear(t, c, "aAb")
	gone(t, c)
	if n := l.AnswersLost(); n != 1 {
		t.Errorf("%d answers lost, want 1", n)
	}
	again := dial(t, l)
	say(t, again, "B")
	hear(t, again, "B")
}

func TestAsManyAnswersAreLostAsWasSaid(t *testing.T) {
	l := testproxy.NewFor(t, func() testproxy.Protocol { return &letters{map[byte]bool{}} }, echo(t))
	l.LoseAnswers(2, nil)
	for range 2 {
		c := dial(t, l)
		say(t, c, "ABC") // all three are meant, and the first takes the connection with it
		gone(t, c)
	}
	c := dial(t, l)
	say(t, c, "ABC")
	hear(t, c, "ABC")
	if n := l.AnswersLost(); n != 2 {
		t.Errorf("%d answers lost, want 2", n)
	}
}

func TestOnlyTheDialerMeantIsHeld(t *testing.T) {
	l := testproxy.NewFor(t, func() testproxy.Protocol { return &letters{map[byte]bool{}} }, echo(t))
	c := dial(t, l)
	l.HoldDialer("somebody", testproxy.Requests)
	say(t, c, "free")
	hear(t, c, "free")
	l.HoldDialer("l", testproxy.Requests)
	say(t, c, "held")
	silent(t, c)
	l.Heal()
	hear(t, c, "held")
}
