package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/zkq/zkq/coord"
)

// StoreError says why this process can neither run the store nor reach its owner. It is
// coord.ErrUnreachable: nothing was changed.
type StoreError struct {
	Dir string
	Err error
}

func (e *StoreError) Error() string { return fmt.Sprintf("the store in %s: %v", e.Dir, e.Err) }

// Unwrap returns the reason, and coord.ErrUnreachable.
func (e *StoreError) Unwrap() []error { return []error{e.Err, coord.ErrUnreachable} }

// Hint says what the user can do.
func (e *StoreError) Hint() string {
	is := func(target error) bool { return errors.Is(e.Err, target) }
	noSpace, owner := (*NoSpaceError)(nil), (*OwnerError)(nil)
	switch {
	case errors.As(e.Err, &noSpace), is(syscall.ENOSPC), is(syscall.EDQUOT):
		return "free some space on its disk; nothing that was acknowledged is lost"
	case is(errFileLimit), is(syscall.EFBIG):
		return "raise the limit of file sizes for this process: ulimit -f unlimited"
	case is(syscall.EMFILE), is(syscall.ENFILE):
		return "raise the limit of open files for this process: ulimit -n 1024"
	case errors.As(e.Err, &owner):
		return owner.Hint()
	case is(fs.ErrPermission):
		return "the store or parts of it belong to another user: ls -la " + e.Dir + " shows whose"
	case is(syscall.EROFS):
		return "its file system is mounted read-only: name another directory with -c local:DIR"
	case is(context.DeadlineExceeded):
		return "--connect-timeout waits longer; the file " + e.Dir + "/lock holds the number of the process that runs the store"
	}
	return "zkq doctor tells more; the file " + e.Dir + "/lock holds the number of the process that runs the store"
}

// storeError returns err as a [*StoreError], unless it contains one already.
func storeError(dir directory, err error) error {
	if e := (*StoreError)(nil); errors.As(err, &e) {
		return err
	}
	return &StoreError{Dir: dir.path, Err: err}
}

// OwnerError means that a path belongs to another user. A store belongs to one user alone.
type OwnerError struct{ Path, Owner string }

func (e *OwnerError) Error() string {
	return fmt.Sprintf("%s belongs to %s, and a store belongs to one user alone", e.Path, e.Owner)
}

// Hint says what the user can do.
func (e *OwnerError) Hint() string {
	return fmt.Sprintf("run zkq as %s (sudo -u %s zkq …), or name another directory with -c local:DIR", e.Owner, e.Owner)
}

// Is makes an OwnerError match coord.ErrUnreachable.
func (e *OwnerError) Is(target error) bool { return target == coord.ErrUnreachable }

// StoppedOwnerError means that the process which runs the store is stopped, by Ctrl-Z or by
// a debugger. No other process can run the store until that one is continued or ends. The
// error is coord.ErrUnreachable: nothing was changed.
type StoppedOwnerError struct {
	Dir string
	PID int
}

func (e *StoppedOwnerError) Error() string {
	return fmt.Sprintf("store in %s: process %d runs it and is stopped: continue it (kill -CONT %d) or end it", e.Dir, e.PID, e.PID)
}

// Is makes a StoppedOwnerError match coord.ErrUnreachable.
func (e *StoppedOwnerError) Is(target error) bool { return target == coord.ErrUnreachable }

// Hint returns the command that helps.
func (e *StoppedOwnerError) Hint() string {
	return fmt.Sprintf("kill -CONT %d continues it", e.PID)
}

// errFileLimit means that this process may not write files as large as the store's.
var errFileLimit = errors.New("file size limit too low")

// NoSpaceError means that the disk is too full to open the store. Nothing was changed.
type NoSpaceError struct {
	Dir          string
	Free, Needed int64 // bytes
}

func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("the disk of %s is full: %s are free, and the store needs %s to open", e.Dir, bytesText(e.Free), bytesText(e.Needed))
}

// bytesText formats a number of bytes for an error message.
func bytesText(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
