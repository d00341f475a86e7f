//go:build !linux

package embedded

import (
	"fmt"
	"net"
	"path/filepath"
)

// isStopped reports whether the process is stopped by a signal or a debugger.
func isStopped(int) bool { return false }

// peerPID returns the process at the other end, or 0 if it cannot be found.
func peerPID(*net.UnixConn) int { return 0 }

const longestAddress = 103 // longestAddress is what the shortest sockaddr_un of these systems holds.

// socketAddress returns a name for the socket in dir that is short enough for the kernel.
// The name is valid until done is called.
func socketAddress(dir string) (addr string, done func(), err error) {
	addr = filepath.Join(dir, "sock")
	if len(addr) > longestAddress {
		return "", nil, fmt.Errorf("%s: too long for a socket's name: name a directory of at most %d bytes", dir, longestAddress-len("/sock"))
	}
	return addr, func() {}, nil
}
