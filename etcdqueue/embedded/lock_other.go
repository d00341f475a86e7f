//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package embedded

import (
	"errors"
	"io/fs"
	"runtime"
)

type fileLock struct{}

var errLocked = errors.New("locked by another process")

func supported() error {
	return errors.New("the embedded store does not run on " + runtime.GOOS + ": name an etcd or ZooKeeper service instead")
}

func lockFile(string) (*fileLock, error)     { return nil, supported() }
func lockExisting(string) (*fileLock, error) { return nil, supported() }
func (*fileLock) release()                   {}
func (*fileLock) writePID(int) error         { return supported() }
func readPID(string) int                     { return 0 }
func isAlive(int) bool                       { return false }
func foreignOwner(fs.FileInfo) string        { return "" }
func isWritable(string) bool                 { return false }
