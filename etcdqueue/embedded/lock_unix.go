//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// fileLock is a lock by flock(2). It holds a file descriptor and not an *os.File, because
// the garbage collector closes an unused *os.File, and with it frees the lock. Child
// processes do not inherit the lock.
type fileLock struct{ fd int }

// errLocked means that another process, or another session of this one, has the lock.
var errLocked = errors.New("locked by another process")

// checkSupported returns an error on systems where the store cannot run.
func checkSupported() error { return nil }

// lockFile locks the file at path, and creates it if it does not exist. It returns
// errLocked at once if the lock is held.
func lockFile(path string) (*fileLock, error) { return flock(path, unix.O_CREAT) }

// lockExisting is lockFile for a file that must exist.
func lockExisting(path string) (*fileLock, error) { return flock(path, 0) }

// flock opens a file and locks it, or returns errLocked.
func flock(path string, flags int) (*fileLock, error) {
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Open(path, flags|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	l := &fileLock{fd}
	if _, err := ignoringEINTR(func() (int, error) { return 0, unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		unix.Close(fd)
		if err == unix.EWOULDBLOCK {
			return nil, errLocked
		}
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	// The path may have been given to another file meanwhile, and others would lock that one.
	var have, named unix.Stat_t
	if unix.Fstat(fd, &have) != nil || unix.Stat(path, &named) != nil || have.Ino != named.Ino || have.Dev != named.Dev {
		l.release()
		return nil, errLocked
	}
	return l, nil
}

// release unlocks explicitly: a child process between fork and exec shares the descriptor.
func (l *fileLock) release() {
	unix.Flock(l.fd, unix.LOCK_UN)
	unix.Close(l.fd)
}

// writePID writes the number with a fixed width, so that a reader never sees a part of it.
func (l *fileLock) writePID(pid int) error {
	_, err := unix.Pwrite(l.fd, fmt.Appendf(nil, "%10d\n", pid), 0)
	return err
}

// readPID returns the number in a lock file, or 0.
func readPID(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

// isAlive reports whether the process exists. It may be another process with the same
// number.
func isAlive(pid int) bool {
	err := unix.Kill(pid, 0)
	return err == nil || err == unix.EPERM
}

// ignoringEINTR repeats a system call that a signal interrupted.
func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// foreignOwner returns the user that a file belongs to, or "" if it is this process's.
func foreignOwner(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() {
		return ""
	}
	uid := strconv.Itoa(int(st.Uid))
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "user " + uid
}

// isWritable reports whether this process may create files in the directory.
func isWritable(dir string) bool { return unix.Access(dir, unix.W_OK|unix.X_OK) == nil }
