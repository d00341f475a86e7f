package embedded

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// freeSpace returns how many bytes this process may still write to the disk of dir.
func freeSpace(dir string) int64 {
	var s unix.Statfs_t
	if _, err := ignoringEINTR(func() (int, error) { return 0, unix.Statfs(dir, &s) }); err != nil {
		return math.MaxInt64 / 2
	}
	return int64(min(s.Bavail, math.MaxInt64/2/uint64(s.Bsize))) * s.Bsize
}

// allocate has the file system keep space for the first bytes of a file, so that writing
// them cannot fail for want of space. It does nothing if the file system cannot do that.
func allocate(path string, bytes int64) error {
	fd, err := ignoringEINTR(func() (int, error) { return unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = ignoringEINTR(func() (int, error) { return 0, unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, bytes) })
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		return nil
	}
	return err
}

// fileSizeLimit returns the largest file in bytes that this process may write.
func fileSizeLimit() int64 {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &l); err != nil || l.Cur > math.MaxInt64/2 {
		return math.MaxInt64 / 2
	}
	return int64(l.Cur)
}

// detachFiles takes the files below dir away from the goroutines of this process that have
// them open: their descriptors then lead to a file that cannot be written. Locks on the
// files are freed. It reports whether no file below dir is open any longer.
func detachFiles(dir string) bool {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	dead, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(dead)
	for range 10 { // a goroutine may be opening another one
		found, err := descriptorsBelow(dir)
		if err != nil {
			return false
		}
		if len(found) == 0 {
			return true
		}
		for _, fd := range found {
			unix.Flock(fd, unix.LOCK_UN) // a mapping of the file keeps the lock otherwise
			if err := unix.Dup3(dead, fd, unix.O_CLOEXEC); err != nil {
				return false
			}
		}
	}
	return false
}

// descriptorsBelow returns this process's descriptors of dir and of files below it.
func descriptorsBelow(dir string) ([]int, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		path, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && (path == dir || strings.HasPrefix(path, dir+"/")) {
			found = append(found, fd)
		}
	}
	return found, nil
}
