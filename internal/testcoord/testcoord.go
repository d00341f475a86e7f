// Package testcoord has what the tests of both drivers, and of what runs on them, do alike.
package testcoord

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/zkq/zkq/coord"
)

// Main runs the tests, calls the functions in order, and exits. The exit code is 1 if a test
// failed or a goroutine is left.
func Main(m *testing.M, stops ...func()) {
	code := m.Run()
	for _, stop := range stops {
		stop()
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// Patience bounds what a test waits for and does not measure. It is long: beside other work a
// machine may need many times what it needs alone.
const Patience = 2 * time.Minute

// Within returns a context that ends after d, or with the test.
func Within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// Session returns the coordinator's session.
func Session(t testing.TB, c coord.Coordinator) coord.Session {
	t.Helper()
	s, err := c.Session(Within(t, Patience))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Commit commits the ops, which must be applied.
func Commit(t testing.TB, s coord.Session, ops ...coord.Op) []coord.Result {
	t.Helper()
	results, err := s.Commit(Within(t, Patience), ops...)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// Names lists the names in dir.
func Names(t testing.TB, s coord.Session, dir string, o coord.ListOptions) []string {
	t.Helper()
	l, err := s.List(Within(t, Patience), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range l.Nodes {
		names = append(names, strings.TrimPrefix(n.Path, strings.TrimSuffix(dir, "/")+"/"))
	}
	return names
}

// Eventually polls isTrue until it holds. After the limit it fails the test.
func Eventually(t testing.TB, limit time.Duration, what string, isTrue func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !isTrue(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// InParallel calls f for 0 to n-1, each in a goroutine of its own, and waits for them.
func InParallel(n int, f func(i int)) {
	var calls sync.WaitGroup
	for i := range n {
		calls.Go(func() { f(i) })
	}
	calls.Wait()
}

// ClosedPort returns an address that refuses connections. No other process can get the port
// before the test ends: a socket is bound to it that does not listen.
func ClosedPort(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", address.(*syscall.SockaddrInet4).Port)
}
