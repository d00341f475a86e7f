package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/version"

	"github.com/zkq/zkq/coord"
)

// directory is the directory of a store:
//
//	FORMAT     version of the layout, and the etcd that wrote the store last
//	lock       locked by the owner, with the owner's pid
//	sock       where the owner listens
//	sessions/  a file per session, locked by the session's process
//	data/      etcd's data
//	data.new/  the same while it is created
//	reserve    space that is given up when the disk is full
type directory struct{ path string }

// layoutVersion is the version of this layout, in the file FORMAT.
const layoutVersion = 1

func (d directory) format() string         { return filepath.Join(d.path, "FORMAT") }
func (d directory) lock() string           { return filepath.Join(d.path, "lock") }
func (d directory) sock() string           { return filepath.Join(d.path, "sock") }
func (d directory) data() string           { return filepath.Join(d.path, "data") }
func (d directory) newData() string        { return filepath.Join(d.path, "data.new") }
func (d directory) database() string       { return filepath.Join(d.data(), "member", "snap", "db") }
func (d directory) reserve() string        { return filepath.Join(d.path, "reserve") }
func (d directory) sessions() sessionLocks { return sessionLocks{filepath.Join(d.path, "sessions")} }

// storeFiles are the names of everything that a store consists of.
var storeFiles = []string{"FORMAT", "FORMAT.new", "lock", "sock", "sessions", "data", "data.new", "reserve"}

// openDirectory creates the directory if there is none, and checks that it may hold a store
// of this user's. If the directory belongs to another user but may be written, as a
// container's volume, the store is in a subdirectory.
func openDirectory(path string) (directory, error) {
	if err := checkSupported(); err != nil {
		return directory{}, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return directory{}, fmt.Errorf("store in %q: %w", path, err)
	}
	d := directory{abs}
	if err := d.make(); err != nil {
		return d, err
	}
	if d.foreignOwner() != "" && d.mayHoldAnother() {
		d.path = filepath.Join(d.path, subdirectory)
		if err := d.make(); err != nil {
			return d, err
		}
	}
	if owner := d.foreignOwner(); owner != "" {
		return d, &OwnerError{Path: d.path, Owner: owner}
	}
	if err := d.checkPrivate(); err != nil {
		return d, err
	}
	if err := d.checkFormat(); err != nil {
		return d, err
	}
	if err := os.MkdirAll(d.sessions().path, 0o700); err != nil {
		return d, storeError(d, err)
	}
	return d, nil
}

// subdirectory is the directory of the store below one that belongs to another user.
const subdirectory = "store"

// make creates the directory if there is none. As root it creates none in another user's
// directory, because that user could not use the store afterwards.
func (d directory) make() error {
	parent := d.path
	for {
		if _, err := os.Stat(parent); !errors.Is(err, fs.ErrNotExist) || parent == filepath.Dir(parent) {
			break
		}
		parent = filepath.Dir(parent)
	}
	if parent == d.path {
		return nil
	}
	if owner := (directory{parent}).foreignOwner(); owner != "" && os.Geteuid() == 0 {
		return &OwnerError{Path: parent, Owner: owner}
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return storeError(d, err)
	}
	if err := syncDirectory(filepath.Dir(d.path)); err != nil {
		return storeError(d, err)
	}
	return nil
}

// mayHoldAnother reports whether the directory belongs to another user, holds no store, and
// may be written by this process.
func (d directory) mayHoldAnother() bool {
	names, err := d.names()
	if err != nil || os.Geteuid() == 0 || !isWritable(d.path) {
		return false
	}
	for _, name := range names {
		if name != subdirectory && name != lostAndFound {
			return false
		}
	}
	return true
}

// lostAndFound is in the root of many file systems.
const lostAndFound = "lost+found"

// foreignOwner returns the user that the directory belongs to, or "" if it is this
// process's.
func (d directory) foreignOwner() string {
	info, err := os.Stat(d.path)
	if err != nil {
		return ""
	}
	return foreignOwner(info)
}

// checkPrivate closes the directory to other users, as a process with access to the socket
// can do anything to the queues. It refuses a directory into which other users may have put
// something.
func (d directory) checkPrivate() error {
	info, err := os.Stat(d.path)
	if err != nil {
		return storeError(d, err)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if err := d.checkFormat(); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return storeError(d, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || e.Name() == lostAndFound {
			continue
		}
		if err != nil {
			return storeError(d, err)
		}
		owner := foreignOwner(info)
		if owner != "" {
			return &OwnerError{Path: filepath.Join(d.path, e.Name()), Owner: owner}
		}
		if info.Mode().Type() == fs.ModeSymlink {
			return fmt.Errorf("store in %s: other users may enter the directory (mode %#o), and %s in it is a symbolic link: "+
				"chmod 700 the directory if the link is yours, or name another one", d.path, info.Mode().Perm(), e.Name())
		}
	}
	if err := os.Chmod(d.path, 0o700); err != nil {
		return storeError(d, err)
	}
	return nil
}

// names returns the names of the directory's files.
func (d directory) names() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, storeError(d, err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// checkFormat refuses a store of a newer program, and a directory with other files.
func (d directory) checkFormat() error {
	text, err := os.ReadFile(d.format())
	if errors.Is(err, fs.ErrNotExist) {
		names, err := d.names()
		if err != nil {
			return err
		}
		for _, name := range names {
			if !slices.Contains(storeFiles, name) && name != lostAndFound {
				return fmt.Errorf("store in %s: the directory holds no store but other files, such as %q: name an empty directory", d.path, name)
			}
		}
		return nil
	}
	if err != nil {
		return storeError(d, err)
	}
	var gotLayout, major, minor int
	if _, err := fmt.Sscanf(string(text), "zkq %d\netcd %d.%d\n", &gotLayout, &major, &minor); err != nil || gotLayout < 1 {
		return fmt.Errorf("%s: %q is not a format this program knows: %w", d.format(), text, coord.ErrFormat)
	}
	ourMajor, ourMinor := etcdVersion()
	if gotLayout > layoutVersion || major > ourMajor || major == ourMajor && minor > ourMinor {
		return fmt.Errorf("%s says layout %d of etcd %d.%d, this program knows %d and %d.%d: use a newer zkq: %w",
			d.format(), gotLayout, major, minor, layoutVersion, ourMajor, ourMinor, coord.ErrFormat)
	}
	return nil
}

// writeFormat writes the file FORMAT before the store runs. Only the owner calls it.
func (d directory) writeFormat() error {
	if err := d.checkFormat(); err != nil {
		return err
	}
	major, minor := etcdVersion()
	text := fmt.Sprintf("zkq %d\netcd %d.%d\n", layoutVersion, major, minor)
	if have, err := os.ReadFile(d.format()); err == nil && string(have) == text {
		return nil
	}
	if err := replaceFile(d.format(), text); err != nil {
		return storeError(d, err)
	}
	return nil
}

// replaceFile writes a file whole and durably, or leaves the old one.
func replaceFile(path, text string) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

// etcdVersion returns the version of the etcd that this program links.
func etcdVersion() (major, minor int) {
	v := strings.SplitN(version.Version, ".", 3)
	fmt.Sscan(v[0], &major)
	fmt.Sscan(v[1], &minor)
	return major, minor
}

// endpoint returns the store's address as errors show it.
func (d directory) endpoint() string {
	return (&url.URL{Scheme: "unix", Path: d.sock()}).String()
}

// dial connects to the socket.
func (d directory) dial(ctx context.Context) (net.Conn, error) {
	addr, done, err := socketAddress(d.path)
	if err != nil {
		return nil, err
	}
	defer done()
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", addr)
}

// listen listens on the socket. It removes the socket that an earlier owner left, so only
// the owner may call it.
func (d directory) listen() (*net.UnixListener, error) {
	addr, done, err := socketAddress(d.path)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := os.Remove(d.sock()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: addr, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // addr may not be valid by then
	if err := os.Chmod(d.sock(), 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
