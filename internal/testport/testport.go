// Package testport reserves ports for the servers of tests.
package testport

import (
	"runtime"
	"syscall"
)

// Reserve returns n ports of 127.0.0.1 that the kernel chose. Until release is called, the kernel
// gives them to no other program, neither to listen nor to connect from. A server can listen on
// one, end, and listen again: a socket that does not listen is bound to the port, and like the
// server's it allows others the same address. Outside of Linux the ports are only free at the time
// of the call.
func Reserve(n int) (ports []int, release func(), err error) {
	var sockets []int
	release = func() {
		for _, fd := range sockets {
			syscall.Close(fd)
		}
		sockets = nil
	}
	for range n {
		fd, port, err := bind()
		if err != nil {
			release()
			return nil, nil, err
		}
		sockets, ports = append(sockets, fd), append(ports, port)
	}
	if runtime.GOOS != "linux" {
		release()
	}
	return ports, release, nil
}

// bind binds a new socket to a port that the kernel chooses.
func bind() (fd, port int, err error) {
	syscall.ForkLock.RLock()
	fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return 0, 0, err
	}
	err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	var address syscall.Sockaddr
	if err == nil {
		address, err = syscall.Getsockname(fd)
	}
	if err != nil {
		syscall.Close(fd)
		return 0, 0, err
	}
	return fd, address.(*syscall.SockaddrInet4).Port, nil
}
