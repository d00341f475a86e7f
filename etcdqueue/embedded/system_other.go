//go:build !linux

package embedded

import (
	"fmt"
	"net"
	"path/filepath"
)

func isStopped(int) bool        { return false }
func peerPID(*net.UnixConn) int { return 0 }

const longestAddress = 103 // what the shortest sockaddr_un takes

func socketAddress(dir string) (addr string, done func(), err error) {
	addr = filepath.Join(dir, "sock")
	if len(addr) > longestAddress {
		return "", nil, fmt.Errorf("%s: too long for a socket's name: name a directory of at most %d bytes", dir, longestAddress-len("/sock"))
	}
	return addr, func() {}, nil
}
