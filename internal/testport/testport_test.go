package testport_test

import (
	"fmt"
	"net"
	"runtime"
	"testing"

	"github.com/zkq/zkq/internal/testport"
)

// A server listens on a reserved port, ends, and listens again. Meanwhile, the kernel chooses many
// other ports, and never the reserved ones.
func TestReservedPortsAreForTheServersOfTheTest(t *testing.T) {
	ports, release, err := testport.Reserve(100)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	reserved := make(map[int]bool)
	for _, port := range ports {
		if reserved[port] {
			t.Errorf("port %d was given twice", port)
		}
		reserved[port] = true
	}
	server := listen(t, ports[0])
	var open []net.Conn
	var others []net.Listener
	for range 300 {
		c, err := net.Dial("tcp", server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		open, others = append(open, c), append(others, listen(t, 0))
	}
	for i, c := range open {
		dialed, listened := c.LocalAddr().(*net.TCPAddr).Port, others[i].Addr().(*net.TCPAddr).Port
		if runtime.GOOS == "linux" && (reserved[dialed] || reserved[listened]) {
			t.Errorf("another program was given %d or %d", dialed, listened)
		}
		c.Close()
	}
	server.Close()
	listen(t, ports[0])
}

func listen(t *testing.T, port int) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
