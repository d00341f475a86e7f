//go:build !linux

package embedded

import "math"

// freeSpace returns how many bytes this process may still write to the disk of dir.
func freeSpace(string) int64 { return math.MaxInt64 / 2 }

// fileSizeLimit returns the largest file in bytes that this process may write.
func fileSizeLimit() int64 { return math.MaxInt64 / 2 }

// allocate has the file system keep space for the first bytes of a file, so that writing
// them cannot fail for want of space. It does nothing if the file system cannot do that.
func allocate(string, int64) error { return nil }

// detachFiles takes the files below dir away from the goroutines of this process that have
// them open: their descriptors then lead to a file that cannot be written. Locks on the
// files are freed. It reports whether no file below dir is open any longer.
func detachFiles(string) bool { return false }
