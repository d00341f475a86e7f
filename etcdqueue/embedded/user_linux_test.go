package embedded_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue/embedded"
)

func TestStoreOfAnotherUserIsRefused(t *testing.T) {
	dir := "/" // root's
	if os.Geteuid() == 0 {
		dir = newDir(t)
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, nobody, nobody)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := open(t.Context(), dir)
	foreign := (*embedded.OwnerError)(nil)
	if !errors.As(err, &foreign) || foreign.Path != dir || foreign.Owner == "" || !errors.Is(err, coord.ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
	if !contains(foreign.Hint(), "sudo -u "+foreign.Owner) {
		t.Errorf("the hint is %q", foreign.Hint())
	}
	if os.Geteuid() != 0 {
		return
	}
	// root makes no store in it either, which would lock the user out.
	if _, err := open(t.Context(), dir+"/a/b"); !errors.As(err, &foreign) || foreign.Path != dir {
		t.Errorf("below the directory of another user: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("something was made there: %v, %v", entries, err)
	}
}

// A volume of a container belongs to root, and its group may write to it. The root of a
// file system has lost+found in it.
func TestVolumeOfAnotherUserHasTheStoreBelow(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can make a directory of another user's")
		return
	}
	dir := newDir(t)
	if err := errors.Join(os.Mkdir(dir, 0o770), os.Chown(dir, 0, nobody), os.Chmod(dir, 0o770|os.ModeSetgid), os.Chmod(filepath.Dir(dir), 0o755),
		os.Mkdir(dir+"/lost+found", 0o700)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if out, err := asNobody(t, "create", dir).CombinedOutput(); err != nil && !contains(string(out), "node exists") {
			t.Fatalf("%v: %s", err, out)
		}
		if info, err := os.Stat(dir + "/store"); err != nil || info.Mode().Perm() != 0o700 {
			t.Fatalf("the store's directory is %v, %v", info, err)
		}
		if err := os.Chmod(dir+"/store", 0o770|os.ModeSetgid); err != nil { // as kubelet does at the next start
			t.Fatal(err)
		}
	}
}

// What root once left in a user's store is named at once.
func TestFilesOfAnotherUserAreAnAnswer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can make a file of another user's")
		return
	}
	dir := newDir(t)
	c, err := open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lock := dir + "/lock"
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chown(dir, nobody, nobody), os.Chown(dir+"/sessions", nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	for _, open := range []func() error{
		func() error { return nil },
		func() error { return os.Chown(lock, nobody, nobody) }, // now the socket alone is root's
	} {
		if err := open(); err != nil {
			t.Fatal(err)
		}
		cmd := asNobody(t, "create", dir)
		began := time.Now()
		out, err := cmd.CombinedOutput()
		if err == nil || !contains(string(out), "permission denied") {
			t.Errorf("%v: %s", err, out)
		}
		if took := time.Since(began); took > patience/2 { // its connect timeout is twice as long
			t.Errorf("told after %v", took)
		}
	}
}
