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

// directory is where a store lives:
//
//	FORMAT     the layout's version and the etcd that wrote it last
//	lock       locked by the process that runs the store, whose pid it holds
//	sock       where that process listens
//	sessions/  a file per session, locked by the process that holds it
//	data/      etcd's own
type directory struct{ path string }

const layout = 1

func (d directory) format() string     { return filepath.Join(d.path, "FORMAT") }
func (d directory) lock() string       { return filepath.Join(d.path, "lock") }
func (d directory) sock() string       { return filepath.Join(d.path, "sock") }
func (d directory) data() string       { return filepath.Join(d.path, "data") }
func (d directory) sessions() sessions { return sessions{filepath.Join(d.path, "sessions")} }

var ours = []string{"FORMAT", "FORMAT.new", "lock", "sock", "sessions", "data"}

// openDirectory makes the directory where there is none, and checks that it may
// hold a store of ours.
func openDirectory(path string) (directory, error) {
	if err := supported(); err != nil {
		return directory{}, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return directory{}, fmt.Errorf("store in %q: %w", path, err)
	}
	d := directory{abs}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return d, fmt.Errorf("make the store's directory: %w", err)
	}
	if err := d.checkPrivate(); err != nil {
		return d, err
	}
	if err := d.checkFormat(); err != nil {
		return d, err
	}
	if err := os.MkdirAll(d.sessions().path, 0o700); err != nil {
		return d, fmt.Errorf("store in %s: %w", abs, err)
	}
	return d, nil
}

// checkPrivate refuses a store that others may enter, and closes the door of an
// empty directory: whoever gets at the socket can do anything to the queues.
func (d directory) checkPrivate() error {
	st, err := os.Stat(d.path)
	if err != nil {
		return fmt.Errorf("store in %s: %w", d.path, err)
	}
	if st.Mode().Perm()&0o077 == 0 {
		return nil
	}
	names, err := d.names()
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if st, err = os.Stat(d.path); err == nil && st.Mode().Perm()&0o077 == 0 {
			return nil // another process was about to make it a store
		}
		return fmt.Errorf("store in %s: others than its user may enter the directory (mode %#o): chmod 700 it, or name another one", d.path, st.Mode().Perm())
	}
	if err := os.Chmod(d.path, 0o700); err != nil {
		return fmt.Errorf("store in %s: %w", d.path, err)
	}
	return nil
}

func (d directory) names() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("store in %s: %w", d.path, err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// checkFormat refuses what a newer program wrote, and directories that hold
// something else than a store.
func (d directory) checkFormat() error {
	text, err := os.ReadFile(d.format())
	if errors.Is(err, fs.ErrNotExist) {
		names, err := d.names()
		if err != nil {
			return err
		}
		for _, name := range names {
			if !slices.Contains(ours, name) {
				return fmt.Errorf("store in %s: there is no store in it but other files, such as %q: name an empty directory", d.path, name)
			}
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("store in %s: %w", d.path, err)
	}
	var gotLayout, major, minor int
	if _, err := fmt.Sscanf(string(text), "zkq %d\netcd %d.%d\n", &gotLayout, &major, &minor); err != nil || gotLayout < 1 {
		return fmt.Errorf("%s: %q is not a format this program knows: %w", d.format(), text, coord.ErrFormat)
	}
	ourMajor, ourMinor := etcdVersion()
	if gotLayout > layout || major > ourMajor || major == ourMajor && minor > ourMinor {
		return fmt.Errorf("%s says layout %d of etcd %d.%d, this program knows %d and %d.%d: use a newer zkq: %w",
			d.format(), gotLayout, major, minor, layout, ourMajor, ourMinor, coord.ErrFormat)
	}
	return nil
}

// adopt prepares the directory for the store. Only the owner calls it.
func (d directory) adopt() error {
	if err := d.checkFormat(); err != nil {
		return err
	}
	major, minor := etcdVersion()
	text := fmt.Sprintf("zkq %d\netcd %d.%d\n", layout, major, minor)
	if have, err := os.ReadFile(d.format()); err == nil && string(have) == text {
		return nil
	}
	if err := replaceFile(d.format(), text); err != nil {
		return unreachable(d, err)
	}
	return nil
}

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
	return os.Rename(path+".new", path)
}

func etcdVersion() (major, minor int) {
	v := strings.SplitN(version.Version, ".", 3)
	fmt.Sscan(v[0], &major)
	fmt.Sscan(v[1], &minor)
	return major, minor
}

// endpoint is how the store's address reads in errors.
func (d directory) endpoint() string {
	return (&url.URL{Scheme: "unix", Path: d.sock()}).String()
}

func (d directory) dial(ctx context.Context) (net.Conn, error) {
	addr, done, err := socketAddress(d.path)
	if err != nil {
		return nil, err
	}
	defer done()
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", addr)
}

// listen may be called by the owner alone: it removes the socket that an earlier
// one left.
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
	l.SetUnlinkOnClose(false) // addr may mean nothing by then
	if err := os.Chmod(d.sock(), 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
