//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// wasClosed says that f, a standard stream, was closed when the process began.
// Go's runtime opens the null device for such a one, for reading and writing;
// what a shell redirects to it is open for writing alone.
func wasClosed(f *os.File) bool {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return true
	}
	if flags&unix.O_ACCMODE != unix.O_RDWR {
		return false
	}
	have, err := f.Stat()
	if err != nil {
		return true
	}
	null, err := os.Stat(os.DevNull)
	return err == nil && os.SameFile(have, null)
}
