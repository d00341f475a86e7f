package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue/embedded"
)

func TestDirectoryIsForItsUserAlone(t *testing.T) {
	dir := newDir(t)
	c, _ := session(t, dir)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // etcd renames its files as it goes
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		if e.IsDir() && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if path == filepath.Join(dir, "sock") && info.Mode().Perm() != 0o600 {
			t.Errorf("the socket has mode %v", info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()

	// As systemd and kubelet do at each start.
	for _, mode := range []os.FileMode{0o755, 0o770 | os.ModeSetgid} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		c, _ := session(t, dir)
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the mode was %v and is %v, %v", mode, info.Mode(), err)
		}
		c.Close()
	}
}

func TestOpenDirectoryWithALinkInItIsRefused(t *testing.T) {
	dir := newDir(t)
	c, _ := session(t, dir)
	c.Close()
	if err := errors.Join(os.Rename(dir+"/data", dir+"/../other"), os.Symlink("../other", dir+"/data"), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("opened, or for another reason: %v", err)
	}
}

func TestEmptyDirectoryIsTakenAndClosedToOthers(t *testing.T) {
	dir := newDir(t)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	session(t, dir)
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestDirectoryWithOtherThingsIsRefused(t *testing.T) {
	dir := newDir(t)
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(dir+"/thesis.tex", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "thesis.tex") {
		t.Errorf("opened, or for another reason: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("something was put there: %v", entries)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	dir := newDir(t)
	c, _ := session(t, dir)
	c.Close()
	format := filepath.Join(dir, "FORMAT")
	good, err := os.ReadFile(format)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"zkq 2\netcd 3.0\n", "zkq 1\netcd 3.99\n", "zkq 1\netcd 4.0\n", "something else\n", ""} {
		if err := os.WriteFile(format, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t.Context(), dir); !errors.Is(err, coord.ErrFormat) {
			t.Errorf("FORMAT %q: %v", text, err)
		}
	}
	for _, text := range []string{"zkq 1\netcd 3.0\n", string(good)} {
		if err := os.WriteFile(format, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := open(t.Context(), dir)
		if err != nil {
			t.Fatalf("FORMAT %q: %v", text, err)
		}
		c.Close()
		if now, err := os.ReadFile(format); err != nil || string(now) != string(good) {
			t.Errorf("FORMAT is %q now, %v", now, err)
		}
	}
}

func TestLongPathAndOddNames(t *testing.T) {
	for _, name := range []string{strings.Repeat("long/", 60) + "q", "a b%2F?x=1#ü", "@q"} {
		dir := newDir(t) + "/" + name
		other := start(t, "join", dir, "")
		other.expect("open")
		_, s := session(t, dir)
		if _, err := s.Commit(t.Context(), coord.Create("/x", nil)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		other.rest()
		if _, err := s.Get(t.Context(), "/x"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBrokenStoreSaysWhatIsWrong(t *testing.T) {
	for name, damage := range map[string]func([]byte){
		"one record": func(b []byte) { b[512] ^= 0xff }, // with others behind it
		"everything": func(b []byte) { copy(b, strings.Repeat("garbage ", len(b)/8)) },
	} {
		dir := newDir(t)
		c, _ := session(t, dir)
		c.Close()
		logs, err := filepath.Glob(dir + "/data/member/wal/*.wal")
		if err != nil || len(logs) == 0 {
			t.Fatal(logs, err)
		}
		for _, path := range logs {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damage(b)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // the first may not stand in the way of the second
			p := start(t, "join", dir, "")
			if why := p.expect("error"); !strings.Contains(why, dir+"/data") {
				t.Errorf("%s: said %q", name, why)
			} else {
				t.Logf("%s: %s", name, why)
			}
		}
		if name == "one record" { // which etcd reports, and cleans up after itself
			for range 2 {
				began := time.Now()
				if _, err := open(t.Context(), dir); !errors.Is(err, coord.ErrUnreachable) {
					t.Error(err)
				}
				if took := time.Since(began); took > patience/2 {
					t.Errorf("took %v to say so", took)
				}
			}
		}
	}
}

func TestUnusableDirectorySaysWhatIsWrong(t *testing.T) {
	dir := newDir(t)
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(dir+"/lock", 0o700)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err := open(t.Context(), dir)
	if !errors.Is(err, coord.ErrUnreachable) || !strings.Contains(err.Error(), "lock") {
		t.Error(err)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("took %v to say so", took)
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	dir := newDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := embedded.Open(ctx, embedded.Config{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// At a hundred requests etcd removes the first of its log from memory. A store that has
// no snapshot then would begin its next start with what is gone, and may panic.
func TestANewStoreHasASnapshotBeforeItsLogIsCut(t *testing.T) {
	dir := newDir(t)
	c, s := session(t, dir)
	for i := range 96 {
		if _, err := s.Commit(t.Context(), coord.Create(fmt.Sprint("/n/", i), nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	snapshots, err := filepath.Glob(filepath.Join(dir, "data", "member", "snap", "*.snap"))
	if err != nil || len(snapshots) == 0 {
		t.Errorf("snapshots %v, %v", snapshots, err)
	}
	for range 3 { // and it starts again
		c, s = session(t, dir)
		if n, err := s.Count(t.Context(), "/n"); err != nil || n != 96 {
			t.Errorf("%d nodes, %v", n, err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A queue that is used stays small, whatever went through it.
func TestDirectoryStaysSmall(t *testing.T) {
	entries := 100_000
	if testing.Short() {
		entries = 10_000
	}
	dir := newDir(t)
	c, s := session(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	value := []byte(strings.Repeat("v", 100))
	const batch = 10
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range 16 {
		wg.Go(func() {
			for {
				first := next.Add(batch) - batch
				if first >= int64(entries) || ctx.Err() != nil {
					return
				}
				var puts, consumes []coord.Op
				for i := range int64(batch) {
					puts = append(puts, coord.Create(fmt.Sprintf("/q/entries/e%07d", first+i), value))
				}
				put, err := s.Commit(ctx, puts...)
				if err != nil {
					t.Errorf("put: %v", err)
					return
				}
				for _, r := range put {
					consumes = append(consumes, coord.Delete(r.Path, r.Fence))
				}
				if _, err := s.Commit(ctx, consumes...); err != nil {
					t.Errorf("consume: %v", err)
					return
				}
			}
		})
	}
	largest := int64(0)
	measured := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(measured)
		for {
			largest = max(largest, size(dir))
			select {
			case <-done:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	wg.Wait()
	took := time.Since(began)
	close(done)
	<-measured
	end := size(dir)
	t.Logf("%d entries in %v: at most %d MB, %d MB at the end", entries, took, largest>>20, end>>20)
	if ctx.Err() != nil {
		t.Fatal("not done in time")
	}
	if largest > 200<<20 {
		t.Errorf("the directory grew to %d bytes", largest)
	}
	c.Close()
	began = time.Now()
	c, err := open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("opened again in %v", time.Since(began))
	c.Close()
}

// size is what the directory takes on the disk.
func size(dir string) (n int64) {
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil {
			n += allocated(info)
		}
		return nil
	})
	return n
}
