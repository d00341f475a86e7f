package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zkq/zkq/coord"
)

func init() { roles["fill"] = fill }

// fill puts until there is no space, and waits. The argument is a limit of file sizes.
func fill(ctx context.Context, dir, arg string) error {
	if arg != "" {
		limit, err := strconv.ParseUint(arg, 10, 64)
		if err == nil {
			err = unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit})
		}
		if err != nil {
			return err
		}
	}
	c, err := open(ctx, dir)
	if err != nil {
		return err
	}
	s, err := c.Session(ctx)
	if err != nil {
		return err
	}
	value := []byte(strings.Repeat("v", 1000))
	n := 0
	for refused := time.Duration(0); refused < 3*time.Second; {
		var ops []coord.Op
		for i := range 100 {
			ops = append(ops, coord.Create(fmt.Sprintf("/q/entries/e%07d", n+i), value))
		}
		switch _, err := s.Commit(ctx, ops...); {
		case err == nil:
			n += len(ops)
			refused = 0
		case errors.Is(err, coord.ErrBusy) && !errors.Is(err, coord.ErrUnknown):
			refused += 50 * time.Millisecond
			time.Sleep(50 * time.Millisecond)
		default:
			return errors.Join(err, c.Close())
		}
	}
	fmt.Println("full", n)
	<-ctx.Done()
	return c.Close()
}

// smallDisk mounts a file system of 48 MB, or returns "" where that is not allowed.
func smallDisk(t *testing.T) string {
	dir, err := os.MkdirTemp("", "zkq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=48m"); err != nil {
		t.Logf("no small disk (%v): tested with a limit of file sizes alone", err)
		return ""
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDiskRefusesPutsAndNothingElse(t *testing.T) {
	disk := smallDisk(t)
	if disk == "" {
		return
	}
	dir := filepath.Join(disk, "q")
	filler := start(t, "fill", dir, "")
	left := drained(t, dir, filler, 200)

	// Another program takes all that is left.
	junk := filepath.Join(disk, "junk")
	f, err := os.Create(junk)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	f.Close()
	c, s := session(t, dir)
	left = takeAndFinish(t, s, left, 200)
	holder := start(t, "hold", dir, "/q/taken/x") // a new process can join
	holder.expect("held")
	holder.rest()
	notPut(t, s)
	filler.killed() // and one can take over
	eventually(t, patience, "another process runs the store", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := s.Count(ctx, "/q/entries"); err != nil {
			_, why := open(t.Context(), dir)
			t.Log(why)
		}
		return owner(dir) == os.Getpid()
	})
	left = takeAndFinish(t, s, left, 200)
	present(t, s, left)
	if err := os.Remove(junk); err != nil {
		t.Fatal(err)
	}
	removeAll(t, s, left)
	putAgain(t, s)
	c.Close()
	_, s = session(t, dir)
	if _, err := s.Get(t.Context(), "/q/entries/again"); err != nil {
		t.Error(err)
	}
}

func TestFileSizeLimitRefusesPutsAndNothingElse(t *testing.T) {
	dir := newDir(t)
	filler := start(t, "fill", dir, strconv.Itoa(28<<20))
	left := drained(t, dir, filler, 200)
	_, s := session(t, dir)
	removeAll(t, s, left)
	putAgain(t, s)
	if pid := owner(dir); pid != filler.pid() {
		t.Errorf("the process %d with the limit does not run the store any more, %d does", filler.pid(), pid)
	}
	filler.rest()
}

func TestFileSizeLimitThatIsTooLowIsNamed(t *testing.T) {
	dir := newDir(t)
	for range 2 {
		p := start(t, "fill", dir, strconv.Itoa(8<<20))
		if why := p.expect("error"); !contains(why, "ulimit -f", "8.0 MiB") {
			t.Errorf("said %q", why)
		}
	}
	session(t, dir) // which has no limit
}

func owner(dir string) int {
	b, _ := os.ReadFile(dir + "/lock")
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// drained has the filler fill the store, and checks that n entries can be taken and
// finished then, and nothing be put. It returns the nodes of the entries that are left.
func drained(t *testing.T, dir string, filler *process, n int) []coord.Node {
	t.Helper()
	put, err := strconv.Atoi(filler.expect("full"))
	if err != nil || put < 1000 {
		t.Fatalf("%d entries were put, %v", put, err)
	}
	c, s := session(t, dir)
	defer c.Close()
	l, err := s.List(t.Context(), "/q/entries", coord.ListOptions{Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Nodes) != put {
		t.Errorf("%d entries were acknowledged, %d are there", put, len(l.Nodes))
	}
	notPut(t, s)
	left := takeAndFinish(t, s, l.Nodes, n)
	present(t, s, left)
	t.Logf("%d entries were put", put)
	return left
}

// notPut checks that there is no space for as much as was refused before.
func notPut(t *testing.T, s coord.Session) {
	t.Helper()
	_, err := s.Commit(t.Context(), coord.Create("/q/entries/more", make([]byte, 300_000)))
	if !errors.Is(err, coord.ErrBusy) || errors.Is(err, coord.ErrUnknown) {
		t.Errorf("a put without space: %v", err)
	}
}

// takeAndFinish locks and removes n entries, one after the other.
func takeAndFinish(t *testing.T, s coord.Session, nodes []coord.Node, n int) []coord.Node {
	t.Helper()
	for _, e := range nodes[:n] {
		taken := strings.Replace(e.Path, "/entries/", "/taken/", 1)
		r, err := s.Commit(t.Context(), coord.Touch(e.Path, nil, e.Fence), coord.CreateEphemeral(taken, nil))
		if err != nil {
			t.Fatalf("take: %v", err)
		}
		if _, err := s.Commit(t.Context(), coord.Delete(taken, r[1].Fence), coord.Delete(e.Path, r[0].Fence)); err != nil {
			t.Fatalf("finish: %v", err)
		}
	}
	return nodes[n:]
}

func present(t *testing.T, s coord.Session, left []coord.Node) {
	t.Helper()
	if have, err := s.Count(t.Context(), "/q/entries"); err != nil || have != len(left) {
		t.Errorf("%d entries, %v; want %d", have, err, len(left))
	}
}

func removeAll(t *testing.T, s coord.Session, left []coord.Node) {
	t.Helper()
	for some := range slices.Chunk(left, 100) {
		var ops []coord.Op
		for _, e := range some {
			ops = append(ops, coord.Delete(e.Path, e.Fence))
		}
		if _, err := s.Commit(t.Context(), ops...); err != nil {
			t.Fatalf("remove: %v", err)
		}
	}
}

// putAgain puts when there is room again, which the store makes by itself.
func putAgain(t *testing.T, s coord.Session) {
	t.Helper()
	var err error
	eventually(t, patience, "there is room to put", func() bool {
		_, err = s.Commit(t.Context(), coord.Create("/q/entries/again", []byte(strings.Repeat("v", 100_000))))
		if err != nil && !errors.Is(err, coord.ErrBusy) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// asNobody copies the test binary to where another user may run it, and returns how to
// start it as that user.
func asNobody(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Dir(newDir(t)) + "/test"
	if err := errors.Join(os.WriteFile(copied, b, 0o755), os.Chmod(filepath.Dir(copied), 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(copied)
	cmd.Dir = "/"
	cmd.Env = []string{roleEnv + "=" + role, dirEnv + "=" + dir, argEnv + "=/x"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if _, err := cmd.StdinPipe(); err != nil { // its end would ask the process to leave
		t.Fatal(err)
	}
	return cmd
}

const nobody = 65534
