//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package embedded

import (
	"errors"
	"io/fs"
	"runtime"
)

// fileLock is a lock by flock(2). It holds a file descriptor and not an *os.File, because
// the garbage collector closes an unused *os.File, and with it frees the lock. Child
// processes do not inherit the lock.
type fileLock struct{}

// errLocked means that another process, or another session of this one, has the lock.
var errLocked = errors.New("locked by another process")

// supported returns an error on systems where the store cannot run.
func checkSupported() error {
	return errors.New("the embedded store does not run on " + runtime.GOOS + ": name an etcd or ZooKeeper service instead")
}

// lockFile locks the file at path, and creates it if it does not exist. It returns
// errLocked at once if the lock is held.
func lockFile(string) (*fileLock, error) { return nil, checkSupported() }

// lockExisting is lockFile for a file that must exist.
func lockExisting(string) (*fileLock, error) { return nil, checkSupported() }

// release unlocks explicitly: a child process between fork and exec shares the descriptor.
func (*fileLock) release() {}

// writePID writes the number with a fixed width, so that a reader never sees a part of it.
func (*fileLock) writePID(int) error { return checkSupported() }

// readPID returns the number in a lock file, or 0.
func readPID(string) int { return 0 }

// isAlive reports whether the process exists. It may be another process with the same
// number.
func isAlive(int) bool { return false }

// foreignOwner returns the user that a file belongs to, or "" if it is this process's.
func foreignOwner(fs.FileInfo) string { return "" }

// isWritable reports whether this process may create files in the directory.
func isWritable(string) bool { return false }
