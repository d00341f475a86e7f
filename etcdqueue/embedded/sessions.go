package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sessionLocks is the directory with a file per session, locked by the session's process.
// The kernel frees the lock when the process ends, and so the owner learns of the end. A
// lease does not show it: it stands still while no process runs the store, and starts anew
// with it.
type sessionLocks struct{ path string }

// lock locks the file of a session that is about to be opened. The file gets its final name
// when it is locked already.
func (s sessionLocks) lock(id string) (end func(), err error) {
	fail := func(err error) (func(), error) {
		return nil, fmt.Errorf("lock session %s: %w", id, err)
	}
	if _, err := parseSessionID(id); err != nil {
		return fail(err)
	}
	name, fresh := filepath.Join(s.path, id), filepath.Join(s.path, newPrefix+id)
	lock, err := lockFile(fresh)
	if err != nil {
		return fail(err)
	}
	if err := os.Rename(fresh, name); err != nil {
		lock.release()
		return fail(err)
	}
	return func() {
		os.Remove(name)
		lock.release()
	}, nil
}

// newPrefix begins the name of a session's file before it is locked.
const newPrefix = "new-"

// dead returns the sessions of dead processes, each with its locked file, and the IDs of
// all others that have a file.
func (s sessionLocks) dead() (dead []deadSession, alive map[int64]bool, err error) {
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return nil, nil, err
	}
	alive = make(map[int64]bool)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) {
			s.removeAbandoned(e)
			continue
		}
		id, err := parseSessionID(e.Name())
		if err != nil {
			continue
		}
		path := filepath.Join(s.path, e.Name())
		lock, err := lockExisting(path)
		switch {
		case err == nil:
			dead = append(dead, deadSession{id: id, path: path, lock: lock})
		case errors.Is(err, fs.ErrNotExist): // ended in order meanwhile
		default:
			alive[id] = true
		}
	}
	return dead, alive, nil
}

// removeAbandoned removes the file of a process that died in the middle of lock.
func (s sessionLocks) removeAbandoned(e fs.DirEntry) {
	info, err := e.Info()
	if err != nil || time.Since(info.ModTime()) < time.Minute {
		return
	}
	path := filepath.Join(s.path, e.Name())
	if lock, err := lockExisting(path); err == nil {
		os.Remove(path)
		lock.release()
	}
}

// deadSession is a session whose process has ended.
type deadSession struct {
	id   int64
	path string
	lock *fileLock
}

// remove removes the file, once the lease is revoked.
func (d deadSession) remove() {
	os.Remove(d.path)
	d.lock.release()
}

// parseSessionID returns the lease of a session.
func parseSessionID(id string) (int64, error) {
	n, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		return 0, err
	}
	return int64(n), nil
}
